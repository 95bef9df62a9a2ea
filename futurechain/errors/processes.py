"""What goes wrong between here and a worker process. Public as `futurechain.errors`.

In a module of its own, because the classes that say "the pool is broken" come from ``concurrent.futures.process``,
which costs more to import than most programs need.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from pickle import PicklingError

__all__ = ["StagePicklingError", "WorkerDiedError"]


class WorkerDiedError(BrokenProcessPool):
    """Raised in the task that a worker process was running when it ended; the message says how it ended."""


class StagePicklingError(BrokenProcessPool, PicklingError, TypeError):
    """Raised in a stage that cannot travel to a worker process or back; the pool goes on, whatever the base says."""


for _public in (WorkerDiedError, StagePicklingError):
    _public.__module__ = "futurechain.errors"
