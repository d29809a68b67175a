"""Gate cases of the operators that compute: normalisations, convolutions, Resize, LSTM and CumSum."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gate.case import Feeds, GateCase, cases, model, normal

INF, NAN = np.inf, np.nan


def softmax() -> list[GateCase]:
    """Every axis, widths of every remainder, rows with infinities, no rows at all, and the opset 11 meaning."""
    last = model("softmax (float[N, C] x) => (float[N, C] y) { y = Softmax <axis = -1> (x) }")
    extreme = np.array([[1e30, 1e30, -1e30], [-INF, 0, 1], [88, 89, 90], [-200, -300, -400]], np.float32)
    undefined = np.array([[-INF, -INF], [INF, 1], [NAN, 0]], np.float32)
    first = model("softmax (float[N, C] x) => (float[N, C] y) { y = Softmax <axis = 0> (x) }")
    middle = model("softmax (float[2, 3, 5, 7] x) => (float[2, 3, 5, 7] y) { y = Softmax <axis = 1> (x) }")
    flat = model("softmax (float[A, B, C] x) => (float[A, B, C] y) { y = Softmax <axis = 1> (x) }", 11)
    half = model("softmax (float16[N, C] x) => (float16[N, C] y) { y = Softmax (x) }")
    double = model("softmax (double[N, C] x) => (double[N, C] y) { y = Softmax (x) }")
    shapes = {"3x17": (3, 17), "1x1": (1, 1), "5x1000": (5, 1000), "257x16": (257, 16), "0x5": (0, 5)}
    return [
        *cases("Softmax/last", last, {label: {"x": normal(*shape)} for label, shape in shapes.items()}),
        *cases("Softmax/values", last, {"extreme": {"x": extreme}, "undefined": {"x": undefined}}),
        *cases("Softmax/first", first, {"17x3": {"x": normal(17, 3)}, "1x9": {"x": normal(1, 9)}}),
        *cases("Softmax/middle", middle, {"2x3x5x7": {"x": normal(2, 3, 5, 7)}}),
        # onnx.reference gives the opset 13 meaning to every version.
        *cases("Softmax/opset-11", flat, {"3x4x5": {"x": normal(3, 4, 5)}}, oracle=_softmax_of_flattened),
        *cases("Softmax/float16", half, {"7x33": {"x": normal(7, 33, dtype=np.float16)}}, rtol=2e-3, atol=1e-4),
        *cases("Softmax/float64", double, {"7x33": {"x": normal(7, 33, dtype=np.float64)}}, rtol=1e-12, atol=1e-15),
    ]


def _softmax_of_flattened(feeds: Feeds) -> dict[str, Any]:
    """Softmax at axis 1 before opset 13: over all that follows the first axis at once."""
    x = feeds["x"].astype(np.float64)
    rows = np.exp(x.reshape(len(x), -1))
    return {"y": (rows / rows.sum(1, keepdims=True)).reshape(x.shape).astype(np.float32)}


def layer_normalization() -> list[GateCase]:
    """The operator with all its outputs, and the spelling that exporters used before it existed."""
    plain = model(
        "ln (float[B, S, 15] x, float[15] g, float[15] b) => (float[B, S, 15] y)"
        "{ y = LayerNormalization <axis = -1, epsilon = 0.00001> (x, g, b) }"
    )
    no_bias = model("ln (float[N, 8] x, float[8] g) => (float[N, 8] y) { y = LayerNormalization (x, g) }")
    all_outputs = model(
        "ln (float[2, 3, 5] x, float[3, 5] g, float[3, 5] b) => (float[2, 3, 5] y, float[2, 1, 1] m, float[2, 1, 1] d)"
        "{ y, m, d = LayerNormalization <axis = 1> (x, g, b) }"
    )
    half = model(
        "ln (float16[N, 40] x, float16[40] g, float16[40] b) => (float16[N, 40] y) { y = LayerNormalization (x, g, b) }"
    )
    spelled = model(
        """ln (float[B, S, 24] x, float[24] g, float[24] b) => (float[B, S, 24] y)
        <float two = {2}, float epsilon = {0.00001}> {
            mean = ReduceMean <axes = [-1]> (x)
            d = Sub (x, mean)
            square = Pow (d, two)
            variance = ReduceMean <axes = [-1]> (square)
            shifted = Add (variance, epsilon)
            deviation = Sqrt (shifted)
            n = Div (d, deviation)
            scaled = Mul (n, g)
            y = Add (scaled, b)
        }""",
        17,
    )

    def feeds(*shape: int, parameters: tuple[int, ...] = (), dtype: Any = np.float32) -> dict[str, Any]:
        parameters = parameters or shape[-1:]
        names = {"g": normal(*parameters, dtype=dtype, seed=1), "b": normal(*parameters, dtype=dtype, seed=2)}
        return {"x": normal(*shape, dtype=dtype) * dtype(3) + dtype(1), **names}

    far = feeds(2, 3, 15) | {"x": normal(2, 3, 15) + np.float32(1000)}  # the mean is far above the deviation
    without = {name: value for name, value in feeds(5, 8).items() if name != "b"}
    return [
        *cases(
            "LayerNormalization/last", plain, {"2x3": feeds(2, 3, 15), "7x1": feeds(7, 1, 15), "0x4": feeds(0, 4, 15)}
        ),
        *cases("LayerNormalization/far", plain, {"2x3": far}, rtol=1e-3, atol=1e-3),
        *cases("LayerNormalization/no-bias", no_bias, {"5": without}),
        *cases("LayerNormalization/outputs", all_outputs, {"axis-1": feeds(2, 3, 5, parameters=(3, 5))}),
        *cases("LayerNormalization/float16", half, {"9": feeds(9, 40, dtype=np.float16)}, rtol=4e-3, atol=4e-3),
        *cases("LayerNormalization/spelled", spelled, {"2x3": feeds(2, 3, 24), "1x1": feeds(1, 1, 24)}),
    ]


def conv_relu() -> list[GateCase]:
    """Conv + Relu over strides, pads, dilations, groups, ranks and symbolic sizes."""

    def build(attributes: str, weight: tuple[int, ...], bias: bool, shape: str) -> Any:
        graph = f"""conv (float[{shape}] x) => (float[{", ".join("o" + str(i) for i in range(len(weight)))}] y) {{
            c = Conv <{attributes}> (x, w{", b" if bias else ""})
            y = Relu (c)
        }}"""
        return model(graph, w=normal(*weight, seed=1), **({"b": normal(weight[0], seed=2)} if bias else {}))

    dynamic = build("pads = [1, 1, 1, 1]", (16, 3, 3, 3), True, "N, 3, H, W")
    table: dict[str, tuple[str, tuple[int, ...], bool, tuple[int, ...]]] = {
        "3x3-stride-2": ("strides = [2, 2], pads = [1, 1, 1, 1]", (5, 3, 3, 3), True, (2, 3, 9, 7)),
        "1x1": ("pads = [0, 0, 0, 0]", (7, 6, 1, 1), False, (1, 6, 5, 3)),
        "asymmetric": ("pads = [0, 2, 1, 0], strides = [1, 2]", (4, 3, 2, 3), True, (1, 3, 6, 7)),
        "dilated": ("dilations = [2, 3], pads = [2, 3, 2, 3]", (4, 2, 3, 3), False, (1, 2, 11, 12)),
        "groups": ("group = 3, pads = [1, 1, 1, 1]", (6, 2, 3, 3), True, (2, 6, 5, 5)),
        "depthwise": ("group = 8, pads = [2, 2, 2, 2]", (8, 1, 5, 5), True, (1, 8, 6, 9)),
        "same-upper": ('auto_pad = "SAME_UPPER", strides = [2, 2]', (3, 3, 3, 3), False, (1, 3, 6, 5)),
        "same-lower": ('auto_pad = "SAME_LOWER"', (3, 3, 2, 2), False, (1, 3, 6, 5)),
        "1d": ("pads = [1, 1]", (4, 3, 3), True, (2, 3, 10)),
        "3d": ("pads = [1, 0, 1, 1, 0, 1]", (2, 3, 3, 1, 3), True, (1, 3, 4, 5, 3)),
        "even-channels": ("pads = [1, 1, 1, 1]", (32, 16, 3, 3), True, (1, 16, 8, 8)),
    }
    sizes = {"1x8x8": (1, 3, 8, 8), "2x5x13": (2, 3, 5, 13), "1x1x1": (1, 3, 1, 1), "0x4x4": (0, 3, 4, 4)}
    return [
        *cases("Conv+Relu/dynamic", dynamic, {label: {"x": normal(*shape)} for label, shape in sizes.items()}),
        *(
            case
            for name, (attributes, weight, bias, shape) in table.items()
            for case in cases(
                "Conv+Relu",
                build(attributes, weight, bias, ", ".join(map(str, shape))),
                {name: {"x": normal(*shape)}},
            )
        ),
    ]


def conv_transpose() -> list[GateCase]:
    """ConvTranspose: overlapping and gaping strides, output padding and shape, groups, ranks, symbolic sizes."""

    def build(attributes: str, weight: tuple[int, ...], channels: int, shape: str) -> Any:
        outputs = ", ".join(f"o{i}" for i in range(len(weight)))
        graph = f"deconv (float[{shape}] x) => (float[{outputs}] y) {{ y = ConvTranspose <{attributes}> (x, w, b) }}"
        return model(graph, w=normal(*weight, seed=1), b=normal(channels, seed=2))

    table: dict[str, tuple[str, tuple[int, ...], int, tuple[int, ...]]] = {
        "plain": ("strides = [1, 1]", (3, 4, 3, 3), 4, (1, 3, 4, 5)),
        "pads": ("strides = [2, 3], pads = [1, 0, 1, 2]", (3, 2, 3, 3), 2, (2, 3, 4, 5)),
        "output-padding": ("strides = [2, 2], output_padding = [1, 1]", (3, 2, 3, 3), 2, (1, 3, 4, 5)),
        "output-shape": ("strides = [3, 2], output_shape = [10, 8]", (1, 2, 3, 3), 2, (1, 1, 3, 3)),
        "dilated": ("dilations = [2, 2]", (2, 3, 2, 2), 3, (1, 2, 3, 3)),
        "groups": ("group = 2, strides = [2, 2]", (4, 3, 2, 2), 6, (1, 4, 3, 3)),
        "gaps": ("strides = [3, 3]", (2, 2, 2, 2), 2, (1, 2, 3, 3)),  # outputs that no input reaches: the bias alone
        "same-upper": ('auto_pad = "SAME_UPPER", strides = [2, 2]', (1, 2, 3, 3), 2, (1, 1, 3, 3)),
        "1d": ("strides = [2]", (3, 2, 3), 2, (2, 3, 6)),
        "3d": ("strides = [1, 2, 1]", (2, 2, 2, 2, 2), 2, (1, 2, 3, 2, 3)),
    }
    dynamic = build("strides = [2, 2], pads = [1, 1, 1, 1]", (3, 5, 4, 4), 5, "N, 3, H, W")
    sizes = {"1x4x4": (1, 3, 4, 4), "3x7x2": (3, 3, 7, 2)}
    # Neither oracle takes a batch of zero.
    nothing: dict[str, Any] = {"oracle": lambda _: {"y": np.zeros((0, 5, 8, 8), np.float32)}, "second": None}
    only: dict[str, Any] = {
        "oracle": "onnxruntime",
        "second": None,
    }  # onnx.reference's ConvTranspose cannot take groups
    return [
        *cases("ConvTranspose/dynamic", dynamic, {label: {"x": normal(*shape)} for label, shape in sizes.items()}),
        *cases("ConvTranspose/dynamic", dynamic, {"0x4x4": {"x": normal(0, 3, 4, 4)}}, **nothing),
        *(
            case
            for name, (attributes, weight, channels, shape) in table.items()
            for case in cases(
                "ConvTranspose",
                build(attributes, weight, channels, ", ".join(map(str, shape))),
                {name: {"x": normal(*shape)}},
                **(only if name == "groups" else {}),
            )
        ),
    ]


def resize() -> list[GateCase]:
    """Nearest, linear and cubic under each coordinate rule, by scales and by sizes, up and down, fixed and fed."""

    def build(attributes: str, scales: tuple[float, ...]) -> Any:
        graph = f"resize (float[1, 2, H, W] x) => (float[1, 2, P, Q] y) {{ y = Resize <{attributes}> (x, , scales) }}"
        return model(graph, 19, scales=np.array((1, 1, *scales), np.float32))

    table: dict[str, tuple[str, tuple[float, ...]]] = {
        "nearest-2x": (
            'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
            (2, 2),
        ),
        "nearest-half-pixel": ('mode = "nearest"', (1.5, 2.7)),
        "nearest-down": ('mode = "nearest", nearest_mode = "ceil"', (0.6, 0.5)),
        "linear": ('mode = "linear"', (2, 3)),
        "linear-down": ('mode = "linear"', (0.6, 0.6)),
        "linear-asymmetric": ('mode = "linear", coordinate_transformation_mode = "asymmetric"', (2, 1.5)),
        "linear-align-corners": ('mode = "linear", coordinate_transformation_mode = "align_corners"', (2, 2)),
        "linear-pytorch": ('mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"', (2, 0.25)),
        "cubic": ('mode = "cubic", cubic_coeff_a = -0.75', (2, 2)),
        "cubic-exclude-outside": ('mode = "cubic", exclude_outside = 1', (1.5, 1.5)),
    }
    # One output column of pytorch_half_pixel reads coordinate 0; onnx.reference decides that by the unrounded width.
    only: dict[str, Any] = {"oracle": "onnxruntime", "second": None}
    by_sizes = model(
        "resize (float[N, C, H, W] x, int64[4] sizes) => (float[a, b, c, d] y)"
        '{ y = Resize <mode = "linear"> (x, , , sizes) }',
        13,
    )
    sized = {
        f"{h}x{w}-to-{p}x{q}": {"x": normal(1, 3, h, w), "sizes": np.array([1, 3, p, q])}
        for h, w, p, q in ((4, 4, 8, 8), (5, 7, 11, 3), (6, 6, 6, 6), (1, 1, 3, 5))
    }
    upsample = model(
        'resize (float[1, 1, H, W] x) => (float[1, 1, P, Q] y) { y = Resize <mode = "nearest"> (x, scales) }',
        10,
        scales=np.array([1, 1, 2, 3], np.float32),
    )
    return [
        *(
            case
            for name, (attributes, scales) in table.items()
            for case in cases(
                "Resize",
                build(attributes, scales),
                {name: {"x": normal(1, 2, 4, 5)}},
                **(only if name == "linear-pytorch" else {}),
            )
        ),
        *cases("Resize/sizes", by_sizes, sized),
        *cases("Resize/opset-10", upsample, {"4x5": {"x": normal(1, 1, 4, 5)}}, oracle=_repeat),
    ]


def _repeat(feeds: Feeds) -> dict[str, Any]:
    """Nearest at 2 and 3 times the size; onnx.reference has no Resize of opset 10."""
    return {"y": feeds["x"].repeat(2, axis=2).repeat(3, axis=3)}


def lstm() -> list[GateCase]:
    """LSTM by direction, with and without bias, state, peepholes, lengths and other activations."""

    def build(direction: str, inputs: str, extra: str = "") -> Any:
        count = 2 if direction == "bidirectional" else 1
        graph = f"""lstm (float[S, B, 5] x, int32[B] lengths, float[{count}, B, 6] h0, float[{count}, B, 6] c0)
            => (float[S, {count}, B, 6] y, float[{count}, B, 6] h, float[{count}, B, 6] c) {{
            y, h, c = LSTM <hidden_size = 6, direction = "{direction}"{extra}> (x, w, r, {inputs})
        }}"""
        weights = {"w": (count, 24, 5), "r": (count, 24, 6), "b": (count, 48), "p": (count, 18)}
        used = {name: shape for name, shape in weights.items() if name in ("w", "r") or f" {name}" in f" {inputs}"}
        arrays = {name: normal(*shape, seed=i) * np.float32(0.5) for i, (name, shape) in enumerate(used.items())}
        return model(graph, 14, **arrays)

    def feeds(steps: int, batch: int, directions: int) -> dict[str, Any]:
        return {
            "x": normal(steps, batch, 5),
            "lengths": np.array([steps - i % steps for i in range(batch)], np.int32),
            "h0": normal(directions, batch, 6, seed=3),
            "c0": normal(directions, batch, 6, seed=4),
        }

    forward = build("forward", "b")
    one = {"7x2": feeds(7, 2, 1), "1x1": feeds(1, 1, 1), "3x5": feeds(3, 5, 1)}
    table = {
        "bare": ("forward", "", "", 1),
        "state": ("forward", "b, , h0, c0", "", 1),
        "peepholes": ("forward", "b, , h0, c0, p", "", 1),
        "lengths": ("forward", "b, lengths", "", 1),
        "reverse": ("reverse", "b, lengths, h0, c0", "", 1),
        "bidirectional": ("bidirectional", "b, , h0, c0", "", 2),
        "activations": ("forward", "b", ', activations = ["HardSigmoid", "Tanh", "Relu"]', 1),
    }
    # onnx.reference ignores lengths, direction = reverse and activations.
    only: dict[str, Any] = {"oracle": "onnxruntime", "second": None}
    alone = {"lengths", "reverse", "activations"}
    return [
        *cases("LSTM/forward", forward, one),
        *(
            case
            for name, (direction, inputs, extra, count) in table.items()
            for case in cases(
                "LSTM", build(direction, inputs, extra), {name: feeds(6, 3, count)}, **(only if name in alone else {})
            )
        ),
    ]


def cum_sum() -> list[GateCase]:
    """CumSum along an axis that is fed, both ways, with and without its own element."""

    def build(kind: str, attributes: str = "") -> Any:
        return model(
            f"cumsum ({kind}[N, M] x, int64 axis) => ({kind}[N, M] y) {{ y = CumSum {attributes} (x, axis) }}", 14
        )

    plain = build("float")
    sizes = {"3x7": (3, 7), "1x1000": (1, 1000), "5x1": (5, 1), "0x4": (0, 4)}
    given = {
        f"{label}-axis-{axis}": {"x": normal(*shape), "axis": np.array(axis)}
        for label, shape in sizes.items()
        for axis in (0, -1)
    }
    variants = {"exclusive": "<exclusive = 1>", "reverse": "<reverse = 1>", "both": "<exclusive = 1, reverse = 1>"}
    feeds = {"x": normal(4, 9), "axis": np.array(1)}
    whole = {"x": np.arange(-20, 15).reshape(5, 7).astype(np.int32), "axis": np.array(0)}
    return [
        *cases("CumSum/plain", plain, given, rtol=1e-3, atol=1e-4),
        *(case for name, text in variants.items() for case in cases("CumSum", build("float", text), {name: feeds})),
        *cases("CumSum", build("int32"), {"int32": whole}),
        *cases("CumSum", build("double"), {"float64": feeds | {"x": normal(4, 9, dtype=np.float64)}}, rtol=1e-12),
    ]
