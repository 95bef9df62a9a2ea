"""How far a worker is, and what was sent ahead to it: a page that both sides have mapped.

A call that was sent ahead is begun by the worker without a further word, or withdrawn by the parent. A lock of the
system on the byte of its number, in the file behind the page, decides which. The worker holds it while it notes in the
page that it has the call: the end of a process gives its locks back, a note stays. The parent keeps it until the worker
has told how its last call has ended: from then on the number is of no use to anybody. A call that is sent behind
another one is recalled in the same way, but that is noted in the page, too, and no lock is kept. The threads of the
parent share its locks, so that the first of them to give one back does so for all: it has seen or written before what
the others are to find.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

from futurechain.executors.processes.shared_memory import is_available

__all__ = ["Progress"]


class Progress:
    """Numbers that a worker writes and its parent reads, at any moment, also when it was killed; and some back.

    Args:
        source: the descriptor of its file.
        path: where the file can be opened again; None if `source` stays open.
    """

    def __init__(self, source: int, path: str | None = None) -> None:
        self._page = mmap.mmap(source, mmap.PAGESIZE)
        self._count = 0
        self._path = path
        self._fd = source if path is None else -1

    def step(self) -> None:
        """Count one more. A killed writer leaves the old number or the new one: it is one aligned word."""
        self._count += 1
        _NUMBER.pack_into(self._page, BEGUN, self._count)

    def read(self) -> int:
        """Return the number."""
        return self._read(BEGUN)

    def announce(self, number: int) -> None:
        """Let the worker know that so many calls were sent ahead to it, the last of them being on its way."""
        _NUMBER.pack_into(self._page, ANNOUNCED, number)

    def announced(self) -> int:
        """Return how many were."""
        return self._read(ANNOUNCED)

    def has_gate(self) -> bool:
        """Tell whether `take` can be used here; for one thread."""
        if self._fd < 0 and self._path is not None:
            try:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                self._path = None  # the worker has ended
        return self._fd >= 0

    def take(self, number: int) -> bool:
        """Take the call of that number, in the worker; False if it was withdrawn or recalled."""
        if not self._lock(number):
            return False
        if self._read(RECALLED) >= number:
            self._unlock(number)
            return False
        _NUMBER.pack_into(self._page, TAKEN, number)
        self._unlock(number)
        return True

    def withdraw(self, number: int) -> bool:
        """Withdraw the call of that number, in the parent; False if the worker has taken it, and maybe died of it.

        Any thread may do so, and several at once: all of them get the same answer, and none undoes what another did.
        """
        if not self._lock(number):  # it is being taken
            return False
        if self._read(TAKEN) >= number:
            self._unlock(number)
            return False
        return True

    def recall(self, number: int) -> bool:
        """Withdraw a call that was sent behind another one, the last of such, for good; False if it was taken.

        Asked again, by any thread, it says the same; afterwards nothing needs to be forgotten.
        """
        if self._read(RECALLED) >= number:
            return True
        if not self._lock(number):  # it is being taken
            return False
        is_here = self._read(TAKEN) < number
        if is_here:
            _NUMBER.pack_into(self._page, RECALLED, number)
        self._unlock(number)
        return is_here

    def forget(self, last: int) -> None:
        """Give back what is kept for the numbers up to `last`, in the parent: the worker takes none of them now."""
        self._unlock(0, last + 1)

    def _lock(self, number: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)  # decides
        except OSError:
            return False
        return True

    def _unlock(self, first: int, count: int = 1) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, count, first)

    def _read(self, place: int) -> int:
        (number,) = _NUMBER.unpack_from(self._page, place)
        return int(number)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

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
        path = f"/proc/{address[0]}/fd/{address[1]}"
        try:
            source = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return Progress(source, path)
        except (OSError, ValueError):
            return None
        finally:
            os.close(source)


_NUMBER = struct.Struct("@Q")
BEGUN, ANNOUNCED, TAKEN, RECALLED = (place * _NUMBER.size for place in range(4))
"""Where is what in the page: how many calls were begun; the last number that was announced, and that was taken."""
