"""The Deferred simulator: draws what a chain of callbacks and errbacks does, whichever way it is fired.

It holds the rules by itself, without any future: it is their specification, and the tests compare the real
futures with it. The rules are Twisted's. A pair's callback runs if what enters is a result, its errback if it
is an exception; what comes out enters the next pair.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from futurechain.demo.diagram import Colour, Diagram

__all__ = ["Action", "Pair", "Side", "Step", "Value", "draw", "fire", "main", "parse"]

Side: TypeAlias = Literal["callback", "errback"]

VERBS = ("return", "fail", "passthru")
LONGEST = 6
"""How many characters a value may have, so that it fits into its box."""

INSTRUCTION = """\
One pair to a line, CALLBACK ERRBACK; a blank line ends the list. Each of the two is

  return VALUE   returns VALUE
  fail VALUE     raises an exception, shown as VALUE*
  passthru       passes on what it gets

and may be abbreviated: "r good f bad". A VALUE has at most 6 letters and digits.
"""


@dataclass(frozen=True)
class Value:
    """What travels along the chain: a result, or an exception."""

    text: str
    failed: bool = False

    def __str__(self) -> str:
        return self.text + "*" * self.failed


@dataclass(frozen=True)
class Action:
    """What a callback or errback does.

    Attributes:
        verb: "return", "fail" or "passthru".
        text: what it returns or fails with.
    """

    verb: str
    text: str = ""

    def __call__(self, value: Value) -> Value:
        """What comes out when `value` goes in."""
        return value if self.verb == "passthru" else Value(self.text, failed=self.verb == "fail")


@dataclass(frozen=True)
class Pair:
    """A callback and an errback, added together."""

    callback: Action
    errback: Action


@dataclass(frozen=True)
class Step:
    """One pair's part in a firing: which of its two boxes fired, what went in and what came out."""

    side: Side
    entered: Value
    left: Value


def fire(pairs: Iterable[Pair], failed: bool) -> list[Step]:
    """Fire a chain with "initial", and tell what each pair does.

    Args:
        pairs: the chain.
        failed: whether it is fired with an exception.
    """
    steps = []
    value = Value("initial", failed)
    for pair in pairs:
        side: Side = "errback" if value.failed else "callback"
        action = pair.errback if value.failed else pair.callback
        step = Step(side, value, action(value))
        steps.append(step)
        value = step.left
    return steps


# -- reading -------------------------------------------------------------------------------------------------


def parse(line: str) -> Pair:
    """The pair that a line such as "return good fail bad" or "r good f bad" describes.

    Raises:
        ValueError: if it does not describe one; the message tells why.
    """
    words = iter(line.split())
    pair = Pair(_action(words, "callback"), _action(words, "errback"))
    if (surplus := next(words, None)) is not None:
        raise ValueError(f"{surplus!r} is too much: there is one callback and one errback")
    return pair


def _action(words: Iterator[str], side: Side) -> Action:
    if (word := next(words, None)) is None:
        raise ValueError(f"the {side} is missing")
    verb = next((verb for verb in VERBS if verb.startswith(word)), None)
    if verb is None:
        raise ValueError(f"the {side} {word!r} is neither return nor fail nor passthru")
    if verb == "passthru":
        return Action(verb)
    if (value := next(words, None)) is None:
        raise ValueError(f"the {side} has nothing to {verb}: a value is missing")
    return Action(verb, _checked(value))


def _checked(value: str) -> str:
    if not (value.isascii() and value.isalnum()):
        raise ValueError(f"the value {value!r} is not made of letters and digits")
    if len(value) > LONGEST:
        raise ValueError(f"the value {value!r} has more than {LONGEST} characters")
    return value


