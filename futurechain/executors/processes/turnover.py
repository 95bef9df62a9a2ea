"""Workers come and go: they are hired when something is queued, and their ends are dealt with.

A worker that ends is known by its own descriptor, and so is the trip that it had: then the pool breaks, or, where it
*heals*, the call that it was making fails alone and the rest of its trip is queued again. One that cannot even start
breaks the pool with its reason, at once or, where it heals, after a few tries.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from time import perf_counter
from typing import Any, NamedTuple

from futurechain.core.observers import watch
from futurechain.errors.processes import WorkerDiedError
from futurechain.executors.processes.backlog import Backlog
from futurechain.executors.processes.messages import Packer, Times
from futurechain.executors.processes.process import Phase, WorkerProcess
from futurechain.executors.processes.roster import Roster
from futurechain.executors.processes.staff import Staff
from futurechain.executors.processes.trips import Item, Report, Trip

__all__ = ["Options", "Turnover"]

MOST_FAILED_STARTS = 3
"""How many workers in a row may fail to start, in their own words or the system's."""
MOST_KILLED_STARTS = 20
"""How many in a row may be killed while they start: that may be chance, where workers are killed."""


class Options(NamedTuple):
    """What a pool does when."""

    name: str
    max_tasks: int | None
    heal: bool
    elsewhere: Callable[[Callable[[], object]], object]


