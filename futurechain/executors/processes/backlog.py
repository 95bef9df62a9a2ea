"""What waits for a worker: the queue, and the packing of what is in it ahead of its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from itertools import islice
from typing import Any, TypeAlias

from futurechain.executors.processes.messages import Packer
from futurechain.executors.processes.packing import Packers, pack_items
from futurechain.executors.processes.trips import Item, Queue, Trip

__all__ = ["Backlog"]

Tell: TypeAlias = "Callable[[Callable[[Any], object], Any], object]"

AHEAD = 2
"""How many more trips than there may be workers are kept packed, at the front."""
MOST_PACKERS = 2


class Backlog:
    """Trips that no worker has; for the watching thread alone.

    Args:
        packer: packs them.
        place: what the pool is called, for messages.
        elsewhere: runs a function in another thread: pickling is user code.
        tell: has a function called in the watching thread.
        limit: how many workers there may be.
    """

    def __init__(
        self, packer: Packer, place: str, elsewhere: Callable[[Callable[[], object]], object], tell: Tell, limit: int
    ) -> None:
        self._packer = packer
        self._place = place
        self._tell = tell
        self._ahead = limit + AHEAD
        self._queue = Queue()
        self.lanes: tuple[Sized, Sized] = self._queue.lanes
        self._raw: set[Trip] = set()
        """Those that are not packed."""
        self._packers = Packers(self._pack_elsewhere, elsewhere, MOST_PACKERS)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def size(self) -> int:
        """How many bytes the packed ones take."""
        return self._queue.size

    def push(self, trip: Trip) -> None:
        """Queue a trip."""
        self._queue.push(trip)
        if not trip.is_packed():
            self._raw.add(trip)

    def push_front(self, trips: Iterable[Trip]) -> None:
        """Queue `trips`, which come back from a worker, before all others."""
        for trip in reversed([*trips]):
            self._queue.push_front(trip)
            if not trip.is_packed():
                self._raw.add(trip)

    def put_back(self, trip: Trip) -> None:
        """Queue `trip`, which was taken out for nothing, where it was."""
        self._queue.put_back(trip)

    def first(self) -> Trip | None:
        """Return what `next` would take out, if that is the first of all."""
        first = self._queue.first()
        return first if first is not None and first.is_packed() and not first.packing else None

    def next(self) -> Trip | None:
        """Take out the first trip that is packed; have those before it packed."""
        if self.first() is not None:  # most are so
            return self._queue.pop_first()
        for number, trip in enumerate(self._queue):
            if trip.is_packed() and not trip.packing:
                self._queue.remove(trip)
                return trip
            if not trip.packing:
                self._packers.ask(trip)
            if number > self._ahead:
                break
        return None

    def pack_ahead(self) -> None:
        """Have those packed whose turn comes soon."""
        if self._raw:
            for trip in islice(self._queue, self._ahead):
                if trip in self._raw and not trip.packing:
                    self._packers.ask(trip)

    def withdraw(self, item: Item) -> None:
        """Take one job out that is not wanted any more."""
        trip = item.trip
        if item not in trip.items:
            return
        trip.items.remove(item)
        if not trip.packing:
            item.unpack(self._packer)
        if not trip.items:
            self._queue.remove(trip)
            self._raw.discard(trip)

    def clear(self) -> list[Trip]:
        """Take out all of them."""
        self._raw.clear()
        return self._queue.clear()

    def let_go(self) -> None:
        """Give back what is needed no more: nothing will come."""
        del self._packers  # which know this backlog, and are known by it
        self._packer.close()

    def _pack_elsewhere(self, trip: Trip) -> None:
        items = [*trip.items]
        failed = pack_items(items, self._packer, self._place)
        self._tell(self._packed, (trip, items, failed))

    def _packed(self, done: tuple[Trip, list[Item], list[Item]]) -> None:
        trip, items, failed = done
        trip.packing = False
        for item in items:
            if item not in trip.items:  # withdrawn meanwhile
                item.unpack(self._packer)
        self._raw.discard(trip)
        trip.items = [item for item in trip.items if item not in failed]
        if trip in self._queue:
            self._queue.resize(trip)
            if not trip.items:
                self._queue.remove(trip)
