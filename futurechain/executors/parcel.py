"""A call on its way to a standard pool: until its turn comes it is ours, to be taken back.

In a process pool its turn comes when it is pickled; nothing of it is before.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from time import perf_counter
from typing import Any

from futurechain.core.handlers import label
from futurechain.core.observers import watch
from futurechain.core.scheduler import Call
from futurechain.core.state import begin, give_back
from futurechain.executors.pool import fail
from futurechain.executors.travel import cannot_come_back
from futurechain.failure import Failure

__all__ = ["Parcel", "Timed", "Turn", "Withdrawn", "call_there", "time_there"]


class Withdrawn:
    """What comes back for a call that was withdrawn: no outcome, but the class itself."""


BEGUN, STOPPED = "begun", "stopped"


class Turn:
    """One call of a stage, until somebody is about to make it, or it is taken back: who says so first decides."""

    __slots__ = ("_call", "_errors", "_fate", "_owned", "_stage")

    def __init__(self, stage: Any, call: Call) -> None:
        self._stage: Any = stage
        self._call: Call | None = call
        self._fate: dict[None, str] = {}
        self._owned: list[None] = []
        """Whether the stage belongs to who makes the call: then there is one here for whoever settles it."""
        self._errors: list[BaseException] = []
        """Why nobody will hear how the call ends."""

    def has_begun(self) -> bool:
        """Tell whether somebody is about to make the call, or has made it."""
        return self._fate.get(None) is BEGUN

    def begin(self) -> Call | None:
        """Return the call to who is about to make it, and take the stage; None if it is not wanted any more."""
        if self._fate.setdefault(None, BEGUN) is not BEGUN:  # decides, against `stop`
            return None
        stage, call = self._stage, self._call
        self._stage = self._call = None
        if not begin(stage):  # it was cancelled by who had looked before there was anything to be stopped
            return None
        self._owned.append(None)
        if self._errors and self.give_back(stage):
            fail(stage, self._errors[0], call)
            return None
        return call

    def stop(self) -> bool:
        """Take the call back; False if it has begun. Asked again, it says the same."""
        if self._fate.setdefault(None, STOPPED) is not STOPPED:
            return False
        self._stage = self._call = None
        return True

    def takes(self) -> bool:
        """Take the stage over from who has made the call; True for one caller, and only if it has begun."""
        try:
            self._owned.pop()
        except IndexError:
            return False
        return True

    def give_back(self, stage: Any) -> bool:
        """Let anybody claim the stage again; False if who has made the call did not own it, or not any more."""
        if not self.takes():
            return False
        give_back(stage)
        return True

    def has_failed(self, error: BaseException) -> None:
        """Take note that nobody will hear how the call ends: the caller settles its stage, or whoever begins the call.

        Who begins it owns the stage **first** and looks for errors **then**.
        """
        self._errors.append(error)

    def give_up(self, stage: Any, error: BaseException) -> None:
        """Do so, and let anybody settle `stage`."""
        self.has_failed(error)
        self.give_back(stage)


class Parcel:
    """A call for a worker; one that is stopped before its turn arrives there as one that does nothing.

    The standard pool pickles a call when it is about to hand it over, on a thread of its own: that is its turn. So it
    can be taken back until then without a word to the pool.
    """

    __slots__ = ("_call", "_is_on_its_way", "_turn")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._is_on_its_way = False
        self._call: Call | None = None

    def __call__(self) -> Any:
        """Not here: what arrives in the worker is what `__reduce__` says."""
        raise NotImplementedError  # pragma: no cover

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._is_on_its_way:  # some pools try first whether it can be pickled
            self._is_on_its_way = True
            self._call = self._turn.begin()
        return _Delivery, (self._call, watch.on)


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
