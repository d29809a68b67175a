"""Gate cases of the operators that select, move and narrow data, and of those that hold graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from omniop.opset.errors import ExecutionError
from tests.gate.case import Feeds, GateCase, cases, integers, model, normal

NAN = np.nan


def arg_max() -> list[GateCase]:
    """The first NaN wins, as in numpy; ties go to the first, or to the last where that is asked for."""

    def build(op: str, axis: int, keepdims: int = 0, last: int = 0, kind: str = "float") -> Any:
        attributes = f"axis = {axis}, keepdims = {keepdims}, select_last_index = {last}"
        shape = ("[P, Q]" if keepdims else "[P]") if kind == "float" else "[P]"
        return model(f"arg ({kind}[N, M] x) => (int64{shape} y) {{ y = {op} <{attributes}> (x) }}", 13)

    rows = np.array([[1, NAN, 3, NAN], [NAN, NAN, NAN, NAN], [4, 4, 2, 4], [-np.inf, NAN, np.inf, 0]], np.float32)
    plain = {
        "3x17": {"x": normal(3, 17)},
        "1x1": {"x": normal(1, 1)},
        "7x1000": {"x": normal(7, 1000)},
        "0x5": {"x": normal(0, 5)},
    }
    ties = {"ties": {"x": integers(5, 9, low=0, high=3).astype(np.float32)}}
    whole = {"int32": {"x": integers(4, 33, low=-50, high=50, dtype=np.int32)}}
    # onnxruntime compares, so that its answer over NaN depends on their places: it is no second oracle there.
    nan: dict[str, Any] = {"second": "reference"}
    return [
        *cases("ArgMax/rows", build("ArgMax", 1), plain),
        *cases("ArgMax/rows", build("ArgMax", 1), {"nan": {"x": rows}}, oracle=_arg(np.argmax, 1), **nan),
        *cases("ArgMax/columns", build("ArgMax", 0), {"nan": {"x": rows}}, oracle=_arg(np.argmax, 0), **nan),
        *cases("ArgMax/columns", build("ArgMax", 0), ties),
        *cases("ArgMax/keepdims", build("ArgMax", -1, keepdims=1), plain),
        *cases("ArgMax/last", build("ArgMax", 1, last=1), ties),
        *cases("ArgMax/last", build("ArgMax", 1, last=1), {"nan": {"x": rows}}, oracle=_last_nan, **nan),
        *cases("ArgMax/rows", build("ArgMax", 1, kind="int32"), whole),
        *cases("ArgMax/argmin", build("ArgMin", 1), {"nan": {"x": rows}}, oracle=_arg(np.argmin, 1), **nan),
    ]


def _arg(function: Callable[..., Any], axis: int) -> Callable[[Feeds], Feeds]:
    return lambda feeds: {"y": function(feeds["x"], axis=axis)}


def _last_nan(feeds: Feeds) -> Feeds:
    x = feeds["x"]
    return {"y": x.shape[1] - 1 - np.argmax(x[:, ::-1], axis=1)}


def gather() -> list[GateCase]:
    """Indices count from either end; one outside raises and never reads memory, whatever its size."""

    def build(axis: int, rank: int, kind: str = "float", index: str = "int64") -> Any:
        indices = f"[{', '.join('IJK'[:rank])}]" if rank else ""
        outputs = ", ".join(f"o{i}" for i in range(rank + 1))
        return model(
            f"gather ({kind}[N, M] x, {index}{indices} i) => ({kind}[{outputs}] y)"
            f"{{ y = Gather <axis = {axis}> (x, i) }}"
        )

    rows = build(0, 1)
    x = normal(5, 7)
    wide = {"x": normal(3, 1000), "i": integers(2, 9, low=-1000, high=1000)}
    outside = {"above": 5, "below": -6, "far-above": 2**40, "far-below": -(2**40)}
    return [
        *cases(
            "Gather/rows",
            rows,
            {
                "negative": {"x": x, "i": np.array([-1, 0, -5, 4, 2])},
                "none": {"x": x, "i": np.zeros(0, np.int64)},
                "repeated": {"x": x, "i": np.array([3] * 40)},
                "of-no-columns": {"x": normal(5, 0), "i": np.array([1, -1])},
            },
        ),
        *cases("Gather/columns", build(1, 2), {"wide": wide}),
        *cases("Gather/scalar", build(-1, 0), {"negative": {"x": x, "i": np.array(-7)}}),
        *cases("Gather/int32", build(0, 1, index="int32"), {"negative": {"x": x, "i": np.array([-2, 1], np.int32)}}),
        *cases("Gather/bool", build(1, 1, kind="bool"), {"negative": {"x": x > 0, "i": np.array([-7, 6])}}),
        *cases(
            "Gather/int64",
            build(0, 1, kind="int64"),
            {"big": {"x": np.array([[2**53 + 1], [-(2**62)]]), "i": np.array([1, 0])}},
        ),
        *cases(
            "Gather/outside",
            rows,
            {label: {"x": x, "i": np.array([0, index, 1])} for label, index in outside.items()},
            raises=ExecutionError,
        ),
    ]


def non_zero() -> list[GateCase]:
    """A number of elements that only the data knows, then shapes that follow from it."""
    flat = model("nz (float[N, M] x) => (int64[K] y) <int64[1] all = {-1}> { i = NonZero (x) y = Reshape (i, all) }")
    picked = model(
        """nz (float[N, M] x) => (float[R, S] y) <int64[2] column = {-1, 1}, float zero = {0}> {
            mask = Greater (x, zero)
            i = NonZero (mask)
            pairs = Transpose <perm = [1, 0]> (i)
            values = GatherND (x, pairs)
            y = Reshape (values, column)
        }"""
    )
    counted = model(
        """nz (bool[N] x, float[M] table) => (float[R, S] y)
        <int64 one = {1}, int64[1] first = {0}, int64[1] row = {1}> {
            i = NonZero (x)
            shape = Shape (i)
            count = Gather (shape, one)
            counts = Unsqueeze (count, first)
            head = Slice (table, first, counts)
            target = Concat <axis = 0> (row, counts)
            y = Reshape (head, target)
        }"""
    )
    sparse = np.where(normal(6, 11) > 1, normal(6, 11), np.float32(0))
    return [
        *cases(
            "NonZero/reshape",
            flat,
            {
                "some": {"x": sparse},
                "all": {"x": np.ones((3, 5), np.float32)},
                "none": {"x": np.zeros((3, 5), np.float32)},
                "empty": {"x": np.zeros((0, 5), np.float32)},
                "nan": {"x": np.array([[NAN, 0, -0.0, 1e-45]], np.float32)},
            },
        ),
        *cases("NonZero/picked", picked, {"6x11": {"x": normal(6, 11)}, "1x1": {"x": np.ones((1, 1), np.float32)}}),
        *cases("NonZero/counted", counted, {"8": {"x": normal(8) > 0, "table": normal(20)}}),
    ]


def top_k() -> list[GateCase]:
    """Both ends, each axis, k fed or fixed, 0 or all, and ties in the order of their indices."""

    def build(axis: int, largest: int = 1, kind: str = "float") -> Any:
        attributes = f"axis = {axis}, largest = {largest}"
        return model(
            f"topk ({kind}[N, M] x, int64[1] k) => ({kind}[P, Q] v, int64[P, Q] i)"
            f"{{ v, i = TopK <{attributes}> (x, k) }}",
            11,
        )

    fixed = model(
        "topk (float[N, 9] x) => (float[N, 4] v, int64[N, 4] i) <int64[1] k = {4}> { v, i = TopK (x, k) }", 11
    )
    old = model("topk (float[N, 9] x) => (float[N, 3] v, int64[N, 3] i) { v, i = TopK <k = 3> (x) }", 9)
    sizes = {"3x17-k5": (3, 17, 5), "2x1000-k100": (2, 1000, 100), "4x6-k6": (4, 6, 6), "4x6-k1": (4, 6, 1)}
    given = {label: {"x": normal(n, m), "k": np.array([k])} for label, (n, m, k) in sizes.items()}
    ties = {"x": integers(6, 30, low=0, high=4).astype(np.float32), "k": np.array([12])}
    infinite = {"x": np.array([[np.inf, -np.inf, 0, np.inf, -np.inf]], np.float32), "k": np.array([5])}
    none = {"x": normal(3, 5), "k": np.array([0])}
    empty = {"x": normal(0, 5), "k": np.array([2])}
    whole = {"x": integers(3, 21, low=-(2**40), high=2**40), "k": np.array([7])}
    return [
        *cases("TopK/rows", build(-1), {**given, "ties": ties, "infinite": infinite, "none": none, "0x5": empty}),
        *cases("TopK/smallest", build(1, largest=0), {**given, "ties": ties}),
        *cases("TopK/columns", build(0), {"17x3": {"x": normal(17, 3), "k": np.array([4])}}),
        *cases("TopK/int64", build(1, kind="int64"), {"3x21": whole}),
        *cases("TopK/fixed", fixed, {"5x9": {"x": normal(5, 9)}, "1x9": {"x": normal(1, 9)}}),
        *cases("TopK/opset-9", old, {"5x9": {"x": normal(5, 9)}}, oracle=_top_3),
    ]


def _top_3(feeds: Feeds) -> Feeds:
    """onnx.reference has no TopK with k as an attribute."""
    order = np.argsort(-feeds["x"], axis=-1, kind="stable")[:, :3]
    return {"v": np.take_along_axis(feeds["x"], order, -1), "i": order}


def scatter_nd() -> list[GateCase]:
    """Duplicates: added up, or all of one value, so that any one of them may win."""

    def build(reduction: str, kind: str = "float") -> Any:
        return model(
            f"""scatter ({kind}[N, M] x, int64[I, J] i, {kind}[I, ...] u) => ({kind}[N, M] y) {{
                y = ScatterND <reduction = "{reduction}"> (x, i, u)
            }}""".replace(", ...", ", K" if kind == "float" else ""),
            18,
        )

    x, rows = normal(6, 5), np.array([[1], [3], [1], [-1], [1], [5]])
    updates = normal(6, 5, seed=1)
    equal = np.broadcast_to(normal(5, seed=2), (6, 5)).copy()
    none, reductions = build("none"), ("add", "mul", "min", "max")
    many = {"x": np.zeros((3, 4), np.int32), "i": integers(500, 2, low=-3, high=3), "u": np.ones(500, np.int32)}
    return [
        *(
            case
            for reduction in reductions
            for case in cases("ScatterND/duplicates", build(reduction), {reduction: {"x": x, "i": rows, "u": updates}})
        ),
        *cases("ScatterND/counts", build("add", "int32"), {"500": many}),
        *cases(
            "ScatterND/none",
            none,
            {
                "equal-duplicates": {"x": x, "i": rows, "u": equal},
                "distinct": {"x": x, "i": np.array([[4], [0]]), "u": updates[:2]},
                "no-updates": {"x": x, "i": np.zeros((0, 1), np.int64), "u": updates[:0]},
            },
        ),
        *cases(
            "ScatterND/outside",
            none,
            {
                label: {"x": x, "i": np.array([[0], [i]]), "u": updates[:2]}
                for label, i in {"above": 6, "below": -7}.items()
            },
            raises=ExecutionError,
        ),
    ]


def dequantize_linear() -> list[GateCase]:
    """int4 and uint4, an odd number of them, by tensor, axis and block, fed and as weights, and there and back."""

    def build(kind: str, scale: str, attributes: str = "") -> Any:
        return model(
            f"dq ({kind}[N, M] x, float{scale} s, {kind}{scale} z) => (float[N, M] y)"
            f"{{ y = DequantizeLinear {attributes} (x, s, z) }}"
        )

    weights = model(
        "dq (float[N, 7] a) => (float[N, 3] y) { w = DequantizeLinear <axis = 1> (q, s) y = MatMul (a, w) }",
        q=integers(7, 3, low=-8, high=8).astype(ml_dtypes.int4),
        s=np.array([0.5, 0.25, 2], np.float32),
    )
    there_and_back = model(
        """dq (float[N, M] x) => (float[N, M] y) <float s = {0.3}> {
            q = QuantizeLinear <output_dtype = 22> (x, s)
            y = DequantizeLinear (q, s)
        }"""
    )
    int4, uint4 = ml_dtypes.int4, ml_dtypes.uint4
    all_values = np.arange(-8, 8).reshape(2, 8).astype(int4)
    odd, odd_unsigned = (integers(3, 5, low=low, high=low + 16).astype(kind) for low, kind in ((-8, int4), (0, uint4)))
    scale, columns = np.array(0.125, np.float32), np.array([0.5, 1, 2, 4, 8], np.float32)
    blocks = {
        "x": integers(4, 5, low=-8, high=8).astype(int4),
        "s": np.abs(normal(2, 5)),
        "z": integers(2, 5, low=-8, high=8, seed=1).astype(int4),
    }
    tensor = {
        "all-values": {"x": all_values, "s": scale, "z": np.array(0, int4)},
        "odd": {"x": odd, "s": scale, "z": np.array(-3, int4)},
        "one": {"x": odd[:1, :1], "s": scale, "z": np.array(7, int4)},
        "none": {"x": odd[:0], "s": scale, "z": np.array(7, int4)},
    }
    by_axis = {"odd": {"x": odd_unsigned, "s": columns, "z": np.array([0, 15, 7, 8, 1], uint4)}}
    return [
        *cases("DequantizeLinear/int4", build("int4", ""), tensor),
        *cases("DequantizeLinear/uint4-axis", build("uint4", "[M]", "<axis = 1>"), by_axis),
        *cases("DequantizeLinear/int4-blocks", build("int4", "[A, M]", "<axis = 0, block_size = 2>"), {"2": blocks}),
        *cases("DequantizeLinear/weights", weights, {"4": {"a": normal(4, 7)}}),
        *cases("DequantizeLinear/there-and-back", there_and_back, {"5x9": {"x": normal(5, 9) * np.float32(1.5)}}),
    ]


def bfloat16_add() -> list[GateCase]:
    """Each Add rounds to bfloat16, to nearest even, whether or not the device knows the type or fuses the two."""
    add = model("add (bfloat16[N, M] a, bfloat16[M] b) => (bfloat16[N, M] y) { y = Add (a, b) }")
    chain = model(
        """add (bfloat16[N, M] a, bfloat16[M] b) => (float[N, M] y) {
            c = Add (a, b)
            d = Add (c, b)
            y = Cast <to = 1> (d)
        }"""
    )
    bfloat16 = ml_dtypes.bfloat16
    special = {
        "a": np.array([[np.inf, -np.inf, NAN, 3.38e38, 1, 256, 0]]).astype(bfloat16),
        "b": np.array([-np.inf, -np.inf, 1, 3.38e38, 2**-8, 1, -0.0]).astype(bfloat16),
    }
    sizes = {"3x17": (3, 17), "1x1": (1, 1), "0x4": (0, 4), "5x1024": (5, 1024)}
    given = {
        label: {"a": normal(n, m, dtype=bfloat16), "b": normal(m, dtype=bfloat16, seed=1)}
        for label, (n, m) in sizes.items()
    } | {"special": special}
    # onnxruntime has no Add of bfloat16 on the CPU.
    return [
        *cases("Add/bfloat16", add, given, oracle=_rounded, second="reference"),
        *cases("Add/bfloat16-exact", chain, given, oracle=_rounded_twice, second="reference", rtol=0, atol=0),
    ]


def _rounded(feeds: Feeds) -> Feeds:
    with np.errstate(all="ignore"):
        total = feeds["a"].astype(np.float32) + feeds["b"].astype(np.float32)
        return {"y": total.astype(ml_dtypes.bfloat16)}


def _rounded_twice(feeds: Feeds) -> Feeds:
    once = _rounded(feeds)["y"]
    return {"y": _rounded({"a": once, "b": feeds["b"]})["y"].astype(np.float32)}


def loop() -> list[GateCase]:
    """State that grows at every step, trip counts that are fed, an early end, and no step at all."""
    growing = model(
        """loop (int64 trips, float[K] start, float[K] step) => (float[G] state) <bool go = {1}> {
            state = Loop (trips, go, start) <body = body (int64 i, bool on, float[P] s) => (bool still, float[Q] t) {
                still = Identity (on)
                f = Cast <to = 1> (i)
                scaled = Mul (step, f)
                t = Concat <axis = 0> (s, scaled)
            }>
        }"""
    )
    doubling = model(
        """loop (float[K] start, float limit) => (float[G] state, float[T] sums) <bool go = {1}> {
            state, sums = Loop (, go, start) <
            body = body (int64 i, bool on, float[P] s) => (bool still, float[Q] t, float sum) {
                t = Concat <axis = 0> (s, s)
                sum = ReduceSum <keepdims = 0> (t)
                still = Less (sum, limit)
            }>
        }"""
    )
    start = np.array([1, -2, 0.5], np.float32)
    grows = {f"{trips}": {"trips": np.array(trips), "start": start, "step": normal(3)} for trips in (0, 1, 7)}
    limits = {"at-once": -5.0, "later": 20.0}
    ends = {label: {"start": np.abs(start), "limit": np.array(limit, np.float32)} for label, limit in limits.items()}
    # onnx.reference stacks 0-d scan outputs as [steps, 1]; they are [steps].
    only: dict[str, Any] = {"oracle": "onnxruntime", "second": None}
    return [*cases("Loop/growing", growing, grows), *cases("Loop/until", doubling, ends, **only)]


def if_string() -> list[GateCase]:
    """An If whose branch works on strings: that part runs on the host by nature, the rest on the device."""
    joins = model(
        """choose (bool cond, string[N] a, string[N] b) => (string[N] y) {
            y = If (cond) <
                then_branch = yes () => (string[N] p) { p = StringConcat (a, b) },
                else_branch = no () => (string[N] q) { q = Identity (a) }
            >
        }""",
        20,
    )
    counts = model(
        """choose (float[N] x, string[N] a, string[N] b) => (float[N] y) <float zero = {0}, float two = {2}> {
            total = ReduceSum <keepdims = 0> (x)
            cond = Greater (total, zero)
            chosen = If (cond) <
                then_branch = yes () => (float[N] p) { same = Equal (a, b) p = Cast <to = 1> (same) },
                else_branch = no () => (float[N] q) { q = Mul (x, two) }
            >
            y = Add (chosen, x)
        }""",
        20,
    )
    a, b = (np.array(text, object) for text in (["a", "", "één", "x y"], ["a", "b", "één", "X Y"]))
    x = np.array([1, 2, -1, 4], np.float32)
    strings = {"true": {"cond": np.array(True), "a": a, "b": b}, "false": {"cond": np.array(False), "a": a, "b": b}}
    mixed = {"true": {"x": x, "a": a, "b": b}, "false": {"x": -x, "a": a, "b": b}}
    return [*cases("If/strings", joins, strings), *cases("If/mixed", counts, mixed)]
