"""`Deferred`: what a user sees of the engine."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from futurechain.core.handlers import check_handler
from futurechain.defer import futures
from futurechain.defer.adding import Adding, Outcome
from futurechain.defer.engine import GO, run
from futurechain.defer.errors import AlreadyCalledError
from futurechain.defer.expiry import Expiry
from futurechain.defer.reports import Trail
from futurechain.defer.state import UNFIRED, State, is_failure
from futurechain.errors import CancelledError
from futurechain.failure import Failure
from futurechain.flow.driver import Steps, is_driving
from futurechain.future import Future

if TYPE_CHECKING:
    import asyncio

__all__ = ["Deferred", "fail", "succeed"]

T = TypeVar("T")
U = TypeVar("U")


class Deferred(Adding[T]):
    """A result that comes later, with the callbacks that want it.

    The methods that add callbacks return the Deferred itself. Each callback gets what the one before returned; one that
    raises, or returns a `Failure`, makes the next *errback* run. See the module for what differs from Twisted.

    Args:
        canceller: called with the Deferred by the first ``cancel()`` before it is fired; it may fire it.

    Raises:
        TypeError: if `canceller` is neither callable nor None.

    Example:
        >>> d = Deferred().addCallback(int).addCallback(print, "pounds")
        >>> d.callback("5")
        5 pounds
    """

    debug = False
    """Whether to remember who made and who fired it; see `setDebugging`."""
    _forgiven: Any = ()
    """A token for each late result that is ignored: one, if a cancellation without canceller fired."""

    def __init__(self, canceller: Callable[[Deferred[Any]], object] | None = None) -> None:
        self._callbacks = []
        self._ticket = [UNFIRED]
        if canceller is not None:
            self._cancellers = [check_handler(canceller, "Deferred")]
        if self.debug:
            self._trail = Trail()

    # -- adding callbacks: see `Adding` --

    def addTimeout(
        self,
        timeout: float,
        clock: Any = None,
        onTimeoutCancel: Callable[[T | Failure, float], Outcome[U]] | None = None,
    ) -> Deferred[T | U]:
        """Cancel this Deferred if the callbacks added so far have not ended after `timeout` seconds; return it.

        Args:
            timeout: seconds from now.
            clock: an object with Twisted's ``callLater(seconds, fn)``, or a `ManualClock`; by default the library's
                own timers.
            onTimeoutCancel: called as ``onTimeoutCancel(outcome, timeout)`` if the time was up; what it returns goes
                on. By default a cancellation becomes a ``TimeoutError``.

        Raises:
            TypeError: if `timeout` is no number, or `onTimeoutCancel` not callable.
            ValueError: if `timeout` is negative, NaN or infinite.

        Example:
            >>> Deferred().addTimeout(0.01).future.exception()
            TimeoutError('the Deferred had no result within 0.01 seconds')
        """
        cancelled = Deferred[None](lambda d: d.callback(None))
        expiry = Expiry(self, cancelled, timeout, check_handler(onTimeoutCancel, "addTimeout"))
        expiry.start(clock)
        return self.addBoth(expiry.arrive)

    # -- firing --

    def callback(self, result: T | Failure) -> None:
        """Fire with `result`, and run the callbacks in this thread; a `Failure` fires as ``errback`` would.

        Raises:
            AlreadyCalledError: if it has been fired before.
            TypeError: if `result` is a Deferred, which only a callback may return.

        Example:
            >>> d = Deferred().addCallback(print, "pounds")
            >>> d.callback(5)
            5 pounds
        """
        if isinstance(result, Deferred):
            raise TypeError(f"callback() wants a result, not {result!r}: return a Deferred from a callback instead")
        if self.debug:
            self._note_firing()
        try:
            if not run(self, result):
                self._forgive()
        finally:
            del self, result  # no cycle: a traceback may keep this frame

    def errback(self, fail: Failure | BaseException | None = None) -> None:
        """Fire with an error, and run the errbacks in this thread.

        Args:
            fail: an exception or a `Failure`; by default the exception that is being handled.

        Raises:
            AlreadyCalledError: if it has been fired before.
            TypeError: if `fail` is no error, or missing where none is being handled.

        Example:
            >>> d = Deferred().addErrback(lambda failure: print(failure.value))
            >>> d.errback(KeyError("k"))
            'k'
        """
        if not is_failure(fail):
            if not (fail is None or isinstance(fail, BaseException)):
                raise TypeError(f"errback() and fail() want an exception or a Failure, not {fail!r}")
            fail = Failure(fail)
        try:
            self.callback(cast("Failure", fail))
        finally:
            del self, fail

    def _fire(self, outcome: Any) -> bool:
        """Fire; False if somebody has done so before."""
        return run(self, outcome)

    def _forgive(self) -> None:
        try:
            self._forgiven.pop()
        except (AttributeError, IndexError):
            who = "" if self._trail is None else f"\n{self._trail}"
            raise AlreadyCalledError(f"{self!r} has been fired already{who}") from None

    def _note_firing(self) -> None:
        if self._trail is not None and not self.called:
            self._trail.fired()

    def cancel(self) -> None:
        """Cancel: the canceller, or ``CancelledError``, fires it; if it waits for another Deferred, cancel that.

        Without a canceller, one late ``callback`` or ``errback`` is ignored. Nothing happens once it has its result.

        Example:
            >>> d = Deferred().addErrback(lambda failure: print(failure.type.__name__))
            >>> d.cancel()
            CancelledError
        """
        target: Any = self
        while target is not None:
            target = target._cancel()

    def _cancel(self) -> Any:
        """Cancel this one; or return the Deferred that it waits for, which has to be cancelled instead."""
        try:
            return self._forward() if self.called else self._call_canceller()
        finally:
            del self  # no cycle: a traceback may keep this frame

    def _forward(self) -> Any:
        """Return the Deferred that this one waits for; cancel it, if it is a future or has a way of its own."""
        awaited = self._awaited
        if getattr(type(awaited), "cancel", None) is Deferred.cancel:
            return awaited
        if awaited is not None:
            awaited.cancel()
        return None

    def _call_canceller(self) -> None:
        cancellers, forgiven = self._cancellers, []
        try:
            if cancellers is None:
                forgiven = self.__dict__.setdefault("_forgiven", [])
                forgiven.append(None)  # before firing: another thread may come late at once
            elif not cancellers:  # it is being called just now
                return
            else:
                _call_first(cancellers, self)
            if not run(self, Failure(CancelledError())) and forgiven:
                with suppress(IndexError):
                    forgiven.pop()
        finally:
            del self  # no cycle: a traceback may keep this frame

    # -- pausing --

    def pause(self) -> None:
        """Run no more callbacks until ``unpause()`` has been called as often as ``pause()``.

        Example:
            >>> d = succeed(5)
            >>> d.pause()
            >>> d.addCallback(print).unpause()
            5
        """
        self.__dict__.setdefault("_pauses", []).append(None)

    def unpause(self) -> None:
        """Take one ``pause()`` back; if it was the last, go on with the callbacks, in this thread.

        Example:
            >>> d = succeed(5)
            >>> d.pause()
            >>> d.addCallback(print).unpause()
            5
        """
        with suppress(AttributeError, IndexError):
            self._pauses.pop()
        if self.called and not self._pauses:
            self._go_on()

    # -- asking --

    @property
    def paused(self) -> int:
        """How many things it waits for before it runs the next callback.

        Example:
            >>> succeed(5).paused
            0
        """
        return len(self._pauses) + (self.called and self._awaited is not None)

    @property
    def future(self) -> Future[T]:
        """A future of the callbacks added so far; any thread may wait for it. The Deferred keeps its result.

        Example:
            >>> succeed("5").addCallback(int).future.then(hex).result()
            '0x5'
        """
        return futures.future_of(self)

    def __repr__(self) -> str:
        state = ""
        if self.called:
            outcome = self.result
            waits = isinstance(outcome, Deferred)  # whose own state may be as long again
            state = f" waiting on Deferred at {id(outcome):#x}" if waits else f" current result: {outcome!r}"
        return f"<{type(self).__name__} at {id(self):#x}{' paused' if self._pauses else ''}{state}>"

    # -- ways over --

    def __await__(self) -> Generator[Any, Any, T]:
        if is_driving():
            return cast("T", (yield self))
        return cast("T", (yield from futures.future_of(self, takes=True).__await__()))

    __iter__ = __await__

    def asFuture(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
        """Return an asyncio future that takes the result away; cancelling it cancels this Deferred.

        Example:
            >>> async def main():
            ...     return await succeed(5).asFuture(asyncio.get_running_loop())
            >>> asyncio.run(main())
            5
        """
        import asyncio

        return asyncio.wrap_future(futures.future_of(self, takes=True), loop=loop)

    @classmethod
    def fromFuture(cls, future: cf.Future[U] | asyncio.Future[U]) -> Deferred[U]:
        """Return a Deferred that is fired by `future`; cancelling it cancels that, if nobody else consumes it.

        Args:
            future: of ``concurrent.futures``, any kind; or asyncio's, whose loop's thread runs the callbacks then.

        Raises:
            TypeError: if `future` is neither.

        Example:
            >>> Deferred.fromFuture(pool.submit(pow, 2, 5)).addCallback(hex).future.result()
            '0x20'
        """
        if isinstance(future, cf.Future):
            return cast("Deferred[U]", futures.from_future(cls, future))
        if not hasattr(future, "get_loop"):
            raise TypeError(f"fromFuture() wants a future of concurrent.futures or asyncio, not {future!r}")
        return cast("Deferred[U]", futures.from_asyncio(cls, future))

    @classmethod
    def fromCoroutine(cls, coro: Steps[U]) -> Deferred[U]:
        """Run a coroutine, which may await Deferreds, or a generator; return the Deferred of its result.

        Raises:
            NotACoroutineError: if `coro` is neither.

        Example:
            >>> async def double(d):
            ...     return 2 * await d
            >>> Deferred.fromCoroutine(double(succeed(5))).result
            10
        """
        from futurechain.defer.calls import start  # late: that module is built on this one

        return start(coro)

    def _taken(self) -> Any:
        """Return a future that takes the result away, for a driver that waits for futures."""
        return futures.future_of(self, takes=True)

    def _adapt(self, value: Any) -> Any:
        if isinstance(value, cf.Future):
            return futures.wait_for_future(self, value)
        return Deferred.fromCoroutine(value)

    def _go_on(self) -> None:
        run(self, GO)

    def _upstream(self) -> State | None:
        awaited = self._awaited
        return awaited if isinstance(awaited, State) else futures.source_of(awaited)


def _call_first(cancellers: list[Callable[[Any], object]], deferred: Any) -> None:
    """Take the canceller out and call it; put it back if it raises."""
    with suppress(IndexError):  # another thread has just done so
        canceller = cancellers.pop()
        try:
            canceller(deferred)
        except BaseException:
            cancellers.append(canceller)
            raise


def succeed(result: T) -> Deferred[T]:
    """Return a Deferred that has been fired with `result`.

    Raises:
        TypeError: if `result` is a Deferred.

    Example:
        >>> succeed(5).result
        5
    """
    deferred: Deferred[T] = Deferred()
    deferred.callback(result)
    return deferred


def fail(result: Failure | BaseException | None = None) -> Deferred[Any]:
    """Return a Deferred that has been fired with an error, by default the one that is being handled.

    Raises:
        TypeError: if `result` is no error, or missing where none is being handled.

    Example:
        >>> fail(KeyError("k")).addErrback(lambda failure: failure.value).result
        KeyError('k')
    """
    deferred: Deferred[Any] = Deferred()
    deferred.errback(result)
    return deferred
