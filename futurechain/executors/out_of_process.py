"""What the schedulers of executors share that work somewhere else: in worker processes, or who knows where.

Two things are different there. The thread on which a result arrives often serves everybody (the manager of a process
pool, an event loop), so that no user code may run on it: `OutOfProcess.deliver` publishes the outcome, which wakes
those who wait, hands the next stage over if that can be done without user code, and leaves the rest to a callback
thread. And the worker does not share our memory: so what handles errors and cleans up, which is mostly a closure over
a lock, a default or a logger, runs here, on a callback thread, while the chain stays on the pool.

``jobs`` holds what is being delivered, and what callback threads still have to do for the pool; it is not over before.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any

from futurechain.core import callback_threads
from futurechain.core.attaching import new_task
from futurechain.core.delivery import take_next_stage, wake_waiting
from futurechain.core.handlers import Finally, label
from futurechain.core.loop import execute, leave_handlers, run_dependents
from futurechain.core.observers import watch
from futurechain.core.scheduler import Call, Scheduler
from futurechain.core.state import claim, has_dependents, publish
from futurechain.core.thread_state import current
from futurechain.core.unobserved import annotate
from futurechain.errors import StagePicklingError
from futurechain.executors.pool import (
    PoolScheduler,
    check_stage_travels,
    check_travels,
    fail,
    handled_by,
    handles_failure,
    refuse,
)
from futurechain.executors.travel import cannot_travel
from futurechain.failure import Failure
from futurechain.future import ExecutorStage

__all__ = ["Job", "OutOfProcess", "unpicklable"]


class OutOfProcess(PoolScheduler):
    """Starts calls on an executor whose results arrive on a thread that is not ours to use.

    A pool's own scheduler defines `launch`, and calls `deliver` when an outcome has arrived.
    """

    __slots__ = ("jobs",)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.jobs: dict[int, Any] = {}

    # -- what a pool defines --------------------------------------------------------------------------------------

    def launch(self, stage: Any, call: Call, *, begun: bool) -> None:
        """Queue `call`, and `deliver` its outcome to `stage` some time; raises what the executor raises.

        What has `begun` (a stage, and what comes from inside) goes before what has not.
        """
        raise NotImplementedError  # pragma: no cover

    # -- as a scheduler -------------------------------------------------------------------------------------------

    def takes_closures(self) -> bool:
        return False

    def register(self, stage: Any, source: Any = None) -> None:
        check_stage_travels(stage, self)
        super().register(stage, source)

    def is_working(self) -> bool:
        return bool(self.jobs)

    def submit(self, call: Call, context: Context | None = None, place: Scheduler | None = None) -> Any:
        """Queue a task; return its future, whose chain runs on `place`, a view of this scheduler, if there is one.

        Raises:
            TypeError: if there is no function to call, or an ``async def`` function.
            RuntimeError: if it is refused; and what the executor raises.
        """
        check_travels(call[0], self, "submit()")
        task = new_task(ExecutorStage, call[0], place or self)
        task._call, task._context = call, context
        try:
            self.admit(task)
            if watch.on:
                watch.queued(task)
            self.launch(task, call, begun=current.thread.within is not None)
        except BaseException:  # Ctrl-C may come at any point of it
            self.expel(task)
            raise
        return task

    def expel(self, task: Any) -> None:
        """Forget a task that nobody will get the future of: nothing waits for it."""
        self.pending.pop(id(task), None)
        self.end_if_over()

    def forget(self) -> None:
        super().forget()
        self.jobs.clear()

    def start(self, stage: Any, call: Call) -> None:
        if not self.is_registered(stage):
            refuse(stage, self, call)
        elif handles_failure(stage, call) and not self.takes_closures():
            self.post(stage, lambda: _handle(stage, call))
        else:
            try:
                self.launch(stage, call, begun=True)
            except BaseException as error:
                thread = current.thread
                thread.note_interrupt(error)  # Ctrl-C is the program's, whatever becomes of the stage
                self.fail(stage, error, call)
                if thread.interrupt is not None and not thread.depth:
                    leave_handlers(thread)

    def fail(self, stage: Any, error: BaseException, call: Call | None = None) -> None:
        """Fail a stage that could not be launched."""
        fail(stage, error, call)

    def deliver(self, stage: Any, outcome: Any) -> None:
        """Settle `stage`, unless somebody has, in whatever thread this is, without running user code here."""
        if claim(stage):
            self.deliver_owned(stage, outcome)

    def deliver_owned(self, stage: Any, outcome: Any) -> None:
        """Do so with one that the caller owns."""
        if type(outcome) is Failure:
            annotate(outcome.value, stage)
        key = id(stage)
        self.jobs[key] = stage  # before the stage is published: a shutdown waits for it, too
        self.publish(stage, outcome)
        if not (wake_waiting(stage) or self._hand_over(stage)):
            callback_threads.post(Job(self, lambda: run_dependents(stage)))
        self.jobs.pop(key, None)  # a fork may have emptied it
        self.end_if_over()

    def publish(self, future: Any, outcome: Any) -> None:
        """Let everybody see the outcome of a future that the caller owns; what is attached meanwhile is inside work."""
        run = current.thread
        run.within, before = self, run.within
        try:
            publish(future, outcome)
        finally:
            run.within = before

    def _hand_over(self, stage: Any) -> bool:
        """Start the only stage that waits for `stage`, if that can be done here; True if nothing is left to do."""
        following = take_next_stage(stage, _starts_anywhere) if self.starts_anywhere else None
        if following is None:
            return False
        if watch.on:
            watch.queued(following)
        following._scheduler.start(following, following._call)
        return not has_dependents(stage)

    def post(self, stage: Any, action: Callable[[], object]) -> None:
        """Do something for the chain of `stage` on a callback thread."""
        callback_threads.post(Job(self, action))


class Job:
    """Something to do for a pool on a callback thread; the pool is not over before."""

    __slots__ = ("_action", "_scheduler")

    def __init__(self, scheduler: OutOfProcess, action: Callable[[], object]) -> None:
        self._scheduler = scheduler
        self._action = action
        scheduler.jobs[id(self)] = self

    def __call__(self) -> None:
        run = current.thread
        run.within, before = self._scheduler, run.within  # what is attached or submitted here is inside work
        try:
            self._action()
        finally:
            run.within = before
            self.end()

    def end(self) -> None:
        """Note that it is done, or that there was nothing to do."""
        del self._action
        self._scheduler.jobs.pop(id(self), None)
        self._scheduler.end_if_over()


def _starts_anywhere(scheduler: Scheduler) -> bool:
    return isinstance(scheduler, PoolScheduler) and scheduler.starts_anywhere


def _handle(stage: Any, call: Call) -> None:
    """Run an error handler or a cleanup here, with what it handles as the context of what it raises."""
    if type(stage._handler) is Finally and (error := handled_by(stage, call)) is not None:
        call = _while_handling(error, call), (), {}
    execute(stage, call, stage._context)


def _while_handling(error: BaseException, call: Call) -> Callable[[], Any]:
    def begin() -> Any:
        try:
            return call[0]()
        except BaseException as raised:
            if raised is not error and raised.__context__ is None:
                raised.__context__ = error
            raise

    return begin


def unpicklable(stage: Any, scheduler: PoolScheduler, error: BaseException) -> StagePicklingError:
    """Return the error of a stage of which some part cannot be pickled, as `error` says, with the remedies."""
    fn = stage._call[0] if isinstance(stage._call, tuple) else stage._call
    explained = cannot_travel(label(fn), scheduler.name, str(error))
    explained.__cause__ = error
    return explained
