"""`Future`: a ``concurrent.futures.Future`` that can be chained; and the loop that settles chains.

Theory of operation
-------------------
A stage *is* the future it returns: `Stage` and `Callback_` hold one function for values and run in the thread that
settles their parent, `Local` does so with a `Plan`, `Hop` runs on an executor. `links` decides who may settle a future
and who sees its dependents; here is what happens then.

`settle` publishes an outcome and `follow` carries it on: it takes the dependents out of the link, runs the local ones,
starts the others on their executors, and goes on with what has been settled by that, in a loop and never by
recursion. A handler that returns a future makes its stage wait for that one: the stage leaves an `Adopt` there. If
nothing but such entries waits for the stage itself, they move on to the returned future, which then holds the stage
by a weak reference only; so a recursion through returned futures is a chain of constant length.

A child holds its parent, to cancel it when nobody else wants it. A parent that a *producer* has to settle (a bare
``Future()``) is held by a weak reference: it must die when the producer drops it, and takes its dependents out of
their misery then (`LostFutureError`).
"""

from __future__ import annotations

import concurrent.futures as cf
import types
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import islice
from typing import Any, Concatenate, ParamSpec, Self, TypeAlias, TypeVar, cast, overload

from futurechain import clock, crew, report
from futurechain.dispatch import Call, Home, Place, chain_end, extend, home_of, later
from futurechain.errors import CancelledError, LostFutureError
from futurechain.failure import Failure
from futurechain.links import (
    PENDING,
    RUNNING,
    UNCLAIMED,
    Forwarded,
    attach,
    claim,
    consumers,
    detach,
    entries,
    withdraw,
)
from futurechain.plans import Callbacks, Catch, Expiry, Finally, Plan, Then, check_handler, check_types, label
from futurechain.run import DEEPEST, Run, here
from futurechain.standard import StandardFuture

__all__ = [
    "INLINE",
    "MISSING",
    "Foreign",
    "Future",
    "Hop",
    "Local",
    "annotate",
    "carry_on",
    "fail",
    "give_up",
    "new_task",
    "outcome_of",
    "publish",
    "release",
    "resolve",
    "settle",
    "stage_on",
    "succeed",
    "waits_for",
    "wrap_future",
]

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
Waited: TypeAlias = cf.Future[U] | Coroutine[Any, Any, U]
"""What a handler may return to have its stage wait."""
E = TypeVar("E", bound=BaseException)
Types: TypeAlias = type[E] | tuple[type[E], ...]
Executor: TypeAlias = cf.Executor

_PLAIN = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, object, type}
)
"""Types whose instances are values for certain; asking this is a third of the price of `isinstance`."""

