"""What goes wrong between here and a worker process. Public as `futurechain.errors`.

In a module of its own, because the classes that say "the pool is broken" come from ``concurrent.futures.process``,
which costs more to import than most programs need.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from pickle import PicklingError

__all__ = ["RemoteTraceback", "StagePicklingError", "WorkerDiedError"]


class WorkerDiedError(BrokenProcessPool):
    """Raised in the task that a worker process was running when it ended; the message says how it ended."""


class StagePicklingError(BrokenProcessPool, PicklingError, TypeError):
    """Raised in a stage that cannot travel to a worker process or back; the pool goes on, whatever the base says."""


class RemoteTraceback(Exception):  # noqa: N818  # the name that the standard pool made known
    """The traceback of an exception that was raised in a worker process, as its ``__cause__``."""

    def __init__(self, text: str) -> None:
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


for _public in (WorkerDiedError, StagePicklingError):
    _public.__module__ = "futurechain.errors"
