"""The ways between Deferreds and futures, those of ``concurrent.futures`` and asyncio's."""

from __future__ import annotations

import concurrent.futures as cf
import weakref
from contextlib import suppress
from functools import partial
from typing import Any, cast

from futurechain.core.stdlib import outcome_of
from futurechain.core.unobserved import rescue
from futurechain.defer.engine import OWNED, run
from futurechain.defer.state import PENDING, State, is_failure
from futurechain.errors import InvalidStateError, LostFutureError
from futurechain.executors.inline import INLINE
from futurechain.executors.wrapped_future import wrap_future
from futurechain.failure import Failure
from futurechain.future import Future

__all__ = ["from_asyncio", "from_future", "future_of", "source_of", "wait_for_future"]


# -- from a Deferred to a future ------------------------------------------------------------------------------------


def future_of(deferred: Any, *, takes: bool = False) -> Future[Any]:
    """Return a future of the callbacks added so far.

    Args:
        deferred: whose.
        takes: leave None in the Deferred, for the callbacks that are added later.
    """
    last = deferred._callbacks[-1:]
    share = last[0][0] if last else None
    if not takes and type(share) is Share and not share.takes and share.future is not None:
        return cast("Future[Any]", share.future)
    deferred._is_awaited = True
    share = Share(deferred, takes)
    future = share.make()
    deferred.addBoth(share)
    return future


class Share:
    """A callback that settles a future with the result.

    It lives in the Deferred, whose producer keeps that alive: when it goes unused, there will be no result.
    """

    __slots__ = ("deferred", "future", "takes")

    def __init__(self, deferred: Any, takes: bool) -> None:
        self.deferred: weakref.ref[Any] = weakref.ref(deferred)
        self.takes: bool = takes
        self.future: Any = None

    def make(self) -> Future[Any]:
        """Return the future."""
        future: Any = Future()
        future._source = Source(self.deferred)
        self.future = future
        return future  # type: ignore[no-any-return]

    def __call__(self, outcome: Any) -> Any:
        """Settle the future, unless it was cancelled."""
        future, self.future = self.future, None
        failed = is_failure(outcome)
        try:
            future.set_exception(outcome.value) if failed else future.set_result(outcome)
        except InvalidStateError:
            return None if self.takes else outcome
        deferred = self.deferred()
        if failed and deferred is not None:
            deferred._future_has = outcome
        return None if self.takes else outcome

    def __del__(self) -> None:
        future = getattr(self, "future", None)  # a Ctrl-C may have come before there was one
        if future is not None and not future.done():
            rescue(partial(_lose, future))


def _lose(future: Any) -> None:
    with suppress(InvalidStateError):
        future.set_exception(LostFutureError("the Deferred of this future was dropped without being fired"))
        future.exception()  # whoever waits for it hears of that; if nobody does, it is nothing to report


class Source:
    """Stands where the parent of such a future would: passes its cancellation on to the Deferred."""

    __slots__ = ("deferred",)

    def __init__(self, deferred: weakref.ref[Any]) -> None:
        self.deferred: weakref.ref[Any] = deferred

    def sources(self) -> list[Any]:
        """Return the futures behind: none. Rings with a Deferred in them are found from there."""
        return []

    def cancel_for(self, child: Any) -> None:
        """Cancel: nobody consumes the future any more."""
        deferred = self.deferred()
        if deferred is not None:
            deferred.cancel()


# -- from a future to a Deferred ------------------------------------------------------------------------------------


def from_future(make: Any, future: cf.Future[Any]) -> Any:
    """Return a Deferred that `future` fires; cancelling it cancels what nobody else consumes."""
    branch = wrap_future(future).then(on=INLINE)
    deferred = make(lambda _: branch.cancel())
    branch.add_done_callback(lambda done: run(deferred, outcome_of(done)))
    return deferred


def from_asyncio(make: Any, future: Any) -> Any:
    """Do the same for a future of asyncio's, which decides itself how a cancellation ends."""
    source = make()

    def cancel(deferred: Any) -> None:
        _ask(future)
        deferred._callbacks.insert(0, (lambda _: source, None, None))  # it was not fired: nobody else takes any out
        run(deferred, None)

    def arrive(done: Any) -> None:
        outcome = _outcome_in_asyncio(done)
        if not run(deferred, outcome):
            run(source, outcome)

    deferred = make(cancel)
    future.add_done_callback(arrive)
    return deferred


def _outcome_in_asyncio(done: Any) -> Any:
    try:
        return done.result()
    except BaseException as error:  # a cancellation is asyncio's own, as it is in Twisted
        return Failure(error)


def _ask(future: Any) -> None:
    """Cancel a future of asyncio's, from whatever thread."""
    import asyncio

    loop = future.get_loop()
    if asyncio._get_running_loop() is loop or not loop.is_running():
        future.cancel()
    else:
        loop.call_soon_threadsafe(future.cancel)


def wait_for_future(deferred: Any, future: cf.Future[Any]) -> Any:
    """Return the outcome of the chain of `future`, or PENDING if `deferred` waits for it now.

    Raises:
        TypeError: if the future waits for `deferred`.
    """
    final = wrap_future(future).final
    if final.done():
        return outcome_of(final)
    branch = final.then(on=INLINE)
    deferred._awaited = branch
    source = source_of(branch)
    while source is not None:
        if source is deferred:
            deferred._awaited = None
            raise TypeError(f"{future!r} waits for the Deferred that it was returned to: a cycle")
        source = source._upstream()
    branch.add_done_callback(partial(_resume, deferred))
    return PENDING


def _resume(deferred: Any, branch: Any) -> None:
    deferred._awaited = None
    deferred.result = outcome_of(branch)
    run(deferred, OWNED)


def source_of(future: Any) -> State | None:
    """Return the Deferred that `future` waits for, over however many other futures."""
    while isinstance(future, cf.Future):
        future = getattr(future, "_source", None)
        future = future() if isinstance(future, weakref.ref) else future
    return future.deferred() if isinstance(future, Source) else None
