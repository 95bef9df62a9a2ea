"""Deferreds of calls, of generators and of coroutines."""

from __future__ import annotations

import concurrent.futures as cf
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from futurechain.defer.adding import Waited
from futurechain.defer.deferred import Deferred, fail, succeed
from futurechain.defer.engine import OWNED, run
from futurechain.defer.errors import NotACoroutineError
from futurechain.defer.state import PENDING, State, fire, is_failure, take_now, wait_for
from futurechain.executors.wrapped_future import wrap_future
from futurechain.failure import Failure
from futurechain.flow.driver import Driver, Steps, decorate, is_steps

__all__ = ["ensureDeferred", "execute", "inlineCallbacks", "maybeDeferred", "start"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def maybeDeferred(f: Callable[P, Waited[T]], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
@overload
def maybeDeferred(f: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
def maybeDeferred(f: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Deferred[Any]:
    """Call ``f(*args, **kwargs)``; return a Deferred of what it returns or raises.

    A Deferred that it returns is returned as it is; futures and coroutines are waited for.

    Example:
        >>> maybeDeferred(int, "five").addErrback(lambda failure: 0).result
        0
    """
    try:
        value: Any = f(*args, **kwargs)
    except BaseException as error:
        return fail(error)
    if issubclass(type(value), (Deferred, cf.Future, types.CoroutineType)):
        return ensureDeferred(value)
    return fail(value) if is_failure(value) else succeed(value)


@overload
def execute(callable: Callable[P, Waited[T]], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
@overload
def execute(callable: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
def execute(callable: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Deferred[Any]:  # noqa: A002
    """Call ``callable(*args, **kwargs)``; return a Deferred of what it returns or raises. Like `maybeDeferred`.

    Example:
        >>> execute(int, "101", base=2).result
        5
    """
    return maybeDeferred(callable, *args, **kwargs)


def ensureDeferred(coro: Waited[T] | Steps[T]) -> Deferred[T]:
    """Return a Deferred of `coro`: of a coroutine, a generator as of `inlineCallbacks`, a future, or a Deferred.

    Raises:
        NotACoroutineError: if it is none of these.

    Example:
        >>> ensureDeferred(pool.submit(pow, 2, 5)).future.result()
        32
    """
    if isinstance(coro, Deferred):
        return coro
    return Deferred.fromFuture(coro) if isinstance(coro, cf.Future) else start(coro)


def inlineCallbacks(fn: Callable[P, Steps[T]]) -> Callable[P, Deferred[T]]:
    """Turn a generator function, or an ``async def`` function, into one that returns a `Deferred`.

    Each Deferred that it yields (or awaits) pauses it without holding a thread; its result comes back in, its error is
    raised there. Anything else that a generator yields comes right back. Cancelling the returned Deferred cancels the
    one that is waited for; the generator sees ``CancelledError`` there, and may still succeed.

    Raises:
        TypeError: if `fn` is not callable; and, at a call, if it returned neither a generator nor a coroutine.

    Example:
        >>> @inlineCallbacks
        ... def add(one, other):
        ...     return (yield one) + (yield other)
        >>> add(succeed(2), succeed(3)).result
        5
    """
    return decorate(fn, start)


def start(steps: Steps[T]) -> Deferred[T]:
    """Run a generator or a coroutine; return the Deferred of its result.

    Raises:
        NotACoroutineError: if `steps` is neither.
    """
    if not is_steps(steps):
        raise NotACoroutineError(f"{steps!r} is not a coroutine, a generator, a future or a Deferred")
    runner = _Runner(steps)
    deferred: Deferred[T] = runner.deferred
    try:
        following = runner.take(None)
        if following is not None:
            run(following, OWNED)
        return deferred
    finally:
        del runner, deferred  # no cycle: a traceback may keep this frame
        following = None


class _Coroutine(Deferred[T]):
    """The Deferred of a coroutine: how a cancellation ends is the coroutine's decision."""

    def __init__(self) -> None:
        super().__init__()
        self._requests: list[None] = []
        """One for each cancellation that has not reached anything yet; whoever takes it out passes it on."""

    def _cancel(self) -> Any:
        if self.called:
            return self._forward()
        self._requests.append(None)
        return self._pass_on()

    def _pass_on(self) -> Any:
        """Pass a cancellation on to what is waited for now; if nothing is, the next thing gets it."""
        if self._awaited is None:
            return None
        try:
            self._requests.pop()
        except IndexError:
            return None
        return self._forward()


class _Runner:
    """Advances one generator or coroutine; a relay in what that waits for, which is how it owns its steps."""

    __slots__ = ("deferred", "driver")

    def __init__(self, steps: Steps[Any]) -> None:
        self.driver = Driver(steps)
        self.deferred: _Coroutine[Any] = _Coroutine()

    def take(self, outcome: Any) -> State | None:
        """Go on; return a Deferred that the caller has to go on with."""
        deferred = self.deferred
        deferred._awaited = None
        try:
            following = self._advance(Failure(outcome.value) if is_failure(outcome) else outcome)
            if deferred._requests and (target := deferred._pass_on()) is not None:
                target.cancel()
            return following
        except RecursionError as error:  # deep in the stack
            return fire(deferred, Failure(error))  # type: ignore[no-any-return]
        finally:
            del self, outcome, deferred  # no cycle: a traceback may keep this frame
            following = target = None

    def _advance(self, outcome: Any) -> State | None:
        """Send results in until the coroutine waits or ends."""
        try:
            while True:
                yielded, ended = self.driver.resume(outcome, "INLINE")
                if ended:
                    return self._end(yielded)
                try:
                    awaited = self._wanted(yielded)
                    outcome = take_now(awaited) if isinstance(awaited, State) else awaited
                    if outcome is PENDING:
                        return wait_for(self.deferred, awaited, self)  # type: ignore[no-any-return]
                except TypeError as error:
                    outcome = Failure(error)
        finally:
            del self, outcome
            awaited = yielded = None

    def _wanted(self, yielded: Any) -> Any:
        """Return the Deferred that is to be waited for, or the value that comes right back."""
        kind = type(yielded)
        if issubclass(kind, Deferred):
            return yielded
        if issubclass(kind, cf.Future):
            return Deferred.fromFuture(wrap_future(yielded).final if self.driver.is_generator else yielded)
        if not self.driver.is_generator:
            raise TypeError(f"{yielded!r} cannot be awaited without an event loop; Deferreds and futures can")
        return start(yielded) if is_steps(yielded) else yielded

    def _end(self, value: Any) -> State | None:
        """Fire the Deferred; if `value` is one itself, or a future, it waits for that."""
        is_plain = not issubclass(type(value), (State, cf.Future, types.CoroutineType))
        deferred = fire(self.deferred, value if is_plain else None)
        if deferred is not None and not is_plain:
            deferred._callbacks.insert(0, (lambda _: value, None, None))  # it is ours: nobody else takes any out
        return deferred  # type: ignore[no-any-return]
