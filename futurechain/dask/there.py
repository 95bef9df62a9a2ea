"""What a worker of the cluster does for us: one call, whose outcome is one that Dask can pass on.

Dask ends a worker with a ``SystemExit``, and takes a false exception for none; such errors travel in an envelope. Who
ran the call, and since when, is told by an event, so that the value itself can stay where it is.
"""

from __future__ import annotations

import concurrent.futures as cf
import os
import time
from collections.abc import Callable
from inspect import iscoroutine
from typing import Any

import distributed
from distributed import worker_client

from futurechain.core.handlers import label
from futurechain.executors.parcel import call_there
from futurechain.failure import Failure

__all__ = ["TOPIC", "Call", "Envelope", "as_tuple"]

TOPIC = "futurechain"
"""Where workers tell what they ran while a trace is on."""


class Envelope(Exception):  # noqa: N818  # never seen by users
    """Carries an error that would not survive the way by itself."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure: Failure = failure


class Call:
    """A function on its way to a worker; its keyword arguments go beside it, for Dask to find its futures there."""

    __slots__ = ("_fn", "_timed")

    def __init__(self, fn: Callable[..., Any], timed: str = "") -> None:
        self._fn = fn
        self._timed = timed
        """The key under which to tell who ran it, and since when; or nothing."""

    def __repr__(self) -> str:
        return label(self._fn)

    def __reduce__(self) -> tuple[Any, ...]:
        return Call, (self._fn, self._timed)

    def __call__(self, kwargs: dict[str, Any], /, *args: Any) -> Any:
        began = time.time()
        try:
            return self._made(args, kwargs)
        finally:
            if self._timed:
                worker = distributed.get_worker()
                worker.log_event(TOPIC, (self._timed, f"{worker.name} at {worker.address}", os.getpid(), began))

    def _made(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            value = call_there(self._fn, *args, **kwargs)
            if isinstance(value, (distributed.Future, cf.Future)):
                value = call_there(_waited_for, value)
        except BaseException as error:
            if not isinstance(error, Exception) or isinstance(error, StopIteration):
                raise Envelope(Failure(error)) from None
            raise
        if type(value) is Failure:
            raise Envelope(value)
        if iscoroutine(value):
            value.close()
            name = label(self._fn)
            raise TypeError(f"{name} is an async function, which a cluster does not wait for: give it on=INLINE")
        return value


def _waited_for(inner: Any) -> Any:
    """Return the result of a task, or of a chain, that our task has begun; let go of the worker's thread meanwhile."""
    with worker_client(separate_thread=True):
        return inner.result()


def as_tuple(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the results of several tasks, as they have arrived on one worker."""
    return tuple(values)
