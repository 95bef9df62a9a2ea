"""What goes wrong between here and a worker process. Public as `futurechain.errors`.

In a module of its own, because the classes that say "the pool is broken" come from ``concurrent.futures.process``,
which costs more to import than most programs need.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from pickle import PicklingError

__all__ = ["StagePicklingError", "WorkerDiedError"]


class WorkerDiedError(BrokenProcessPool):
    """Raised in the task that a worker process was running when it ended; the message says how it ended.

    Example:
        >>> with ProcessPoolExecutor(1, heal=True) as processes:
        ...     print(processes.submit(os._exit, 3).exception())
        worker process ... of ProcessPoolExecutor-... ended abruptly (exit code 3) while it ran _exit
    """


class StagePicklingError(BrokenProcessPool, PicklingError, TypeError):
    """Raised in a stage that cannot travel to a worker process or back; the pool goes on, whatever the base says.

    Example:
        >>> isinstance(processes.submit(lambda: 5).exception(), StagePicklingError)
        True
    """


for _public in (WorkerDiedError, StagePicklingError):
    _public.__module__ = "futurechain.errors"
