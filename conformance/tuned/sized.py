"""Small models whose tensors have the sizes of networks, and odd ones beside them: where tuned kernels are reached.

A model is a few nodes in onnx.parser's words around the operator that it is about. What it is fed is ``x`` (and ``z``);
its weights are ``w``, ``b``, ...: fed, too, or constant, which is when they are packed ahead of time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from omniop.conformance.samples.drawing import Values, normal, special, uniform
from omniop.dispatcher.precision import OPERANDS, Precision
from omniop.opset import dtype as dtypes

FED = ("x", "z", "mask")
"""The inputs that are never constant."""

_IMPORTS = (helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1))


@dataclass(frozen=True)
class Sized:
    """One model. ``inputs`` by name, ``nodes`` one a line, the last of which gives ``y``; ``depth``: how many products
    lie behind each other. ``dtype`` is of what it computes with, and of ``y``."""

    name: str
    op: str
    dtype: str
    inputs: Mapping[str, Values]
    nodes: Sequence[str]
    depth: int = 1
    made: str = field(default="", kw_only=True)
    """The dtype of ``y`` where it is another."""
    precision: Precision | None = field(default=None, kw_only=True)
    """What the session is asked for. What is drawn then are numbers that its rounding leaves as they are."""

    def feeds(self) -> dict[str, np.ndarray]:
        """Every input, weights included, drawn from the name alone."""
        digest = hashlib.sha256(self.name.encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        drawn = {name: values.draw(random) for name, values in self.inputs.items()}
        if self.precision is None:
            return drawn
        narrow = OPERANDS[self.precision].numpy
        return {name: array.astype(narrow).astype(array.dtype) for name, array in drawn.items()}

    def model(self, constants: Mapping[str, np.ndarray], wide: bool = False) -> onnx.ModelProto:
        """The model with some of its inputs constant; ``wide``: in float64 throughout, for an oracle."""
        infos = [
            helper.make_tensor_value_info(name, self._number(values.dtype, wide), values.shape)
            for name, values in self.inputs.items()
            if name not in constants
        ]
        y = helper.make_tensor_value_info("y", self._number(self.made or self.dtype, wide), None)
        graph = helper.make_graph([parser.parse_node(line) for line in self.nodes], self.name, infos, [y])
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
        return helper.make_model(graph, opset_imports=_IMPORTS, ir_version=11)

    def _number(self, dtype: str, wide: bool) -> int:
        return dtypes.of_name("float64" if wide and dtype == self.dtype else dtype).onnx


@cache
def sized() -> Mapping[str, Sized]:
    """All of them by name."""
    families = (
        _products,
        _integer_products,
        _convolutions,
        _small_images,
        _networks,
        _pools,
        _attention,
        _rows,
        _recurrent,
        _poisoned,
        _rounded,
    )
    return {f"tuned_{one.name}": one for family in families for one in family()}


def _weight(dtype: str, shape: Sequence[int], terms: int) -> Values:
    """Such that sums of so many products stay near one."""
    bound = float(np.sqrt(3 / max(1, terms)))
    return uniform(dtype, tuple(shape), -bound, bound)


# -- products ----------------------------------------------------------------------------------------------------------

_PRODUCTS = (
    *((1, 64, 64), (1, 576, 1536), (3, 65, 127), (17, 33, 129), (31, 64, 48), (64, 64, 64), (128, 256, 96)),
    *((197, 192, 64), (256, 1025, 31)),
)
"""M, K, N: rows of one, of a few, of a picture's patches; sizes around those of tiles and vectors."""

_TAILS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "": ((), ""),
    "bias": (("y = Add (h, b)",), "b"),
    "relu": (("t = Add (h, b)", "y = Relu (t)"), "b"),
    "gelu": (("t = Add (h, b)", "y = Gelu (t)"), "b"),
    "residual": (("t = Add (h, b)", "y = Add (t, z)"), "bz"),
}
"""What comes after a product ``h``, and the inputs that it takes."""


