"""Executors that run things elsewhere: the process pool, and anybody's executor in a wrapper.

The foreign executor does the work; a `_Remote` home stands between it and the chains. The thread on which a
foreign future is settled often belongs to the executor's manager or to an event loop. There we only publish the
outcome, which wakes those who wait; everything else, user code and the submission of the next stage, goes to a callback
thread (see `callback_threads`).

``pending`` holds what is still to be settled, with the executor itself: it must live until the chains have ended.
"""

from __future__ import annotations

import concurrent.futures as cf
import concurrent.futures.process as standard
import inspect
import itertools
import os
import pickle
import re
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import thread
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any, ParamSpec, TypeVar, cast

from futurechain.core import callback_threads
from futurechain.core import unobserved
from futurechain.core.flatten import resolve
from futurechain.core.scheduler import Call, Scheduler
from futurechain.errors import BrokenExecutor, ExecutorShutdownError, StagePicklingError
from futurechain.failure import Failure
from futurechain.executors.wrapped_future import Foreign
from futurechain.core.attaching import MISSING, new_task
from futurechain.future import ExecutorStage, Future
from futurechain.core.state import PENDING, claim, publish, withdraw
from futurechain.core.stdlib import WaitCondition, Waiter, outcome_of
from futurechain.core.unobserved import annotate
from futurechain.core.handlers import Finally, label
from futurechain.core.thread_state import current
from futurechain.core.loop import run_dependents, settle
from futurechain.executors.threads import refusal
from futurechain.core.observers import watch

__all__ = ["ProcessPoolExecutor", "WrappedExecutor", "wrap_executor"]

P = ParamSpec("P")
T = TypeVar("T")


