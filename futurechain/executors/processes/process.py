"""A worker process, seen from here: its pipe, its end, and what it is doing.

Its end is seen by a *pidfd*. The pipe alone does not tell it, nor does the sentinel of multiprocessing: whoever was
forked by the worker, or by us at the wrong moment, holds the other end open. Where there is no pidfd, the sentinel has
to do.
"""

from __future__ import annotations

import enum
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from futurechain.executors.processes.leases import Receiver
from futurechain.executors.processes.messages import Kind, Packer
from futurechain.executors.processes.progress import Progress
from futurechain.executors.processes.wire import Piece, Reader, Writer, frame, short_frame
from futurechain.executors.processes.worker import Start, main
from futurechain.interrupts import put_off

if TYPE_CHECKING:
    from collections.abc import Iterable

    from futurechain.executors.processes.trips import Item, Trip

__all__ = ["Phase", "WorkerProcess"]


class Phase(enum.Enum):
    """How far a worker is."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "being stopped"
    LEAVING = "leaving"


class WorkerProcess:
    """One worker, which `begin` starts; after that, only the machine's own thread touches it."""

    reader: Reader
    writer: Writer
    process: Any
    pid: int

    def __init__(self) -> None:
        self.fd: int = -1
        self.death: int = -1
        """A descriptor that becomes readable when it ends; from then on it has begun."""
        self.receiver: Receiver = Receiver()
        self.phase: Phase = Phase.STARTING
        self.joined: bool = False
        """Whether the watching thread knows it."""
        self.buried: bool = False
        self.lent: bool = False
        """Whether it is idle, for anybody to take: only who has taken it out of the list may touch it then."""
        self.gone: bool = False
        """Whether a message could not be sent, because it has ended."""
        self.trip: Trip | None = None
        """What it is doing, or is to begin with; None when it is idle."""
        self.next: Trip | None = None
        """What was sent behind that."""
        self.is_quick: bool = False
        """Whether its last call was short."""
        self.tasks: int = 0
        """How many calls it has made."""
        self.progress: Progress | None = None
        self.announced: int = 0
        """How many calls were sent ahead to it."""
        self.inline: bool = False
        """Whether it cannot open our blocks."""
        self.address: tuple[int, int] | None = None
        self.failure: str | None = None
        """Why it could not start, in its own words."""

    def begin(self, context: Any, start: Start) -> None:
        """Start it; who is interrupted before `has_begun` has let go of the pipe, and so it ends."""
        ours, theirs = context.Pipe()
        try:
            self.fd = os.dup(ours.fileno())  # a number and no object: in a forked child nothing must close it late
            _our_ends.add(self.fd)
            ours.close()
            os.set_blocking(self.fd, False)
            self.reader, self.writer = Reader(self.fd), Writer(self.fd)
            with _interrupts_held(context) as unblock:
                self.process = context.Process(target=main, args=(theirs, start, unblock))
                self.process.start()
            self.pid = self.process.pid
            self.death = _death_of(self.process)
        except BaseException:
            ours.close()
            if self.fd >= 0:
                _close(self.fd)
            raise
        finally:
            theirs.close()

    def has_begun(self) -> bool:
        """Tell whether somebody has to end it."""
        return self.death >= 0

    def send(self, kind: Kind, header: Any = (), payload: Iterable[Piece] = ()) -> bool:
        """Send it a message, as far as that fits; True if all of it did.

        Raises:
            OSError: if it has ended.
        """
        return self.write(frame(kind, header, payload))

    def write(self, pieces: list[Piece]) -> bool:
        """Send it the pieces of a message, as far as they fit; True if all of them did.

        Raises:
            OSError: if it has ended.
        """
        try:
            return self.writer.send(pieces)
        except OSError:
            self.gone = True
            raise

    def write_at_once(self, piece: Piece, written: list[int]) -> None:
        """Do so with the only piece of a message; how much of it fitted is added to `written`, whatever comes after.

        Raises:
            OSError: if it has ended.
        """
        try:
            self.writer.send_at_once(piece, written)
        except OSError:
            self.gone = True
            raise

    def send_trip(self, trip: Trip, packer: Packer) -> bool:
        """Send it `trip`, as far as that fits; True if all of it did.

        Raises:
            OSError: if it has ended.
            MemoryError: if it cannot open shared memory, and there is not enough of the other kind.
        """
        return self.write(self.message_of(trip, packer))

    def message_of(self, trip: Trip, packer: Packer) -> list[Piece]:
        """Return the pieces of the message that sends it `trip`.

        Raises:
            MemoryError: as above.
        """
        parcels = [item.parcel for item in trip.items if item.parcel is not None]
        if len(parcels) == 1 and (stream := parcels[0].short()) is not None:  # most are so
            return short_frame(Kind.CALL, stream)
        for parcel in parcels:
            for block in parcel.blocks:
                block.holder = self
        if self.inline:
            parcels = [parcel.inlined() for parcel in parcels]
        header = trip.cut, None if self.inline else packer.address, [parcel.layout for parcel in parcels]
        return frame(Kind.TRIP, header, [piece for parcel in parcels for piece in parcel.pieces])

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        with suppress(OSError):
            os.kill(self.pid, number)

    def dismiss(self) -> None:
        """Let it end: nothing will come."""
        self.phase = Phase.LEAVING
        with suppress(OSError):
            self.send(Kind.GOODBYE)

    def divide(self, trip: Trip | None) -> tuple[list[Item], list[Trip]]:
        """Return the job that it was doing when it ended, and what else it had: trips, to be tried again."""
        if trip is None:
            return [], []
        items = trip.items
        if self.progress is None:
            if len(items) == 1:
                return items, []
            return [], [trip.split_off([item]) for item in items]  # it is not known which one it was: each goes alone
        begun = min(self.progress.read() - self.tasks, len(items))
        guilty = items[begun - 1 : begun] if begun > 0 else []
        rest = [item for item in items if item not in guilty]
        return guilty, [trip.split_off(rest)] if rest else []

    def kill(self) -> None:
        """End it, at once."""
        self.signal(signal.SIGKILL)

    def bury(self) -> str:
        """Reap it when it has ended (waits for that); how it ended, in words."""
        self.process.join()  # with a timeout it would wait for the sentinel, which others may hold
        if not self.buried:
            self.buried = True
            os.close(self.death)
            _close(self.fd)
        code = self.process.exitcode
        if code is None:
            return "somebody else has reaped it"
        return f"exit code {code}" if code >= 0 else _signal_name(-code)


@contextmanager
def _interrupts_held(context: Any) -> Iterator[bool]:
    """Let a process that is started here meet Ctrl-C when it is ready to; whether it has to let that through then."""
    method = context.get_start_method()
    if not hasattr(signal, "pthread_sigmask") or method == "forkserver":  # which has its own mind about signals
        yield False
        return
    if method == "spawn":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # which would let the signal through, when it is started later
    with put_off():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield signal.SIGINT not in before
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death_of(process: Any) -> int:
    """Return a descriptor that becomes readable when `process` ends."""
    try:
        return os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return os.dup(process.sentinel)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_our_ends: set[int] = set()
"""Our ends of all pipes to workers: a child that is forked lets go of them, or no worker would see us end."""


def _close(fd: int) -> None:
    _our_ends.discard(fd)  # first: a child that is forked in between must not close what has this number then
    os.close(fd)


def _after_fork_in_child() -> None:
    while _our_ends:
        with suppress(OSError):
            os.close(_our_ends.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
