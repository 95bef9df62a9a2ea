"""The machine of the process pool, by itself: plain jobs, no futures."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

import process_work as work
from futurechain.core import callback_threads
from futurechain.errors import WorkerDiedError
from futurechain.executors.processes.machine import Machine
from futurechain.executors.processes.turnover import Options
from futurechain.executors.processes.wire import Reader, frame, short_frame
from futurechain.executors.processes.worker import Start


class Job:
    """A job that waits in a test."""

    def __init__(self, fn, *args, begun=False):
        self.name, self.begun = fn.__name__, begun
        self._call = fn, args, {}
        self.wanted = True
        self.claims = self.unclaims = self.ends = 0
        self.over = threading.Event()
        self.value = self.error = self.report = None

    def call(self):
        return self._call

    def claim(self):
        self.claims += 1
        return self.wanted

    def is_awaited(self):
        return False

    def unclaim(self):
        self.unclaims += 1

    def lies_behind(self, progress, number):
        return self.wanted

    def lies_nowhere(self):
        pass

    def succeed(self, value, report):
        self.value, self.report = value, report
        self._end()

    def fail(self, error, report):
        self.error, self.report = error, report
        self._end()

    def _end(self):
        self.ends += 1
        self.over.set()

    def result(self):
        assert self.over.wait(30)
        if self.error is not None:
            raise self.error
        return self.value


class Pool:
    """A machine in a with block."""

    def __init__(self, limit=1, method="fork", *, heal=True, max_tasks=None, share=1_000_000, elsewhere=None):
        options = Options("pool", max_tasks, heal, elsewhere or callback_threads.post)
        self.machine = Machine(options, multiprocessing.get_context(method), limit, Start(None, (), share))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.machine.close()
        self.machine.wait()

    def submit(self, *jobs, cut=None):
        return self.machine.submit(jobs, cut=cut)

    def run(self, fn, *args):
        self.submit(job := Job(fn, *args))
        return job.result()


# -- messages ---------------------------------------------------------------------------------------------------------

VALUES = [
    None, True, -1, 10**5000, 1.5, "", "\u00e9", "x" * 20_000, b"\x82\x83\x84\x93", bytes(20_000), bytes(200_000), (),
    (1, "a"), [1, [2]], {"a": 1}, {1}, len, int, range(3), partial(int, "7"), work.double,
    (work.double, (1,), {}), (int, ("7",), {}),
]  # fmt: skip


@pytest.mark.parametrize("share", [1_000_000, 1000, None])
def test_one_call_or_several(share):
    """A call alone, which travels in a short message, has the result that it has among others."""
    with Pool(share=share) as pool:
        for value in VALUES:
            alone, first, second = (Job(work.nap, 0, value) for _ in range(3))
            pool.submit(alone)
            pool.submit(first, second)
            results = [job.result() for job in (alone, first, second)]
            assert [type(one) for one in results] == 3 * [type(value)]
            assert isinstance(value, partial) or results == 3 * [value]
            times = alone.report.times
            assert alone.report.sent <= times.received <= times.began <= times.ended


def test_a_short_answer_lets_go_of_what_was_sent_before():
    """A worker keeps its last answer, which may have to be sent again, and no older one."""
    with Pool(1, "spawn", share=1000) as pool:
        assert len(pool.run(work.give_bytes, 200_000)) == 200_000
        assert pool.run(work.nap, 0, 1) == 1
        assert pool.run(work.parcels_with_blocks) == 0


def test_one_error_or_several():
    """So have its errors: the function's own, and those of what cannot be sent."""
    for fn in (work.boom, work.give_lock, work.raise_stubborn, work.raise_two_arguments, work.give_unreadable):
        with Pool() as pool:
            alone, other = Job(fn), Job(fn)
            pool.submit(alone)
            pool.submit(other, Job(int))
            errors = [job.over.wait(30) and job.error for job in (alone, other)]
        assert type(errors[0]) is type(errors[1])
        assert str(errors[0]) == str(errors[1])
        assert type(errors[0].__cause__) is type(errors[1].__cause__)