class _Remote(Scheduler):
    """Between one foreign executor and the chains."""

    __slots__ = ("_end", "_ending", "_executor", "_quiet", "_submit", "closing", "inflight", "pending", "same_process")

    def __init__(
        self, executor: Any, submit: Callable[..., Any], end: Callable[..., Any], *, of: Any = None
    ) -> None:
        super().__init__(f"{type(of or executor).__name__}-{next(_numbers)}")
        self._executor = weakref.ref(executor)
        self._submit = submit
        self._end = end
        self._quiet = threading.Condition()
        self._ending = threading.Lock()
        self.same_process = isinstance(of, thread.ThreadPoolExecutor)
        self.closing = False
        self.pending: dict[int, Any] = {}
        self.inflight: dict[int, Any] = {}
        _homes.add(self)

    def takes_closures(self) -> bool:
        return self.same_process

    def register(self, stage: Any) -> None:
        self.pending[id(stage)] = stage, self._executor()
        if self.closing and current.thread.within is not self:
            self.unregister(stage)  # it will be refused when its turn comes; an error before that still passes through

    def unregister(self, stage: Any) -> None:
        self.inflight.pop(id(stage), None)
        entry = self.pending.pop(id(stage), None)
        if entry is not None and self.closing and not self.pending:
            self._over(entry[1])

    def _over(self, executor: Any) -> None:
        """End the foreign executor: the last chain has ended after the shutdown."""
        with self._quiet:
            self._quiet.notify_all()
        callback_threads.post(partial(self.end, executor))

    def start(self, stage: Any, call: Call) -> None:
        try:
            if id(stage) not in self.pending:
                raise ExecutorShutdownError(refusal(self.name))
            if type(stage._handler) is Finally:  # which does not travel: its function does, from here on
                stage._handler.begun, call = True, (stage._handler.fn, (), {})
            self.launch(stage, call, stage._context)
        except BaseException as error:
            if claim(stage):
                settle(stage, Failure(error))

    def launch(self, stage: Any, call: Call, context: Any) -> None:
        """Submit `call` and let `stage` follow its future; raises what the executor raises."""
        fn, args, kwargs = call
        self.inflight[id(stage)] = stage
        executor = self._executor()
        if self.same_process:
            foreign = self._submit(executor, context.run, fn, *args, **kwargs)
        elif not isinstance(executor, standard.ProcessPoolExecutor):
            foreign = self._submit(executor, fn, *args, **kwargs)
        else:
            foreign = self._submit(executor, time_there if watch.on else call_there, fn, *args, **kwargs)
        if watch.on:
            watch.queued(stage)
        stage._call = fn
        stage._source = Foreign(foreign)
        foreign.add_done_callback(partial(self._arrive, stage))
        if stage.done():  # cancelled in between
            foreign.cancel()

    def _arrive(self, stage: Any, foreign: cf.Future[Any]) -> None:
        """Publish the outcome, in whatever thread this is; leave user code to a callback thread."""
        if not claim(stage):
            return
        outcome = outcome_of(foreign)
        if type(outcome) is Timed:
            watch.ran(stage, outcome.process, outcome.began)
            outcome = outcome.outcome
        if type(outcome) is Failure:
            outcome = _explained(outcome, stage)
            if not isinstance(outcome.value, BrokenExecutor):  # which many stages share, and none has raised
                annotate(outcome.value, stage)
        elif (outcome := resolve(stage, outcome)) is PENDING:
            return
        if self.same_process:
            settle(stage, outcome)
            return
        job = _Job(self, stage)
        self.pending[id(job)] = job, self._executor()  # before the stage retires: a shutdown waits for it, too
        publish(stage, outcome)
        if _wake(stage):
            self.unregister(job)
        else:
            callback_threads.post(job)

    def close(self, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more outside work; end the foreign executor when the chains have ended."""
        self.closing = True
        if cancel_futures:
            for stage, _ in tuple(self.pending.values()):
                if isinstance(stage, Future):
                    stage.cancel()
        wait = wait and current.thread.within is not self
        if wait:
            with self._quiet:
                self._quiet.wait_for(lambda: not self.pending)
        if not self.pending:
            self.end(self._executor(), wait=wait, cancel_futures=cancel_futures)

    def end(self, executor: Any, *, wait: bool = False, cancel_futures: bool = False) -> None:
        """Shut the foreign executor down; one at a time, as the standard pool's shutdown wants it."""
        with self._ending:
            self._end(executor, wait=wait, cancel_futures=cancel_futures)


def _wake(stage: Any) -> bool:
    """Wake the threads that wait for a settled stage; True if nothing else depends on it, and it is closed."""
    link, woken = stage._dependents, False
    for entry in tuple(link):
        if isinstance(entry, (Waiter, WaitCondition)) and withdraw(link, entry):
            entry._fire(stage, stage._outcome, current.thread)
            woken = woken or isinstance(entry, Waiter)
    if link:
        return False
    if not woken and type(stage._outcome) is Failure:
        unobserved.note_unobserved(stage, stage._outcome)
    return True


def call_there(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call, in the worker; return a false exception as a `Failure`: the standard pool would lose it on its way back."""
    try:
        return fn(*args, **kwargs)
    except BaseException as error:
        _check_return_trip(error, fn)
        if _is_true(error):
            raise
        return Failure(error)


def _check_return_trip(error: BaseException, fn: Any) -> None:
    """Raise if `error` could not be built anew in the parent process: that would break the whole pool there."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    except Exception as reason:
        text = f"{type(error).__qualname__}: {Failure(error).getErrorMessage()}"
        raise StagePicklingError(
            f"{label(fn)} raised {text}, which cannot travel back from the worker: {reason}. Give the exception "
            "arguments that its __init__ takes again (or a __reduce__), or run this stage here with on=INLINE"
        ) from error


class Timed:
    """What a worker sends back while somebody watches: the outcome, who ran it, and since when."""

    __slots__ = ("began", "outcome", "process")

    def __init__(self, began: float) -> None:
        self.outcome: Any = None
        self.process = os.getpid()
        self.began = began


def time_there(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Timed:
    """Call, in the worker, and note when: ``perf_counter`` is one clock for all processes of a machine."""
    timed = Timed(perf_counter())
    try:
        timed.outcome = fn(*args, **kwargs)
    except BaseException as error:
        _check_return_trip(error, fn)
        timed.outcome = Failure(error)
    return timed


def _is_true(error: BaseException) -> bool:
    try:
        return bool(error)
    except Exception:
        return False


class _Job:
    """Carry on with a settled stage, on a callback thread."""

    __slots__ = ("_scheduler", "_stage")

    def __init__(self, home: _Remote, stage: Any) -> None:
        self._scheduler = home
        self._stage = stage

    def __call__(self) -> None:
        run = current.thread
        run.within, before = self._scheduler, run.within  # what is attached or submitted here is no outside work
        try:
            run_dependents(self._stage)
        finally:
            run.within = before
            self._scheduler.unregister(self)

    def cancel(self) -> bool:
        """Refuse: it is no future."""
        return False


def _explained(failure: Failure, stage: Any) -> Failure:
    """Say which stage could not be pickled, and what helps; other failures are returned as they are."""
    error = failure.value
    trace = str(error.__cause__ or "")
    by_the_pool = _BY_THE_POOL.search(trace) and isinstance(error, Exception)
    by_anybody = _BY_ANYBODY.search(trace) and isinstance(error, (pickle.PicklingError, AttributeError, TypeError))
    if not (by_the_pool or by_anybody):
        return failure
    explained = StagePicklingError(
        f"stage {label(stage._call)} cannot travel to {stage._scheduler.name}: {error}. Use a module-level function "
        "with arguments and results that pickle, or run this stage here with on=INLINE"
    )
    explained.__cause__ = error
    return Failure(explained)


_BY_THE_POOL = re.compile(r"in _feed\b|in _sendback_result\b")
_BY_ANYBODY = re.compile(r"in dumps\b")
"""The functions that pickle tasks and results, as they appear in a remote traceback."""


class _Chaining:
    """What the executors of this module share: `submit` and `shutdown` over a `_Remote` home."""

    _scheduler: _Remote

    def _begin(self, fn: Any, args: Any, kwargs: Any) -> Future[Any]:
        home = self._scheduler
        task = new_task(ExecutorStage, fn, home)
        task._call = None
        task._context = copy_context() if home.same_process else None
        home.pending[id(task)] = task, self  # first; a shutdown sees it, or we see the shutdown
        try:
            if home.closing:
                raise RuntimeError(f"cannot schedule new futures after shutdown of {home.name}")
            home.launch(task, (fn, args, kwargs), task._context)
        except BaseException:
            home.unregister(task)
            raise
        return cast("Future[Any]", task)


class ProcessPoolExecutor(_Chaining, standard.ProcessPoolExecutor):
    """A drop-in ``concurrent.futures.ProcessPoolExecutor`` whose futures chain.

    Takes what the standard one takes. Promise-family stages run in a worker process, so their function, argument
    and result must pickle (a module-level function does); ``on=INLINE`` runs a stage here instead. Twisted-family
    callbacks run in this process, on a callback thread. Leaving the ``with`` block waits for whole chains.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scheduler = _Remote(self, standard.ProcessPoolExecutor.submit, standard.ProcessPoolExecutor.shutdown)

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` in a worker process; return its future.

        Raises:
            TypeError: if `fn` is missing or not callable.
            RuntimeError: after the shutdown.
            BrokenProcessPool: if a worker was killed.
        """
        return self._begin(fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new outside work, and let what was begun end: whole chains.

        Args:
            wait: block until then (not on a callback thread of this pool, which would wait for itself).
            cancel_futures: cancel what has not begun, stages included.
        """
        self._scheduler.close(wait=wait, cancel_futures=cancel_futures)


class WrappedExecutor(_Chaining, cf.Executor):
    """Anybody's executor, with futures that chain; made by `wrap_executor`."""

    def __init__(self, executor: cf.Executor) -> None:
        self._executor = executor
        self._scheduler = _Remote(self, WrappedExecutor._pass_on, WrappedExecutor._end, of=executor)

    def _pass_on(self, fn: Any, /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
        return self._executor.submit(fn, *args, **kwargs)

    def _end(self, *, wait: bool, cancel_futures: bool) -> None:
        known = cancel_futures and "cancel_futures" in inspect.signature(self._executor.shutdown).parameters
        self._executor.shutdown(wait=wait, **({"cancel_futures": True} if known else {}))

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` on the executor; return its future.

        Raises:
            TypeError: if `fn` is missing or not callable.
            RuntimeError: after the shutdown; and what the executor itself raises.
        """
        return self._begin(fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new outside work, let what was begun end (whole chains), then shut the executor down.

        Args:
            wait: block until then.
            cancel_futures: cancel what has not begun, stages included, whether the executor knows this or not.
        """
        self._scheduler.close(wait=wait, cancel_futures=cancel_futures)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._executor!r}>"


def wrap_executor(executor: cf.Executor) -> WrappedExecutor:
    """Give `executor` futures that chain; ours are returned as they are.

    The same executor gives the same wrapper, as long as either is in use.

    Raises:
        TypeError: if it is no ``concurrent.futures.Executor``.
    """
    if isinstance(getattr(executor, "_scheduler", None), Scheduler):
        return cast("WrappedExecutor", executor)
    if not isinstance(executor, cf.Executor):
        raise TypeError(f"wrap_executor() wants a concurrent.futures.Executor, not {executor!r}")
    try:
        return cast("WrappedExecutor", executor.__dict__.setdefault("_futurechain", WrappedExecutor(executor)))
    except AttributeError:  # no __dict__
        return WrappedExecutor(executor)


def _end_of_interpreter() -> None:
    """Let the chains that are moving come to their end while the pools still take work."""
    while callback_threads.busy() or any(home.inflight for home in tuple(_homes)):
        _pause.wait(0.01)


def _after_fork() -> None:
    """Forget, in a forked child, what only the parent's threads can bring to an end."""
    for home in tuple(_homes):
        home.inflight.clear()
        home.pending.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
_pause = threading.Event()
_numbers = itertools.count()
_homes: weakref.WeakSet[_Remote] = weakref.WeakSet()
threading._register_atexit(_end_of_interpreter)  # type: ignore[attr-defined]  # before the standard pools' own
