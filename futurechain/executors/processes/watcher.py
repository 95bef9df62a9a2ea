"""The watching thread: it alone has the queue and the workers in hand, so that nothing of this needs a lock.

It waits for news (a worker's pipe can be read or written, a worker has ended, the bell) and for nothing else, and runs
no code of users: what may run any (packing, unpacking a result that is no plain value, starting a process) goes
*elsewhere*.

An idle worker takes the first trip that is packed. What lies behind that, where calls are short, is said in `behind`;
what becomes of workers that end, in `turnover`.
"""

from __future__ import annotations

import select
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic, perf_counter
from typing import Any, TypeAlias

from futurechain.executors.processes.answers import Answer, Arrival, deliver_all, open_answers, short_answer
from futurechain.executors.processes.backlog import Backlog
from futurechain.executors.processes.behind import Behind
from futurechain.executors.processes.messages import Kind, Packer
from futurechain.executors.processes.process import Phase, WorkerProcess
from futurechain.executors.processes.progress import Progress
from futurechain.executors.processes.roster import Roster
from futurechain.executors.processes.shared_memory import Unopened
from futurechain.executors.processes.staff import Staff
from futurechain.executors.processes.sweeping import Sweeper
from futurechain.executors.processes.trips import Ahead, Item, Report, Trip
from futurechain.executors.processes.turnover import Options, Turnover
from futurechain.executors.processes.wire import Bell, Frame, Piece

__all__ = ["Inbox", "Watcher"]

MOST_UNTOLD = 32
"""So many results of short calls may be told at once, if more are to be expected."""
MOST_AHEAD = 16
"""So many calls are sent ahead to a worker at most."""
MOMENT = 0.0005
"""For how long they may be held back for that, in seconds (`poll` makes a millisecond of it); and what is short."""

Inbox: TypeAlias = "deque[tuple[Callable[[Any], object], Any]]"
"""What the watching thread is to do: functions, each with its argument."""


