"""Samples: what a case of ours is made of, and the table of functions that yield them, by operator.

A sample function takes an `Op`, one version of an operator's schema, and yields what calling it gives::

    @samples("Add Sub")
    def arithmetic(op: Op) -> Found:
        for dtype in op.dtypes():
            yield op(normal(dtype, 3, 1), normal(dtype, 1, 4))

It serves every version: a keyword is an attribute or an input, whichever the version has, and a call that the version
cannot take (an attribute it lacks, a dtype it does not admit) gives None, which is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx.defs import OpSchema

from omniop.conformance.samples.drawing import Values
from omniop.opset import dtype as dtypes

Input = Values | np.ndarray | dict[Any, Any] | None
"""What is drawn, what is given in full (an array, or a dict for a map), what is left out."""
_Option = OpSchema.FormalParameterOption
_NAME_LENGTH = 90


@dataclass(frozen=True, eq=False)
class Sample:
    """One case of ours: a node, or a whole model as text, and how its inputs are drawn.

    ``sets`` holds the inputs of each run, by position and None where one is left out; runs share one session.
    ``outputs``: the dtype of each output, "" for one that is left out. ``refused``: the case passes where running it
    ends in an error of omniop's own. ``draw``: the distribution that the output is drawn from, with its parameters.
    ``text``: a model in onnx.parser's language, whose inputs are ``sets`` in its order. ``noted``: inputs by name.
    """

    name: str
    op: str
    domain: str
    version: int
    dtypes: tuple[str, ...]
    sets: tuple[tuple[Input, ...], ...]
    outputs: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    refused: bool = False
    draw: tuple[Any, ...] = ()
    text: str = ""

    @property
    def key(self) -> str:
        """The operator as reports name it: with its domain unless that is ai.onnx."""
        return f"{self.domain}::{self.op}" if self.domain else self.op

    def feeds(self, number: int) -> list[Any]:
        """The arrays of one set: drawn from the name and the number alone."""
        digest = hashlib.sha256(f"{self.name}/{number}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return [value.draw(random) if isinstance(value, Values) else value for value in self.sets[number]]


Found = Iterator[Sample | None]
Function = Callable[["Op"], Found]


class Op:
    """One version of an operator, as sample functions see it. ``newest``: it is the version of the newest opset."""

    def __init__(self, schema: OpSchema, newest: bool) -> None:
        self.schema, self.newest = schema, newest
        self.name, self.domain, self.version = schema.name, schema.domain, schema.since_version
        self._inputs, self._results = tuple(schema.inputs), tuple(schema.outputs)
        self._attributes, self._most = frozenset(schema.attributes), schema.max_input

    @cached_property
    def _types(self) -> Mapping[str, frozenset[str]]:
        """What each type variable stands for, and each type that stands for itself."""
        named: dict[str, Any] = {
            c.type_param_str: frozenset(_names(c.allowed_type_strs)) for c in self.schema.type_constraints
        }
        own = {p.type_str for p in (*self._inputs, *self._results)} - set(named)
        return {**named, **{text: frozenset(_names([text])) for text in own}}

    @cached_property
    def _positions(self) -> Mapping[str, int]:
        return {parameter.name: k for k, parameter in enumerate(self._inputs)}

    @cached_property
    def _wide(self) -> frozenset[str]:
        """The types that vary over more than index dtypes and bool."""
        return frozenset(text for text, names in self._types.items() if names - _INDEX)

    def dtypes(self, variable: str = "", *, kinds: str = "biufcs") -> tuple[str, ...]:
        """The dtypes of a type variable (by default the first input's), those of DType kinds ``kinds``, in order.

        An older version gives at most two: its other dtypes are those of the newest.
        """
        admitted = self._types.get(variable or (self._inputs or self._results)[0].type_str, frozenset())
        found = [d.name for d in dtypes.ALL if d.name in admitted and d.kind in kinds]
        if self.newest:
            return tuple(found)
        return tuple(sorted(found, key=lambda name: name != "float32")[:2])

    def some(self, variable: str = "", *, kinds: str = "biufcs") -> tuple[str, ...]:
        """One dtype of each kind: enough for what does not depend on the dtype."""
        first: dict[str, str] = {}
        for name in sorted(self.dtypes(variable, kinds=kinds), key=lambda name: name not in ("float32", "int64")):
            first.setdefault(dtypes.of_name(name).kind, name)
        return tuple(first.values())

    @property
    def type_names(self) -> frozenset[str]:
        """The type variables."""
        return frozenset(c.type_param_str for c in self.schema.type_constraints)

    def has(self, name: str) -> bool:
        """Whether this version has an input or attribute of that name."""
        return name in self._positions or name in self._attributes

    def __call__(
        self,
        *inputs: Input,
        outputs: Sequence[str] | None = None,
        count: int = 1,
        tag: str = "",
        refused: bool = False,
        draw: tuple[Any, ...] = (),
        **named: Any,
    ) -> Sample | None:
        """A sample with ``inputs`` by position, and inputs and attributes by name.

        ``outputs``: dtypes, where the schema does not bind them to inputs; ``count``: how many of them are wanted.
        ``tag``: what the name says of the case, where shapes and attributes do not.
        """
        return self.runs(inputs, outputs=outputs, count=count, tag=tag, refused=refused, draw=draw, **named)

    def runs(
        self,
        *sets: Sequence[Input],
        outputs: Sequence[str] | None = None,
        count: int = 1,
        tag: str = "",
        refused: bool = False,
        draw: tuple[Any, ...] = (),
        **named: Any,
    ) -> Sample | None:
        """The same with several sets of inputs, which one session runs in turn."""
        attributes: dict[str, Any] = {key: value for key, value in named.items() if key in self._attributes}
        by_name = {self._positions[key]: value for key, value in named.items() if key in self._positions}
        if len(attributes) + len(by_name) < len(named):
            return None
        placed = tuple(self._place(inputs, by_name) for inputs in sets)
        if any(len(inputs) > self._most for inputs in placed):
            return None
        fed = _input_dtypes(placed[0])
        bound = self._bind(fed)
        if bound is None:
            return None
        found = tuple(outputs) if outputs is not None else self._outputs(bound, count)
        if "" in found and outputs is None:
            return None
        words = [tag, *(_shape(value) for value in placed[0])]
        words += [f"{key}_{_text(value)}" for key, value in attributes.items()]
        words += [f"{key}_{_text(value)}" for key, value in named.items() if key in self._positions]
        varied = [dtype for dtype in (*fed, *found) if dtype and "(" not in dtype]
        wide = [name for k, name in enumerate(fed) if name and self._parameter(k).type_str in self._wide]
        wide += [name for k, name in enumerate(found) if name in varied and self._result(k).type_str in self._wide]
        about = _unique(wide or varied[:1])
        stem = "_".join(filter(None, [f"{self.name}_{self.version}", *about, *words]))
        return Sample(
            _clean(stem, self.domain),
            self.name,
            self.domain,
            self.version,
            tuple(sorted(about)),
            placed,
            found,
            attributes,
            refused,
            draw,
        )

    def model(
        self, text: str, *sets: Sequence[Input], dtype: str, tag: str, refused: bool = False, draw: tuple[Any, ...] = ()
    ) -> Sample:
        """A whole model as text (see onnx.parser), of an opset that has this version of the operator."""
        name = _clean(f"{self.name}_{self.version}_{dtype}_{tag}", self.domain)
        inputs = tuple(tuple(one) for one in sets) or ((),)
        return Sample(
            *(name, self.name, self.domain, self.version, (dtype,), inputs), refused=refused, draw=draw, text=text
        )

    # -- the schema ----------------------------------------------------------------------------------------------

    def _place(self, inputs: Sequence[Input], by_name: Mapping[int, Any]) -> tuple[Input, ...]:
        placed: list[Input] = list(inputs)
        for position, value in by_name.items():
            placed += [None] * (position + 1 - len(placed))
            placed[position] = value if isinstance(value, Values | np.ndarray | dict) else np.array(value, np.int64)
        while placed and placed[-1] is None:
            placed.pop()
        return tuple(placed)

    def _parameter(self, position: int) -> Any:
        return self._inputs[min(position, len(self._inputs) - 1)]

    def _result(self, position: int) -> Any:
        return self._results[min(position, len(self._results) - 1)]

    def _bind(self, fed: Sequence[str]) -> dict[str, str] | None:
        """The dtype of each type variable; None where an input's is not admitted."""
        bound: dict[str, str] = {}
        for position, dtype in enumerate(fed):
            if dtype:
                text = self._parameter(position).type_str
                if dtype not in self._types[text]:
                    return None
                bound.setdefault(text, dtype)
        return bound

    def _outputs(self, bound: Mapping[str, str], count: int) -> tuple[str, ...]:
        names = [self._result(k).type_str for k in range(count)]
        return tuple(bound.get(name) or _only(self._types[name]) for name in names)


# -- the table -------------------------------------------------------------------------------------------------------

FUNCTIONS: dict[tuple[str, str], list[Function]] = {}
"""The sample functions of each operator, by domain and name."""


def samples(names: str, domain: str = "") -> Callable[[Function], Function]:
    """Decorator: the function yields samples of each of the operators ``names``, separated by spaces."""

    def register(function: Function) -> Function:
        for name in names.split():
            FUNCTIONS.setdefault((domain, name), []).append(function)
        return function

    return register


def spread(op: Op, dtype: str, choices: Sequence[Any]) -> Sequence[Any]:
    """All of the choices for one dtype of each kind, every third for the others: each dtype begins elsewhere."""
    if dtype in op.some():
        return choices
    start = [d.name for d in dtypes.ALL].index(dtype) % 3
    return choices[start::3]


def renamed(sample: Sample, number: int) -> Sample:
    """The sample under a name with a number, for the second and further ones of one name."""
    return replace(sample, name=f"{sample.name}_{number}")


# -- names -----------------------------------------------------------------------------------------------------------


def _names(types: Sequence[str]) -> list[str]:
    """The dtypes of tensor type strings, as numpy calls them."""
    inner = (re.fullmatch(r"tensor\((\w+)\)", text) for text in types)
    numbers = {onnx.TensorProto.DataType.Value(match[1].upper()) for match in inner if match}
    return [dtype.name for dtype in dtypes.ALL if dtype.onnx in numbers]


def _only(names: frozenset[str]) -> str:
    return next(iter(names)) if len(names) == 1 else ""


_INDEX = frozenset(("bool", "int32", "int64"))


def _input_dtypes(inputs: Sequence[Input]) -> list[str]:
    return ["" if value is None or isinstance(value, dict) else _dtype_name(value) for value in inputs]


def _dtype_name(value: Values | np.ndarray) -> str:
    if isinstance(value, Values):
        return value.dtype
    return "string" if value.dtype == object else value.dtype.name


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _shape(value: Input) -> str:
    if value is None or isinstance(value, dict):
        return "none" if value is None else "map"
    return ("x".join(map(str, value.shape)) or "scalar") + (
        f"_{value.kind}" if isinstance(value, Values) and value.kind not in ("normal", "uniform", "whole") else ""
    )


def _text(value: Any) -> str:
    if isinstance(value, Values):
        return _shape(value)
    if isinstance(value, onnx.TensorProto):
        return "tensor"
    return (
        "x".join(_text(one) for one in np.asarray(value).reshape(-1).tolist()[:9]) if not _plain(value) else str(value)
    )


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _clean(stem: str, domain: str) -> str:
    """A name of letters, digits and underscores; a long one ends in the digest of what is cut off."""
    head = {"": "own", "com.microsoft": "own_ms", "ai.onnx.ml": "own_ml"}.get(domain, "own_training")
    text = f"{head}_{stem}".lower().replace("-", "m").replace(".", "p")
    text = re.sub(r"[^a-z0-9]+", "_", text).strip("_")
    if len(text) <= _NAME_LENGTH:
        return text
    return f"{text[: _NAME_LENGTH - 9].rstrip('_')}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
