"""Coroutines without an event loop: generators and ``async def`` functions whose waits hold no thread.

Theory of operation
-------------------
A `_Runner` advances one coroutine, step by step, with a `Driver`. Between steps it is an entry in the future that is
waited for, and the driver is the one element of ``baton``: whoever pops that may advance the coroutine. The settling
of the awaited future and a cancellation both try. A cancellation that comes while a step runs settles the coroutine's
future at once; the running step sees this when it has put the baton back, and throws the cancellation in.

Steps run on the home of the chain, in one context for the whole run. Settled futures are not waited for: a loop
sends their results back in. ``await future`` yields the future to whoever drives the coroutine: to one of our
drivers, or, in a thread where asyncio's loop or trio runs, by way of `event_loops` to that.
"""

from __future__ import annotations

import concurrent.futures as cf
import functools
import types
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, overload

from futurechain.core.cancel import let_go
from futurechain.core.flatten import PLAIN_VALUES, is_ring, resolve
from futurechain.core.handlers import Handler
from futurechain.core.loop import leave_handlers, run_dependents
from futurechain.core.observers import watch
from futurechain.core.scheduler import Scheduler, scheduler_of
from futurechain.core.state import (
    PENDING,
    Pending,
    attach,
    claim,
    detach,
    is_unclaimed,
    new_pending,
    publish,
    settle_unowned,
)
from futurechain.core.thread_state import blocked, current, wake_blocked
from futurechain.errors import CancelledError
from futurechain.executors.inline import INLINE
from futurechain.executors.wrapped_future import wrap_future
from futurechain.failure import Failure
from futurechain.flow.driver import NO_LOOP, Driver, Steps, decorate, returnValue
from futurechain.flow.event_loops import suspend
from futurechain.future import ExecutorStage, Future, LocalStage

__all__ = ["ensure", "ensure_future", "inlineCallbacks", "returnValue", "suspend"]

P = ParamSpec("P")
T = TypeVar("T")


_NOTHING: Any = None


