"""Draws docs/road.svg, the picture of a model's road in docs/design.md: ``python docs/road.py``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

BOX_WIDTH, BOX_HEIGHT = 168, 74
STEP, LANE_HEIGHT = 204, 168
LEFT, TOP = 40, 62
WIDTH, HEIGHT = LEFT + 4 * STEP + BOX_WIDTH + LEFT, 3 * LANE_HEIGHT + 28

STYLE = """
text { font-family: system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2933; }
.lane { font-size: 15px; font-weight: 600; text-anchor: end; }
.when { font-size: 13px; font-weight: 400; fill: #52606d; }
.name { font-size: 15px; font-weight: 600; text-anchor: middle; }
.detail { font-size: 12px; fill: #3e4c59; text-anchor: middle; }
.label { font-size: 12px; fill: #52606d; font-style: italic; }
.arrow { fill: none; stroke: #52606d; stroke-width: 1.6; marker-end: url(#head); }
.back { stroke-dasharray: 5 4; }
"""


@dataclass(frozen=True)
class Lane:
    """A row of the picture: how often it happens, and its stations (name, two lines of detail)."""

    title: str
    when: str
    fill: str
    stroke: str
    stations: tuple[tuple[str, str, str], ...]


LANES = (
    Lane(
        "Load",
        "once a model",
        "#e8f1fb",
        "#4a7fb5",
        (
            ("ONNX model", "path, bytes, proto", "external data mapped"),
            ("import", "nodes sorted, names", "wired, tensors checked"),
            ("rewrite", "duplicates, dead code,", "composite ops"),
            ("graph", "schema versions,", "host-wanted values"),
        ),
    ),
    Lane(
        "Plan",
        "once a segment and a set of guards",
        "#fdf3e1",
        "#c08a2e",
        (
            ("trace", "lowerings to prims,", "sizes as hint + guard"),
            ("place", "device and route a node,", "refusals kept"),
            ("fuse", "maps into readers,", "epilogues into calls"),
            ("build", "legalise, then dialect", "or call; cached by content"),
            ("template", "steps, slots, guards,", "one function of the sizes"),
        ),
    ),
    Lane(
        "Run",
        "every time",
        "#e9f6ec",
        "#4b9460",
        (
            ("feeds", "dtype, rank and", "dims checked"),
            ("bind", "guards hold? then all sizes", "by one function"),
            ("launch", "steps on leased buffers,", "error word read"),
            ("cut", "read back elements, or", "run a node on the host"),
            ("outputs", "fresh arrays,", "the caller's own"),
        ),
    ),
)


def place(lane: int, station: int) -> tuple[int, int]:
    """The top left corner of a station's box."""
    return LEFT + station * STEP, TOP + lane * LANE_HEIGHT


def station_svg(lane: int, station: int) -> str:
    x, y = place(lane, station)
    row = LANES[lane]
    name, *details = row.stations[station]
    middle = x + BOX_WIDTH / 2
    box = f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="9" fill="#fff" stroke="{row.stroke}"/>'
    lines = [f'<text class="name" x="{middle}" y="{y + 24}">{escape(name)}</text>']
    lines += [
        f'<text class="detail" x="{middle}" y="{y + 44 + 16 * k}">{escape(d)}</text>' for k, d in enumerate(details)
    ]
    return box + "".join(lines)


def lane_svg(lane: int) -> str:
    row = LANES[lane]
    _, y = place(lane, 0)
    back = f'<rect x="16" y="{y - 44}" width="{WIDTH - 32}" height="{BOX_HEIGHT + 62}" rx="14" fill="{row.fill}"/>'
    title = (
        f'<text class="lane" x="{WIDTH - LEFT}" y="{y - 17}">{row.title}<tspan class="when">, {row.when}</tspan></text>'
    )
    stations = [station_svg(lane, k) for k in range(len(row.stations))]
    arrows = [arrow(*edge(lane, k, "right"), *edge(lane, k + 1, "left")) for k in range(len(row.stations) - 1)]
    return "\n".join([back, title, *stations, *arrows])


def edge(lane: int, station: int, side: str) -> tuple[float, float]:
    """The middle of one side of a box."""
    x, y = place(lane, station)
    sides = {"left": (0, 0.5), "right": (1, 0.5), "top": (0.5, 0), "bottom": (0.5, 1)}
    across, down = sides[side]
    return x + across * BOX_WIDTH, y + down * BOX_HEIGHT


def arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<path class="arrow" d="M{x0 + 2},{y0} L{x1 - 3},{y1}"/>'


def turn(points: list[tuple[float, float]], back: bool = False) -> str:
    """A path with corners; dashed where the road goes round again."""
    path = " L".join(f"{x},{y}" for x, y in points)
    return f'<path class="arrow{" back" if back else ""}" d="M{path}"/>'


def label(x: float, y: float, text: str) -> str:
    return f'<text class="label" x="{x}" y="{y}">{escape(text)}</text>'


def between_lanes() -> list[str]:
    """Load to plan, bind to plan on a guard miss, plan to run, and a cut's way round to the next segment."""
    graph, trace = edge(0, 3, "bottom"), edge(1, 0, "top")
    template, bind, cut = edge(1, 4, "bottom"), edge(2, 1, "top"), edge(2, 3, "bottom")
    upper, lower, below = graph[1] + 26, template[1] + 26, cut[1] + 32
    into_trace, out_of_bind, into_bind = trace[0], bind[0] - 50, bind[0] + 40
    return [
        turn([graph, (graph[0], upper), (into_trace, upper), (into_trace, trace[1] - 3)]),
        turn([template, (template[0], lower), (into_bind, lower), (into_bind, bind[1] - 3)]),
        turn(
            [(out_of_bind, bind[1]), (out_of_bind, lower), (trace[0], lower), (trace[0], edge(1, 0, "bottom")[1] + 4)],
            True,
        ),
        turn([cut, (cut[0], below), (bind[0], below), (bind[0], edge(2, 1, "bottom")[1] + 4)], True),
        label(into_trace + 8, upper - 5, "first time these dtypes, ranks and devices come"),
        label(into_bind + 8, lower - 5, "holds for every shape its guards allow"),
        label(trace[0] + 8, lower - 5, "no template holds"),
        label(bind[0] + 90, below + 15, "next segment"),
    ]


def picture() -> str:
    head = '<marker id="head" markerWidth="9" markerHeight="8" refX="7" refY="4" orient="auto">'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>A model's road: loaded once, planned once a set of guards, bound and launched every run</title>",
        f'<style>{STYLE}</style><defs>{head}<path d="M0,0 L8,4 L0,8 z" fill="#52606d"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="16" fill="#fff"/>',
        *(lane_svg(k) for k in range(len(LANES))),
        *between_lanes(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("road.svg").write_text(picture(), encoding="utf-8")
