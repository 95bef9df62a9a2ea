"""Diagrams of boxes, lines and labels, shown as text (plain or with box characters) and as SVG.

A `Diagram` is a list of shapes on a grid of character cells, so that one layout serves every output. `x`
counts cells to the right and `y` counts rows down, both from 0. An `x` may lie half-way between two cells,
which is the middle of a box of even width: SVG draws it there, and text in the cell to its right.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import NamedTuple
from xml.sax.saxutils import escape

__all__ = ["Colour", "Diagram"]


class Colour(Enum):
    """What SVG paints a shape with: the colour of its lines and letters, and that of its inside."""

    PLAIN = ("#424a53", "#f6f8fa")
    GREEN = ("#116329", "#dafbe1")
    RED = ("#a40e26", "#ffebe9")

    @property
    def ink(self) -> str:
        """The colour of lines and letters."""
        return self.value[0]

    @property
    def fill(self) -> str:
        """The colour inside of a box."""
        return self.value[1]


class Point(NamedTuple):
    """A place on the grid."""

    x: float
    y: float

    def towards(self, other: Point, distance: float) -> Point:
        """The point `distance` away from this one, in the direction of `other`."""
        share = distance / math.dist(self, other)
        return Point(self.x + (other.x - self.x) * share, self.y + (other.y - self.y) * share)


class Diagram:
    """A drawing under construction: each method adds a shape, over those already there."""

    def __init__(self) -> None:
        self._shapes: list[Shape] = []

    @property
    def width(self) -> int:
        """How many columns the text takes."""
        return 1 + max((_cell(corner.x) for shape in self._shapes for corner in shape.corners()), default=-1)

    @property
    def height(self) -> int:
        """How many rows the text takes."""
        return 1 + max((_cell(corner.y) for shape in self._shapes for corner in shape.corners()), default=-1)

    def box(
        self, x: float, y: float, width: int, height: int, *lines: str, colour: Colour = Colour.PLAIN
    ) -> None:
        """Add a box with `lines` of text in its middle.

        Args:
            x: the column of its left border.
            y: the row of its upper border.
            width: in cells, with both borders.
            height: in rows, with both borders.
            lines: what is written in it; it has to fit.
            colour: of the border, the inside and the text.
        """
        self._shapes.append(Box(colour, Point(x, y), width, height, lines))

    def line(self, *points: tuple[float, float], arrow: bool = False, colour: Colour = Colour.PLAIN) -> None:
        """Add a line from point to point, with right angles only; lines that meet are joined.

        Args:
            points: at least two `(x, y)`.
            arrow: whether the last cell is the head of an arrow.
            colour: of the line.
        """
        self._shapes.append(Line(colour, tuple(Point(*point) for point in points), arrow))

    def label(
        self, x: float, y: float, text: str, *, colour: Colour = Colour.PLAIN, bold: bool = False
    ) -> None:
        """Add `text` with its middle at `x`; it interrupts a line that it lies on.

        Args:
            x: the column of its middle.
            y: its row.
            text: one line; spaces around it keep lines at a distance.
            colour: of the letters.
            bold: whether SVG sets it in bold type.
        """
        self._shapes.append(Label(colour, Point(x, y), text, bold))

    def place(self, other: Diagram, x: float, y: float) -> None:
        """Add what is in `other` now, moved `x` columns to the right and `y` rows down."""
        self._shapes += [shape.moved(x, y) for shape in other._shapes]

    def text(self, *, unicode: bool = False) -> str:
        """The diagram in characters, without a space at the end of a line and without a newline at the end.

        Args:
            unicode: draw with box characters instead of ASCII.
        """
        canvas = Canvas(self.width, self.height)
        for shape in self._shapes:
            shape.draw(canvas)
        return canvas.text(UNICODE if unicode else ASCII)

    def svg(self, title: str = "") -> str:
        """The diagram as an SVG document that needs nothing else and has its own, light background.

        Args:
            title: what it shows, for those who cannot see it.
        """
        width = self.width * CELL.x + 2 * MARGIN
        height = self.height * CELL.y + 2 * MARGIN
        opening = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" role="img" '
            f'font-size="14" text-anchor="middle" font-family="{FONTS}">'
        )
        background = f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{PAPER}"/>'
        elements = [element for shape in self._shapes for element in shape.svg()]
        return "\n".join([opening, f"<title>{escape(title)}</title>", background, *elements, "</svg>\n"])


# -- shapes --------------------------------------------------------------------------------------------------

CELL = Point(9, 18)
"""The size of a character cell in SVG's units."""
MARGIN = 18
PAPER = "#ffffff"
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


