"""Between the machine and the futures: a stage that is to run in a worker process is a job."""

from __future__ import annotations

import types
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from futurechain.core.delivery import is_followed
from futurechain.core.handlers import label
from futurechain.core.observers import Elsewhere, watch
from futurechain.core.scheduler import Call
from futurechain.core.state import begin, give_back
from futurechain.executors.processes.process import Phase
from futurechain.executors.processes.progress import Progress
from futurechain.executors.processes.trips import Item, Report
from futurechain.failure import Failure

if TYPE_CHECKING:
    from futurechain.executors.processes.ahead import AheadJob
    from futurechain.executors.processes.scheduler import ProcessScheduler

__all__ = ["StageJob"]


class StageJob:
    """A task or stage, as the machine sees it; to the stage, what it waits for."""

    __slots__ = (
        "_call", "_gate", "_is_kept_back", "_named", "_owns", "_scheduler", "_stage", "_told", "begun", "following",
        "is_running", "item",
    )  # fmt: skip

    def __init__(self, scheduler: ProcessScheduler, stage: Any, call: Call, *, begun: bool) -> None:
        self._scheduler = scheduler
        self._stage = stage
        self._call: Call | None = call
        self.begun: bool = begun
        fn = call[0]
        self._named: Any = fn if type(fn) is types.FunctionType else label(fn)
        self.is_running: bool = False
        self._owns: bool = False
        """Whether the stage is this job's to settle: a worker has it."""
        self._told: list[Callable[[], object]] = []
        """Who wants to know when no worker has it any more."""
        self.item: Item | None = None
        """What stands for it in the machine, once it is there."""
        self._gate: tuple[Progress, int] | None = None
        """Where it is decided who has it, if it was sent before it is its turn."""
        self._is_kept_back: bool = False
        """Whether it is not to be sent so any more."""
        self.following: AheadJob | None = None
        """The job that the worker has gone on with."""

    @property
    def name(self) -> str:
        """What it is called in messages; to find that runs nobody's code."""
        return label(self._named) if type(self._named) is types.FunctionType else str(self._named)

    # -- to the machine -----------------------------------------------------------------------------------------------

    def call(self) -> Call:
        """Return the function and its arguments."""
        assert self._call is not None, "a job that was cancelled is not wanted any more"
        return self._call

    def claim(self) -> bool:
        """Say whether it is still wanted: then nobody can cancel it any more, unless its worker is to be stopped."""
        if self._scheduler.stop_cancelled:
            self.is_running = True
            if not self._stage.done():
                return True
            self._has_stopped()
            return False
        self._owns = begin(self._stage)  # decides, against a cancellation
        self.is_running = self._owns
        if self._gate is not None:
            self.lies_nowhere()  # not before: its worker may have taken it already
        return self._owns

    def unclaim(self) -> None:
        """It is queued again."""
        if self._owns:
            self._owns = False
            give_back(self._stage)
        self._has_stopped()

    def lies_behind(self, progress: Progress, number: int) -> bool:
        """Say whether it may be sent behind what a worker does; until its turn has come, it can be cancelled there.

        Who cancels it notes that **first** and looks for the gate **then**; here it is the other way round.
        """
        if self._scheduler.stop_cancelled:
            return False
        self._gate = progress, number
        self._scheduler.behind[id(self._stage)] = self
        if self._is_kept_back or self._stage.done():
            self.lies_nowhere()
            return False
        return True

    def lies_nowhere(self) -> None:
        """It is queued again, or its turn has come."""
        self._scheduler.behind.pop(id(self._stage), None)
        self._gate = None

    def is_awaited(self) -> bool:
        """Tell whether the chain goes on."""
        return is_followed(self._stage)

    def succeed(self, value: Any, report: Report) -> None:
        """Settle the stage."""
        if self.following is not None:
            self.following.given(value)
            self.following = None
        self._settle(value, report)

    def fail(self, error: BaseException, report: Report | None) -> None:
        """Settle the stage with an error."""
        self._settle(Failure(error), report)

    def _settle(self, outcome: Any, report: Report | None) -> None:
        if watch.on and report is not None:
            times = report.times
            watch.ran(self._stage, Elsewhere(report.worker, times.began, times.ended, report.packing, report.sent))
        self._call = None
        owns, self._owns = self._owns, False
        try:
            (self._scheduler.deliver_owned if owns else self._scheduler.deliver)(self._stage, outcome)
        finally:
            self._has_stopped()

    def _has_stopped(self) -> None:
        self.is_running = False
        while self._told:
            with suppress(IndexError):
                self._told.pop()()

    def when_stopped(self, act: Callable[[], object]) -> None:
        """Have `act` called when no worker has it any more: a worker that is to be stopped takes its time."""
        self._told.append(act)
        if not self.is_running:
            self._has_stopped()

    # -- to the stage -------------------------------------------------------------------------------------------------

    def sources(self) -> list[Any]:
        """Return what it waits for itself: nothing."""
        return []

    def runs_abroad(self) -> bool:
        """Tell whether a worker has it."""
        return self.is_running

    def has_begun(self) -> bool:
        """Tell whether a worker that is ready has it."""
        worker = None if self.item is None else self.item.trip.worker
        return self.is_running and worker is not None and worker.phase is not Phase.STARTING

    def stop(self) -> bool:
        """Say whether it can be cancelled: unless a worker has it, and that is not to be stopped."""
        if self._scheduler.stop_cancelled:
            return True
        self._is_kept_back = True
        gate = self._gate
        return not self.is_running and (gate is None or gate[0].recall(gate[1]))

    def cancel_for(self, child: Any) -> list[Any]:
        """Withdraw it: the stage was cancelled, or has timed out. End its worker, if that was asked for."""
        self._call = None
        if self.item is not None:
            self._scheduler.withdraw(self.item)
        return []
