"""When to give shared memory back that nobody has used for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from futurechain.executors.processes.shared_memory import IDLE_SECONDS

__all__ = ["Sweeper"]


class Sweeper:
    """Looks after the blocks of a pool, as long as there are any; for the watching thread alone."""

    def __init__(self) -> None:
        self.due: float | None = None
        """When to look next, by ``time.monotonic``; None while there is nothing to look after."""

    def is_used(self) -> None:
        """Take note that there is something to look after."""
        if self.due is None:
            self.due = monotonic() + IDLE_SECONDS

    def sweep(self, owners: Callable[[], Iterable[Callable[[], bool]]]) -> None:
        """If it is time, have all `owners` give back what is idle; each tells whether it has anything left."""
        now = monotonic()
        if self.due is not None and self.due <= now:
            left = [give_back() for give_back in owners()]
            self.due = now + IDLE_SECONDS if any(left) else None
