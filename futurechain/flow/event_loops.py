"""Awaiting our futures under whatever driver: ours, or asyncio's or trio's where such a loop runs.

Neither of these is imported here before the program itself has done so. An entry in the future wakes the loop; it is
taken back when the waiting task is cancelled, and then counts as a consumer no more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from futurechain.core.cancel import let_go
from futurechain.core.state import attach
from futurechain.flow.driver import asyncio_loop, is_driving, trio_task

__all__ = ["shielded", "suspend"]

Driver = Callable[[Any], Generator[Any, Any, Any]]


def suspend(future: Any) -> Generator[Any, Any, Any]:
    """Yield what the driver of the awaiting coroutine understands.

    Raises:
        RuntimeError: if the driver is none that is known, and sends something in although the future is pending.
    """
    driver = None if is_driving() else _foreign_driver()
    if driver is not None:
        yield from driver(future)
        return
    try:
        yield future
        if not future.done():
            raise RuntimeError(
                f"{future!r} is awaited by a coroutine that somebody drives who does not wait for it: run that with "
                "futurechain.ensure_future() or @futurechain.inlineCallbacks, under asyncio, or under trio"
            )
    finally:
        del future  # no cycle: a traceback may keep this frame


def shielded() -> AbstractContextManager[object]:
    """Return a context in which a task that was cancelled can still wait: under trio it is cancelled at each wait."""
    trio: Any = sys.modules.get("trio")
    if not is_driving() and _foreign_driver() is _wait_in_trio:
        return trio.CancelScope(shield=True)  # type: ignore[no-any-return]
    return nullcontext()


def _foreign_driver() -> Driver | None:
    """Return how to wait in this thread: for asyncio, for trio, or None where neither runs."""
    if asyncio_loop() is not None:
        return _wait_in_asyncio
    return None if trio_task() is None else _wait_in_trio


class _Wake:
    """An entry: calls a function when the future is settled."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def _is_waiting(self) -> bool:
        return True

    def _fire(self, future: Any, outcome: Any, thread: Any) -> None:
        """Wake the loop, if it still runs."""
        with suppress(RuntimeError):
            self._call()


def _leave(future: Any, entry: _Wake) -> None:
    """Stop waiting; cancel the future if nobody else consumes it."""
    let_go([future], entry)


def _wait_in_asyncio(future: Any) -> Generator[Any, Any, None]:
    import asyncio

    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    entry = _Wake(lambda: loop.call_soon_threadsafe(wake))
    if attach(future, entry):
        future._before_waiting()
        try:
            yield from waiter
        except BaseException:
            _leave(future, entry)
            raise
    if future.cancelled():
        raise asyncio.CancelledError


def _wait_in_trio(future: Any) -> Generator[Any, Any, None]:
    import trio

    task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()
    waiting = [True]

    def wake() -> None:
        if waiting:
            waiting.clear()
            trio.lowlevel.reschedule(task)

    def abort(_: object) -> trio.lowlevel.Abort:
        waiting.clear()
        _leave(future, entry)
        return trio.lowlevel.Abort.SUCCEEDED

    entry = _Wake(lambda: token.run_sync_soon(wake))
    if attach(future, entry):
        yield from trio.lowlevel.wait_task_rescheduled(abort).__await__()  # noqa: ASYNC105  # as await would
