"""The exceptions of the library: its own, and the standard ones that its callers meet.

Everything is importable from here, so that no other module defines an exception. The standard classes are the
standard library's own objects: ``except concurrent.futures.CancelledError`` catches ours.
"""

from __future__ import annotations

from _pickle import PicklingError  # what `pickle` has, without the cost of importing that
from concurrent.futures import BrokenExecutor, CancelledError, InvalidStateError

__all__ = [
    "BrokenExecutor",
    "CancelledError",
    "ExecutorShutdownError",
    "InvalidStateError",
    "LostFutureError",
    "StagePicklingError",
    "TimeoutError",
]

TimeoutError = TimeoutError  # noqa: A001, PLW0127  # re-exported under the name users look for


class LostFutureError(RuntimeError):
    """Raised in what depends on a future whose producer dropped it without settling it."""


class ExecutorShutdownError(RuntimeError):
    """Raised in a stage whose executor no longer accepts work."""


class StagePicklingError(PicklingError, TypeError):
    """Raised in a stage that cannot travel to a worker process, because a part of it cannot be pickled."""
