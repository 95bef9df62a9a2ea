"""`Future`: a ``concurrent.futures.Future`` that can be chained.

A stage *is* the future it returns: `Plain` and `Callback_` hold one function for values and run in the thread that
settles their parent, `Local` does so with a `Plan`, `Hop` runs on an executor. `links` decides who may settle a future
and who sees its dependents, `settling` is the loop that carries outcomes on, `adoption` what happens when a handler
returns a future, `cancelling` how cancellation travels.

A child holds its parent, to cancel it when nobody else wants it. A parent that a *producer* has to settle (a bare
``Future()``) is held by a weak reference: it must die when the producer drops it, and takes its dependents out of
their misery then (`LostFutureError`).
"""

from __future__ import annotations

import concurrent.futures as cf
import os
import sys
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar, cast, overload
from weakref import ref

from futurechain import clock
from futurechain.core import unobserved as report
from futurechain.core.flatten import PLAIN_VALUES, break_ring, pin, resolve
from futurechain.core.cancel import expire, give_up
from futurechain.core.scheduler import Call, Home, Place, Tail, chain_end, chain_of, extend, home_of, later
from futurechain.errors import CancelledError, LostFutureError
from futurechain.failure import Failure
from futurechain.core.state import FORWARDED, PENDING, PLAIN, RUNNING, TICKET, Pending, Token, attach, claim, consumers, withdraw
from futurechain.core.outcomes import failed, path_behind, publish
from futurechain.core.handlers import Callbacks, Catch, Expiry, Finally, Plan, Then, check_handler, check_types, label
from futurechain.core.thread_state import DEEPEST, Run, here
from futurechain.core.loop import carry_on, execute, flush, leave, put_off, settle, start, take_queued
from futurechain.core.stdlib import StandardFuture
from futurechain.core.observers import watch

__all__ = [
    "INLINE",
    "MISSING",
    "Future",
    "Hop",
    "Local",
    "Returned",
    "Waited",
    "fail",
    "new_task",
    "stage_on",
    "succeed",
]

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

MISSING: Any = Token("MISSING")