def _products() -> Iterator[Sized]:
    for m, k, n in _PRODUCTS:
        for tail, (nodes, extra) in _TAILS.items():
            for dtype in ("float32",) if tail not in ("", "gelu") else ("float32", "float16", "bfloat16"):
                inputs = {"x": normal(dtype, m, k), "w": _weight(dtype, (k, n), k)}
                inputs |= {"b": normal(dtype, n)} if "b" in extra else {}
                inputs |= {"z": normal(dtype, m, n)} if "z" in extra else {}
                head = "h = MatMul (x, w)" if nodes else "y = MatMul (x, w)"
                name = "_".join(filter(None, ["matmul", dtype, f"{m}x{k}x{n}", tail]))
                yield Sized(name, "MatMul", dtype, inputs, (head, *nodes))
        yield Sized(
            *(f"gemm_float32_{m}x{k}x{n}_transposed", "Gemm", "float32"),
            {"x": normal("float32", m, k), "w": _weight("float32", (n, k), k), "b": normal("float32", n)},
            ("y = Gemm <transB = 1> (x, w, b)",),
        )
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "batch": ((4, 17, 33), (33, 65)),
        "batches": ((2, 3, 17, 16), (2, 3, 16, 19)),
        "one_of_many": ((1, 3, 17, 16), (5, 3, 16, 19)),
        "column": ((64, 129), (129, 1)),
        "nothing": ((0, 64), (64, 33)),
        "no_terms": ((5, 0), (0, 33)),
    }
    for about, (a, b) in shapes.items():
        for dtype in ("float32", "float64", "float16"):
            inputs = {"x": normal(dtype, *a), "w": _weight(dtype, b, a[-1])}
            yield Sized(f"matmul_{dtype}_{about}", "MatMul", dtype, inputs, ("y = MatMul (x, w)",))
    turned = {"x": normal("float32", 65, 34), "w": _weight("float32", (65, 48), 65)}
    nodes = ("t = Transpose <perm = [1, 0]> (x)", "y = MatMul (t, w)")
    yield Sized("matmul_float32_transposed_feed", "MatMul", "float32", turned, nodes)
    left = {"x": normal("float32", 64, 49), "w": _weight("float32", (96, 64), 64)}
    yield Sized("matmul_float32_weights_on_the_left", "MatMul", "float32", left, ("y = MatMul (w, x)",))


def _integer_products() -> Iterator[Sized]:
    for m, k, n in _PRODUCTS[:7]:
        x, w = uniform("uint8", (m, k), 0, 256), uniform("int8", (k, n), -128, 128)
        zero = uniform("uint8", (), 100, 140)
        yield Sized(
            *(f"matmulinteger_{m}x{k}x{n}", "MatMulInteger", "int32"),
            {"x": x, "w": w, "p": zero},
            ("y = MatMulInteger (x, w, p)",),
        )
        scales = {"s": uniform("float32", (), 0.01, 0.02), "b": normal("float32", n)}
        nodes = (
            "q, xs, xp = DynamicQuantizeLinear (x)",
            "h = MatMulInteger (q, w, xp)",
            "f = Cast <to = 1> (h)",
            "f1 = Mul (f, xs)",
            "f2 = Mul (f1, s)",
            "y = Add (f2, b)",
        )
        inputs = {"x": normal("float32", m, k), "w": w, **scales}
        yield Sized(f"dynamic_quantized_{m}x{k}x{n}", "MatMulInteger", "float32", inputs, nodes, made="float32")


# -- convolutions ------------------------------------------------------------------------------------------------------

_CONVOLUTIONS = (
    # n, c, height, width, out, kernel, stride, pad, group, dilation
    *((1, 3, 32, 32, 16, 3, 1, 1, 1, 1), (1, 3, 33, 31, 32, 7, 2, 3, 1, 1), (1, 16, 28, 28, 16, 3, 1, 1, 1, 1)),
    *((1, 32, 15, 15, 48, 3, 1, 1, 1, 1), (2, 64, 14, 14, 64, 3, 1, 1, 1, 1), (1, 17, 13, 11, 19, 3, 1, 1, 1, 1)),
    *((1, 64, 14, 14, 128, 1, 1, 0, 1, 1), (1, 64, 15, 15, 96, 1, 2, 0, 1, 1), (1, 32, 9, 7, 32, 3, 2, 1, 1, 1)),
    *((1, 32, 14, 14, 32, 3, 1, 1, 32, 1), (1, 48, 16, 15, 48, 5, 2, 2, 48, 1), (1, 32, 14, 14, 32, 3, 1, 1, 4, 1)),
    *((1, 16, 20, 20, 16, 3, 1, 2, 1, 2), (1, 16, 6, 5, 32, 3, 1, 1, 1, 1), (3, 32, 1, 1, 64, 1, 1, 0, 1, 1)),
)

