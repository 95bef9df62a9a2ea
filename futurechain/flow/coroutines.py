"""Coroutines without an event loop: generators and ``async def`` functions whose waits hold no thread.

Theory of operation
-------------------
A `_Runner` advances one coroutine, step by step. Between steps it is an entry in the future that is waited for, and
the one element of ``baton``: whoever pops that may advance the coroutine. The settling of the awaited future and a
cancellation both try. A cancellation that comes while a step runs settles the coroutine's future at once; the
running step sees this when it has put the baton back, and throws the cancellation in.

Steps run on the home of the chain, in one context for the whole run. Settled futures are not waited for: a loop
sends their results back in. ``await future`` yields the future to whoever drives the coroutine: to a `_Runner`, or,
in a thread where asyncio's loop or trio runs, by way of `interop` to that.
"""

from __future__ import annotations

import concurrent.futures as cf
import functools
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, NoReturn, ParamSpec, TypeVar, cast, overload

from futurechain.core.flatten import is_ring, resolve
from futurechain.core.cancel import let_go
from futurechain.core.scheduler import Scheduler, scheduler_of
from futurechain.errors import CancelledError
from futurechain.failure import Failure
from futurechain.executors.wrapped_future import wrap_future
from futurechain.executors.inline import INLINE
from futurechain.future import ExecutorStage, Future, LocalStage
from futurechain.flow.event_loops import foreign_driver
from futurechain.core.state import PENDING, TICKET, attach, claim, detach, is_unclaimed, publish
from futurechain.core.handlers import Handler
from futurechain.core.thread_state import current
from futurechain.core.loop import leave_handlers, run_dependents
from futurechain.core.observers import watch

__all__ = ["Returned", "ensure", "ensure_future", "inlineCallbacks", "returnValue", "suspend"]

P = ParamSpec("P")
T = TypeVar("T")


class Returned(BaseException):  # it is no error
    """Carries the value of `returnValue` out of a generator."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


def returnValue(value: object) -> NoReturn:
    """End the surrounding `inlineCallbacks` generator with `value`; ``return value`` does the same."""
    raise Returned(value)


class _Runner(Handler):
    """Advances one coroutine; the plan of its future."""

    __slots__ = ("awaited", "baton", "context", "is_generator", "name", "target")

    def __init__(self, coroutine: Any, home: Scheduler) -> None:
        self.baton = [coroutine]
        self.awaited: Any = None
        """What it waits for, as long as it has the baton back."""
        self.context = copy_context()
        self.is_generator = isinstance(coroutine, types.GeneratorType)
        self.name = getattr(coroutine, "__qualname__", "coroutine")
        self.target: Any = LocalStage()
        self.target._handler = self
        self.target._scheduler = home
        self.target._dependents, self.target._outcome, self.target._source = [TICKET], PENDING, None
        home.register(self.target)
        if watch.on:
            watch.attached(self.target, ())

    # -- as a plan --

    def title(self) -> str:
        return str(self.name).rsplit(".", 1)[-1]

    def finish(self, outcome: Any) -> Any:
        self.target._scheduler.unregister(self.target)
        return outcome

    def cancelled(self, place: Any) -> None:
        """Throw the cancellation in, if the coroutine waits; a step that runs will do it itself."""
        coroutine = self._take()
        if coroutine is not None:
            awaited, self.awaited = self.awaited, None
            if awaited is not None:
                let_go(awaited, self.target)
            self._run(self._clean_up, coroutine)

    def _is_over(self) -> bool:
        """Tell whether somebody has begun to settle the coroutine's future: it was cancelled."""
        return not is_unclaimed(self.target)

    # -- as an entry of the awaited future --

    def _is_waiting(self) -> bool:
        return bool(self.target._outcome is PENDING)

    def _fire(self, future: Any, outcome: Any, thread: Any) -> Any:
        """Go on with the coroutine; its future, if that settled it here and now."""
        coroutine = self._take()
        if coroutine is None:
            return None
        if self.target._scheduler.is_local:
            return self._advance(coroutine, outcome)
        self._run(self._advance_and_carry_on, coroutine, outcome)
        return None

    # -- steps --

    def _take(self) -> Any:
        try:
            return self.baton.pop()
        except IndexError:
            return None

    def _run(self, step: Callable[..., object], *args: Any) -> None:
        """Run a step on the home; in this thread if that takes no more work."""
        home = self.target._scheduler
        if home.is_local:
            step(*args)
            return
        hop: Any = ExecutorStage()
        hop._handler = hop._source = hop._call = None
        hop._scheduler, hop._outcome, hop._dependents = self.target._scheduler, PENDING, [TICKET]
        hop._context = self.context.copy()  # the step itself runs in the one context of the run
        home.register(hop)
        attach(hop, _Refused(functools.partial(step, *args)))
        home.start(hop, (step, args, {}))

    def start(self) -> None:
        """Take the first step."""
        if watch.on:
            watch.started(self.target, current.thread)
        self._run(self._advance_and_carry_on, self._take(), None)

    def _advance_and_carry_on(self, coroutine: Any, outcome: Any) -> None:
        if self._advance(coroutine, outcome) is not None:
            run_dependents(self.target)

    def _advance(self, coroutine: Any, outcome: Any) -> Any:
        """Send results in until the coroutine waits or ends; its future if it ended, else None."""
        while True:
            yielded, ended = self._step(coroutine, outcome)
            run = current.thread
            if run.later and not run.depth:
                leave_handlers(run)  # what the step put off: the yielded future may be waiting for it
            if ended:
                return self._end(yielded)
            outcome = self._await(yielded)
            if outcome is not PENDING:
                continue
            awaited = self.awaited
            self.baton.append(coroutine)  # from here on others may go on with it
            waits = not self._is_over() and attach(awaited, self)
            if waits and self._is_over():
                self.cancelled(None)  # cancelled in between, when the baton was ours
            ring = waits and is_ring(self.target, awaited)
            if waits and not ring:
                return None
            coroutine = self._take()
            if coroutine is None:
                return None
            if self._is_over():
                self._clean_up(coroutine)
                return None
            outcome = awaited._outcome
            if ring:
                detach(awaited, self)
                self.target._source = self.awaited = None
                outcome = Failure(TypeError(f"{self.name} waits for a future that waits for it: a cycle"))

    def _step(self, coroutine: Any, outcome: Any) -> tuple[Any, bool]:
        """Resume once; what it yields, or its outcome and True."""
        run = current.thread
        run.depth, run.drives = run.depth + 1, run.drives + 1
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
            run.note_interrupt(error)
            return Failure(error), True
        finally:
            run.depth, run.drives = run.depth - 1, run.drives - 1

    def _await(self, yielded: Any) -> Any:
        """Return the outcome to send back in, or PENDING after noting what is waited for."""
        if not issubclass(type(yielded), cf.Future):
            if self.is_generator:
                return yielded
            wrong = f"{yielded!r} cannot be awaited here: without an event loop, await futures of concurrent.futures"
            return Failure(TypeError(wrong))
        future: Any = wrap_future(yielded)
        if self.is_generator:
            future = future.final
        future._observed()
        if future.done():
            return future._outcome
        self.target._source = self.awaited = future
        return PENDING

    def _end(self, value: Any) -> Any:
        if not claim(self.target):
            return None
        outcome = value if type(value) is Failure else resolve(self.target, value)
        if outcome is PENDING:
            return None
        publish(self.target, outcome)
        return self.target

    def _clean_up(self, coroutine: Any) -> None:
        """Let the coroutine see that it was cancelled; what it does with that is its own affair."""
        outcome: Any = Failure(CancelledError())
        while True:
            yielded, ended = self._step(coroutine, outcome)
            if ended:
                return
            if issubclass(type(yielded), cf.Future) and not yielded.done():
                coroutine.close()
                return
            outcome = wrap_future(yielded)._outcome if issubclass(type(yielded), cf.Future) else yielded


