"""Strings taken apart from the arithmetic of ai.onnx.ml."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper
from onnx_models import model, value

from omniop.opset.importer import ImportedModel, import_model
from omniop.opset.rewrite import rewrite

DOMAIN = "ai.onnx.ml"
IMPORTS = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 3)]
STRING = TensorProto.STRING

CLASSIFIERS = {
    "LinearClassifier": "classlabels_ints",
    "SVMClassifier": "classlabels_ints",
    "TreeEnsembleClassifier": "classlabels_int64s",
}


def rewritten(op: str, outputs: list[str], inputs=("x",), **attrs) -> tuple[ImportedModel, list[str]]:
    """A model of one node, and what was done to it."""
    node = helper.make_node(op, ["x"], outputs, domain=DOMAIN, name="it", **attrs)
    made = import_model(model([node], inputs, [o for o in outputs if o], opset_imports=IMPORTS))
    return made, [applied.rule for applied in rewrite(made)]


def nodes(made: ImportedModel) -> list[tuple[str, list[str], list[str]]]:
    return [(n.op_type, [v.name for v in n.inputs], [v.name for v in n.outputs]) for n in made.graph]


@pytest.mark.parametrize("op", CLASSIFIERS)
def test_labels_are_named_behind_the_classifier(op: str) -> None:
    made, rules = rewritten(op, ["label", "score"], classlabels_strings=["b", "a"], coefficients=[1.0])
    assert rules == ["string labels"]
    classifier, mapper = made.graph
    assert classifier.attributes[CLASSIFIERS[op]].value == (0, 1)
    assert "classlabels_strings" not in classifier.attributes
    assert mapper.op_type == "CategoryMapper"
    assert (mapper.attributes["cats_int64s"].value, mapper.attributes["cats_strings"].value) == ((0, 1), ("b", "a"))
    assert mapper.inputs[0] is classifier.outputs[0]
    assert [v.name for v in made.graph.outputs] == ["label", "score"]
    assert made.graph.outputs[0] is mapper.outputs[0]
    assert made.graph.outputs[1] is classifier.outputs[1]


def test_a_label_that_nobody_wants_is_not_named() -> None:
    made, _ = rewritten("LinearClassifier", ["", "score"], classlabels_strings=["b", "a"], coefficients=[1.0])
    assert [n.op_type for n in made.graph] == ["LinearClassifier"]


@pytest.mark.parametrize("attrs", [{"classlabels_ints": [3, 4]}, {}])
def test_integer_labels_stay(attrs) -> None:
    made, rules = rewritten("LinearClassifier", ["label", "score"], coefficients=[1.0], **attrs)
    assert not rules
    assert nodes(made) == [("LinearClassifier", ["x"], ["label", "score"])]


def test_categories_are_numbered_before_the_encoder() -> None:
    strings = value("x", (None, 1), STRING)
    made, rules = rewritten("OneHotEncoder", ["y"], [strings], cats_strings=["b", "a"], zeros=0)
    assert rules == ["string categories"]
    mapper, encoder = made.graph
    assert (mapper.op_type, encoder.op_type) == ("CategoryMapper", "OneHotEncoder")
    assert encoder.attributes["cats_int64s"].value == (0, 1)
    assert encoder.attributes["zeros"].value == 0
    assert encoder.inputs[0] is mapper.outputs[0]
    assert made.graph.outputs[0] is encoder.outputs[0]
