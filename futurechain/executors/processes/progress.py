"""How far a worker is: a page that both sides have mapped."""

from __future__ import annotations

import mmap
import os
import struct

from futurechain.executors.processes.shared_memory import is_available

__all__ = ["Progress"]


class Progress:
    """A number that a worker writes and its parent reads, at any moment, also when the worker has been killed."""

    def __init__(self, source: int) -> None:
        self._page = mmap.mmap(source, mmap.PAGESIZE)
        self._count = 0

    def step(self) -> None:
        """Count one more. A killed writer leaves the old number or the new one: it is one aligned word."""
        self._count += 1
        _NUMBER.pack_into(self._page, 0, self._count)

    def read(self) -> int:
        """Return the number."""
        (number,) = _NUMBER.unpack_from(self._page)
        return int(number)

    @staticmethod
    def make() -> tuple[Progress, tuple[int, int]] | None:
        """Return a new one, and where it is found; None where there is no such memory."""
        if not is_available():
            return None
        try:
            fd = os.memfd_create("futurechain-progress", os.MFD_CLOEXEC)
            os.ftruncate(fd, mmap.PAGESIZE)
            return Progress(fd), (os.getpid(), fd)
        except (OSError, ValueError):
            return None

    @staticmethod
    def open(address: tuple[int, int]) -> Progress | None:
        """Return that of another process; None if it cannot be opened here."""
        try:
            source = os.open(f"/proc/{address[0]}/fd/{address[1]}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return Progress(source)
        except (OSError, ValueError):
            return None
        finally:
            os.close(source)


_NUMBER = struct.Struct("@Q")
