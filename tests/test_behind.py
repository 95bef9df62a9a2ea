"""Short calls that are sent behind what a worker does: they save time, and change nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

import guard
import inside
import process_work as work
from futurechain import ProcessPoolExecutor, succeed
from futurechain.errors import WorkerDiedError
from futurechain.executors.processes.progress import Progress
from guard import until

QUICK = 60
"""So many short calls are enough for others to be sent behind them."""


@pytest.fixture
def gate(tmp_path):
    """A file whose coming lets a task go on."""
    return tmp_path / "gate"


@pytest.fixture
def mark(tmp_path):
    """A file to which each call of `leave_name` adds a line."""
    return tmp_path / "mark"


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def with_one_behind(pool, gate, act, *args):
    """A task that waits for `gate` in the only worker, and tasks after it, of which one lies behind it."""
    for _ in range(20):  # begun work, or a slow moment, may have come in between
        quick = [pool.submit(abs, -number) for number in range(QUICK)]
        held = pool.submit(work.give_after, str(gate), "held")
        after = [pool.submit(act, *args) for _ in range(10)]
        assert [future.result(30) for future in quick] == [*range(QUICK)]
        until(held.running)
        inside.catch_up(pool)
        if inside.lying_behind(pool):
            return held, after
        gate.touch()
        assert held.result(30) == "held"
        for future in after:
            future.cancel()
        gate.unlink()
    raise AssertionError("nothing was sent behind what the worker does")


@pytest.fixture
def pool():
    """A pool of one worker."""
    with ProcessPoolExecutor(1) as pool:
        yield pool


def test_all_come_in_order(pool):
    """What was sent behind something has its own result, and comes when it would have come."""
    futures = [pool.submit(divmod, number, 7) for number in range(3000)]
    ended = []
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: ended.append(number))
    assert [future.result(30) for future in futures] == [divmod(number, 7) for number in range(3000)]
    assert ended == sorted(ended)


def test_it_is_queued_for_all_that_anybody_sees(pool, gate, mark):
    """It does not run, and can be cancelled, like what is queued; then it is not called."""
    held, after = with_one_behind(pool, gate, work.leave_name, str(mark), "called")
    assert not any(future.running() or future.done() for future in after)
    assert all(future.cancel() for future in after)
    gate.touch()
    assert held.result(30) == "held"
    assert pool.submit(abs, -1).result(30) == 1
    assert lines(mark) == []


def test_the_one_behind_cancelled_alone(pool, gate, mark):
    """The others are called."""
    held, (behind, *others) = with_one_behind(pool, gate, work.leave_name, str(mark), "called")
    assert behind.cancel()
    assert behind.cancel()
    gate.touch()
    assert held.result(30) == "held"
    for future in others:
        future.result(30)
    assert len(lines(mark)) == len(others)


def test_settled_by_hand(pool, gate, mark):
    """What somebody has settled is not called."""
    held, (behind, *others) = with_one_behind(pool, gate, work.leave_name, str(mark), "called")
    behind.set_result("by hand")
    gate.touch()
    assert held.result(30) == "held"
    for future in others:
        future.result(30)
    assert behind.result(0) == "by hand"
    assert len(lines(mark)) == len(others)


def test_a_shutdown_that_cancels(gate, mark):
    """It cancels what lies behind, too."""
    pool = ProcessPoolExecutor(1)
    held, after = with_one_behind(pool, gate, work.leave_name, str(mark), "called")
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in after)
    gate.touch()
    pool.shutdown()
    assert held.result(0) == "held"
    assert lines(mark) == []


def test_nothing_waits_behind_a_long_call(gate):
    """Another worker that is idle, or that comes to what was queued later, gets it."""
    with ProcessPoolExecutor(2) as pool:
        for _ in range(5):
            quick = [pool.submit(abs, -number) for number in range(QUICK)]
            held = pool.submit(work.give_after, str(gate), "held")
            after = [pool.submit(abs, -number) for number in range(QUICK)]
            assert [future.result(30) for future in (*quick, *after)] == [*range(QUICK)] * 2
            assert not held.done()
            gate.touch()
            assert held.result(30) == "held"
            gate.unlink()


def test_a_long_call_that_waits_for_the_one_behind(gate):
    """There is no deadlock: it comes to the other worker."""
    with ProcessPoolExecutor(2) as pool:
        for number in range(20):
            path = gate.with_name(f"gate{number}")
            quick = [pool.submit(abs, -number) for number in range(QUICK)]
            held = pool.submit(work.give_after, str(path), "held")
            opener = pool.submit(path.touch)
            after = [pool.submit(abs, -number) for number in range(QUICK)]
            assert held.result(30) == "held"
            assert opener.result(30) is None
            assert [future.result(30) for future in (*quick, *after)] == [*range(QUICK)] * 2


def test_begun_work_goes_first(pool, gate, mark):
    """Also before what lies behind what the worker does already."""
    held, after = with_one_behind(pool, gate, work.leave_name, str(mark), "fresh")
    stage = succeed((str(mark), "begun")).then(work.leave_names, on=pool)
    inside.catch_up(pool)
    gate.touch()
    assert held.result(30) == "held"
    for future in (stage, *after):
        future.result(30)
    assert lines(mark) == ["begun"] + ["fresh"] * len(after)


@pytest.mark.parametrize("heal", [True, False])
def test_a_killed_worker(heal, gate, mark):
    """Only the call that it was making fails, in a pool that heals; the one behind is made by another worker."""
    with ProcessPoolExecutor(1, heal=heal) as pool:
        held, after = with_one_behind(pool, gate, work.leave_name, str(mark), "called")
        (worker,) = pool._processes
        os.kill(worker, signal.SIGKILL)
        assert isinstance(held.exception(30), WorkerDiedError if heal else BrokenProcessPool)
        errors = [future.exception(30) for future in after]
    if heal:
        assert errors == [None] * len(after)
        assert len(lines(mark)) == len(after)
    else:
        assert all(isinstance(error, BrokenProcessPool) for error in errors)
        assert lines(mark) == []


def test_a_pool_that_breaks_with_calls_behind_in_all_workers(tmp_path):
    """All of them fail, once, and the pool ends."""
    with ProcessPoolExecutor(3) as pool:
        quick = [pool.submit(abs, -number) for number in range(QUICK)]
        held = [pool.submit(work.give_after, str(tmp_path / f"gate{number}"), None) for number in range(3)]
        after = [pool.submit(abs, -number) for number in range(20 * QUICK)]
        assert [future.result(30) for future in quick] == [*range(QUICK)]
        until(lambda: all(future.running() for future in held))
        inside.catch_up(pool)
        processes = [*pool._processes.values()]
        processes[0].kill()
        assert all(isinstance(future.exception(30), BrokenProcessPool) for future in held)
        errors = [future.exception(30) for future in after]  # some may have ended before all workers were held
        assert all(isinstance(error, BrokenProcessPool) for error in errors if error is not None)
        assert isinstance(errors[-1], BrokenProcessPool)
    assert not any(process.is_alive() for process in processes)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_killed_at_any_moment(method):
    """Nothing is lost, and nothing comes twice or as another's."""
    generator = random.Random(3)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method), heal=True) as pool:
        for _ in range(12 if guard.IS_THOROUGH else 4):
            futures = [pool.submit(divmod, number, 7) for number in range(400)]
            for _ in range(3):
                time.sleep(generator.uniform(0, 0.01))
                for worker in [*pool._processes][:1]:
                    with contextlib.suppress(ProcessLookupError):  # it has just been killed
                        os.kill(worker, signal.SIGKILL)
            for number, future in enumerate(futures):
                error = future.exception(60)
                assert future.result() == divmod(number, 7) if error is None else isinstance(error, WorkerDiedError)