@given(st.lists(st.tuples(st.integers(1, 15), st.binary(max_size=300), st.booleans())), st.lists(st.integers(1, 400)))
def test_messages_arrive_however_they_are_cut(messages, cuts):
    """Whole and alone, several at once, or in pieces; short ones, and those with a header."""
    data = b"".join(
        b"".join(short_frame(kind, payload) if short else frame(kind, (kind, "header"), [payload]))
        for kind, payload, short in messages
    )
    ours, theirs = os.pipe()
    reader = Reader(ours)
    try:
        for size in [*cuts, len(data)]:
            if data[:size]:
                os.write(theirs, data[:size])
                reader.read()
            data = data[size:]
    finally:
        os.close(ours)
        os.close(theirs)
    assert [(one.kind, bytes(one.payload), one.header) for one in reader.frames] == [
        (kind, payload, () if short else (kind, "header")) for kind, payload, short in messages
    ]


# -- trips ------------------------------------------------------------------------------------------------------------


def test_a_trip_brings_results_and_times_for_each():
    """Several calls go at once; each has its own result, or error, and its own times."""
    jobs = [Job(work.double, i) if i != 3 else Job(work.boom) for i in range(6)]
    with Pool() as pool:
        pool.submit(*jobs)
        assert [job.result() for job in jobs if job.name == "double"] == [0, 2, 4, 8, 10]
        with pytest.raises(ValueError, match="boom"):
            jobs[3].result()
    times = [job.report.times for job in jobs]
    assert all(one.received <= one.began <= one.ended for one in times)
    assert [one.began for one in times] == sorted(one.began for one in times)
    assert len({one.received for one in times}) == 1


def test_the_worker_cuts_a_trip():
    """After the given time it sends back what it has not begun, which goes to the front of the queue."""
    jobs = [Job(work.nap, 0.03, i) for i in range(8)]
    later = Job(work.clock)
    with Pool() as pool:
        pool.submit(*jobs, cut=0.05)
        pool.submit(later)
        assert [job.result() for job in jobs] == list(range(8))
        assert later.result() > jobs[-1].report.times.ended
    trips = {job.report.times.received for job in jobs}
    assert len(trips) >= 4  # two in each
    assert jobs[0].claims == 1
    assert jobs[-1].unclaims >= 3


def test_the_one_that_kills_its_worker_fails_alone():
    """The others of its trip are done by another worker."""
    jobs = [Job(work.die) if i == 4 else Job(work.double, i) for i in range(9)]
    with Pool() as pool:
        pool.submit(*jobs)
        with pytest.raises(WorkerDiedError, match="while it ran die"):
            jobs[4].result()
        assert [job.result() for job in jobs if job is not jobs[4]] == [0, 2, 4, 6, 10, 12, 14, 16]
    assert all(job.ends == 1 for job in jobs)


def test_what_cannot_be_packed_fails_alone():
    """Also in a trip."""
    jobs = [Job(work.double, threading.Lock() if i == 1 else i) for i in range(3)]
    with Pool() as pool:
        pool.submit(*jobs)
        assert (jobs[0].result(), jobs[2].result()) == (0, 4)
        with pytest.raises(TypeError, match="cannot travel to pool"):
            jobs[1].result()


def test_unwanted_jobs_are_left_out():
    """Of a trip, and before it, at any time before it is sent."""
    with Pool() as pool:
        pool.submit(gate := Job(work.nap, 0.3))
        jobs = [Job(work.double, i) for i in range(4)]
        items = pool.submit(*jobs)
        jobs[0].wanted = False
        pool.machine.withdraw(items[2])
        assert (jobs[1].result(), jobs[3].result()) == (2, 6)
        gate.result()
    assert (jobs[0].ends, jobs[2].ends, jobs[2].claims) == (0, 0, 0)