MISSING: Any = object()
MOST_COUNTED = 1000
"""How far a message looks ahead to tell how long a chain is."""
MOST_FORWARDED = 4
"""How many waiting stages move on to a returned future; with more, each step of a long nesting would move them all."""



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
        self._link = [UNCLAIMED]
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
        self, on_result: Callable[[T], Waited[U]], on_error: None = None, *, on: Executor | None = None
    ) -> Future[U]: ...
    @overload
    def then(
        self, on_result: Callable[[T], Waited[U]], on_error: Callable[[Any], Waited[V]], *, on: Executor | None = None
    ) -> Future[U | V]: ...
    @overload
    def then(self, on_result: Callable[[T], U], on_error: None = None, *, on: Executor | None = None) -> Future[U]: ...
    @overload
    def then(self, on_result: None, on_error: Callable[[Any], V], *, on: Executor | None = None) -> Future[T | V]: ...
    @overload
    def then(
        self, on_result: None = None, *, on_error: Callable[[Any], V], on: Executor | None = None
    ) -> Future[T | V]: ...
    @overload
    def then(
        self, on_result: Callable[[T], U], on_error: Callable[[Any], V], *, on: Executor | None = None
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
            child: Any = Stage()  # the fast path: what `_attach` does, in place
            child._home = place.next or place.grow()
            link = self._link
            if link is None and not (run := here.run).depth:
                value: Any = self._outcome
                if type(value) is Failure:
                    self._heard()
                    report.unheard(child, value)
                else:
                    run.depth = 1
                    try:
                        value = on_result(value)
                    except BaseException as error:
                        return cast("Future[Any]", _begin(child, on_result, run, error=error))
                    finally:
                        run.depth = 0
                    if type(value) not in _PLAIN or run.queue or run.interrupt is not None:
                        child._outcome = value
                        value = None  # no cycle: a traceback may keep this frame
                        return cast("Future[Any]", _begin(child, on_result, run))
                child._fn = child._parent = child._link = None
                child._outcome = value
                return child  # type: ignore[no-any-return]
            child._fn = on_result
            if link is not None:
                child._outcome = PENDING
                child._parent = self if type(self) is Stage else self._anchor()
                own = child._link = [UNCLAIMED, None]  # room for one dependent, which is the rule, in 16 bytes
                del own[1]
                if len(link) == 1:  # nobody waits yet (or the one who does is about to be told): no need of a dict
                    link.append(child)
                    if self._link is link or not withdraw(link, child):
                        return child  # type: ignore[no-any-return]
            return _attach(self, child)  # type: ignore[no-any-return]
        check_handler(on_result, "then")
        return stage_on(self, Then(on_result, check_handler(on_error, "then")), on)

    @overload
    def catch(self, handler: None, /, *, on: Executor | None = None) -> Future[T]: ...
    @overload
    def catch(self, handler: Callable[[Any], Waited[V]], /, *, on: Executor | None = None) -> Future[T | V]: ...
    @overload
    def catch(self, handler: Callable[[Any], V], /, *, on: Executor | None = None) -> Future[T | V]: ...
    @overload
    def catch(self, types: Types[E], handler: None, /, *, on: Executor | None = None) -> Future[T]: ...
    @overload
    def catch(
        self, types: Types[E], handler: Callable[[E], Waited[V]], /, *, on: Executor | None = None
    ) -> Future[T | V]: ...
    @overload
    def catch(self, types: Types[E], handler: Callable[[E], V], /, *, on: Executor | None = None) -> Future[T | V]: ...
    def catch(self, *args: Any, on: Any = None) -> Future[Any]:
        """Attach a stage that runs on errors only: ``catch(handler)`` or ``catch(types, handler)``.

        Args:
            types: an exception class or a tuple of them; other errors are passed on. By default every error.
            handler: called with the exception; what it returns is the result of the stage.
            on: the executor for this stage and all after it.

        Raises:
            TypeError: if the arguments are not of that form.
        """
        if len(args) == 1:
            return self.then(None, check_handler(args[0], "catch"), on=on)
        if len(args) != 2:
            raise TypeError(f"catch() takes catch(handler) or catch(types, handler), not {len(args)} arguments")
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
        return _append(self, _new(Local, plan, None))

    @overload
    def addCallback(self, callback: None) -> Future[T]: ...
    @overload
    def addCallback(
        self, callback: Callable[Concatenate[Any, P], Waited[U]], *args: P.args, **kwargs: P.kwargs
    ) -> Future[U]: ...
    @overload
    def addCallback(
        self, callback: Callable[Concatenate[Any, P], U], *args: P.args, **kwargs: P.kwargs
    ) -> Future[U]: ...
    def addCallback(self, callback: Any, *args: Any, **kwargs: Any) -> Future[Any]:
        """Attach ``callback(result, *args, **kwargs)`` to the end of the chain; return the new final future.

        Raises:
            TypeError: if `callback` is neither callable nor None.
        """
        if args or kwargs or callback is None:
            check_handler(callback, "addCallback")
            return self.addCallbacks(callback, None, args, kwargs)
        child: Any = Callback_()
        child._fn = check_handler(callback, "addCallback")
        return _append(self, child)

    @overload
    def addErrback(self, errback: None) -> Future[T]: ...
    @overload
    def addErrback(
        self, errback: Callable[Concatenate[Failure, P], Waited[V]], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T | V]: ...
    @overload
    def addErrback(
        self, errback: Callable[Concatenate[Failure, P], V], *args: P.args, **kwargs: P.kwargs
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
        seconds = clock.check_seconds(seconds)
        error = TimeoutError(f"not settled within {seconds:g} seconds") if exception is None else exception
        failure = Failure(error)
        plan = Expiry()
        child = _new(Local, plan, self._home.next or self._home.grow())
        _attach(self, child)
        if child._outcome is PENDING:
            timer = clock.call_later(seconds, _expire, weakref.ref(child), failure)
            plan.withdraw = timer.cancel
            if child._outcome is not PENDING:  # settled while the timer was being set
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
        if self._outcome is PENDING:
            yield from later("suspend")(self)
        return self.result()

    def __repr__(self) -> str:
        state = self._state.lower()
        outcome = self._outcome
        if outcome is not PENDING:
            failed = type(outcome) is Failure
            name = f"raised {type(outcome.value).__name__}" if failed else f"returned {type(outcome).__name__}"
            state = "cancelled" if self.cancelled() else f"finished {name}"
        stage = "" if self._fn is None else f" stage {label(self._fn)}"
        waiting = sum(1 for _ in consumers(self))
        behind = f", {waiting} dependent{'' if waiting == 1 else 's'}" if waiting else ""
        return f"<Future{stage} {state} on {self._home.home.name}{behind}>"

    # -- for the other modules --------------------------------------------------------------------------------------

    def _settle(self, outcome: Any) -> None:
        settle(self, outcome)

    def _carry_on(self) -> None:
        """Run, start or wake what depends on this settled future.

        If this thread is deep in handlers already, its outermost loop does it.
        """
        run = here.run
        if run.depth >= DEEPEST:
            run.queue.append(self._carry_on)
            return
        run.depth += 1
        try:
            todo: list[Any] = []
            _straight_on(self, run, todo)
            if todo:
                _follow_all(todo, run)
        finally:
            run.depth -= 1
        if not run.depth and (run.queue or run.interrupt is not None):
            run.leave()

    def _anchor(self) -> Any:
        if not self._weakly_held:
            return self
        if type(self) is Future:
            self.__class__ = Guarded
        elif type(self) is not Guarded and "_guard" not in self.__dict__:  # a class of the user's
            guard = Guard()
            if self.__dict__.setdefault("_guard", guard) is guard:  # the one step that decides whose it is
                guard.link = self._link
        return weakref.ref(self)

    def _execute(self, call: Call, context: Any = None) -> None:
        """Run `call` in this thread, unless cancelled, and settle this future with its outcome."""
        if not claim(self):
            return
        run = here.run
        run.depth += 1
        try:
            outcome = _perform(self, call, run, context)
            if outcome is not PENDING:
                publish(self, outcome)
                _follow(self, run)
            del outcome  # no cycle: a traceback may keep this frame
        finally:
            run.depth -= 1
            del self, call
        if not run.depth:
            run.leave()

    def _pin(self) -> None:
        """Make the returned future that this stage waits for hold it strongly."""
        inner, entry = _parent_of(self), Adopt(self)
        if isinstance(inner, StandardFuture) and not attach(inner, entry):
            _start(entry, inner)


carry_on = Future._carry_on
"""Run, start or wake what depends on a settled future."""


class Guarded(Future[T]):
    """What a bare future becomes when something waits for it: it notices that it goes before it is settled.

    The finalizer is no method of `Future`, because every stage would have to pay for that. (To assign the class is
    one store, and doing it twice does no harm, so it needs no deciding who does it.)
    """

    __slots__ = ()

    def __del__(self) -> None:
        if self._link and _is_abandoned(self._link):
            report.rescue(partial(_abandon, self._link))


Guarded.__name__, Guarded.__qualname__ = "Future", "Future"


class Guard:
    """The same for a class of the user's, which has to stay what it is: an object that dies with the future."""

    __slots__ = ("link",)
    link: list[Any] | None

    def __init__(self) -> None:
        self.link = None

    def __del__(self) -> None:
        if self.link and _is_abandoned(self.link):
            report.rescue(partial(_abandon, self.link))


def _is_abandoned(link: list[Any]) -> bool:
    """Claim what depends on a future that is going; False if it is settled, or nothing does."""
    return (withdraw(link, UNCLAIMED) or withdraw(link, RUNNING)) and bool(link)


def _abandon(link: list[Any]) -> None:
    """Settle the dependents of a future that its producer dropped."""
    lost = fail(LostFutureError("the future this stage waits for was dropped by its producer without being settled"))
    lost._link = link
    carry_on(lost)


class Stage(Future[T]):
    """A local stage with one function for values: the fast path."""

    __slots__ = ()
    __init__ = object.__init__
    _weakly_held = False


class Callback_(Stage[T]):  # noqa: N801  # `links.Callback` is another thing
    """A Twisted-family stage with one function for values."""

    __slots__ = ()


class Local(Stage[T]):
    """A local stage with a plan."""

    __slots__ = ()


class Shield(Local[T]):
    """A stage whose cancellation does not go up."""

    __slots__ = ()


class Hop(Stage[T]):
    """A stage, or a task, that runs on an executor, in the context in which it was attached."""

    __slots__ = ("_call", "_context")
    _call: Any
    _context: Any


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
        task._execute((fn, args, kwargs))
        return cast("Future[T]", task)

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
    task._link = [UNCLAIMED]
    return task


INLINE = InlineExecutor()
"""The executor that runs at once, in the thread that submits or that settles the stage before."""
_HERE = INLINE._home.root


def succeed(value: U) -> Future[U]:
    """Return a future that has `value` already; a `Failure` makes it a failed one."""
    future: Any = Stage()
    future._link = future._fn = future._parent = None
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


def stage_on(parent: Any, plan: Plan, executor: Any) -> Future[Any]:
    """Attach a promise-family stage with `plan` to `parent`, on `executor` or on the chain's own."""
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


def _append(future: Any, child: Any) -> Future[Any]:
    """Attach a Twisted-family stage to the end of the chain of `future`."""
    child._outcome = PENDING  # the end of a chain is seen by other threads at once: complete it first
    child._parent = None
    own = child._link = [UNCLAIMED, None]
    del own[1]
    end = extend(future, child)
    if end._link is not None:
        child._parent = end._anchor()
        if attach(end, child):
            return cast("Future[Any]", child)
    run = here.run
    if run.depth > DEEPEST:
        run.queue.append(partial(_start, child, end))
    else:
        _start(child, end)
    return cast("Future[Any]", child)


def _attach(parent: Any, child: Any) -> Any:
    """Make the promise-family stage `child` a dependent of `parent`, or start it if that is settled."""
    child._outcome = PENDING
    child._parent = parent if type(parent) is Stage else parent._anchor()
    own = child._link = [UNCLAIMED, None]  # room for one dependent, which is the rule, in 16 bytes
    del own[1]
    if attach(parent, child):
        return child
    run = here.run
    if run.depth and child._home.local:
        run.queue.append(partial(_start, child, parent))
    else:
        _start(child, parent)
    return child


def _begin(child: Any, fn: Any, run: Run, *, error: BaseException | None = None) -> Any:
    """Settle a stage that was run when it was attached: with `error`, or with its outcome, which may be a future."""
    value: Any = None if error is not None else child._outcome
    child._fn, child._outcome, child._link, child._parent = fn, PENDING, [], None
    run.depth = 1
    try:
        value = resolve(child, value) if error is None else _failed(child, error, run)
        if value is not PENDING:
            publish(child, value)
            _follow(child, run)
    finally:
        run.depth = 0
        del value, error  # no cycle: a traceback may keep this frame
    run.leave()
    return child


# -- settling -------------------------------------------------------------------------------------------------------


def settle(future: Any, outcome: Any) -> None:
    """Publish the outcome of a future that the caller has claimed, and carry it on to its dependents."""
    publish(future, outcome)
    carry_on(future)


def publish(future: Any, outcome: Any) -> None:
    """Let everybody see `outcome`; the caller has claimed `future`, so this happens once."""
    plan = future._fn
    if isinstance(plan, Plan):
        outcome = plan.finish(outcome)
    future._outcome = outcome
    future._fn = future._parent = None
    if type(future) is Hop:
        future._call = future._context = None
        future._home.home.retire(future)


def _follow(future: Any, run: Run) -> None:
    """Carry the outcome of `future` on, through everything that can run in this thread."""
    todo: list[Any] = []
    _straight_on(future, run, todo)
    future = None  # no cycle: a traceback may keep this frame
    if todo:
        _follow_all(todo, run)


def _follow_all(todo: list[Any], run: Run) -> None:
    """Do so for each of `todo`, and for what is settled by that."""
    waiting = deque(todo)
    while waiting:
        todo.clear()
        _straight_on(waiting.popleft(), run, todo)
        waiting.extend(todo)


def _straight_on(future: Any, run: Run, todo: list[Any]) -> None:
    """Carry on as long as one plain stage waits for another.

    What is settled besides goes to `todo`. This is the hot path: what `entries`, `_local` and `publish` do, in place.
    """
    link, outcome, alone = future._link, future._outcome, True
    while link is not None:
        waiting = len(link)
        if waiting == 1:
            try:
                child = link.pop(0)
            except IndexError:  # it was cancelled just now
                continue
            kind = type(child)
            if kind is not Stage and kind is not Callback_:
                if issubclass(kind, (dict, Stage)):
                    _branch(future, child, run, todo)
                    break
                alone = False
                child = run.notify(future, child)
                if child is not None:
                    todo.append(child)
                continue
        elif waiting:
            _branch(future, None, run, todo)
            break
        future._link = None
        if link:  # somebody came in between the two lines above: open it again, and come back to it
            future._link = link
            if not waiting:
                continue
            todo.append(future)
        if not waiting:
            if alone and type(outcome) is Failure:
                report.unheard(future, outcome)
            break
        future, link = child, child._link
        try:
            link.remove(UNCLAIMED)  # decides against a cancellation
        except (ValueError, AttributeError):
            break
        if type(outcome) is not Failure:
            try:
                outcome = child._fn(outcome)
                if type(outcome) not in _PLAIN:
                    outcome = resolve(child, outcome)
            except BaseException as error:
                outcome = _failed(child, error, run)
            if outcome is PENDING:
                break
        child._outcome = outcome
        child._fn = child._parent = None
    future = child = link = outcome = None  # no cycle: a traceback may keep this frame


def _branch(future: Any, first: Any, run: Run, todo: list[Any]) -> None:
    """Fire the dependents of `future`, `first` first; what is settled by that goes to `todo`.

    Of the stages on the pool whose worker this thread is, one is carried on with here, after the others have been
    handed to the pool.
    """
    carried, alone = None, True
    for entry in entries(future, first):
        alone = False
        if carried is None and run.depth == 1 and type(entry) is Hop and entry._home.home is run.pool:
            carried = entry
        elif (settled := _fire(entry, future, run)) is not None:
            todo.append(settled)
    if carried is not None and (settled := _hop(carried, future, run, carry=True)) is not None:
        todo.append(settled)
    if alone and type(future._outcome) is Failure:
        report.unheard(future, future._outcome)


def _fire(entry: Any, future: Any, run: Run) -> Any:
    """Tell one dependent that `future` is settled; the stage that is settled by that, or None."""
    kind = type(entry)
    if kind is Hop:
        return _hop(entry, future, run)
    if issubclass(kind, Stage):
        return _local(entry, future._outcome, run)
    return run.notify(future, entry)


def _start(entry: Any, future: Any) -> None:
    """Fire a dependent that came when `future` was settled already."""
    run = here.run
    future._heard()
    run.depth += 1
    try:
        settled = _fire(entry, future, run)
        if settled is not None:
            _follow(settled, run)
    finally:
        run.depth -= 1
    if not run.depth and (run.queue or run.interrupt is not None):
        run.leave()


def _local(stage: Any, outcome: Any, run: Run) -> Any:
    """Run a stage in this thread; itself if that settled it, else None."""
    if not claim(stage):
        return None
    plan = stage._fn
    try:
        call = plan.select(outcome) if isinstance(plan, Plan) else _plain_call(plan, outcome)
    except BaseException as error:
        outcome, call = _failed(stage, error, run), None
    if call is not None:
        outcome = _perform(stage, call, run)
    if outcome is PENDING:
        return None
    publish(stage, outcome)
    return stage


def _plain_call(fn: Any, outcome: Any) -> Call | None:
    return None if type(outcome) is Failure else (fn, (outcome,), {})


def _hop(hop: Any, future: Any, run: Run, *, carry: bool = False) -> Any:
    """Hand a stage to its executor, or carry on with it here; itself if that settled it, else None."""
    outcome = future._outcome
    try:
        call = hop._fn.select(outcome)
    except BaseException as error:
        outcome, call = _failed(hop, error, run), None
    if call is not None and not carry:
        hop._parent = None
        hop._home.home.start(hop, call)
        return None
    if not claim(hop):
        return None
    if call is not None:
        outcome = _perform(hop, call, run, hop._context)
    if outcome is PENDING:
        return None
    publish(hop, outcome)
    return hop


def _perform(stage: Any, call: Call, run: Run, context: Any = None) -> Any:
    """Call; the outcome, or PENDING if the stage waits for a future now."""
    fn, args, kwargs = call
    try:
        value = fn(*args, **kwargs) if context is None else context.run(fn, *args, **kwargs)
    except BaseException as error:
        failure = _failed(stage, error, run)
        del stage, call, fn, args, kwargs  # the traceback keeps this frame: no cycle through what it holds
        return failure
    return value if type(value) in _PLAIN else resolve(stage, value)


def _failed(stage: Any, error: BaseException, run: Run) -> Failure:
    """Wrap what a handler raised."""
    if error.__traceback__ is not None:  # without our caller's frame: it holds the stage, which holds the error
        error.__traceback__ = error.__traceback__.tb_next
    run.catch(error)
    annotate(error, stage)
    return Failure(error)


def annotate(error: BaseException, stage: Any) -> None:
    """Note on `error` that it was raised in `stage`; an exception that takes no notes goes without."""
    place, call = stage._home, getattr(stage, "_call", None)
    fn = stage._fn if stage._fn is not None else call[0] if isinstance(call, tuple) else call
    number = place.depth if type(place) is Place else 0
    with suppress(Exception):
        report.annotate(error, label(fn), number, number + _length_behind(stage), place.home.name)


def _length_behind(stage: Any) -> int:
    """Count the stages that follow `stage`, up to the first branching."""
    count = 0
    while count < MOST_COUNTED and len(behind := [*islice(consumers(stage), 2)]) == 1 and isinstance(behind[0], Stage):
        stage = behind[0]
        count += 1
    return count


# -- waiting for a returned future ------------------------------------------------------------------------------------


class Adopt:
    """An entry: when the returned future is settled, so is the stage that waits for it."""

    __slots__ = ("target",)

    def __init__(self, target: Any) -> None:
        self.target = target

    def _live(self) -> bool:
        return bool(self.target._outcome is PENDING)

    def fire(self, future: Any, outcome: Any) -> Any:
        """Settle the stage, unless it was cancelled; it, for the caller to follow."""
        return _take_over(self.target, outcome)


class WeakAdopt(weakref.ref[Any]):
    """The same for a stage that nothing else waits for: it may die before, and takes its entry along."""

    __slots__ = ("inner",)

    def __init__(self, target: Any, inner: Any) -> None:
        super().__init__(target, WeakAdopt._drop)  # type: ignore[call-arg]
        self.inner = weakref.ref(inner)

    def __new__(cls, target: Any, inner: Any) -> Self:
        return super().__new__(cls, target, WeakAdopt._drop)

    def _drop(self) -> None:
        inner = self.inner()
        if inner is not None:
            detach(inner, self)

    def _live(self) -> bool:
        target = self()
        return target is not None and target._outcome is PENDING

    def fire(self, future: Any, outcome: Any) -> Any:
        """Settle the stage, if it still exists; it, for the caller to follow."""
        return _take_over(self(), outcome)


def _take_over(stage: Any, outcome: Any) -> Any:
    if stage is None or not claim(stage):
        return None
    publish(stage, outcome)
    return stage


def resolve(stage: Any, value: Any) -> Any:
    """Return the outcome that `value`, returned by a handler, stands for; PENDING if the stage now waits for it."""
    kind = type(value)  # not isinstance(value, ...): a proxy would run code of its own
    if issubclass(kind, cf.Future):
        return _adopt(stage, wrap_future(value))
    if kind is types.CoroutineType:
        return _adopt(stage, later("ensure")(value, stage._home.home))
    return value


def _adopt(stage: Any, inner: Any) -> Any:
    if type(stage) is Callback_ or type(stage._fn) is Callbacks:
        inner = inner.final
    outcome = inner._outcome
    if outcome is not PENDING:
        inner._heard()
        return outcome
    stage._parent = inner._anchor()
    if waits_for(inner, stage):  # looked at after the store: of two threads that close a ring, one sees it
        stage._parent = None
        return Failure(TypeError(f"{inner!r} was returned by a stage that it waits for itself: a cycle"))
    entry: Any = Adopt(stage)
    waiting = list(islice(_flat(tuple(stage._link)), MOST_FORWARDED + 1))
    if len(waiting) <= MOST_FORWARDED and all(type(held) in (Adopt, WeakAdopt) for held in waiting):
        entry = _forward(stage, inner)
    else:
        stage._link.insert(0, UNCLAIMED)
    if attach(inner, entry) or not claim(stage):
        return PENDING
    return inner._outcome


def _forward(stage: Any, inner: Any) -> WeakAdopt:
    """Let those who wait for `stage` wait for `inner` instead, so that a long recursion stays short."""
    old, stage._link = stage._link, [UNCLAIMED, Forwarded()]
    while (held := _pop(old)) is not None:
        for entry in _flat((held,)):
            if isinstance(entry, (Adopt, WeakAdopt)):
                _move(entry, inner)
            elif issubclass(type(entry), Stage) and not attach(stage, entry):
                _start(entry, stage)
    return WeakAdopt(stage, inner)


def _flat(link: tuple[Any, ...]) -> Iterator[Any]:
    """Iterate over entries, those in groups included; a group that is out of its link takes no more in."""
    for held in link:
        if isinstance(held, dict):
            yield from tuple(held.values())
        else:
            yield held


def _move(entry: Any, inner: Any) -> None:
    target = entry.target if type(entry) is Adopt else entry()
    if target is None or target._outcome is not PENDING:
        return
    target._parent = inner._anchor()
    moved = entry if type(entry) is Adopt else WeakAdopt(target, inner)
    if not attach(inner, moved):
        here.run.queue.append(partial(_start, moved, inner))


def _pop(link: list[Any]) -> Any:
    try:
        return link.pop(0)
    except IndexError:
        return None


def _parent_of(future: Any) -> Any:
    parent = future._parent
    return parent() if type(parent) is weakref.ref else parent


def waits_for(future: Any, target: Any) -> bool:
    """Tell whether `future` waits for `target`, over however many steps."""
    todo, seen = [future], set[int]()
    while todo:
        one = todo.pop()
        if one is target:
            return True
        parent = _parent_of(one)
        if isinstance(parent, StandardFuture):
            todo.append(parent)
        elif parent is not None and id(parent) not in seen:
            seen.add(id(parent))
            todo.extend(parent.sources())
    return False


# -- cancelling -----------------------------------------------------------------------------------------------------


def give_up(future: Any, failure: Failure) -> None:
    """Settle `future` (claimed) with `failure`, and cancel upward what nobody else consumes."""
    while True:
        parent, plan, shielded = _parent_of(future), future._fn, type(future) is Shield
        settle(future, failure)
        abandoned = release(parent, future, shielded=shielded)
        if type(plan) is Finally and parent is not None:
            _clean_up(plan, future._home)
        elif isinstance(plan, Plan):
            plan.cancelled(future._home)
        if abandoned is None:
            return
        future, failure = abandoned, Failure(CancelledError())


def release(parent: Any, child: Any, *, shielded: bool = False) -> Any:
    """Let `child` no longer wait for `parent`; the parent, claimed, if nobody consumes it any more, else None."""
    if parent is None:
        return None
    if not isinstance(parent, StandardFuture):
        parent.abandon(child)
        return None
    detach(parent, child)
    if shielded or parent._is_consumed():
        return None
    if _claim_waiting(parent):
        return parent
    if parent._outcome is PENDING:
        parent.__dict__["_unwanted"] = True  # left to end; how it ends is of no interest any more
    return None


def _claim_waiting(future: Any) -> bool:
    return not future.running() and claim(future)


def _clean_up(plan: Finally, place: Any) -> None:
    """Run the function of a ``finally_`` that was cancelled before its turn."""
    _attach(succeed(None), _detached(plan.fn, place))


def _detached(fn: Any, place: Any) -> Any:
    stage = _new(Local if place.local else Hop, Finally(fn), place)
    if not place.local:
        stage._context, stage._call = copy_context(), None
        place.home.enlist(stage)
    return stage


def _expire(target: weakref.ref[Any], failure: Failure) -> None:
    """Timer: fail the future if it is still pending."""
    future = target()
    if future is not None and claim(future):
        crew.run(partial(give_up, future, failure))


# -- foreign futures ------------------------------------------------------------------------------------------------


class Foreign:
    """The parent of a future that stands for one of somebody else's."""

    __slots__ = ("_future",)

    def __init__(self, future: cf.Future[Any]) -> None:
        self._future = weakref.ref(future)

    def sources(self) -> list[Any]:
        """Return what we know it waits for: nothing."""
        return []

    def runs_abroad(self) -> bool:
        """Tell whether the foreign future says that it runs."""
        future = self._future()
        return future is not None and future.running()

    def abandon(self, child: Any) -> None:
        """Cancel it, as far as it can be cancelled."""
        future = self._future()
        if future is not None:
            with suppress(Exception):  # some executors' futures cannot be cancelled, and say so by raising
                future.cancel()


def outcome_of(future: cf.Future[Any]) -> Any:
    """Return the outcome of a foreign future that is done."""
    try:
        if future.cancelled():
            return Failure(CancelledError())
        error = future.exception()
        return future.result() if error is None else Failure(error)
    except BaseException as error:
        return Failure(error)


def wrap_future(future: cf.Future[T]) -> Future[T]:
    """Adopt any ``concurrent.futures.Future``: return a `Future` with the same outcome; ours are returned as they are.

    Cancelling the one that is returned cancels `future`. Dependents run in the thread that settles `future`, but
    never on the manager thread of a pool, nor on the thread of an event loop.

    Raises:
        TypeError: if it is no such future.
    """
    if isinstance(future, Future):
        return future
    if not isinstance(future, cf.Future):
        raise TypeError(f"wrap_future() wants a concurrent.futures.Future, not {future!r}")
    ours: Any = _new(Local, Plan(), INLINE._home.at(1))
    ours._link, ours._outcome, ours._parent = [UNCLAIMED], PENDING, Foreign(future)
    relay(future, ours)
    return cast("Future[T]", ours)


def relay(foreign: cf.Future[Any], ours: Any) -> None:
    """Settle `ours` as soon as `foreign` is settled, or lost."""
    foreign.add_done_callback(_Relay(ours))


class _Relay:
    """A done callback of a foreign future, which notices when it is dropped uncalled."""

    __slots__ = ("_ours",)

    def __init__(self, ours: Any) -> None:
        self._ours = [ours]

    def __call__(self, foreign: cf.Future[Any]) -> None:
        ours = _pop(self._ours)
        if ours is not None and claim(ours):
            publish(ours, outcome_of(foreign))
            crew.run(partial(carry_on, ours))

    def __del__(self) -> None:
        ours = _pop(self._ours)
        if ours is not None and claim(ours):
            error = LostFutureError("the foreign future it stands for was dropped without being settled")
            report.rescue(partial(settle, ours, Failure(error)))