class Watcher:
    """What the watching thread knows and does; `run` is its body, and all else is called by that."""

    def __init__(self, options: Options, staff: Staff, packer: Packer, inbox: Inbox, bell: Bell) -> None:
        self._options = options
        self._staff = staff
        self._packer = packer
        self._inbox = inbox
        self._bell = bell
        self.roster: Roster = Roster(bell, self._take_back)
        self.backlog: Backlog = Backlog(packer, options.name, options.elsewhere, self.tell, staff.limit)
        self.behind: Behind = Behind(self.backlog, packer)
        self.turnover: Turnover = Turnover(options, staff, packer, self.roster, self.backlog, self.tell)
        self._closing = False
        self._any_ready = False
        """Whether any worker was ever ready. Before, those that start get their first trip already."""
        self._sweeper = Sweeper()
        self._arrived: list[Arrival] = []
        """Results that nobody was told of yet."""
        self._tell_by = 0.0
        """When to do so at the latest, by ``time.monotonic``."""

    @property
    def reason(self) -> str | None:
        """Why the pool is broken, if it is."""
        return self.turnover.reason

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch until the pool was closed, everything is done and all workers have ended."""
        try:
            while not self._is_over():
                self._look_around()
        finally:
            self._tell_arrived()

    def _look_around(self) -> None:
        for worker, has_ended, event in self.roster.wait(self._due(), self._read_inbox):
            if has_ended:
                self._ended(worker)
            else:
                self._news(worker, event)
        if self._arrived and not self._may_hold_back():
            self._tell_arrived()
        self._read_inbox()
        self._take_back()
        self._feed()
        self.roster.kill_overdue()
        self._sweeper.sweep(self._memory)
        if self._closing and not self.backlog and self.reason is None:
            self.turnover.dismiss()

    def _due(self) -> float | None:
        """Until when to wait for news; 0 if there is something to do."""
        if self._inbox:
            return 0
        return self._tell_by if self._arrived else self._sweeper.due

    def _may_hold_back(self) -> bool:
        """Tell whether nobody misses what has arrived for a moment: there is enough for all workers to go on with.

        To wake the thread that waits for a result costs more than all else that a short task needs here. It is so for
        short calls that nothing but threads waits for: no stage is to be overtaken by fresh tasks.
        """
        return (
            len(self._arrived) < MOST_UNTOLD
            and len(self.backlog) >= len(self.roster.workers)
            and monotonic() < self._tell_by
        )

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
        if self.roster.workers or self.turnover.hiring or self._inbox:
            return False
        return self.reason is not None or (self._closing and not self.backlog)

    def _memory(self) -> Iterator[Callable[[], bool]]:
        """What gives back shared memory, of this process."""
        for worker in self.roster.workers:
            yield worker.receiver.give_back
        if self._packer.sender is not None:
            yield self._packer.sender.give_back

    def let_go(self) -> None:
        """Give back what is needed no more: the thread has ended."""
        self.backlog.let_go()
        del self.roster  # which knows this watcher, and is known by it
        self.turnover.let_go()

    # -- what others ask for, by `tell` -------------------------------------------------------------------------------

    def take(self, trip: Trip) -> None:
        """Queue a trip."""
        if self.reason is not None:
            self.turnover.refuse(trip)
        else:
            self.backlog.push(trip)
            if trip.begun:
                self.behind.begun_work_comes()

    def send_ahead(self, ahead: Ahead) -> None:
        """Send a function to the worker that makes a call, to be called with the value of that.

        The worker takes nothing behind what it does that could be done elsewhere meanwhile; this cannot.
        """
        item, before, stream = ahead
        trip, worker = before.trip, before.trip.worker
        if worker is None or not self._may_follow(before, worker):
            item.following.left()
            return
        number, sent = worker.announced + 1, perf_counter()
        if not item.following.arm(worker.progress, number):
            item.following.left()
            return
        try:
            complete = worker.send(Kind.AHEAD, number, [stream])
        except OSError:  # it has ended, as will be seen
            item.following.left()
            return
        item.trip, worker.announced = trip, number
        trip.ahead.append(item)
        item.sent = sent
        worker.progress.announce(number)  # after it was sent: the worker waits for what is announced
        if not complete:
            self.roster.wants_to_write(worker, wants=True)

    def _may_follow(self, before: Item, worker: WorkerProcess) -> bool:
        trip = before.trip
        last = (trip.ahead or trip.items)[-1:]
        return (
            last == [before]
            and len(trip.items) == 1
            and trip.cut is None
            and worker.trip is trip
            and worker.phase is Phase.BUSY
            and worker.next is None
            and len(trip.ahead) < MOST_AHEAD
            and worker.progress is not None
            and worker.progress.has_gate()
        )

    def withdraw(self, item: Item) -> None:
        """Take a job out that is not wanted any more, if it has not begun."""
        if item.trip.worker is None:
            self.backlog.withdraw(item)

    def stop(self, item: Item) -> None:
        """Take a job out, and end the worker that runs it."""
        worker = item.trip.worker
        if worker is None:
            self.backlog.withdraw(item)
        elif worker.phase in (Phase.BUSY, Phase.STARTING):
            worker.phase = Phase.STOPPING
            self.roster.end(worker, signal.SIGTERM)

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
            ended = f"the workers of {self._options.name} were ended by {signal.Signals(number).name}"
            self.turnover.end_all(ended, number)

    def join(self, worker: WorkerProcess) -> None:
        """Take in a new worker; that may be asked for twice, if the first time was interrupted."""
        if worker.joined:
            return
        worker.joined = True
        self.turnover.join(worker)
        if self.reason is None and not self._any_ready:
            self.roster.lend(worker)

    # -- handing out --------------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Give idle workers what is next; see to it that there are workers, and that the next trips are packed."""
        backlog, roster = self.backlog, self.roster
        begun, fresh = backlog.lanes
        if self.reason is not None:
            for late in backlog.clear():  # it has come back from a worker that is about to end, like all
                self.turnover.refuse(late)
            return
        if self.behind and roster.idle:
            self.behind.recall_all()
        while (begun or fresh) and (worker := roster.take()) is not None:
            trip = backlog.next()
            if trip is None:
                roster.lend(worker)
                break
            self._send(worker, trip)
        if begun or fresh:
            backlog.pack_ahead()
            if not roster.idle and self._staff.has_room():
                self.turnover.hire()

    def _send(self, worker: WorkerProcess, trip: Trip) -> None:
        """Give `trip` to `worker`, which is free: nobody else has it, and it is in no list."""
        if not trip.claim(self._packer):
            self.roster.lend(worker)
            return
        trip.worker, worker.trip, trip.sent = worker, trip, perf_counter()
        try:
            self._sent(worker, complete=worker.send_trip(trip, self._packer))
        except OSError:
            self._unsent(worker)
        except MemoryError as error:
            worker.trip = trip.worker = None
            self.roster.lend(worker)
            trip.fail(error)

    def _sent(self, worker: WorkerProcess, *, complete: bool) -> None:
        if worker.phase is Phase.IDLE:
            worker.phase = Phase.BUSY
        if not complete:
            self.roster.wants_to_write(worker, wants=True)
        if worker.trip is not None and worker.trip.has_blocks():
            self._sweeper.is_used()

    def _unsent(self, worker: WorkerProcess) -> None:
        """It has ended before it had anything."""
        trip, worker.trip = worker.trip, None
        if trip is None:
            return
        trip.worker = None
        trip.disown()
        if trip.items:
            self.backlog.push_front([trip.split_off(trip.items)])

    def _take_back(self) -> None:
        """Hear from those who had taken idle workers what they have done with them."""
        returned = self.roster.returned
        while returned:
            worker, complete = returned.popleft()
            worker.lent = False
            if complete is not None:
                self._sent(worker, complete=complete)
                continue
            self._lend_again(worker)

    def take_back_from(self, sent: tuple[WorkerProcess, Trip, Piece | None]) -> None:
        """Hear what is left of a message, or that nothing was sent, to a worker that was given back before."""
        worker, trip, left = sent
        if worker.trip is not trip:  # it has ended meanwhile
            return
        if left is None:
            self._lend_again(worker)
        else:
            worker.writer.go_on_with(left)
            self.roster.wants_to_write(worker, wants=True)

    def _lend_again(self, worker: WorkerProcess) -> None:
        """Let anybody have a worker that was sent nothing, if it lives."""
        if worker.trip is not None:
            self._unsent(worker)
        if worker.phase is Phase.BUSY:
            worker.phase = Phase.IDLE
        if not (worker.gone or (self._any_ready and worker.phase is Phase.STARTING)):
            self.roster.lend(worker)

    # -- news from workers --------------------------------------------------------------------------------------------

    def _news(self, worker: WorkerProcess, event: int) -> None:
        if event & select.POLLOUT:
            with suppress(OSError):  # it has ended, as will be seen
                self.roster.wants_to_write(worker, wants=not worker.writer.flush())
        if event & ~select.POLLOUT:
            self._read(worker)
        if worker.phase is Phase.IDLE and not worker.lent and self.roster.is_heard(worker):
            self.roster.lend(worker)

    def _read(self, worker: WorkerProcess) -> None:
        """Hear what it says."""
        try:
            while worker.reader.read():
                pass
        except BlockingIOError:
            pass
        except Exception:  # the end of the pipe; or no message: a task has written into it
            self.roster.hung_up(worker)
        frames = worker.reader.frames
        while frames:
            self._hear(worker, frames.popleft())

    def _hear(self, worker: WorkerProcess, frame: Frame) -> None:
        if frame.kind == Kind.VALUE and worker.trip is not None:
            self._returned(worker, worker.trip, frame.payload)
        elif frame.kind == Kind.ANSWER and worker.trip is not None:
            self._answered(worker, worker.trip, frame)
        elif frame.kind == Kind.GOES_ON and worker.trip is not None:
            self._goes_on(worker, worker.trip, frame.payload)
        elif frame.kind == Kind.INLINE and worker.trip is not None:
            self._inline(worker, worker.trip)
        elif frame.kind == Kind.READY:
            worker.progress = None if frame.header is None else Progress.open(frame.header)
            self._is_ready(worker)
        elif frame.kind == Kind.NOT_READY:
            worker.failure = frame.header
        elif frame.kind == Kind.SKIPPED:
            self._skipped(worker, frame.header)

    def _inline(self, worker: WorkerProcess, trip: Trip) -> None:
        """It cannot open our blocks: it gets everything through the pipe from now on, and this trip once more."""
        worker.inline = True
        trip.forget_blocks(self._packer)
        self._comes_back(worker, trip)

    def _skipped(self, worker: WorkerProcess, number: int) -> None:
        """What was sent behind was not made: it was recalled, perhaps too late to say so; or it had to make way."""
        trip = worker.trip
        if worker.next is not None and worker.next.number == number:
            self.behind.give_back(worker)
        elif trip is not None and trip.number == number:
            self._comes_back(worker, trip)

    def _comes_back(self, worker: WorkerProcess, trip: Trip) -> None:
        """It does not make the calls of its trip: they are queued again, before all others."""
        worker.trip = trip.worker = None
        self._leave_rest(worker, trip)
        self.backlog.push_front([trip.split_off(trip.items)])
        self._go_on(worker)

    def _is_ready(self, worker: WorkerProcess) -> None:
        self.turnover.is_ready()
        if not self._any_ready:
            self._any_ready = True
            for one in self.roster.workers:  # from now on nothing is given to those that only start
                if one.phase is Phase.STARTING:
                    self.roster.is_ours(one)
        if worker.phase is Phase.STARTING:
            worker.phase = Phase.BUSY
            if worker.trip is None:
                self._is_free(worker)

    def _answered(self, worker: WorkerProcess, trip: Trip, frame: Frame) -> None:
        answers = self._open(worker, trip, frame)
        if answers is None:
            return
        worker.trip = trip.worker = None
        self._leave_rest(worker, trip)
        done, rest = trip.items[: len(answers)], trip.items[len(answers) :]
        worker.tasks += len(done)
        if rest:
            self.backlog.push_front([trip.split_off(rest)])
        self._tell_by = 0.0  # they may be large
        self._arrived += [
            (item, answer, Report(worker.pid, answer.times, item.packing, trip.sent))
            for item, answer in zip(done, answers, strict=True)
        ]
        self._go_on(worker)

    def _returned(self, worker: WorkerProcess, trip: Trip, payload: memoryview | None) -> None:
        """A value has come in a short message, for the only call of a trip: what `_answered` does, in place."""
        (item,) = trip.items
        worker.trip = trip.worker = None
        worker.tasks += 1
        self._leave_rest(worker, trip)
        self._go_on(worker)  # first: it is idle until then
        if payload is None:
            item.job.fail(MemoryError("no memory for the result of a worker"), None)
            return
        answer = short_answer(payload)
        worker.is_quick = answer.times.ended - answer.times.received <= MOMENT
        if not worker.is_quick or item.job.is_awaited():
            self._tell_by = 0.0
        elif not self._arrived:
            self._tell_by = monotonic() + MOMENT
        self._arrived.append((item, answer, Report(worker.pid, answer.times, item.packing, trip.sent)))

    def _goes_on(self, worker: WorkerProcess, trip: Trip, payload: memoryview | None) -> None:
        """A value has come, and the worker has begun what was sent ahead to follow."""
        if not trip.ahead:  # the pool is broken, and all of it was told so
            return
        sent, item = trip.sent, trip.go_on()
        following = trip.items[0].following
        worker.tasks += 1
        if payload is None:
            item.job.fail(MemoryError("no memory for the result of a worker"), None)
            following.left()  # what comes of it is of no interest any more
            return
        answer = short_answer(payload)
        following.follows(item.job)
        self._tell_by = 0.0
        self._arrived.append((item, answer, Report(worker.pid, answer.times, item.packing, sent)))

    def _leave_rest(self, worker: WorkerProcess, trip: Trip) -> None:
        """`worker` has told how its last call has ended: it begins nothing more of what was sent ahead."""
        if trip.ahead:
            trip.leave_rest()
            if worker.progress is not None:
                worker.progress.forget(worker.announced)

    def _tell_arrived(self) -> None:
        """Tell the results that have come: when all that is there was read, so that who waits is woken once."""
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            deliver_all(arrived, self._options.name, self._options.elsewhere)

    def _open(self, worker: WorkerProcess, trip: Trip, frame: Frame) -> list[Answer] | None:
        """Return what a worker has answered; None if that is still to come."""
        try:
            if frame.payload is None:
                raise MemoryError("no memory for the result of a worker")
            address, _ = frame.header
            if address is not None:
                self._sweeper.is_used()
                if address != worker.address:
                    worker.receiver.connect(address)
                    worker.address = address
            return open_answers(frame, worker.receiver)
        except Unopened:
            with suppress(OSError):  # it has ended, and its result with it
                worker.send(Kind.INLINE)
            return None
        except MemoryError as error:
            trip.fail(error)
            trip.items.clear()
            worker.tasks = worker.tasks if worker.progress is None else worker.progress.read()
            return []

    def _go_on(self, worker: WorkerProcess) -> None:
        """Give `worker`, whose trip is done, the next one.

        That comes before anything is told: a worker is idle before its task is known to be done.
        """
        begun, fresh = self.backlog.lanes
        if worker.phase is Phase.BUSY:
            if worker.next is not None and self.behind.begin(worker):
                self._send_behind(worker)
                return
            if self.behind:
                self.behind.recall_late()
            if (begun or fresh) and self._options.max_tasks is None and (trip := self.backlog.next()) is not None:
                worker.phase = Phase.IDLE
                self._send(worker, trip)
                self._send_behind(worker)
                self.backlog.pack_ahead()
                return
            self._is_free(worker)
        self._feed()

    def _send_behind(self, worker: WorkerProcess) -> None:
        """Let `worker`, which has something to do, have something behind it, if there is enough for all."""
        trip = worker.trip
        is_enough = len(self.backlog) > len(self.roster.workers) and self._options.max_tasks is None
        fits = worker.phase is Phase.BUSY and trip is not None and not trip.ahead
        if is_enough and fits and not self.behind.send(worker):
            self.roster.wants_to_write(worker, wants=True)

    def _is_free(self, worker: WorkerProcess) -> None:
        """`worker` has nothing to do; it leaves, if it has made its number of calls."""
        if self._options.max_tasks is not None and worker.tasks >= self._options.max_tasks:
            self._staff.leaves(worker)
            worker.dismiss()
            return
        worker.phase = Phase.IDLE
        self.roster.lend(worker)
        begun, fresh = self.backlog.lanes
        if not (begun or fresh):
            self._staff.is_idle()

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _ended(self, worker: WorkerProcess) -> None:
        """A worker has ended: hear its last words, and let it go."""
        phase, worker.phase = worker.phase, Phase.LEAVING  # whatever it says now, it gets nothing more
        if self.roster.is_heard(worker):
            self._read(worker)
        self._tell_arrived()  # who hears of a broken pool finds those done that had ended before
        self.behind.give_back(worker)
        self.turnover.ended(worker, phase)
