"""`Future`: a ``concurrent.futures.Future`` that can be chained; and the kinds of stages, which are futures too.

Here stands what users see: signatures and what they promise. How it comes true is in `futurechain.core`; the methods
that have a faster form there are exchanged for that at the end of this module.
"""

from __future__ import annotations

import concurrent.futures as cf
import os
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar, cast, overload
from weakref import ref

from futurechain import clock
from futurechain.core import fast
from futurechain.core.attaching import append_stage, attach_local, attach_stage, kinds, plan_clean_up
from futurechain.core.cancel import cancel, expire
from futurechain.core.flatten import pin
from futurechain.core.handlers import (
    Callbacks,
    Catch,
    Expiry,
    Finally,
    Handler,
    Then,
    check_handler,
    check_types,
    label,
)
from futurechain.core.loop import INLINE_KINDS, InlineDependent, LocalDependent, QueuedDependent
from futurechain.core.lost import Guard, finalize
from futurechain.core.scheduler import chain_end, later
from futurechain.core.state import Pending, consumers
from futurechain.core.stdlib import StandardFuture
from futurechain.failure import Failure

__all__ = ["ExecutorStage", "Future", "LocalStage", "Returned", "Stage", "Waited", "fail", "succeed"]

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
Waited: TypeAlias = cf.Future[U] | Coroutine[Any, Any, U]
"""What a handler may return to have its stage wait."""
Returned: TypeAlias = U | Waited[U]
"""What a handler may return. (What only ever waits has overloads of its own: mypy finds no ``U`` for that here.)"""
E = TypeVar("E", bound=BaseException)
Types: TypeAlias = type[E] | tuple[type[E], ...]


class MissingHandler:
    """What ``catch(types)`` is worth to a type checker, which complains in whatever way it is used, or not used."""

    __slots__ = ()


Executor: TypeAlias = cf.Executor