class _Refused:
    """An entry in a hop: runs the step here, if the executor refused it."""

    __slots__ = ("_step",)

    def __init__(self, step: Callable[[], object]) -> None:
        self._step = step

    def _is_waiting(self) -> bool:
        return True

    def _fire(self, future: Any, outcome: Any, thread: Any) -> None:
        """Do so if the step failed to start; a step itself never fails."""
        if type(outcome) is Failure:
            self._step()


def _start(coroutine: Any, home: Scheduler) -> Future[Any]:
    if not home.takes_closures():
        coroutine.close()
        raise TypeError(f"a coroutine cannot run on {home.name}: its steps need a thread of this process")
    runner = _Runner(coroutine, home)
    runner.start()
    return cast("Future[Any]", runner.target)


def suspend(future: Any) -> Generator[Any, Any, Any]:
    """Yield what the driver of the awaiting coroutine understands."""
    driver = None if current.thread.drives else foreign_driver()
    if driver is None:
        yield future
    else:
        yield from driver(future)


def ensure(coroutine: Any, home: Scheduler) -> Future[Any]:
    """Run a coroutine that a handler returned, on `home` if steps can run there."""
    return _start(coroutine, home if home.takes_closures() else INLINE._scheduler)


@overload
def ensure_future(x: cf.Future[T], *, on: cf.Executor | None = None) -> Future[T]: ...
@overload
def ensure_future(x: Awaitable[T], *, on: cf.Executor | None = None) -> Future[T]: ...
def ensure_future(x: Any, *, on: cf.Executor | None = None) -> Future[Any]:
    """Return a future of `x`: of a future, a coroutine or another awaitable.

    Args:
        x: a future is adopted; a coroutine is run, its steps on `on`, and holds no thread while it waits.
        on: the executor for the steps; by default `INLINE`.

    Raises:
        TypeError: if `x` is none of these, or `on` no executor that can run steps (a process pool cannot).
    """
    if isinstance(x, cf.Future):
        return wrap_future(x)
    home = INLINE._scheduler if on is None else scheduler_of(on)
    if isinstance(x, types.CoroutineType):
        return _start(x, home)
    if isinstance(x, Awaitable):
        return _start(_await(x), home)
    raise TypeError(f"ensure_future() wants a future, a coroutine or an awaitable, not {x!r}")


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def inlineCallbacks(
    fn: Callable[P, Generator[Any, Any, T] | Coroutine[Any, Any, T]],
) -> Callable[P, Future[T]]:
    """Turn a generator function, or an ``async def`` function, into one that returns a `Future`.

    Each future that it yields (or awaits) pauses it without holding a thread; its result comes back in, its error is
    raised there. Anything else that a generator yields comes right back. Steps run in the thread that settles the
    awaited future. Cancelling the future cancels what it waits for, and throws ``CancelledError`` in.

    Raises:
        TypeError: if `fn` is not callable; and, at a call, if it returned neither a generator nor a coroutine.
    """
    if not callable(fn):
        raise TypeError(f"inlineCallbacks() decorates a generator function or an async function, not {fn!r}")

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> Future[T]:
        coroutine: Any = fn(*args, **kwargs)
        if isinstance(coroutine, (types.GeneratorType, types.CoroutineType)):
            return _start(coroutine, INLINE._scheduler)
        name = getattr(fn, "__qualname__", fn)
        raise TypeError(
            f"{name} returned {coroutine!r}: @inlineCallbacks wants a generator function (one with `yield future`) or "
            "an async function (one with `await future`)"
        )

    return call
