"""Ensembles of decision trees, as ai.onnx.ml writes them down, checked and brought into one form.

An `Ensemble` numbers its branches 0 .. B - 1 and its leaves B .. B + L - 1, over all trees. Every index of the model is
looked at here, once: what is made of an ensemble may follow it without tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omniop.opset.errors import ModelError

# Which of IEEE 754's four relations between a feature and a node's value lead to the true branch.
LESS, EQUAL, GREATER, UNORDERED = 1, 2, 4, 8

RELATIONS = {
    "BRANCH_LEQ": LESS | EQUAL,
    "BRANCH_LT": LESS,
    "BRANCH_GTE": GREATER | EQUAL,
    "BRANCH_GT": GREATER,
    "BRANCH_EQ": EQUAL,
    "BRANCH_NEQ": LESS | GREATER | UNORDERED,
}
"""In the order in which TreeEnsemble numbers them."""

MEMBER = 6
"""TreeEnsemble's number of BRANCH_MEMBER, which comes after them."""

MAX_FEATURES = 1 << 26

MAX_SET_SPAN = 1 << 16
"""A set of whole numbers is kept as bits when its greatest and least are closer than this."""


@dataclass(frozen=True)
class Branches:
    """Arrays of one element per branch. ``true`` and ``false`` are numbers of the ensemble: a leaf's is B or above.

    ``relation``: bits of LESS, EQUAL, GREATER, UNORDERED. ``bits``: a set's place in `Ensemble.sets`, or -1 where the
    feature is compared with ``value``; of ``relation`` such a branch uses UNORDERED alone.
    """

    feature: np.ndarray
    value: np.ndarray
    relation: np.ndarray
    true: np.ndarray
    false: np.ndarray
    bits: np.ndarray


@dataclass(frozen=True)
class Votes:
    """What leaves give, one vote an element: ``leaf`` counts from 0."""

    leaf: np.ndarray
    target: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Ensemble:
    """``sets``: for each set of whole numbers the least of them, how many bits follow, and 32 of those to a word."""

    branches: Branches
    roots: np.ndarray
    votes: Votes
    leaves: int
    depth: int
    """Branches on the longest way from a root to a leaf."""
    sets: np.ndarray

    @property
    def count(self) -> int:
        """Branches."""
        return len(self.branches.feature)


# Arrays of attributes -------------------------------------------------------------------------------------------------