class _Runner(Handler):
    """Advances one coroutine; the plan of its future."""

    __slots__ = ("awaited", "baton", "context", "name", "step", "target")

    def __init__(self, steps: Steps[Any], home: Scheduler) -> None:
        driver = Driver(steps)
        self.baton = [driver]
        self.awaited: Any = None
        """What it waits for, as long as it has the baton back."""
        self.step: Any = None
        self.context, self.name = driver.context, driver.name
        self.target: Any = new_pending(LocalStage, self, home)
        if watch.on:
            watch.attached(self.target, ())

    # -- as a plan --

    def title(self) -> str:
        return self.name

    def finish(self, outcome: Any) -> Any:
        target = self.target
        if target is not None:  # else this was done before, and is tried again after an interrupt
            target._scheduler.unregister(target)
        return outcome

    def cancelled(self, scheduler: Any) -> None:
        """Throw the cancellation in, if the coroutine waits; a step that runs will do it itself."""
        driver = self._take()
        if driver is not None:
            awaited, self.awaited = self.awaited, None
            if awaited is not None:
                let_go([awaited], self)
            self._run(self._clean_up, driver)

    def _is_over(self) -> bool:
        """Tell whether somebody has begun to settle the coroutine's future: it was cancelled."""
        target = self.target
        return target is None or not is_unclaimed(target)

    # -- as an entry of the awaited future --

    def _is_waiting(self) -> bool:
        target = self.target
        return target is not None and target._outcome is PENDING

    def _fire(self, future: Any, outcome: Any, thread: Any) -> Any:
        """Go on with the coroutine; its future, if that settled it here and now."""
        driver = self._take()
        if driver is None:
            return None
        try:
            if self.target._scheduler.is_local:
                return self._advance(driver, outcome)
            self._run(self._advance_and_carry_on, driver, outcome)
            return None
        finally:
            del self, future, outcome, driver  # no cycle: a traceback may keep this frame

    def _broken_off(self, error: BaseException) -> Any:
        target, driver = self.target, self._take()
        if target is not None and settle_unowned(target, Failure(error)) and driver is not None:
            with suppress(BaseException):  # it has not heard of any error, and is not asked for one
                driver.steps.close()
        return target if target is not None and target.done() else None

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
            try:
                step(*args)
            finally:
                del self, step, args  # no cycle: a traceback may keep this frame
            return
        hop: Any = new_pending(ExecutorStage, None, home)
        hop._call = None
        hop._context = self.context.copy()  # the step itself runs in the one context of the run
        turn = [step]
        attach(hop, _Refused(functools.partial(_take_step, turn, *args)))  # first: once noted, it may be cancelled
        try:
            self.step = hop  # before it is queued: who waits for the coroutine may be blocked already
            home.register(hop, self.target)
            home.start(hop, (_take_step, (turn, *args), {}))
        except BaseException:  # Ctrl-C: a shutdown must not wait for it
            if claim(hop):
                home.unregister(hop)
            raise

    def start(self) -> None:
        """Take the first step."""
        driver = self._take()  # decides against a cancellation, by a shutdown that knows the future already
        try:
            if driver is not None:
                if watch.on:
                    watch.started(self.target, current.thread)
                self._run(self._advance_and_carry_on, driver, None)
        finally:
            del self, driver

    def _advance_and_carry_on(self, driver: Driver, outcome: Any) -> None:
        try:
            target = self._advance(driver, outcome)
            if target is not None:
                run_dependents(target)
        finally:
            target = None
            del self, driver, outcome

    def _advance(self, driver: Any, outcome: Any) -> Any:
        """Send results in until the coroutine waits or ends; its future if it ended, else None."""
        try:
            while driver is not None:
                yielded, ended = self._step(driver, outcome)
                if ended:
                    return self._end(yielded)
                outcome = self._await(driver, yielded)
                if outcome is PENDING:
                    driver, outcome = self._wait(driver)
            return None
        finally:
            del self, driver, outcome
            yielded = None

    def _wait(self, driver: Driver) -> tuple[Driver | None, Any]:
        """Leave the coroutine to the awaited future; return the driver and the outcome if it goes on here."""
        awaited, target = self.awaited, self.target
        self.baton.append(driver)  # from here on others may go on with it
        waits = not self._is_over() and attach(awaited, self)
        if blocked:
            wake_blocked()
        if waits and self._is_over():
            self.cancelled(None)  # cancelled in between, when the baton was ours
        ring = waits and is_ring(target, awaited)
        mine = None if waits and not ring else self._take()
        if mine is None:
            return None, None
        if self._is_over():
            let_go([awaited], self)
            self._clean_up(mine)
            return None, None
        if not ring:
            return mine, awaited._outcome
        detach(awaited, self)
        target._source = self.awaited = None
        return mine, Failure(TypeError(f"{self.name} waits for a future that waits for it: a cycle"))

    def _step(self, driver: Driver, outcome: Any) -> tuple[Any, bool]:
        """Resume once, as a handler does: what that puts off is done before we go on."""
        run, stepped = current.thread, _NOTHING
        run.depth += 1
        try:
            stepped = driver.resume(outcome, self.target._scheduler.name)
            return stepped  # noqa: RET504 - a Ctrl-C with the end of the call comes inside of `try`
        finally:
            run.depth -= 1
            if run.later and not run.depth:
                leave_handlers(run)  # the yielded future may be waiting for it
            stepped = _NOTHING  # no cycle, as above
            del self, driver, outcome

    def _await(self, driver: Driver, yielded: Any) -> Any:
        """Return the outcome to send back in, or PENDING after noting what is waited for."""
        if not issubclass(type(yielded), cf.Future):
            yielded = getattr(type(yielded), "_taken", _itself)(yielded)  # a Deferred knows how to become a future
        if not issubclass(type(yielded), cf.Future):
            if driver.is_generator:
                return yielded
            return Failure(TypeError(f"{yielded!r} {NO_LOOP}"))
        future: Any = wrap_future(yielded)
        if driver.is_generator:
            future = future.final
        future._observed()
        outcome = future._outcome  # not `done()`: a value may be somewhere else, and on its way
        if type(outcome) is not Pending:
            return outcome
        self.target._source = self.awaited = future
        if self.target.done():  # a second look: cancelled before our store
            self.target._source = None
        return PENDING

    def _end(self, value: Any) -> Any:
        target = self.target
        if type(value) is Failure or type(value) in PLAIN_VALUES:
            if not settle_unowned(target, value):
                return None
        else:
            if not claim(target) or (outcome := resolve(target, value)) is PENDING:
                return None
            publish(target, outcome)
        self.target = None  # no cycle: a frame that a traceback keeps may hold this
        return target

    def _clean_up(self, driver: Driver) -> None:
        """Let the coroutine see that it was cancelled; what it does with that is its own affair."""
        outcome: Any = Failure(CancelledError())
        ended = False
        try:
            while not ended:
                yielded, ended = self._step(driver, outcome)
                outcome = PENDING if ended else self._await(driver, yielded)
                if outcome is PENDING and not ended:
                    with suppress(Exception):  # whoever cancels it has nothing to do with what it raises
                        driver.steps.close()
                    return
        finally:
            self.awaited = None
            if self.target.done():  # else whoever has claimed it is about to publish it, and needs it for `finish`
                self.target = None  # no cycle, as above
            del self, driver
            outcome = yielded = None


