"""The receiving side of shared memory: blocks are mapped, and lent to objects until the last view of them has died.

`shared_memory` has the theory of operation, and the table of what is written in the ledger.
"""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from functools import cache, partial
from time import monotonic

from futurechain.executors.processes.shared_memory import (
    FREE,
    HELD,
    IDLE_SECONDS,
    LEFT,
    SLOTS,
    Handle,
    Unopened,
    descriptors_to_spare,
)

__all__ = ["Lease", "Receiver"]


class Lease:
    """The right to read and write a block until the last view of it has died."""

    __slots__ = ("__weakref__", "forks", "ledger", "slot")

    def __init__(self, ledger: mmap.mmap, slot: int) -> None:
        self.ledger: mmap.mmap | None = ledger
        self.slot: int = slot
        self.forks: int = len(_forks)
        """How often this process had forked when it got the block."""

    def end(self) -> None:
        """Tell the sender. Runs as a finalizer, in any thread, between any two steps: so it takes no lock."""
        _leases.pop(id(self), None)
        if self.ledger is not None:
            self.ledger[self.slot] = FREE if len(_forks) == self.forks else LEFT
            self.ledger = None


class Receiver:
    """Opens the blocks of one sender; for one thread at a time."""

    def __init__(self) -> None:
        self._pid = 0
        self._ledger: mmap.mmap | None = None
        self._maps: dict[int, tuple[mmap.mmap, float]] = {}
        """By serial number: blocks that will be used again, and when they were last."""

    def connect(self, address: tuple[int, int]) -> None:
        """Say where the sender's ledger is.

        Raises:
            Unopened: if it cannot be opened.
        """
        self._pid = address[0]
        try:
            self._ledger = self._map(address[1], SLOTS)
        except (OSError, ValueError, MemoryError) as error:
            raise Unopened from error

    def open(self, handle: Handle) -> memoryview | bytearray:
        """Return the buffer in a block: writable, and the block's own memory as long as descriptors last.

        Raises:
            Unopened: if it cannot be opened.
        """
        if self._ledger is None:
            raise Unopened
        try:
            return self._copied(handle) if _is_short_of_descriptors() else self._leased(handle)
        except (OSError, ValueError, MemoryError) as error:
            raise Unopened from error

    def _leased(self, handle: Handle) -> memoryview:
        import ctypes

        fd, serial, slot, size, capacity, kept = handle
        assert self._ledger is not None
        entry = self._maps.get(serial)
        mapped = self._map(fd, capacity) if entry is None else entry[0]
        if kept:
            self._maps[serial] = mapped, monotonic()
        lease = Lease(self._ledger, slot)
        buffer = (ctypes.c_char * size).from_buffer(mapped)
        self._ledger[slot] = HELD
        _leases[id(lease)] = lease
        weakref.finalize(buffer, lease.end).atexit = False
        return memoryview(buffer).cast("B")

    def _copied(self, handle: Handle) -> bytearray:
        fd, _, slot, size, _, _ = handle
        assert self._ledger is not None
        source = os.open(f"/proc/{self._pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = bytearray(size)
            view, done = memoryview(data), 0
            while done < size:
                done += os.preadv(source, [view[done:]], done)
        finally:
            os.close(source)
        self._ledger[slot] = FREE
        return data

    def _map(self, fd: int, length: int) -> mmap.mmap:
        source = os.open(f"/proc/{self._pid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            if sys.version_info >= (3, 13):
                return mmap.mmap(source, length, trackfd=False)
            mapped = mmap.mmap(source, length)  # keeps a descriptor of its own
            _mapped.add(mapped)
            return mapped
        finally:
            os.close(source)

    def give_back(self, idle: float = IDLE_SECONDS) -> bool:
        """Unmap what was not used for `idle` seconds; tell whether anything is left (views keep their own block)."""
        before = monotonic() - idle
        for serial, (_, used) in tuple(self._maps.items()):
            if used <= before:
                del self._maps[serial]
        return bool(self._maps)


def _is_short_of_descriptors() -> bool:
    return len(_mapped) >= _descriptors_at_start()


_descriptors_at_start = cache(descriptors_to_spare)
_mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
"""The mappings that hold a descriptor each."""

# -- forking ----------------------------------------------------------------------------------------------------------

_leases: dict[int, Lease] = {}
_forks: list[None] = []
"""As many entries as this process has forked: no block that a child may see is used again."""


def _after_fork_in_child() -> None:
    """Keep the hands off the parent's leases."""
    for lease in tuple(_leases.values()):
        lease.ledger = None
    _leases.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=partial(_forks.append, None), after_in_child=_after_fork_in_child)
