"""Tree ensembles of ai.onnx.ml, against onnxruntime and against a plain walk down the trees."""

from __future__ import annotations

import numpy as np
import pytest
from ml_case import agrees, onnxruntime_gives, run, same
from tree_models import MODES, Branch, Leaf, by_ids, by_positions, data, forest, walked

from omniop.opset.errors import ModelError

TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
AGGREGATES = ["SUM", "AVERAGE", "MIN", "MAX"]


# Walking --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_each_mode(mode, device):
    """All branches of one mode are compared without looking at it."""
    agrees("TreeEnsembleRegressor", [data(7)], device, **by_ids(forest(1, 5, 1, [mode]), "target"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 40])
def test_modes_and_missing_values(dtype, rows, device):
    """NaN goes where its branch says, else to the side where its comparison fails."""
    trees, x = forest(2, 9, 1, MODES, depth=6), data(rows, dtype, missing=True)
    for missing in (False, True):
        attrs = by_ids(trees, "target", double=dtype == np.float64, missing=missing)
        (found,) = run("TreeEnsembleRegressor", [x], device, **attrs)
        same(found, walked(trees, x, 1, missing).astype(np.float32))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("missing", [False, True])
def test_a_branch_that_compares_with_nan(mode, missing):
    nan = Branch(mode, 0, float("nan"), missing, Leaf([(0, 1.0)]), Leaf([(0, 2.0)]))
    x = np.array([[0.0], [np.inf], [-np.inf], [np.nan]], np.float32)
    (found,) = run("TreeEnsembleRegressor", [x], **by_ids([nan], "target", missing=True))
    same(found, walked([nan], x, 1, True).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float64])
def test_types_of_features(dtype):
    """onnxruntime has the classifier for integers too."""
    attrs = by_ids(forest(3, 6, 3, MODES), "class")
    agrees("TreeEnsembleClassifier", [data(9, dtype)], outputs=2, classlabels_int64s=[4, 5, 6], **attrs)


def test_doubles_are_compared_as_doubles(device):
    """The value lies between two floats that are neighbours."""
    value = 1.0 + 2**-40
    x = np.array([[1.0], [1.0 + 2**-30]])
    stump = Branch("BRANCH_LEQ", 0, value, False, Leaf([(0, 1.0)]), Leaf([(0, 2.0)]))
    (found,) = run("TreeEnsembleRegressor", [x], device, **by_ids([stump], "target", double=True))
    same(found, np.array([[1], [2]], np.float32))


def test_trees_that_are_leaves(device):
    trees = [Leaf([(0, 0.5), (1, 0.25)]), Leaf([(1, 1.0)])]
    (found,) = run("TreeEnsembleRegressor", [data(3)], device, **by_ids(trees, "target"))
    same(found, np.tile(np.array([[0.5, 1.25]], np.float32), (3, 1)))


@pytest.mark.parametrize("rows", [0, 1, 2, 70])
def test_numbers_of_rows_share_a_session(rows):
    trees = forest(4, 6, 2, MODES[:1])
    (found,) = run("TreeEnsembleRegressor", [data(rows)], "cpu", **by_ids(trees, "target"))
    same(found, walked(trees, data(rows), 2).astype(np.float32))


def test_ids_are_names():
    """They need not count from 0, nor be in order; the root is the node that no branch leads to."""
    trees = forest(13, 3, 1, MODES[:1])
    attrs = by_ids(trees, "target")
    for name in ("nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids", "target_nodeids"):
        attrs[name] = [7 - 5 * k for k in attrs[name]]
    for name in attrs:
        if name.startswith("nodes_"):
            attrs[name] = attrs[name][::-1]
    (found,) = run("TreeEnsembleRegressor", [data(9)], **attrs)
    same(found, walked(trees, data(9), 1).astype(np.float32))


# Adding up ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("boosted", [False, True])
def test_aggregates(aggregate, targets, boosted, device):
    """Boosted trees vote for one target each: for 3 targets of 7 trees, the groups are filled up."""
    attrs = by_ids(forest(5, 7, targets, MODES[:2], boosted=boosted), "target")
    base = {"base_values": [0.5, -0.5, 1.0][:targets], "aggregate_function": aggregate}
    agrees("TreeEnsembleRegressor", [data(9)], device, **attrs, **base)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("targets", [1, 3])