@dataclass(frozen=True)
class Shape(ABC):
    """Something drawn, with its colour."""

    colour: Colour

    @abstractmethod
    def corners(self) -> Iterable[Point]:
        """Points between which the whole shape lies."""

    @abstractmethod
    def moved(self, x: float, y: float) -> Shape:
        """The same shape at another place."""

    @abstractmethod
    def draw(self, canvas: Canvas) -> None:
        """Put the shape on `canvas`."""

    @abstractmethod
    def svg(self) -> Iterator[str]:
        """Its SVG elements."""


@dataclass(frozen=True)
class Box(Shape):
    """A rectangle with text in its middle."""

    at: Point
    width: int
    height: int
    lines: tuple[str, ...]

    def corners(self) -> tuple[Point, Point]:
        return self.at, Point(self.at.x + self.width - 1, self.at.y + self.height - 1)

    def moved(self, x: float, y: float) -> Box:
        return replace(self, at=Point(self.at.x + x, self.at.y + y))

    def draw(self, canvas: Canvas) -> None:
        (left, top), (right, bottom) = self.corners()
        ring = (left, top), (right, top), (right, bottom), (left, bottom), (left, top)
        canvas.path(*(Point(*corner) for corner in ring))
        first = top + max(1, (self.height - len(self.lines)) // 2)
        for row, text in enumerate(self.lines):
            canvas.write(Point((left + right) / 2, first + row), text)

    def svg(self) -> Iterator[str]:
        (left, top), (right, bottom) = map(_pixel, self.corners())
        yield (
            f'<rect x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}" rx="5" '
            f'fill="{self.colour.fill}" stroke="{self.colour.ink}" stroke-width="1.5"/>'
        )
        first = (top + bottom - (len(self.lines) - 1) * CELL.y) / 2
        for row, text in enumerate(self.lines):
            yield _svg_text(Point((left + right) / 2, first + row * CELL.y), text, self.colour)


@dataclass(frozen=True)
class Line(Shape):
    """A line with right angles, and perhaps an arrow's head at its end."""

    points: tuple[Point, ...]
    arrow: bool

    def corners(self) -> tuple[Point, ...]:
        return self.points

    def moved(self, x: float, y: float) -> Line:
        return replace(self, points=tuple(Point(point.x + x, point.y + y) for point in self.points))

    def draw(self, canvas: Canvas) -> None:
        canvas.path(*self.points)
        if self.arrow:
            before, end = self.points[-2:]
            canvas.head(end, _direction(before, end))

    def svg(self) -> Iterator[str]:
        *points, before, end = map(_pixel, self.points)
        # The arrow goes on to the edge of its cell, so that it nearly touches what it points to.
        tip = end.towards(before, -CELL.y / 2) if self.arrow else end
        stop = tip.towards(before, 8) if self.arrow else end
        yield (
            f'<polyline points="{_svg_points(*points, before, stop)}" fill="none" '
            f'stroke="{self.colour.ink}" stroke-width="1.5" stroke-linejoin="round"/>'
        )
        if self.arrow:
            aside = Point((stop.y - tip.y) / 2, (tip.x - stop.x) / 2)
            left, right = (Point(stop.x + sign * aside.x, stop.y + sign * aside.y) for sign in (1, -1))
            yield f'<polygon points="{_svg_points(tip, left, right)}" fill="{self.colour.ink}"/>'


@dataclass(frozen=True)
class Label(Shape):
    """One line of text."""

    at: Point
    content: str
    bold: bool

    def corners(self) -> tuple[Point, Point]:
        half = (len(self.content) - 1) / 2
        return Point(self.at.x - half, self.at.y), Point(self.at.x + half, self.at.y)

    def moved(self, x: float, y: float) -> Label:
        return replace(self, at=Point(self.at.x + x, self.at.y + y))

    def draw(self, canvas: Canvas) -> None:
        canvas.write(self.at, self.content)

    def svg(self) -> Iterator[str]:
        x, y = _pixel(self.at)
        width = len(self.content) * CELL.x
        yield f'<rect x="{x - width / 2:g}" y="{y - 9:g}" width="{width:g}" height="18" fill="{PAPER}"/>'
        yield _svg_text(Point(x, y), self.content, self.colour, bold=self.bold)


def _pixel(point: Point) -> Point:
    """The middle of a cell in SVG's units."""
    return Point(MARGIN + (point.x + 0.5) * CELL.x, MARGIN + (point.y + 0.5) * CELL.y)


def _svg_points(*points: Point) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _svg_text(at: Point, text: str, colour: Colour, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    # Not every program knows dominant-baseline, so the shift from the middle to the baseline is written out.
    return f'<text x="{at.x:g}" y="{at.y + 4.5:g}" fill="{colour.ink}"{weight}>{escape(text.strip())}</text>'


# -- text ----------------------------------------------------------------------------------------------------

# The sides on which a line leaves a cell. A cell's sides are added up.
UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8
OPPOSITE = {UP: DOWN, DOWN: UP, LEFT: RIGHT, RIGHT: LEFT}


class Pen(NamedTuple):
    """The characters to draw with."""

    lines: str
    """One for each sum of sides, from 0 to 15."""
    heads: dict[int, str]
    """One for each side that an arrow may point to."""


ASCII = Pen(" |||-+++-+++-+++", {UP: "^", DOWN: "v", LEFT: "<", RIGHT: ">"})
UNICODE = Pen(" │││─┘┐┤─└┌├─┴┬┼", {UP: "▲", DOWN: "▼", LEFT: "◀", RIGHT: "▶"})


class Canvas:
    """A grid of cells; each has the sides on which lines leave it, and perhaps something over them."""

    def __init__(self, width: int, height: int) -> None:
        self._width = width
        self._sides = bytearray(width * height)  # row by row; a dictionary of cells costs three times the time
        self._over: list[dict[int, str | int]] = [{} for _ in range(height)]

    def path(self, *points: Point) -> None:
        """Draw a line; where it meets another one, they are joined."""
        cells = [(_cell(point.x), _cell(point.y)) for point in points]
        for (x1, y1), (x2, y2) in pairwise(cells):
            if x1 != x2 and y1 != y2:
                raise ValueError(f"a line has right angles only, but goes from {(x1, y1)} to {(x2, y2)}")
            first, last = sorted((y1 * self._width + x1, y2 * self._width + x2))
            step, side = (1, RIGHT) if y1 == y2 else (self._width, DOWN)
            self._join(range(first, last, step), step, side)

    def _join(self, cells: range, step: int, side: int) -> None:
        """Join each of the `cells` with the one that is a `step` further, on its `side`."""
        sides, other = self._sides, OPPOSITE[side]
        for cell in cells:
            sides[cell] |= side
            sides[cell + step] |= other

    def head(self, at: Point, side: int) -> None:
        """Draw the head of an arrow that points to `side`."""
        self._over[_cell(at.y)][_cell(at.x)] = side

    def write(self, middle: Point, text: str) -> None:
        """Write `text` around a point, over the lines that are there."""
        first = _cell(middle.x - (len(text) - 1) / 2)
        self._over[_cell(middle.y)].update(enumerate(text, first))

    def text(self, pen: Pen) -> str:
        """What the cells show."""
        characters = dict(enumerate(pen.lines))
        rows = range(0, len(self._sides), self._width) if self._width else ()
        lines = (self._sides[row : row + self._width].decode("ascii").translate(characters) for row in rows)
        return "\n".join(_covered(line, over, pen) for line, over in zip(lines, self._over, strict=True))


def _covered(line: str, over: dict[int, str | int], pen: Pen) -> str:
    characters = [*line]
    for x, one in over.items():
        if x >= 0:  # what sticks out to the left is not seen
            characters[x] = pen.heads[one] if isinstance(one, int) else one
    return "".join(characters).rstrip()


def _cell(coordinate: float) -> int:
    """The number of a row or column; half-way points belong to the one after them."""
    return math.floor(coordinate + 0.5)


def _direction(start: Point, end: Point) -> int:
    """Where a line goes that leads from `start` to `end`."""
    if start.x != end.x:
        return RIGHT if start.x < end.x else LEFT
    return DOWN if start.y <= end.y else UP