class Future(StandardFuture[T]):
    """The result of work that may not be done yet, which can be chained.

    Settled once and never re-opened. Two families of methods go on from it: Twisted's (``addCallback`` and so on)
    attach to the **end of the chain** that this future belongs to, the promises' (``then`` and so on) to **this**
    future.

    Threads: Twisted-family callbacks run in the thread that settles the stage before, or at once in the attaching
    thread. Promise-family stages run on the chain's executor: the one whose ``submit`` began it, or `INLINE`.
    Memory: a dependent is dropped as soon as it has run; a result lives as long as somebody can ask for it.
    Cancellation: settles at once, goes down, and up to parents that nobody else consumes.
    """

    __slots__ = ()

    def __init__(self) -> None:
        self._link = [TICKET]
        self._outcome = PENDING
        self._fn = self._parent = None
        self._home = _HERE

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
        self, on_result: Callable[[T], Returned[U]], on_error: Callable[[Any], Returned[V]], *, on: Executor | None = None
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
            TypeError: if a handler is neither callable nor None, or `on` is no executor.
        """
        place = self._home
        if on is None and on_error is None and place.local and callable(on_result):
            child: Any = Plain()  # the fast path: what `_attach` does, in place
            child._home = place.next or place.grow()
            child._fn = on_result
            child._outcome = PENDING
            if type(self) is Future:  # what `_anchor` does, in place
                self.__class__ = Guarded
                child._parent = ref(self)
            else:
                child._parent = self._anchor()
            own = child._link = [None]  # room for one dependent, which is the rule, in 8 bytes
            del own[0]
            link = self._link
            if len(link) != 1:  # somebody waits already, or it is settled
                return _connect(self, child)  # type: ignore[no-any-return]
            link.append(child)
            return child if self._outcome is PENDING else _too_late(self, child)  # type: ignore[no-any-return]
        check_handler(on_result, "then")
        if on is None and on_error is None and on_result is not None:
            return stage_on(self, on_result, None)
        return stage_on(self, Then(on_result, check_handler(on_error, "then")), on)

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
        """
        if len(args) == 1 and not (isinstance(args[0], type) and issubclass(args[0], BaseException)):
            return self.then(None, check_handler(args[0], "catch"), on=on)
        if len(args) != 2:
            given = f"{args[0].__name__} and no handler" if len(args) == 1 else f"{len(args)} arguments"
            raise TypeError(f"catch() takes catch(handler) or catch(types, handler), not {given}")
        wanted, handler = check_types(args[0]), check_handler(args[1], "catch")
        return stage_on(self, Plan() if handler is None else Catch(wanted, handler), on)

    def finally_(self, fn: Callable[[], object] | None, *, on: Any = None) -> Future[T]:
        """Attach a stage that calls ``fn()`` however this future ends, and keeps its outcome.

        A future that `fn` returns is waited for. If `fn` fails, its error replaces the outcome.

        Args:
            fn: called without arguments.
            on: the executor for this stage and all after it.

        Raises:
            TypeError: if `fn` is neither callable nor None.
        """
        check_handler(fn, "finally_")
        return stage_on(self, Plan() if fn is None else Finally(fn), on)

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
        """
        on_result = check_handler(callback, "addCallbacks")
        on_error = check_handler(errback, "addCallbacks")
        plan = Callbacks(
            None if on_result is None else (on_result, tuple(callbackArgs or ()), dict(callbackKeywords or {})),
            None if on_error is None else (on_error, tuple(errbackArgs or ()), dict(errbackKeywords or {})),
        )
        return cast("Future[Any]", _append(self, _new(Local, plan, None)))

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
        """
        if args or kwargs or not callable(callback):
            check_handler(callback, "addCallback")
            return self.addCallbacks(callback, None, args, kwargs)
        child: Any = Callback_()
        child._fn = callback
        child._outcome = PENDING
        child._parent = None
        own = child._link = [None]
        del own[0]
        place = self._home
        end = extend((place() if type(place) is Tail else None) or chain_of(self), child)
        child._parent = end._anchor() if end._weakly_held else end
        link = end._link
        if len(link) < 2 and end._outcome is PENDING:  # as in `then`
            link.append(child)
            if end._outcome is not PENDING:
                return _too_late(end, child)  # type: ignore[no-any-return]
            if own:  # another thread has seen it at the end of the chain before it was attached
                break_ring(child, end)
            return child  # type: ignore[no-any-return]
        return _connect(end, child)  # type: ignore[no-any-return]

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
        """
        check_handler(errback, "addErrback")
        return self.addCallbacks(None, errback, errbackArgs=args, errbackKeywords=kwargs)

    def addBoth(self, callback: Any, *args: Any, **kwargs: Any) -> Future[Any]:
        """Attach ``callback(result_or_failure, *args, **kwargs)`` to the end of the chain; return the new final future.

        Raises:
            TypeError: if `callback` is neither callable nor None.
        """
        check_handler(callback, "addBoth")
        return self.addCallbacks(callback, callback, args, kwargs, args, kwargs)

    @property
    def final(self) -> Future[Any]:
        """The present final future of the chain that this future belongs to."""
        return cast("Future[Any]", chain_end(self))

    # -- others ---------------------------------------------------------------------------------------------------

    @classmethod
    def succeed(cls, value: U) -> Future[U]:
        """Return a future that has `value` already."""
        return succeed(value)

    @classmethod
    def fail(cls, exception: BaseException | Failure) -> Future[Any]:
        """Return a future that has failed with `exception` already."""
        return fail(exception)

    def shield(self) -> Future[T]:
        """Return a future with the same outcome, whose cancellation does not reach this one."""
        return cast("Future[T]", _attach(self, _new(Shield, Plan(), self._home.next or self._home.grow())))

    def timeout(self, seconds: float, exception: BaseException | None = None) -> Future[T]:
        """Return a future with the same outcome, or `exception` if that takes longer than `seconds`.

        Expiry cancels upward, through this branch only. The timer is withdrawn when this future is settled first.

        Args:
            seconds: how long to wait from now; not negative.
            exception: by default ``TimeoutError``.

        Raises:
            TypeError: if `seconds` is no number, or `exception` no exception.
            ValueError: if `seconds` is negative, NaN or infinite.
        """
        seconds = clock.check_seconds(seconds, "timeout()")
        if not (exception is None or isinstance(exception, BaseException)):
            raise TypeError(f"timeout() wants an exception such as ValueError('...'), not {exception!r}")
        error = TimeoutError(f"not settled within {seconds:g} seconds") if exception is None else exception
        failure = Failure(error)
        plan = Expiry()
        child = _new(Local, plan, self._home.next or self._home.grow())
        _attach(self, child)
        if not child.done():
            timer = clock.call_later(seconds, expire, ref(child), failure)
            plan.withdraw = timer.cancel
            if child.done():  # settled while the timer was being set
                timer.cancel()
        return cast("Future[T]", child)

    def cancel(self) -> bool:
        """Cancel the future, and upward what nobody else consumes; runs local dependents in this thread.

        Returns:
            True if it is cancelled now; False if it is running, or settled otherwise.
        """
        if self.running() or not claim(self):
            return self.cancelled()
        give_up(self, Failure(CancelledError()))
        return True

    def __await__(self) -> Generator[Any, Any, T]:
        self._heard()
        if not self.done():
            yield from later("suspend")(self)
        return self.result()

    def __repr__(self) -> str:
        state = self._state.lower()
        outcome = self._outcome
        if type(outcome) is not Pending:
            failed = type(outcome) is Failure
            name = f"raised {type(outcome.value).__name__}" if failed else f"returned {type(outcome).__name__}"
            state = "cancelled" if self.cancelled() else f"finished {name}"
        stage = "" if self._fn is None else f" stage {label(self._fn)}"
        waiting = sum(1 for _ in consumers(self))
        behind = f", {waiting} dependent{'' if waiting == 1 else 's'}" if waiting else ""
        return f"<Future{stage} {state} on {self._home.home.name}{behind}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the pictures of this future's chain that a notebook shows."""
        return cast("dict[str, str]", later("mimebundle")(self))

    # -- for the other modules --------------------------------------------------------------------------------------

    def _settle(self, outcome: Any) -> None:
        settle(self, outcome)

    _carry_on = carry_on  # pyright: ignore[reportAssignmentType]  # for the name of its first parameter
    _execute = execute

    def _before_blocking(self) -> None:
        run = here.run
        flush(run)
        if run.pool is not None:
            take_queued(self, run)

    def _leave(self) -> None:
        if not here.run.depth:
            leave(here.run)

    def _clean_up(self, plan: Plan) -> None:
        """Do what is left to do when this stage was cancelled before its turn."""
        if type(plan) is Finally:
            if not plan.begun:
                _attach(succeed(None), _detached(plan.fn, self._home))
        else:
            plan.cancelled(self._home)

    def _anchor(self) -> Any:
        if not self._weakly_held:
            return self
        if type(self) is Future:
            self.__class__ = Guarded
        elif type(self) is not Guarded and "_guard" not in self.__dict__:  # a class of the user's
            guard = Guard()
            if self.__dict__.setdefault("_guard", guard) is guard:  # the one step that decides whose it is
                guard.link = self._link
        return ref(self)

    _pin = pin


