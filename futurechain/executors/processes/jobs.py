"""Between the machine and the futures: a stage that is to run in a worker process is a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from futurechain.core import callback_threads
from futurechain.core.attaching import new_task
from futurechain.core.handlers import label
from futurechain.core.observers import watch
from futurechain.core.scheduler import Call
from futurechain.core.state import claim, publish
from futurechain.core.thread_state import current
from futurechain.core.unobserved import annotate
from futurechain.errors import BrokenExecutor
from futurechain.errors.processes import StagePicklingError
from futurechain.executors.processes.machine import Machine
from futurechain.executors.processes.trips import Item, Report
from futurechain.executors.remote import _Job, _Remote, _wake
from futurechain.failure import Failure
from futurechain.future import ExecutorStage

__all__ = ["ProcessScheduler", "StageJob"]


class StageJob:
    """A task or stage, as the machine sees it; to the stage, what it waits for."""

    __slots__ = ("_call", "_scheduler", "_stage", "begun", "is_running", "item", "name")

    def __init__(self, scheduler: ProcessScheduler, stage: Any, call: Call, *, begun: bool) -> None:
        self._scheduler = scheduler
        self._stage = stage
        self._call: Call | None = call
        self.begun = begun
        self.name = label(call[0])
        self.is_running = False
        self.item: Item | None = None
        """What stands for it in the machine, once it is there."""

    # -- to the machine -------------------------------------------------------------------------------------------------

    def call(self) -> Call:
        """Return the function and its arguments."""
        assert self._call is not None
        return self._call

    def claim(self) -> bool:
        """Say whether it is still wanted."""
        self.is_running = True
        return not self._stage.done()

    def unclaim(self) -> None:
        """It is queued again."""
        self.is_running = False

    def succeed(self, value: Any, report: Report) -> None:
        """Settle the stage."""
        self._settle(value, report)

    def fail(self, error: BaseException, report: Report | None) -> None:
        """Settle the stage with an error."""
        self._settle(Failure(error), report)

    def _settle(self, outcome: Any, report: Report | None) -> None:
        if watch.on and report is not None:
            watch.ran(self._stage, report.worker, report.times.began)
        self._call = None
        self._scheduler.deliver(self._stage, outcome)

    # -- to the stage ---------------------------------------------------------------------------------------------------

    def sources(self) -> list[Any]:
        """Return what it waits for itself: nothing."""
        return []

    def runs_abroad(self) -> bool:
        """Tell whether a worker has it, and that is not to be stopped."""
        return self.is_running and not self._scheduler.stop_cancelled

    def cancel_for(self, child: Any) -> list[Any]:
        """Withdraw it: the stage was cancelled, or has timed out."""
        self._call = None
        if self.item is not None:
            machine = self._scheduler.machine
            (machine.stop if self._scheduler.stop_cancelled else machine.withdraw)(self.item)
        return []


class ProcessScheduler(_Remote):
    """Start calls on a machine, and deliver what comes of them."""

    __slots__ = ("machine", "stop_cancelled")

    def __init__(self, executor: Any, make: Callable[[str], Machine], *, stop_cancelled: bool) -> None:
        super().__init__(executor, _never, _never)
        self.machine = make(self.name)
        self.stop_cancelled = stop_cancelled

    def submit(self, fn: Any, args: Any, kwargs: Any) -> Any:
        """Queue a task; return its future.

        Raises:
            RuntimeError: if it is refused.
        """
        task = new_task(ExecutorStage, fn, self)
        task._call = task._context = None
        self.pending[id(task)] = task, self._executor()  # first; a shutdown sees it, or we see the shutdown
        inside = current.thread.within is not None
        try:
            if self.closing and not inside:
                raise RuntimeError(f"cannot schedule new futures after shutdown of {self.name}")
            self._hand_over(task, (fn, args, kwargs), begun=inside)
        except BaseException:
            self.unregister(task)
            raise
        return task

    def launch(self, stage: Any, call: Call, context: Any) -> None:
        self._hand_over(stage, call, begun=True)

    def _hand_over(self, stage: Any, call: Call, *, begun: bool) -> None:
        job = StageJob(self, stage, call, begun=begun)
        self.inflight[id(stage)] = stage
        stage._call, stage._source = call[0], job
        if watch.on:
            watch.queued(stage)
        (job.item,) = self.machine.submit([job])
        if stage.done():  # cancelled in between
            self.inflight.pop(id(stage), None)
            self.machine.withdraw(job.item)

    def deliver(self, stage: Any, outcome: Any) -> None:
        """Publish the outcome, in whatever thread this is; leave user code to a callback thread."""
        if not claim(stage):
            return
        if type(outcome) is Failure and _is_of(stage, outcome.value):
            annotate(outcome.value, stage)
        job = _Job(self, stage)
        self.pending[id(job)] = job, self._executor()  # before the stage retires: a shutdown waits for it, too
        publish(stage, outcome)
        if _wake(stage):
            self.unregister(job)
        else:
            callback_threads.post(job)

    # -- ending ---------------------------------------------------------------------------------------------------------

    def close(self, *, wait: bool, cancel_futures: bool) -> None:
        if cancel_futures:
            self.machine.catch_up()
        super().close(wait=wait, cancel_futures=cancel_futures)

    def let_end(self) -> None:
        """Take no more outside work: the executor was collected."""
        self.closing = True
        if not self.pending:
            self.machine.close()

    def end(self, executor: Any, *, wait: bool = False, cancel_futures: bool = False) -> None:
        self.machine.close()
        if wait:
            self.machine.wait()

    def terminate(self, number: int) -> None:
        """End the workers by a signal; cancel what has not begun."""
        self.close(wait=False, cancel_futures=True)
        self.machine.terminate(number)

    def describe(self) -> str:
        """Return what ``repr`` says."""
        machine = self.machine
        state = "broken" if machine.reason else "shut down" if self.closing else "open"
        return f"{self.name} {state}, {len(machine.staff.processes)} workers, {machine.queued} queued"


def _never(*_: Any, **__: Any) -> Any:  # pragma: no cover  # launch and end are overridden
    raise NotImplementedError


def _is_of(stage: Any, error: BaseException) -> bool:
    """Tell whether the stage itself is to blame."""
    return not isinstance(error, BrokenExecutor) or isinstance(error, StagePicklingError)