class Future(StandardFuture[T]):
    """The result of work that may not be done yet, which can be chained.

    Settled once and never re-opened. Two families of methods go on from it: Twisted's (``addCallback`` and so on)
    attach to the **end of the chain** that this future belongs to, the promises' (``then`` and so on) to **this**
    future.

    Threads: Twisted-family callbacks run in the thread that settles the stage before, or at once in the attaching
    thread. Promise-family stages run on the chain's executor: the one whose ``submit`` began it, or `INLINE`.
    Memory: a dependent is dropped as soon as it has run; a result lives as long as somebody can ask for it.
    Cancellation: settles at once, goes down, and up to parents that nobody else consumes.

    Example:
        >>> pool.submit(int, "42").then(hex).catch(ValueError, lambda error: "no number").result()
        '0x2a'
    """

    __slots__ = ()

    # -- the promise family ---------------------------------------------------------------------------------------

    @overload
    def then(self, on_result: None = None, on_error: None = None, *, on: Executor | None = None) -> Future[T]: ...
    @overload
    def then(
        self, on_result: None, on_error: Callable[[Any], Waited[V]], *, on: Executor | None = None
    ) -> Future[T | V]: ...
    @overload
    def then(
        self, on_result: None = None, *, on_error: Callable[[Any], Waited[V]], on: Executor | None = None
    ) -> Future[T | V]: ...
    @overload
    def then(
        self, on_result: None, on_error: Callable[[Any], Returned[V]], *, on: Executor | None = None
    ) -> Future[T | V]: ...
    @overload
    def then(
        self, on_result: None = None, *, on_error: Callable[[Any], Returned[V]], on: Executor | None = None
    ) -> Future[T | V]: ...
    @overload
    def then(
        self, on_result: Callable[[T], Waited[U]], on_error: None = None, *, on: Executor | None = None
    ) -> Future[U]: ...
    @overload
    def then(
        self, on_result: Callable[[T], Returned[U]], on_error: None = None, *, on: Executor | None = None
    ) -> Future[U]: ...
    @overload
    def then(
        self, on_result: Callable[[T], Waited[U]], on_error: Callable[[Any], Waited[V]], *, on: Executor | None = None
    ) -> Future[U | V]: ...
    @overload
    def then(
        self, on_result: Callable[[T], Waited[U]], on_error: Callable[[Any], Returned[V]], *, on: Executor | None = None
    ) -> Future[U | V]: ...
    @overload
    def then(
        self, on_result: Callable[[T], Returned[U]], on_error: Callable[[Any], Waited[V]], *, on: Executor | None = None
    ) -> Future[U | V]: ...
    @overload
    def then(
        self,
        on_result: Callable[[T], Returned[U]],
        on_error: Callable[[Any], Returned[V]],
        *,
        on: Executor | None = None,
    ) -> Future[U | V]: ...
    def then(self, on_result: Any = None, on_error: Any = None, *, on: Any = None) -> Future[Any]:
        """Attach a stage to this future; return the stage, which is the first future of a new chain.

        ``g = f.then(fn)`` and ``g = pool.submit(lambda: fn(f.result()))`` give the same outcome; the first holds no
        thread, passes errors on without a call, and cancels upward.

        Args:
            on_result: called with the result, if there is one. A future or coroutine that it returns is waited for.
            on_error: called with the exception, if there is one; never with an error of `on_result`.
            on: the executor for this stage and all after it; by default that of the chain.

        Raises:
            TypeError: if a handler is neither callable nor None, or `on` is no executor; or `on_result` is an
                ``async def`` function, and the executor does not share our memory.

        Example:
            >>> succeed("rose").then(str.upper).result()
            'ROSE'
        """
        handler = Then(check_handler(on_result, "then"), check_handler(on_error, "then"))
        return cast("Future[Any]", attach_stage(self, handler, on))

    @overload
    def catch(self, handler: None, /, *, on: Executor | None = None) -> Future[T]: ...
    @overload
    def catch(  # type: ignore[overload-overlap]  # a class is a function, too
        self, types: type[BaseException], /, *, on: Executor | None = None
    ) -> Coroutine[Any, Any, MissingHandler]: ...
    @overload
    def catch(self, handler: Callable[[Any], Waited[V]], /, *, on: Executor | None = None) -> Future[T | V]: ...
    @overload
    def catch(self, handler: Callable[[Any], Returned[V]], /, *, on: Executor | None = None) -> Future[T | V]: ...
    @overload
    def catch(self, types: Types[E], handler: None, /, *, on: Executor | None = None) -> Future[T]: ...
    @overload
    def catch(
        self, types: Types[E], handler: Callable[[E], Waited[V]], /, *, on: Executor | None = None
    ) -> Future[T | V]: ...
    @overload
    def catch(
        self, types: Types[E], handler: Callable[[E], Returned[V]], /, *, on: Executor | None = None
    ) -> Future[T | V]: ...
    def catch(self, *args: Any, on: Any = None) -> Any:
        """Attach a stage that runs on errors only: ``catch(handler)`` or ``catch(types, handler)``.

        Args:
            types: an exception class or a tuple of them; other errors are passed on. By default every error.
            handler: called with the exception; what it returns is the result of the stage.
            on: the executor for this stage and all after it.

        Raises:
            TypeError: if the arguments are not of that form.

        Example:
            >>> fail(KeyError("k")).catch(LookupError, lambda error: "nothing").result()
            'nothing'
        """
        if len(args) == 1 and not (isinstance(args[0], type) and issubclass(args[0], BaseException)):
            return cast("Future[Any]", attach_stage(self, Then(None, check_handler(args[0], "catch")), on))
        if len(args) != 2:
            given = f"{args[0].__name__} and no handler" if len(args) == 1 else f"{len(args)} arguments"
            raise TypeError(f"catch() takes catch(handler) or catch(types, handler), not {given}")
        wanted, handler = check_types(args[0]), check_handler(args[1], "catch")
        return cast("Future[Any]", attach_stage(self, Handler() if handler is None else Catch(wanted, handler), on))

    def finally_(self, fn: Callable[[], object] | None, *, on: cf.Executor | None = None) -> Future[T]:
        """Attach a stage that calls ``fn()`` however this future ends, and keeps its outcome.

        A future that `fn` returns is waited for. If `fn` fails, its error replaces the outcome.

        Args:
            fn: called without arguments.
            on: the executor for this stage and all after it.

        Raises:
            TypeError: if `fn` is neither callable nor None.

        Example:
            >>> succeed("rose").finally_(lambda: print("cleaned up")).result()
            cleaned up
            'rose'
        """
        check_handler(fn, "finally_")
        return cast("Future[T]", attach_stage(self, Handler() if fn is None else Finally(fn), on))

    # -- Twisted's family -----------------------------------------------------------------------------------------

    def addCallbacks(  # Twisted's signature
        self,
        callback: Any,
        errback: Any = None,
        callbackArgs: tuple[Any, ...] = (),
        callbackKeywords: Any = {},  # noqa: B006  # read only
        errbackArgs: tuple[Any, ...] = (),
        errbackKeywords: Any = {},  # noqa: B006  # read only
    ) -> Future[Any]:
        """Attach a pair to the end of the chain; return the new final future of the chain.

        Args:
            callback: called as ``callback(result, *callbackArgs, **callbackKeywords)``.
            errback: called as ``errback(failure, *errbackArgs, **errbackKeywords)``; exactly one of the two runs.
            callbackArgs, callbackKeywords, errbackArgs, errbackKeywords: further arguments.

        Raises:
            TypeError: if one of the two is neither callable nor None.

        Example:
            >>> succeed("101").addCallbacks(int, lambda failure: 0, callbackArgs=(2,)).result()
            5
        """
        on_result = check_handler(callback, "addCallbacks")
        on_error = check_handler(errback, "addCallbacks")
        handler = Callbacks(
            None if on_result is None else (on_result, tuple(callbackArgs or ()), dict(callbackKeywords or {})),
            None if on_error is None else (on_error, tuple(errbackArgs or ()), dict(errbackKeywords or {})),
        )
        return cast("Future[Any]", append_stage(self, handler))

    @overload
    def addCallback(self, callback: None) -> Future[T]: ...
    @overload
    def addCallback(
        self, callback: Callable[Concatenate[T, P], Waited[U]], *args: P.args, **kwargs: P.kwargs
    ) -> Future[U]: ...
    @overload
    def addCallback(
        self, callback: Callable[Concatenate[T, P], Returned[U]], *args: P.args, **kwargs: P.kwargs
    ) -> Future[U]: ...
    def addCallback(self, callback: Any, *args: Any, **kwargs: Any) -> Future[Any]:
        """Attach ``callback(result, *args, **kwargs)`` to the end of the chain; return the new final future.

        Raises:
            TypeError: if `callback` is neither callable nor None.

        Example:
            >>> succeed("101").addCallback(int, base=2).result()
            5
        """
        check_handler(callback, "addCallback")
        return self.addCallbacks(callback, None, args, kwargs)

    @overload
    def addErrback(self, errback: None) -> Future[T]: ...
    @overload
    def addErrback(
        self, errback: Callable[Concatenate[Failure, P], Waited[V]], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T | V]: ...
    @overload
    def addErrback(
        self, errback: Callable[Concatenate[Failure, P], Returned[V]], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T | V]: ...
    def addErrback(self, errback: Any, *args: Any, **kwargs: Any) -> Future[Any]:
        """Attach ``errback(failure, *args, **kwargs)`` to the end of the chain; return the new final future.

        Raises:
            TypeError: if `errback` is neither callable nor None.

        Example:
            >>> fail(KeyError("k")).addErrback(lambda failure: failure.getErrorMessage()).result()
            "'k'"
        """
        check_handler(errback, "addErrback")
        return self.addCallbacks(None, errback, errbackArgs=args, errbackKeywords=kwargs)

    def addBoth(self, callback: Any, *args: Any, **kwargs: Any) -> Future[Any]:
        """Attach ``callback(result_or_failure, *args, **kwargs)`` to the end of the chain; return the new final future.

        Raises:
            TypeError: if `callback` is neither callable nor None.

        Example:
            >>> succeed(5).addBoth(print, "pounds").final.result()
            5 pounds
        """
        check_handler(callback, "addBoth")
        return self.addCallbacks(callback, callback, args, kwargs, args, kwargs)

    @property
    def final(self) -> Future[Any]:
        """The present final future of the chain that this future belongs to.

        Example:
            >>> future = succeed("5")
            >>> future.addCallback(int) is future.final
            True
        """
        return cast("Future[Any]", chain_end(self))

    # -- others ---------------------------------------------------------------------------------------------------

    @classmethod
    def succeed(cls, value: U) -> Future[U]:
        """Return a future that has `value` already.

        Example:
            >>> Future.succeed(5).result()
            5
        """
        return succeed(value)

    @classmethod
    def fail(cls, exception: BaseException | Failure) -> Future[Any]:
        """Return a future that has failed with `exception` already.

        Example:
            >>> Future.fail(KeyError("k")).exception()
            KeyError('k')
        """
        return fail(exception)

    def shield(self) -> Future[T]:
        """Return a future with the same outcome, whose cancellation does not reach this one.

        Example:
            >>> task = delay(0.01, "done")
            >>> task.shield().cancel(), task.result()
            (True, 'done')
        """
        return cast("Future[T]", attach_local(Shield, self, Handler(), self._scheduler))

    def timeout(self, seconds: float, exception: BaseException | None = None) -> Future[T]:
        """Return a future with the same outcome, or `exception` if that takes longer than `seconds`.

        Expiry cancels upward, through this branch only. The timer is withdrawn when this future is settled first.

        Args:
            seconds: how long to wait from now; not negative.
            exception: by default ``TimeoutError``.

        Raises:
            TypeError: if `seconds` is no number, or `exception` no exception.
            ValueError: if `seconds` is negative, NaN or infinite.

        Example:
            >>> delay(3600).timeout(0.01).exception()
            TimeoutError('not settled within 0.01 seconds')
        """
        seconds = clock.check_seconds(seconds, "timeout()")
        if not (exception is None or isinstance(exception, BaseException)):
            raise TypeError(f"timeout() wants an exception such as ValueError('...'), not {exception!r}")
        error = TimeoutError(f"not settled within {seconds:g} seconds") if exception is None else exception
        handler = Expiry()
        child = attach_local(LocalStage, self, handler, self._scheduler)
        if not child.done():
            timer = clock.call_later(seconds, expire, ref(child), Failure(error))
            handler.withdraw = timer.cancel
            if child.done():  # settled while the timer was being set
                timer.cancel()
        return cast("Future[T]", child)

    def cancel(self) -> bool:
        """Cancel the future, and upward what nobody else consumes; runs local dependents in this thread.

        Returns:
            True if it is cancelled now; False if it is running, or settled otherwise.

        Example:
            >>> delay(3600).cancel()
            True
        """
        cancel(self)
        return self.cancelled()

    def __await__(self) -> Generator[Any, Any, T]:
        try:
            self._observed()
            if not self.done():
                yield from later("suspend")(self)
            return self.result()
        finally:
            del self  # no cycle: exception, traceback, this frame, exception

    def __repr__(self) -> str:
        state = self._state.lower()
        outcome = self._outcome
        if type(outcome) is not Pending:
            failed = type(outcome) is Failure
            name = f"raised {type(outcome.value).__name__}" if failed else f"returned {type(outcome).__name__}"
            state = "cancelled" if self.cancelled() else f"finished {name}"
        stage = "" if self._handler is None else f" stage {label(self._handler)}"
        waiting = sum(1 for _ in consumers(self))
        behind = f", {waiting} dependent{'' if waiting == 1 else 's'}" if waiting else ""
        return f"<Future{stage} {state} on {self._scheduler.name}{behind}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the pictures of this future's chain that a notebook shows."""
        return cast("dict[str, str]", later("mimebundle")(self))

    # -- for the core -----------------------------------------------------------------------------------------------

    def _plan_clean_up(self, handler: Handler) -> Callable[[], object] | None:
        """Return what is left to do once this stage, which is cancelled before its turn, is settled."""
        return plan_clean_up(self, handler)

    def _as_source(self) -> Any:
        """Return what a dependent has as its source: this future, or a weak reference to a bare one, guarded."""
        if not self._held_weakly:
            return self
        if type(self) is Future:
            self.__class__ = Guarded
        elif type(self) is not Guarded and "_guard" not in self.__dict__:  # a class of the user's
            guard = Guard()
            if self.__dict__.setdefault("_guard", guard) is guard:  # the one step that decides whose it is
                guard.watch_over(self)
        return ref(self)

    _pin = pin