def test_transforms(transform, targets):
    attrs = by_ids(forest(6, 4, targets, MODES[:1]), "target")
    if transform == "PROBIT":
        attrs["target_weights"] = [0.1 + 0.02 * k / len(attrs["target_ids"]) for k in range(len(attrs["target_ids"]))]
    agrees("TreeEnsembleRegressor", [data(9)], post_transform=transform, **attrs)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_leaves_that_do_not_vote_for_all(aggregate):
    """A target without votes has 0, before its base value."""
    stump = Branch("BRANCH_LEQ", 0, 0.0, False, Leaf([(0, -2.0)]), Leaf([(1, 3.0), (1, 5.0)]))
    x = np.array([[-1.0], [1.0]], np.float32)
    attrs = {"aggregate_function": aggregate, "base_values": [10.0, 20.0]}
    (found,) = run("TreeEnsembleRegressor", [x], **attrs, **by_ids([stump], "target"))
    both = {"SUM": 8, "AVERAGE": 8, "MIN": 3, "MAX": 5}[aggregate]
    same(found, np.array([[8, 20], [10, 20 + both]], np.float32))


def test_votes_of_branches_are_dropped():
    attrs = by_ids([Branch("BRANCH_LEQ", 0, 0.0, False, Leaf([(0, 1.0)]), Leaf([(0, 2.0)]))], "target")
    for name, value in (("target_treeids", 0), ("target_nodeids", 0), ("target_ids", 0), ("target_weights", 9.0)):
        attrs[name] = [*attrs[name], value]
    agrees("TreeEnsembleRegressor", [data(4)], **attrs)


# Classes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORMS[:-1])
@pytest.mark.parametrize("boosted", [False, True])
def test_classifier(transform, boosted, device):
    attrs = by_ids(forest(7, 6, 3, MODES[:1], boosted=boosted), "class")
    labels = {"classlabels_strings": ["x", "y", "z"]} if boosted else {"classlabels_int64s": [7, 5, 6]}
    agrees(
        "TreeEnsembleClassifier",
        [data(11)],
        device,
        outputs=2,
        post_transform=transform,
        base_values=[0.1, -0.2, 0.3],
        **labels,
        **attrs,
    )


@pytest.mark.parametrize("transform", TRANSFORMS[:-1])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("only", [0, 1])
@pytest.mark.parametrize("base", [{}, {"base_values": [0.3]}])
def test_two_classes_with_the_weights_of_one(transform, positive, only, base):
    if base and only:
        base = {}  # onnxruntime drops a single base value there
    attrs = by_ids(forest(8, 3, 1, MODES[:1]), "class")
    attrs["class_ids"] = [only] * len(attrs["class_ids"])
    if positive:
        attrs["class_weights"] = [abs(w) / 2 for w in attrs["class_weights"]]
    for labels in ({"classlabels_int64s": [7, 5]}, {"classlabels_strings": ["no", "yes"]}):
        given = {"post_transform": transform, **labels, **attrs, **base}
        agrees("TreeEnsembleClassifier", [data(11)], outputs=2, **given)


@pytest.mark.parametrize("base", [{}, {"base_values": [0.5, -0.25]}])
def test_two_classes_with_weights_of_both(base):
    """The label is that of the greater score. (onnxruntime answers 0 or 1 for any labels, and mixes up base values.)"""
    trees = forest(14, 5, 2, MODES[:1])
    attrs = by_ids(trees, "class")
    label, scores = run("TreeEnsembleClassifier", [data(11)], outputs=2, classlabels_int64s=[7, 5], **attrs, **base)
    wanted = walked(trees, data(11), 2) + np.array(base.get("base_values", [0.0]))
    same(scores, wanted.astype(np.float32))
    assert label.tolist() == [[7, 5][k] for k in wanted.argmax(1)]
    assert set(label.tolist()) == {5, 7}


def test_one_class():
    attrs = by_ids(forest(8, 3, 1, MODES[:1]), "class")
    agrees("TreeEnsembleClassifier", [data(11)], outputs=2, classlabels_int64s=[1], **attrs)


