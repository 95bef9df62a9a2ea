"""Anybody's executor in a wrapper, with futures that chain.

The foreign executor does the work; a `WrappedScheduler` stands between it and the chains. There are three kinds:
standard thread pools share our memory, and settle futures where user code may run; standard process pools have a
machinery with traps of its own, see `ProcessScheduler`; of the others nothing is known but their interface, and the
end of the interpreter does not wait for them.
"""

from __future__ import annotations

import concurrent.futures as cf
import concurrent.futures.process as standard
import inspect
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from itertools import islice
from pickle import PicklingError
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from futurechain.core import callback_threads, unobserved
from futurechain.core.attaching import MISSING
from futurechain.core.cancel import cancel_owned
from futurechain.core.flatten import resolve
from futurechain.core.loop import leave_handlers, settle
from futurechain.core.observers import Elsewhere, watch
from futurechain.core.scheduler import Call, Scheduler
from futurechain.core.state import PENDING, claim, publish
from futurechain.core.stdlib import is_cancelled, outcome_of
from futurechain.core.thread_state import current
from futurechain.core.unobserved import annotate
from futurechain.errors import BrokenExecutor, ExecutorShutdownError, LostFutureError
from futurechain.executors import exit as interpreter
from futurechain.executors import pebble
from futurechain.executors.mapping import Mapping
from futurechain.executors.out_of_process import Job, OutOfProcess, unpicklable
from futurechain.executors.parcel import Parcel, Timed, Turn, Withdrawn
from futurechain.executors.pool import check_stage_travels, new_name, refusal
from futurechain.executors.wrapped_future import Foreign, says_broken
from futurechain.failure import Failure
from futurechain.future import Future
from futurechain.interrupts import put_off

__all__ = ["ProcessScheduler", "WrappedExecutor", "WrappedScheduler", "wrap_executor"]

P = ParamSpec("P")
T = TypeVar("T")


class Launched(Foreign):
    """What a stage waits for that a foreign executor runs: its future there."""

    __slots__ = ("stoppers", "turn")

    def __init__(self, future: cf.Future[Any], turn: Turn | None = None) -> None:
        super().__init__(future)
        self.turn: Turn | None = turn
        """The call, where it is ours until its turn comes."""
        self.stoppers: list[None] = []
        """One for each thread that is in `stop`, and will claim the stage if that says True."""

    def stop(self) -> bool:
        """Ask for an end of it; False if it runs, and goes on.

        The withdrawn future arrives at once, within the request, and is left alone then: the stage is for the caller.
        """
        future, asked = self._future(), False
        self.stoppers.append(None)
        try:
            if future is not None:
                with suppress(Exception):  # some executors' futures cannot be cancelled, and say so by raising
                    asked = future.cancel()
        finally:
            self.stoppers.pop()
        return asked or not self.runs_abroad()  # a look after that: what has been left alone runs no more

    def takes(self, stage: Any, failure: Any = None) -> bool:
        """Take the right to settle `stage`: that of who has made its call, or anybody's.

        If somebody is just beginning it, and so neither is to be had, that one fails it with `failure`.
        """
        if self.turn is None:
            return claim(stage)
        if self.turn.takes() or claim(stage):
            return True
        if type(failure) is not Failure:
            return False
        self.turn.has_failed(failure.value)  # first; and then a second look
        return self.turn.takes() or claim(stage)


class LaunchedTurn(Launched):
    """The same on a standard pool, which is never asked to cancel what it holds: until its turn the call is ours."""

    __slots__ = ()

    def __init__(self, turn: Turn) -> None:
        self.stoppers: list[None] = []
        self.turn: Turn | None = turn

    def runs_abroad(self) -> bool:
        """Tell whether a worker has it; one may have it before its future is known."""
        return self.turn is not None and self.turn.has_begun()

    def stop(self) -> bool:
        """Take the call back, unless a worker has it, or has made it."""
        return self.turn is not None and self.turn.stop()


