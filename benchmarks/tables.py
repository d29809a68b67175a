"""Results of `benchmarks/cpu.py` for people: Markdown tables and a chart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from xml.sax.saxutils import escape

from benchmarks.engine_process import OMNIOP, OMNIOP_BF16, OMNIOP_ORT, ONNXRUNTIME, OPENVINO, OPENVINO_F32
from benchmarks.measure import Figures

LABELS = {
    ONNXRUNTIME: "ONNX Runtime",
    OPENVINO_F32: "OpenVINO f32",
    OPENVINO: "OpenVINO",
    OMNIOP: "omniop",
    OMNIOP_BF16: "omniop bf16",
    OMNIOP_ORT: "omniop.ort",
}
_GROUPS = {"architectures": "Architectures", "trained": "Trained models", "calls": "A call"}
Row = Mapping[str, Figures]
"""One model's figures by engine."""


@dataclass(frozen=True)
class Results:
    """``groups``: that of each model."""

    machine: Mapping[str, object]
    groups: Mapping[str, str]
    figures: Sequence[Figures]

    @cached_property
    def threads(self) -> list[int]:
        return list(dict.fromkeys(f.threads for f in self.figures))

    def rows(self, group: str, threads: int) -> Mapping[str, Row]:
        """Engines that failed or gave wrong answers are not among them."""
        rows: dict[str, dict[str, Figures]] = {}
        for f in self.figures:
            if self.groups[f.model] == group and f.threads == threads and f.problem is None and f.close:
                rows.setdefault(f.model, {})[f.engine] = f
        return rows


def spent(f: Figures) -> float:
    """Seconds of a run: CPU time where there is one thread, which a busy machine disturbs least."""
    return f.cpu if f.threads == 1 else f.run


def faster(row: Row, engine: str = OMNIOP, base: str = ONNXRUNTIME) -> float | None:
    """How many times as fast as ``base``; None where one of them has no figure."""
    return spent(row[base]) / spent(row[engine]) if engine in row and base in row else None


# Markdown -------------------------------------------------------------------------------------------------------------


def markdown(results: Results) -> str:
    """All of it."""
    parts = ["# omniop on the CPU", _machine(results.machine)]
    for threads in results.threads:
        for group, title in _GROUPS.items():
            rows = results.rows(group, threads)
            if not rows:
                continue
            if group == "calls":
                parts += [f"## {title}, {_count(threads)}: microseconds", _calls(rows)]
                continue
            clock = "CPU time" if threads == 1 else "time"
            parts += [f"## {title}, {_count(threads)}: {clock} of a run in milliseconds", _runs(rows)]
            parts += [f"### Loading, {_count(threads)}: milliseconds to the first result, and peak memory"]
            parts += [_loading(rows)]
    return "\n\n".join(parts) + "\n"


def _machine(machine: Mapping[str, object]) -> str:
    versions = machine["versions"]
    assert isinstance(versions, Mapping)
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = f"{machine['processor']}, {machine['cpus']} CPUs, {machine['system']}; {named}. Medians; "
    return text + "ratios say how many times as fast as the peer omniop is."


def _count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _engines(rows: Mapping[str, Row]) -> list[str]:
    return [engine for engine in LABELS if any(engine in row for row in rows.values())]


def _runs(rows: Mapping[str, Row]) -> str:
    engines = _engines(rows)
    peers = [engine for engine in engines if engine != OMNIOP]
    header = ["model", *(LABELS[e] for e in engines), *(f"of {LABELS[p]}" for p in peers), "apart"]
    body = []
    for model, row in rows.items():
        ratios = [_ratio(faster(row, base=peer)) for peer in peers]
        apart = f"{row[OMNIOP].difference:.0e}" if OMNIOP in row else ""
        body.append([model, *(_cell(row, e, lambda f: spent(f) * 1e3) for e in engines), *ratios, apart])
    means = [_ratio(_mean([r for row in rows.values() if (r := faster(row, base=p)) is not None])) for p in peers]
    if len(rows) > 1:
        body.append(["**geometric mean**", *[""] * len(engines), *means, ""])
    return _table(header, body)


def _loading(rows: Mapping[str, Row]) -> str:
    engines = [engine for engine in _engines(rows) if engine != OPENVINO]
    header = ["model", *(f"{LABELS[e]} {what}" for what in ("cold", "warm", "MB") for e in engines)]
    what: list[Callable[[Figures], float]] = [
        lambda f: f.cold * 1e3,
        lambda f: f.first * 1e3,
        lambda f: f.peak / 1e6,
    ]
    return _table(header, [[m, *(_cell(row, e, of) for of in what for e in engines)] for m, row in rows.items()])