def _itself(value: Any) -> Any:
    return value


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


def _take_step(turn: list[Callable[..., object]], *args: Any) -> None:
    """Take the step, unless it was taken: one that a shutdown cancels while it starts may come here by both ways."""
    try:
        step = turn.pop()  # decides
    except IndexError:
        return
    try:
        step(*args)
    finally:
        del turn, step, args  # no cycle: a traceback may keep this frame


def _start(coroutine: Any, home: Scheduler) -> Future[Any]:
    if not home.takes_closures():
        coroutine.close()
        raise TypeError(f"a coroutine cannot run on {home.name}: its steps need a thread of this process")
    runner = _Runner(coroutine, home)
    future: Future[Any] = runner.target
    try:
        home.register(future)
        runner.start()
        return future
    except BaseException as error:  # Ctrl-C: nobody gets the future, and a shutdown must not wait for it
        runner._broken_off(error)
        if type(coroutine) is types.CoroutineType and not (coroutine.cr_running or coroutine.cr_suspended):
            coroutine.close()  # it has not begun, or has ended: without a warning
        raise
    finally:
        del runner, future  # no cycle: a traceback may keep this frame


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

    Example:
        >>> async def add(one, other):
        ...     return await one + await other
        >>> ensure_future(add(succeed(2), succeed(3)), on=pool).result()
        5
    """
    home = INLINE._scheduler if on is None else scheduler_of(on)
    if isinstance(x, cf.Future):
        return wrap_future(x)
    if isinstance(x, types.CoroutineType):
        return _start(x, home)
    if isinstance(x, Awaitable):
        return _start(_await(x), home)
    raise TypeError(f"ensure_future() wants a future, a coroutine or an awaitable, not {x!r}")


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def inlineCallbacks(fn: Callable[P, Steps[T]]) -> Callable[P, Future[T]]:
    """Turn a generator function, or an ``async def`` function, into one that returns a `Future`.

    Each future that it yields (or awaits) pauses it without holding a thread; its result comes back in, its error is
    raised there. Anything else that a generator yields comes right back. Steps run in the thread that settles the
    awaited future. Cancelling the future cancels what it waits for, and throws ``CancelledError`` in.

    Raises:
        TypeError: if `fn` is not callable; and, at a call, if it returned neither a generator nor a coroutine.

    Example:
        >>> @inlineCallbacks
        ... def add(one, other):
        ...     return (yield one) + (yield other)
        >>> add(succeed(2), succeed(3)).result()
        5
    """
    return decorate(fn, lambda steps: _start(steps, INLINE._scheduler))
