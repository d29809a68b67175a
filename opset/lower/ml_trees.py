"""Tree ensembles of ai.onnx.ml.

Two kernels. The first walks every row down every tree: a fold along the depth that carries the number of the node the
row is at, over a grid of trees and rows. The second adds up, for each row and target, what the leaves give.

A node is four words in a row of memory: the value to compare with, feature and relation, the true and the false branch.
A leaf leads to itself, so that a row that has arrived needs no test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Scatter, Tensor, TensorCarry, TensorStore
from omniop.opset.dtype import BOOL, FLOAT64, INT32, INT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import choice
from omniop.opset.lower.ml_common import (
    TRANSFORMS,
    as_float,
    chosen,
    floats,
    integer_labels,
    ml_lowering,
    require_count,
    rows,
    table,
    top_label,
    transform_of,
    transformed,
    two_scores,
)
from omniop.opset.lowering import Node
from omniop.opset.sym import product
from omniop.opset.trees import EQUAL, GREATER, LESS, UNORDERED, Ensemble, by_node_ids, by_positions

_WORDS = 4
_VALUE, _TEST, _TRUE, _FALSE = range(_WORDS)
_MEMBER = 16
"""Marks, in the word of the test, a set; the relation is below it and the feature above."""
_FEATURE_SHIFT = 5

AGGREGATES = {"SUM": "add", "AVERAGE": "add", "MIN": "min", "MAX": "max"}
"""Monoid of each aggregate function; an average is a sum over the number of trees."""

_AGGREGATE_NUMBERS = ("AVERAGE", "SUM", "MIN", "MAX")
"""As TreeEnsemble counts them."""


# Walking --------------------------------------------------------------------------------------------------------------


def _word_type(dtype: DType) -> DType:
    """Integers as wide as the features, so that a value's bits fit into one."""
    return INT64 if dtype is FLOAT64 else INT32


def node_words(ensemble: Ensemble, dtype: DType) -> np.ndarray:
    """The nodes of an ensemble as words, and after them the leaf that gives nothing: [branches + leaves + 1, 4]."""
    branches, count = ensemble.branches, ensemble.count
    numbers = np.arange(count + ensemble.leaves + 1)
    words = np.zeros((len(numbers), _WORDS), _word_type(dtype).numpy)
    words[:, _TRUE] = words[:, _FALSE] = numbers
    is_set = branches.bits >= 0
    with np.errstate(over="ignore"):
        values = branches.value.astype(dtype.numpy).view(words.dtype)
    words[:count, _VALUE] = np.where(is_set, branches.bits, values)
    words[:count, _TEST] = branches.feature << _FEATURE_SHIFT | is_set * _MEMBER | branches.relation
    words[:count, _TRUE], words[:count, _FALSE] = branches.true, branches.false
    return words


def _any_of(relation: Expr | int, x: Expr, value: Expr) -> Expr:
    """Whether ``x`` is to ``value`` in one of the relations, which are the same for all nodes when it is an int."""
    tests = {LESS: x < value, EQUAL: x.eq(value), GREATER: x > value, UNORDERED: expr.alu("isnan", x)}
    if isinstance(relation, int):
        if relation == LESS | EQUAL:
            return x <= value
        if relation == GREATER | EQUAL:
            return x >= value
        held = [test for bit, test in tests.items() if relation & bit]
        result = held[0] if held else expr.const(False, BOOL)
        for test in held[1:]:
            result = result | test
        return result
    bit = expr.const(UNORDERED, relation.dtype)
    for flag in (GREATER, EQUAL, LESS):
        bit = expr.select(tests[flag], flag, bit)
    return (relation & bit).ne(0)


