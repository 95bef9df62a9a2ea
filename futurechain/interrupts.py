"""Ctrl-C, put off while something is done that must not be left half done.

A signal handler of Python's runs in the main thread, between any two instructions. Blocking the signal there does not
keep it away: the system gives it to another thread then, and Python runs the handler in the main thread all the same.
So the handler is what has to wait.

What must not be interrupted is the start of a thread, which waits for the thread on a lock of its own, and the fork of
a process, whose hooks hold locks: the one of `logging` for example.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["let_through", "put_off"]

_waiting: list[Callable[..., object]] = []
"""The handlers that are put off; a child that is forked meanwhile has them back at once."""


@contextmanager
def put_off() -> Iterator[None]:
    """Have the handler of Ctrl-C wait until the end of the block, if this is the main thread."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[Any] = []
    if not _install(lambda *args: came.append(args)):
        yield
        return
    _waiting.append(handler)
    try:
        yield
    finally:
        let_through()
        if came:
            handler(*came[0])


def let_through() -> None:
    """Install the handler again that was put off, if one was: in a forked child, too."""
    if _waiting:
        _install(_waiting.pop())


def _install(handler: Callable[..., object]) -> bool:
    try:
        signal.signal(signal.SIGINT, handler)
    except ValueError:  # in another interpreter than the main one, which hears of no signals
        return False
    return True
