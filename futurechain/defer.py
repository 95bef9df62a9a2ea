"""Twisted's Deferred without a reactor: the names of ``twisted.internet.defer``, on top of `Future`.

Code written for Twisted's Deferred runs after its import line is changed to ``from futurechain import defer`` or
``from futurechain.defer import ...``. A Deferred may be fired, chained and cancelled from any thread, and other threads
can wait for its `Deferred.future`.

Theory of operation
-------------------
A Deferred *is* a chain of futures: a bare root, which ``callback`` settles, and one Twisted-family stage for each
pair of callbacks (`_Step`). ``called`` and ``result`` only describe where that chain is. A stage that finds the
Deferred paused waits for a gate, a bare future too. A callback that returns another Deferred appends a stage to *its*
chain, which moves the result into a `_Relay` and leaves None behind; the chain here waits for the relay. So everything
that holds for futures holds here: no stack, one order, no lost stage.

Who fires a Deferred is decided by one ``dict.setdefault``, which stores the winner's token: a list, with an element
for each late call that is forgiven. Everything else is decided by the ``pop`` of a token, as in `links`.

What differs from Twisted
-------------------------
* Threads: callbacks run in the thread that fires, or in the one that adds them to a settled Deferred.
* A Deferred that is returned while a callback of its own is running is waited for, and not emptied in the middle.
* A Deferred that waits for itself fails with ``TypeError``, instead of waiting for ever.
* A Deferred that is dropped without being fired fails with ``LostFutureError``, so that nobody waits for ever.
* ``race([])`` fails with ``ValueError``, instead of waiting for ever.
* A callback may return, and a generator may yield, a ``concurrent.futures.Future``; a generator's ``return d`` waits
  for `d`; `inlineCallbacks` takes ``async def`` functions too.
* ``cancel()`` of a generator that is running just then reaches the next Deferred that it waits for.
* ``callback()`` and ``succeed()`` with a Deferred, ``errback()`` with something that is no error, and a callback that
  is not callable are a ``TypeError`` at once; None in the place of a callback passes the result on.
* ``pause()`` holds up the next callback, also when a callback calls it, but never another Deferred's callbacks; an
  ``unpause()`` too many has no effect.
* ``addTimeout()`` needs no clock; its error is the built-in ``TimeoutError``. `CancelledError` is that of
  ``concurrent.futures``, and is not reported when nobody handles it. Other errors are, to the logger ``futurechain``.
"""

from __future__ import annotations

import concurrent.futures as cf
import functools
import inspect
import logging
import types
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from futurechain import crew
from futurechain.cancelling import give_up, release
from futurechain.clock import call_later, check_seconds
from futurechain.coroutines import Returned, returnValue
from futurechain.errors import CancelledError, InvalidStateError, TimeoutError  # noqa: A004
from futurechain.failure import Failure
from futurechain.foreign import wrap_future
from futurechain.future import INLINE, Future, stage_on
from futurechain.links import PENDING, attach, claim
from futurechain.plans import Plan, check_handler
from futurechain.run import here
from futurechain.settling import settle

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "FAILURE",
    "SUCCESS",
    "AlreadyCalledError",
    "CancelledError",
    "Deferred",
    "DeferredList",
    "DeferredLock",
    "DeferredQueue",
    "DeferredSemaphore",
    "Failure",
    "FailureGroup",
    "FirstError",
    "QueueOverflow",
    "QueueUnderflow",
    "TimeoutError",
    "ensureDeferred",
    "execute",
    "fail",
    "gatherResults",
    "inlineCallbacks",
    "maybeDeferred",
    "race",
    "returnValue",
    "succeed",
]

P = ParamSpec("P")
T = TypeVar("T")

SUCCESS = True
"""In a `DeferredList`'s results: this one succeeded."""
FAILURE = False
"""In a `DeferredList`'s results: this one failed."""

_WINNER = "winner"
"""The one key of `Deferred._fired`."""
_NO_KEYWORDS: Mapping[str, Any] = types.MappingProxyType({})

logger = logging.getLogger("futurechain")


class AlreadyCalledError(InvalidStateError):
    """Raised by ``callback`` and ``errback`` of a Deferred that has been fired before."""


class QueueOverflow(Exception):  # noqa: N818  # Twisted's name
    """Raised by ``put`` when a `DeferredQueue` is full."""


class QueueUnderflow(Exception):  # noqa: N818  # Twisted's name
    """Raised by ``get`` when a `DeferredQueue` has as many waiting getters as it may have."""


