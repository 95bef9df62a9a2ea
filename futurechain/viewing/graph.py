"""A graph of boxes and arrows, and its four formats: text, Mermaid, DOT and SVG. Nothing here knows futures."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

__all__ = ["FORMATS", "Edge", "Node", "Picture", "clean", "reading"]

MOST_NAMED = 40
"""How many characters of a name are drawn."""
MARKS = {"ok": "✔", "failed": "✘", "cancelled": "⊘", "running": "▶", "pending": "○", "more": "…"}
"""What stands before a node: colour alone must not carry the meaning."""
COLOURS = {
    "ok": "#2da44e",
    "failed": "#e5534b",
    "cancelled": "#e5534b",
    "running": "#1f8fe0",
    "pending": "#848d97",
    "more": "#848d97",
}
"""What can be told apart on white and on black."""


@dataclass(frozen=True, slots=True)
class Node:
    """One box: a future as it was when it was looked at, or how many are left out."""

    name: str
    place: str = ""
    status: str = "more"
    """A key of `MARKS`."""
    state: str = ""
    duration: float | None = None
    callbacks: int = 0
    foreign: bool = False
    asked: bool = False
    """It is the one that `render` was given."""
    number: int = 0

    def head(self) -> str:
        """Return the first line: what it is."""
        number = f" #{self.number}" if self.number else ""
        return f"{MARKS[self.status]}{number} {self.name}{' ◀' if self.asked else ''}"

    def lines(self) -> list[str]:
        """Return everything there is to say, the name first."""
        callbacks = f"{self.callbacks} callback{'' if self.callbacks == 1 else 's'}" if self.callbacks else ""
        time = "" if self.duration is None else seconds(self.duration)
        state = " · ".join(filter(None, (self.state, time)))
        return [line for line in (self.head(), self.place, state, callbacks) if line]


class Edge(NamedTuple):
    """An arrow from what is waited for to what waits, as indices of nodes."""

    source: int
    target: int
    label: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Nodes in reading order, and the arrows between them."""

    nodes: list[Node]
    edges: list[Edge]

    def status_of(self, edge: Edge) -> str:
        """Return "ok" or "failed" if something has come along this arrow, else "pending"."""
        status = self.nodes[edge.source].status
        return {"ok": "ok", "failed": "failed", "cancelled": "failed"}.get(status, "pending")


class _Step(NamedTuple):
    """One line of the text: a node, or a reference to one that was there before."""

    node: int
    lead: str
    rest: str
    again: bool = False


def reading(picture: Picture) -> Iterator[_Step]:
    """Iterate over the lines of the text, from each root down, every arrow once."""
    behind: list[list[Edge]] = [[] for _ in picture.nodes]
    for edge in picture.edges:
        behind[edge.source].append(edge)
    entered = {edge.target for edge in picture.edges}
    seen: set[int] = set()
    roots = [node for node in range(len(behind)) if node not in entered]
    for root in (*roots, *range(len(behind))):  # what no root leads to is a ring
        stack = [] if root in seen else [_Step(root, "", "")]
        while stack:
            step = stack.pop()
            again = step.node in seen
            yield step._replace(again=again)
            if not again:
                seen.add(step.node)
                stack.extend(reversed([*_indented(picture, behind[step.node], step.rest)]))


def _indented(picture: Picture, edges: list[Edge], rest: str) -> Iterator[_Step]:
    """Iterate over the lines below a node: straight on at the same depth, branches one deeper."""
    for number, edge in enumerate(edges, 1):
        pending = picture.status_of(edge) == "pending"
        text = f"{edge.label} " if edge.label else ""
        if len(edges) == 1:
            yield _Step(edge.target, f"{rest}{'⇣' if pending else '↓'} {text}", rest)
        else:
            corner, bar = ("├", "│  ") if number < len(edges) else ("└", "   ")
            yield _Step(edge.target, f"{rest}{corner}{'╌' if pending else '─'} {text}", rest + bar)