class Guarded(Future[T]):
    """What a bare future becomes when something waits for it: it notices that it goes before it is settled.

    The finalizer is no method of `Future`, because every stage would have to pay for that. (To assign the class is
    one store, and doing it twice does no harm, so it needs no deciding who does it.)
    """

    __slots__ = ()
    __del__ = finalize


# -- the kinds of stages ----------------------------------------------------------------------------------------------


class Stage(Future[T]):
    """A future that its chain settles."""

    __slots__ = ()
    if not TYPE_CHECKING:  # it is called as that of Future is
        __init__ = object.__init__
    _held_weakly = False


class InlineStage(InlineDependent, Stage[T]):
    """A promise-family stage with one function for values, in the thread that settles its source."""

    __slots__ = ()


class TwistedStage(InlineDependent, Stage[T]):
    """A Twisted-family stage with one function for values."""

    __slots__ = ()
    _twisted = True


class LocalStage(LocalDependent, Stage[T]):
    """Any other stage in the thread that settles its source; and what has no source among futures."""

    __slots__ = ()


class Shield(LocalStage[T]):
    """A stage whose cancellation does not go up."""

    __slots__ = ()
    _shielded = True


class ExecutorStage(QueuedDependent, Stage[T]):
    """A stage, or a task, that runs on an executor, in the context in which it was attached."""

    __slots__ = ("_call", "_context")
    _on_executor = True


