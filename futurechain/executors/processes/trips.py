"""What is to be done: jobs, the trips in which they travel, and the queue of these.

A *trip* is what a worker gets at once: one call as a rule, several for a pipeline. What the worker has not begun when
the time of the trip is up comes back, and so does what a worker that died had beside the call that killed it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

from futurechain.executors.processes.messages import Packer, Parcel, Times
from futurechain.executors.processes.progress import Progress

__all__ = ["Ahead", "Call", "Following", "Item", "Job", "Queue", "Report", "Trip"]

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Report(NamedTuple):
    """Who made a call, and when what happened to it."""

    worker: int
    """The process that made it."""
    times: Times
    packing: tuple[float, float] | None
    """From when to when it was packed here."""
    sent: float
    """When it was sent, by ``time.perf_counter``."""


class Job(Protocol):
    """What a caller wants to have done. None of this may raise."""

    begun: bool
    """Whether it belongs to begun work, which goes first."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    def call(self) -> Call:
        """Return the function and its arguments."""
        ...

    def claim(self) -> bool:
        """Say whether it is still wanted: a worker is about to get it. Asked again if it came back."""
        ...

    def unclaim(self) -> None:
        """Take note that it came back, not begun, and is queued again."""

    def lies_behind(self, progress: Progress, number: int) -> bool:
        """Say whether it may be sent behind what the worker with that page does, under that number.

        Until it is claimed, whoever does not want it any more has to `recall` it.
        """
        ...

    def lies_nowhere(self) -> None:
        """Take note that it does not lie there any more."""

    def is_awaited(self) -> bool:
        """Tell whether more than threads that read it waits for its result, so that this is to be told at once."""
        ...

    def succeed(self, value: Any, report: Report) -> None:
        """Take the result."""

    def fail(self, error: BaseException, report: Report | None) -> None:
        """Take an error: of a call that had begun, if there is a report, else of the way there or back."""


class Following(Job, Protocol):
    """A job that is to be called with the value of another one; it may be sent ahead of its turn. None of it raises."""

    def arm(self, progress: Progress, number: int) -> bool:
        """Say whether it may be sent ahead: under that number, to the worker with that page."""
        ...

    def follows(self, before: Job) -> None:
        """Take note that a worker has taken it, and calls it with the value of `before`, which is about to be told."""

    def left(self) -> None:
        """Take note that no worker takes it ahead of its turn."""


class Item:
    """One job of a trip."""

    __slots__ = ("job", "packing", "parcel", "sent", "trip")

    def __init__(self, job: Job, trip: Trip) -> None:
        self.job: Job = job
        self.trip: Trip = trip
        self.parcel: Parcel | None = None
        self.packing: tuple[float, float] | None = None
        """From when to when it was packed."""
        self.sent: float = 0.0
        """When it was sent ahead, if it was."""

    @property
    def following(self) -> Following:
        """The job, of one that was sent ahead."""
        return cast("Following", self.job)

    def unpack(self, packer: Packer) -> None:
        """Forget what is packed, and give up the memory that it lies in."""
        parcel, self.parcel = self.parcel, None
        if parcel is not None:
            packer.drop(parcel.blocks)


class Ahead(NamedTuple):
    """What is to be sent ahead."""

    item: Item
    """Of a job that is `Following`."""
    before: Item
    """What it is to follow."""
    stream: bytes
    """Its function, pickled."""


