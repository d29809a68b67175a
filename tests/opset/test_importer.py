from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import F32, model, op_types, refused, relu_model, value

from omniop.opset.errors import ModelError
from omniop.opset.importer import ImportedModel, attributes, captures, declared_type, import_model, initializer_array
from omniop.opset.schemas import schema_for

# Sources


def test_every_kind_of_source_gives_the_same_graph(tmp_path: Path) -> None:
    proto = relu_model()
    path = tmp_path / "relu.onnx"
    onnx.save(proto, path)
    for source in (path, str(path), proto.SerializeToString(), proto, ir.from_proto(proto)):
        imported = import_model(source)
        assert isinstance(imported, ImportedModel)
        assert op_types(imported.graph) == ["Relu"]
        assert imported.opset_imports == {"": 20}
        assert [v.name for v in imported.inputs] == ["x"]
        assert [v.name for v in imported.outputs] == ["y"]
        assert imported.notes == ()


@pytest.mark.parametrize("suffix", [".onnxtxt", ".textproto", ".json"])
def test_textual_models(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"relu{suffix}"
    onnx.save(relu_model(opset_imports=[helper.make_opsetid("ai.onnx", 18)]), path)
    assert import_model(path).opset_imports == {"": 18}


def test_a_model_proto_is_left_as_it_is() -> None:
    proto = model(
        [helper.make_node("Add", ["b", "w"], ["y"]), helper.make_node("Relu", ["x"], ["b"])],
        initializers=[numpy_helper.from_array(np.ones(3, np.float32), "w")],
    )
    proto.graph.node[0].attribute.add(name="alpha", f=1.0)
    before = proto.SerializeToString(deterministic=True)
    import_model(proto)
    assert proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"PK\x03\x04" + bytes(40), "zip archive"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\x1c\x00\x00\x00ORTM" + bytes(20), "ONNX Runtime's own format"),
        (random.Random(0).randbytes(200), "not an ONNX model"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
    ],
)
def test_files_that_hold_no_model(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    refused(path, str(path), word)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "none.onnx", "No such file")
    refused(tmp_path, str(tmp_path), "cannot be read")
    refused(3, "int")


def test_no_prefix_of_a_file_escapes_as_another_error() -> None:
    data = relu_model().SerializeToString()
    for end in range(len(data)):
        try:
            import_model(data[:end])
        except ModelError:
            continue


def test_no_flipped_byte_escapes_as_another_error() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.arange(3, dtype=np.float32)))
    data = model([constant, helper.make_node("Add", ["x", "c"], ["y"])]).SerializeToString()
    for position in range(len(data)):
        for byte in (0, 0x7F, 0xFF):
            try:
                imported = import_model(data[:position] + bytes([byte]) + data[position + 1 :])
            except ModelError:
                continue
            assert imported.graph.num_nodes() <= 2


# Graphs


def test_unsorted_nodes_are_sorted_also_for_what_a_subgraph_captures() -> None:
    branch = helper.make_graph([helper.make_node("Neg", ["late"], ["t"])], "then", [], [value("t")])
    other = helper.make_graph([helper.make_node("Abs", ["late"], ["e"])], "else", [], [value("e")])
    proto = model(
        [
            helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=other),
            helper.make_node("Relu", ["early"], ["late"]),
            helper.make_node("Exp", ["x"], ["early"]),
        ],
        inputs=["x", value("c", (), TensorProto.BOOL)],
    )
    for source in (proto, ir.from_proto(proto)):
        assert op_types(import_model(source).graph) == ["Exp", "Relu", "If"]


def test_a_cycle_names_a_node_on_it() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="before"),
        helper.make_node("Add", ["a", "c"], ["b"], name="first"),
        helper.make_node("Abs", ["b"], ["c"], name="second"),
        helper.make_node("Neg", ["c"], ["y"], name="after"),
    ]
    with pytest.raises(ModelError, match=r'"(first|second)" takes part in a cycle'):
        import_model(model(nodes))


def test_a_cycle_through_a_subgraph() -> None:
    branch = helper.make_graph([helper.make_node("Neg", ["y"], ["t"])], "then", [], [value("t")])
    node = helper.make_node("If", ["c"], ["y"], name="loop", then_branch=branch, else_branch=branch)
    refused(model([node], inputs=[value("c", (), TensorProto.BOOL)]), 'If "loop"', "cycle")


def test_dangling_names() -> None:
    refused(model([helper.make_node("Add", ["x", "ghost"], ["y"], name="a")]), 'Add "a"', '"ghost"', "input 1")
    refused(model([helper.make_node("Relu", ["x"], ["z"])]), 'graph output "y"')
    twice = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])]
    refused(model(twice), "'y'", "redeclared")
    refused(model([helper.make_node("Relu", ["x"], ["y"])], inputs=["x", "x"]), '"x" is defined twice')


def test_dangling_names_write_nothing_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModelError):
        import_model(model([helper.make_node("Add", ["x", "ghost"], ["y"])]))
    assert caplog.records == []