def test_cancelled_at_any_moment(mark):
    """What was cancelled is not called, and all else is called once: two threads cancel while two workers work."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ProcessPoolExecutor(2) as pool:
            for number in range(60 if guard.IS_THOROUGH else 15):
                path = mark.with_name(f"mark{number}")
                futures = [pool.submit(work.leave_name, str(path), str(index)) for index in range(150)]
                chosen = random.Random(number).sample(futures, 100)
                threads = [threading.Thread(target=_cancel_all, args=(chosen[first::2],)) for first in (0, 1)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                called = {str(index) for index, future in enumerate(futures) if not _is_cancelled(future)}
                assert sorted(lines(path)) == sorted(called)
    finally:
        sys.setswitchinterval(before)


def _cancel_all(futures):
    for future in futures:
        future.cancel()


def _is_cancelled(future):
    return future.cancelled() or future.exception(30) is not None


def test_recalled_too_late(pool, gate, mark):
    """Who recalls it when its turn has just come, and so cannot cancel it, loses nothing: the worker says so."""
    held, after = with_one_behind(pool, gate, work.leave_name, str(mark), "called")
    assert inside.recall_what_lies_behind(pool)  # and is not cancelled
    gate.touch()
    assert held.result(30) == "held"
    for future in after:
        future.result(30)
    assert len(lines(mark)) == len(after)


def test_no_lock_is_kept():
    """Who has a call is decided once: recalled or taken, whoever asks, and however often."""
    worker, address = Progress.make()
    parent = Progress.open(address)
    assert parent.has_gate()
    assert worker.take(1)
    assert not parent.recall(1)
    assert parent.recall(2)
    assert parent.recall(2)
    assert not worker.take(2)
    assert worker.take(3)
    assert not parent.recall(3)


def test_what_is_announced_late(pool):
    """A worker that has read what is not announced yet does not wait for more."""
    for _ in range(30):
        assert [future.result(30) for future in [pool.submit(abs, -1) for _ in range(200)]] == [1] * 200


def test_pools_that_stop_what_is_cancelled():
    """Nothing lies behind there: to stop it would end a worker that does something else."""
    with ProcessPoolExecutor(1, stop_cancelled=True) as pool:
        futures = [pool.submit(abs, -1) for _ in range(200)]
        assert not inside.lying_behind(pool)
        assert [future.result(30) for future in futures] == [1] * 200
        assert not inside.lying_behind(pool)


def test_a_program_that_ends_in_the_middle():
    """The interpreter ends when all is done."""
    program = """
    from futurechain import ProcessPoolExecutor
    if __name__ == "__main__":
        pool = ProcessPoolExecutor(2)
        futures = [pool.submit(abs, -number) for number in range(500)]
        futures[-1].then(print)
    """
    guard.check(program, prints="499")
