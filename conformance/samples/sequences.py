"""Sequences, optionals, control flow and constants: models of a few nodes, as text."""

from __future__ import annotations

from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import Values, normal, wide
from omniop.conformance.samples.op import Found, Op, Sample, samples
from omniop.opset import dtype as dtypes

_TENSORS = "float[N] a, float[M] b"


def text_type(dtype: str) -> str:
    """An element type as onnx.parser spells it."""
    return _SPELLED.get(dtype, dtype.replace("_", "") if dtype.startswith("float8") else dtype)


_SPELLED = {
    **{"float32": "float", "float64": "double", "float8_e8m0fnu": "float8e8m0"},
    **{"float6_e2m3fn": "float6e2m3", "float6_e3m2fn": "float6e3m2", "float4_e2m1fn": "float4e2m1"},
}


def written(op: Op, inputs: str, outputs: str, body: str) -> str:
    """A model's text, of the opset in which this version came."""
    version = max(op.version, 13)
    return f'<ir_version: 10, opset_import: ["" : {version}]> one ({inputs}) => ({outputs}) {{ {body} }}'


@samples("SequenceConstruct SequenceAt SequenceErase SequenceInsert SequenceLength ConcatFromSequence")
def sequence(op: Op) -> Found:
    names = [d.name for d in dtypes.ALL if d.bits >= 8 and not d.name.startswith(("float8", "bfloat"))]
    for dtype in names:
        yield from (_sequence(op, dtype, *form) for form in _FORMS[op.name])


_MADE = "s = SequenceConstruct (a, b)"
_FORMS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "SequenceConstruct": (("two", "seq({t}[K]) s", _MADE), ("one", "seq({t}[K]) s", "s = SequenceConstruct (b)")),
    "SequenceAt": tuple(
        (f"at_{k}".replace("-", "m"), "{t}[K] y", f"{_MADE} i = Constant <value_int = {k}> () y = SequenceAt (s, i)")
        for k in (0, 1, -1, -2)
    ),
    "SequenceErase": (
        ("last", "seq({t}[K]) y", f"{_MADE} y = SequenceErase (s)"),
        ("first", "seq({t}[K]) y", f"{_MADE} i = Constant <value_int = 0> () y = SequenceErase (s, i)"),
        ("counted_back", "seq({t}[K]) y", f"{_MADE} i = Constant <value_int = -2> () y = SequenceErase (s, i)"),
    ),
    "SequenceInsert": (
        ("back", "seq({t}[K]) y", f"{_MADE} y = SequenceInsert (s, b)"),
        ("front", "seq({t}[K]) y", f"{_MADE} i = Constant <value_int = 0> () y = SequenceInsert (s, b, i)"),
        ("middle", "seq({t}[K]) y", f"{_MADE} i = Constant <value_int = -1> () y = SequenceInsert (s, a, i)"),
    ),
    "SequenceLength": (
        ("two", "int64 y", f"{_MADE} y = SequenceLength (s)"),
        ("three", "int64 y", f"{_MADE} t = SequenceInsert (s, a) y = SequenceLength (t)"),
    ),
    "ConcatFromSequence": (
        ("joined", "{t}[K] y", f"{_MADE} y = ConcatFromSequence <axis = 0> (s)"),
        ("counted_back", "{t}[K] y", f"{_MADE} y = ConcatFromSequence <axis = -1> (s)"),
        (
            "stacked",
            "{t}[K, L] y",
            "s = SequenceConstruct (b, b, b) y = ConcatFromSequence <axis = 1, new_axis = 1> (s)",
        ),
        (
            "stacked_first",
            "{t}[K, L] y",
            "s = SequenceConstruct (b, b) y = ConcatFromSequence <axis = 0, new_axis = 1> (s)",
        ),
    ),
}
_REFUSED = {
    "SequenceAt": ("float[K] y", f"{_MADE} i = Constant <value_int = 2> () y = SequenceAt (s, i)"),
    "SequenceErase": ("seq(float[K]) y", f"{_MADE} i = Constant <value_int = -3> () y = SequenceErase (s, i)"),
    "SequenceInsert": ("seq(float[K]) y", f"{_MADE} i = Constant <value_int = 3> () y = SequenceInsert (s, b, i)"),
}


