"""Ctrl-C, put off while something is done that must not be left half done.

A signal handler of Python's runs in the main thread, between any two instructions. Blocking the signal there does not
keep it away: the system gives it to another thread then, and Python runs the handler in the main thread all the same.
So the handler is what has to wait.

What must not be interrupted is the start of a thread, which waits for the thread on a lock of its own, and the fork of
a process, whose hooks hold locks: the one of `logging` for example.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["put_off"]

_waiting: list[Callable[..., object]] = []
"""The handlers that are put off, one in the other."""


@contextmanager
def put_off() -> Iterator[None]:
    """Have the handler of Ctrl-C wait until the end of the block, if this is the main thread."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[Any] = []
    _waiting.append(handler)
    _install(lambda *args: came.append(args))
    try:
        yield
    finally:
        _install(handler)
        _waiting.pop()
        if came:
            handler(*came[0])


def _install(handler: Callable[..., object]) -> None:
    with suppress(ValueError):  # in another interpreter than the main one, which hears of no signals
        signal.signal(signal.SIGINT, handler)


def _begin_anew() -> None:
    """Install the handler again that was put off, in a forked child, which is in no such block."""
    if _waiting:
        _install(_waiting[0])
        _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
