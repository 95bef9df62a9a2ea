"""The usual helpers that people write over the standard library: correct for errors and cancellation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

__all__ = ["flat_then", "gather", "then", "then_on"]


def then(parent: Future[Any], fn: Callable[[Any], Any]) -> Future[Any]:
    """Return a future of ``fn(result of parent)``; errors and cancellation pass on."""
    child: Future[Any] = Future()

    def settle(done: Future[Any]) -> None:
        if done.cancelled():
            child.cancel()
            child.set_running_or_notify_cancel()
            return
        error = done.exception()
        if error is not None:
            child.set_exception(error)
            return
        try:
            value = fn(done.result())
        except BaseException as raised:
            child.set_exception(raised)
        else:
            child.set_result(value)

    parent.add_done_callback(settle)
    return child


def flat_then(parent: Future[Any], fn: Callable[[Any], Future[Any]]) -> Future[Any]:
    """Do the same for an `fn` that returns a future, and wait for that too."""
    child: Future[Any] = Future()

    def follow(done: Future[Any]) -> None:
        if done.cancelled():
            child.cancel()
            child.set_running_or_notify_cancel()
        elif (error := done.exception()) is not None:
            child.set_exception(error)
        else:
            done.result().add_done_callback(copy)

    def copy(inner: Future[Any]) -> None:
        if inner.cancelled():
            child.cancel()
            child.set_running_or_notify_cancel()
        elif (error := inner.exception()) is not None:
            child.set_exception(error)
        else:
            child.set_result(inner.result())

    then(parent, fn).add_done_callback(follow)
    return child


def then_on(pool: Executor, parent: Future[Any], fn: Callable[[Any], Any]) -> Future[Any]:
    """Return a future of ``fn(result of parent)``, run on the pool."""
    return flat_then(parent, lambda value: pool.submit(fn, value))


def gather(parts: Sequence[Future[Any]]) -> Future[list[Any]]:
    """Return a future of all results, in order; the first error fails it."""
    whole: Future[list[Any]] = Future()
    lock = threading.Lock()
    left = len(parts)

    def count(done: Future[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
            over = whole.done()
        if over:
            return
        if (error := done.exception()) is not None:
            whole.set_exception(error)
        elif last:
            whole.set_result([part.result() for part in parts])

    for part in parts:
        part.add_done_callback(count)
    return whole
