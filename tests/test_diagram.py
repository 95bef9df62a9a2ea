"""Diagrams: one layout, shown as text and as SVG."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futurechain.demo.diagram import Colour, Diagram

SVG = "{http://www.w3.org/2000/svg}"


def elements(diagram, name):
    return list(ET.fromstring(diagram.svg()).iter(SVG + name))


def colours(element):
    return {element.get("fill"), element.get("stroke")}


@pytest.fixture
def sample():
    """Two boxes, and a line with a label between them."""
    diagram = Diagram()
    diagram.box(0, 0, 7, 3, "one")
    diagram.box(9, 5, 8, 4, "two", "rows", colour=Colour.GREEN)
    diagram.line((3, 2), (3, 3), (12.5, 3), (12.5, 4), arrow=True, colour=Colour.RED)
    diagram.label(8, 3, " x ", colour=Colour.RED)
    return diagram


def test_ascii(sample):
    """By default the text is ASCII; lines join the borders they start from, and labels interrupt lines."""
    assert sample.text().splitlines() == [
        "+-----+",
        "| one |",
        "+--+--+",
        "   +--- x ---+",
        "             v",
        "         +------+",
        "         |  two |",
        "         | rows |",
        "         +------+",
    ]


def test_unicode(sample):
    """With `unicode` the same picture has box characters."""
    assert sample.text(unicode=True).splitlines() == [
        "┌─────┐",
        "│ one │",
        "└──┬──┘",
        "   └─── x ───┐",
        "             ▼",
        "         ┌──────┐",
        "         │  two │",
        "         │ rows │",
        "         └──────┘",
    ]


def test_size(sample):
    """Width and height are those of the text."""
    rows = sample.text().splitlines()

    assert (sample.width, sample.height) == (max(map(len, rows)), len(rows))


def test_nothing():
    """An empty diagram is an empty text and a valid SVG."""
    diagram = Diagram()

    assert (diagram.width, diagram.height, diagram.text()) == (0, 0, "")
    assert elements(diagram, "text") == []


@pytest.mark.parametrize(
    ("end", "ascii_row", "unicode_head"),
    [((2, 0), "^", "▲"), ((2, 4), "v", "▼"), ((0, 2), "<", "◀"), ((4, 2), ">", "▶")],
)
def test_heads_of_arrows(end, ascii_row, unicode_head):
    """An arrow's head stands in the last cell and points where the line goes."""
    diagram = Diagram()
    diagram.line((2, 2), end, arrow=True)
    x, y = end

    assert diagram.text().splitlines()[y][x] == ascii_row
    assert diagram.text(unicode=True).splitlines()[y][x] == unicode_head


@pytest.mark.parametrize(
    ("ends", "joint"),
    [
        ("UD", "│"),
        ("LR", "─"),
        ("DR", "┌"),
        ("DL", "┐"),
        ("UR", "└"),
        ("UL", "┘"),
        ("UDR", "├"),
        ("UDL", "┤"),
        ("DLR", "┬"),
        ("ULR", "┴"),
        ("UDLR", "┼"),
    ],
)
def test_lines_that_meet_are_joined(ends, joint):
    """A cell shows a line to each side where one leaves it, whichever lines they belong to."""
    places = {"U": (1, 0), "D": (1, 2), "L": (0, 1), "R": (2, 1)}
    diagram = Diagram()
    for end in ends:
        diagram.line(places[end], (1, 1))

    assert diagram.text(unicode=True).splitlines()[1][1] == joint
    assert diagram.text().splitlines()[1][1] == {"│": "|", "─": "-"}.get(joint, "+")


def test_slanted_lines_are_refused():
    """Text has no slanted lines: a ValueError tells from where to where."""
    diagram = Diagram()
    diagram.line((0, 0), (1, 2))

    with pytest.raises(ValueError, match=r"right angles only.*\(0, 0\).*\(1, 2\)"):
        diagram.text()


def test_half_cells():
    """What is half-way between two cells is in the right one of them, so that line and label stay aligned."""
    diagram = Diagram()
    diagram.label(2.5, 0, "a")
    diagram.line((2.5, 1), (2.5, 2), arrow=True)
    diagram.label(2.5, 3, "abcd")

    assert diagram.text().splitlines() == ["   a", "   |", "   v", " abcd"]


def test_placing_moves_everything(sample):
    """A placed diagram looks as before, further right and further down."""
    outer = Diagram()
    outer.place(sample, 2, 1)

    assert outer.text().splitlines() == ["", *("  " + row for row in sample.text().splitlines())]


def test_placing_copies(sample):
    """What is added to a diagram after it was placed does not appear."""
    outer = Diagram()
    outer.place(sample, 0, 0)
    before = outer.text()
    sample.label(30, 0, "late")

    assert outer.text() == before


def test_svg_elements(sample):
    """Boxes are rectangles, lines polylines, heads polygons, each in its colour; all text is there."""
    boxes = [box for box in elements(sample, "rect") if box.get("stroke")]

    assert [colours(box) for box in boxes] == [set(Colour.PLAIN.value), set(Colour.GREEN.value)]
    assert [line.get("stroke") for line in elements(sample, "polyline")] == [Colour.RED.ink]
    assert [head.get("fill") for head in elements(sample, "polygon")] == [Colour.RED.ink]
    assert [text.text for text in elements(sample, "text")] == ["one", "two", "rows", "x"]


def test_svg_background(sample):
    """Behind everything is an opaque light rectangle of the picture's size, for pages of any colour."""
    root = ET.fromstring(sample.svg("A & B <sample>"))
    title, background = root[:2]

    assert title.text == "A & B <sample>"
    assert background.get("fill") == "#ffffff"
    assert (background.get("width"), background.get("height")) == (root.get("width"), root.get("height"))
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"


def test_svg_needs_nothing_else(sample):
    """There is no link, style sheet, script or image in it."""
    names = {element.tag.removeprefix(SVG) for element in ET.fromstring(sample.svg()).iter()}

    assert names <= {"svg", "title", "rect", "polyline", "polygon", "text"}
    assert sample.svg().count("http") == 1


def test_svg_heads_are_symmetric(sample):
    """The head of an arrow points on from its line: the tip ahead, the other corners beside its end."""
    (line,), (head,) = elements(sample, "polyline"), elements(sample, "polygon")
    end = [float(part) for part in line.get("points").split()[-1].split(",")]
    tip, left, right = ([float(part) for part in corner.split(",")] for corner in head.get("points").split())

    assert tip == [end[0], end[1] + 8]
    assert left[1] == right[1] == end[1]
    assert left[0] + right[0] == 2 * end[0]


def test_a_line_without_arrow():
    """It ends in the middle of its last cell, and has no head."""
    diagram = Diagram()
    diagram.line((0, 0), (2, 0))

    assert diagram.text() == "---"
    assert elements(diagram, "polygon") == []
    assert [line.get("points") for line in elements(diagram, "polyline")] == ["22.5,27 40.5,27"]


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1))
def test_text_is_escaped(content):
    """Whatever a label says, text shows it as it is, and SVG as well."""
    diagram = Diagram()
    diagram.label(len(content), 0, content)

    assert diagram.text().strip() == content
    assert [text.text for text in elements(diagram, "text")] == [content]