def test_a_subgraph_may_not_see_into_its_sibling() -> None:
    one = helper.make_graph([helper.make_node("Neg", ["x"], ["t"])], "then", [], [value("t")])
    other = helper.make_graph([helper.make_node("Abs", ["t"], ["e"], name="n")], "else", [], [value("e")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=one, else_branch=other)
    refused(model([node], inputs=["x", value("c", (), TensorProto.BOOL)]), 'Abs "n"', '"t"')


def test_a_subgraph_output_may_name_an_outer_value() -> None:
    one = helper.make_graph([], "then", [], [value("x")])
    other = helper.make_graph([helper.make_node("Abs", ["x"], ["e"])], "else", [], [value("e")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=one, else_branch=other)
    imported = import_model(model([node], inputs=["x", value("c", (), TensorProto.BOOL)]))
    branch = imported.graph[0].attributes["then_branch"].as_graph()
    assert op_types(branch) == ["Identity"]
    assert captures(branch) == [imported.inputs[0]]


def test_declared_shapes_and_dims() -> None:
    proto = model(
        [helper.make_node("Identity", ["x"], ["y"])],
        inputs=[value("x", [-1, "past + 1", "a name (no identifier)!", 0, "", None])],
        outputs=[value("y", [])],
    )
    imported = import_model(proto)
    dims = [d if isinstance(d, int) else d.value for d in imported.inputs[0].shape]
    assert dims == [None, "past + 1", "a name (no identifier)!", 0, None, None]
    assert len(imported.outputs[0].shape) == 0


def test_empty_optional_inputs_and_outputs() -> None:
    proto = model([helper.make_node("Clip", ["x", "", "x"], ["y"]), helper.make_node("Dropout", ["x"], ["d", ""])])
    clip, dropout = import_model(proto).graph
    assert [v and v.name for v in clip.inputs] == ["x", None, "x"]
    assert [v.name for v in dropout.outputs] == ["d", ""]


def test_initializers_that_are_inputs() -> None:
    weight = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], inputs=["x", "w"], initializers=[weight])
    imported = import_model(proto)
    assert [v.name for v in imported.inputs] == ["x", "w"]
    assert [v.name for v in imported.required_inputs] == ["x"]
    # Before IR version 4 every initializer had to be listed: these are constants.
    proto.ir_version = 3
    assert [v.name for v in import_model(proto).inputs] == ["x"]


def test_opsets_strays_aliases_and_gaps() -> None:
    stray = [helper.make_opsetid("ai.onnx", 17), helper.make_opsetid("com.nobody", 3)]
    assert import_model(relu_model(opset_imports=stray)).opset_imports == {"": 17, "com.nobody": 3}
    custom = model([helper.make_node("Thing", ["x"], ["y"], domain="com.custom")], opset_imports=[])
    assert import_model(custom).opset_imports == {"com.custom": 1}
    gap = relu_model(opset_imports=[helper.make_opsetid("com.nobody", 3)])
    refused(gap, 'Relu "r"', "no opset of ai.onnx")
    gap.ir_version = 2
    assert import_model(gap).opset_imports[""] == 1


def test_versions_from_the_future() -> None:
    imported = import_model(relu_model(ir_version=999, opset=999))
    assert imported.opset_imports == {"": 999}
    assert "999" in imported.notes[0]


def test_without_an_ir_version() -> None:
    proto = relu_model()
    proto.ClearField("ir_version")
    assert import_model(proto).opset_imports == {"": 20}


def nested(depth: int) -> onnx.ModelProto:
    proto = model([], outputs=[])
    graph = proto.graph
    for level in range(depth):
        node = graph.node.add(op_type="If", input=["x"], output=[f"y{level}"])
        attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        attribute.g.name = f"g{level}"
        graph = attribute.g
    return proto


def test_nesting_is_bounded() -> None:
    assert len(list(import_model(nested(30)).graph.subgraphs())) == 30
    refused(nested(70), "nests graphs")
    refused(nested(1000), "nests graphs")
    refused(ir.from_proto(nested(70)), "nests graphs")


# What onnx-ir has no place for


def test_map_types_are_kept_aside() -> None:
    map_type = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(F32, None))
    sequence = helper.make_sequence_type_proto(map_type)
    zipped = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    proto = model(
        [zipped],
        outputs=[helper.make_value_info("y", sequence)],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)],
    )
    imported = import_model(proto)
    assert declared_type(imported.outputs[0]) == sequence
    assert declared_type(imported.inputs[0]) == proto.graph.input[0].type
    assert proto.graph.output[0].type == sequence


@pytest.mark.parametrize("indices", [[1, 5], [[0, 1], [1, 2]]])
def test_sparse_tensors_become_dense(indices: list) -> None:
    expected = np.zeros((2, 3), np.float32)
    expected[0, 1], expected[1, 2] = 7, 8
    values = numpy_helper.from_array(np.array([7, 8], np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(indices, np.int64)), [2, 3])
    constant = helper.make_node("Constant", [], ["c"], sparse_value=sparse)
    proto = model([constant, helper.make_node("Add", ["c", "w"], ["y"])])
    proto.graph.sparse_initializer.append(sparse)
    imported = import_model(proto)
    np.testing.assert_array_equal(initializer_array(imported.graph.initializers["w"]), expected)
    node = imported.graph[0]
    np.testing.assert_array_equal(attributes(node, schema_for("", "Constant", 20))["value"], expected)
    sparse.dims[0] = 1
    proto.graph.sparse_initializer[0].CopyFrom(sparse)
    refused(proto, "index outside")
    proto.graph.sparse_initializer[0].dims[:] = [1 << 40, 1 << 40]
    refused(proto, "too large")


def test_attributes_of_old_files_without_a_type() -> None:
    node = helper.make_node("Elu", ["x"], ["y"], alpha=2.5)
    node.attribute[0].ClearField("type")
    elu = import_model(model([node])).graph[0]
    assert attributes(elu, schema_for("", "Elu", 20)) == {"alpha": 2.5}