class Trip:
    """Jobs that travel together; on its way, only the machine's own thread touches it."""

    __slots__ = ("ahead", "cut", "items", "number", "packing", "sent", "size", "worker")

    def __init__(self, jobs: Iterable[Job] = (), cut: float | None = None) -> None:
        self.items: list[Item] = [Item(job, self) for job in jobs]
        self.cut: float | None = cut
        """After how many seconds the worker gives back what it has not begun; None: never."""
        self.ahead: list[Item] = []
        """What was sent ahead, to be begun with the value of the only call, and so on: jobs that are `Following`."""
        self.packing: bool = False
        """Whether another thread is packing it."""
        self.size: int = 0
        """How much memory it takes, packed."""
        self.sent: float = 0.0
        self.worker: Any = None
        """The worker that has it, or None."""
        self.number: int = 0
        """Under which it was sent behind another one, if it was."""

    @property
    def begun(self) -> bool:
        """Whether it goes first."""
        return self.items[0].job.begun

    def is_packed(self) -> bool:
        """Tell whether it can be sent."""
        for item in self.items:  # noqa: SIM110  # a generator costs more, and this is asked several times a task
            if item.parcel is None:
                return False
        return True

    def fail(self, error: BaseException) -> None:
        """Fail all that is in it."""
        for item in self.items:
            item.job.fail(error, None)

    def split_off(self, items: list[Item]) -> Trip:
        """Return a trip of these items alone."""
        trip = Trip((), self.cut)
        trip.items = items
        for item in items:
            item.trip = trip
            item.job.unclaim()
        return trip

    def go_on(self) -> Item:
        """Take the next of those that were sent ahead for the one that is being made, which is returned."""
        (item,) = self.items
        self.items = [self.ahead.pop(0)]
        self.sent = self.items[0].sent
        return item

    def leave_rest(self) -> None:
        """Take note that nothing of what was sent ahead will be made."""
        while self.ahead:
            self.ahead.pop().following.left()

    def disown(self) -> None:
        """Take note that its blocks have reached nobody: the worker that was to have them had ended."""
        for item in self.items:
            for block in () if item.parcel is None else item.parcel.blocks:
                block.holder = None

    def forget_blocks(self, packer: Packer) -> None:
        """Forget what is packed and lies in memory that a worker has seen, and may have changed."""
        for item in self.items:
            if item.parcel is not None and item.parcel.blocks:
                item.unpack(packer)

    def claim(self, packer: Packer) -> bool:
        """Keep the jobs that are still wanted: a worker is about to get it. False if there are none."""
        wanted = []
        for item in self.items:
            if item.job.claim():
                wanted.append(item)
            else:
                item.unpack(packer)
        self.items = wanted
        return bool(wanted)

    def has_blocks(self) -> bool:
        """Tell whether it uses shared memory."""
        for item in self.items:  # noqa: SIM110  # as above
            if item.parcel is not None and item.parcel.blocks:
                return True
        return False

    def measure(self) -> None:
        """Note how much memory it takes."""
        self.size = 0
        for item in self.items:
            if item.parcel is not None:
                self.size += item.parcel.size


class Queue:
    """Trips, in the order in which they are to go; for one thread.

    Two lanes, each in order: begun work, and the rest. `OrderedDict`, because the first one is found at once there,
    however many have left before it, and one that is cancelled leaves in constant time.
    """

    def __init__(self) -> None:
        self._begun: OrderedDict[Trip, None] = OrderedDict()
        self._fresh: OrderedDict[Trip, None] = OrderedDict()
        self.lanes: tuple[Sized, Sized] = self._begun, self._fresh
        """For who asks often whether there is anything."""
        self.size: int = 0
        """How much memory the packed ones take."""

    def __len__(self) -> int:
        return len(self._begun) + len(self._fresh)

    def __iter__(self) -> Iterator[Trip]:
        yield from self._begun
        yield from self._fresh

    def push(self, trip: Trip) -> None:
        """Put it at the end of its lane."""
        (self._begun if trip.begun else self._fresh)[trip] = None
        self.size += trip.size

    def push_front(self, trip: Trip) -> None:
        """Put it before all others."""
        self._begun[trip] = None
        self._begun.move_to_end(trip, last=False)
        self.size += trip.size

    def put_back(self, trip: Trip) -> None:
        """Put it at the front of its lane, from where it was taken."""
        lane = self._begun if trip.begun else self._fresh
        lane[trip] = None
        lane.move_to_end(trip, last=False)
        self.size += trip.size

    def remove(self, trip: Trip) -> bool:
        """Take it out; False if it is not here."""
        for lane in (self._begun, self._fresh):
            if trip in lane:
                del lane[trip]
                self.size -= trip.size
                return True
        return False

    def first(self) -> Trip | None:
        """Return the first one, if there is any."""
        return next(iter(self._begun or self._fresh), None)

    def pop_first(self) -> Trip:
        """Take out the first one."""
        trip, _ = (self._begun or self._fresh).popitem(last=False)
        self.size -= trip.size
        return trip

    def resize(self, trip: Trip) -> None:
        """Take note that one of them was packed."""
        before = trip.size
        trip.measure()
        self.size += trip.size - before

    def __contains__(self, trip: object) -> bool:
        return trip in self._begun or trip in self._fresh

    def clear(self) -> list[Trip]:
        """Take out all of them."""
        trips = list(self)
        self._begun.clear()
        self._fresh.clear()
        self.size = 0
        return trips
