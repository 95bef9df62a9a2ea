"""Limits for tests that would hang if they failed: a process, or a thread, that is given up after a while."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
IS_THOROUGH = False
"""Whether everything is to be tried: ``--all`` was given."""


class Ended(NamedTuple):
    """How a process ended: its code (negative for a signal, None if it had to be killed), and what it has printed."""

    code: int | None
    out: str
    err: str
    left: bool
    """Whether processes that it has started were still there some seconds later."""


def run(
    command: Sequence[str], *, seconds: float = 30, after_start: Callable[[int], object] | None = None
) -> Ended:
    """Run Python with `command` in a process group of its own, for `seconds` at most.

    Args:
        command: the arguments of the interpreter.
        seconds: after these, everything in the group is killed.
        after_start: called with the group's number as soon as the program has printed its first byte.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    before = b""
    try:
        if after_start is not None:
            before = os.read(process.stdout.fileno(), 1)
            after_start(process.pid)
        out, err = process.communicate(timeout=seconds)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        code, (out, err) = None, _give_up(process)
    left = code is not None and not _group_is_gone(process.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return Ended(code, (before + out).decode(), err.decode(errors="replace"), left)


def _give_up(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Have a hung program show where it stands, then kill all of it."""
    process.send_signal(signal.SIGABRT)  # faulthandler prints the stacks
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()


def _group_is_gone(group: int, seconds: float = 5) -> bool:
    """Tell whether the processes of `group` end within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return True
        time.sleep(0.02)
    return False


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until somebody else, another thread or process, has done something: for so long at most."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.002)


def share(count: int) -> int:
    """A third of so many rounds, which finds a fault within some runs; all of them with ``--all``."""
    return count if IS_THOROUGH else count // 3


def check(program: str, *, prints: str = "", code: int = 0, seconds: float = 30) -> Ended:
    """Run the text of a program, and expect this of it."""
    ended = run(["-c", textwrap.dedent(program)], seconds=seconds)
    assert ended.code is not None, f"it hangs; printed {ended.out!r}\n{ended.err[-4000:]}"
    assert (ended.out.split(), ended.code) == (prints.split(), code), f"{ended.out}\n{ended.err[-4000:]}"
    return ended


def within(seconds: float, *, plainly: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test in a daemon thread; if it has not ended after `seconds`, it fails with the stacks of all threads.

    Args:
        seconds: for everything.
        plainly: fail with the text of the error alone, where the error itself is better left alone.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def limited(*args: Any, **kwargs: Any) -> None:
            errors: list[BaseException] = []
            thread = threading.Thread(target=_note_error, args=(errors, test, args, kwargs), daemon=True)
            thread.start()
            thread.join(seconds)
            if thread.is_alive():
                raise AssertionError(f"it hangs:\n{_stacks()}")
            if errors and plainly:
                text = "".join(traceback.format_tb(errors.pop().__traceback__)[-3:])
                raise AssertionError(text)
            if errors:
                raise errors.pop()

        return limited

    return decorate


def _note_error(errors: list[BaseException], test: Callable[..., None], args: Any, kwargs: Any) -> None:
    try:
        test(*args, **kwargs)
    except BaseException as error:
        errors.append(error)


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"-- {names.get(number)}\n{''.join(traceback.format_stack(frame)[-6:])}"
        for number, frame in sys._current_frames().items()
    )
