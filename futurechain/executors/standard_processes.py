"""The process pool on the standard machinery."""

from __future__ import annotations

import concurrent.futures.process as standard
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from futurechain.core.attaching import MISSING
from futurechain.executors.mapping import Mapping
from futurechain.executors.wrapped import ProcessScheduler
from futurechain.future import Future

__all__ = ["ProcessPoolExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class _Scheduler(ProcessScheduler):
    __slots__ = ()

    def foreign(self, executor: Any) -> Any:
        return executor

    def end(self, foreign: Any) -> None:
        standard.ProcessPoolExecutor.shutdown(foreign, wait=True, cancel_futures=self._cancels)


class ProcessPoolExecutor(Mapping, standard.ProcessPoolExecutor):
    """A drop-in ``concurrent.futures.ProcessPoolExecutor`` whose futures chain.

    Takes what the standard one takes. Promise-family functions for values run in a worker process, so they, their
    arguments and their results must pickle (a module-level function does); ``on=INLINE`` runs a stage here instead.
    Error handlers, cleanups and Twisted-family callbacks run in this process, on a callback thread. Leaving the
    ``with`` block waits for whole chains.
    """

    _maps_in_chunks = True

    def __init__(self, *args: Any, cancel_on_error: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cancel_on_error = cancel_on_error
        self._scheduler = _Scheduler(self, self)

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` in a worker process; return its future.

        Raises:
            TypeError: if `fn` is missing or not callable.
            RuntimeError: after the shutdown.
            BrokenProcessPool: if a worker was killed.
        """
        return cast("Future[T]", self._scheduler.submit((fn, args, kwargs)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new outside work, and let what was begun end: whole chains.

        Args:
            wait: block until then (not on a callback thread of this pool, which would wait for itself).
            cancel_futures: cancel what has not begun, stages included.
        """
        self._scheduler.shut_down(self, wait=wait, cancel_futures=cancel_futures)

    def __repr__(self) -> str:
        state = "shut down" if self._scheduler.closing else "open"
        return f"<{type(self).__name__} {self._scheduler.name} {state}, {len(self._processes or ())} processes>"
