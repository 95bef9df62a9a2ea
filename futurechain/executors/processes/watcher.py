"""The watching thread: it alone has the queue and the workers in hand, so that nothing of this needs a lock.

It waits for news: a worker's pipe can be read or written, a worker has ended, the bell. It never waits for anything
else, and runs no code of users: what may run any (packing, unpacking a result that is no plain value, starting a
process) goes *elsewhere*.

An idle worker takes the first trip that is packed, and has nothing behind it: a second one would wait for the first
while others idle. A worker that ends is known by its own descriptor, and so is the trip that it had: then the pool
breaks, or, where it *heals*, that call fails alone and the rest of its trip is queued again.
"""

from __future__ import annotations

import select
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from itertools import islice
from math import ceil
from time import monotonic, perf_counter
from typing import Any, NamedTuple, TypeAlias

from futurechain.executors.processes.answers import Answer, deliver, deliver_light, open_answers
from futurechain.executors.processes.errors import WorkerDiedError
from futurechain.executors.processes.messages import Kind, Packer
from futurechain.executors.processes.packing import Packers, pack_items
from futurechain.executors.processes.process import Phase, WorkerProcess
from futurechain.executors.processes.shared_memory import IDLE_SECONDS, Progress, Unopened
from futurechain.executors.processes.staff import Staff
from futurechain.executors.processes.trips import Item, Queue, Report, Trip
from futurechain.executors.processes.wire import Bell, Frame

__all__ = ["Inbox", "Options", "Watcher"]

GRACE_SECONDS = 1.0
"""How long a worker may take to end after SIGTERM."""
MOST_FAILED_STARTS = 3
"""How many workers in a row may fail to start, in their own words or the system's."""
MOST_KILLED_STARTS = 20
"""How many in a row may be killed while they start: that may be chance, where workers are killed."""

Inbox: TypeAlias = "deque[tuple[Callable[[Any], object], Any]]"
"""What the watching thread is to do: functions, each with its argument."""


class Options(NamedTuple):
    """What a pool does when."""

    name: str
    max_tasks: int | None
    heal: bool
    elsewhere: Callable[[Callable[[], object]], object]


