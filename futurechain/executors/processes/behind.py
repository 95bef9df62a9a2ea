"""Short calls are sent behind what a worker does, so that it need not wait for the next one.

From a worker's answer to its next call it is two ways between processes, and two threads that have to be woken: longer
than a short call takes. So while calls are short, and more of them are queued than there are workers, each worker has
one behind the one that it makes.

That one is still queued, for all that anybody sees: nobody has claimed it, it can be cancelled, and it is *recalled*
for another worker as soon as one is idle, or what it lies behind turns out to be long, or begun work comes, which goes
first. Whether a worker has taken it or it was recalled is decided in the worker's page (see `progress`). Its turn has
come when the worker has told how the call before has ended: then it is claimed, as whatever is sent. Who cancels may
recall it in that very moment, and find it claimed: so a worker says what it has skipped, and that is queued again.
"""

from __future__ import annotations

from time import perf_counter

from futurechain.executors.processes.backlog import Backlog
from futurechain.executors.processes.messages import Kind, Packer
from futurechain.executors.processes.process import WorkerProcess
from futurechain.executors.processes.trips import Item

__all__ = ["Behind"]

LONG = 0.002
"""What has been made for so many seconds is no short call: nothing is left behind it."""
CALM = 16
"""So many calls must have been sent since begun work was queued: each time, what lies behind is recalled."""


class Behind:
    """What lies behind what workers do, one for each; for the watching thread alone.

    Args:
        backlog: where it comes from, and goes back to.
        packer: packs it.
    """

    def __init__(self, backlog: Backlog, packer: Packer) -> None:
        self._backlog = backlog
        self._packer = packer
        self._items: dict[WorkerProcess, Item] = {}
        """By worker, in the order in which they were sent: for trips of one."""
        self._calm = 0

    def __len__(self) -> int:
        return len(self._items)

    def send(self, worker: WorkerProcess) -> bool:
        """Send `worker`, which has just been given something, what is first in the queue; True if all of it fitted.

        That is for short calls, and only where it can be recalled.
        """
        trip, page = self._backlog.first(), worker.progress
        self._calm += 1
        if trip is None or page is None or self._calm < CALM or not (worker.is_quick and page.has_gate()):
            return True
        item = trip.items[0]
        stream = None if item.parcel is None else item.parcel.short()
        number = worker.announced + 1
        if stream is None or len(trip.items) != 1 or trip.cut is not None or not item.job.lies_behind(page, number):
            return True
        self._backlog.next()
        try:
            complete = worker.send(Kind.NEXT, number, [stream])
        except OSError:  # it has ended, as will be seen
            self._put_back(item)
            return True
        page.announce(number)
        worker.announced = trip.number = number
        trip.sent = perf_counter()
        worker.next = trip
        self._items[worker] = item
        return complete

    def begin(self, worker: WorkerProcess) -> bool:
        """Take note that `worker` has told how the call before has ended; False if nothing comes behind that."""
        trip, item = worker.next, self._items.pop(worker)
        worker.next = None
        if trip is None or worker.progress is None:
            return False
        if not trip.claim(self._packer):
            if worker.progress.recall(trip.number):
                return False
            trip.items = [item]  # somebody has settled it by hand, but the worker makes that call
        trip.worker, worker.trip = worker, trip
        return True

    def recall(self, worker: WorkerProcess) -> bool:
        """Queue again what lies behind what `worker` does; False if it has taken that."""
        trip = worker.next
        if trip is None or worker.progress is None or not worker.progress.recall(trip.number):
            return False
        self.give_back(worker)
        return True

    def give_back(self, worker: WorkerProcess) -> None:
        """Queue it again: `worker` will not make that call."""
        item = self._items.pop(worker, None)
        trip, worker.next = worker.next, None
        if item is not None and trip is not None and trip.items:
            self._put_back(item)

    def recall_late(self) -> None:
        """Recall what lies behind a long call, when another worker is about to be given what was queued later."""
        oldest = next(iter(self._items), None)
        if oldest is not None and oldest.next is not None and perf_counter() - oldest.next.sent > LONG:
            self.recall(oldest)

    def recall_all(self) -> None:
        """Recall all that can be."""
        for worker in reversed(tuple(self._items)):
            self.recall(worker)

    def begun_work_comes(self) -> None:
        """Let what has begun go before what lies behind."""
        self._calm = 0
        for worker in reversed(tuple(self._items)):
            if worker.next is not None and worker.next.items and not worker.next.begun:
                self.recall(worker)

    def _put_back(self, item: Item) -> None:
        trip = item.trip
        trip.number = 0
        item.job.lies_nowhere()
        self._backlog.put_back(trip)
