"""Damaged models: bytes changed at random, and fields of the protobuf set to other values."""

from __future__ import annotations

import random

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
X = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
"""What both models take."""

_INTEGERS = (0, 1, -1, 2, 3, 7, -7, 99, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63), 5, 6, 8, 9, 10, 16)
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e38)
_OPS = (
    *("Add", "Transpose", "Cast", "Squeeze", "Pad", "Resize", "NonZero", "Expand", "Where", "ReduceSum", "Unsqueeze"),
    *("Split", "Einsum", "ScatterND", "QuantizeLinear", "SequenceAt", "StringConcat", "ConstantOfShape", "Range"),
    *("OneHot", "Tile", "CumSum", "MatMul", "BatchNormalization", "ConvTranspose", "AveragePool", "GatherND"),
    *("Flatten", "DepthToSpace", "Identity", "NoSuchOp"),
)


def convolutional() -> onnx.ModelProto:
    """A small classifier with shape arithmetic and a branch."""
    node = helper.make_node
    branch = {
        name: helper.make_graph(
            [node(op, ["z", "z"], ["t"])], name, [], [helper.make_tensor_value_info("t", F32, None)]
        )
        for name, op in (("then_branch", "Add"), ("else_branch", "Mul"))
    }
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", ["p"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Concat", ["n", "rest"], ["shape"], axis=0),
        node("Reshape", ["p", "shape"], ["f"]),
        node("Gemm", ["f", "g", "b"], ["logits"], alpha=1.0, beta=1.0, transB=1),
        node("Softmax", ["logits"], ["y"], axis=-1),
        node("TopK", ["y", "k"], ["v", "i"], axis=1),
        node("Slice", ["y", "starts", "ends"], ["z"]),
        node("If", ["cond"], ["q"], **branch),
    ]
    weights = {
        "w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32),
        "zero": np.array([0]),
        "rest": np.array([-1]),
        "g": np.ones((5, 16), np.float32),
        "b": np.ones(5, np.float32),
        "k": np.array([2]),
        "starts": np.array([0, 1]),
        "ends": np.array([9, 4]),
        "cond": np.array(True),
    }
    return _model(nodes, weights, {"v": F32, "i": I64, "q": F32})


def sequential() -> onnx.ModelProto:
    """A loop, a recurrent layer, sequences, strings, quantization, and indices that data decides on."""
    node = helper.make_node
    infos = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            node("Less", ["step", "many"], ["go_on"]),
            node("Add", ["state", "xs"], ["next"]),
            node("Identity", ["next"], ["row"]),
        ],
        "body",
        [infos("step", I64, []), infos("go", TensorProto.BOOL, []), infos("state", F32, None)],
        [infos("go_on", TensorProto.BOOL, []), infos("next", F32, None), infos("row", F32, None)],
    )
    nodes = [
        node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        node("Unsqueeze", ["m", "zero"], ["xs"]),
        node("Loop", ["trips", "", "xs"], ["last", "rows"], body=body),
        node("LSTM", ["seq", "W", "R"], ["", "h", ""], hidden_size=2),
        node("NonZero", ["m"], ["nz"]),
        node("DynamicQuantizeLinear", ["m"], ["quantized", "scale", "point"]),
        node("DequantizeLinear", ["quantized", "scale", "point"], ["dq"]),
        node("Resize", ["x", "", "", "sizes"], ["resized"], mode="linear"),
        node("Einsum", ["m", "m"], ["e"], equation="ij,kj->ik"),
        node("CumSum", ["m", "one"], ["sums"]),
        node("ScatterND", ["sums", "places", "updates"], ["scattered"]),
        node("SplitToSequence", ["m", "parts"], ["list"], axis=1),
        node("SequenceAt", ["list", "one"], ["second"]),
        node("Range", ["start", "limit", "two"], ["range"]),
        node("OneHot", ["range", "depth", "values"], ["hot"]),
        node("Where", ["condition", "sums", "m"], ["chosen"]),
        node("Cast", ["m"], ["words"], to=TensorProto.STRING),
        node("Pad", ["m", "pads"], ["padded"], mode="reflect"),
        node("Tile", ["m", "repeats"], ["tiled"]),
        node("LayerNormalization", ["m", "gains"], ["normal"]),
    ]
    f32 = np.float32
    weights = {
        **{"axes": np.array([1, 2]), "zero": np.array([0]), "one": np.array(1)},
        **{"trips": np.array(3), "many": np.array(9)},
        **{"seq": np.ones((4, 1, 3), f32), "W": np.ones((1, 8, 3), f32), "R": np.ones((1, 8, 2), f32)},
        **{"sizes": np.array([2, 3, 5, 9]), "places": np.array([[0], [1]]), "updates": np.ones((2, 8), f32)},
        **{"parts": np.array([3, 5]), "start": np.array(0), "limit": np.array(6), "two": np.array(2)},
        **{"depth": np.array(4), "values": np.array([0, 1], f32), "condition": np.array([True])},
        **{"pads": np.array([0, 2, 0, 1]), "repeats": np.array([1, 2]), "gains": np.ones(8, f32)},
    }
    outputs = {
        **dict.fromkeys(("rows", "h", "dq", "resized", "e", "scattered", "second", "hot"), F32),
        **dict.fromkeys(("chosen", "padded", "tiled", "normal"), F32),
        **{"nz": I64, "words": TensorProto.STRING},
    }
    return _model(nodes, weights, outputs)


