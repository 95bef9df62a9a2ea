"""Large buffers from process to process, in memory that has no name and is used again.

Theory of operation
-------------------
A `Sender` writes into *blocks*: anonymous files in memory (``memfd``), which a `leases.Receiver` in another process
opens as ``/proc/<pid>/fd/<fd>`` and maps. What makes heavy data slow is not copying but fresh pages, so blocks come in
sizes of powers of two, and one that is free again takes the next buffer; its receiver has it mapped already. Nothing
has a name: when the processes that hold a block have ended, however they end, it is gone.

Who may touch a block is written in the sender's *ledger*, a page that both have mapped, one byte for each block:

========  ============================================  ==========================================================
byte      who wrote it                                  meaning
========  ============================================  ==========================================================
`FREE`    the receiver, when the last view has died     the sender may write into it again
`SENT`    the sender, before it sends the handle        on its way: the sender keeps it open
`HELD`    the receiver, when it has mapped it           the sender may close it, if it is none to be used again
`LEFT`    the receiver, instead of `FREE`               it forked meanwhile: the child sees the block, too, so it is
                                                        to be closed and not to be used again
========  ============================================  ==========================================================

Each byte has one writer at a time: the sender when it is free, then the receiver, until it is free again. Only the
process that mapped a block writes `FREE`: a forked child that drops its copy of an array writes nothing.

In a `Sender`, any thread may write. A block is in exactly one of the lists of free ones and the dict of sent ones,
and whoever takes it out there, by one ``pop``, owns it.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterable, Sequence
from itertools import count
from time import monotonic
from typing import Any, TypeAlias

__all__ = [
    "FREE", "HELD", "IDLE_SECONDS", "LEFT", "SLOTS", "Block", "Handle", "Sender", "Unopened", "descriptors_to_spare",
    "is_available",
]  # fmt: skip

FREE, SENT, HELD, LEFT = range(4)
SLOTS = 4096
IDLE_SECONDS = 5.0
"""How long a free block waits for its next use before it is given back."""
MOST_KEPT = 16
"""How many blocks a sender uses again; those beyond are closed when the receiver has them."""
MOST_KEPT_BYTES = 1 << 30

Handle: TypeAlias = tuple[int, int, int, int, int, bool]
"""What travels: file descriptor of the sender, serial number, slot, size, capacity, whether it will be used again."""


class Unopened(Exception):  # noqa: N818  # a condition that is dealt with, not an error
    """Raised when a block cannot be opened here: the sender is to send what is in it through the pipe."""


def is_available() -> bool:
    """Tell whether this system has what blocks are made of."""
    return hasattr(os, "memfd_create") and os.access("/proc/self/fd", os.X_OK)


def descriptors_to_spare() -> int:
    """Return how many file descriptors blocks may take in this process: a quarter of what it may open."""
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (1 << 16 if soft == resource.RLIM_INFINITY else soft) // 4


class Block:
    """A stretch of memory that a sender has opened."""

    __slots__ = ("capacity", "fd", "holder", "kept", "serial", "size", "slot", "used")

    def __init__(self, fd: int, slot: int, serial: int, capacity: int, *, kept: bool) -> None:
        self.fd: int = fd
        self.slot: int = slot
        self.serial: int = serial
        self.capacity: int = capacity
        self.kept: bool = kept
        """Whether it will be used again."""
        self.size: int = 0
        self.used: float = 0.0
        self.holder: object = None
        """Who has been sent it."""

    def handle(self) -> Handle:
        """Return what the receiver needs to know."""
        return self.fd, self.serial, self.slot, self.size, self.capacity, self.kept

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Write `pieces`, one after the other, from the beginning.

        Raises:
            OSError: if there is no memory for it.
        """
        offset = 0
        for piece in pieces:
            done = 0
            while done < len(piece):
                done += os.pwrite(self.fd, piece[done:], offset + done)
            offset += done
        self.size = offset

    def read(self) -> bytes:
        """Return what is in it: it is to go through the pipe after all."""
        return os.pread(self.fd, self.size, 0) if self.size < 1 << 30 else self._read_long()

    def _read_long(self) -> bytes:
        data = memoryview(bytearray(self.size))
        done = 0
        while done < self.size:
            done += os.preadv(self.fd, [data[done:]], done)
        return bytes(data)

    def close(self) -> None:
        """Give up this process's hold on the memory; once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Sender:
    """The blocks that one process writes for another, or for several."""

    def __init__(self) -> None:
        self._ledger_fd = os.memfd_create("futurechain-ledger", os.MFD_CLOEXEC)
        os.ftruncate(self._ledger_fd, SLOTS)
        self._ledger = mmap.mmap(self._ledger_fd, SLOTS)
        self._slots = list(range(SLOTS))
        self._serials = count(1)
        self._free: dict[int, list[Block]] = {}
        self._sent: dict[int, Block] = {}
        self._kept: dict[int, int] = {}
        """The capacity of each block that is to be used again, by slot."""
        self._most_open = descriptors_to_spare()
        _senders.add(self)

    @property
    def address(self) -> tuple[int, int]:
        """Where a receiver finds the ledger: process and file descriptor."""
        return os.getpid(), self._ledger_fd

    def put(self, pieces: Iterable[Any]) -> Block | None:
        """Write `pieces` into a block; None if there is none to be had."""
        views = [memoryview(piece).cast("B") for piece in pieces]
        size = sum(map(len, views))
        block = None
        try:
            block = self._take(max(mmap.PAGESIZE, 1 << (size - 1).bit_length()))
            if block is not None:
                block.write(views)
        except (OSError, MemoryError):
            if block is not None:
                self._discard(block)
            return None
        if block is not None:
            self._ledger[block.slot] = SENT  # before it is in `_sent`, where it would pass for free
            self._sent[block.slot] = block
        return block

    def _take(self, capacity: int) -> Block | None:
        free = self._free.setdefault(capacity, [])
        if not free:
            self.collect()
        try:
            return free.pop()
        except IndexError:
            return self._new(capacity)

    def _new(self, capacity: int) -> Block | None:
        if self.statistics()[0] >= self._most_open:
            return None
        try:
            slot = self._slots.pop()
        except IndexError:
            return None
        try:
            fd = os.memfd_create("futurechain", os.MFD_CLOEXEC)
            os.ftruncate(fd, capacity)
        except BaseException:
            self._slots.append(slot)
            raise
        kept = len(self._kept) < MOST_KEPT and sum(tuple(self._kept.values())) + capacity <= MOST_KEPT_BYTES
        if kept:
            self._kept[slot] = capacity
        return Block(fd, slot, next(self._serials), capacity, kept=kept)

    def _discard(self, block: Block) -> None:
        """Close a block that the caller owns."""
        block.close()
        self._kept.pop(block.slot, None)
        self._ledger[block.slot] = FREE
        self._slots.append(block.slot)

    def collect(self) -> None:
        """Take back what receivers have set free; close what they hold for themselves."""
        for slot, block in tuple(self._sent.items()):
            state = self._ledger[slot]
            if state == HELD and not block.kept:
                block.close()
            elif state in (FREE, LEFT) and self._sent.pop(slot, None) is not None:
                self._recycle(block, state)

    def _recycle(self, block: Block, state: int) -> None:
        if state == LEFT or not block.kept:
            self._discard(block)
            return
        block.used, block.holder = monotonic(), None
        self._free.setdefault(block.capacity, []).append(block)

    def drop(self, blocks: Iterable[Block]) -> None:
        """Close `blocks`, which nobody will open any more: never sent, or sent to a process that has ended."""
        for block in blocks:
            if self._sent.get(block.slot) is block and self._sent.pop(block.slot, None) is not None:
                self._discard(block)

    def drop_all_of(self, holder: object) -> None:
        """Close the blocks that were sent to `holder`, which has ended."""
        self.drop([block for block in tuple(self._sent.values()) if block.holder is holder])

    def give_back(self, idle: float = IDLE_SECONDS) -> bool:
        """Close what has been free for `idle` seconds; tell whether there is anything left to look after."""
        self.collect()
        before = monotonic() - idle
        for free in tuple(self._free.values()):
            kept = []
            while free:
                try:
                    block = free.pop()
                except IndexError:  # another thread was faster
                    break
                if block.used <= before:
                    self._discard(block)
                else:
                    kept.append(block)
            free.extend(kept)
        return bool(self._sent) or any(self._free.values())

    def statistics(self) -> tuple[int, int]:
        """Return how many blocks are open, and how many of them are free."""
        free = sum(map(len, tuple(self._free.values())))
        return free + sum(block.fd >= 0 for block in tuple(self._sent.values())), free

    def close(self) -> None:
        """Give up all of it; what receivers have mapped stays theirs."""
        for block in (*self._sent.values(), *(one for free in self._free.values() for one in free)):
            block.close()
        self._sent.clear()
        self._free.clear()
        fd, self._ledger_fd = self._ledger_fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_sent"):
            self.close()


_senders: weakref.WeakSet[Sender] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Keep the hands off the parent's blocks."""
    for sender in tuple(_senders):
        sender.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
