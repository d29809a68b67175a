"""Random tree ensembles in the two forms that ai.onnx.ml has, and a plain walk down their trees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
VALUES = np.arange(-2, 3) * 0.5
"""What branches compare with and features are, so that they are often equal."""


@dataclass
class Leaf:
    """``votes``: (target, weight)."""

    votes: list[tuple[int, float]]


@dataclass
class Branch:
    mode: str
    feature: int
    value: float
    missing: bool
    true: Branch | Leaf
    false: Branch | Leaf
    members: list[float] = field(default_factory=list)


def tree(
    rng: np.random.Generator, depth: int, targets: list[int], modes: list[str], features: int = 3
) -> Branch | Leaf:
    """Branches end at random, and at ``depth`` at the latest."""
    if depth == 0 or rng.random() < 0.2:
        return Leaf([(t, float(np.float32(rng.uniform(-1, 1)))) for t in targets])
    members = rng.choice(np.arange(-3, 70), 4).tolist() if "BRANCH_MEMBER" in modes else []
    sides = (tree(rng, depth - 1, targets, modes, features) for _ in range(2))
    return Branch(
        str(rng.choice(modes)),
        int(rng.integers(features)),
        float(rng.choice(VALUES)),
        bool(rng.random() < 0.5),
        *sides,
        members,
    )


def forest(
    seed: int, count: int, targets: int, modes: list[str], depth: int = 4, boosted: bool = False
) -> list[Branch | Leaf]:
    """``boosted``: the leaves of a tree vote for one target, by turns; else for all."""
    rng = np.random.default_rng(seed)
    return [tree(rng, depth, [k % targets] if boosted else list(range(targets)), modes) for k in range(count)]


def data(rows: int, dtype: Any = np.float32, missing: bool = False) -> np.ndarray:
    rng = np.random.default_rng(9)
    x = rng.choice(VALUES, (rows, 3)) * (1 if np.dtype(dtype).kind == "f" else 2)
    x = x.astype(dtype)
    if missing:
        x[rng.random(x.shape) < 0.3] = np.nan
    return x


# As attributes --------------------------------------------------------------------------------------------------------


def by_ids(trees: list[Branch | Leaf], votes: str, double: bool = False, missing: bool = False) -> dict[str, Any]:
    """For TreeEnsembleClassifier ("class") and TreeEnsembleRegressor ("target"). Node ids count from 0 in each tree."""
    columns = ("treeids", "nodeids", "modes", "featureids", "values", "truenodeids", "falsenodeids")
    nodes: dict[str, list[Any]] = {f"nodes_{c}": [] for c in columns}
    tracks: list[int] = []
    given: dict[str, list[Any]] = {f"{votes}_{c}": [] for c in ("treeids", "nodeids", "ids", "weights")}

    def add(number: int, node: Branch | Leaf) -> int:
        place = len(tracks)
        tracks.append(0)
        own = nodes["nodes_treeids"].count(number)
        for column, value in zip(nodes.values(), (number, own, "LEAF", 0, 0.0, 0, 0), strict=True):
            column.append(value)
        if isinstance(node, Leaf):
            for target, weight in node.votes:
                for column, value in zip(given.values(), (number, own, target, weight), strict=True):
                    column.append(value)
            return own
        tracks[place] = int(node.missing)
        nodes["nodes_modes"][place], nodes["nodes_featureids"][place] = node.mode, node.feature
        nodes["nodes_values"][place] = node.value
        nodes["nodes_truenodeids"][place] = add(number, node.true)
        nodes["nodes_falsenodeids"][place] = add(number, node.false)
        return own

    for number, root in enumerate(trees):
        add(number, root)
    attributes: dict[str, Any] = {**nodes, **given}
    if votes == "target":
        attributes["n_targets"] = 1 + max(given["target_ids"], default=0)
    if missing:
        attributes["nodes_missing_value_tracks_true"] = tracks
    if double:
        for name in ("nodes_values", f"{votes}_weights"):
            attributes[f"{name}_as_tensor"] = np.array(attributes.pop(name), np.float64)
    return attributes


def by_positions(trees: list[Branch | Leaf], dtype: Any = np.float32, missing: bool = False) -> dict[str, Any]:
    """For TreeEnsemble, whose leaves vote once. A tree that is a leaf becomes a branch with that leaf on both sides."""
    numbers = {mode: k for k, mode in enumerate([*MODES, "BRANCH_MEMBER"])}
    columns = ("modes", "featureids", "splits", "truenodeids", "falsenodeids", "trueleafs", "falseleafs")
    nodes: dict[str, list[Any]] = {f"nodes_{c}": [] for c in columns}
    tracks: list[int] = []
    leaves: list[tuple[int, float]] = []
    members: list[float] = []

    def add(node: Branch | Leaf) -> tuple[int, int]:
        """(position, whether it is a leaf's)."""
        if isinstance(node, Leaf):
            leaves.extend(node.votes)
            return len(leaves) - 1, 1
        place = len(tracks)
        tracks.append(int(node.missing))
        for column, value in zip(nodes.values(), (numbers[node.mode], node.feature, node.value, *[0] * 4), strict=True):
            column.append(value)
        if node.mode == "BRANCH_MEMBER":
            members.extend([*node.members, np.nan])
        for side in ("true", "false"):
            position, is_leaf = add(getattr(node, side))
            nodes[f"nodes_{side}nodeids"][place], nodes[f"nodes_{side}leafs"][place] = position, is_leaf
        return place, 0

    roots = []
    for root in trees:
        if isinstance(root, Leaf):
            position, _ = add(root)
            for column, value in zip(nodes.values(), (0, 0, 0.0, position, position, 1, 1), strict=True):
                column.append(value)
            tracks.append(0)
            roots.append(len(tracks) - 1)
        else:
            roots.append(add(root)[0])
    attributes: dict[str, Any] = {
        **nodes,
        "nodes_modes": np.array(nodes["nodes_modes"], np.uint8),
        "nodes_splits": np.array(nodes["nodes_splits"], dtype),
        "tree_roots": roots,
        "leaf_targetids": [t for t, _ in leaves],
        "leaf_weights": np.array([w for _, w in leaves], dtype),
    }
    if missing:
        attributes["nodes_missing_value_tracks_true"] = tracks
    if members:
        attributes["membership_values"] = np.array(members, dtype)
    return attributes


# By hand --------------------------------------------------------------------------------------------------------------

_COMPARE = {
    "BRANCH_LEQ": lambda x, b: x <= b.value,
    "BRANCH_LT": lambda x, b: x < b.value,
    "BRANCH_GTE": lambda x, b: x >= b.value,
    "BRANCH_GT": lambda x, b: x > b.value,
    "BRANCH_EQ": lambda x, b: x == b.value,
    "BRANCH_NEQ": lambda x, b: x != b.value,
    "BRANCH_MEMBER": lambda x, b: x in b.members,
}


def walked(trees: list[Branch | Leaf], x: np.ndarray, targets: int, missing: bool = False) -> np.ndarray:
    """Sums of the votes, row by row and tree by tree: [N, targets]."""
    scores = np.zeros((len(x), targets))
    for n, row in enumerate(x):
        for node in trees:
            while isinstance(node, Branch):
                value = row[node.feature]
                true = bool(_COMPARE[node.mode](value, node)) or (missing and node.missing and bool(np.isnan(value)))
                node = node.true if true else node.false
            for target, weight in node.votes:
                scores[n, target] += weight
    return scores
