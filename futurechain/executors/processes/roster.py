"""Who is there: the workers of a pool, what is to be heard from them, and who may touch which.

The watching thread has them all, but for those that are *lent*: an idle worker lies in `Roster.idle`, from where any
thread that submits may take it, to give it a trip at once, without a way over the watching thread. Whoever takes it
out of that list has it alone, and puts it into `Roster.returned` when the trip is sent; until then the watching thread
lets it be, and looks again and again, which takes a moment at most.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterator
from math import ceil
from time import monotonic

from futurechain.executors.processes.process import Phase, WorkerProcess
from futurechain.executors.processes.wire import Bell

__all__ = ["Roster"]

GRACE_SECONDS = 1.0
"""How long a worker may take to end after SIGTERM."""


class Roster:
    """The workers, and what the watching thread waits for.

    Args:
        bell: wakes it.
        take_back: works off `returned`.
    """

    def __init__(self, bell: Bell, take_back: Callable[[], object]) -> None:
        self.workers: set[WorkerProcess] = set()
        self.idle: list[WorkerProcess] = []
        """Those that have nothing to do. Any thread may take one out, and give it a trip."""
        self.returned: deque[tuple[WorkerProcess, bool | None]] = deque()
        """Those that were taken, and whether all of their trip was sent; None: nothing was."""
        self._take_back = take_back
        self._bell = bell
        self._watched: dict[int, tuple[WorkerProcess, bool]] = {}
        """By descriptor: the worker, and whether it tells that worker's end."""
        self._deadlines: dict[WorkerProcess, float] = {}
        """When to kill those that should have ended by themselves."""
        self._poll = select.poll()
        self._poll.register(bell.fd, select.POLLIN)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, due: float | None, awake: Callable[[], object]) -> Iterator[tuple[WorkerProcess, bool, int]]:
        """Wait for news, until `due` (by ``time.monotonic``) at most: of whom, whether it has ended, the event.

        Before it tells anything it calls `awake`.
        """
        events = self._poll.poll(self._milliseconds(due))
        awake()
        for fd, event in events:
            if fd == self._bell.fd:
                self._bell.silence()
                continue
            worker, tells_end = self._watched.get(fd, (None, False))
            if worker is not None and self.is_ours(worker):  # else it has just gone; or it will be told again
                yield worker, tells_end, event

    def _milliseconds(self, due: float | None) -> int | None:
        if self._deadlines:
            first = min(self._deadlines.values())
            due = first if due is None else min(first, due)
        return None if due is None else max(0, ceil((due - monotonic()) * 1000))

    def join(self, worker: WorkerProcess) -> None:
        """Take in a new one."""
        self.workers.add(worker)
        for fd, tells_end in ((worker.fd, False), (worker.death, True)):
            self._watched[fd] = worker, tells_end
            self._poll.register(fd, select.POLLIN)

    def wants_to_write(self, worker: WorkerProcess, *, wants: bool) -> None:
        """Say whether there is more to be sent to it than fits now."""
        if self.is_heard(worker):
            self._poll.modify(worker.fd, select.POLLIN | select.POLLOUT if wants else select.POLLIN)

    def is_heard(self, worker: WorkerProcess) -> bool:
        """Tell whether its pipe is open."""
        return worker.fd in self._watched

    def hung_up(self, worker: WorkerProcess) -> None:
        """Listen to its pipe no more: it has closed its end, and is about to end; or has to, if it is not to leave."""
        self._unwatch(worker.fd)
        if worker.phase is not Phase.LEAVING:
            self._deadlines.setdefault(worker, monotonic() + GRACE_SECONDS)

    def forget(self, worker: WorkerProcess) -> None:
        """Let go of one that has ended."""
        self._unwatch(worker.fd)
        self._unwatch(worker.death)
        self.workers.discard(worker)
        self._deadlines.pop(worker, None)

    def _unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    # -- ending -------------------------------------------------------------------------------------------------------

    def end(self, worker: WorkerProcess, number: int) -> None:
        """Send it a signal; if it has not ended a little later, it will be killed."""
        worker.signal(number)
        self._deadlines.setdefault(worker, monotonic() + GRACE_SECONDS)

    def kill_overdue(self) -> None:
        """Kill those that should have ended."""
        if self._deadlines:
            now = monotonic()
            for worker, due in tuple(self._deadlines.items()):
                if due <= now:
                    del self._deadlines[worker]
                    worker.kill()

    # -- lending ------------------------------------------------------------------------------------------------------

    def lend(self, worker: WorkerProcess) -> None:
        """Let anybody have `worker`: it is idle."""
        worker.lent = True  # first: from then on somebody may take it, and give it back
        self.idle.append(worker)

    def take(self) -> WorkerProcess | None:
        """Return one that is idle, for the watching thread itself."""
        if not self.idle:
            return None
        try:
            worker = self.idle.pop()
        except IndexError:
            return None
        worker.lent = False
        return worker

    def is_ours(self, worker: WorkerProcess) -> bool:
        """Tell whether the watching thread may touch `worker`; if that is idle, it is taken back for that."""
        if worker.lent:
            self._take_back()
            if worker.lent:
                try:
                    self.idle.remove(worker)  # decides, against whoever would take it
                except ValueError:
                    return False
                worker.lent = False
        return True
