"""Results by operator and dtype: the table that every drawn form of a report holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from omniop.conformance.choices import KINDS, ONNX
from omniop.conformance.record import Report
from omniop.conformance.tolerance import ulp_limit
from omniop.conformance.verdict import Result
from omniop.opset import dtype as dtypes

ONNXS_OWN = "ONNX's own"
"""The row that sums up ONNX's kinds."""

Cells = Mapping[str, Mapping[str, Counter[str]]]

DTYPES = (
    *("float32", "float64", "float16", "bfloat16"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "int4", "uint4", "int2", "uint2"),
    *("bool", "complex64", "complex128", "string"),
)
"""The order of columns."""


def by_kind(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Results by kind; where there are several kinds, also ONNX's together, and all."""
    rows = [(kind, [result for result in results if result.kind == kind]) for kind in KINDS]
    rows = [(kind, found) for kind, found in rows if found]
    if len(rows) == 1:
        return rows
    theirs, ours = [row for row in rows if row[0] in ONNX], [row for row in rows if row[0] not in ONNX]
    onnx = [(ONNXS_OWN, [result for _, found in theirs for result in found])] if len(theirs) > 1 else []
    return [*theirs, *onnx, *ours, *([("all", list(results))] if ours else [])]


def operator_cells(results: Iterable[Result]) -> Cells:
    """Counts of statuses by operator and dtype, operators sorted, those of ai.onnx first; networks are left out.

    A case counts once in the cell of each of its dtypes.
    """
    cells: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for result in results:
        for dtype in result.dtypes if result.op else ():
            cells[result.op][dtype][result.verdict.status] += 1
    return {op: cells[op] for op in sorted(cells, key=lambda op: ("::" in op, op.lower()))}


def worst_ulps(results: Iterable[Result]) -> Mapping[str, Mapping[str, tuple[float, float]]]:
    """By function of the kernel IR and dtype: the worst error in units in the last place that its ``_ulp`` case met,
    and the limit."""
    found: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for result in results:
        if result.kind == "prim" and result.name.endswith("_ulp") and result.verdict.error:
            function, dtype = result.op.rpartition("::")[2], result.dtypes[0]
            found[function][dtype] = result.verdict.error.ulp, ulp_limit(function, dtypes.of_name(dtype))
    return found


class Reached(NamedTuple):
    """A tuned kernel: in how many cases of level L2 it ran, how many of those did not pass, and its worst error in
    units in the last place of an output's largest value."""

    cases: int = 0
    wrong: int = 0
    ulp: float = 0.0


def tuned_kernels(report: Report) -> Mapping[str, Reached]:
    """By name: the prims that the device took whole and the kernels of its table, reached or not; of a part of the
    cases, which may not mean to reach them all, those that it reached; nothing where no case was about them."""
    about = [result for result in report.results if result.kind == "tuned"]
    found = {name: Reached() for name in report.kernels} if about and report.is_whole else {}
    for result in about:
        ulp = result.verdict.error.ulp if result.verdict.error else 0.0
        wrong = result.verdict.status != "pass"
        for name in result.verdict.facts.tuned:
            old = found.get(name, Reached())
            found[name] = Reached(old.cases + 1, old.wrong + wrong, max(old.ulp, ulp))
    return dict(sorted(found.items()))


def columns(cells: Cells) -> list[str]:
    """The dtypes of the table, in order."""
    found = {dtype for row in cells.values() for dtype in row}
    return [*(dtype for dtype in DTYPES if dtype in found), *sorted(found - set(DTYPES))]
