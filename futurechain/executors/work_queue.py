"""What stands in ``executor._work_queue``, for libraries that drain it: the standard queue's face over a pool's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any

from futurechain.core.loop import execute
from futurechain.core.unobserved import rescue

__all__ = ["WorkItem", "WorkQueue"]


class WorkItem:
    """A task or stage that was taken out of its pool, which the pool neither runs nor waits for any more.

    It looks like the standard pool's items. Whoever took it out may `run` it, or settle its ``future``; if he drops it,
    that is cancelled, so that whatever depends on it is settled.
    """

    __slots__ = ("args", "fn", "future", "kwargs")

    def __init__(self, future: Any, call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> None:
        self.future: Any = future
        self.fn: Callable[..., Any]
        self.args: tuple[Any, ...]
        self.kwargs: dict[str, Any]
        self.fn, self.args, self.kwargs = call

    @property
    def task(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """The call, as the standard pool's items have it from Python 3.14 on."""
        return self.fn, self.args, self.kwargs

    def run(self) -> None:
        """Make the call here, and settle the future."""
        execute(self.future, self.task, self.future._context)

    def __del__(self) -> None:
        future = self.future
        if not future.done():
            rescue(partial(_drop, future))


def _drop(future: Any) -> None:
    with suppress(Exception):
        future.cancel()


class WorkQueue:
    """The queue of a pool, as the standard library's queues look."""

    __slots__ = ("_pool",)

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def qsize(self) -> int:
        """Return how many tasks and stages are queued."""
        return len(self._pool.begun) + len(self._pool.fresh)

    def empty(self) -> bool:
        """Tell whether nothing is queued."""
        return not self.qsize()

    def get_nowait(self) -> WorkItem:
        """Take the next one out of the pool.

        Raises:
            queue.Empty: if there is none.
        """
        while True:
            stage = self._pool.take()
            if stage is None:
                raise Empty
            call = stage._call
            if call is not None and not stage.done():
                self._pool.unregister(stage)
                return WorkItem(stage, call)

    def get(self, block: bool = True, timeout: float | None = None) -> WorkItem:
        """Take the next one out; never blocks, since the workers do the waiting.

        Raises:
            queue.Empty: if there is none.
        """
        return self.get_nowait()