class SettledStage(Stage[T]):
    """A stage, or a future, that was settled when it was made: three stores less."""

    __slots__ = ()
    _handler = _source = None
    _dependents = ()  # type: ignore[assignment]  # it gets none


for _cls in (Guarded, InlineStage, TwistedStage, LocalStage, Shield, ExecutorStage, SettledStage):
    _cls.__name__ = _cls.__qualname__ = "Future"  # what users see in messages


# -- futures that are settled already ---------------------------------------------------------------------------------


def succeed(value: U) -> Future[U]:
    """Return a future that has `value` already; a `Failure` makes it a failed one.

    Example:
        >>> succeed(5).result()
        5
    """
    return cast("Future[U]", fast.succeed(value))


def fail(exception: BaseException | Failure) -> Future[Any]:
    """Return a future that has failed with `exception` already.

    Raises:
        TypeError: if it is not an exception.

    Example:
        >>> fail(KeyError("k")).exception()
        KeyError('k')
    """
    if isinstance(exception, Failure):
        return succeed(exception)
    if not isinstance(exception, BaseException):
        raise TypeError(f"fail() wants an exception such as ValueError('...'), not {exception!r}")
    return succeed(Failure(exception))


# -- the fast forms ---------------------------------------------------------------------------------------------------

kinds.inline, kinds.local, kinds.queued, kinds.twisted = InlineStage, LocalStage, ExecutorStage, TwistedStage
INLINE_KINDS.update((InlineStage, TwistedStage))
fast.use(Future, Guarded, InlineStage, SettledStage, TwistedStage)


def _in_place(plain: Any, fast_form: Any) -> Any:
    """Return the fast form with the signature and the docstring of the plain one, which stays reachable."""
    return wraps(plain)(fast_form)


_plain_then = Future.then
Stage.set_result = StandardFuture.set_result  # type: ignore[method-assign]
Future.set_result = _in_place(StandardFuture.set_result, fast.set_result)  # type: ignore[method-assign]
Future.addCallback = _in_place(Future.addCallback, fast.add_callback)  # type: ignore[method-assign]
Future.then = _in_place(_plain_then, fast.then_on_bare)  # type: ignore[method-assign]
InlineStage.then = _in_place(_plain_then, fast.then_on_inline)  # type: ignore[method-assign]
succeed = _in_place(succeed, fast.succeed)
SettledStage.then = _in_place(_plain_then, fast.then_on_settled)  # type: ignore[method-assign]

if os.environ.get("FUTURECHAIN_DEBUG", "").lower() not in {"", "0", "false", "no", "off"}:
    later("debug")()