def _layers(picture: Picture) -> list[int]:
    """Return the row of each node: below everything that it waits for; a ring is cut somewhere."""
    behind, before = _neighbours(picture)
    missing = [len(sources) for sources in before]
    roots = [node for node, count in enumerate(missing) if not count]
    rows, placed = [0] * len(missing), dict[int, None]()
    for first in (None, *range(len(missing))):  # the roots together; then, if there are rings, one node after another
        todo = deque(roots if first is None else [first])
        while todo:
            node = todo.popleft()
            if node in placed:
                continue
            placed[node] = None
            for child in behind[node]:
                missing[child] -= 1
                rows[child] = rows[child] if child in placed else max(rows[child], rows[node] + 1)
                if not missing[child]:
                    todo.append(child)
    _let_down(rows, list(placed), behind, before)
    return rows


def _let_down(rows: list[int], order: list[int], behind: list[list[int]], before: list[list[int]]) -> None:
    """Move what begins by itself right above the first that waits for it."""
    loose = set[int]()
    for node in order:
        if all(one in loose and len(behind[one]) == 1 for one in before[node]):
            loose.add(node)
    for node in reversed(order):
        if node in loose and behind[node]:
            rows[node] = max(rows[node], min(rows[child] for child in behind[node]) - 1)


def _neighbours(picture: Picture) -> tuple[list[list[int]], list[list[int]]]:
    """Return which nodes are behind each node, and which before it."""
    behind: list[list[int]] = [[] for _ in picture.nodes]
    before: list[list[int]] = [[] for _ in picture.nodes]
    for edge in picture.edges:
        behind[edge.source].append(edge.target)
        before[edge.target].append(edge.source)
    return behind, before


def clean(name: str) -> str:
    """Return `name` on one line, printable, and not too long."""
    written = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in name[: MOST_NAMED + 1]
    )
    return written if len(written) <= MOST_NAMED else written[: MOST_NAMED - 1] + "…"


def seconds(duration: float) -> str:
    return f"{duration:.3g} s" if duration >= 1 else f"{duration * 1000:.3g} ms"


def _text(picture: Picture) -> str:
    lines: list[str] = []
    for step in reading(picture):
        node = picture.nodes[step.node]
        if not step.lead and lines:
            lines.append("")
        what = f"see #{node.number}" if node.number else f"see … {node.name}"
        lines.append(step.lead + (what if step.again else " · ".join(node.lines())))
    return "\n".join(lines)


def _mermaid(picture: Picture) -> str:
    lines = ["flowchart TD"]
    for number, node in enumerate(picture.nodes):
        text = "<br/>".join(map(_mermaid_text, node.lines()))
        left, right = ("[", "]") if node.foreign else ("(", ")")
        lines.append(f'    n{number}{left}"{text}"{right}:::{node.status}')
    for edge in picture.edges:
        arrow = "-.->" if picture.status_of(edge) == "pending" else "==>"
        text = f'|"{edge.label}"|' if edge.label else ""
        lines.append(f"    n{edge.source} {arrow}{text} n{edge.target}")
    for status in sorted({node.status for node in picture.nodes}):
        width = 3 if status in _SETTLED else 1
        dashes = ",stroke-dasharray:4 3" if status in _OPEN else ""
        lines.append(f"    classDef {status} stroke:{COLOURS[status]},stroke-width:{width}px{dashes}")
    ways = [picture.status_of(edge) for edge in picture.edges]
    for status in sorted({*ways}):
        numbers = ",".join(str(number) for number, way in enumerate(ways) if way == status)
        lines.append(f"    linkStyle {numbers} stroke:{COLOURS[status]}")
    return "\n".join(lines)


def _mermaid_text(text: str) -> str:
    """Write everything that might mean something to Mermaid, Markdown or HTML as a character code."""
    return "".join(one if one.isalnum() or one in " ·_.,✔✘⊘▶○…◀" else f"#{ord(one)};" for one in text)


_SETTLED = frozenset({"ok", "failed", "cancelled"})
_OPEN = frozenset({"pending", "more"})


def _dot(picture: Picture) -> str:
    lines = [
        "digraph chain {",
        '    graph [bgcolor="transparent"];',
        '    node [shape="box", fontname="sans-serif", fontcolor="#1f2328", fillcolor="#f6f8fa"];',
        '    edge [fontname="sans-serif", fontcolor="#767676"];',
    ]
    for number, node in enumerate(picture.nodes):
        text = "\\n".join(map(_dot_text, node.lines()))
        style = "filled" + ("" if node.foreign else ",rounded") + (",dashed" if node.status in _OPEN else "")
        width = 3 if node.status in _SETTLED else 1
        lines.append(
            f'    n{number} [label="{text}", style="{style}", color="{COLOURS[node.status]}", penwidth="{width}"];'
        )
    for edge in picture.edges:
        status = picture.status_of(edge)
        style, width = ("dashed", 1) if status == "pending" else ("solid", 3)
        attributes = f'label="{edge.label}", style="{style}", color="{COLOURS[status]}", penwidth="{width}"'
        lines.append(f"    n{edge.source} -> n{edge.target} [{attributes}];")
    return "\n".join([*lines, "}"])