class Turnover:
    """Who is hired, and what becomes of the trip of one that has ended; for the watching thread alone.

    Args:
        options: what the pool does when.
        staff: starts workers.
        packer: has what was packed for them.
        roster: those that are there.
        backlog: what waits for them.
        tell: has a function called in the watching thread.
    """

    def __init__(
        self,
        options: Options,
        staff: Staff,
        packer: Packer,
        roster: Roster,
        backlog: Backlog,
        tell: Callable[[Callable[[Any], object], Any], object],
    ) -> None:
        self._options = options
        self._staff = staff
        self._packer = packer
        self._roster = roster
        self._backlog = backlog
        self._tell = tell
        self.reason: str | None = None
        """Why the pool is broken, if it is."""
        self.hiring: int = 0
        """How many are being started elsewhere."""
        self._failed_starts = 0
        self._unreplaced: list[int] = []
        """The processes that have ended, and have had no successor."""

    # -- coming -------------------------------------------------------------------------------------------------------

    def join(self, worker: WorkerProcess) -> None:
        """Take in one that was started."""
        self._roster.join(worker)
        before = self._unreplaced.pop(0) if self._unreplaced else None
        if watch.on:
            what = "started" if before is None else f"started in place of process {before}"
            watch.marked(self._options.name, worker.pid, what)
        if self.reason is not None:
            self._roster.end(worker, signal.SIGTERM)

    def is_ready(self) -> None:
        """Take note that one has started well."""
        self._failed_starts = 0

    def hire(self) -> None:
        """Have workers started for what is queued, as far as none are about to come."""
        coming = self.hiring + sum(worker.phase is Phase.STARTING for worker in self._roster.workers)
        for _ in range(min(len(self._backlog), self._staff.limit) - coming):
            self.hiring += 1
            self._options.elsewhere(self._hire_elsewhere)

    def _hire_elsewhere(self) -> None:
        error = None
        try:
            self._staff.hire()
        except BaseException as reason:
            error = reason
        self._tell(self._hired, error)

    def _hired(self, error: BaseException | None) -> None:
        self.hiring -= 1
        if error is not None:
            self._could_not_start(repr(error), MOST_FAILED_STARTS)

    def _could_not_start(self, why: str, tries: int) -> None:
        """Break, or let it be tried again, a few times."""
        self._failed_starts += 1
        if self.reason is None and self._failed_starts >= tries:
            self.end_all(f"a worker of {self._options.name} could not be started: {why}")

    # -- going --------------------------------------------------------------------------------------------------------

    def dismiss(self) -> None:
        """Let those go that have nothing to do: nothing will come."""
        for worker in tuple(self._roster.workers):
            idle = worker.phase in (Phase.STARTING, Phase.IDLE)
            if idle and self._roster.is_ours(worker) and worker.trip is None:
                worker.dismiss()

    def ended(self, worker: WorkerProcess, phase: Phase) -> None:
        """Let go of a worker that has ended in `phase`; see what is to become of its trip."""
        trip, how = worker.trip, self._let_go_of(worker, phase)
        if trip is not None:
            worker.trip = trip.worker = None
            trip.leave_rest()
            trip.forget_blocks(self._packer)
        if self.reason is not None or phase is Phase.LEAVING:
            self.refuse(trip)
        elif phase is Phase.STARTING or phase is Phase.STOPPING:
            if trip is not None:
                self._backlog.push_front([trip.split_off(trip.items)])
            if phase is Phase.STARTING:
                self._has_not_started(worker, how)
        else:
            self._lost(worker, trip, how)

    def _let_go_of(self, worker: WorkerProcess, phase: Phase) -> str:
        self._roster.forget(worker)
        self._staff.leaves(worker)
        how = worker.bury()
        if phase is not Phase.LEAVING:
            self._unreplaced.append(worker.pid)
        if watch.on:
            what = "ended" if phase is Phase.LEAVING else "stopped" if phase is Phase.STOPPING else "died"
            watch.marked(self._options.name, worker.pid, f"{what}: {how}")
        if self._packer.sender is not None:
            self._packer.sender.drop_all_of(worker)
        return how

    def _has_not_started(self, worker: WorkerProcess, how: str) -> None:
        tries = MOST_KILLED_STARTS if how in {"SIGKILL", "SIGTERM"} else MOST_FAILED_STARTS
        self._could_not_start(
            worker.failure or f"it ended abruptly ({how})", tries if self._options.heal else 1
        )

    def _lost(self, worker: WorkerProcess, trip: Trip | None, how: str) -> None:
        """A worker has ended that nobody has ended here: the call that it was making fails, the others go on."""
        guilty, others = worker.divide(trip)
        what = f" while it ran {', '.join(item.job.name for item in guilty)}" if guilty else ""
        text = f"worker process {worker.pid} of {self._options.name} ended abruptly ({how}){what}"
        heals = self._options.heal
        if not heals:
            text = f"{text}; the process pool is not usable any more"
            self.end_all(text)
        for item in guilty:
            item.job.fail(WorkerDiedError(text) if heals else BrokenProcessPool(text), _last_report(worker, item))
        if heals:
            self._backlog.push_front(others)
        else:
            for other in others:
                self.refuse(other)

    # -- breaking -----------------------------------------------------------------------------------------------------

    def end_all(self, reason: str, number: int = signal.SIGTERM) -> None:
        """Break: fail everything, and end all workers by the signal `number`."""
        self.reason = reason
        trips = [trip for worker in self._roster.workers for trip in (worker.trip, worker.next)]
        for worker in self._roster.workers:
            self._roster.end(worker, number)
        for trip in (*trips, *self._backlog.clear()):
            self.refuse(trip)

    def give_up(self, reason: str) -> None:
        """Fail everything, and kill: the watching thread goes."""
        self.end_all(f"the watching thread of {self._options.name} has failed: {reason}", signal.SIGKILL)
        for worker in tuple(self._roster.workers):
            self._let_go_of(worker, worker.phase)

    def let_go(self) -> None:
        """Give back what is needed no more: the watching thread has ended."""
        del self._roster, self._tell  # which know the watcher, and are known by it

    def refuse(self, trip: Trip | None) -> None:
        """Fail a trip: the pool is broken."""
        if trip is None:
            return
        trip.leave_rest()
        for item in trip.items:
            item.job.fail(BrokenProcessPool(self.reason), None)


def _last_report(worker: WorkerProcess, item: Item) -> Report:
    """Say who had begun `item`, and has ended; when it began can only be told by when it was sent."""
    sent = item.trip.sent
    return Report(worker.pid, Times(sent, sent, perf_counter()), item.packing, sent)