def _model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], outputs: dict[str, int]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F32, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(name, dtype, None) for name, dtype in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def damage_bytes(data: bytes, draw: random.Random) -> bytes:
    """One to three of: a byte set, a bit flipped, bytes taken out, put in, or copied from elsewhere."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(changed))
        match draw.randrange(5):
            case 0:
                changed[at] = draw.randrange(256)
            case 1:
                changed[at] ^= 1 << draw.randrange(8)
            case 2:
                del changed[at : at + draw.randint(1, 8)]
            case 3:
                changed[at:at] = draw.randbytes(draw.randint(1, 8))
            case 4:
                start, count = draw.randrange(len(changed)), draw.randint(1, 16)
                changed[at : at + count] = changed[start : start + count]
    return bytes(changed)


def damage_fields(model: onnx.ModelProto, draw: random.Random) -> onnx.ModelProto:
    """One or two fields anywhere in the graph changed to what such a field may hold, and rightly does not hold here."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    names = [*(n.output[0] for n in model.graph.node), *(i.name for i in model.graph.initializer), "x", "", "nowhere"]
    for _ in range(draw.randint(1, 2)):
        target = draw.choice([m for m in _messages(changed.graph) if m.ListFields()])
        field, content = draw.choice(target.ListFields())
        if field.is_repeated:
            _damage_list(field, content, names, draw)
        else:
            _damage_field(target, field, content, names, draw)
    return changed


def _messages(message: Message) -> list[Message]:
    found = [message]
    for field, content in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in content if field.is_repeated else [content]:
                found += _messages(part)
    return found


_WHOLE = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32)


def _value(field: FieldDescriptor, names: list[str], draw: random.Random) -> object:
    """Another value of a field's type; None for a message."""
    if field.type == FieldDescriptor.TYPE_ENUM:
        return draw.choice(field.enum_type.values).number
    if field.type in _WHOLE:
        integer = draw.choice(_INTEGERS)
        return integer if field.type == FieldDescriptor.TYPE_INT64 or abs(integer) < 1 << 31 else 0
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return draw.choice(_FLOATS)
    if field.type == FieldDescriptor.TYPE_STRING:
        return draw.choice(_OPS if field.name == "op_type" else names)
    return None


def _damage_list(field: FieldDescriptor, content, names: list[str], draw: random.Random) -> None:  # type: ignore[no-untyped-def] # protobuf's containers have no type of their own
    at, value = draw.randrange(len(content)), _value(field, names, draw)
    match draw.randrange(3):
        case 0:
            del content[at]
        case 1 if field.type == FieldDescriptor.TYPE_MESSAGE:
            content.add().CopyFrom(content[at])
        case 1:
            content.append(content[at])
        case 2 if value is not None:
            content[at] = value


def _damage_field(
    target: Message, field: FieldDescriptor, content: object, names: list[str], draw: random.Random
) -> None:
    value = _value(field, names, draw)
    if value is not None:
        setattr(target, field.name, value)
    elif isinstance(content, bytes) and content:
        whole = bytearray(content)
        if len(whole) >= 8 and draw.random() < 0.7:
            at = draw.randrange(len(whole) // 8) * 8
            whole[at : at + 8] = (draw.choice(_INTEGERS) & (1 << 64) - 1).to_bytes(8, "little")
        else:
            del whole[draw.randrange(len(whole)) :]
        setattr(target, field.name, bytes(whole))
    else:
        target.ClearField(field.name)