_AFTER: Mapping[str, tuple[str, ...]] = {
    "": (),
    "relu": ("y = Relu (h)",),
    "residual": ("t = Add (h, z)", "y = Relu (t)"),
    "clip": ("l = Constant <value_float = 0.0> ()", "u = Constant <value_float = 6.0> ()", "y = Clip (h, l, u)"),
    "silu": ("g = Sigmoid (h)", "y = Mul (h, g)"),
    "hardswish": ("y = HardSwish (h)",),
    "normalised": ("y = BatchNormalization (h, s, b1, b2, v)",),
}


def _convolution(extents: Sequence[int], after: str, precision: Precision | None = None) -> Sized:
    n, c, height, width, out, k, stride, pad, group, dilation = extents
    shape = f"{n}x{c}x{height}x{width}_{out}x{k}_stride{stride}" + (f"_group{group}" if group > 1 else "")
    shape += f"_dilation{dilation}" if dilation > 1 else ""
    reach = dilation * (k - 1) + 1
    tall, wide = ((extent + 2 * pad - reach) // stride + 1 for extent in (height, width))
    inputs = {"x": normal("float32", n, c, height, width)}
    inputs["w"] = _weight("float32", (out, c // group, k, k), k * k * c // group)
    inputs["b"] = normal("float32", out)
    inputs |= {"z": normal("float32", n, out, tall, wide)} if after == "residual" else {}
    if after == "normalised":
        inputs |= {name: normal("float32", out) for name in ("s", "b1", "b2")}
        inputs["v"] = uniform("float32", (out,), 0.5, 2)
    nodes = _AFTER[after]
    head = f"{'h' if nodes else 'y'} = {_conv(k, stride, pad, group, dilation)} (x, w, b)"
    name = "_".join(filter(None, ["conv", precision or "float32", shape, after]))
    return Sized(name, "Conv", "float32", inputs, (head, *nodes), precision=precision)


def _convolutions() -> Iterator[Sized]:
    yield from (_convolution(extents, after) for extents in _CONVOLUTIONS for after in _AFTER)
    for dtype in ("float16", "bfloat16", "float64"):
        inputs = {"x": normal(dtype, 1, 16, 12, 11), "w": _weight(dtype, (24, 16, 3, 3), 144)}
        yield Sized(f"conv_{dtype}_1x16x12x11_24x3", "Conv", dtype, inputs, (f"y = {_conv(3, 1, 1)} (x, w)",))
    many = {"x": normal("float32", 1, 304, 16, 16), "w": _weight("float32", (296, 304, 3, 3), 2736)}
    many["b"] = normal("float32", 296)
    head = f"h = {_conv(3, 1, 1)} (x, w, b)"
    yield Sized("conv_float32_1x304x16x16_296x3_relu", "Conv", "float32", many, (head, "y = Relu (h)"))
    line = {"x": normal("float32", 1, 16, 100), "w": _weight("float32", (32, 16, 3), 48)}
    yield Sized("conv_float32_line", "Conv", "float32", line, ("y = Conv <pads = [1, 1], strides = [2]> (x, w)",))
    solid = {"x": normal("float32", 1, 4, 6, 7, 5), "w": _weight("float32", (8, 4, 3, 3, 3), 108)}
    yield Sized("conv_float32_solid", "Conv", "float32", solid, ("y = Conv <pads = [1, 1, 1, 1, 1, 1]> (x, w)",))
    back = {"x": normal("float32", 1, 16, 7, 7), "w": _weight("float32", (16, 8, 4, 4), 64)}
    nodes = ("y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)",)
    yield Sized("convtranspose_float32", "ConvTranspose", "float32", back, nodes)
    x, w = uniform("uint8", (1, 16, 14, 14), 0, 256), uniform("int8", (32, 16, 3, 3), -128, 128)
    inputs = {"x": x, "w": w, "p": uniform("uint8", (), 100, 140)}
    yield Sized("convinteger", "ConvInteger", "int32", inputs, ("y = ConvInteger <pads = [1, 1, 1, 1]> (x, w, p)",))


def _conv(kernel: int, stride: int = 1, pad: int = 0, group: int = 1, dilation: int = 1) -> str:
    return (
        f"Conv <kernel_shape = [{kernel}, {kernel}], strides = [{stride}, {stride}], "
        f"pads = [{pad}, {pad}, {pad}, {pad}], group = {group}, dilations = [{dilation}, {dilation}]>"
    )


_SMALL = ((1, 64, 6, 6, 64), (2, 32, 5, 7, 48), (1, 17, 6, 9, 19), (2, 128, 3, 4, 128), (1, 128, 9, 14, 40))
"""n, c, height, width, out, where a window of 3 x 3 is least work two pixels by two."""


def _small_images() -> Iterator[Sized]:
    yield from (_convolution((*extents, 3, 1, 1, 1, 1), after) for extents in _SMALL for after in _AFTER)
    inputs = {"x": special("float32", 1, 64, 6, 6), "w": _weight("float32", (64, 64, 3, 3), 576)}
    yield Sized("conv_float32_small_special", "Conv", "float32", inputs, (f"y = {_conv(3, 1, 1)} (x, w)",))


def _networks() -> Iterator[Sized]:
    """Convolutions behind each other, where tensors stay in the layout that kernels like."""
    nodes: tuple[str, ...]

    def weights(*shapes: tuple[int, ...]) -> dict[str, Values]:
        return {f"w{k}": _weight("float32", s, s[1] * s[2] * s[3]) for k, s in enumerate(shapes)}

    block = {"x": normal("float32", 1, 32, 14, 13), **weights((32, 32, 3, 3), (32, 32, 3, 3))}
    nodes = (f"a = {_conv(3, 1, 1)} (x, w0)", "r = Relu (a)", f"c = {_conv(3, 1, 1)} (r, w1)", "s = Add (c, x)")
    yield Sized("network_residual_block", "Conv", "float32", block, (*nodes, "y = Relu (s)"), 2)
    mobile = {"x": normal("float32", 1, 16, 15, 15), **weights((48, 16, 1, 1), (48, 1, 3, 3), (16, 48, 1, 1))}
    nodes = (
        *(f"a = {_conv(1)} (x, w0)", "r = HardSwish (a)", f"d = {_conv(3, 1, 1, 48)} (r, w1)", "q = Relu (d)"),
        *(f"p = {_conv(1)} (q, w2)", "y = Add (p, x)"),
    )
    yield Sized("network_inverted_residual", "Conv", "float32", mobile, nodes, 3)
    stem = {
        "x": normal("float32", 2, 3, 33, 34),
        **weights((32, 3, 7, 7), (64, 32, 3, 3)),
        "g": normal("float32", 64, 10),
    }
    nodes = (
        *(f"a = {_conv(7, 2, 3)} (x, w0)", "r = Relu (a)"),
        *(
            "m = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (r)",
            f"c = {_conv(3, 1, 1)} (m, w1)",
        ),
        *("v = GlobalAveragePool (c)", "f = Flatten (v)", "y = MatMul (f, g)"),
    )
    yield Sized("network_stem_and_head", "Conv", "float32", stem, nodes, 3)
    parts = {"x": normal("float32", 1, 24, 12, 10), **weights((32, 24, 3, 3), (16, 24, 1, 1), (20, 48, 3, 3))}
    nodes = (
        *(f"a = {_conv(3, 1, 1)} (x, w0)", f"b = {_conv(1)} (x, w1)", "c = Concat <axis = 1> (a, b)", "r = Relu (c)"),
        f"y = {_conv(3, 1, 1)} (r, w2)",
    )
    yield Sized("network_concatenated", "Conv", "float32", parts, nodes, 2)
    gate = {"x": normal("float32", 1, 32, 9, 9), **weights((32, 32, 1, 1), (8, 32, 1, 1), (32, 8, 1, 1))}
    nodes = (
        *(f"a = {_conv(1)} (x, w0)", "m = GlobalAveragePool (a)", f"s = {_conv(1)} (m, w1)", "r = Relu (s)"),
        *(f"e = {_conv(1)} (r, w2)", "g = Sigmoid (e)", "y = Mul (a, g)"),
    )
    yield Sized("network_squeeze_and_excite", "Conv", "float32", gate, nodes, 3)
    sound = {"x": normal("float32", 1, 3, 131)}
    for k, shape in enumerate(((32, 3, 7), (32, 1, 3), (48, 32, 3))):
        sound[f"w{k}"] = _weight("float32", shape, shape[1] * shape[2])
    nodes = (
        *("a = Conv <pads = [3, 3], strides = [2]> (x, w0)", "r = Relu (a)"),
        *("d = Conv <pads = [1, 1], group = 32> (r, w1)", "q = Relu (d)"),
        *("m = MaxPool <kernel_shape = [3], strides = [2]> (q)", "y = Conv <pads = [1, 1]> (m, w2)"),
    )
    yield Sized("network_of_sound", "Conv", "float32", sound, nodes, 3)
    up = {"x": normal("float32", 1, 16, 7, 9), **weights((32, 16, 3, 3), (16, 32, 3, 3))}
    nodes = (
        *(f"a = {_conv(3, 1, 1)} (x, w0)", "s = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()"),
        *('u = Resize <mode = "nearest"> (a, , s)', f"y = {_conv(3, 1, 1)} (u, w1)"),
    )
    yield Sized("network_upsampled", "Conv", "float32", up, nodes, 2)


def _pools() -> Iterator[Sized]:
    kinds = {
        "MaxPool": ("<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>", "<kernel_shape = [2, 2]>"),
        "AveragePool": ("<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>", "<kernel_shape = [2, 2], strides = [2, 2]>"),
        **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), ("",)),
    }
    for op, attributes in kinds.items():
        for number, words in enumerate(attributes):
            for shape in ((1, 32, 17, 15), (2, 17, 8, 8)):
                name = f"{op.lower()}_{number}_{'x'.join(map(str, shape))}"
                yield Sized(name, op, "float32", {"x": normal("float32", *shape)}, (f"y = {op} {words} (x)",))


# -- rows and heads ----------------------------------------------------------------------------------------------------


def _attention() -> Iterator[Sized]:
    """As the operator, and as exporters write it out."""
    nodes: tuple[str, ...]
    for heads, queries, keys, size in ((4, 17, 17, 16), (12, 64, 64, 64), (8, 1, 33, 64), (2, 5, 129, 24)):
        shapes = {"x": (1, heads, queries, size), "k": (1, heads, keys, size), "v": (1, heads, keys, size)}
        inputs = {name: normal("float32", *shape) for name, shape in shapes.items()}
        about = f"{heads}x{queries}x{keys}x{size}"
        yield Sized(f"attention_{about}", "Attention", "float32", inputs, ("y = Attention (x, k, v)",), 2)
        masked = {**inputs, "mask": normal("float32", 1, 1, queries, keys), "c": uniform("float32", (), 0.1, 0.2)}
        nodes = (
            *("kt = Transpose <perm = [0, 1, 3, 2]> (k)", "s = MatMul (x, kt)"),
            *("sc = Mul (s, c)", "m = Add (sc, mask)"),
            *("p = Softmax <axis = -1> (m)", "y = MatMul (p, v)"),
        )
        yield Sized(f"attention_written_out_{about}", "Attention", "float32", masked, nodes, 2)


def _rows() -> Iterator[Sized]:
    nodes: tuple[str, ...]
    for rows, n in ((1, 17), (17, 768), (12, 128), (3, 1025)):
        x = normal("float32", rows, n)
        scale = {"w": normal("float32", n), "b": normal("float32", n)}
        about = f"{rows}x{n}"
        yield Sized(f"softmax_{about}", "Softmax", "float32", {"x": x}, ("y = Softmax (x)",))
        nodes = ("y = LayerNormalization (x, w, b)",)
        yield Sized(f"layernormalization_{about}", "LayerNormalization", "float32", {"x": x, **scale}, nodes)
        nodes = ("y = RMSNormalization (x, w)",)
        yield Sized(f"rmsnormalization_{about}", "RMSNormalization", "float32", {"x": x, "w": scale["w"]}, nodes)
        nodes = ("k = Constant <value_ints = [7]> ()", "y, i = TopK (x, k)")
        yield Sized(f"topk_{about}", "TopK", "float32", {"x": x}, nodes)
        nodes = ("a = Constant <value_int = 1> ()", "y = CumSum (x, a)")
        yield Sized(f"cumsum_{about}", "CumSum", "float32", {"x": x}, nodes)


def _recurrent() -> Iterator[Sized]:
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        inputs = {
            "x": normal("float32", 7, 2, 24),
            "w": _weight("float32", (1, gates * 32, 24), 24),
            "r": _weight("float32", (1, gates * 32, 32), 32),
        }
        yield Sized(f"{op.lower()}_7x2x24_32", op, "float32", inputs, (f"y = {op} <hidden_size = 32> (x, w, r)",), 4)


def _poisoned() -> Iterator[Sized]:
    """NaN, infinities, zeros of both signs and extreme numbers among what is multiplied."""
    inputs = {"x": special("float32", 5, 33), "w": _weight("float32", (33, 17), 33)}
    yield Sized("matmul_float32_special", "MatMul", "float32", inputs, ("y = MatMul (x, w)",))
    inputs = {"x": special("float32", 1, 3, 9, 9), "w": _weight("float32", (16, 3, 3, 3), 27)}
    yield Sized("conv_float32_special_strided", "Conv", "float32", inputs, (f"y = {_conv(3, 2, 1)} (x, w)",))
    yield Sized("softmax_special", "Softmax", "float32", {"x": special("float32", 5, 33)}, ("y = Softmax (x)",))


# -- in less than float32 ----------------------------------------------------------------------------------------------

_STEPPED = (
    *((1, 64, 14, 13, 128, 1, 1, 0, 1, 1), (1, 64, 15, 15, 96, 1, 2, 0, 1, 1), (1, 32, 9, 7, 32, 3, 2, 1, 1, 1)),
    *((1, 3, 33, 31, 32, 7, 2, 3, 1, 1), (2, 4, 12, 13, 19, 4, 4, 0, 1, 1), (1, 33, 10, 9, 32, 1, 1, 0, 1, 1)),
    *((2, 18, 13, 11, 19, 5, 1, 2, 1, 1), (1, 16, 20, 20, 16, 3, 1, 2, 1, 2), (1, 64, 9, 9, 64, 3, 2, 1, 2, 1)),
)
"""As `_CONVOLUTIONS`: those that no algorithm spares products of, so that less precision is faster."""


def _rounded() -> Iterator[Sized]:
    """What a session rounds when it is asked to: products, convolutions in one dim and in two, and what is made of
    them."""

    def one(name: str, op: str, inputs: Mapping[str, Values], *nodes: str) -> Sized:
        return Sized(f"{name}_bf16", op, "float32", inputs, nodes, precision="bf16")

    for m, k, n in _PRODUCTS:
        inputs = {"x": normal("float32", m, k), "w": _weight("float32", (k, n), k), "b": normal("float32", n)}
        yield one(f"matmul_{m}x{k}x{n}", "MatMul", inputs, "y = MatMul (x, w)")
        yield one(f"matmul_{m}x{k}x{n}_gelu", "MatMul", inputs, "h = MatMul (x, w)", *_TAILS["gelu"][0])
    inputs = {"x": special("float32", 5, 34), "w": _weight("float32", (34, 17), 34)}
    yield one("matmul_special", "MatMul", inputs, "y = MatMul (x, w)")
    afters = [after for after in _AFTER if after != "normalised"]  # its scales go into weights, which are rounded anew
    yield from (_convolution(extents, after, "bf16") for extents in _STEPPED for after in afters)
    for channels in (3, 32):
        inputs = {"x": special("float32", 1, channels, 9, 9)}
        inputs["w"] = _weight("float32", (16, channels, 3, 3), 9 * channels)
        yield one(f"conv_special_{channels}", "Conv", inputs, f"y = {_conv(3, 2, 1)} (x, w)")
    for channels, length, stride in ((18, 100, 2), (18, 33, 1), (18, 2, 1), (3, 90, 2)):
        inputs = {"x": normal("float32", 2, channels, length)}
        inputs["w"] = _weight("float32", (32, channels, 3), 3 * channels)
        line = f"Conv <pads = [1, 1], strides = [{stride}]>"
        yield one(f"conv_line_{length}", "Conv", inputs, f"y = {line} (x, w)")
        yield one(f"conv_line_{length}_relu", "Conv", inputs, f"h = {line} (x, w)", "y = Relu (h)")
    yield from (replace(m, name=f"{m.name}_bf16", precision="bf16") for m in (*_networks(), *_attention()))
