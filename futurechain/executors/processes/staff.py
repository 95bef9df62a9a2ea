"""How many workers there are: they are started when somebody needs them, in the thread of whoever does.

A *slot* is the right to have a worker, and a *token* says that one is known to have nothing to do. Both lie in lists,
and whoever pops one has it: no lock, and never more workers than slots.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from futurechain.executors.processes.process import WorkerProcess
from futurechain.executors.processes.worker import Start

__all__ = ["Staff"]


class Staff:
    """The right to start workers of one pool.

    Args:
        context: of multiprocessing.
        limit: how many there may be.
        start: what each is started with.
        joined: is called with each new one, in the thread that has started it.
    """

    def __init__(self, context: Any, limit: int, start: Start, joined: Callable[[WorkerProcess], object]) -> None:
        self.limit = limit
        self.processes: dict[int, Any] = {}
        """The live ones, by process id; those that are leaving after their last task do not count."""
        self._context = context
        self._start: Start | None = start
        self._joined = joined
        self._slots: list[None] = [None] * limit
        self._tokens: list[None] = []
        self.forks: bool = context.get_start_method(allow_none=False) == "fork"

    def prepare(self) -> None:
        """Have a worker for what is about to be queued: one that is idle, or a new one; with fork, all at once.

        Raises:
            OSError: if none can be started, and there is none.
        """
        if self.forks:
            while self._slots:
                self._try_to_hire()
            return
        if not self._knows_of_idle() and self._slots:
            self._try_to_hire()

    def _knows_of_idle(self) -> bool:
        """Take a token, if there is one."""
        try:
            return bool(self._tokens) and self._tokens.pop() is None
        except IndexError:  # somebody else was faster
            return False

    def prepare_early(self) -> None:
        """Have what `prepare` cannot start any more once the interpreter ends: forked workers.

        Raises:
            OSError: if none can be started, and there is none.
        """
        if self.forks:
            self.prepare()

    def _try_to_hire(self) -> None:
        try:
            self.hire()
        except OSError:
            if not self.processes:
                raise

    def hire(self) -> bool:
        """Start one more; False if there are as many as may be.

        Raises:
            OSError: if the system gives no more processes, memory or descriptors.
        """
        start = self._start
        slot: list[None] = []
        worker = WorkerProcess()
        try:
            # In one step of the interpreter: an interrupt must not come between having it and knowing that.
            slot.extend(islice(iter(self._slots.pop, 1), 1))
            if start is None:
                return False
            worker.begin(self._context, start)
            self._take_in(worker)
        except IndexError:  # no slot was left
            return False
        except BaseException:
            if worker.has_begun():
                self._take_in(worker)  # again: it is there, and somebody has to end it
            else:
                self._slots += slot
            raise
        return True

    def _take_in(self, worker: WorkerProcess) -> None:
        self.processes[worker.pid] = worker.process
        self._joined(worker)

    def has_room(self) -> bool:
        """Tell whether one more may be started."""
        return bool(self._slots)

    def close(self) -> None:
        """Start no more; hold nothing of what the initializer was to be given."""
        self._slots.clear()
        self._start = None
        self._joined = _nobody

    def is_idle(self) -> None:
        """Take note that a worker has nothing to do."""
        self._tokens.append(None)

    def leaves(self, worker: WorkerProcess) -> None:
        """Take note that `worker` ends, or has ended: another one may take its place. Once for each."""
        if self.processes.pop(worker.pid, None) is not None:
            self._slots.append(None)


def _nobody(worker: WorkerProcess) -> None:
    """Take nobody in: it is over."""
    worker.kill()
    worker.bury()
