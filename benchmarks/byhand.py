"""The usual `then` helper that people write over the standard library: correct for errors and cancellation."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


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