def _ask() -> list[Pair]:
    """Read pairs from a terminal; the picture alone goes to standard output."""
    sys.stderr.write(f"{INSTRUCTION}\n")
    pairs: list[Pair] = []
    while True:
        sys.stderr.write(f"{len(pairs) + 1}> ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line.strip():
            sys.stderr.write("\n" * (not line))  # the line that Control-D did not end
            return pairs
        try:
            pairs.append(parse(line))
        except ValueError as error:
            sys.stderr.write(f"line {len(pairs) + 1}: {error}; once more, please\n")


def _read() -> list[Pair] | None:
    """Read pairs from a pipe or file; None, and messages, if there are bad lines among them."""
    pairs = []
    bad = False
    for number, line in enumerate(sys.stdin, 1):
        line = line.removeprefix("\ufeff")  # noqa: PLW2901  # as some editors begin a file
        if not line.strip():
            break
        try:
            pairs.append(parse(line))
        except ValueError as error:
            bad = True
            sys.stderr.write(f"line {number}: {error}\n")
    return None if bad else pairs


# -- drawing -------------------------------------------------------------------------------------------------

BOX_WIDTH = 10  # so that "passthru" just fits, and three pictures into 80 columns
BOX_HEIGHT = 4
GAP = 3  # rows between two boxes: the line, the value on it, the head of the arrow
FIRST = 5  # the row of the first box, below the title and the first value
MIDDLE: dict[Side, float] = {"callback": 4.5, "errback": 17.5}
CENTRE = 11
PICTURE_WIDTH = 27  # with the space to the next one


def draw(pairs: Sequence[Pair], *, narrow: bool = False) -> Diagram:
    """Draw the chain, and how it fires with a result and with an exception.

    Args:
        pairs: the chain.
        narrow: put the three pictures one under the other, not side by side.
    """
    diagram = Diagram()
    chain = _chain_picture(pairs, 3, 0) if narrow else _chain_picture(pairs, FIRST, GAP)
    for number, picture in enumerate([chain, *(_firing_picture(pairs, failed) for failed in (False, True))]):
        if narrow:
            diagram.place(picture, 0, diagram.height + 2 * (number > 0))
        else:
            diagram.place(picture, number * PICTURE_WIDTH, 0)
    return diagram


def _chain_picture(pairs: Sequence[Pair], first: int, gap: int) -> Diagram:
    """All boxes, from row `first` on, with `gap` rows between them."""
    picture = Diagram()
    picture.label(CENTRE, 0, "the chain", bold=True)
    for side, x in MIDDLE.items():
        picture.label(x, first - 1, f"{side}s")
    if not pairs:
        picture.label(CENTRE, first, "(empty)")
    for number, pair in enumerate(pairs):
        y = first + number * (BOX_HEIGHT + gap)
        _add_box(picture, "callback", y, pair.callback, COLOURS[pair.callback.verb])
        _add_box(picture, "errback", y, pair.errback, COLOURS[pair.errback.verb])
    return picture


def _firing_picture(pairs: Sequence[Pair], failed: bool) -> Diagram:
    """The boxes that fire, below each other, and the way between them with the values on it."""
    picture = Diagram()
    steps = fire(pairs, failed)
    value = Value("initial", failed)
    start = MIDDLE[_side_for(value)]
    picture.label(CENTRE, 0, f"{_side_for(value)}({value})", bold=True)
    picture.label(start, 2, str(value), colour=_colour(value))
    picture.line((start, 3), (start, 4), arrow=True, colour=_colour(value))
    y = FIRST
    for step, pair in zip(steps, pairs, strict=True):
        value = step.left
        action = pair.callback if step.side == "callback" else pair.errback
        last = step is steps[-1]
        _add_way(picture, y + BOX_HEIGHT - 1, step, labelled=not last)
        _add_box(picture, step.side, y, action, _colour(value))
        y += BOX_HEIGHT + GAP
    picture.label(MIDDLE[_side_for(value)], y, str(value), colour=_colour(value))
    return picture


COLOURS = {"return": Colour.GREEN, "fail": Colour.RED, "passthru": Colour.PLAIN}


def _colour(value: Value) -> Colour:
    return Colour.RED if value.failed else Colour.GREEN


def _side_for(value: Value) -> Side:
    """Where a value enters a pair."""
    return "errback" if value.failed else "callback"


def _add_box(picture: Diagram, side: Side, y: int, action: Action, colour: Colour) -> None:
    x = MIDDLE[side] - (BOX_WIDTH - 1) / 2
    lines = [action.verb, action.text] if action.text else [action.verb]
    picture.box(x, y, BOX_WIDTH, BOX_HEIGHT, *lines, colour=colour)


def _add_way(picture: Diagram, y: int, step: Step, *, labelled: bool) -> None:
    """Lead from the lower border of a box, in row `y`, to the next box, with the value half-way."""
    start, end = MIDDLE[step.side], MIDDLE[_side_for(step.left)]
    turn = y + 2
    corners = [] if start == end else [(start, turn), (end, turn)]
    picture.line((start, y), *corners, (end, y + GAP), arrow=True, colour=_colour(step.left))
    if labelled:
        picture.label((start + end) / 2, turn, f" {step.left} ", colour=_colour(step.left))


# -- the command ---------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None, prog: str = "python -m futurechain simulate") -> int:
    """Run the simulator; the exit status: 0, 1 if the picture could not be written, 2 for bad input."""
    options = _parser(prog).parse_args(argv)
    if sys.stdin is None or sys.stdout is None:
        closed = "input" if sys.stdin is None else "output"
        if sys.stderr is not None:
            sys.stderr.write(f"simulate: standard {closed} is closed\n")
        return 2
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="backslashreplace")  # a byte that is no text is a bad value, not a crash
    try:
        pairs = _ask() if sys.stdin.isatty() else _read()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130
    if pairs is None:
        return 2
    diagram = draw(pairs, narrow=options.narrow)
    sys.stdout.write(_text(diagram, unicode=options.unicode) + "\n")
    return 0 if options.svg is None else _save(diagram, options.svg)


def _text(diagram: Diagram, *, unicode: bool) -> str:
    """The diagram in characters; in ASCII ones all the same where standard output has no others."""
    text = diagram.text(unicode=unicode)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        sys.stderr.write(f"drawn in ASCII, as {sys.stdout.encoding} has no box characters\n")
        return diagram.text()
    return text


def _save(diagram: Diagram, path: Path) -> int:
    try:
        path.write_text(diagram.svg("What a chain of callbacks and errbacks does"), "utf-8")
    except OSError as error:
        sys.stderr.write(f"cannot write {path}: {error.strerror}\n")
        return 1
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Draw what a chain of callbacks and errbacks does. Reads pairs from standard input.",
        epilog=INSTRUCTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--narrow", action="store_true", help="put the three pictures one under the other")
    parser.add_argument("--unicode", action="store_true", help="draw with box characters instead of ASCII")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="write the picture to FILE as SVG, too")
    return parser
