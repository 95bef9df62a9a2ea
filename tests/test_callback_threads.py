"""The callback threads: where user code runs when the thread that settles a future must not run it."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import warnings

import pytest

import work
from futurechain import Future, delay, gather
from futurechain.core import callback_threads


@pytest.fixture
def no_threads(monkeypatch):
    """There are none but those that the test brings about, and these go at once when they have nothing to do."""
    monkeypatch.setattr(callback_threads, "IDLE_SECONDS", 0.01)
    callback_threads.begin_anew()
    yield
    callback_threads.begin_anew()


def test_what_a_job_raises_is_logged(caplog):
    """And harms nobody, whatever its class."""
    done = threading.Event()
    callback_threads.post(work.leave)
    callback_threads.post(done.set)
    assert done.wait(10)
    while callback_threads.busy():
        pass

    assert "on a callback thread" in caplog.text


def test_a_slow_job_delays_no_other():
    """A thread is started when all others are busy."""
    barrier = threading.Barrier(4)
    for _ in range(3):
        callback_threads.post(lambda: barrier.wait(10))
    barrier.wait(10)


def test_there_are_few_threads_however_many_jobs(no_threads, monkeypatch):
    """As many as fit the machine; the others wait for their turn, and all of them come."""
    monkeypatch.setattr(callback_threads, "MOST", 3)
    monkeypatch.setattr(callback_threads, "MOST_BLOCKED", 3)
    gate, seen, most = threading.Event(), [], []

    def job():
        gate.wait(10)
        most.append(callback_threads.thread_count())
        seen.append(None)

    for _ in range(200):
        callback_threads.post(job)
    assert callback_threads.thread_count() == 3
    gate.set()
    while len(seen) < 200:
        assert max(most, default=0) <= 3


def test_while_all_are_blocked_more_are_started(no_threads, monkeypatch):
    """One after the other, so that jobs that wait for each other come to their end; up to a limit."""
    monkeypatch.setattr(callback_threads, "MOST", 2)
    monkeypatch.setattr(callback_threads, "MOST_BLOCKED", 6)
    monkeypatch.setattr(callback_threads, "BLOCKED_SECONDS", 0.01)
    barrier, released = threading.Barrier(6), []
    for _ in range(6):
        callback_threads.post(lambda: released.append(barrier.wait(20)))
    deadline = time.monotonic() + 20
    while len(released) < 6:
        assert callback_threads.thread_count() <= 6
        assert time.monotonic() < deadline


def test_thousands_of_timers_with_slow_handlers_make_few_threads():
    """A handler that blocks behind a delay keeps a callback thread, but not one for each."""
    gate = threading.Event()
    stages = [delay(0.2).then(lambda _: gate.wait(20)) for _ in range(2000)]
    while not any(stage.running() for stage in stages):
        pass
    assert callback_threads.thread_count() <= callback_threads.MOST + 20
    gate.set()
    assert all(gather(*stages).result(30))


def test_threads_go_after_a_while_without_work(no_threads):
    """None is kept for ever."""
    for _ in range(10):
        done = threading.Event()
        callback_threads.post(done.set)
        assert done.wait(10)
    deadline = time.monotonic() + 20
    while callback_threads.thread_count():
        assert time.monotonic() < deadline


def test_no_job_is_lost_to_a_thread_that_goes(no_threads, monkeypatch):
    """Posted in the very moment in which the idle thread gives up."""
    monkeypatch.setattr(callback_threads, "IDLE_SECONDS", 1e-6)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(3000):
            done = threading.Lock()
            done.acquire()
            callback_threads.post(done.release)
            assert done.acquire(timeout=10)
    finally:
        sys.setswitchinterval(interval)


def test_without_any_more_threads_the_job_runs_here(no_threads, monkeypatch):
    """Where no thread can be started, the caller does it."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    names = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    callback_threads.post(lambda: names.append(threading.current_thread().name))

    assert names == ["MainThread"]


def test_a_forked_child_has_threads_of_its_own():
    """Whatever those of the parent were doing."""
    gate = threading.Event()
    for _ in range(3):
        callback_threads.post(lambda: gate.wait(10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that threads are running is the point
        child = os.fork()
    if not child:
        done = threading.Event()
        callback_threads.post(done.set)
        os._exit(0 if done.wait(10) else 1)
    gate.set()
    assert os.waitpid(child, 0)[1] == 0


def test_only_some_threads_are_reserved():
    """This one is not; one that says so is, and one that is called like a manager."""
    seen = {}

    class Manager(threading.Thread):
        serves_everybody = True

    def look():
        seen[threading.current_thread()] = callback_threads.is_reserved()

    threads = [Manager(target=look), threading.Thread(target=look), threading.Thread(target=look)]
    threads[1].name = "Thread-7 (message_manager_loop)"
    for thread in threads:
        thread.start()
        thread.join()

    assert not callback_threads.is_reserved()
    assert [seen[thread] for thread in threads] == [True, True, False]


def test_timers_fire_on_callback_threads():
    """Never on the thread that serves all timers."""
    names = [delay(0.1).then(lambda _: threading.current_thread().name) for _ in range(3)]
    assert all(name.result(10).startswith("futurechain-callback") for name in names)
    numbers = itertools.count()
    assert Future.succeed(next(numbers)).result() == 0
