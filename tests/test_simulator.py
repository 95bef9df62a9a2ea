"""The Deferred simulator: the rules of callbacks and errbacks, the pictures, and the command."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from contextlib import suppress
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

import futurechain
from futurechain.demo.simulator import Action, Pair, Step, Value, draw, fire, main, parse

EXAMPLE = "r good f bad\nf googly p\np r fixed\n"

PICTURE = """\
       the chain              callback(initial)          errback(initial*)

                             initial                                initial*
                                |                                       |
 callbacks    errbacks          v                                       v
+--------+   +--------+    +--------+                              +--------+
| return |   |  fail  |    | return |                              |  fail  |
|  good  |   |   bad  |    |  good  |                              |   bad  |
+--------+   +--------+    +----+---+                              +----+---+
                                |                                       |
                              good                                    bad*
                                v                                       v
+--------+   +--------+    +--------+                              +--------+
|  fail  |   |passthru|    |  fail  |                              |passthru|
| googly |   |        |    | googly |                              |        |
+--------+   +--------+    +----+---+                              +----+---+
                                |                                       |
                                +- googly* --+                        bad*
                                             v                          v
+--------+   +--------+                 +--------+                 +--------+
|passthru|   | return |                 | return |                 | return |
|        |   |  fixed |                 |  fixed |                 |  fixed |
+--------+   +--------+                 +----+---+                 +----+---+
                                             |                          |
                                +------------+             +------------+
                                v                          v
                              fixed                      fixed
"""

NARROW = """\
       the chain

 callbacks    errbacks
┌────────┐   ┌────────┐
│passthru│   │  fail  │
│        │   │    x   │
└────────┘   └────────┘
┌────────┐   ┌────────┐
│  fail  │   │ return │
│    y   │   │    z   │
└────────┘   └────────┘


   callback(initial)

  initial
     │
     ▼
┌────────┐
│passthru│
│        │
└────┬───┘
     │
  initial
     ▼
┌────────┐
│  fail  │
│    y   │
└────┬───┘
     │
     └────────────┐
                  ▼
                 y*


   errback(initial*)

              initial*
                  │
                  ▼
             ┌────────┐
             │  fail  │
             │    x   │
             └────┬───┘
                  │
                 x*
                  ▼
             ┌────────┐
             │ return │
             │    z   │
             └────┬───┘
                  │
     ┌────────────┘
     ▼
     z
"""

EMPTY = """\
       the chain              callback(initial)          errback(initial*)

                             initial                                initial*
                                |                                       |
 callbacks    errbacks          v                                       v
        (empty)              initial                                initial*