def _sequence(op: Op, dtype: str, tag: str, outputs: str, body: str) -> Sample:
    kind = text_type(dtype)
    text = written(op, f"{kind}[N] a, {kind}[M] b", outputs.format(t=kind), body)
    return op.model(
        text, (normal(dtype, 3), normal(dtype, 5)), (normal(dtype, 0), normal(dtype, 1)), dtype=dtype, tag=tag
    )


@samples("SequenceAt SequenceErase SequenceInsert")
def sequence_refused(op: Op) -> Found:
    outputs, body = _REFUSED[op.name]
    yield op.model(
        written(op, _TENSORS, outputs, body),
        (normal("float32", 3), normal("float32", 5)),
        dtype="float32",
        tag="out_of_range",
        refused=True,
    )


@samples("SequenceEmpty")
def sequence_empty(op: Op) -> Found:
    for dtype in (d for d in dtypes.ALL if d.bits >= 8 and not d.name.startswith(("float8", "bfloat"))):
        kind = text_type(dtype.name)
        made = f"e = SequenceEmpty <dtype = {dtype.onnx}> ()"
        body = f"{made} s = SequenceInsert (e, a) n = SequenceLength (e)"
        text = written(op, f"{kind}[N] a", f"seq({kind}[N]) s, int64 n", body)
        yield op.model(text, (normal(dtype.name, 3),), dtype=dtype.name, tag="then_one")
    text = written(op, "", "int64 n", "e = SequenceEmpty () n = SequenceLength (e)")
    yield op.model(text, dtype="float32", tag="length")