class Guarded(Future[T]):
    """What a bare future becomes when something waits for it: it notices that it goes before it is settled.

    The finalizer is no method of `Future`, because every stage would have to pay for that. (To assign the class is
    one store, and doing it twice does no harm, so it needs no deciding who does it.)
    """

    __slots__ = ()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:  # modules may be gone then
        if self._link and not is_finalizing():
            _abandon(self._link)


Guarded.__name__, Guarded.__qualname__ = "Future", "Future"


class Guard:
    """The same for a class of the user's, which has to stay what it is: an object that dies with the future."""

    __slots__ = ("link",)
    link: list[Any] | None

    def __init__(self) -> None:
        self.link = None

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if self.link and not is_finalizing():
            _abandon(self.link)


def _abandon(link: list[Any]) -> None:
    """Let what depends on a future that its producer dropped fail, on a callback thread; until then it can be cancelled."""
    if not (withdraw(link, TICKET) or withdraw(link, RUNNING)) or not link:
        return
    lost: Any = Stage()  # not by `fail`, which would expect somebody to look at it
    lost._home, lost._link, lost._outcome, lost._fn, lost._parent = _HERE, link, PENDING, None, None
    for entry in consumers(lost):
        for waiting in (entry, getattr(entry, "target", None)):
            if isinstance(waiting, Stage) and type(waiting._parent) is ref:
                waiting._parent = lost
    report.rescue(partial(_fail_lost, lost))