"""

RETURN, FAIL, PASSTHRU = Action("return", "a"), Action("fail", "b"), Action("passthru")
RESULT, ERROR = Value("initial"), Value("initial", failed=True)

values = st.text("abcXYZ0189", min_size=1, max_size=6)
actions = st.one_of(
    st.builds(Action, st.just("return"), values),
    st.builds(Action, st.just("fail"), values),
    st.just(PASSTHRU),
)
chains = st.lists(st.builds(Pair, actions, actions), max_size=8)


def run(text, *arguments, env=None):
    return subprocess.run(
        [sys.executable, "-m", "futurechain", "simulate", *arguments],
        input=text,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env=env,
    )


@pytest.fixture
def simulate(monkeypatch, capsys):
    """Run the command in this process: its status, what it printed, and what it complained of."""

    def simulate(text, *arguments):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        status = main(arguments)
        return status, *capsys.readouterr()

    return simulate


# -- the rules -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "failed", "side", "left"),
    [
        (Pair(RETURN, FAIL), False, "callback", Value("a")),
        (Pair(RETURN, FAIL), True, "errback", Value("b", failed=True)),
        (Pair(FAIL, RETURN), False, "callback", Value("b", failed=True)),
        (Pair(FAIL, RETURN), True, "errback", Value("a")),
        (Pair(PASSTHRU, FAIL), False, "callback", RESULT),
        (Pair(RETURN, PASSTHRU), True, "errback", ERROR),
    ],
)
def test_one_pair(pair, failed, side, left):
    """A result enters the callback, an exception the errback; either may return, fail or pass it on."""
    assert fire([pair], failed) == [Step(side, ERROR if failed else RESULT, left)]


def test_no_pairs():
    """In an empty chain nothing fires."""
    assert fire([], failed=False) == fire([], failed=True) == []


@given(chains, st.booleans())
def test_steps_hang_together(pairs, failed):
    """Each pair fires one box: the callback if the step before it left a result, else the errback."""
    steps = fire(pairs, failed)

    assert len(steps) == len(pairs)
    way = [ERROR if failed else RESULT, *(step.left for step in steps)]
    assert [step.entered for step in steps] == way[:-1]
    assert all((step.side == "errback") == step.entered.failed for step in steps)


class Boom(Exception):
    """Raised by what fails; equal ones are told apart by their text."""


def handler(side, action, steps):
    """A callback or errback that does what `action` says, and records it in `steps`."""

    def handle(argument):
        came = argument.value if side == "errback" else argument
        entered = Value(str(came), failed=side == "errback")
        if action.verb == "passthru":
            steps.append(Step(side, entered, entered))
            return argument
        steps.append(Step(side, entered, Value(action.text, failed=action.verb == "fail")))
        if action.verb == "fail":
            raise Boom(action.text)
        return action.text

    return handle


def attach(future, pairs, steps):
    for pair in pairs:
        future.addCallbacks(
            handler("callback", pair.callback, steps), handler("errback", pair.errback, steps)
        )


def settle(future, failed):
    if failed:
        future.set_exception(Boom("initial"))
    else:
        future.set_result("initial")


def outcome(future):
    error = future.exception(timeout=0)
    return Value(future.result(timeout=0)) if error is None else Value(str(error), failed=True)


@given(pairs=chains, failed=st.booleans(), late=st.integers(0, 8))
def test_futures_follow_the_rules(pairs, failed, late):
    """Real futures fire the same boxes with the same values, whether pairs are added before or after."""
    steps = []
    future = futurechain.Future()
    attach(future, pairs[:late], steps)
    settle(future, failed)
    attach(future, pairs[late:], steps)

    assert steps == fire(pairs, failed)
    assert outcome(future.final) == (steps[-1].left if steps else ERROR if failed else RESULT)


# -- reading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("return a fail b", Pair(RETURN, FAIL)),
        ("r a f b", Pair(RETURN, FAIL)),
        ("  fa b\tret a \n", Pair(FAIL, RETURN)),
        ("passthru passthru", Pair(PASSTHRU, PASSTHRU)),
        ("p pass", Pair(PASSTHRU, PASSTHRU)),
        ("p r a", Pair(PASSTHRU, RETURN)),
        ("r return f fail", Pair(Action("return", "return"), Action("fail", "fail"))),
        ("r 123abc f Googly", Pair(Action("return", "123abc"), Action("fail", "Googly"))),
    ],
)
def test_good_lines(line, pair):
    """A callback and an errback, each word of which may be cut down to its first letter."""
    assert parse(line) == pair


BAD_LINES = [
    ("", "the callback is missing"),
    ("r good", "the errback is missing"),
    ("explode f bad", "the callback 'explode' is neither return nor fail nor passthru"),
    ("r good returned x", "the errback 'returned' is neither return nor fail nor passthru"),
    ("R good p", "the callback 'R' is neither return nor fail nor passthru"),
    ("r", "the callback has nothing to return: a value is missing"),
    ("p f", "the errback has nothing to fail: a value is missing"),
    ("r googlies p", "the value 'googlies' has more than 6 characters"),
    ("p f no-no", "the value 'no-no' is not made of letters and digits"),
    ("p f naïve", "the value 'naïve' is not made of letters and digits"),
    ("p p p", "'p' is too much: there is one callback and one errback"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_bad_lines(line, message):
    """A line that is no pair is a ValueError that tells what is wrong."""
    with pytest.raises(ValueError) as error:
        parse(line)

    assert str(error.value) == message


@given(st.text())
def test_any_line(line):
    """Whatever a line holds, it is a pair or a ValueError."""
    with suppress(ValueError):
        assert isinstance(parse(line), Pair)


@given(chains, st.integers(1, 8))
def test_what_is_written_is_read(pairs, length):
    """A chain written out, with its verbs abbreviated or not, is the same chain again."""
    for pair in pairs:
        words = (f"{action.verb[:length]} {action.text}" for action in (pair.callback, pair.errback))
        assert parse(" ".join(words)) == pair


# -- the pictures --------------------------------------------------------------------------------------------


def test_side_by_side():
    """The chain, and beside it both ways to fire it, row by row."""
    assert draw([parse(line) for line in EXAMPLE.splitlines()]).text() + "\n" == PICTURE


def test_narrow_and_unicode():
    """The same one under the other, with box characters."""
    assert draw([parse("p f x"), parse("f y r z")], narrow=True).text(unicode=True) + "\n" == NARROW


def test_empty_picture():
    """An empty chain leaves as result or exception what it was fired with."""
    assert draw([]).text() + "\n" == EMPTY


@given(chains)
def test_pictures_fit(pairs):
    """Side by side the pictures fit into 80 columns, one under the other into 24."""
    assert draw(pairs).width <= 80
    assert draw(pairs, narrow=True).width <= 24


@given(chains, st.booleans())
def test_both_character_sets_draw_the_same(pairs, narrow):
    """In ASCII and in box characters the same cells are filled, and lines have no spaces at their ends."""
    diagram = draw(pairs, narrow=narrow)
    plain, pretty = diagram.text(), diagram.text(unicode=True)

    assert plain.isascii()
    assert [[cell == " " for cell in row] for row in plain.splitlines()] == [
        [cell == " " for cell in row] for row in pretty.splitlines()
    ]
    assert all(row == row.rstrip() for row in plain.splitlines())


@given(chains)
def test_values_on_the_way(pairs):
    """The picture shows, from top to bottom, the value that enters the chain and what each box leaves."""
    rows = draw(pairs).text().splitlines()
    for failed, columns in ((False, slice(27, 54)), (True, slice(54, None))):
        way = [ERROR if failed else RESULT, *(step.left for step in fire(pairs, failed))]
        between = [rows[2], *rows[10 : 7 * len(pairs) : 7], *(rows[-1:] if pairs else [])]

        assert [row[columns].strip("+- |") for row in between] == [str(value) for value in way]


@given(chains, st.booleans())
def test_svg_says_the_same(pairs, narrow):
    """The SVG is valid XML, with each box and each value on the way, green and red."""
    root = ET.fromstring(draw(pairs, narrow=narrow).svg("title"))
    texts = [(text.text, text.get("fill")) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    boxes = [box for box in root.iter("{http://www.w3.org/2000/svg}rect") if box.get("stroke")]

    assert len(boxes) == 4 * len(pairs)
    for failed in (False, True):
        for value in [ERROR if failed else RESULT, *(step.left for step in fire(pairs, failed))]:
            assert (str(value), "#a40e26" if value.failed else "#116329") in texts


# -- the command ---------------------------------------------------------------------------------------------


def test_from_a_pipe():
    """`python -m futurechain simulate` reads pairs and prints the picture, and nothing else."""
    result = run(EXAMPLE)

    assert (result.returncode, result.stdout, result.stderr) == (0, PICTURE, "")


def test_a_blank_line_ends_the_input(simulate):
    """What comes after a blank line is not read."""
    assert simulate(EXAMPLE + " \nno pair\n") == (0, PICTURE, "")


def test_the_last_line_may_lack_its_end(simulate):
    """A last line without newline counts."""
    assert simulate(EXAMPLE.rstrip("\n")) == (0, PICTURE, "")


def test_empty_input(simulate):
    """No input draws the empty chain."""
    assert simulate("") == (0, EMPTY, "")


def test_options(simulate):
    """--narrow and --unicode work together."""
    assert simulate("p f x\nf y r z", "--narrow", "--unicode") == (0, NARROW, "")


def test_unicode_from_a_pipe():
    """--unicode prints box characters where standard output has them."""
    result = run(EXAMPLE, "--unicode", env=os.environ | {"PYTHONIOENCODING": "utf-8"})

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == draw([parse(line) for line in EXAMPLE.splitlines()]).text(unicode=True) + "\n"


def test_unicode_where_there_is_none(monkeypatch, capsys):
    """--unicode for an output without box characters draws in ASCII, and says so."""
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(EXAMPLE))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii", write_through=True))

    assert main(["--unicode"]) == 0
    assert out.getvalue().decode() == PICTURE
    assert capsys.readouterr().err == "drawn in ASCII, as ascii has no box characters\n"


def test_svg_file(tmp_path):
    """--svg FILE writes the picture to FILE and prints it as well."""
    path = tmp_path / "chain.svg"
    result = run(EXAMPLE, "--svg", str(path))

    assert (result.returncode, result.stdout, result.stderr) == (0, PICTURE, "")
    assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_svg_follows_narrow(simulate, tmp_path):
    """With --narrow the SVG is narrow as well."""
    simulate(EXAMPLE, "--svg", str(tmp_path / "wide.svg"))
    simulate(EXAMPLE, "--narrow", "--svg", str(tmp_path / "narrow.svg"))
    wide, narrow = (
        float(ET.parse(tmp_path / name).getroot().get("width")) for name in ("wide.svg", "narrow.svg")
    )

    assert narrow < wide / 2


def test_svg_that_cannot_be_written(simulate, tmp_path):
    """The file and the reason are named, the text is printed all the same, the status is 1."""
    path = tmp_path / "missing" / "chain.svg"

    message = f"cannot write {path}: No such file or directory\n"

    assert simulate(EXAMPLE, "--svg", str(path)) == (1, PICTURE, message)


def test_bad_lines_from_a_pipe():
    """Every bad line is named with its number and what is wrong; no picture; status 2."""
    result = run("r good f bad\nr good\np p\nexplode p\n")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "line 2: the errback is missing",
        "line 4: the callback 'explode' is neither return nor fail nor passthru",
    ]


@pytest.mark.parametrize(("line", "message"), BAD_LINES[1:])
def test_each_bad_line(line, message, simulate):
    """What `parse` says of a line is what the command says of it, after the number."""
    assert simulate(f"p p\n{line}\np p") == (2, "", f"line 2: {message}\n")


def test_bytes_that_are_no_text(monkeypatch, capsys):
    """Input that cannot be decoded is a bad value like others."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"r \xff p\n"), "utf-8"))

    assert main([]) == 2
    assert capsys.readouterr().err == "line 1: the value '\\\\xff' is not made of letters and digits\n"