def _calls(rows: Mapping[str, Row]) -> str:
    engines = _engines(rows)
    body = [[m, *(_cell(row, e, lambda f: f.run * 1e6) for e in engines)] for m, row in rows.items()]
    return _table(["model", *(LABELS[e] for e in engines)], body)


def _cell(row: Row, engine: str, of: Callable[[Figures], float]) -> str:
    if engine not in row:
        return "failed"
    value = of(row[engine])
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} x"


def _mean(ratios: Sequence[float]) -> float | None:
    return statistics.geometric_mean(ratios) if ratios else None


# Chart ----------------------------------------------------------------------------------------------------------------

_COLOURS = {OMNIOP: "#e4572e", OPENVINO_F32: "#6aa5d8", OPENVINO: "#b9d6ee"}
_LINE = "#57606a"
"""ONNX Runtime: it is 1 everywhere."""
_LEFT, _WIDTH, _BAR, _GAP, _HEAD, _TITLE = 132, 520, 10, 10, 62, 40


def chart(results: Results) -> str:
    """Speed as a multiple of ONNX Runtime's, a panel for each group and number of threads."""
    panels = [
        (f"{title}, {_count(threads)}", rows)
        for threads in results.threads
        for group, title in _GROUPS.items()
        if group != "calls" and (rows := results.rows(group, threads))
    ]
    body: list[str] = []
    y = float(_HEAD)
    for title, rows in panels:
        lines, height = _panel(title, rows, y)
        body += lines
        y += height
    width, height = _LEFT + _WIDTH + 56, y + 8
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}" '
        f'viewBox="0 0 {width} {height:g}" font-family="system-ui, sans-serif" font-size="11" fill="#24292f">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *_legend(),
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def _legend() -> Iterator[str]:
    yield _text(16, 22, "Speed, as a multiple of ONNX Runtime's", size=14, bold=True)
    x = float(_LEFT)
    for engine, colour in _COLOURS.items():
        yield f'<rect x="{x:g}" y="35" width="10" height="10" rx="2" fill="{colour}"/>'
        yield _text(x + 15, 44, LABELS[engine])
        x += 36 + 6.4 * len(LABELS[engine])
    yield f'<path d="M{x + 5:g} 34V46" stroke="{_LINE}" stroke-width="2"/>'
    yield _text(x + 13, 44, LABELS[ONNXRUNTIME])


def _panel(title: str, rows: Mapping[str, Row], top: float) -> tuple[list[str], float]:
    """Its elements and its height."""
    engines = [engine for engine in _COLOURS if any(engine in row for row in rows.values())]
    speeds = {model: {e: faster(row, e) for e in engines} for model, row in rows.items()}
    largest = max((s for found in speeds.values() for s in found.values() if s is not None), default=1.0)
    scale = _WIDTH / max(1.2, largest)
    height = len(engines) * _BAR + _GAP
    bottom = top + _TITLE + len(rows) * height
    lines = [_text(16, top + 14, title, bold=True)]
    step = 0.5 if largest < 5 else 2.0
    for k in range(int(max(1.2, largest) / step) + 1):
        x = _LEFT + k * step * scale
        stroke = _LINE if k * step == 1 else "#e3e6ea"
        lines.append(f'<path d="M{x:.1f} {top + _TITLE - 6:g}V{bottom - _GAP + 4:g}" stroke="{stroke}"/>')
        lines.append(_text(x, top + _TITLE - 10, f"{k * step:g}", anchor="middle", colour=_LINE))
    for row, (model, found) in enumerate(speeds.items()):
        y = top + _TITLE + row * height
        lines.append(_text(_LEFT - 8, y + len(engines) * _BAR / 2 + 4, model, anchor="end"))
        for k, engine in enumerate(engines):
            speed = found[engine]
            place = y + k * _BAR
            if speed is None:
                lines.append(_text(_LEFT + 5, place + 8, "no figure", size=9, colour=_LINE))
                continue
            lines.append(
                f'<rect x="{_LEFT}" y="{place:g}" width="{speed * scale:.1f}" height="{_BAR - 1}" rx="1.5" '
                f'fill="{_COLOURS[engine]}"/>'
            )
            if engine == OMNIOP:
                lines.append(_text(_LEFT + speed * scale + 5, place + 8, f"{speed:.2f}", size=10, bold=True))
    return lines, bottom - top + 14


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 11,
    bold: bool = False,
    colour: str = "#24292f",
) -> str:
    weight = ' font-weight="600"' if bold else ""
    # A white rim keeps the lines behind it off.
    style = f'text-anchor="{anchor}" font-size="{size}" fill="{colour}"{weight}'
    rim = 'paint-order="stroke" stroke="#ffffff" stroke-width="3"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style} {rim}>{escape(text)}</text>'