def _fail_lost(lost: Any) -> None:
    error = LostFutureError("the future this stage waits for was dropped by its producer without being settled")
    lost._outcome = Failure(error, path=path_behind(lost))
    carry_on(lost)


class Stage(Future[T]):
    """A future that its chain settles."""

    __slots__ = ()
    __init__ = object.__init__
    set_result = StandardFuture._give_result
    _weakly_held = False


class Plain(Stage[T]):
    """A local stage with one function for values: the fast path."""

    __slots__ = ()


def _then(self: Any, on_result: Any = None, on_error: Any = None, *, on: Any = None) -> Any:
    """Do what `Future.then` does, for a `Plain` stage, where there is less to ask."""
    link = self._link
    if link or on is not None or on_error is not None or not callable(on_result):
        return Future.then(self, on_result, on_error, on=on)
    child: Any = Plain()
    place = self._home
    child._home = place.next or place.grow()
    child._fn = on_result
    child._outcome = PENDING
    child._parent = self
    own = child._link = [None]
    del own[0]
    link.append(child)
    return child if self._outcome is PENDING else _too_late(self, child)


Plain.then = wraps(Future.then)(_then)


class Settled(Stage[T]):
    """A stage, or a bare future, that was settled when it was made: three stores less."""

    __slots__ = ()
    _fn = _parent = None
    _link = ()


def _then_at_once(self: Any, on_result: Any = None, on_error: Any = None, *, on: Any = None) -> Any:
    """Do what `Future.then` does, for a future that is settled: run the function here and now."""
    run = here.run
    if on is not None or on_error is not None or run.depth or not callable(on_result):
        plan = Then(check_handler(on_result, "then"), check_handler(on_error, "then"))
        return stage_on(self, plan, on)
    place, value = self._home, self._outcome
    if type(value) is not Failure:
        run.depth = 1
        try:
            value = on_result(value)
        except BaseException as error:
            return _begin(place, on_result, run, [error])
        finally:
            run.depth = 0
        if type(value) not in PLAIN_VALUES or run.later or run.stack or run.interrupt is not None:
            values = [value]
            del value  # no cycle: a traceback may keep this frame
            return _begin(place, on_result, run, None, values)
        child: Any = Settled()
    else:
        child = Settled()
        self._heard()
        report.unheard(child, value)
    child._home = place.next or place.grow()
    child._outcome = value
    return child


Settled.then = wraps(Future.then)(_then_at_once)


class Callback_(Stage[T]):  # noqa: N801  # `links.Callback` is another thing
    """A Twisted-family stage with one function for values."""

    __slots__ = ()
    _twisted = True


class Local(Stage[T]):
    """A local stage with a plan."""

    __slots__ = ()


class Watched(Stage[T]):
    """What `then` makes instead of a `Plain` stage while somebody watches (see `watching`)."""

    __slots__ = ("_record",)


class Shield(Local[T]):
    """A stage whose cancellation does not go up."""

    __slots__ = ()
    _shielded = True