def _same_length(label: str, arrays: Mapping[str, np.ndarray]) -> None:
    lengths = {name: len(a) for name, a in arrays.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{n} {k}" for n, k in lengths.items())
        raise ModelError(f"{label}: arrays that belong together differ in length: {shown}")


def _in_range(label: str, name: str, values: np.ndarray, limit: int) -> None:
    bad = values[(values < 0) | (values >= limit)]
    if bad.size:
        raise ModelError(f"{label}: {name} holds {int(bad[0])}, which is outside of 0..{limit - 1}")


def _array(values: Any, dtype: type) -> np.ndarray:
    return np.asarray(() if values is None else values).reshape(-1).astype(dtype)


def _one_of(attributes: Mapping[str, Any], label: str, name: str) -> np.ndarray:
    """FLOATS, or the tensor that stands for them under ``name`` + "_as_tensor"."""
    given, tensor = attributes.get(name), attributes.get(f"{name}_as_tensor")
    if given is not None and tensor is not None:
        raise ModelError(f"{label}: {name} and {name}_as_tensor are both there, and one is needed")
    return _array(given if tensor is None else tensor, np.float64)


def _relation(mode: np.ndarray, value: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The relations of comparing branches by the number of their mode. ``missing``: NaN leads to the true branch.

    A value that is itself NaN is related to nothing: its branch goes one way for all numbers.
    """
    known = np.array([*RELATIONS.values(), 0], np.uint8)[mode]
    nowhere = np.where(known & UNORDERED, LESS | EQUAL | GREATER | UNORDERED, 0).astype(np.uint8)
    return np.where(np.isnan(value), nowhere, known) | np.where(missing, UNORDERED, 0).astype(np.uint8)


# TreeEnsembleClassifier and TreeEnsembleRegressor ---------------------------------------------------------------------


def by_node_ids(attributes: Mapping[str, Any], label: str, votes: str, targets: int) -> Ensemble:
    """The ensemble of nodes that are named by tree and node ids. ``votes``: how the leaves' attributes begin, "class"
    or "target"; ``targets``: how many of them there are.

    Votes of branches are dropped: no row ends there. Raises ModelError for whatever does not fit.
    """
    names = ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
    nodes = {f"nodes_{n}": _array(attributes.get(f"nodes_{n}"), np.int64) for n in names}
    modes = np.array(attributes.get("nodes_modes") or (), object)
    values = _one_of(attributes, label, "nodes_values")
    missing = _array(attributes.get("nodes_missing_value_tracks_true"), np.int64)
    missing = missing if missing.size else np.zeros(len(modes), np.int64)
    _same_length(label, {**nodes, "nodes_modes": modes, "nodes_values": values, "nodes_missing_...": missing})
    numbers = {mode: k for k, mode in enumerate(RELATIONS)} | {"LEAF": -1}
    unknown = [m for m in modes if m not in numbers]
    if unknown:
        raise ModelError(f"{label}: nodes_modes holds {unknown[0]!r}; known are {', '.join(numbers)}")
    kind = np.array([numbers[m] for m in modes], np.int64)
    trees = nodes["nodes_treeids"]
    place = _places(label, trees, nodes["nodes_nodeids"])
    is_branch = kind >= 0
    number = np.empty(len(kind), np.int64)
    number[is_branch] = np.arange(is_branch.sum())
    number[~is_branch] = is_branch.sum() + np.arange((~is_branch).sum())
    ends = {}
    for side in ("true", "false"):
        wanted = zip(trees[is_branch].tolist(), nodes[f"nodes_{side}nodeids"][is_branch].tolist(), strict=True)
        ends[side] = number[_look_up(label, place, wanted, f"nodes_{side}nodeids")]
    value = values[is_branch]
    branches = Branches(
        nodes["nodes_featureids"][is_branch],
        np.nan_to_num(value, nan=0.0, posinf=np.inf, neginf=-np.inf),
        _relation(kind[is_branch], value, missing[is_branch] != 0),
        ends["true"],
        ends["false"],
        np.full(is_branch.sum(), -1, np.int64),
    )
    roots = _roots(label, trees, number, branches)
    made = _votes(attributes, label, votes, targets, place, number, int(is_branch.sum()))
    return _ensemble(label, branches, roots, made, int((~is_branch).sum()), np.zeros(0, np.int64))


def _places(label: str, trees: np.ndarray, ids: np.ndarray) -> dict[tuple[int, int], int]:
    place: dict[tuple[int, int], int] = {}
    for k, key in enumerate(zip(trees.tolist(), ids.tolist(), strict=True)):
        if place.setdefault(key, k) != k:
            raise ModelError(f"{label}: tree {key[0]} has two nodes of id {key[1]}")
    return place


def _look_up(
    label: str, place: Mapping[tuple[int, int], int], wanted: Iterator[tuple[int, int]], name: str
) -> np.ndarray:
    try:
        return np.array([place[key] for key in wanted], np.int64)
    except KeyError as missing:
        tree, node = missing.args[0]
        raise ModelError(f"{label}: {name} holds {node}, and tree {tree} has no such node") from None


def _roots(label: str, trees: np.ndarray, number: np.ndarray, branches: Branches) -> np.ndarray:
    """Of each tree, in the order they begin, the one node that no branch leads to."""
    is_child = np.zeros(len(number), bool)
    is_child[np.concatenate([branches.true, branches.false])] = True
    roots: dict[int, int] = {}
    for tree, node in zip(trees.tolist(), number.tolist(), strict=True):
        if not is_child[node] and roots.setdefault(tree, node) != node:
            raise ModelError(f"{label}: tree {tree} has two nodes that no branch leads to, and one root is needed")
    order = list(dict.fromkeys(trees.tolist()))
    rootless = [t for t in order if t not in roots]
    if rootless:
        raise ModelError(f"{label}: the branches of tree {rootless[0]} lead round in a circle")
    return np.array([roots[t] for t in order], np.int64)


def _votes(
    attributes: Mapping[str, Any],
    label: str,
    prefix: str,
    targets: int,
    place: Mapping[tuple[int, int], int],
    number: np.ndarray,
    branches: int,
) -> Votes:
    arrays = {f"{prefix}_{n}": _array(attributes.get(f"{prefix}_{n}"), np.int64) for n in ("treeids", "nodeids", "ids")}
    weights = _one_of(attributes, label, f"{prefix}_weights")
    _same_length(label, {**arrays, f"{prefix}_weights": weights})
    trees, ids, target = arrays.values()
    _in_range(label, f"{prefix}_ids", target, targets)
    nodes = number[_look_up(label, place, zip(trees.tolist(), ids.tolist(), strict=True), f"{prefix}_nodeids")]
    at_leaf = nodes >= branches
    return Votes(nodes[at_leaf] - branches, target[at_leaf], weights[at_leaf])


# TreeEnsemble ---------------------------------------------------------------------------------------------------------


def by_positions(attributes: Mapping[str, Any], label: str) -> Ensemble:
    """The ensemble of TreeEnsemble, whose branches and leaves are named by their positions.

    Raises ModelError for whatever does not fit.
    """
    names = ("featureids", "truenodeids", "falsenodeids", "trueleafs", "falseleafs")
    nodes = {f"nodes_{n}": _array(attributes.get(f"nodes_{n}"), np.int64) for n in names}
    mode, value = _array(attributes.get("nodes_modes"), np.int64), _array(attributes.get("nodes_splits"), np.float64)
    missing = _array(attributes.get("nodes_missing_value_tracks_true"), np.int64)
    missing = missing if missing.size else np.zeros(len(mode), np.int64)
    _same_length(label, {**nodes, "nodes_modes": mode, "nodes_splits": value, "nodes_missing_...": missing})
    target, weight = _array(attributes.get("leaf_targetids"), np.int64), _array(attributes.get("leaf_weights"), float)
    _same_length(label, {"leaf_targetids": target, "leaf_weights": weight})
    targets = attributes.get("n_targets") or 1
    roots = _array(attributes.get("tree_roots"), np.int64)
    count, leaves = len(mode), len(weight)
    _in_range(label, "nodes_modes", mode, MEMBER + 1)
    _in_range(label, "leaf_targetids", target, targets)
    _in_range(label, "tree_roots", roots, count)
    ends = {}
    for side in ("true", "false"):
        ids, at_leaf = nodes[f"nodes_{side}nodeids"], nodes[f"nodes_{side}leafs"] != 0
        _in_range(label, f"nodes_{side}nodeids", ids[at_leaf], leaves)
        _in_range(label, f"nodes_{side}nodeids", ids[~at_leaf], count)
        ends[side] = np.where(at_leaf, ids + count, ids)
    is_member = mode == MEMBER
    relation = _relation(mode, np.where(is_member, 0, value), missing != 0)
    branches = Branches(
        nodes["nodes_featureids"],
        np.where(is_member, 0, np.nan_to_num(value, nan=0.0, posinf=np.inf, neginf=-np.inf)),
        relation,
        ends["true"],
        ends["false"],
        np.full(count, -1, np.int64),
    )
    members = _member_sets(label, _array(attributes.get("membership_values"), np.float64), int(is_member.sum()))
    branches, sets = _with_sets(branches, np.flatnonzero(is_member), members)
    votes = Votes(np.arange(leaves), target, weight)
    return _ensemble(label, branches, roots, votes, leaves, sets)


def _member_sets(label: str, values: np.ndarray, count: int) -> list[np.ndarray]:
    """The sets between the NaNs, each of which ends one."""
    ends = np.flatnonzero(np.isnan(values))
    if len(ends) != count or (values.size and not np.isnan(values[-1])):
        raise ModelError(
            f"{label}: membership_values holds {len(ends)} sets, each with a NaN at its end, for {count} BRANCH_MEMBER"
        )
    return [s[~np.isnan(s)] for s in np.split(values, ends + 1)[:count]]


def _with_sets(branches: Branches, places: np.ndarray, members: Sequence[np.ndarray]) -> tuple[Branches, np.ndarray]:
    """Sets of whole numbers that lie close together as bits; any other one as a chain of branches that compare.

    The chain's first branch stands in the place of the set's; the others are put at the end of the branches, and the
    leaves' numbers move up.
    """
    words: list[int] = []
    chained: list[tuple[int, np.ndarray]] = []
    for place, values in zip(places.tolist(), members, strict=True):
        if values.size and (values == np.floor(values)).all() and np.ptp(values) < MAX_SET_SPAN:
            branches.bits[place] = len(words)
            words += _bits(values)
        else:
            chained.append((place, np.unique(values)))
    return _with_chains(branches, chained), np.array(words, np.int64)


def _bits(values: np.ndarray) -> list[int]:
    least, span = int(values.min()), int(np.ptp(values)) + 1
    flags = np.zeros(-(-span // 32) * 32, np.uint8)
    flags[values.astype(np.int64) - least] = 1
    return [least, span, *np.packbits(flags, bitorder="little").view(np.int32).tolist()]


def _with_chains(branches: Branches, chains: Sequence[tuple[int, np.ndarray]]) -> Branches:
    more = sum(max(0, len(values) - 1) for _, values in chains)
    if not chains:
        return branches
    count = len(branches.feature)

    def longer(array: np.ndarray, moved: bool = False) -> np.ndarray:
        array = np.where(array >= count, array + more, array) if moved else array
        return np.concatenate([array, np.zeros(more, array.dtype)])

    made = Branches(
        longer(branches.feature),
        longer(branches.value),
        longer(branches.relation),
        longer(branches.true, True),
        longer(branches.false, True),
        np.concatenate([branches.bits, np.full(more, -1, np.int64)]),
    )
    following = count
    for place, values in chains:
        unordered = made.relation[place] & UNORDERED
        true, false = made.true[place], made.false[place]
        at = place
        made.relation[at] = unordered  # of an empty set only NaN may be a member
        for k, value in enumerate(values):
            made.feature[at], made.value[at], made.relation[at] = made.feature[place], value, EQUAL | unordered
            made.true[at], made.false[at] = true, false
            if k + 1 < len(values):
                made.false[at] = following
                at, following = following, following + 1
    return made


# Both -----------------------------------------------------------------------------------------------------------------


def _ensemble(
    label: str, branches: Branches, roots: np.ndarray, votes: Votes, leaves: int, sets: np.ndarray
) -> Ensemble:
    if not roots.size:
        raise ModelError(f"{label}: it has no trees")
    _in_range(label, "nodes_featureids", branches.feature, MAX_FEATURES)
    return Ensemble(branches, roots, votes, leaves, _depth(label, branches), sets)


def _depth(label: str, branches: Branches) -> int:
    """Branches on the longest way, by taking away, again and again, those that no branch leads to."""
    count = len(branches.feature)
    parents = np.zeros(count, np.int64)
    for side in (branches.true, branches.false):
        np.add.at(parents, side[side < count], 1)
    level, seen, depth = np.flatnonzero(parents == 0), 0, 0
    while level.size:
        seen, depth = seen + level.size, depth + 1
        children = np.concatenate([branches.true[level], branches.false[level]])
        children = children[children < count]
        np.subtract.at(parents, children, 1)
        level = np.unique(children)
        level = level[parents[level] == 0]
    if seen < count:
        raise ModelError(f"{label}: branches lead round in a circle")
    return depth
