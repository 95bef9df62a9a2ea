"""Deferreds of calls and of coroutines."""

from __future__ import annotations

import concurrent.futures as cf
import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from futurechain.flow.coroutines import Returned
from futurechain.defer.deferred import Deferred, Feed, fail, succeed
from futurechain.failure import Failure
from futurechain.executors.wrapped_future import wrap_future
from futurechain.future import Future
from futurechain.core.state import PENDING, attach
from futurechain.core.thread_state import current

__all__ = ["Runner", "ensureDeferred", "execute", "inlineCallbacks", "maybeDeferred"]

P = ParamSpec("P")
T = TypeVar("T")


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
        return Runner(coro).start()
    raise TypeError(f"ensureDeferred() wants a coroutine, a future or a Deferred, not {coro!r}")


def _is_waitable(value: Any) -> bool:
    return issubclass(type(value), (Deferred, cf.Future, types.CoroutineType))


def inlineCallbacks(
    fn: Callable[P, Generator[Any, Any, T] | Coroutine[Any, Any, T]],
) -> Callable[P, Deferred[T]]:
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
    def call(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        coroutine: Any = fn(*args, **kwargs)
        if isinstance(coroutine, types.GeneratorType) or inspect.iscoroutine(coroutine):
            return Runner(coroutine).start()
        name = getattr(fn, "__qualname__", fn)
        raise TypeError(f"{name} returned {coroutine!r}: @inlineCallbacks wants a function with `yield` or `await`")

    return call


class _Coroutine(Deferred[T]):
    """The Deferred of a coroutine: how a cancellation ends is the coroutine's decision."""

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self._runner: Runner | None = runner  # until the coroutine has ended

    def cancel(self) -> None:
        """Cancel what the coroutine waits for; if it runs just now, the next thing."""
        runner = self._runner
        if runner is None:
            self._position.cancel_inner()
        else:
            runner.cancel()


class Runner:
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

    def _is_waiting(self) -> bool:
        return not self.deferred.called

    def _fire(self, future: Any, outcome: Any) -> None:
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
        run, coroutine = current.thread, self.coroutine
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
        if not awaited.done():
            self._pass_on(awaited if self.cancels else None)
            if attach(awaited, entry):
                return PENDING
        awaited._observed()
        return awaited._outcome

    def _end(self, value: Any) -> None:
        """Fire the Deferred; if `value` is one itself, as soon as that has its result."""
        deferred = self.deferred
        deferred._runner = None
        try:
            outcome = self._outcome_of(deferred._position.take(value), Feed(deferred))
        except TypeError as error:
            outcome = Failure(error)
        if outcome is not PENDING:
            deferred._fire(outcome, [])