class WrappedScheduler(OutOfProcess):
    """Between one foreign executor and the chains."""

    __slots__ = ("_cancels", "_ended", "_enders", "_executor", "_has_waiter", "_kept", "inside")
    is_awaited = False

    def __init__(self, executor: Any, foreign: cf.Executor) -> None:
        super().__init__(getattr(foreign, "_thread_name_prefix", "") or new_name(type(foreign).__name__))
        self._executor = weakref.ref(executor)
        self._kept: dict[int, Any] = {}
        """The executor, for each stage that is still to be settled: it must live until then."""
        self._enders = [None]
        """Who pops this ends the foreign executor; `_ended` tells the others."""
        self._ended = threading.Event()
        self._has_waiter = False
        """Whether a thread waits that will do so."""
        self._cancels = False
        self.inside: set[int] = set()
        """What the foreign executor has: the identities of stages that their done callback holds."""

    def register(self, stage: Any, source: Any = None) -> None:
        check_stage_travels(stage, self)  # before anything is kept
        self._kept[id(stage)] = self._executor()
        super().register(stage, source)

    def unregister(self, stage: Any) -> None:
        kept = None
        try:
            kept = self._kept.pop(id(stage), None)
        finally:
            super().unregister(stage)
            del kept

    def expel(self, task: Any) -> None:
        kept = self._kept.pop(id(task), None)
        super().expel(task)
        del kept

    def forget(self) -> None:
        super().forget()
        self.inside.clear()
        self._kept.clear()

    def is_moving(self) -> bool:
        return self.is_awaited and bool(self.inside or self.jobs)

    def launch(self, stage: Any, call: Call, *, begun: bool) -> None:
        try:
            self.inside.add(id(stage))
            foreign, source = self.send(self.foreign(self._executor()), stage, call, begun=begun)
            stage._call, stage._source = call[0], source
            foreign.add_done_callback(_Arrival(self, stage, source))
        except BaseException as error:
            self.inside.discard(id(stage))
            turn = getattr(stage._source, "turn", None)
            if turn is not None:  # a Ctrl-C may have come when the call was queued already, or begun
                turn.give_up(stage, error)
            if stage.done():  # cancelled in between, and perhaps before a store of `send`
                stage._source = None
            raise
        if stage.done():  # cancelled in between, and perhaps before our stores
            stage._call = stage._source = None
            source.stop()

    def fail(self, stage: Any, error: BaseException, call: Call | None = None) -> None:
        if type(error) is RuntimeError and "shutdown" in str(error):  # the executor ended before the chain did
            refused = ExecutorShutdownError(refusal(self.name))
            refused.__cause__ = error
            error = refused
        super().fail(stage, error, call)

    def foreign(self, executor: Any) -> Any:
        """Return the executor that does the work for `executor`."""
        return executor._executor

    def send(self, foreign: Any, stage: Any, call: Call, *, begun: bool) -> tuple[cf.Future[Any], Launched]:
        """Submit `call`; return the future there, and what the stage waits for then."""
        future = _submitted(foreign, call, begun=begun)
        return future, Launched(future)

    def arrive(self, stage: Any, foreign: cf.Future[Any], source: Launched) -> None:
        """Settle the stage, in whatever thread this is."""
        try:
            outcome = outcome_of(foreign)
            if type(outcome) is Timed:
                watch.ran(stage, Elsewhere(outcome.process, outcome.began))
                outcome = outcome.outcome
            if outcome is Withdrawn:  # the stage is for who has withdrawn it
                return
            if type(outcome) is Failure:
                outcome = Failure(_own(outcome.value, stage, self))
            if not is_cancelled(outcome):
                if source.takes(stage, outcome):
                    self.receive(stage, outcome)
            elif not source.stoppers and source.takes(stage, outcome):  # a pool that is shut down holds a lock here
                self.carry_on(partial(cancel_owned, stage, outcome))
        finally:
            self.inside.discard(id(stage))

    def lose(self, stage: Any, source: Launched) -> None:
        """Fail a stage that the executor has forgotten."""
        self.inside.discard(id(stage))
        if source.turn is not None:
            source.turn.give_back(stage)
        self.fail(stage, LostFutureError(f"{self.name} has dropped the future of this stage without settling it"))

    def receive(self, stage: Any, outcome: Any) -> None:
        """Settle a stage that is ours as the executor says; one that shares our memory may deliver a future."""
        if issubclass(type(outcome), cf.Future):
            self.carry_on(partial(_settle_here, stage, outcome))
        else:
            self.deliver_owned(stage, outcome)

    def carry_on(self, action: Callable[[], object]) -> None:
        """Do what is to be done for a stage that has arrived, and may run user code."""
        callback_threads.post(Job(self, action))

    # -- ending ---------------------------------------------------------------------------------------------------

    def shut_down(self, executor: Any, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more outside work, and end the foreign executor when the chains have ended."""
        self._cancels = self._cancels or cancel_futures
        waits = wait and current.thread.within is not self
        self._has_waiter = self._has_waiter or waits
        try:
            self.close(cancel_futures=cancel_futures)
            if waits:
                self.wait()
                self._end(executor)
        except BaseException:  # Ctrl-C, while it waited
            self._has_waiter = False
            if self.over:
                self.finish()
            raise

    def finish(self) -> None:
        executor = self._executor()
        if self.shut and executor is not None and not self._has_waiter:
            callback_threads.post(partial(self._end, executor))

    def _end(self, executor: Any) -> None:
        """End the foreign executor, and wait for that: once."""
        ours: list[None] = []
        try:
            # In one step of the interpreter: an interrupt must not come between taking it and knowing that.
            ours.extend(islice(iter(self._enders.pop, 0), 1))  # decides who does it
            self.end(self.foreign(executor))
        except IndexError:
            if ours:
                raise
        finally:
            try:
                if ours:
                    self._ended.set()
            except BaseException:  # Ctrl-C, just in there
                self._ended.set()
                raise
        self._ended.wait()

    def end(self, foreign: Any) -> None:
        """Shut it down, as far as it knows how."""
        try:
            known: Any = inspect.signature(foreign.shutdown).parameters
        except (TypeError, ValueError):
            known = ()
        foreign.shutdown(wait=True, **({"cancel_futures": True} if self._cancels and "cancel_futures" in known else {}))


class _Arrival:
    """The done callback of a foreign future; it notices when the executor drops that without settling it.

    Called in the main thread (the future was done when this was added), it puts Ctrl-C off: that must not come between
    taking a stage and settling it. What depends on the stage comes after that.
    """

    __slots__ = ("_scheduler", "_source", "_stage")

    def __init__(self, scheduler: WrappedScheduler, stage: Any, source: Launched) -> None:
        self._scheduler = scheduler
        self._stage: Any = stage
        self._source = source

    def __call__(self, foreign: cf.Future[Any]) -> None:
        if not _is_main_thread():
            self._arrive(foreign)
            return
        try:
            with put_off():
                self._arrive(foreign)
        finally:
            thread = current.thread
            if thread.later and not thread.depth:
                leave_handlers(thread)

    def _arrive(self, foreign: cf.Future[Any]) -> None:
        stage, self._stage = self._stage, None
        self._scheduler.arrive(stage, foreign, self._source)

    def __del__(self) -> None:
        if getattr(self, "_stage", None) is not None:  # a Ctrl-C may have come before there was one
            unobserved.rescue(partial(self._scheduler.lose, self._stage, self._source))


class ThreadsScheduler(WrappedScheduler):
    """Of a standard thread pool."""

    __slots__ = ()
    is_awaited = True

    def takes_closures(self) -> bool:
        return True

    def send(self, foreign: Any, stage: Any, call: Call, *, begun: bool) -> tuple[cf.Future[Any], Launched]:
        turn = Turn(stage, call)
        stage._source = here = LaunchedTurn(turn)  # first: a worker may have the call before `submit` returns
        future = _submitted(foreign, (_run_within, (self, stage._context, turn), {}), begun=begun)
        return future, here if type(future) is cf.Future else Launched(future, turn)

    def receive(self, stage: Any, outcome: Any) -> None:
        if says_broken(outcome):
            self.carry_on(partial(_settle_here, stage, outcome))
        elif _is_main_thread():
            _publish_here(stage, outcome)
        else:
            Job(self, partial(_settle_here, stage, outcome))()


class ProcessScheduler(WrappedScheduler):
    """Of a standard process pool.

    It is never asked to cancel what it holds: in Python 3.11 that makes it lose the rest when a worker dies. Instead
    a call that is not wanted any more is sent as one that does nothing (see `Parcel`). When the pool breaks, its
    manager settles all futures with one exception, and from Python 3.12 on it holds a lock meanwhile that `submit`
    wants: so a broken pool is not asked, as a view of `limit` would do at once, in that very thread.
    """

    __slots__ = ()
    is_awaited = True

    def send(self, foreign: Any, stage: Any, call: Call, *, begun: bool) -> tuple[cf.Future[Any], Launched]:
        if foreign._broken:
            raise standard.BrokenProcessPool(foreign._broken)
        turn = Turn(stage, call)
        stage._source = here = LaunchedTurn(turn)  # first, as above
        return standard.ProcessPoolExecutor.submit(foreign, Parcel(turn)), here


def _submitted(foreign: Any, call: Call, *, begun: bool) -> cf.Future[Any]:
    """Submit `call`; where the queue is ours, before what has not begun."""
    if type(foreign) is pebble.PebblePool:
        return foreign.put(call, begun=begun)
    fn, args, kwargs = call
    future: cf.Future[Any] = foreign.submit(fn, *args, **kwargs)
    return future


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _settle_here(stage: Any, outcome: Any) -> None:
    outcome = _taken_in(stage, outcome)
    if outcome is not PENDING:
        settle(stage, outcome)


def _publish_here(stage: Any, outcome: Any) -> None:
    """Let everybody see the outcome; what depends on it runs when this thread leaves its handlers."""
    outcome = _taken_in(stage, outcome)
    if outcome is not PENDING:
        publish(stage, outcome)
        current.thread.later.append(stage)


def _taken_in(stage: Any, outcome: Any) -> Any:
    """Return the outcome that the executor's one stands for; PENDING if the stage waits for that."""
    if type(outcome) is not Failure:
        return resolve(stage, outcome)
    annotate(outcome.value, stage)
    return outcome


def _run_within(scheduler: Scheduler, context: Context, turn: Turn) -> Any:
    """Make the call, if it is still wanted, in a worker of a foreign thread pool: what it submits is inside work.

    Like any handler it puts things off. They are done here, since nobody knows in which thread the outcome arrives.
    """
    call = turn.begin()
    if call is None:
        return Withdrawn
    fn, args, kwargs = call
    del call
    run = current.thread
    depth, run.depth = run.depth, run.depth + 1
    run.within, before = scheduler, run.within
    try:
        return context.run(fn, *args, **kwargs)
    finally:
        del fn, args, kwargs
        run.depth = depth
        try:
            if not depth:
                leave_handlers(run)
        finally:
            run.within = before


# -- errors -------------------------------------------------------------------------------------------------------

_BY_THE_POOL = re.compile(r"in _feed\b|in _sendback_result\b")
_BY_ANYBODY = re.compile(r"in (dumps|serialize)\b")
"""The functions that pickle tasks and results, as they appear in a remote traceback."""


def _own(error: BaseException, stage: Any, scheduler: WrappedScheduler) -> BaseException:
    """Return the error for this stage alone: explained, if something did not pickle; not shared, if the pool broke."""
    trace = str(error.__cause__ or "")
    by_the_pool = _BY_THE_POOL.search(trace) and isinstance(error, Exception)
    by_anybody = isinstance(error, (PicklingError, AttributeError, TypeError)) and _BY_ANYBODY.search(trace)
    if not scheduler.takes_closures() and (by_the_pool or by_anybody or type(error) is PicklingError):
        return unpicklable(stage, scheduler, error)
    return _copy(error) if isinstance(error, BrokenExecutor) else error


def _copy(error: BaseException) -> BaseException:
    """Return another exception that says the same: the pool has given this one to many."""
    try:
        copied = type(error)(*error.args)
    except Exception:
        return error
    copied.__cause__ = error.__cause__
    return copied


# -- the public side ----------------------------------------------------------------------------------------------


class WrappedExecutor(Mapping):
    """Anybody's executor, with futures that chain; made by `wrap_executor`.

    Example:
        >>> wrap_executor(concurrent.futures.ThreadPoolExecutor()).submit(pow, 2, 5).result()
        32
    """

    _scheduler: WrappedScheduler

    def __init__(self, executor: cf.Executor) -> None:
        self._executor = executor
        self._scheduler = _kind_of(executor)(self, executor)
        self._maps_in_chunks = not self._scheduler.takes_closures()

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` on the executor; return its future.

        Raises:
            TypeError: if `fn` is missing or not callable.
            RuntimeError: after the shutdown; and what the executor itself raises.

        Example:
            >>> wrap_executor(concurrent.futures.ThreadPoolExecutor()).submit(pow, 2, 5).result()
            32
        """
        return cast("Future[T]", self._scheduler.submit((fn, args, kwargs), copy_context()))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new outside work, let what was begun end (whole chains), then shut the executor down.

        Args:
            wait: block until then.
            cancel_futures: cancel what has not begun, stages included, whether the executor knows this or not.

        Example:
            >>> wrap_executor(concurrent.futures.ThreadPoolExecutor()).shutdown() is None
            True
        """
        self._scheduler.shut_down(self, wait=wait, cancel_futures=cancel_futures)

    if not TYPE_CHECKING:

        @property
        def _max_workers(self) -> int:
            """How many workers the executor has, for those who look (Dask does)."""
            return getattr(self._executor, "_max_workers", None) or os.cpu_count() or 1

    def __repr__(self) -> str:
        broken = getattr(self._executor, "_broken", False)
        state = "broken" if broken else "shut down" if self._scheduler.closing else "open"
        waiting = len(self._scheduler.unsettled())
        return f"<{type(self).__name__} {self._scheduler.name} {state}, {waiting} pending, of {self._executor!r}>"


def _kind_of(executor: cf.Executor) -> type[WrappedScheduler]:
    interpreters: Any = sys.modules.get("concurrent.futures.interpreter")
    if isinstance(executor, standard.ProcessPoolExecutor):
        return ProcessScheduler
    if isinstance(executor, getattr(interpreters, "InterpreterPoolExecutor", ())):
        return WrappedScheduler
    threads = isinstance(executor, cf.ThreadPoolExecutor)
    if threads or (isinstance(executor, pebble.PebblePool) and pebble.shares_memory(executor)):
        return ThreadsScheduler
    return WrappedScheduler


def wrap_executor(executor: Any) -> WrappedExecutor:
    """Give `executor` futures that chain; ours are returned as they are.

    Pebble's pools will do as well.

    The same executor gives the same wrapper, as long as either is in use. The wrapper must end first, as in
    the example: a chain of an executor that is shut down cannot go on.

    Raises:
        TypeError: if it is no ``concurrent.futures.Executor``.

    Example:
        >>> with concurrent.futures.ThreadPoolExecutor() as executor, wrap_executor(executor) as pool:
        ...     pool.submit(int, "42").then(hex).result()
        '0x2a'
    """
    executor = pebble.as_executor(executor)
    if isinstance(getattr(executor, "_scheduler", None), Scheduler):
        return cast("WrappedExecutor", executor)
    if not isinstance(executor, cf.Executor):
        raise TypeError(f"wrap_executor() wants a concurrent.futures.Executor, not {executor!r}")
    try:
        return cast("WrappedExecutor", executor.__dict__.setdefault("_futurechain", WrappedExecutor(executor)))
    except AttributeError:  # no __dict__
        return WrappedExecutor(executor)


interpreter.arm()
