"""Progress bars of streams."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tqdm
import tqdm.auto

from futurechain import Pipeline
from steps import fail_on_threes, increment


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self):
        return True


class Bar:
    """A progress bar that notes what it is told."""

    made: list[Bar]

    def __init__(self, total=None):
        self.total, self.count, self.postfix, self.closed = total, 0, {}, 0
        Bar.made.append(self)

    def update(self, n):
        self.count += n

    def set_postfix(self, **shown):
        self.postfix.update(shown)

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def no_bars():
    Bar.made = []


def on_a_terminal(test):
    """Run a test with a terminal for its stderr; in a fixture, pytest's own capturing would overrule it."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        with contextlib.redirect_stderr(Terminal()):
            test(*args, **kwargs)

    return run


@on_a_terminal
def test_it_counts_finished_items(pool):
    """The bar counts finished items, and is closed at the end; it knows the total of an input with a length."""
    assert list(Pipeline().then(increment, on=pool).map(range(50), progress=Bar)) == list(range(1, 51))
    (bar,) = Bar.made
    assert (bar.total, bar.count, bar.closed) == (50, 50, 1)


@on_a_terminal
def test_it_shows_failures(pool):
    """Failures are shown beside the count."""
    list(Pipeline().then(fail_on_threes, on=pool).map(range(20), progress=Bar, return_exceptions=True))

    assert Bar.made[0].count == 20
    assert Bar.made[0].postfix == {"failed": 2}


@pytest.mark.parametrize(("items", "options", "total"), [(iter([1]), {}, None), (iter([1]), {"total": 9}, 9)])
@on_a_terminal
def test_the_total(items, options, total):
    """An input without a length has no total, but for ``total=``."""
    list(Pipeline().then(increment).map(items, progress=Bar, **options))

    assert Bar.made[0].total == total


@on_a_terminal
def test_it_is_made_when_the_stream_begins():
    """Nothing is shown before the first ``next``."""
    stream = Pipeline().then(increment).map([1], progress=Bar)
    assert Bar.made == []
    next(stream)
    assert len(Bar.made) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@on_a_terminal
def test_it_leaves_the_terminal_whole(error):
    """However the stream ends, by Ctrl-C or an error, the bar is closed."""

    def items():
        yield 1
        raise error

    with pytest.raises(error):
        list(Pipeline().then(increment).map(items(), progress=Bar))
    assert Bar.made[0].closed == 1


PROGRAM = """
import sys, time
from futurechain import Pipeline, ThreadPoolExecutor
import tqdm

def slow(number):
    time.sleep(0.01)
    return number

with ThreadPoolExecutor(2) as pool:
    try:
        for number in Pipeline().then(slow, on=pool).map(iter(int, 1), progress=tqdm.tqdm, total=10**9):
            pass
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def read_until(terminal, wanted, seen=b""):
    """Read what a program writes to its terminal until `wanted` comes, or the end."""
    while wanted not in seen:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    return seen


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no such terminals")
def test_ctrl_c_in_a_terminal():
    """Ctrl-C at a real terminal ends the stream and its bar: what comes next begins on a line of its own."""
    termios = pytest.importorskip("termios")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as program:
        seen = read_until(ours, b"it/s")
        program.send_signal(signal.SIGINT)
        seen = read_until(ours, b"interrupted", seen)
        assert program.wait(30) == 0
    after = termios.tcgetattr(theirs)
    os.close(theirs)
    os.close(ours)

    lines = seen.replace(b"\r\n", b"\n").split(b"\n")
    assert b"interrupted" in lines  # and not behind a bar
    assert b"Traceback" not in seen
    assert before == after


@pytest.mark.parametrize("failing", ["update", "set_postfix", "close"])
@on_a_terminal
def test_a_bar_that_fails(pool, failing):
    """An error of the bar goes to the consumer; the stream ends, its bar is closed, and nothing is left running."""

    class Broken(Bar):
        pass

    def fail(bar, *_, **__):
        Bar.close(bar)
        raise ZeroDivisionError

    setattr(Broken, failing, fail)
    stream = Pipeline().then(fail_on_threes, on=pool).map(range(100), progress=Broken, return_exceptions=True)
    with pytest.raises(ZeroDivisionError):
        list(stream)
    assert not stream._flow.running
    assert Bar.made[0].closed
    with pytest.raises((StopIteration, RuntimeError)):
        next(stream)


@on_a_terminal
def test_ctrl_c_while_the_bar_is_made():
    """Ctrl-C in the moment in which the bar first shows itself leaves what comes next a line of its own."""

    def make(total):
        sys.stderr.write("0it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(Pipeline().then(increment).map([1], progress=make))
    assert sys.stderr.getvalue() == "0it\n"


@on_a_terminal
def test_closing_the_stream_closes_it():
    """Closing the stream closes its bar, once."""
    with Pipeline().then(increment).map(itertools.count(), progress=Bar) as stream:
        next(stream)
    assert Bar.made[0].closed == 1


@pytest.mark.parametrize("stderr", [io.StringIO(), None])
def test_it_is_silent_without_a_terminal(stderr):
    """When stderr is no terminal, no bar is made."""
    with contextlib.redirect_stderr(stderr):
        assert list(Pipeline().then(increment).map([1], progress=Bar)) == [2]
    assert Bar.made == []


@pytest.mark.parametrize("progress", [tqdm.tqdm, tqdm.auto.tqdm, tqdm, True])
@on_a_terminal
def test_tqdm(progress):
    """``tqdm.tqdm``, ``tqdm.auto.tqdm``, the module itself and True all show tqdm's bar on stderr."""
    assert list(Pipeline().then(increment).map(range(7), progress=progress)) == list(range(1, 8))
    assert "7/7" in sys.stderr.getvalue()


def test_a_missing_extra(monkeypatch):
    """``progress=True`` without tqdm is an ImportError that names the extra."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"futurechain\[progress\]"):
        Pipeline().then(increment).map([1], progress=True)


def test_retry_without_tenacity(monkeypatch):
    """``retry=`` without tenacity is an ImportError that names the extra, at ``then``."""
    monkeypatch.setitem(sys.modules, "tenacity", None)
    with pytest.raises(ImportError, match=r"futurechain\[retry\]"):
        Pipeline().then(increment, retry=object())