class Hop(Stage[T]):
    """A stage, or a task, that runs on an executor, in the context in which it was attached."""

    __slots__ = ("_call", "_context")
    _hops = True
    _call: Any
    _context: Any


PLAIN.update((Plain, Callback_))


class _InlineHome(Home):
    __slots__ = ()

    def start(self, stage: Any, call: Call) -> None:
        stage._execute(call)


class InlineExecutor(cf.Executor):
    """Run everything at once, in the thread that submits it or that settles the stage before."""

    def __init__(self) -> None:
        self._home = _InlineHome("INLINE", local=True)

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` now; return its future, settled unless it returned a pending one.

        Raises:
            TypeError: if `fn` is missing or not callable.
        """
        task = new_task(Stage(), fn, self._home.at(1))
        try:
            task._execute((fn, args, kwargs))
            return cast("Future[T]", task)
        finally:
            del task

    def __repr__(self) -> str:
        return "INLINE"

    def __reduce__(self) -> str:
        return "INLINE"


def new_task(task: Any, fn: Any, place: Place) -> Any:
    """Prepare the future of a submitted function.

    Raises:
        TypeError: if `fn` is missing or not callable.
    """
    if not callable(fn):
        given = "nothing" if fn is MISSING else repr(fn)
        raise TypeError(f"submit() wants a function, as in submit(fn, *args, **kwargs), not {given}")
    task._fn = task._parent = None
    task._home = place
    task._outcome = PENDING
    task._link = [TICKET]
    if watch.on:
        task._fn = fn  # for its name
        watch.attached(task, ())
        task._fn = None
    return task


INLINE = InlineExecutor()
"""The executor that runs at once, in the thread that submits or that settles the stage before."""
_HERE = INLINE._home.root


def succeed(value: U) -> Future[U]:
    """Return a future that has `value` already; a `Failure` makes it a failed one."""
    future: Any = Settled()
    future._outcome = value
    future._home = _HERE
    if type(value) is Failure:
        report.unheard(future, cast("Failure", value))
    return cast("Future[U]", future)


def fail(exception: BaseException | Failure) -> Future[Any]:
    """Return a future that has failed with `exception` already.

    Raises:
        TypeError: if it is not an exception.
    """
    if isinstance(exception, Failure):
        return succeed(exception)
    if not isinstance(exception, BaseException):
        raise TypeError(f"fail() wants an exception such as ValueError('...'), not {exception!r}")
    return succeed(Failure(exception))


# -- attaching ------------------------------------------------------------------------------------------------------


def _new(kind: type[Any], plan: Any, place: Place | None) -> Any:
    stage = kind()
    stage._fn = plan
    stage._home = place
    return stage


def stage_on(parent: Any, plan: Any, executor: Any) -> Future[Any]:
    """Attach a promise-family stage to `parent`, on `executor` or on the chain's own.

    Its `plan` may be a function for values instead.
    """
    place = parent._home
    home = place.home if executor is None else home_of(executor)
    following = (place.next or place.grow()) if home is place.home else home.at(place.depth + 1)
    if following.local:
        return cast("Future[Any]", _attach(parent, _new(Local, plan, following)))
    hop = _new(Hop, plan, following)
    hop._context = copy_context()
    hop._call = None
    home.enlist(hop)
    return cast("Future[Any]", _attach(parent, hop))


def _append(future: Any, child: Any) -> Any:
    """Attach a Twisted-family stage to the end of the chain of `future`."""
    child._outcome = PENDING  # the end of a chain is seen by other threads at once: complete it first
    child._parent = None
    own = child._link = [None]
    del own[0]
    end = extend(chain_of(future), child)
    if watch.on:
        watch.attached(child, (end,))
    child._parent = end._anchor() if end._weakly_held else end
    return _connect(end, child)


def _attach(parent: Any, child: Any) -> Any:
    """Make the promise-family stage `child` a dependent of `parent`, or start it if that is settled."""
    child._outcome = PENDING
    child._parent = parent._anchor()
    own = child._link = [TICKET, None] if child._hops else [None]
    del own[-1]
    if watch.on:
        watch.attached(child, (parent,))
    return _connect(parent, child)


def _connect(parent: Any, child: Any) -> Any:
    """Attach a stage, or go on by itself."""
    try:
        if not attach(parent, child, guarded=False):
            return _start(parent, child)
        if child._link:  # as in `addCallback`
            break_ring(child, parent)
        return child
    finally:
        del parent, child  # no cycle: a traceback may keep this frame


def _too_late(parent: Any, child: Any) -> Any:
    """Go on with a plain stage whose parent was no more pending after it was put into the list."""
    try:
        if parent._outcome is FORWARDED:
            pin(parent)
            return child
        return _start(parent, child) if withdraw(parent._link, child) else child  # else: whoever settles the parent has it
    finally:
        del parent, child  # no cycle: a traceback may keep this frame


def _start(parent: Any, child: Any) -> Any:
    """Start a stage whose parent is settled, now or when this thread's handler has returned; the caller owns it."""
    parent._heard()
    depth = here.run.depth
    if depth > DEEPEST or (depth and not child._hops and not child._twisted and type(child._fn) is not Callbacks):
        put_off(child, parent)
    elif type(child) is Plain:
        return Settled.then(parent, child._fn)
    else:
        start(child, parent)
    return child


def _begin(place: Any, fn: Any, run: Run, errors: Any, values: Any = None) -> Future[Any]:
    """Return a stage that was run when it was attached, and raised, or returned what may be a future.

    Its error or its value comes in a list, which is emptied: our caller's frame may live on in a traceback.
    """
    child = _new(Plain, fn, place.next or place.grow())
    child._outcome, child._link, child._parent = PENDING, [], None
    run.depth = 1
    try:
        outcome = failed(child, errors.pop(), run) if errors else resolve(child, values.pop())
        if outcome is not PENDING:
            publish(child, outcome)
    finally:
        run.depth = 0
        outcome = None
    try:
        carry_on(child) if child.done() else leave(run)
        return cast("Future[Any]", child)
    finally:
        del child


def _detached(fn: Any, place: Any) -> Any:
    """Return the stage that runs the function of a ``finally_`` that was cancelled before its turn."""
    stage = _new(Local if place.local else Hop, Finally(fn), place)
    if not place.local:
        stage._context, stage._call = copy_context(), None
        place.home.enlist(stage)
    return stage


# -- being watched --------------------------------------------------------------------------------------------------


def _watched_then(self: Any, on_result: Any = None, on_error: Any = None, *, on: Any = None) -> Any:
    place = self._home
    check_handler(on_result, "then")
    if on is None and on_error is None and place.local:
        if on_result is None:
            return _attach(self, _new(Local, Plan(), place.next or place.grow()))
        child: Any = Watched()  # as in `then`
        child._fn, child._home, child._record = on_result, place.next or place.grow(), None
        return _attach(self, child)
    return stage_on(self, Then(on_result, check_handler(on_error, "then")), on)


def _watched_add_callback(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
    check_handler(callback, "addCallback")
    return self.addCallbacks(callback, None, args, kwargs)


_METHODS = Future.then, Plain.then, Settled.then, Future.addCallback
_WATCHED_THEN = wraps(Future.then)(_watched_then)
_WATCHED_METHODS = _WATCHED_THEN, _WATCHED_THEN, _WATCHED_THEN, wraps(Future.addCallback)(_watched_add_callback)


def _switch(watched: bool) -> None:
    """Take the fast paths away while somebody watches, so that nothing has to ask on them whether somebody does."""
    methods: Any = _WATCHED_METHODS if watched else _METHODS
    Future.then, Plain.then, Settled.then, Future.addCallback = methods  # type: ignore[method-assign]


watch.switches.append(_switch)
if watch.on:  # somebody has watched before this module was needed
    _switch(True)
if os.environ.get("FUTURECHAIN_DEBUG", "").lower() not in {"", "0", "false", "no", "off"}:
    later("debug")()