class Watcher:
    """What the watching thread knows and does; `run` is its body, and all else is called by that."""

    def __init__(self, options: Options, staff: Staff, packer: Packer, inbox: Inbox, bell: Bell) -> None:
        self._options = options
        self._staff = staff
        self._packer = packer
        self._inbox = inbox
        self._bell = bell
        self.queue = Queue()
        self.reason: str | None = None
        """Why the pool is broken, if it is."""
        self._closing = False
        self._workers: set[WorkerProcess] = set()
        self.idle: list[WorkerProcess] = []
        """Those that have nothing to do. Any thread may take one out, and give it a trip: `returned` says so."""
        self.returned: deque[tuple[WorkerProcess, bool | None]] = deque()
        """Idle workers that were taken, and whether all of their trip was sent; None: nothing was."""
        self._watched: dict[int, tuple[WorkerProcess, bool]] = {}
        """By descriptor: the worker, and whether it tells that worker's end."""
        self._deadlines: dict[WorkerProcess, float] = {}
        """When to kill those that should have ended by themselves."""
        self._packers = Packers(self._pack_elsewhere, options.elsewhere, 2)
        self._raw: set[Trip] = set()
        """Those in the queue that are not packed."""
        self._any_ready = False
        """Whether any worker was ever ready. Before, those that start get their first trip already."""
        self._hiring = 0
        self._failed_starts = 0
        self._sweep_at: float | None = None
        self._poll = select.poll()
        self._poll.register(bell.fd, select.POLLIN)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch until the pool was closed, everything is done and all workers have ended."""
        while not self._is_over():
            for fd, event in self._poll.poll(self._timeout()):
                if fd == self._bell.fd:
                    self._bell.silence()
                elif fd in self._watched:  # else it has gone with an event before this one
                    self._news(fd, event)
            self._read_inbox()
            self._take_back()
            self._feed()
            self._tend(monotonic())

    def tell(self, act: Callable[[Any], object], argument: Any) -> None:
        """Have ``act(argument)`` called in the watching thread; from any thread."""
        self._inbox.append((act, argument))
        self._bell.ring()

    def _read_inbox(self) -> None:
        inbox = self._inbox
        while inbox:
            act, argument = inbox.popleft()
            self._take_back()  # so that `act` finds what was done before it was asked for
            act(argument)

    def _is_over(self) -> bool:
        if self._workers or self._hiring or self._inbox:
            return False
        return self.reason is not None or (self._closing and not self.queue)

    def _timeout(self) -> int | None:
        due = [*self._deadlines.values()]
        if self._sweep_at is not None:
            due.append(self._sweep_at)
        return max(0, ceil((min(due) - monotonic()) * 1000)) if due else None

    def _tend(self, now: float) -> None:
        """Do what is due: kill, give memory back, let go."""
        if self._deadlines:
            for worker, due in tuple(self._deadlines.items()):
                if due <= now:
                    del self._deadlines[worker]
                    worker.signal(signal.SIGKILL)
        if self._sweep_at is not None and self._sweep_at <= now:
            self._sweep(now)
        if self._closing and not self.queue and self.reason is None:
            self._dismiss()

    def _sweep(self, now: float) -> None:
        left = [worker.receiver.give_back() for worker in self._workers]
        if self._packer.sender is not None:
            left.append(self._packer.sender.give_back())
        self._sweep_at = now + IDLE_SECONDS if any(left) else None

    def _uses_memory(self) -> None:
        if self._sweep_at is None:
            self._sweep_at = monotonic() + IDLE_SECONDS

    # -- what others ask for, by `tell` -------------------------------------------------------------------------------

    def take(self, trip: Trip) -> None:
        """Queue a trip."""
        if self.reason is not None:
            self._refuse(trip)
            return
        self.queue.push(trip)
        if not trip.is_packed():
            self._raw.add(trip)

    def withdraw(self, item: Item) -> None:
        """Take a job out that is not wanted any more, if it has not begun."""
        trip = item.trip
        if trip.worker is None and item in trip.items:
            trip.items.remove(item)
            if not trip.packing:
                item.unpack(self._packer)
            if not trip.items:
                self.queue.remove(trip)
                self._raw.discard(trip)

    def stop(self, item: Item) -> None:
        """Take a job out, and end the worker that runs it."""
        worker = item.trip.worker
        if worker is None:
            self.withdraw(item)
        elif worker.phase in (Phase.BUSY, Phase.STARTING):
            worker.phase = Phase.STOPPING
            self._end(worker, signal.SIGTERM)

    def close(self, _: None) -> None:
        """End when everything is done."""
        self._closing = True

    def catch_up(self, done: threading.Event) -> None:
        """Hand out what can be, and say so."""
        self._feed()
        done.set()

    def terminate(self, number: int) -> None:
        """End all workers by a signal; what they run is lost, and so is the pool."""
        if self.reason is None:
            self._break(f"the workers of {self._options.name} were ended by {signal.Signals(number).name}", number)

    def join(self, worker: WorkerProcess) -> None:
        """Take in a new worker."""
        self._workers.add(worker)
        for fd, tells_end in ((worker.fd, False), (worker.death, True)):
            self._watched[fd] = worker, tells_end
            self._poll.register(fd, select.POLLIN)
        if self.reason is not None:
            self._end(worker, signal.SIGTERM)
        elif not self._any_ready:
            self._lend(worker)

    # -- handing out ----------------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """Give back what the thread needs no more, when it has ended."""
        del self._packers  # which know this watcher, and are known by it
        self._packer.close()

    def _feed(self) -> None:
        """Give idle workers what is next; see to it that there are workers, and that the next trips are packed."""
        while self.queue and (worker := self._take_idle()) is not None:
            trip = self._next()
            if trip is None:
                self._lend(worker)
                break
            self._send(worker, trip)
        if self.queue:
            if self._raw:
                self._pack_ahead()
            if not self.idle and self._staff.has_room():
                self._hire()

    def _take_idle(self) -> WorkerProcess | None:
        try:
            return self.idle.pop()
        except IndexError:
            return None

    def _next(self) -> Trip | None:
        """Take out the first trip that is packed; have those before it packed."""
        for number, trip in enumerate(self.queue):
            if trip.is_packed() and not trip.packing:
                self.queue.remove(trip)
                return trip
            if not trip.packing:
                self._packers.ask(trip)
            if number > self._staff.limit:
                break
        return None

    def _pack_ahead(self) -> None:
        for trip in islice(self.queue, self._staff.limit + 1):
            if trip in self._raw and not trip.packing:
                self._packers.ask(trip)

    def _pack_elsewhere(self, trip: Trip) -> None:
        items = [*trip.items]
        failed = pack_items(items, self._packer, self._options.name)
        self.tell(self._packed, (trip, items, failed))

    def _packed(self, done: tuple[Trip, list[Item], list[Item]]) -> None:
        trip, items, failed = done
        trip.packing = False
        for item in items:
            if item not in trip.items:  # withdrawn meanwhile
                item.unpack(self._packer)
        self._raw.discard(trip)
        trip.items = [item for item in trip.items if item not in failed]
        if trip in self.queue:
            self.queue.resize(trip)
            if not trip.items:
                self.queue.remove(trip)

    def _send(self, worker: WorkerProcess, trip: Trip) -> None:
        """Give `trip` to `worker`, which is free: nobody else has it, and it is in no list."""
        worker.lent = False
        if not trip.claim(self._packer):
            self._lend(worker)
            return
        trip.worker, worker.trip, trip.sent = worker, trip, perf_counter()
        try:
            self._sent(worker, complete=worker.send_trip(trip, self._packer))
        except OSError:
            self._unsent(worker)

    def _sent(self, worker: WorkerProcess, *, complete: bool) -> None:
        if worker.phase is Phase.IDLE:
            worker.phase = Phase.BUSY
        if not complete:
            self._poll.modify(worker.fd, select.POLLIN | select.POLLOUT)
        if worker.trip is not None and worker.trip.has_blocks():
            self._uses_memory()

    def _unsent(self, worker: WorkerProcess) -> None:
        """It has ended before it had anything."""
        trip, worker.trip = worker.trip, None
        if trip is not None:
            trip.worker = None
            self.queue.push_front(trip.split_off(trip.items))

    def _lend(self, worker: WorkerProcess) -> None:
        """Let anybody have `worker`: it is idle."""
        worker.lent = True  # first: then somebody may take it, and give it back by `lent`
        self.idle.append(worker)

    def _is_ours(self, worker: WorkerProcess) -> bool:
        """Tell whether `worker` may be touched: it is not lent, or was taken out of the list just now.

        If it is with a thread that gives it a trip, it will be back in a moment.
        """
        if worker.lent:
            self._take_back()
            if worker.lent:
                try:
                    self.idle.remove(worker)  # decides, against whoever would take it
                except ValueError:
                    return False
                worker.lent = False
        return True

    def _take_back(self) -> None:
        """Hear from those who had taken idle workers what they have done with them."""
        while self.returned:
            worker, complete = self.returned.popleft()
            worker.lent = False
            if complete is not None:
                self._sent(worker, complete=complete)
                continue
            if worker.trip is not None:
                self._unsent(worker)
            if not (worker.gone or (self._any_ready and worker.phase is Phase.STARTING)):
                self._lend(worker)

    # -- news from workers ----------------------------------------------------------------------------------------------

    def _news(self, fd: int, event: int) -> None:
        worker, tells_end = self._watched[fd]
        if not self._is_ours(worker):
            return  # and will be told again
        if tells_end:
            self._ended(worker)
            return
        if event & select.POLLOUT:
            self._flush(worker)
        if event & ~select.POLLOUT:
            self._read(worker)
            if worker.phase is Phase.IDLE and not worker.lent and fd in self._watched:
                self._lend(worker)

    def _flush(self, worker: WorkerProcess) -> None:
        with suppress(OSError):  # it has ended, as will be seen
            if not worker.writer.flush():
                return
        self._poll.modify(worker.fd, select.POLLIN)

    def _read(self, worker: WorkerProcess) -> None:
        """Hear what it says."""
        try:
            while worker.reader.read():
                pass
        except BlockingIOError:
            pass
        except Exception:  # the end of the pipe; or no message: a task has written into it
            self._hung_up(worker)
        frames = worker.reader.frames
        while frames:
            self._hear(worker, frames.popleft())

    def _hung_up(self, worker: WorkerProcess) -> None:
        """It has closed its end: it is about to end, or has to."""
        if self._watched.pop(worker.fd, None) is not None:
            self._poll.unregister(worker.fd)
            if worker.phase is not Phase.LEAVING:
                self._deadlines.setdefault(worker, monotonic() + GRACE_SECONDS)

    def _hear(self, worker: WorkerProcess, frame: Frame) -> None:
        if frame.kind == Kind.ANSWER and worker.trip is not None:
            self._answered(worker, worker.trip, frame)
        elif frame.kind == Kind.INLINE and worker.trip is not None:
            worker.inline = True
            with suppress(OSError):
                self._sent(worker, complete=worker.send_trip(worker.trip, self._packer))
        elif frame.kind == Kind.READY:
            worker.progress = None if frame.header is None else Progress.open(frame.header)
            self._is_ready(worker)
        elif frame.kind == Kind.NOT_READY:
            worker.failure = frame.header

    def _is_ready(self, worker: WorkerProcess) -> None:
        self._failed_starts = 0
        if not self._any_ready:
            self._any_ready = True
            self._withdraw_starting()
        if worker.phase is Phase.STARTING:
            worker.phase = Phase.BUSY
            if worker.trip is None:
                self._is_free(worker)

    def _withdraw_starting(self) -> None:
        """From now on nothing is given to those that only start."""
        for one in tuple(self._workers):
            if one.phase is Phase.STARTING:
                self._is_ours(one)

    def _answered(self, worker: WorkerProcess, trip: Trip, frame: Frame) -> None:
        answers = self._open(worker, trip, frame)
        if answers is None:
            return
        worker.trip = trip.worker = None
        done, rest = trip.items[: len(answers)], trip.items[len(answers) :]
        worker.tasks += len(done)
        if rest:
            self.queue.push_front(trip.split_off(rest))
        if worker.phase is Phase.BUSY:
            self._is_free(worker)
        self._feed()  # before anything is told: a worker is idle before its task is known to be done
        heavy = []
        for item, answer in zip(done, answers, strict=True):
            report = Report(worker.pid, answer.times, item.packed, trip.sent)
            if not deliver_light(item.job, answer, report, self._options.name):
                heavy.append(partial(deliver, item.job, answer, report, self._options.name))
        if heavy:
            self._options.elsewhere(heavy[0] if len(heavy) == 1 else partial(_do_all, heavy))

    def _open(self, worker: WorkerProcess, trip: Trip, frame: Frame) -> list[Answer] | None:
        """Return what a worker has answered; None if that is still to come."""
        try:
            if frame.payload is None:
                raise MemoryError("no memory for the result of a worker")
            address, _ = frame.header
            if address is not None:
                self._uses_memory()
                if address != worker.address:
                    worker.receiver.connect(address)
                    worker.address = address
            return open_answers(frame, worker.receiver)
        except Unopened:
            with suppress(OSError):  # it has ended, and its result with it
                worker.send(Kind.INLINE)
            return None
        except MemoryError as error:
            for item in trip.items:
                item.job.fail(error, None)
            trip.items.clear()
            worker.tasks = worker.tasks if worker.progress is None else worker.progress.read()
            return []

    def _is_free(self, worker: WorkerProcess) -> None:
        """`worker` has nothing to do; it leaves, if it has made its number of calls."""
        if self._options.max_tasks is not None and worker.tasks >= self._options.max_tasks:
            self._staff.leaves(worker)
            self._dismiss_one(worker)
            return
        worker.phase = Phase.IDLE
        self._lend(worker)
        if not self.queue:
            self._staff.is_idle()

    # -- coming and going -----------------------------------------------------------------------------------------------

    def _hire(self) -> None:
        """Have workers started for what is queued, as far as none are about to come."""
        coming = self._hiring + sum(worker.phase is Phase.STARTING for worker in self._workers)
        for _ in range(min(len(self.queue), self._staff.limit) - coming):
            self._hiring += 1
            self._options.elsewhere(self._hire_elsewhere)

    def _hire_elsewhere(self) -> None:
        error = None
        try:
            self._staff.hire()
        except BaseException as reason:
            error = reason
        self.tell(self._hired, error)

    def _hired(self, error: BaseException | None) -> None:
        self._hiring -= 1
        if error is not None:
            self._could_not_start(repr(error), MOST_FAILED_STARTS)

    def _could_not_start(self, why: str, tries: int) -> None:
        """Break, or let it be tried again, a few times."""
        self._failed_starts += 1
        if self.reason is None and self._failed_starts >= tries:
            self._break(f"a worker of {self._options.name} could not be started: {why}")

    def _dismiss(self) -> None:
        """Let those go that have nothing to do: nothing will come."""
        for worker in tuple(self._workers):
            if worker.phase in (Phase.STARTING, Phase.IDLE) and self._is_ours(worker) and worker.trip is None:
                self._dismiss_one(worker)

    def _dismiss_one(self, worker: WorkerProcess) -> None:
        worker.phase = Phase.LEAVING
        with suppress(OSError):
            worker.send(Kind.GOODBYE)

    def _end(self, worker: WorkerProcess, number: int) -> None:
        worker.signal(number)
        self._deadlines.setdefault(worker, monotonic() + GRACE_SECONDS)

    def _ended(self, worker: WorkerProcess) -> None:
        """A worker has ended: hear its last words, let it go, see what is to become of its trip."""
        phase, worker.phase = worker.phase, Phase.LEAVING  # whatever it says now, it gets nothing more
        if worker.fd in self._watched:
            self._read(worker)
        trip = worker.trip
        self._forget(worker)
        how = worker.bury()
        if self._packer.sender is not None:
            self._packer.sender.drop_all_of(worker)
        if trip is not None:
            worker.trip = trip.worker = None
            trip.forget_blocks(self._packer)
        if self.reason is not None or phase is Phase.LEAVING:
            if trip is not None:
                self._refuse(trip)
            return
        if phase is Phase.STARTING:
            self._try_again([trip.split_off(trip.items)] if trip is not None else [])
            tries = MOST_KILLED_STARTS if how in {"SIGKILL", "SIGTERM"} else MOST_FAILED_STARTS
            tries = tries if self._options.heal else 1
            self._could_not_start(worker.failure or f"it ended abruptly ({how})", tries)
        elif phase is Phase.STOPPING:
            self._try_again([trip.split_off(trip.items)] if trip is not None else [])
        else:
            self._lost(worker, trip, how)

    def _forget(self, worker: WorkerProcess) -> None:
        for fd in (worker.fd, worker.death):
            if self._watched.pop(fd, None) is not None:
                self._poll.unregister(fd)
        self._workers.discard(worker)
        self._deadlines.pop(worker, None)
        self._staff.leaves(worker)

    def _lost(self, worker: WorkerProcess, trip: Trip | None, how: str) -> None:
        """A worker has ended that nobody has ended here: the call that it was making fails, the others go on."""
        guilty, others = _divided(worker, trip)
        what = f" while it ran {', '.join(item.job.name for item in guilty)}" if guilty else ""
        text = f"worker process {worker.pid} of {self._options.name} ended abruptly ({how}){what}"
        if self._options.heal:
            for item in guilty:
                item.job.fail(WorkerDiedError(text), None)
            self._try_again(others)
        else:
            text = f"{text}; the process pool is not usable any more"
            self._break(text)
            if trip is not None:
                self._refuse(trip)

    def _try_again(self, trips: list[Trip]) -> None:
        for trip in reversed(trips):
            self.queue.push_front(trip)
            if not trip.is_packed():
                self._raw.add(trip)

    def _break(self, reason: str, number: int = signal.SIGTERM) -> None:
        """Fail everything, and end all workers."""
        self.reason = reason
        trips = [worker.trip for worker in self._workers if worker.trip is not None]
        for worker in self._workers:
            self._end(worker, number)
        for trip in (*trips, *self.queue.clear()):
            self._refuse(trip)
        self._raw.clear()

    def give_up(self, reason: str) -> None:
        """Fail everything, and kill: this thread goes."""
        self._break(f"the watching thread of {self._options.name} has failed: {reason}", signal.SIGKILL)
        for worker in tuple(self._workers):
            self._forget(worker)
            worker.kill()

    def _refuse(self, trip: Trip) -> None:
        for item in trip.items:
            item.job.fail(BrokenProcessPool(self.reason), None)


def _do_all(acts: list[Callable[[], object]]) -> None:
    for act in acts:
        act()


def _divided(worker: WorkerProcess, trip: Trip | None) -> tuple[list[Item], list[Trip]]:
    """Return what a worker that has ended was running, and what else it had, to be tried again."""
    if trip is None:
        return [], []
    begun = worker.begun(trip)
    items = trip.items
    if begun is None and len(items) > 1:  # it is not known which one it was: each goes alone
        return [], [trip.split_off([item]) for item in items]
    number = 1 if begun is None else begun
    guilty = items[number - 1 : number] if number > 0 else []
    rest = [item for item in items if item not in guilty]
    return guilty, [trip.split_off(rest)] if rest else []
