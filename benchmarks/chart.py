"""The chart of growth: time per stage over the length of the chain, both logarithmic, as SVG made by hand.

It has no background of its own. All its colours have enough contrast on white and on black; lines differ by dash and
marker too, and have their names at their ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.measure import duration
from benchmarks.peers import ADD_CALLBACK, OURS

__all__ = ["chart"]

WIDTH, HEIGHT = 900, 560
LEFT, RIGHT, TOP, BOTTOM = 70, 686, 88, 448
INK = "#6f7a86"
"""Of text: about 4.4 to 1 on white and on near black."""
FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
LINE = 17
"""Least distance of two names, in pixels."""
Point = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """How a line is told from the others."""

    colour: str
    dash: str
    marker: str
    width: float = 2


CIRCLE = '<circle r="4"/>'
SQUARE = '<rect x="-3.6" y="-3.6" width="7.2" height="7.2"/>'
DIAMOND = '<path d="M0-5.2 5.2 0 0 5.2-5.2 0Z"/>'
UP = '<path d="M0-5 4.8 3.8H-4.8Z"/>'
DOWN = '<path d="M0 5 4.8-3.8H-4.8Z"/>'
RING = '<circle r="3.4" fill="none" stroke-width="2"/>'
FRAME = '<rect x="-3.2" y="-3.2" width="6.4" height="6.4" fill="none" stroke-width="2"/>'
STYLES = {
    OURS: Style("#1f7ae0", "", CIRCLE, 4),
    ADD_CALLBACK: Style("#1f7ae0", "9 4", RING, 3),
    "Twisted": Style("#d1492e", "", SQUARE),
    "asyncio": Style("#2b8a4b", "7 4", UP),
    "promise": Style("#9a5bd0", "2 4", DIAMOND),
    "vine": Style("#a87500", "10 3 2 3", DOWN),
    "by hand": Style("#128594", "", FRAME),
    "more-executors": Style("#c2478f", "5 3", UP),
}
OTHER = Style(INK, "", CIRCLE)


@dataclass(frozen=True)
class Scale:
    """Where a length and a time are in the picture."""

    longest: float
    low: float
    high: float

    def x(self, length: float) -> float:
        """Return the place of a length."""
        return LEFT + (RIGHT - LEFT) * math.log(length) / max(math.log(self.longest), 1e-9)

    def y(self, time: float) -> float:
        """Return the place of a time."""
        return BOTTOM - (BOTTOM - TOP) * math.log(time / self.low) / math.log(self.high / self.low)


def chart(found: Mapping[str, Mapping[int, float]], machine: Mapping[str, Any]) -> str:
    """Return the SVG of the nanoseconds per stage, by peer and length."""
    figures = [figure for line in found.values() for figure in line.values()]
    lengths = sorted({length for line in found.values() for length in line})
    scale = Scale(lengths[-1], min(figures) / 1.35, max(figures) * 1.35)
    lines = {
        name: [(scale.x(length), scale.y(time)) for length, time in sorted(line.items())]
        for name, line in found.items()
    }
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"',
            f'     role="img" aria-labelledby="title description" style="{FONT}" fill="{INK}">',
            '<title id="title">Time per stage over the length of the chain</title>',
            f'<desc id="description">{escape(_described(found))}</desc>',
            *_words(machine, cut=any(line[-1][0] < scale.x(lengths[-1]) for line in lines.values())),
            *_grid(scale, lengths),
            *(_drawn(name, lines[name]) for name in reversed(lines)),
            *_names(lines, scale.x(lengths[-1])),
            "</svg>\n",
        ]
    )


def _described(found: Mapping[str, Mapping[int, float]]) -> str:
    ends = [
        f"{name}: {duration(line[min(line)])} in a chain of {min(line):,}, {duration(line[max(line)])} of {max(line):,}"
        for name, line in found.items()
    ]
    return "; ".join(ends)


def _words(machine: Mapping[str, Any], *, cut: bool) -> Iterator[str]:
    yield _text(LEFT, 36, "Time per stage, by length of the chain", "font-size:21px;font-weight:600")
    how = "Attach a chain to a pending future, settle it, read the end. Lower is better, a level line is linear growth."
    yield _text(LEFT, 60, how, "font-size:13px")
    where = f"{machine['processor']}, {machine['cores']} cores · {machine['python']} · {machine['date']}"
    yield _text(LEFT, HEIGHT - 18, where, "font-size:12px")
    if cut:
        why = "× ends there: calls itself for each stage, and a longer chain overflows the stack"
        yield _text(LEFT, HEIGHT - 39, why, "font-size:12px")


def _grid(scale: Scale, lengths: list[int]) -> Iterator[str]:
    for time in _ticks(scale):
        y = scale.y(time)
        strong = 0.45 if math.log10(time).is_integer() else 0.18
        yield f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="{INK}" stroke-opacity="{strong}"/>'
        yield _text(LEFT - 10, y + 4, _round(time), "font-size:12px;text-anchor:end")
    for length in lengths:
        x = scale.x(length)
        yield f'<path d="M{x:.1f} {BOTTOM}v6" stroke="{INK}"/>'
        yield _text(x, BOTTOM + 22, f"{length:,}", "font-size:12px;text-anchor:middle")
    yield f'<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="{INK}"/>'
    yield _text((LEFT + RIGHT) / 2, BOTTOM + 42, "stages in the chain", "font-size:12px;text-anchor:middle")


def _round(time: float) -> str:
    return f"{time:g} ns" if time < 1000 else f"{time / 1000:g} µs"


def _ticks(scale: Scale) -> list[float]:
    decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    times = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return [time for time in times if scale.low <= time <= scale.high]


def _drawn(name: str, points: list[Point]) -> str:
    style = STYLES.get(name, OTHER)
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
    stroke = f'stroke="{style.colour}" stroke-width="{style.width}" stroke-linejoin="round"'
    markers = "".join(f'<g transform="translate({x:.1f} {y:.1f})">{style.marker}</g>' for x, y in points)
    line = f'<path d="{path}" fill="none" {stroke}{dash}/>'
    return f'<g>{line}<g fill="{style.colour}" stroke="{style.colour}" stroke-width="0">{markers}</g></g>'


def _names(lines: Mapping[str, list[Point]], end: float) -> Iterator[str]:
    whole = sorted((line[-1][1], name) for name, line in lines.items() if line[-1][0] >= end)
    for (y, name), place in zip(whole, _apart([y for y, _ in whole]), strict=True):
        colour = STYLES.get(name, OTHER).colour
        yield f'<path d="M{end + 9:.1f} {y:.1f}L{end + 22:.1f} {place:.1f}" stroke="{colour}" fill="none"/>'
        yield _name(name, end + 27, place + 4)
    for name, line in lines.items():
        if line[-1][0] < end:
            x, y = line[-1]
            others = [other for other in lines if other != name]
            yield f'<g transform="translate({x + 14:.1f} {y:.1f})">{_cross(name)}</g>'
            yield _name(name, x + 25, _free(x + 25, y, [lines[other] for other in others]) + 4)


def _cross(name: str) -> str:
    return f'<path d="M-4-4 4 4M4-4-4 4" stroke="{STYLES.get(name, OTHER).colour}" stroke-width="2.4"/>'


def _apart(places: list[float]) -> list[float]:
    """Move places, which are sorted, as little as is needed to have a line between each two."""
    moved: list[list[float]] = []
    for place in places:
        moved.append([place])
        while len(moved) > 1 and _centre(moved[-1]) - _centre(moved[-2]) < _half(moved[-1]) + _half(moved[-2]):
            last = moved.pop()
            moved[-1] += last
    return [_centre(group) + (index - (len(group) - 1) / 2) * LINE for group in moved for index in range(len(group))]


def _centre(group: list[float]) -> float:
    return sum(group) / len(group)


def _half(group: list[float]) -> float:
    return len(group) * LINE / 2


def _free(left: float, y: float, others: list[list[Point]]) -> float:
    """Return the height near `y` at which a name, which begins at `left`, is least in the way of the other lines."""
    across = [left + step * 12 for step in range(9)]
    crossed = [height for line in others for x in across if (height := _height(line, x)) is not None]

    def room(place: float) -> float:
        return min((abs(place - height) for height in crossed), default=LINE)

    places = (y, y - LINE * 0.7, y + LINE * 0.7)
    return max(places, key=lambda place: min(room(place), LINE * 0.8) - abs(place - y) / 100)


def _height(line: list[Point], x: float) -> float | None:
    for (left, upper), (right, lower) in pairwise(line):
        if left <= x <= right:
            return upper + (lower - upper) * (x - left) / (right - left)
    return None


def _name(name: str, x: float, y: float) -> str:
    shown = {OURS: "futurechain then", ADD_CALLBACK: "futurechain addCallback"}.get(name, name)
    weight = 700 if name in {OURS, ADD_CALLBACK} else 500
    return _text(x, y, shown, f"font-size:13px;font-weight:{weight};fill:{STYLES.get(name, OTHER).colour}")


def _text(x: float, y: float, words: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{style}">{escape(words)}</text>'