# TreeEnsemble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", range(4))
@pytest.mark.parametrize("transform", range(4))
def test_tree_ensemble(aggregate, transform):
    """ONNX numbers SOFTMAX 1 and LOGISTIC 2; onnxruntime has them the other way round."""
    attrs = by_positions(forest(10, 8, 3, MODES, boosted=True), missing=True)
    attrs |= {"aggregate_function": aggregate, "n_targets": 3}
    x = data(9, missing=True)
    (expected,) = onnxruntime_gives("TreeEnsemble", [x], 5, post_transform=[0, 2, 1, 3][transform], **attrs)
    same(run("TreeEnsemble", [x], opset=5, post_transform=transform, **attrs)[0], expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("kind", ["whole", "far apart", "fractions"])
def test_sets(dtype, kind, device):
    """Whole numbers become bits, of one word or more; other sets become branches that compare one by one."""
    trees = forest(11, 6, 1, [*MODES[:2], "BRANCH_MEMBER"])
    factor = {"whole": 1, "far apart": 200, "fractions": 0.5}[kind]
    if kind == "far apart" and dtype == np.float16:
        factor = 100

    def scale(node: Branch | Leaf) -> None:
        if isinstance(node, Branch):
            node.members = [m * factor + (0.25 if kind == "fractions" else 0) for m in node.members]
            scale(node.true)
            scale(node.false)

    for root in trees:
        scale(root)
    rng = np.random.default_rng(0)
    x = (rng.integers(-5, 72, (40, 3)) * factor + (0.25 if kind == "fractions" else 0)).astype(dtype)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[0] = [np.inf, -np.inf, 0.3]
    attrs = by_positions(trees, dtype, missing=True)
    (found,) = run("TreeEnsemble", [x], device, opset=5, n_targets=1, **attrs)
    rtol = 2e-3 if dtype == np.float16 else 1e-5
    same(found, walked(trees, x, 1, True).astype(dtype), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("members", [[], [1e9, -1e9, 0.0], [5.0]])
def test_odd_sets(members):
    """Empty, too far apart for bits, and of one."""
    stump = Branch("BRANCH_MEMBER", 0, 0.0, True, Leaf([(0, 1.0)]), Leaf([(0, 2.0)]), members)
    x = np.array([[1e9], [0], [5], [5.5], [np.nan]], np.float32)
    attrs = by_positions([stump, stump], missing=True)
    attrs["membership_values"] = np.array([*members, np.nan] * 2, np.float32)
    (found,) = run("TreeEnsemble", [x], opset=5, n_targets=1, **attrs)
    same(found, walked([stump, stump], x, 1, True).astype(np.float32))


def test_trees_may_share_branches():
    """Two roots of one tree, for two targets: the trees' votes are told apart by their leaves."""
    attrs = by_positions(forest(12, 1, 1, MODES[:1]))
    attrs["tree_roots"] *= 2
    attrs["leaf_targetids"] = [k % 2 for k in range(len(attrs["leaf_targetids"]))]
    agrees("TreeEnsemble", [data(9)], opset=5, n_targets=2, **attrs)


# Malformed models -----------------------------------------------------------------------------------------------------

STUMP = Branch("BRANCH_LEQ", 1, 0.0, False, Leaf([(0, 1.0)]), Leaf([(0, 2.0)]))


def changed(name, place, value):
    attrs = by_ids([STUMP, STUMP], "target")
    attrs[name] = [*attrs[name]]
    attrs[name][place] = value
    return attrs


def shortened(name):
    attrs = by_ids([STUMP, STUMP], "target")
    return attrs | {name: attrs[name][:-1]}


@pytest.mark.parametrize(
    ("words", "attrs"),
    [
        ("nodes_truenodeids holds 99, and tree 0", changed("nodes_truenodeids", 0, 99)),
        ("nodes_falsenodeids holds -1, and tree 0", changed("nodes_falsenodeids", 0, -1)),
        ("branches lead round in a circle", changed("nodes_truenodeids", 0, 0)),
        ("tree 0 has two nodes that no branch leads to", changed("nodes_truenodeids", 0, 2)),
        ("tree 0 has two nodes of id 1", changed("nodes_nodeids", 2, 1)),
        ("nodes_featureids holds -1, which is outside", changed("nodes_featureids", 0, -1)),
        ("nodes_featureids holds 5, and the input has", changed("nodes_featureids", 0, 5)),
        ("nodes_featureids holds 4611686018427387904", changed("nodes_featureids", 0, 1 << 62)),
        ("nodes_modes holds 'BRANCH_MEMBER'", changed("nodes_modes", 0, "BRANCH_MEMBER")),
        ("target_ids holds 3, which is outside of 0..0", changed("target_ids", 0, 3)),
        ("target_ids holds -1", changed("target_ids", 0, -1)),
        ("target_nodeids holds 7, and tree 0 has no such node", changed("target_nodeids", 0, 7)),
        ("target_nodeids holds 1, and tree 8 has no such node", changed("target_treeids", 0, 8)),
        ("nodes_values 5", shortened("nodes_values")),
        ("nodes_modes 5", shortened("nodes_modes")),
        ("nodes_treeids 5", shortened("nodes_treeids")),
        ("target_weights 3", shortened("target_weights")),
        ("nodes_missing_... 2", by_ids([STUMP], "target") | {"nodes_missing_value_tracks_true": [0, 0]}),
        ("it has no trees", {}),
        ("base_values has 2 elements, and 1", by_ids([STUMP], "target") | {"base_values": [1.0, 2.0]}),
        ("aggregate_function is 'MEAN'", by_ids([STUMP], "target") | {"aggregate_function": "MEAN"}),
        (
            "nodes_values and nodes_values_as_tensor are both there",
            by_ids([STUMP], "target") | {"nodes_values_as_tensor": np.zeros(3)},
        ),
    ],
)
def test_malformed_trees_are_refused(words, attrs):
    with pytest.raises(ModelError, match=words) as caught:
        run("TreeEnsembleRegressor", [data(2)], **attrs)
    assert "\n" not in str(caught.value)
    assert 'TreeEnsembleRegressor "it"' in str(caught.value)


def test_a_circle_below_the_root():
    """The root leads to a branch that leads to another one and back; every node is led to."""
    attrs = {
        "nodes_treeids": [0] * 6,
        "nodes_nodeids": list(range(6)),
        "nodes_modes": ["BRANCH_LEQ"] * 3 + ["LEAF"] * 3,
        "nodes_featureids": [0] * 6,
        "nodes_values": [0.0] * 6,
        "nodes_truenodeids": [1, 2, 1, 0, 0, 0],
        "nodes_falsenodeids": [3, 4, 5, 0, 0, 0],
    }
    with pytest.raises(ModelError, match="branches lead round in a circle"):
        run("TreeEnsembleRegressor", [data(2)], **attrs)


def test_a_tree_without_a_root():
    """A branch that leads to itself, and a leaf."""
    attrs = by_ids([STUMP], "target")
    attrs = {n: v[:2] if n.startswith("nodes_") else v for n, v in attrs.items()} | {"nodes_truenodeids": [0, 0]}
    attrs["nodes_falsenodeids"] = [1, 0]
    with pytest.raises(ModelError, match="the branches of tree 0 lead round in a circle"):
        run("TreeEnsembleRegressor", [data(2)], **attrs)


def positions(**more):
    return by_positions([STUMP, STUMP]) | more


@pytest.mark.parametrize(
    ("words", "attrs"),
    [
        ("nodes_truenodeids holds 9", positions(nodes_truenodeids=[9, 2])),
        ("nodes_truenodeids holds -1", positions(nodes_truenodeids=[-1, 2])),
        (
            "nodes_falsenodeids holds 2, which is outside of 0..1",
            positions(nodes_falseleafs=[1, 0], nodes_falsenodeids=[1, 2]),
        ),
        ("lead round in a circle", positions(nodes_falseleafs=[0, 0], nodes_falsenodeids=[1, 0])),
        ("lead round in a circle", positions(nodes_falseleafs=[0, 1], nodes_falsenodeids=[0, 3])),
        ("tree_roots holds 2", positions(tree_roots=[0, 2])),
        ("leaf_targetids holds 1, which is outside of 0..0", positions(leaf_targetids=[0, 0, 0, 1])),
        ("leaf_weights 3", positions(leaf_weights=np.zeros(3, np.float32))),
        ("nodes_modes holds 7", positions(nodes_modes=np.array([0, 7], np.uint8))),
        ("nodes_splits 1", positions(nodes_splits=np.zeros(1, np.float32))),
        ("nodes_trueleafs 1", positions(nodes_trueleafs=[1])),
        ("holds 0 sets, each with a NaN", positions(nodes_modes=np.array([6, 0], np.uint8))),
        ("holds 1 sets", positions(membership_values=np.array([1, np.nan], np.float32))),
        ("aggregate_function 4 of 0..3", positions(aggregate_function=4)),
        ("post_transform -1 of 0..4", positions(post_transform=-1)),
    ],
)
def test_malformed_positions_are_refused(words, attrs):
    with pytest.raises(ModelError, match=words) as caught:
        run("TreeEnsemble", [data(2)], opset=5, **{"n_targets": 1, **attrs})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "attrs"),
    [
        ("classlabels_int64s, classlabels_strings is needed", {}),
        ("class_ids holds 1, which is outside of 0..0", {"classlabels_int64s": [1]}),
        ("base_values has 4 elements, and 3", {"classlabels_int64s": [1, 2, 3], "base_values": [0.0] * 4}),
    ],
)
def test_malformed_classifiers_are_refused(words, attrs):
    trees = by_ids(forest(7, 2, 3, MODES[:1]), "class")
    with pytest.raises(ModelError, match=words):
        run("TreeEnsembleClassifier", [data(2)], outputs=2, **trees, **attrs)
