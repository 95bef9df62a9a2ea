"""The callback threads."""

from __future__ import annotations

import threading
import time

import work
from futurechain.core import callback_threads


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
        callback_threads.post(barrier.wait)
    barrier.wait(10)


def test_threads_go_after_a_while_without_work(monkeypatch):
    """None is kept for ever."""
    monkeypatch.setattr(callback_threads, "IDLE_SECONDS", 0.01)
    for _ in range(10):
        done = threading.Event()
        callback_threads.post(done.set)
        assert done.wait(10)
    deadline = time.monotonic() + 20
    while any(thread.name.startswith("futurechain-callback") for thread in threading.enumerate()):
        assert time.monotonic() < deadline


def test_without_any_more_threads_the_job_runs_here(monkeypatch):
    """Where no thread can be started, the caller does it."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    names = []
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(callback_threads, "_idle", [])
    callback_threads.post(lambda: names.append(threading.current_thread().name))

    assert names == ["MainThread"]


def test_only_some_threads_are_reserved():
    """This one is not; the clock's is."""
    assert not callback_threads.is_reserved()