def test_stopping_one_of_a_trip():
    """The others are done by another worker, the one before it perhaps again."""
    with Pool() as pool:
        pool.run(work.double, 1)
        jobs = [Job(work.double, 1), Job(work.nap, 60), Job(work.double, 3)]
        items = pool.submit(*jobs)
        while not jobs[0].claims:
            pass
        jobs[1].wanted = False
        pool.machine.stop(items[1])
        assert (jobs[0].result(), jobs[2].result()) == (2, 6)
    assert jobs[1].ends == 0


# -- order and packing ------------------------------------------------------------------------------------------------


def test_begun_work_goes_first_in_order():
    """Two lanes, each in order."""
    with Pool() as pool:
        pool.run(work.double, 1)
        pool.submit(gate := Job(work.nap, 0.3))
        fresh = [Job(work.clock) for _ in range(3)]
        begun = [Job(work.clock, begun=True) for _ in range(3)]
        for job in (*fresh, *begun):
            pool.submit(job)
        gate.result()
        times = [job.result() for job in (*begun, *fresh)]
    assert times == sorted(times)


class Held:
    """Something whose pickling waits."""

    def __init__(self, gate):
        self.gate = gate

    def __reduce__(self):
        assert self.gate.wait(30)
        return int, ()


def test_much_that_is_queued_is_packed_ahead_of_its_turn_only(tmp_path):
    """Not all at once: that would be everything a second time in memory."""
    path = tmp_path / "go"
    with Pool() as pool:
        pool.run(work.double, 1)
        pool.submit(Job(work.wait_for, str(path)))
        jobs = [Job(work.sum_of, bytearray(1_000_000)) for _ in range(50)]
        for job in jobs:
            pool.submit(job)
        packed = sum(item.parcel is not None for trip in pool.machine._watcher.backlog._queue for item in trip.items)
        assert packed < 20
        path.touch()
        assert [job.result() for job in jobs] == [0] * 50


def test_slow_pickling_holds_up_nobody_else(tmp_path):
    """What is packed goes on while another waits to be packed, and each is done once."""
    gate, path = threading.Event(), tmp_path / "go"
    with Pool() as pool:
        pool.run(work.double, 1)
        pool.submit(Job(work.wait_for, str(path)))
        for _ in range(12):
            pool.submit(Job(work.sum_of, bytearray(1_000_000)))
        held = Job(work.double, Held(gate))
        pool.submit(held)  # too much is queued: it is packed elsewhere
        after = [Job(work.double, i) for i in range(5)]
        for job in after:
            pool.submit(job)
        path.touch()
        assert [job.result() for job in after] == [0, 2, 4, 6, 8]
        assert not held.ends
        gate.set()
        assert held.result() == 0


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1_000_000, 1, None])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_data_of_any_size(method, share):
    """It arrives whole, is the receiver's own to write into, and the sender's is not touched."""
    with Pool(2, method, share=share) as pool:
        for size in (1, 10_000, 300_000, 3_000_000):
            data = bytearray(size)
            result = pool.run(work.touch, data)
            assert (len(result), result[0], result[-1]) == (size, 7, 7)
            assert data == bytearray(size)
            result[0] = 1


def test_a_worker_that_cannot_open_shared_memory(monkeypatch):
    """The pipe serves instead, both ways, without a word."""
    with Pool() as pool:
        worker_pid = pool.run(work.pid)
        watcher = pool.machine._watcher
        (worker,) = watcher.roster.workers
        real = type(worker.receiver).connect

        def refuse(receiver, address):
            raise_unopened()

        monkeypatch.setattr(type(worker.receiver), "connect", refuse)
        assert len(pool.run(work.give_bytes, 3_000_000)) == 3_000_000
        monkeypatch.setattr(type(worker.receiver), "connect", real)
        pool.machine._packer._made["sender"] = Misplaced()
        assert pool.run(work.sum_of, bytearray(b"\1" * 3_000_000)) == 10
        assert pool.run(work.sum_of, bytearray(b"\2" * 3_000_000)) == 20
        assert pool.run(work.pid) == worker_pid


