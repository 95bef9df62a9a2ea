"""Somebody else's futures: adopted, so that they can be chained."""

from __future__ import annotations

import concurrent.futures as cf
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from futurechain.core import callback_threads, unobserved
from futurechain.core.handlers import Named
from futurechain.core.loop import HERE, run_dependents, settle
from futurechain.core.state import PENDING, claim, is_consumed, new_pending, publish, withdraw
from futurechain.core.stdlib import outcome_of
from futurechain.errors import BrokenExecutor, LostFutureError
from futurechain.failure import Failure
from futurechain.future import Future, LocalStage

__all__ = ["Foreign", "says_broken", "wrap_future"]

T = TypeVar("T")


class Foreign:
    """The parent of a future that stands for one of somebody else's."""

    __slots__ = ("_future",)

    def __init__(self, future: cf.Future[Any]) -> None:
        self._future: Callable[[], cf.Future[Any] | None] = weakref.ref(future)

    def sources(self) -> list[Any]:
        """Return what we know it waits for: nothing."""
        return []

    def runs_abroad(self) -> bool:
        """Tell whether the foreign future says that it runs."""
        future = self._future()
        return future is not None and future.running()

    def stop(self) -> bool:
        """Ask it to be cancelled, running or not; False if it refuses: then it is left alone."""
        future = self._future()
        if future is None:
            return True
        try:
            return bool(future.cancel())
        except Exception:  # some futures cannot be asked, and say so by raising: then we let go of what is queued
            return not future.running()

    def cancel_for(self, child: Any) -> tuple[()]:
        """Do no more: whoever cancels the one that stands for it has called `stop`."""
        return ()


def wrap_future(future: cf.Future[T]) -> Future[T]:
    """Adopt any ``concurrent.futures.Future``: return a `Future` with the same outcome; ours are returned as they are.

    Cancelling the one that is returned, or the last of its dependents, always asks `future`, running or not; if that
    refuses, nothing changes. Dependents run in the thread that settles `future`, but never on the manager thread of
    a pool, nor on the thread of an event loop.

    Raises:
        TypeError: if it is no such future.

    Example:
        >>> plain = concurrent.futures.Future()
        >>> shout = wrap_future(plain).then(str.upper)
        >>> plain.set_result("adopted"), shout.result()
        (None, 'ADOPTED')
    """
    if isinstance(future, Future):
        return future
    if not isinstance(future, cf.Future):
        hint = ": give it the Deferred's .future" if hasattr(future, "addCallbacks") else ""
        if type(future).__module__.endswith("asyncio"):
            hint = ": an asyncio future is awaited in its loop, and settles one of ours from there"
        raise TypeError(f"wrap_future() wants a concurrent.futures.Future, not {future!r}{hint}")
    relay = future.__dict__.setdefault("_futurechain_relay", fresh := _Relay())
    ours: Any = relay.adopt(future)
    if relay is fresh:
        future.add_done_callback(relay)
    elif future.done():
        relay(future)
    return cast("Future[T]", ours)


def says_broken(outcome: Any) -> bool:
    """Tell whether a pool broke: then the thread that says so holds a lock of it, and must run no user code.

    Standard pools fail what they have with the lock held that ``submit`` and ``shutdown`` want: process pools from
    Python 3.12 on, and thread pools whose initializer fails.
    """
    return type(outcome) is Failure and isinstance(outcome.value, BrokenExecutor)


class _Relay:
    """A done callback of a foreign future, for all who adopt that; it notices when the future is dropped unsettled."""

    __slots__ = ("_ours",)

    def __init__(self) -> None:
        self._ours: list[Any] = []
        """The futures that stand for it, one as a rule; whoever pops one settles it."""

    def adopt(self, foreign: cf.Future[Any]) -> Any:
        """Return the future that stands for `foreign`; another one, if that was cancelled."""
        for one in tuple(self._ours):
            if one._outcome is PENDING:
                return one
            withdraw(self._ours, one)
        ours: Any = new_pending(LocalStage, Named("wrap_future"), HERE, Foreign(foreign))
        self._ours.append(ours)
        return ours

    def __call__(self, foreign: cf.Future[Any]) -> None:
        while (ours := self._take()) is not None:
            if claim(ours):
                publish(ours, outcome := outcome_of(foreign))
                go_on = callback_threads.post if says_broken(outcome) else callback_threads.run
                go_on(partial(run_dependents, ours))

    def _take(self) -> Any:
        try:
            return self._ours.pop()
        except IndexError:
            return None

    def __del__(self) -> None:
        while (ours := self._take()) is not None:
            if claim(ours):
                if not is_consumed(ours):
                    ours.__dict__["_unwanted"] = True  # nothing depends on it: it is nobody's failure
                error = LostFutureError("the foreign future it stands for was dropped without being settled")
                unobserved.rescue(partial(settle, ours, Failure(error)))