class FirstError(Exception):
    """The first error in a `DeferredList`.

    Args:
        failure: how it failed.
        index: which one of the list failed.
    """

    def __init__(self, failure: Failure, index: int) -> None:
        super().__init__(failure, index)
        self.subFailure = failure
        self.index = index

    def __str__(self) -> str:
        return f"FirstError[#{self.index}, {self.subFailure}]"

    def __repr__(self) -> str:
        return f"FirstError[#{self.index}, {self.subFailure.value!r}]"


class FailureGroup(Exception):  # noqa: N818  # Twisted's name
    """How everything in a `race` failed.

    Args:
        failures: in the order of the race's arguments.
    """

    def __init__(self, failures: Iterable[Failure]) -> None:
        super().__init__()
        self.failures = list(failures)

    def __str__(self) -> str:
        return "; ".join(map(str, self.failures))


# -- the Deferred -----------------------------------------------------------------------------------------------------


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
        root._parent = self._position = _Position(self)
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
            clock: an object with Twisted's ``callLater(seconds, fn)``; by default the library's own timers.
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
        return self._position.present() if outcome is PENDING else outcome

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
        feed = _Feed(deferred)
        if not attach(source, feed):
            source._heard()
            feed.fire(source, source._outcome)
        return deferred

    @classmethod
    def fromCoroutine(cls, coro: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine, which may await Deferreds; return the Deferred of its result.

        Raises:
            TypeError: if `coro` is no coroutine.
        """
        if not inspect.iscoroutine(coro):
            raise TypeError(f"fromCoroutine() wants a coroutine, not {coro!r}")
        return _Runner(coro).start()


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

    def abandon(self, child: Any) -> None:
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
        self._parent = source
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


class _Feed:
    """An entry in a future: fires a Deferred with the outcome."""

    __slots__ = ("_deferred",)

    def __init__(self, deferred: Deferred[Any]) -> None:
        self._deferred = deferred

    def _live(self) -> bool:
        return not self._deferred.called

    def fire(self, future: Any, outcome: Any) -> None:
        """Fire the Deferred, unless it was cancelled."""
        self._deferred._fire(outcome, [])

    def leave(self, source: Any) -> None:
        """Consume `source` no longer."""
        abandoned = release(source, self)
        if abandoned is not None:
            give_up(abandoned, Failure(CancelledError()))


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
            self.withdraw = call_later(self.seconds, crew.run, self.expire).cancel
        else:
            call = clock.callLater(self.seconds, self.expire)
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
    return error if isinstance(error, Failure) else Failure(error)


# -- making Deferreds -------------------------------------------------------------------------------------------------


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


def maybeDeferred(f: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Deferred[Any]:
    """Call ``f(*args, **kwargs)``; return a Deferred of what it returns or raises.

    A Deferred that it returns is returned as it is; futures and coroutines are waited for.
    """
    try:
        value = f(*args, **kwargs)
    except BaseException as error:
        return fail(error)
    return ensureDeferred(value) if _is_waitable(value) else succeed(value)


def execute(callable: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Deferred[Any]:  # noqa: A002
    """Call ``callable(*args, **kwargs)``; return a Deferred of what it returns or raises. Like `maybeDeferred`."""
    return maybeDeferred(callable, *args, **kwargs)


def ensureDeferred(coro: Any) -> Deferred[Any]:
    """Return a Deferred of `coro`: of a coroutine, a generator as of `inlineCallbacks`, a future, or a Deferred.

    Raises:
        TypeError: if it is none of these.
    """
    if isinstance(coro, Deferred):
        return coro
    if isinstance(coro, cf.Future):
        return Deferred.fromFuture(coro)
    if inspect.iscoroutine(coro) or isinstance(coro, types.GeneratorType):
        return _Runner(coro).start()
    raise TypeError(f"ensureDeferred() wants a coroutine, a future or a Deferred, not {coro!r}")


def _is_waitable(value: Any) -> bool:
    return issubclass(type(value), (Deferred, cf.Future, types.CoroutineType))


# -- coroutines -------------------------------------------------------------------------------------------------------


def inlineCallbacks(fn: Callable[P, Any]) -> Callable[P, Deferred[Any]]:
    """Turn a generator function, or an ``async def`` function, into one that returns a `Deferred`.

    Each Deferred that it yields (or awaits) pauses it without holding a thread; its result comes back in, its error is
    raised there. Anything else that a generator yields comes right back. Cancelling the returned Deferred cancels the
    one that is waited for; the generator sees ``CancelledError`` there, and may still succeed.

    Raises:
        TypeError: if `fn` is not callable; and, at a call, if it returned neither a generator nor a coroutine.
    """
    if not callable(fn):
        raise TypeError(f"inlineCallbacks() decorates a generator function or an async function, not {fn!r}")

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> Deferred[Any]:
        coroutine: Any = fn(*args, **kwargs)
        if isinstance(coroutine, types.GeneratorType) or inspect.iscoroutine(coroutine):
            return _Runner(coroutine).start()
        name = getattr(fn, "__qualname__", fn)
        raise TypeError(f"{name} returned {coroutine!r}: @inlineCallbacks wants a function with `yield` or `await`")

    return call


class _Coroutine(Deferred[T]):
    """The Deferred of a coroutine: how a cancellation ends is the coroutine's decision."""

    def __init__(self, runner: _Runner) -> None:
        super().__init__()
        self._runner: _Runner | None = runner  # until the coroutine has ended

    def cancel(self) -> None:
        """Cancel what the coroutine waits for; if it runs just now, the next thing."""
        runner = self._runner
        if runner is None:
            self._position.cancel_inner()
        else:
            runner.cancel()


class _Runner:
    """Advances one generator or coroutine; an entry in the future that this waits for."""

    __slots__ = ("cancels", "context", "coroutine", "deferred", "is_generator")

    def __init__(self, coroutine: Any) -> None:
        self.coroutine = coroutine
        self.is_generator = isinstance(coroutine, types.GeneratorType)
        self.context = copy_context()
        self.cancels: list[None] = []
        self.deferred: _Coroutine[Any] = _Coroutine(self)

    def start(self) -> Deferred[Any]:
        """Take the first steps; the Deferred of the result."""
        self._advance(None)
        return self.deferred

    def cancel(self) -> None:
        """Cancel what is waited for now, or next."""
        self.cancels.append(None)
        self._pass_on(self.deferred._position.inner)

    def _pass_on(self, inner: Any) -> None:
        if inner is not None and not inner.done():
            with suppress(IndexError):
                self.cancels.pop()
                inner.cancel()

    def _live(self) -> bool:
        return not self.deferred.called

    def fire(self, future: Any, outcome: Any) -> None:
        """Go on: what was waited for has come."""
        self._advance(outcome)

    def _advance(self, outcome: Any) -> None:
        """Send results in until the coroutine waits or ends."""
        while outcome is not PENDING:
            yielded, ended = self._step(outcome)
            if ended:
                self._end(yielded)
                return
            outcome = self._await(yielded)

    def _step(self, outcome: Any) -> tuple[Any, bool]:
        """Resume once; what it yields, or its outcome and True."""
        run, coroutine = here.run, self.coroutine
        run.drives += 1
        try:
            if type(outcome) is Failure:
                return self.context.run(coroutine.throw, outcome.value), False
            return self.context.run(coroutine.send, outcome), False
        except StopIteration as stop:
            return stop.value, True
        except Returned as returned:
            coroutine.close()
            return returned.value, True
        except BaseException as error:
            if error.__traceback__ is not None:  # without this frame, which holds the Deferred, which holds the error
                error.__traceback__ = error.__traceback__.tb_next
            run.catch(error)
            return Failure(error), True
        finally:
            run.drives -= 1

    def _await(self, yielded: Any) -> Any:
        """Return the outcome to send back in, or PENDING if it has to be waited for."""
        try:
            if self.is_generator:
                awaited = self.deferred._position.take(yielded)
            elif isinstance(yielded, cf.Future):
                awaited = self.deferred._position.wait_for_future(wrap_future(yielded))
            else:
                raise TypeError(f"{yielded!r} cannot be awaited without an event loop; Deferreds and futures can")
        except TypeError as error:
            return Failure(error)
        return self._outcome_of(awaited, self)

    def _outcome_of(self, awaited: Any, entry: Any) -> Any:
        """Return the outcome of what was awaited, or PENDING after leaving `entry` there."""
        if not issubclass(type(awaited), Future):
            return awaited
        if awaited._outcome is PENDING:
            self._pass_on(awaited if self.cancels else None)
            if attach(awaited, entry):
                return PENDING
        awaited._heard()
        return awaited._outcome

    def _end(self, value: Any) -> None:
        """Fire the Deferred; if `value` is one itself, as soon as that has its result."""
        deferred = self.deferred
        deferred._runner = None
        try:
            outcome = self._outcome_of(deferred._position.take(value), _Feed(deferred))
        except TypeError as error:
            outcome = Failure(error)
        if outcome is not PENDING:
            deferred._fire(outcome, [])


# -- several Deferreds ------------------------------------------------------------------------------------------------


class DeferredList(Deferred[Any]):
    """Fires when all of the given Deferreds have, with the list of their ``(success, result)``, in order.

    Args:
        deferredList: Deferreds; futures and coroutines too.
        fireOnOneCallback: fire with ``(result, index)`` as soon as one succeeds.
        fireOnOneErrback: fail with `FirstError` as soon as one fails.
        consumeErrors: leave None in those that fail, so that their errors are not reported.

    Raises:
        TypeError: if something in the list is none of these.
    """

    def __init__(
        self,
        deferredList: Iterable[Any],
        fireOnOneCallback: bool = False,
        fireOnOneErrback: bool = False,
        consumeErrors: bool = False,
    ) -> None:
        super().__init__()
        self._sources = [ensureDeferred(one) for one in deferredList]
        self.resultList: list[Any] = [None] * len(self._sources)
        self.fireOnOneCallback = fireOnOneCallback
        self.fireOnOneErrback = fireOnOneErrback
        self.consumeErrors = consumeErrors
        self._left: list[None] = [None] * len(self._sources)
        if not self._sources and not fireOnOneCallback:
            self.callback(self.resultList)
        for index, one in enumerate(self._sources):
            one.addCallbacks(
                self._arrive, self._arrive, callbackArgs=(index, SUCCESS), errbackArgs=(index, FAILURE)
            )

    @property
    def finishedCount(self) -> int:
        """How many have a result."""
        return len(self.resultList) - len(self._left)

    def _arrive(self, result: Any, index: int, success: bool) -> Any:
        self.resultList[index] = (success, result)
        self._left.pop()  # after storing: who finds it empty finds all results
        if success and self.fireOnOneCallback:
            self._fire((result, index), [])
        elif not success and self.fireOnOneErrback:
            self._fire(Failure(FirstError(result, index)), [])
        elif not self._left:
            self._fire(self.resultList, [])
        return None if self.consumeErrors and not success else result

    def cancel(self) -> None:
        """Cancel everything in the list; the results tell how that went."""
        if self.called:
            super().cancel()
        else:
            _cancel_each(self._sources)


def _cancel_each(deferreds: Iterable[Deferred[Any]]) -> None:
    for one in deferreds:
        try:
            one.cancel()
        except Exception:
            logger.exception("exception in the canceller of %r", one)


def gatherResults(deferredList: Iterable[Any], consumeErrors: bool = False) -> Deferred[list[Any]]:
    """Return a Deferred of all results, in order; fails with `FirstError` as soon as one fails, and cancels nothing.

    Args:
        deferredList: Deferreds; futures and coroutines too.
        consumeErrors: leave None in those that fail, so that their errors are not reported.

    Raises:
        TypeError: if something in the list is none of these.
    """
    everything = DeferredList(deferredList, fireOnOneErrback=True, consumeErrors=consumeErrors)
    return everything.addCallback(lambda pairs: [result for _, result in pairs])


def race(ds: Iterable[Any]) -> Deferred[tuple[int, Any]]:
    """Return a Deferred of ``(index, result)`` of the first that succeeds; the others are cancelled.

    Fails with a `FailureGroup` if all fail, and with ``ValueError`` if there are none. Takes the results away: None is
    left in each.

    Args:
        ds: Deferreds; futures and coroutines too.

    Raises:
        TypeError: if something in the list is none of these.
    """
    sources = [ensureDeferred(one) for one in ds]
    if not sources:
        return fail(ValueError("race() of nothing would never have a result: give it one Deferred at least"))
    runners = _Race(sources)
    for index, one in enumerate(sources):
        one.addCallbacks(runners.succeeded, runners.failed, callbackArgs=(index,), errbackArgs=(index,))
    return runners.winner


class _Race:
    """The state of one race."""

    def __init__(self, sources: list[Deferred[Any]]) -> None:
        self.winner: Deferred[tuple[int, Any]] = Deferred(lambda _: _cancel_each(sources))
        self._sources = sources
        self._failures: dict[int, Failure] = {}

    def succeeded(self, result: Any, index: int) -> None:
        """Win, if nobody has won before, and cancel the others."""
        if self.winner._fire((index, result), []):
            _cancel_each(one for number, one in enumerate(self._sources) if number != index)

    def failed(self, failure: Failure, index: int) -> None:
        """Lose; the last one to do so ends the race."""
        self._failures[index] = failure
        failures = dict(self._failures)
        if len(failures) == len(self._sources):
            self.winner._fire(Failure(FailureGroup(failures[number] for number in sorted(failures))), [])


# -- locks and queues -------------------------------------------------------------------------------------------------


class _ConcurrencyPrimitive:
    """A number of tokens, handed out in the order of asking.

    The guard is held for a few stores, never while a Deferred is fired. It is re-entrant, because a signal handler or
    a finalizer may interrupt them.
    """

    def __init__(self, tokens: int) -> None:
        self.limit = tokens
        self.tokens = tokens
        self.waiting: deque[Deferred[Any]] = deque()
        self._guard = RLock()

    def acquire(self) -> Deferred[Self]:
        """Return a Deferred that fires with this object, in turn; cancelling it withdraws the request."""
        deferred: Deferred[Self] = Deferred(partial(_withdraw, self.waiting))
        with self._guard:
            self.waiting.append(deferred)
        self._hand_out()
        return deferred

    def release(self) -> None:
        """Give a token back; whoever waits longest gets it, and its callbacks run in this thread.

        Raises:
            AssertionError: if there is nothing to release.
        """
        with self._guard:
            if self.tokens >= self.limit:
                raise AssertionError(f"{type(self).__name__}.release() was called more often than it was acquired")
            self.tokens += 1
        self._hand_out()

    def _hand_out(self) -> None:
        while True:
            with self._guard:
                if not (self.tokens and self.waiting):
                    return
                self.tokens -= 1
                deferred = self.waiting.popleft()
            if not deferred._fire(self, []):  # cancelled in between: on to the next one
                with self._guard:
                    self.tokens += 1

    def run(self, f: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[Any]:
        """Acquire, call ``f(*args, **kwargs)``, release when what it returns has its result; a Deferred of that."""
        return self.acquire().addCallback(lambda _: maybeDeferred(f, *args, **kwargs).addBoth(self._release_after))

    def _release_after(self, outcome: Any) -> Any:
        self.release()
        return outcome

    def __aenter__(self) -> Deferred[Self]:
        return self.acquire()

    def __aexit__(self, *_: object) -> Deferred[bool]:
        self.release()
        return succeed(False)


def _withdraw(waiting: deque[Deferred[Any]], deferred: Deferred[Any]) -> None:
    with suppress(ValueError):  # its turn has come in between
        waiting.remove(deferred)


class DeferredLock(_ConcurrencyPrimitive):
    """A lock whose ``acquire()`` returns a Deferred."""

    def __init__(self) -> None:
        super().__init__(1)

    @property
    def locked(self) -> bool:
        """Whether somebody has it."""
        return not self.tokens


class DeferredSemaphore(_ConcurrencyPrimitive):
    """A semaphore whose ``acquire()`` returns a Deferred.

    Args:
        tokens: how many may have it at the same time.

    Raises:
        ValueError: if `tokens` is less than 1.
    """

    def __init__(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"DeferredSemaphore() wants at least one token, not {tokens!r}")
        super().__init__(tokens)


class DeferredQueue:
    """A queue whose ``get()`` returns a Deferred.

    Args:
        size: how many objects it holds at most; None is without limit.
        backlog: how many getters may wait at most; None is without limit.
    """

    def __init__(self, size: int | None = None, backlog: int | None = None) -> None:
        self.size = size
        self.backlog = backlog
        self.pending: deque[Any] = deque()
        self.waiting: deque[Deferred[Any]] = deque()
        self._guard = RLock()

    def put(self, obj: Any) -> None:
        """Add an object; whoever waits longest gets it, and its callbacks run in this thread.

        Raises:
            QueueOverflow: if the queue is full.
        """
        while (getter := self._store(obj)) is not None:
            if getter._fire(obj, []):
                return

    def _store(self, obj: Any) -> Deferred[Any] | None:
        """Return who is to get `obj`, or None after storing it."""
        with self._guard:
            if self.waiting:
                return self.waiting.popleft()
            if self.size is not None and len(self.pending) >= self.size:
                raise QueueOverflow(f"the queue holds {len(self.pending)} objects already")
            self.pending.append(obj)
            return None

    def get(self) -> Deferred[Any]:
        """Return a Deferred of the next object; cancelling it withdraws the request.

        Raises:
            QueueUnderflow: if the queue is empty, and as many wait already as may.
        """
        with self._guard:
            if not self.pending:
                if self.backlog is not None and len(self.waiting) >= self.backlog:
                    raise QueueUnderflow(f"{len(self.waiting)} getters wait already")
                getter: Deferred[Any] = Deferred(partial(_withdraw, self.waiting))
                self.waiting.append(getter)
                return getter
            obj = self.pending.popleft()
        return succeed(obj)