def raise_unopened():
    from futurechain.executors.processes.shared_memory import Unopened

    raise Unopened


def Misplaced():
    """A sender whose blocks nobody finds."""
    from futurechain.executors.processes.shared_memory import Sender

    class Lost(Sender):
        address = (os.getpid(), 1_000_000)

    return Lost()


def test_a_result_for_which_there_is_no_memory(monkeypatch):
    """It fails as that task's MemoryError; the worker and the pool go on."""
    from futurechain.executors.processes import wire

    def limited(size):
        if size > 500_000:
            raise MemoryError
        return bytearray(size)

    with Pool(share=None) as pool:
        pid = pool.run(work.pid)
        monkeypatch.setattr(wire, "bytearray", limited, raising=False)
        with pytest.raises(MemoryError):
            pool.run(work.give_bytes, 3_000_000)
        assert pool.run(work.pid) == pid


# -- the end ----------------------------------------------------------------------------------------------------------


def test_nothing_is_taken_after_the_end():
    """A late submit is refused, whoever of the two was first; nothing waits for ever."""
    for _ in range(30):
        pool = Pool()
        pool.run(work.double, 1)
        jobs, refused = [Job(work.double, i) for i in range(20)], []

        def submit(pool=pool, jobs=jobs, refused=refused):
            for job in jobs:
                try:
                    pool.submit(job)
                except RuntimeError:
                    refused.append(job)

        thread = threading.Thread(target=submit)
        thread.start()
        pool.machine.close()
        pool.machine.wait()
        thread.join()
        assert all(job.over.wait(30) for job in jobs if job not in refused)


def test_a_broken_machine_says_why():
    """To those who wait, and to those who come."""
    with Pool(heal=False) as pool:
        jobs = [Job(work.die), *(Job(work.double, i) for i in range(5))]
        for job in jobs:
            pool.submit(job)
        for job in jobs:
            with pytest.raises(BrokenProcessPool, match="SIGKILL"):
                job.result()
        with pytest.raises(BrokenProcessPool, match="SIGKILL"):
            pool.submit(Job(work.double, 1))


def test_a_fault_in_the_watching_thread_leaves_nobody_waiting(caplog):
    """Should there be one, everything fails, and the workers go."""
    with Pool() as pool:
        pid = pool.run(work.pid)
        pool.submit(job := Job(work.nap, 60))
        pool.machine._tell(lambda _: 1 / 0, None)
        with pytest.raises(BrokenProcessPool, match="division by zero"):
            job.result()
        pool.machine.wait()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert "watching thread" in caplog.text


def kill(*pids):
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_kills_at_every_moment_of_submitting():
    """Many rounds of a kill beside the hand-over from the submitting thread: each job ends once."""
    with Pool(2) as pool:
        died = 0
        for _ in range(60):
            pids = list(pool.machine.staff.processes)
            jobs = [Job(work.double, i) for i in range(4)]
            killer = threading.Thread(target=kill, args=pids[:1])
            killer.start()
            for job in jobs:
                pool.submit(job)
            killer.join()
            for i, job in enumerate(jobs):
                try:
                    assert job.result() == 2 * i
                except WorkerDiedError:
                    died += 1
            assert [job.ends for job in jobs] == [1] * 4
        assert died <= 60


def test_threads_that_submit_side_by_side():
    """Each job is done once, though all take idle workers from one list."""
    with Pool(2) as pool:
        jobs = [[Job(work.double, i) for i in range(200)] for _ in range(4)]
        threads = [threading.Thread(target=lambda mine=mine: [pool.submit(job) for job in mine]) for mine in jobs]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        assert [[job.result() for job in mine] for mine in jobs] == [[2 * i for i in range(200)]] * 4
        assert time.monotonic() - began < 60
    assert all(job.ends == 1 for mine in jobs for job in mine)
