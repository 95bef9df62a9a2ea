"""The machine as the other threads see it: they send word to the watching thread, and never wait for it.

Whoever wants something puts it into the *inbox* and rings the *bell*. There is no lock: an interrupt, a finalizer or a
fork in any thread finds nothing half done.

The race at the end is decided so: who submits appends to the inbox **first** and looks at ``_ended`` **then**; the
watching thread sets ``_ended`` **first** and empties the inbox **then**. Each entry is popped once, and whoever pops it
after the end refuses it.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from time import perf_counter
from typing import Any

from futurechain.executors.processes.ending import machines
from futurechain.executors.processes.messages import Packer
from futurechain.executors.processes.packing import pack_items
from futurechain.executors.processes.process import WorkerProcess
from futurechain.executors.processes.shared_memory import is_available
from futurechain.executors.processes.staff import Staff
from futurechain.executors.processes.trips import Ahead, Following, Item, Job, Trip
from futurechain.executors.processes.turnover import Options
from futurechain.executors.processes.watcher import Inbox, Watcher
from futurechain.executors.processes.wire import Bell, Piece
from futurechain.executors.processes.worker import Start
from futurechain.interrupts import put_off

__all__ = ["Machine"]

MOST_PACKED_AT_ONCE = 4 << 20
"""As long as what is queued takes fewer bytes than that, whoever submits packs; the rest waits for its turn."""
LARGE = 1 << 14
"""What takes more bytes than that is made known at once, so that what is queued is measured rightly."""

logger: logging.Logger = logging.getLogger("futurechain")


class Machine:
    """Workers and their queue; runs jobs.

    Args:
        options: what it does when.
        context: of multiprocessing.
        limit: how many workers at most.
        start: what each is started with.
    """

    def __init__(self, options: Options, context: Any, limit: int, start: Start) -> None:
        self.name: str = options.name
        self._inbox: Inbox = deque()
        self._bell = Bell()
        self._packer = Packer(start.share)
        self.staff: Staff = Staff(context, limit, start, self._joined)
        self._watcher = Watcher(options, self.staff, self._packer, self._inbox, self._bell)
        self._sends_ahead = options.max_tasks is None and is_available()
        self._lists = self._watcher.roster.idle, self._watcher.roster.returned
        self.thread: threading.Thread | None = None
        self._begun: list[threading.Thread] = []
        self._starting = threading.RLock()
        """Held while the thread is started, by nobody else."""
        self._recent = 0
        """How many bytes the last trips took; whoever submits writes it, and it need not be exact."""
        self._closed = False
        self._ended = False
        self._process = os.getpid()
        machines.add(self)

    # -- asked by any thread ------------------------------------------------------------------------------------------

    @property
    def reason(self) -> str | None:
        """Why it is broken, or None."""
        return self._watcher.reason

    @property
    def queued(self) -> int:
        """How many trips wait for a worker."""
        return len(self._watcher.backlog)

    def submit(self, jobs: Sequence[Job], *, cut: float | None = None, pack: bool = True) -> list[Item]:
        """Have `jobs` done by one worker, one after the other.

        Args:
            jobs: at least one.
            cut: after how many seconds the worker sends back what it has not begun, for another; None: never.
            pack: whether they may be packed in this thread.

        Returns:
            What stands for each of them here, to be withdrawn or stopped.

        Raises:
            BrokenProcessPool: if it is broken.
            RuntimeError: if it is closed, or belongs to another process.
            OSError: if no worker can be started.
        """
        self.check()
        self._start_what_is_needed()
        trip = Trip(jobs, cut)
        items = [*trip.items]
        if pack and self._watcher.backlog.size + self._unread() < MOST_PACKED_AT_ONCE:
            failed = pack_items(trip.items, self._packer, self.name)
            if failed:
                trip.items = [item for item in trip.items if item not in failed]
            trip.measure()
            self._recent = max(trip.size, self._recent // 2)
        if trip.items and not self._handed_over(trip):
            self._queue(trip)
        return items

    def _start_what_is_needed(self) -> None:
        try:
            if not self.staff.forks:  # with fork the thread comes last, so that the children are forked without it
                self._begin()
            self.staff.prepare()
            self._begin()
        except RuntimeError as error:
            if self.staff.processes and self.thread is not None:
                return  # those that are there will do
            if self.thread is None:
                self._refuse_rest()  # workers that nobody would look after
            if "interpreter shutdown" in str(error):  # Python 3.12 starts nothing any more by then
                error.add_note(f"{self.name} was not in use when the interpreter began to end: use it before")
            raise

    def prepare(self) -> None:
        """Start what can be started already, for what will be submitted; what cannot will be told by `submit`."""
        if self.thread is None and self.reason is None and not self._closed and self._process == os.getpid():
            with suppress(OSError, RuntimeError):
                self.staff.prepare_early()
                self._begin()

    def _unread(self) -> int:
        """Return about how many bytes wait to be read by the watching thread: as if all were like the last ones."""
        return len(self._inbox) * self._recent

    def _queue(self, trip: Trip) -> None:
        """Send `trip` to the watching thread; wake that only if there is something to be done about it now.

        While all workers are busy it will wake up by itself, when one of them has ended its trip. Who submits appends
        **first** and looks for idle workers **then**; the watching thread puts one there **first**, and looks into the
        inbox **then**, before it sleeps.
        """
        self._inbox.append((self._watcher.take, trip))
        if self._ended:
            self._refuse_rest()
        elif self._lists[0] or self.staff.has_room() or trip.size > LARGE or not trip.is_packed():
            self._bell.ring()

    def _handed_over(self, trip: Trip) -> bool:
        """Give `trip` to an idle worker, if nothing else waits for one: that saves a way over the watching thread.

        The message is sent when the worker has been given back: the answer may be there before this thread goes on,
        and the watching thread could do nothing but look for it again and again. One of several pieces is for that
        thread, where no Ctrl-C comes between what is written and the knowledge of it.
        """
        watcher = self._watcher
        idle, returned = self._lists
        if not idle or self._inbox or watcher.backlog or not trip.is_packed():
            return False
        taken: list[WorkerProcess] = []
        written: list[int] = []
        message: list[Piece] = []
        early = False
        try:
            # In one step of the interpreter: an interrupt must not come between taking it and knowing that.
            taken.extend(islice(iter(idle.pop, None), 1))
            worker = taken[0]
            trip.worker, worker.trip = worker, trip  # first: whatever comes between, the worker is given back with it
            if not trip.claim(self._packer):
                trip.worker = worker.trip = None
            else:
                trip.sent = perf_counter()
                message = worker.message_of(trip, self._packer)
                if len(message) == 1:
                    returned.append((worker, True))
                    early = True
                    worker.write_at_once(message[0], written)  # and nothing of the worker is touched after it
        except IndexError:  # somebody else was faster
            return False
        except OSError:  # it has ended, and the trip will be given to another one
            pass
        finally:
            if early and sum(written) < len(message[0]):
                left = memoryview(message[0]).cast("B")[written[0] :] if written else None
                self._tell(watcher.take_back_from, (taken[0], trip, left))
            elif taken and not early:
                returned.append((taken[0], None))
                self._bell.ring()
        return True

    def check(self) -> None:
        """Raise if no jobs are taken any more: see `submit`."""
        if self.reason is not None:
            raise BrokenProcessPool(self.reason)
        if self._closed:
            raise RuntimeError(f"cannot schedule new futures after shutdown of {self.name}")
        if self._process != os.getpid():
            text = f"{self.name} belongs to process {self._process}, which forked this one: make a new pool"
            raise RuntimeError(text)

    def send_ahead(self, job: Following, fn: object, before: Item) -> Item | None:
        """Let the worker that makes `before` call `fn` with its value, for `job`, without a further word from here.

        Returns:
            What stands for `job`; the machine says what becomes of it. None: nothing is done.
        """
        if not self._sends_ahead or self.queued:
            return None
        began = perf_counter()
        try:
            stream = pickle.dumps(fn, 5)
        except Exception:  # it will be told when its turn comes
            return None
        item = Item(job, before.trip)
        item.packing = began, perf_counter()
        self._tell(self._watcher.send_ahead, Ahead(item, before, stream))
        return item

    def withdraw(self, item: Item) -> None:
        """Forget a job that has not begun."""
        self._tell(self._watcher.withdraw, item)

    def stop(self, item: Item) -> None:
        """Forget a job, and end the worker that runs it, if one does."""
        self._tell(self._watcher.stop, item)

    def close(self) -> None:
        """Take no more jobs; end when all are done."""
        self._closed = True
        self._look_after_workers()
        self._tell(self._watcher.close, None)

    def catch_up(self) -> None:
        """Return when what was submitted before has begun, as far as there are workers for it."""
        is_here = self.thread is not None and self._process == os.getpid()  # a fork does not take it along
        if is_here and self.thread is not threading.current_thread():
            done = threading.Event()
            self._tell(self._watcher.catch_up, done)
            done.wait()

    def terminate(self, number: int) -> None:
        """End all workers by the signal `number`; what is not done fails."""
        self._closed = True
        self._look_after_workers()
        self._tell(self._watcher.terminate, number)

    def wait(self) -> None:
        """Wait until it has ended; not from its own thread."""
        with self._starting:
            thread = self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self.thread is None:
            with put_off(), self._starting:
                if self.thread is None:
                    thread = threading.Thread(target=self._run, name=f"{self.name}-watcher")
                    thread.serves_everybody = True  # type: ignore[attr-defined]  # no user code runs on it
                    thread.start()
                    self.thread = thread

    def _look_after_workers(self) -> None:
        """Have the thread, if a Ctrl-C came when there were workers, and no thread yet: they are to end."""
        if self.thread is None and self.staff.processes and self._process == os.getpid():
            try:
                self._begin()
            except RuntimeError:  # there is none to be had
                self._refuse_rest()

    def _run(self) -> None:
        self._begun.append(threading.current_thread())
        self.thread = self._begun[0]  # decides: if a Ctrl-C came while one was started, there may be a second one
        if self.thread is not threading.current_thread():
            return
        try:
            self._watcher.run()
        except BaseException as error:  # a fault of ours must not leave anybody waiting
            logger.critical("the watching thread of %s has failed", self.name, exc_info=True)
            self._watcher.turnover.give_up(repr(error))
        finally:
            self._closed = self._ended = True
            self.staff.close()
            self._refuse_rest()
            self._watcher.let_go()

    def _tell(self, act: Callable[[Any], object], argument: Any) -> None:
        self._inbox.append((act, argument))
        if self._ended:
            self._refuse_rest()
        else:
            self._bell.ring()

    def _joined(self, worker: WorkerProcess) -> None:
        self._tell(self._watcher.join, worker)

    def _refuse_rest(self) -> None:
        """Answer what has come too late; one of those who do so gets each entry."""
        while True:
            try:
                _, argument = self._inbox.popleft()
            except IndexError:
                return
            if isinstance(argument, Trip):
                for item in argument.items:
                    item.job.fail(self._refusal(), None)
            elif isinstance(argument, WorkerProcess):
                self.staff.leaves(argument)
                argument.kill()
                argument.bury()
            elif isinstance(argument, Ahead):
                argument.item.following.left()
            elif isinstance(argument, threading.Event):
                argument.set()

    def _refusal(self) -> BaseException:
        if self.reason is not None:
            return BrokenProcessPool(self.reason)
        return RuntimeError(f"cannot schedule new futures after shutdown of {self.name}")
