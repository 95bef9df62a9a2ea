"""The exceptions of the library: its own, and the standard ones that its callers meet.

Everything is importable from here, so that no other module defines an exception. The standard classes are the
standard library's own objects: ``except concurrent.futures.CancelledError`` catches ours.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError, InvalidStateError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from futurechain.errors.processes import StagePicklingError, WorkerDiedError

__all__ = [
    "BrokenExecutor",
    "CancelledError",
    "ClusterLostError",
    "ExecutorShutdownError",
    "InvalidStateError",
    "LostFutureError",
    "StagePicklingError",
    "TimeoutError",
    "WorkerDiedError",
]

TimeoutError = TimeoutError  # noqa: A001, PLW0127  # re-exported under the name users look for


class LostFutureError(RuntimeError):
    """Raised in what depends on a future whose producer dropped it without settling it.

    Example:
        >>> Future().then(str).exception()
        LostFutureError('the future this stage waits for was dropped by its producer without being settled')
    """


class ClusterLostError(BrokenExecutor):
    """Raised in what a cluster had, when its scheduler or the client was lost, closed or restarted.

    Example:
        >>> fail(ClusterLostError("the client is closed")).catch(BrokenExecutor, str).result()
        'the client is closed'
    """


class ExecutorShutdownError(RuntimeError):
    """Raised in a stage whose executor no longer accepts work.

    Example:
        >>> pool.shutdown()
        >>> type(succeed(5).then(str, on=pool).exception())
        <class 'futurechain.errors.ExecutorShutdownError'>
    """


_OF_PROCESSES = ("StagePicklingError", "WorkerDiedError")
"""Those that say "the process pool is broken" by their class: they are made when they are first asked for, because
that class costs more to import than the rest of the library."""


def __getattr__(name: str) -> object:
    if name not in _OF_PROCESSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from futurechain.errors import processes

    value = globals()[name] = getattr(processes, name)
    return value
