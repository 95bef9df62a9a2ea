"""Packing trips ahead of their turn, away from the thread that must not run user code."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter

from futurechain.executors.processes.answers import unsendable
from futurechain.executors.processes.messages import Packer
from futurechain.executors.processes.trips import Item, Trip

__all__ = ["Packers", "pack_items"]


def pack_items(items: list[Item], packer: Packer, place: str) -> list[Item]:
    """Pack what is not packed; return what cannot be, whose jobs have been told so."""
    failed = []
    for item in items:
        if item.parcel is not None:
            continue
        began = perf_counter()
        try:
            item.parcel = packer.pack(item.job.call())
        except KeyboardInterrupt:
            for one in items:
                one.unpack(packer)
            raise
        except BaseException as error:
            failed.append(item)
            item.job.fail(unsendable(item.job, error, place), None)
        item.packing = began, perf_counter()
    return failed


class Packers:
    """A few threads elsewhere that pack; one that is held up by somebody's slow pickling holds up no other.

    Args:
        pack: packs one trip, and sends word that it is done; never raises.
        elsewhere: runs a function in another thread.
        most: how many may be at it.
    """

    def __init__(
        self, pack: Callable[[Trip], object], elsewhere: Callable[[Callable[[], object]], object], most: int
    ) -> None:
        self._pack = pack
        self._elsewhere = elsewhere
        self._waiting: deque[Trip] = deque()
        self._places: list[None] = [None] * most
        """Whoever pops one is a packer, until there is nothing left."""

    def ask(self, trip: Trip) -> None:
        """Have `trip` packed."""
        trip.packing = True
        self._waiting.append(trip)  # first: a packer that is about to leave looks again
        try:
            self._places.pop()
        except IndexError:
            return
        self._elsewhere(self._work)

    def _work(self) -> None:
        while True:
            try:
                trip = self._waiting.popleft()
            except IndexError:
                self._places.append(None)
                if not (self._waiting and self._places and self._take_place()):
                    return
                continue
            self._pack(trip)

    def _take_place(self) -> bool:
        try:
            self._places.pop()
        except IndexError:
            return False
        return True
