"""The timer thread, and the manual clock that replaces it in tests."""

from __future__ import annotations

import gc
import os
import sys
import threading
import tracemalloc

import pytest

from futurechain import Future, clock
from futurechain.clock import Clock, check_seconds
from futurechain.testing import ManualClock
from programs import run_program


@pytest.mark.parametrize("given", ["1", None, True, 1j])
def test_seconds_must_be_numbers(given):
    """What is no number is a TypeError that names it."""
    with pytest.raises(TypeError, match="number of seconds"):
        check_seconds(given)


@pytest.mark.parametrize("given", [-1, float("nan"), float("inf")])
def test_seconds_must_be_finite_and_not_negative(given):
    """Negative, NaN and infinite are ValueErrors."""
    with pytest.raises(ValueError, match="not negative"):
        check_seconds(given)


def test_timers_fire_in_order_and_equal_ones_first_come_first_served():
    """The earlier deadline fires first, and an earlier timer wakes the thread that sleeps for a later one."""
    order, done = [], threading.Event()
    clock.call_later(0.5, order.append, "late")
    clock.call_later(0.6, done.set)
    for number in range(3):
        clock.call_later(0.01, order.append, number)
    assert done.wait(10)

    assert order == [0, 1, 2, "late"]


def test_one_daemon_thread_for_everything():
    """All timers share one daemon thread."""
    done = threading.Event()
    for _ in range(100):
        clock.call_later(0.001, int)
    clock.call_later(0.002, done.set)
    assert done.wait(10)
    threads = [thread for thread in threading.enumerate() if thread.name == clock.THREAD_NAME]

    assert len(threads) == 1
    assert threads[0].daemon


def test_withdraw():
    """A withdrawn timer does not fire, and can be withdrawn once."""
    fired, done = [], threading.Event()
    timer = clock.call_later(0.5, fired.append, 1)
    clock.call_later(0.6, done.set)

    assert timer.cancel()
    assert not timer.cancel()
    assert done.wait(10)
    assert fired == []


def test_withdraw_against_fire():
    """Either it fires or it is withdrawn, whatever the schedule."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(2000):
            fired = []
            timer = clock.call_later(0, fired.append, 1)
            withdrawn = timer.cancel()
            while not (withdrawn or fired):
                pass
            assert withdrawn is not bool(fired)
    finally:
        sys.setswitchinterval(interval)


def test_errors_of_timers_are_reported(monkeypatch):
    """What a timer raises goes to sys.unraisablehook, and the thread goes on."""
    reports, done = [], threading.Event()
    monkeypatch.setattr(clock, "unraisablehook", reports.append)
    clock.call_later(0, sys.exit, 3)
    clock.call_later(0.001, done.set)
    assert done.wait(10)

    assert [report.exc_type for report in reports] == [SystemExit]


def test_a_hundred_thousand_timers_set_and_withdrawn():
    """They leave nothing behind, although the thread sleeps far into the future."""
    timers = Clock()
    timers.call_later(3600, int)
    tracemalloc.start()
    try:
        for _ in range(100_000):
            timers.call_later(1800 + 3600, int).cancel()
        used = tracemalloc.get_traced_memory()[0]
        pending = [timers.call_later(7200, int) for _ in range(100_000)]
        assert all(timer.cancel() for timer in pending)
        del pending
    finally:
        tracemalloc.stop()

    assert used < 5_000_000


def test_what_is_withdrawn_after_the_thread_has_taken_it_in():
    """It goes, too, however often the thread wakes up for others."""
    timers, woken = Clock(), threading.Semaphore(0)
    before = sum(type(one) is clock.Timer for one in gc.get_objects())
    for _ in range(600):
        few = [timers.call_later(3600, int) for _ in range(20)]
        timers.call_later(0, woken.release)
        assert woken.acquire(timeout=10)  # it has taken them in
        for timer in few:
            timer.cancel()
    assert sum(type(one) is clock.Timer for one in gc.get_objects()) < before + 3000


def test_interpreter_exit_with_pending_timers_is_immediate_and_silent():
    """100,000 pending timers keep nobody from leaving."""
    program = "from futurechain import clock\nfor _ in range(100000): clock.call_later(3600, print, 1)"
    run = run_program(program)

    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_the_child_has_a_thread_of_its_own():
    """Timers work in a forked child."""
    program = """
import os, threading
from futurechain import clock
first = threading.Event()
clock.call_later(0, first.set)
assert first.wait(10)
pid = os.fork()
done = threading.Event()
clock.call_later(0.001, done.set)
assert done.wait(10)
if pid:
    assert os.waitpid(pid, 0)[1] == 0
else:
    os._exit(0)
"""
    run = run_program(program, "-W", "ignore")

    assert (run.returncode, run.stderr) == (0, "")


# -- ManualClock ------------------------------------------------------------------------------------------------------


def test_manual_clock_fires_in_order_in_this_thread():
    """advance fires what falls due, timers set by timers included, at their own times."""
    with ManualClock() as manual:
        seen = []

        def again():
            seen.append(manual.now())
            if len(seen) < 3:
                clock.call_later(1, again)

        clock.call_later(1, again)
        clock.call_later(10, seen.append, "far").cancel()
        assert manual.pending == 1
        manual.advance(5)

    assert seen == [1, 2, 3]
    assert manual.now() == 5


def test_timeout_expires():
    """f.timeout fails its own future in time, with TimeoutError or what was given, and cancels upward."""
    with ManualClock() as manual:
        source, kept = Future(), Future()
        kept.add_done_callback(lambda _: None)
        expired, custom = source.timeout(5), kept.timeout(5, KeyError("late"))
        manual.advance(4.9)
        assert not expired.done()
        manual.advance(0.2)

    assert isinstance(expired.exception(0), TimeoutError)
    assert isinstance(custom.exception(0), KeyError)
    assert source.cancelled()
    assert not kept.done()


def test_timeout_withdraws_its_timer():
    """When the parent is settled first, the outcome passes and the timer is gone."""
    with ManualClock() as manual:
        source = Future()
        stage = source.timeout(5)
        assert manual.pending == 1
        source.set_result(1)

        assert manual.pending == 0
        assert stage.result(0) == 1


def test_timeout_on_a_settled_future_needs_no_timer():
    """It passes on at once."""
    with ManualClock() as manual:
        assert Future.succeed(1).timeout(5).result(0) == 1
        assert manual.pending == 0


def test_a_real_timeout_runs_callbacks_on_a_callback_thread():
    """The timer thread runs no user code."""
    names, source = Future(), Future()
    source.timeout(0.5).addErrback(lambda _: names.set_result(threading.current_thread().name))

    assert names.result(10).startswith("futurechain-callback")


@pytest.mark.parametrize("given", [-1, "1", float("nan")])
def test_timeout_refuses_bad_times(given):
    """At the call."""
    with pytest.raises((TypeError, ValueError)):
        Future().timeout(given)
    with pytest.raises(TypeError):
        Future().timeout(1, "no exception")