def _in_set(sets: Tensor, start: Expr, x: Expr) -> Expr:
    """Whether ``x`` is one of the whole numbers of a set (`trees.Ensemble.sets`)."""
    start = expr.index(start)
    least, span = expr.index(sets.at(start)), expr.index(sets.at(start + 1))
    place = expr.cast(x, INT64) - least
    inside = (place >= 0) & (place < span) & expr.alu("floor", x).eq(x)
    word = sets.at(start + 2 + place // 32, guard=inside)
    return inside & (expr.alu("shr", word, expr.cast(place % 32, INT32)) & 1).ne(0)


def leaves_of(x: Tensor, ensemble: Ensemble, roots: np.ndarray) -> Tensor:
    """int32 [trees, N]: the leaf, from 0, at which each row of ``x`` [N, F] arrives in the trees of ``roots``."""
    word = _word_type(x.dtype)
    start = p.constant(roots.astype(word.numpy), word)
    shape = [len(roots), x.shape[0]]
    if not ensemble.depth:
        return p.map_of(shape, lambda t, _: expr.cast(start.at(t) - ensemble.count, INT32))
    nodes = p.constant(node_words(ensemble, x.dtype), word)
    sets = table(ensemble.sets.tolist(), INT32) if ensemble.sets.size else None
    uniform = set(ensemble.branches.relation.tolist())

    def follow(node: Expr, row: Expr) -> Expr:
        at = expr.index(node)
        value, test = nodes.at(at, _VALUE), nodes.at(at, _TEST)
        feature = x.at(row, expr.index(expr.alu("shr", test, expr.const(_FEATURE_SHIFT, word))))
        relation = next(iter(uniform)) if len(uniform) == 1 and sets is None else test
        true = _any_of(relation, feature, expr.bitcast(value, x.dtype))
        if sets is not None:
            nan = expr.alu("isnan", feature)
            member = expr.select(
                nan, (test & UNORDERED).ne(0), _in_set(sets, expr.select(is_set(test), value, 0), feature)
            )
            true = expr.select(is_set(test), member, true)
        return nodes.at(at, expr.select(true, expr.index(_TRUE), _FALSE))

    def is_set(test: Expr) -> Expr:
        return (test & _MEMBER).ne(0)

    axes = p.axes_of(shape)
    tree, row = axes
    seq = expr.raw_axis(len(shape), expr.index(ensemble.depth))
    node = expr.carry(0, word)
    found = expr.cast(node - ensemble.count, INT32)
    walk = Scatter(
        axes,
        (TensorStore(0, axes, found),),
        (None,),
        seq,
        (TensorCarry(start.at(tree), follow(node, row)),),
        node >= ensemble.count,
    )
    return p.record(walk, [(shape, INT32)])[0]


# Adding up ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """Trees in groups of equally many: a group's leaves give ``width`` targets of its own.

    Where each tree votes for one target only, as in boosting, there is a group for each target, of width 1; else one
    group, of all targets. ``roots``: [groups * size]; a group with fewer trees is filled up with a leaf that gives
    nothing, which is one more than the ensemble has. ``weights``, ``given``: [leaves + 1, width].
    """

    roots: np.ndarray
    size: int
    width: int
    weights: np.ndarray
    given: np.ndarray


def grouped(ensemble: Ensemble, targets: int, monoid: str) -> Groups:
    votes, nothing = ensemble.votes, ensemble.count + ensemble.leaves
    of_tree = _targets_of_trees(ensemble, targets)
    members = [[r for r, t in zip(ensemble.roots.tolist(), of_tree, strict=True) if t == k] for k in range(targets)]
    size = max(map(len, members), default=0)
    apart = None not in of_tree and 0 < size * targets <= 2 * len(of_tree) + targets
    if apart:
        roots = np.array([m + [nothing] * (size - len(m)) for m in members], np.int64).reshape(-1)
        width, column = 1, np.zeros(len(votes.target), np.int64)
    else:
        roots, size, width, column = ensemble.roots, len(ensemble.roots), targets, votes.target
    start = {"add": 0.0, "min": np.inf, "max": -np.inf}[monoid]
    weights = np.full((ensemble.leaves + 1, width), start)
    combine = {"add": np.add, "min": np.minimum, "max": np.maximum}[monoid]
    combine.at(weights, (votes.leaf, column), votes.weight)
    given = np.zeros(weights.shape, bool)
    given[votes.leaf, column] = True
    return Groups(roots, size, width, weights, given)


def _targets_of_trees(ensemble: Ensemble, targets: int) -> list[int | None]:
    """The one target that each tree's leaves vote for; None where there are several. A tree without votes: 0."""
    reached = np.concatenate([ensemble.roots, ensemble.branches.true, ensemble.branches.false])
    if len(np.unique(reached)) < len(reached):  # trees may share what is below
        return [None] * len(ensemble.roots)
    owner = _trees_of_leaves(ensemble)
    found: list[int | None] = [-1] * len(ensemble.roots)
    pairs = np.unique(owner[ensemble.votes.leaf] * targets + ensemble.votes.target)
    for tree, target in zip((pairs // targets).tolist(), (pairs % targets).tolist(), strict=True):
        if tree >= 0:
            found[tree] = target if found[tree] == -1 else None
    return [0 if t == -1 else t for t in found]


def _trees_of_leaves(ensemble: Ensemble) -> np.ndarray:
    """The tree that each leaf hangs on; -1 for one that no root leads to. No two trees share a node."""
    owner = np.full(ensemble.count + ensemble.leaves, -1, np.int64)
    level, trees = ensemble.roots, np.arange(len(ensemble.roots))
    for _ in range(ensemble.depth + 1):
        owner[level] = trees
        inner = level < ensemble.count
        level, trees = level[inner], trees[inner]
        level = np.concatenate([ensemble.branches.true[level], ensemble.branches.false[level]])
        trees = np.concatenate([trees, trees])
    return owner[ensemble.count :]


def scores_of(node: Node, x: Tensor, ensemble: Ensemble, targets: int, aggregate: str) -> Tensor:
    """[N, targets] in the dtype of ``x`` [N, F]: 0 for a target that no leaf on the way votes for.

    Raises ModelError when a branch looks at a feature that ``x`` has not.
    """
    needed = int(ensemble.branches.feature.max(initial=-1)) + 1
    if not bool(x.shape[1] >= needed):
        raise ModelError(f"{node.label}: nodes_featureids holds {needed - 1}, and the input has {x.shape[1]} features")
    if bool(x.shape[0] == 1):  # a plan of its own, in which the trees are what runs side by side
        x = p.reshape(x, [1, x.shape[1]])
    monoid = AGGREGATES[aggregate]
    groups = grouped(ensemble, targets, monoid)
    leaves = leaves_of(x, ensemble, groups.roots)
    weights = table(groups.weights.reshape(-1).tolist(), x.dtype, groups.weights.shape)
    size, width = groups.size, groups.width
    shape = [x.shape[0], len(groups.roots) // size, width]

    def vote(n: Expr, g: Expr, w: Expr, k: Expr) -> Expr:
        return weights.at(expr.index(leaves.at(g * size + k, n)), w)

    total = p.reduce_of(shape, [size], monoid, vote)
    if aggregate == "AVERAGE":
        total = p.elementwise(lambda v: v / len(ensemble.roots), total)
    if monoid != "add" and not groups.given[:-1].all():
        given = p.constant(groups.given, BOOL)
        some = p.reduce_of(shape, [size], "or", lambda n, g, w, k: given.at(expr.index(leaves.at(g * size + k, n)), w))
        total = p.elementwise(lambda c, v: expr.select(c, v, 0), some, total)
    return p.reshape(total, [shape[0], product(tuple(shape[1:]))])


def _with_base(node: Node, scores: Tensor, targets: int) -> Tensor:
    base = floats(node, "base_values")
    if not base:
        return scores
    require_count(node, "base_values", base, targets)
    return p.add(scores, table(base, scores.dtype))


# Operators ------------------------------------------------------------------------------------------------------------


@ml_lowering("TreeEnsembleRegressor")
def tree_ensemble_regressor(node: Node, x: Tensor) -> Tensor:
    """[N, n_targets]; base values are added after aggregating."""
    targets = node.attr("n_targets", 1)
    aggregate = node.attr("aggregate_function", "SUM")
    choice(node, "aggregate_function", AGGREGATES)
    ensemble = by_node_ids(node.attributes, node.label, "target", targets)
    scores = scores_of(node, rows(node, x), ensemble, targets, aggregate)
    return as_float(transform_of(node)(_with_base(node, scores, targets)))


@ml_lowering("TreeEnsemble")
def tree_ensemble(node: Node, x: Tensor) -> Tensor:
    """[N, n_targets], in the type of the input."""
    targets = node.attr("n_targets", 1)
    aggregate, transform = node.attr("aggregate_function", 1), node.attr("post_transform", 0)
    if not (0 <= aggregate < len(_AGGREGATE_NUMBERS) and 0 <= transform < len(TRANSFORMS)):
        raise ModelError(
            f"{node.label}: aggregate_function {aggregate} of 0..3, or post_transform {transform} of 0..4, is unknown"
        )
    ensemble = by_positions(node.attributes, node.label)
    scores = scores_of(node, rows(node, x), ensemble, targets, _AGGREGATE_NUMBERS[aggregate])
    return p.cast(transformed(list(TRANSFORMS.values())[transform], scores), x.dtype)


@ml_lowering("TreeEnsembleClassifier")
def tree_ensemble_classifier(node: Node, x: Tensor) -> tuple[Tensor, Tensor]:
    """Labels [N] of the greatest scores, and scores [N, E] after the transform.

    When all weights are for one of two classes, they make the score of that class alone. Of the first class: it then
    means the second one, and the other's is made from it (`ml_common.two_scores`). The label is the second one where
    the score is above 0, or above a half when no weight is negative: they are probabilities then.
    """
    labels = integer_labels(node, "classlabels_int64s")
    if not labels:
        raise ModelError(f"{node.label}: one of classlabels_int64s, classlabels_strings is needed")
    ensemble = by_node_ids(node.attributes, node.label, "class", len(labels))
    classes = set(node.attr("class_ids", ()))
    values = rows(node, x)
    if len(labels) > 2 or len(classes) > 1:
        scores = _with_base(node, scores_of(node, values, ensemble, len(labels), "SUM"), len(labels))
        return top_label(scores, labels), as_float(transform_of(node)(scores))
    return _binary(node, values, ensemble, labels, min(classes, default=0))


def _binary(node: Node, x: Tensor, ensemble: Ensemble, labels: list[int], only: int) -> tuple[Tensor, Tensor]:
    base = floats(node, "base_values")
    require_count(node, "base_values", base, 0, 1, len(labels))
    scores = scores_of(node, x, ensemble, len(labels), "SUM")
    if base:
        scores = p.add(
            scores, table(base if len(base) == len(labels) else [base[0] * (k == only) for k in range(2)], x.dtype)
        )
    if len(labels) == 2 and len(base) == 2:
        return top_label(scores, labels), as_float(transform_of(node)(scores))
    score = p.narrow(scores, 1, only, 1)
    probabilities = len(labels) == 2 and bool((ensemble.votes.weight >= 0).all())
    positive = p.map_of([score.shape[0]], lambda n: score.at(n, 0) > expr.const(0.5 if probabilities else 0, x.dtype))
    if len(labels) == 1:
        return chosen(positive, ()), as_float(transform_of(node)(score))
    if only == 1:
        return chosen(positive, labels), as_float(transform_of(node)(scores))
    mirrored = () if probabilities else ("NONE", "SOFTMAX", "SOFTMAX_ZERO")
    return chosen(positive, labels), as_float(two_scores(node, score, mirrored))
