"""`Deferred`: a chain of futures under one name."""

from __future__ import annotations

import concurrent.futures as cf
import inspect
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from futurechain.core import callback_threads
from futurechain.core.cancel import let_go
from futurechain.clock import call_later, check_seconds
from futurechain.defer.errors import AlreadyCalledError
from futurechain.errors import CancelledError, TimeoutError  # noqa: A004
from futurechain.failure import Failure
from futurechain.executors.wrapped_future import wrap_future
from futurechain.executors.inline import INLINE
from futurechain.future import Future, stage_on
from futurechain.core.state import Pending, attach, claim
from futurechain.core.handlers import Plan, check_handler
from futurechain.core.loop import settle

if TYPE_CHECKING:
    import asyncio

__all__ = ["Deferred", "Feed", "fail", "succeed"]

T = TypeVar("T")
_WINNER = "winner"
"""The one key of `Deferred._fired`."""
_NO_KEYWORDS: Mapping[str, Any] = types.MappingProxyType({})


class Deferred(Awaitable[T]):
    """A result that comes later, with the callbacks that want it.

    The methods that add callbacks return the Deferred itself. Each callback gets what the one before returned; one that
    raises, or returns a `Failure`, makes the next *errback* run. See the module for what differs from Twisted.

    Args:
        canceller: called with the Deferred by the first ``cancel()`` before it is fired; it may fire it.

    Raises:
        TypeError: if `canceller` is neither callable nor None.
    """

    def __init__(self, canceller: Callable[[Any], object] | None = None) -> None:
        self._fired: dict[str, list[None]] = {}
        self._cancellers = [check_handler(canceller, "Deferred")]
        self._pauses: list[None] = []
        self._gates: list[tuple[Any, Any]] = []
        root: Any = Future()
        root._source = self._position = _Position(self)
        self._root = root
        self._end = root  # any future of the chain: each finds its way to the end

    # -- adding callbacks --

    def addCallbacks(
        self,
        callback: Callable[..., Any] | None,
        errback: Callable[..., Any] | None = None,
        callbackArgs: tuple[Any, ...] = (),
        callbackKeywords: Mapping[str, Any] = _NO_KEYWORDS,
        errbackArgs: tuple[Any, ...] = (),
        errbackKeywords: Mapping[str, Any] = _NO_KEYWORDS,
    ) -> Deferred[Any]:
        """Add a pair, of which exactly one will run; return this Deferred.

        Args:
            callback: called as ``callback(result, *callbackArgs, **callbackKeywords)``.
            errback: called as ``errback(failure, *errbackArgs, **errbackKeywords)``.
            callbackArgs, callbackKeywords, errbackArgs, errbackKeywords: further arguments.

        Raises:
            TypeError: if one of the two is neither callable nor None.
        """
        self._end = self._end.addCallbacks(
            self._step(callback, "addCallbacks"),
            self._step(errback, "addCallbacks"),
            callbackArgs,
            callbackKeywords,
            errbackArgs,
            errbackKeywords,
        )
        return self

    def addCallback(self, callback: Callable[..., Any] | None, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Add ``callback(result, *args, **kwargs)``; return this Deferred.

        Raises:
            TypeError: if `callback` is neither callable nor None.
        """
        self._end = self._end.addCallback(self._step(callback, "addCallback"), *args, **kwargs)
        return self

    def addErrback(self, errback: Callable[..., Any] | None, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Add ``errback(failure, *args, **kwargs)``; return this Deferred.

        Raises:
            TypeError: if `errback` is neither callable nor None.
        """
        self._end = self._end.addErrback(self._step(errback, "addErrback"), *args, **kwargs)
        return self

    def addBoth(self, callback: Callable[..., Any] | None, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Add ``callback(result_or_failure, *args, **kwargs)``; return this Deferred.

        Raises:
            TypeError: if `callback` is neither callable nor None.
        """
        self._end = self._end.addBoth(self._step(callback, "addBoth"), *args, **kwargs)
        return self

    def chainDeferred(self, d: Deferred[Any]) -> Deferred[None]:
        """Fire `d` with the outcome of this Deferred, whose own result is None from then on; return this Deferred."""
        return self.addCallbacks(d.callback, d.errback)

    def addTimeout(
        self,
        timeout: float,
        clock: Any = None,
        onTimeoutCancel: Callable[[Any, float], Any] | None = None,
    ) -> Deferred[Any]:
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
        """
        convert = check_handler(onTimeoutCancel, "addTimeout") or _to_timeout_error
        expiry = _Expiry(self, check_seconds(timeout, "timeout"), convert)
        expiry.start(clock)
        return self.addBoth(expiry.arrive)

    def _step(self, fn: Any, method: str) -> Any:
        return None if fn is None else _Step(self._position, check_handler(fn, method))

    # -- firing --

    def callback(self, result: Any) -> None:
        """Fire with `result`, and run the callbacks in this thread; a `Failure` fires as ``errback`` would.

        Raises:
            AlreadyCalledError: if it has been fired before.
            TypeError: if `result` is a Deferred, which only a callback may return.
        """
        if isinstance(result, Deferred):
            raise TypeError(f"callback() wants a result, not {result!r}: return a Deferred from a callback instead")
        self._fire_once(result)

    def errback(self, fail: Failure | BaseException | None = None) -> None:
        """Fire with an error, and run the errbacks in this thread.

        Args:
            fail: an exception or a `Failure`; by default the exception that is being handled.

        Raises:
            AlreadyCalledError: if it has been fired before.
            TypeError: if `fail` is no error, or missing where none is being handled.
        """
        self._fire_once(_failure_of(fail))

    def _fire_once(self, outcome: Any) -> None:
        token: list[None] = []
        self._fire(outcome, token)
        winner = self._fired[_WINNER]
        if winner is not token:
            try:
                winner.pop()  # forgiven?
            except IndexError:
                raise AlreadyCalledError(f"{self!r} has been fired already") from None

    def _fire(self, outcome: Any, token: list[None]) -> bool:
        """Fire, unless that is done; False if somebody was faster, or the future was cancelled before."""
        if self._fired.setdefault(_WINNER, token) is not token:
            return False
        root, self._root = self._root, None
        self._cancellers.clear()
        self._position.current = outcome
        if not claim(root):
            return False
        settle(root, outcome)
        return True

    def cancel(self) -> None:
        """Cancel: the canceller, or ``CancelledError``, fires it; if it waits for another Deferred, cancel that.

        Without a canceller, one late ``callback`` or ``errback`` is ignored. Nothing happens once it has its result.
        """
        if self._fired:
            self._position.cancel_inner()
            return
        try:
            canceller = self._cancellers.pop()
        except IndexError:  # another thread is about to fire it
            return
        token: list[None] = [None]
        if canceller is not None:
            token.clear()
            try:
                canceller(self)
            except BaseException:
                self._cancellers.append(canceller)
                raise
        self._fire(Failure(CancelledError()), token)

    # -- pausing --

    def pause(self) -> None:
        """Run no more callbacks until ``unpause()`` has been called as often as ``pause()``."""
        self._pauses.append(None)

    def unpause(self) -> None:
        """Take one ``pause()`` back; if it was the last, go on with the callbacks, in this thread."""
        with suppress(IndexError):
            self._pauses.pop()
        if not self._pauses:
            self._open()

    def _hold(self, step: _Step, outcome: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """Return a future of the step's outcome; it is taken when the Deferred is unpaused."""
        gate: Any = Future()
        self._gates.append((gate, outcome))
        held = gate.addBoth(step, *args, **kwargs)
        if not self._pauses:  # unpaused in between
            self._open()
        return cast("Future[Any]", held)

    def _open(self) -> None:
        with suppress(IndexError):
            while True:
                gate, outcome = self._gates.pop()
                if claim(gate):
                    settle(gate, outcome)

    # -- awaiting --

    def _moved(self) -> Future[Any]:
        """Return a future that takes the result away, so that None is left."""
        relay = _Relay(self._position)
        self.addBoth(relay.take)
        return relay

    def __await__(self) -> Generator[Any, Any, T]:
        return cast("T", (yield from self._moved().__await__()))

    __iter__ = __await__

    # -- asking --

    @property
    def called(self) -> bool:
        """Whether it has been fired."""
        return bool(self._fired)

    @property
    def paused(self) -> int:
        """How many things it waits for before it runs the next callback."""
        return len(self._pauses) + (self.called and self._position.waits())

    @property
    def result(self) -> Any:
        """The present result: a value, a `Failure`, or the Deferred it waits for. There is none before it is fired."""
        if not self._fired:
            raise AttributeError("a Deferred has no result before it is fired")
        outcome = self._end.final._outcome
        return self._position.present() if type(outcome) is Pending else outcome

    @property
    def future(self) -> Future[T]:
        """The future of the callbacks added so far; any thread may wait for it."""
        return cast("Future[T]", self._end.final)

    def __repr__(self) -> str:
        state = "not fired"
        if self.paused:
            state = "waiting" if self._position.waits() else "paused"
        elif self.called:
            state = "running" if isinstance(self.result, Deferred) else f"result: {self.result!r}"
        return f"<{type(self).__name__} at {id(self):#x}, {state}>"

    # -- other kinds of futures --

    def asFuture(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
        """Return an asyncio future that takes the result away; cancelling it cancels this Deferred."""
        import asyncio

        return asyncio.wrap_future(self._moved(), loop=loop)

    @classmethod
    def fromFuture(cls, future: cf.Future[T]) -> Deferred[T]:
        """Return a Deferred that is fired by `future`; cancelling it cancels that, if nobody else consumes it.

        Raises:
            TypeError: if `future` is no ``concurrent.futures.Future``.
        """
        source: Any = wrap_future(future)
        deferred: Deferred[T] = Deferred(lambda _: feed.leave(source))
        feed = Feed(deferred)
        if not attach(source, feed):
            source._observed()
            feed._fire(source, source._outcome)
        return deferred

    @classmethod
    def fromCoroutine(cls, coro: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine, which may await Deferreds; return the Deferred of its result.

        Raises:
            TypeError: if `coro` is no coroutine.
        """
        if not inspect.iscoroutine(coro):
            raise TypeError(f"fromCoroutine() wants a coroutine, not {coro!r}")
        from futurechain.defer.calls import Runner  # late: that module is built on this one

        return Runner(coro).start()


class _Position:
    """Where the chain of a Deferred is: what it was given last, and what it waits for.

    The stages hold this, and not the Deferred: whoever waits for a Deferred that is dropped without being fired must
    not keep it alive. It is also the parent of the root, and of those who take the result away.
    """

    __slots__ = ("awaited", "current", "inner", "owner")

    def __init__(self, owner: Deferred[Any]) -> None:
        self.owner = weakref.ref(owner)
        self.current: Any = None
        """What the running callback was given, or the future that the chain waits for."""
        self.inner: Any = None
        """The future that the chain waits for, or has waited for last."""
        self.awaited = False
        """Whether another Deferred waits, or has waited, for this one."""

    def present(self) -> Any:
        """Return the Deferred or future that the chain waits for, or else what the running callback was given.

        A Deferred is not held for this: it must be free to be dropped.
        """
        relay = self.inner
        source = relay.source if isinstance(relay, _Relay) else None
        return self.current if source is None else source.owner() or relay

    def waits(self) -> bool:
        """Tell whether the chain waits for another Deferred, or a future."""
        return self.inner is not None and not self.inner.done()

    def take(self, value: Any) -> Any:
        """Return what a stage has to return for a callback's `value`; note what the chain waits for now."""
        kind = type(value)  # not isinstance(value, ...): a proxy would run code of its own
        if issubclass(kind, Deferred):
            return self.wait_for(value)
        if issubclass(kind, cf.Future):
            return self.wait_for_future(wrap_future(value).final)
        if kind is types.CoroutineType:
            return self.wait_for(Deferred.fromCoroutine(value))
        self.current = value
        return value

    def wait_for(self, inner: Deferred[Any]) -> Future[Any]:
        """Return a future that gets the result of `inner`, which has None then."""
        relay = _Relay(inner._position)
        self.enter(relay)
        inner.addBoth(relay.take)
        return relay

    def wait_for_future(self, future: Future[Any]) -> Future[Any]:
        """Return a future with that one's outcome, which ``cancel()`` may cancel."""
        if isinstance(future, _Relay):
            self.enter(future)
            return future
        self.current = future
        self.inner = future if future.done() else stage_on(future, Plan(), INLINE)
        return cast("Future[Any]", self.inner)

    def enter(self, relay: _Relay) -> None:
        """Note that the chain waits for `relay` now.

        Only a Deferred that is waited for itself can close a ring. Both facts are stored before one looks, so of two
        threads that close a ring, one sees it.
        """
        self.inner, source = relay, relay.source
        if source is None:  # it has the result already
            return
        source.awaited = True
        if source is self or (self.awaited and source.waits_for(self)):
            self.inner = None
            raise TypeError(f"{source.owner()!r} was returned by a callback that it waits for itself: a cycle")

    def waits_for(self, target: _Position) -> bool:
        """Tell whether this one waits for `target`, over however many others."""
        position = self
        while isinstance(relay := position.inner, _Relay) and (source := relay.source) is not None:
            if source is target:
                return True
            position = source
        return False

    def cancel(self) -> None:
        """Cancel the Deferred; or, if nobody has that any more, what its chain waits for."""
        deferred = self.owner()
        if deferred is None:
            self.cancel_inner()
        else:
            deferred.cancel()

    def cancel_inner(self) -> None:
        """Cancel what the chain waits for."""
        inner = self.inner
        if inner is not None:
            inner.cancel()

    def sources(self) -> list[Any]:
        """Return nothing, as a parent: rings of Deferreds are found by `waits_for`, without walking whole chains."""
        return []

    def cancel_for(self, child: Any) -> None:
        """Cancel, as a parent: nobody consumes `child` any more."""
        self.cancel()


class _Step:
    """One callback as a stage of the chain: waits while the Deferred is paused, and waits for a returned Deferred."""

    __slots__ = ("func", "position")

    def __init__(self, position: _Position, func: Callable[..., Any]) -> None:
        self.position = position
        self.func = func

    def __call__(self, outcome: Any, /, *args: Any, **kwargs: Any) -> Any:
        position, func = self.position, self.func
        position.inner, position.current = None, outcome
        owner = position.owner()
        if owner is not None and owner._pauses:
            return owner._hold(self, outcome, args, kwargs)
        del owner
        try:
            return position.take(func(outcome, *args, **kwargs))
        except BaseException:
            position.current = None
            del self, position, func, outcome, args, kwargs  # the traceback keeps this frame: no cycle
            raise


class _Relay(Future[Any]):
    """Gets the result of a Deferred, which has None then."""

    __slots__ = ("source",)

    def __init__(self, source: _Position) -> None:
        super().__init__()
        self._source = source
        self.source: _Position | None = source

    def take(self, outcome: Any) -> None:
        """Be settled with `outcome`, which the source has no more."""
        self.source = None
        if claim(self):
            settle(self, outcome)

    def cancel(self) -> bool:
        """Cancel the source, which may still succeed."""
        source = self.source
        if source is not None:
            source.cancel()
        return self.cancelled()


class Feed:
    """An entry in a future: fires a Deferred with the outcome."""

    __slots__ = ("_deferred",)

    def __init__(self, deferred: Deferred[Any]) -> None:
        self._deferred = deferred

    def _is_waiting(self) -> bool:
        return not self._deferred.called

    def _fire(self, future: Any, outcome: Any) -> None:
        """Fire the Deferred, unless it was cancelled."""
        self._deferred._fire(outcome, [])

    def leave(self, source: Any) -> None:
        """Consume `source` no longer."""
        let_go(source, self)


class _Expiry:
    """A timeout of the callbacks before it; the clock and the outcome race for the one token in ``undecided``."""

    __slots__ = ("cancelled", "convert", "deferred", "seconds", "undecided", "withdraw")

    def __init__(self, deferred: Deferred[Any], seconds: float, convert: Callable[[Any, float], Any]) -> None:
        self.deferred = deferred
        self.seconds = seconds
        self.convert = convert
        self.undecided: list[None] = [None]
        self.cancelled: Deferred[None] = Deferred(lambda d: d.callback(None))
        self.withdraw: Callable[[], object] | None = None

    def start(self, clock: Any) -> None:
        """Set the timer."""
        if clock is None:
            self.withdraw = call_later(self.seconds, callback_threads.run, self.expire).cancel
        else:
            later = getattr(clock, "callLater", None)
            if later is None:  # a clock of this library
                self.withdraw = clock.call_later(self.seconds, self.expire).cancel
            else:
                call = later(self.seconds, self.expire)
                self.withdraw = lambda: call.active() and call.cancel()

    def expire(self) -> None:
        """Cancel the Deferred, if its callbacks up to here have not ended before."""
        try:
            self.undecided.pop()
        except IndexError:
            return
        try:
            self.deferred.cancel()
        finally:
            self.cancelled._fire(None, [])

    def arrive(self, outcome: Any) -> Any:
        """Let `outcome` pass; or convert it, if the time was up.

        The conversion waits until ``cancel()`` has returned in the clock's thread: what comes after the timeout must
        not be cancelled by it.
        """
        try:
            self.undecided.pop()
        except IndexError:
            return self.cancelled.addCallback(lambda _: self.convert(outcome, self.seconds))
        if self.withdraw is not None:
            self.withdraw()
        return outcome


def _to_timeout_error(outcome: Any, seconds: float) -> Any:
    if isinstance(outcome, Failure):
        outcome.trap(CancelledError)
        raise TimeoutError(f"the Deferred had no result within {seconds:g} seconds")
    return outcome


def _failure_of(error: Failure | BaseException | None) -> Failure:
    if error is None or isinstance(error, BaseException):
        return Failure(error)
    if isinstance(error, Failure):
        return error
    raise TypeError(f"errback() and fail() want an exception or a Failure, not {error!r}")


def succeed(result: T) -> Deferred[T]:
    """Return a Deferred that has been fired with `result`.

    Raises:
        TypeError: if `result` is a Deferred.
    """
    deferred: Deferred[T] = Deferred()
    deferred.callback(result)
    return deferred


def fail(result: Failure | BaseException | None = None) -> Deferred[Any]:
    """Return a Deferred that has been fired with an error, by default the one that is being handled.

    Raises:
        TypeError: if `result` is no error, or missing where none is being handled.
    """
    deferred: Deferred[Any] = Deferred()
    deferred.errback(result)
    return deferred