@samples("SplitToSequence")
def split_to_sequence(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        kind = text_type(dtype)
        for tag, attributes, split in (
            ("each", "<axis = 0>", None),
            ("each_without_axis", "<axis = 1, keepdims = 0>", None),
            ("by_two", "<axis = 0>", np.array(2)),
            ("by_sizes", "<axis = 1>", np.array([1, 0, 3])),
        ):
            second = "" if split is None else ", p"
            given = "" if split is None else f", int64{'' if split.ndim == 0 else '[3]'} p"
            text = written(
                op, f"{kind}[5,4] x{given}", f"seq({kind}[]) s", f"s = SplitToSequence {attributes} (x{second})"
            )
            inputs = (normal(dtype, 5, 4),) if split is None else (normal(dtype, 5, 4), split)
            yield op.model(text, inputs, dtype=dtype, tag=tag)


@samples("SequenceMap")
def sequence_map(op: Op) -> Found:
    for dtype in ("float32", "float64", "int64", "float16"):
        kind = text_type(dtype)
        body = f"body = fn ({kind}[K] e, {kind}[K] c) => ({kind}[K] r) {{ r = Add (e, c) }}"
        text = written(
            op,
            f"{kind}[N] a, {kind}[M] b, {kind}[1] c",
            f"seq({kind}[K]) y",
            f"{_MADE} y = SequenceMap <{body.replace('fn', 'one', 1)}> (s, c)".replace("body = one", "body = inner"),
        )
        yield op.model(text, (normal(dtype, 3), normal(dtype, 5), normal(dtype, 1)), dtype=dtype, tag="add")
    for dtype in (d.name for d in dtypes.ALL if d.bits >= 8 and not d.name.startswith(("float8", "bfloat"))):
        kind = text_type(dtype)
        body = f"body = inner ({kind}[K] e, {kind}[M] c) => ({kind}[L] r) {{ r = Concat <axis = 0> (e, c) }}"
        text = written(
            op,
            f"{kind}[N] a, {kind}[M] b, {kind}[1] c",
            f"seq({kind}[K]) y",
            f"{_MADE} y = SequenceMap <{body}> (s, c)",
        )
        yield op.model(text, (normal(dtype, 3), normal(dtype, 5), normal(dtype, 1)), dtype=dtype, tag="join")


def _held(op: Op) -> list[str]:
    """Dtypes that an operator may take whole or inside of what holds tensors."""
    return [name for name in (d.name for d in dtypes.ALL) if any(name in op.dtypes(v) for v in op.type_names)]


@samples("Optional OptionalHasElement OptionalGetElement")
def optional(op: Op) -> Found:
    version = max(op.version, 18)
    for dtype in map(dtypes.of_name, _held(op)):
        kind = text_type(dtype.name)
        forms = {
            "Optional": (f"optional({kind}[N]) y", "y = Optional (a)"),
            "OptionalHasElement": ("bool y", "o = Optional (a) y = OptionalHasElement (o)"),
            "OptionalGetElement": (f"{kind}[N] y", "o = Optional (a) y = OptionalGetElement (o)"),
        }
        outputs, body = forms[op.name]
        text = f'<ir_version: 10, opset_import: ["" : {version}]> one ({kind}[N] a) => ({outputs}) {{ {body} }}'
        yield op.model(text, (normal(dtype.name, 3),), (normal(dtype.name, 0),), dtype=dtype.name, tag="some")
    if op.name == "OptionalHasElement" and version >= 18:
        text = written(op, "float[N] a", "bool y", "y = OptionalHasElement (a)")
        yield op.model(text, (normal("float32", 3),), dtype="float32", tag="of_a_tensor") if op.version >= 18 else None
        text = written(op, "", "bool y", "y = OptionalHasElement ()")
        yield op.model(text, dtype="float32", tag="of_nothing") if op.version >= 18 else None


_JOINED = ("float32", "float16", "bfloat16", "int64", "bool", "string", "complex64")
"""What a branch joins; the others it gives as they are."""


@samples("If")
def branch(op: Op) -> Found:
    for dtype in op.dtypes("V"):
        kind = text_type(dtype)
        then = f"then_branch = one () => ({kind}[N] t) {{ t = Identity (a) }}"
        found = "Concat <axis = 0> (a, b)" if dtype in _JOINED else "Identity (b)"
        other = f"else_branch = two () => ({kind}[M] e) {{ e = {found} }}"
        text = written(op, f"bool c, {kind}[N] a, {kind}[M] b", f"{kind}[K] y", f"y = If (c) <{then}, {other}>")
        sets = [(np.array(flag), normal(dtype, 3), normal(dtype, 2)) for flag in (True, False, True)]
        yield op.model(text, *sets, dtype=dtype, tag="either")


def _turns(op: Op, dtype: str, turn: str) -> str:
    """A Loop that carries v to w and collects s."""
    kind = text_type(dtype)
    body = f"turn (int64 i, bool go, {kind}[N] v) => (bool more, {kind}[N] w, {kind}[N] s) {{ {turn} }}"
    given, made = f"int64 n, bool go, {kind}[N] x, {kind}[N] d", f"{kind}[N] y, {kind}[T, N] z"
    return written(op, given, made, f"y, z = Loop (n, go, x) <body = {body}>")


@samples("Loop")
def loop(op: Op) -> Found:
    for dtype in ("float32", "float64", "float16", "int64", "int32"):
        added = "w = Add (v, d) s = Mul (w, d)"
        sets = [(np.array(n), np.array(True), normal(dtype, 4), normal(dtype, 4)) for n in (3, 1, 7)]
        yield op.model(_turns(op, dtype, f"more = Identity (go) {added}"), *sets, dtype=dtype, tag="counted")
        until = f"lim = Constant <value_int = 2> () more = Less (i, lim) {added}"
        yield op.model(_turns(op, dtype, until), *sets, dtype=dtype, tag="until")
    for dtype in op.dtypes("V"):
        text = _turns(op, dtype, "more = Identity (go) w = Identity (d) s = Identity (v)")
        sets = [(np.array(n), np.array(True), normal(dtype, 4), normal(dtype, 4)) for n in (3, 1)]
        yield op.model(text, *sets, dtype=dtype, tag="carried")


@samples("Scan")
def scan(op: Op) -> Found:
    for dtype in ("float32", "float64", "float16", "int64", "int32"):
        kind = text_type(dtype)
        body = (
            f"body = turn ({kind}[N] v, {kind}[N] e) => ({kind}[N] w, {kind}[N] s) {{ w = Add (v, e) s = Mul (w, e) }}"
        )
        for tag, options in (
            ("forward", ""),
            ("reverse", ", scan_input_directions = [1]"),
            ("reverse_out", ", scan_output_directions = [1]"),
        ):
            text = written(
                op,
                f"{kind}[N] x, {kind}[T, N] xs",
                f"{kind}[N] y, {kind}[T, N] ys",
                f"y, ys = Scan (x, xs) <num_scan_inputs = 1{options}, {body}>",
            )
            sets = [(normal(dtype, 3), normal(dtype, length, 3)) for length in (4, 1, 6)]
            yield op.model(text, *sets, dtype=dtype, tag=tag) if op.version >= 9 else None
    for dtype in op.dtypes("V") if op.version >= 9 else ():
        kind = text_type(dtype)
        ends = f"({kind}[N] v, {kind}[N] e) => ({kind}[N] w, {kind}[N] s)"
        body = f"body = turn {ends} {{ w = Identity (e) s = Identity (v) }}"
        text = written(
            op,
            f"{kind}[N] x, {kind}[T, N] xs",
            f"{kind}[N] y, {kind}[T, N] ys",
            f"y, ys = Scan (x, xs) <num_scan_inputs = 1, {body}>",
        )
        yield op.model(text, (normal(dtype, 3), normal(dtype, 4, 3)), dtype=dtype, tag="carried")


@samples("Identity")
def identity(op: Op) -> Found:
    if op.version >= 16:
        text = written(op, _TENSORS, "seq(float[K]) y", f"{_MADE} y = Identity (s)")
        yield op.model(text, (normal("float32", 3), normal("float32", 2)), dtype="float32", tag="of_a_sequence")


@samples("Constant")
def constant(op: Op) -> Found:
    """What a Constant holds, joined to a feed: a graph of constants alone has nothing to run."""
    from onnx import numpy_helper

    for dtype in op.dtypes("T"):
        array = wide(dtype, 2, 3).draw(np.random.default_rng(1))
        yield op(value=numpy_helper.from_array(array), outputs=(dtype,), tag=dtype)
        array = wide(dtype).draw(np.random.default_rng(1))
        yield op(value=numpy_helper.from_array(array), outputs=(dtype,), tag=f"{dtype}_scalar")
    for key, value, dtype in (
        ("value_float", 1.5, "float32"),
        ("value_floats", [1.5, -2.0], "float32"),
        ("value_int", -7, "int64"),
        ("value_ints", [1, 2, 3], "int64"),
        ("value_string", "ab", "string"),
        ("value_strings", ["ab", "", "c"], "string"),
    ):
        named: dict[str, Any] = {key: value}
        yield op(outputs=(dtype,), **named)


@samples("StringConcat")
def string_concat(op: Op) -> Found:
    for left, right in (((3,), (3,)), ((), (2,)), ((2, 1), (1, 3)), ((0,), (1,))):
        yield op(normal("string", *left), normal("string", *right))


@samples("StringSplit")
def string_split(op: Op) -> Found:
    words = np.array(["a,b,c", "", "x", ",,y", "one  two three"], object)
    for attributes in ({}, {"delimiter": ","}, {"delimiter": ",", "maxsplit": 1}, {"delimiter": ""}, {"maxsplit": 1}):
        yield op(words, outputs=("string", "int64"), **attributes)


@samples("StringNormalizer")
def string_normalizer(op: Op) -> Found:
    words = np.array(["Monday", "tuesday", "WEDNESDAY", "the"], object)
    for action in ("NONE", "LOWER", "UPPER"):
        yield op(words, case_change_action=action)
        yield op(words, case_change_action=action, stopwords=["monday", "the"])
        yield op(words, case_change_action=action, stopwords=["monday", "the"], is_case_sensitive=1)
    yield op(words.reshape(1, 4), case_change_action="UPPER")


@samples("RegexFullMatch")
def regex(op: Op) -> Found:
    words = np.array([["www.google.com", "a@b.org", ""], ["123", "ab12", "x"]], object)
    for pattern in (r"www\.[\w.-]+\.\bcom\b", r"[\w.]+@\w+\.\w+", r"\d*", "[a-z]+"):
        yield op(words, pattern=pattern)


@samples("TfIdfVectorizer")
def tfidf(op: Op) -> Found:
    grams = {"min_gram_length": 1, "max_gram_length": 2, "ngram_counts": [0, 3], "ngram_indexes": [0, 1, 2, 3, 4]}
    for mode in ("TF", "IDF", "TFIDF"):
        for skip in (0, 2):
            common: dict[str, Any] = {
                **grams,
                "mode": mode,
                "max_skip_count": skip,
                "weights": [1.0, 0.5, 2.0, 3.0, 0.25],
            }
            for dtype in ("int64", "int32"):
                pool = [1, 2, 3, 1, 2, 2, 3]
                yield op(Values(dtype, (12,), "whole", 1, 4), pool_int64s=pool, outputs=("float32",), **common)
                yield op(Values(dtype, (2, 9), "whole", 1, 4), pool_int64s=pool, outputs=("float32",), **common)
            pool_of_words = ["a", "B", "12", "a", "B", "B", "12"]
            yield op(normal("string", 20), pool_strings=pool_of_words, outputs=("float32",), **common)