def _dot_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


_LINE = 16
_LETTER = 7.5
_BESIDE = 8
"""How far a text stands from the tip of its arrow, which the line enters from the other side."""
_GAP = 28
_ROW_GAP = 46
_MARGIN = 12
_MOST_BENDS = 20_000
"""A picture with more bends than this gets straight arrows."""


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Where everything is, in pixels."""

    width: float
    height: float
    wide: float
    high: float
    centres: list[tuple[float, float]]
    """Of each node, and then of each bend."""
    routes: list[list[int]]
    """For each edge, the centres that it goes by."""


def _svg(picture: Picture) -> str:
    sheet = _lay_out(picture)
    size = f'width="{sheet.width:.0f}" height="{sheet.height:.0f}" viewBox="0 0 {sheet.width:.0f} {sheet.height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}',
            '  style="max-width:100%;height:auto" font-family="ui-monospace,Consolas,monospace" font-size="12">',
            f"<title>{escape(_summary(picture))}</title>",
            *(_svg_edge(picture, edge, route, sheet) for edge, route in zip(picture.edges, sheet.routes, strict=True)),
            *(_svg_node(node, sheet, *centre) for node, centre in zip(picture.nodes, sheet.centres, strict=False)),
            "</svg>",
        ]
    )


def _summary(picture: Picture) -> str:
    """Say in a sentence what the picture shows, for who cannot see it."""
    asked = next((node for node in picture.nodes if node.asked), None)
    if asked is None:
        return f"A pipeline: {', '.join(node.name for node in picture.nodes)}"
    drawn = [node for node in picture.nodes if node.status != "more"]
    settled = sum(node.status in _SETTLED for node in drawn)
    futures = "1 future" if len(drawn) == 1 else f"{len(drawn)} futures"
    return f"The chain of {asked.name} ({asked.state}): {futures}, {settled} settled"


def _lay_out(picture: Picture) -> _Sheet:
    texts = [node.lines() for node in picture.nodes]
    wide = 24 + _LETTER * max(_columns(line) for lines in texts for line in lines)
    beside = max((len(edge.label) for edge in picture.edges), default=0)  # of the arrows, where there has to be room
    wide = max(wide, 2 * (_BESIDE + _LETTER * beside - _MARGIN)) if beside else wide
    high = 12 + _LINE * max(map(len, texts))
    rows = _layers(picture)
    routes = _bend(picture, rows)
    across = _spread(rows, routes, [wide] * len(picture.nodes) + [0.0] * (len(rows) - len(picture.nodes)))
    left = min(x for x in across) - wide / 2 - _MARGIN
    centres = [
        (x - left, _MARGIN + high / 2 + row * (high + _ROW_GAP)) for x, row in zip(across, rows, strict=True)
    ]
    width = max(x for x, _ in centres) + wide / 2 + _MARGIN
    return _Sheet(width, max(y for _, y in centres) + high / 2 + _MARGIN, wide, high, centres, routes)


def _bend(picture: Picture, rows: list[int]) -> list[list[int]]:
    """Return the way of each edge; one that passes a row gets a bend there, which is added to `rows`."""
    nodes = [(edge.source, edge.target) for edge in picture.edges]
    if sum(rows[target] - rows[source] for source, target in nodes) > _MOST_BENDS:
        return [[*ends] for ends in nodes]
    routes = []
    for source, target in nodes:
        passed = range(rows[source] + 1, rows[target])
        routes.append([source, *range(len(rows), len(rows) + len(passed)), target])
        rows.extend(passed)
    return routes


def _spread(rows: list[int], routes: list[list[int]], widths: list[float]) -> list[float]:
    """Return how far to the right each thing goes: near the middle of what is above it, no two on one spot."""
    above: list[list[int]] = [[] for _ in rows]
    for route in routes:
        for source, target in pairwise(route):
            if rows[source] < rows[target]:
                above[target].append(source)
    members: list[list[int]] = [[] for _ in range(max(rows) + 1)]
    for one, number in enumerate(rows):
        members[number].append(one)
    across = [0.0] * len(rows)
    for row in filter(None, members):
        wanted = {one: _mean([across[source] for source in above[one]]) for one in row}
        known = [x for x in wanted.values() if x is not None]
        aim = {one: max(known, default=0.0) if x is None else x for one, x in wanted.items()}
        row.sort(key=lambda one, aim=aim, wanted=wanted: (wanted[one] is None, aim[one]))  # type: ignore[misc]
        _place(row, aim, across, widths)
    return across


def _place(row: list[int], aim: dict[int, float], across: list[float], widths: list[float]) -> None:
    """Set the things of a row side by side, on the whole as near to their aims as that allows."""
    edge = float("-inf")
    for one in row:
        across[one] = max(aim[one], edge + widths[one] / 2)
        edge = across[one] + widths[one] / 2 + _GAP
    shift = sum(across[one] - aim[one] for one in row) / len(row)
    for one in row:
        across[one] -= shift


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _columns(text: str) -> int:
    """Count the columns that `text` takes in a fixed-width font."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _svg_node(node: Node, sheet: _Sheet, x: float, y: float) -> str:
    left, top, lines = x - sheet.wide / 2, y - sheet.high / 2, node.lines()
    first = y - _LINE * (len(lines) - 1) / 2 + 4
    rows = "".join(
        f'<tspan x="{x:.1f}" y="{first + _LINE * number:.1f}"{"" if number else _BOLD}>{escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )
    width = 2.5 if node.status in _SETTLED else 1.5
    dashes = ' stroke-dasharray="4 3"' if node.status in _OPEN else ""
    return (
        f"<g class={quoteattr(node.status)}><title>{escape(', '.join(lines))}</title>"
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{sheet.wide:.1f}" height="{sheet.high:.1f}" '
        f'rx="{0 if node.foreign else 8}" fill="#f6f8fa" '
        f'stroke="{COLOURS[node.status]}" stroke-width="{width}"{dashes}/>'
        f'<text text-anchor="middle" fill="#1f2328">{rows}</text></g>'
    )


_BOLD = ' font-weight="bold"'


def _svg_edge(picture: Picture, edge: Edge, route: list[int], sheet: _Sheet) -> str:
    """Draw an arrow; its head is a shape of its own, for markers are found by names, which clash on a page."""
    half = sheet.high / 2
    (x, y), *bends, (end_x, end_y) = (sheet.centres[one] for one in route)
    path, y, end_y = f"M{x:.1f} {y + half:.1f}", y + half, end_y - half
    for bend_x, bend_y in bends:
        path += f"{_curve(x, y, bend_x, bend_y - half)}V{bend_y + half:.1f}"
        x, y = bend_x, bend_y + half
    path += _curve(x, y, end_x, end_y - 6)
    to_the_left = x > end_x
    status = picture.status_of(edge)
    line = 'stroke-width="1.5" stroke-dasharray="4 3"' if status == "pending" else 'stroke-width="2.5"'
    text = _svg_label(edge.label, end_x, end_y, to_the_left=to_the_left) if edge.label else ""
    return (
        f'<g class="edge {status}"><path d="{path}" fill="none" stroke="{COLOURS[status]}" {line}/>'
        f'<path d="M{end_x - 5:.1f} {end_y - 8:.1f}h10L{end_x:.1f} {end_y:.1f}Z" fill="{COLOURS[status]}"/>{text}</g>'
    )


def _svg_label(text: str, x: float, y: float, *, to_the_left: bool) -> str:
    """Write beside the tip of an arrow, on the side that its line does not come from."""
    x, anchor = (x - _BESIDE, "end") if to_the_left else (x + _BESIDE, "start")
    return f'<text x="{x:.1f}" y="{y - 5:.1f}" text-anchor="{anchor}" fill="#767676">{text}</text>'


def _curve(x1: float, y1: float, x2: float, y2: float) -> str:
    bend = _ROW_GAP / 2
    return f"C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"


FORMATS: dict[str, Callable[[Picture], str]] = {"text": _text, "mermaid": _mermaid, "dot": _dot, "svg": _svg}