def test_unknown_option(capsys):
    """It is named; the status is 2."""
    with pytest.raises(SystemExit) as error:
        main(["--wide"])

    assert error.value.code == 2
    assert "--wide" in capsys.readouterr().err


def on_terminal(typed):
    """Type into the command on a terminal: its status, what it prints, and what the terminal shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "futurechain", "simulate"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        encoding="utf-8",
    )
    os.close(theirs)
    os.write(ours, typed)
    out, _ = process.communicate(timeout=60)
    shown = b""
    with suppress(OSError):  # how Linux tells that the other side is closed
        while block := os.read(ours, 10_000):
            shown += block
    os.close(ours)
    return process.returncode, out, shown.decode().replace("\r\n", "\n")


def test_on_a_terminal():
    """A short instruction and a prompt for each pair; a blank line ends; the picture alone is output."""
    status, out, shown = on_terminal(EXAMPLE.encode() + b"\n")

    assert (status, out) == (0, PICTURE)
    assert "CALLBACK ERRBACK" in shown
    assert all(f"{number}> " in shown for number in (1, 2, 3, 4))


def test_bad_lines_on_a_terminal():
    """They are named with their number and asked again."""
    status, out, shown = on_terminal(b"r good f bad\nf\nf googly\nf googly p\np r fixed\n\n")

    assert (status, out) == (0, PICTURE)
    assert "line 2: the callback has nothing to fail: a value is missing; once more, please\n2> " in shown
    assert "line 2: the errback is missing; once more, please\n2> " in shown


def test_end_of_input_on_a_terminal():
    """Control-D ends the list as a blank line does, and the line it was typed on as well."""
    status, out, shown = on_terminal(EXAMPLE.encode() + b"\x04")

    assert (status, out) == (0, PICTURE)
    assert shown.endswith("4> \n")


def test_control_c(monkeypatch, capsys):
    """Control-C leaves without a picture and without a traceback; status 130."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

        def readline(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Terminal())

    assert main([]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("1> \n")


def test_asking_in_this_process(monkeypatch, capsys):
    """What a terminal shows is the instruction, the prompts and the complaints."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("r x\np p\n\n"))

    assert main([]) == 0
    assert capsys.readouterr().err.endswith("1> line 1: the errback is missing; once more, please\n1> 2> ")


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_closed_stream(name, monkeypatch, capsys):
    """It is named, and the exit status is that of bad input."""
    monkeypatch.setattr(sys, name, None)
    assert main([]) == 2
    assert "is closed" in capsys.readouterr().err


@pytest.mark.slow
def test_ten_times_the_lines_take_ten_times_the_time():
    """The picture is linear in its pairs; of several runs the quickest counts."""

    def cost(count):
        pairs = [parse("r good f bad" if number % 3 else "p r x") for number in range(count)]
        begun = time.process_time()
        draw(pairs).text()
        return time.process_time() - begun

    assert min(cost(10_000) for _ in range(3)) < 20 * min(cost(1000) for _ in range(5))
