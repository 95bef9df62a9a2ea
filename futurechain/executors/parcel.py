"""A call on its way to a standard process pool: pickled when its turn comes, and nothing of it before."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from time import perf_counter
from typing import Any

from futurechain.core.handlers import label
from futurechain.core.observers import watch
from futurechain.core.scheduler import Call
from futurechain.executors.travel import cannot_come_back
from futurechain.failure import Failure

__all__ = ["Parcel", "Timed", "Withdrawn", "call_there", "time_there"]


class Withdrawn:
    """What comes back for a call that was withdrawn: no outcome, but the class itself."""


class Parcel:
    """A call for a worker; once it is `empty`, it arrives there as one that does nothing.

    The standard pool pickles a call when it is about to hand it over, on a thread of its own. So a call can be
    withdrawn until then without a word to the pool: one store decides.
    """

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call: Call | None = call

    def empty(self) -> None:
        """Let nothing of it travel."""
        self.call = None

    def __call__(self) -> Any:
        """Not here: what arrives in the worker is what `__reduce__` says."""
        raise NotImplementedError  # pragma: no cover

    def __reduce__(self) -> tuple[Any, ...]:
        return _Delivery, (self.call, watch.on)


class _Delivery:
    """A parcel in the worker."""

    __slots__ = ("_call", "_timed")

    def __init__(self, call: Call | None, timed: bool) -> None:
        self._call = call
        self._timed = timed

    def __call__(self) -> Any:
        if self._call is None:
            return Withdrawn
        fn, args, kwargs = self._call
        return (time_there if self._timed else call_there)(fn, *args, **kwargs)


def call_there(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call, in the worker; return a false exception as a `Failure`: the standard pool would lose it on its way back."""
    try:
        return fn(*args, **kwargs)
    except BaseException as error:
        _check_return_trip(error, fn)
        if _is_true(error):
            raise
        return Failure(error)


def _check_return_trip(error: BaseException, fn: Any) -> None:
    """Raise if `error` could not be built anew in the parent process: that would break the whole pool there."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    except Exception as reason:
        text = f"{type(error).__qualname__}: {Failure(error).getErrorMessage()}"
        raise cannot_come_back(label(fn), text, str(reason)) from error


class Timed:
    """What a worker sends back while somebody watches: the outcome, who ran it, and since when."""

    __slots__ = ("began", "outcome", "process")

    def __init__(self, began: float) -> None:
        self.outcome: Any = None
        self.process: int = os.getpid()
        self.began: float = began


def time_there(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Timed:
    """Call, in the worker, and note when: ``perf_counter`` is one clock for all processes of a machine."""
    timed = Timed(perf_counter())
    try:
        timed.outcome = fn(*args, **kwargs)
    except BaseException as error:
        _check_return_trip(error, fn)
        timed.outcome = Failure(error)
    return timed


def _is_true(error: BaseException) -> bool:
    try:
        return bool(error)
    except Exception:
        return False
