"""Trips: several items and steps in one journey to a worker process and back."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

import futurechain
from futurechain import INLINE, Failure, Pipeline
from futurechain.errors import StagePicklingError
from futurechain.pipeline import trips
from futurechain.pipeline.trips import LONGEST, MOST, Trip, TripSize, unpacked
from futurechain.testing import ManualClock
from steps import (
    Awkward,
    die_on_threes,
    fail_on_threes,
    fail_on_zero,
    give_lock_on_threes,
    increment,
    note_first,
    note_run,
    raise_unportable_on_threes,
    spin,
    spin_between,
    spin_first,
    spin_thrice,
    stuck_on_threes,
    times_ten,
    value_of,
    with_pid,
)


class CountingPool(futurechain.ProcessPoolExecutor):
    """A process pool that notes how many items each trip takes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.trips = []

    def submit(self, fn, /, *args, **kwargs):
        if isinstance(fn, Trip):
            self.trips.append(len(args[0]))
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
def counting():
    with CountingPool(2) as pool:
        yield pool


def travel(trip, values, starts=None, seconds=float("inf")):
    """Make a trip as an executor does: there and back by pickle."""
    call = pickle.loads(pickle.dumps(trip))
    report = pickle.loads(pickle.dumps(call(values, starts, seconds)))
    return report, unpacked(report)


def one_trip(*calls):
    return Trip("trip", calls, (None,) * len(calls))


# -- in the worker ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 100), max_size=30))
def test_a_trip_is_a_map(values):
    """A trip through steps gives what the steps give, one item after the other."""
    report, results = travel(one_trip(increment, times_ten), values)

    assert results == [(value + 1) * 10 for value in values]
    assert report.succeeded == [len(values)] * 2
    assert len(report.seconds) == 2


@given(st.lists(st.integers(0, 100), max_size=30))
def test_one_step_is_counted_as_several_are(values):
    """The quick way for one step and the general way give the same report."""
    quick, quick_values = travel(one_trip(fail_on_threes), values)
    general, values_of_general = travel(one_trip(fail_on_threes, None), values)

    assert quick_values == values_of_general
    assert quick.succeeded[0] == general.succeeded[0]
    assert [(f.position, f.step, str(f.failure)) for f in quick.failures] == [
        (f.position, f.step, str(f.failure)) for f in general.failures
    ]


def test_items_may_begin_in_the_middle():
    """An item that makes a second trip begins with the step after its handler."""
    _, results = travel(one_trip(increment, times_ten), [1, 1], [0, 1])

    assert results == [20, 10]


def test_a_failing_item_fails_alone():
    """The report says which items failed, at which step; the others have their results."""
    report, results = travel(one_trip(increment, fail_on_threes), list(range(12)))

    assert [(failed.position, failed.step) for failed in report.failures] == [(2, 1)]
    assert isinstance(report.failures[0].failure.value, ValueError)
    assert [one for position, one in enumerate(results) if position != 2] == [1, 2, *range(4, 13)]


def test_what_cannot_travel_back_fails_alone():
    """A result or an error that cannot be pickled is the failure of its item, and of no other."""
    for step in (give_lock_on_threes, raise_unportable_on_threes):
        report, results = travel(one_trip(step), list(range(6)))

        assert [failed.position for failed in report.failures] == [3]
        assert isinstance(report.failures[0].failure.value, StagePicklingError)
        assert [*results[:3], *results[4:]] == [0, 1, 2, 4, 5]


class FakeClock:
    """What a trip takes for the time; a step can let it pass."""

    time = 0.0


def let_pass(seconds):
    FakeClock.time += seconds
    return seconds


@pytest.mark.parametrize("steps", [1, 2])
def test_the_worker_ends_a_trip_that_takes_too_long(monkeypatch, steps):
    """A trip ends with the item in which its time is up; the rest was not begun."""
    monkeypatch.setattr(trips, "perf_counter", lambda: FakeClock.time)
    report = one_trip(*[let_pass] * steps)([0.01] * 20, None, 0.025 * steps)

    assert report.begun == 3
    assert report.seconds == [pytest.approx(0.03)] * steps
    assert report.waited == pytest.approx(0.01 * steps + 0.02 * steps)


def test_a_returned_failure_fails_the_step():
    """A step that returns a Failure fails with its exception."""
    report, _ = travel(Trip("trip", (lambda_free_failure,), (None,)), [1, 2])

    assert [str(failed.failure.value) for failed in report.failures] == ["1", "2"]


def lambda_free_failure(value):
    return Failure(KeyError(value))


# -- how large --------------------------------------------------------------------------------------------------------


def test_the_size_follows_the_cost():
    """The size starts with 1, grows at most by four, and aims at 10 ms of work."""
    size = TripSize(None)
    sizes = [size.size]
    for _ in range(6):
        size.learn(size.size, size.size * 0.0001)
        sizes.append(size.size)

    assert sizes == [1, 4, 16, 64, 100, 100, 100]


def test_the_size_falls_quickly():
    """When items take longer, half of the difference is believed at once; when they get shorter, a quarter."""
    size = TripSize(None)
    size.learn(1, 0.001)
    size.learn(1, 0.003)
    assert size.cost == pytest.approx(0.002)
    size.learn(1, 0.001)
    assert size.cost == pytest.approx(0.00175)


@given(st.lists(st.floats(0, 10), max_size=50))
def test_sizes_are_bounded(costs):
    """Whatever is measured, a trip takes at least one item, and at most so many."""
    size = TripSize(None)
    for cost in costs:
        size.learn(size.size, cost)
        assert 1 <= size.size <= MOST


def test_a_fixed_size_learns_nothing():
    """``batch=n`` fixes the size, and then the worker ends no trip."""
    size = TripSize(7)
    size.learn(7, 10.0)

    assert size.size == 7
    assert size.seconds == float("inf")
    assert TripSize(None).seconds == LONGEST


# -- streams over them ------------------------------------------------------------------------------------------------


def test_small_items_share_trips(counting):
    """Small items are sent together: far fewer trips than items."""
    assert list(Pipeline().then(increment, on=counting).map(range(5000), window=500)) == list(range(1, 5001))
    assert sum(counting.trips) == 5000
    assert len(counting.trips) < 1000
    assert max(counting.trips) <= 500 // 4


def test_batch_fixes_the_size(counting):
    """``batch=n`` sends n items at a time; only the last trip may be shorter."""
    assert list(Pipeline().then(increment, on=counting, batch=7).map(range(100), window=50)) == list(range(1, 101))
    assert counting.trips == [7] * 14 + [2]


def test_the_first_of_fused_steps_decides_the_batch(counting):
    """Of fused steps, the ``batch`` of the first holds."""
    recipe = Pipeline().then(increment, on=counting, batch=3).then(times_ten, batch=50)

    assert list(recipe.map(range(9))) == [10 * value for value in range(1, 10)]
    assert counting.trips == [3, 3, 3]


def test_a_batch_larger_than_the_window_goes_all_the_same(counting):
    """A batch that the window cannot fill is sent when nothing else can come."""
    assert list(Pipeline().then(increment, on=counting, batch=50).map(range(20), window=8)) == list(range(1, 21))


def test_adjacent_steps_are_one_trip(counting):
    """Adjacent steps on one process pool run in one worker, on one trip."""
    recipe = Pipeline().then(with_pid, on=counting, batch=5).then(with_pid).then(with_pid)

    for _, first, second, third in recipe.map(range(50)):
        assert first == second == third != os.getpid()
    assert sum(counting.trips) == 50


def test_only_the_item_that_failed_makes_a_second_trip(counting):
    """A handler between fused steps runs here; only what it has handled travels again."""
    threads = []
    recipe = Pipeline().then(fail_on_threes, on=counting, batch=10)
    recipe = recipe.catch(ValueError, lambda e: threads.append(threading.current_thread().name) or 0).then(increment)

    assert list(recipe.map(range(50), window=50)) == [1 if v % 10 == 3 else v + 1 for v in range(50)]
    assert sum(counting.trips) == 50 + 5
    assert all("callback" in name for name in threads)


def test_handlers_run_here(counting):
    """``on_error``, ``catch`` and ``finally_`` need not pickle, and run in this process."""
    seen = []
    recipe = Pipeline().then(fail_on_threes, on=counting).finally_(lambda: seen.append(os.getpid()))
    recipe = recipe.then(increment, lambda error: seen.append(os.getpid()) or 0).then(times_ten)

    assert list(recipe.map(range(5))) == [10, 20, 30, 0, 50]
    assert seen == [os.getpid()] * 6


def test_statistics_of_fused_steps(counting):
    """Figures are kept for each step, also for fused ones, and for those with handlers in between."""
    recipe = Pipeline().then(fail_on_threes, on=counting).then(increment).catch(lambda e: 0).then(times_ten)
    stream = recipe.map(range(100))
    list(stream)

    counts = [(one.started, one.succeeded, one.failed, one.cancelled, one.in_flight) for one in stream.statistics()]
    assert counts == [(100, 90, 10, 0, 0), (90, 90, 0, 0, 0), (10, 10, 0, 0, 0), (100, 100, 0, 0, 0)]
    assert all(one.seconds_run > 0 and one.seconds_queued >= 0 for one in stream.statistics())


def test_notes_inside_a_batch(counting):
    """An error from a batch carries the note of the very step that raised it."""
    recipe = Pipeline().then(increment, on=counting, batch=10).then(fail_on_threes, name="picky").then(times_ten)

    found = [one for one in recipe.map(range(20), return_exceptions=True) if isinstance(one, ValueError)]

    assert [str(error) for error in found] == ["no threes: 3", "no threes: 13"]
    assert all("raised in stage picky, 2 of 3" in error.__notes__[0] for error in found)


def test_what_does_not_pickle_fails_alone(counting):
    """An item, a result or an error that does not pickle fails alone, also inside of a batch."""
    recipe = Pipeline().then(value_of, on=counting, batch=5)
    found = list(recipe.map([Awkward(value) for value in range(10)], return_exceptions=True))
    assert [value for value, one in enumerate(found) if one != value] == [3]
    assert isinstance(found[3], TypeError)

    for step in (give_lock_on_threes, raise_unportable_on_threes):
        for batch in (1, 5):
            found = list(Pipeline().then(step, on=counting, batch=batch).map(range(10), return_exceptions=True))
            assert [value for value, one in enumerate(found) if one != value] == [3]
            assert isinstance(found[3], Exception)


def test_a_function_that_does_not_pickle(counting):
    """A step that cannot travel is an error that names it."""
    with pytest.raises(Exception, match="lambda"):
        list(Pipeline().then(lambda v: v, on=counting).map([1]))


def test_timeouts_inside_a_batch(counting, tmp_path):
    """``timeout`` is for each item, also in a batch: the others of its trip have their results."""
    gate = tmp_path / "gate"
    recipe = Pipeline().then(stuck_on_threes, on=counting, batch=5, timeout=0.3).then(increment)
    stream = recipe.map([(value, str(gate)) for value in range(10)], return_exceptions=True)

    found = list(stream)
    gate.touch()

    assert isinstance(found[3], TimeoutError)
    assert [*found[:3], *found[4:]] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert "raised in stage stuck_on_threes, 1 of 2" in found[3].__notes__[0]
    assert [one.failed for one in stream.statistics()] == [1, 0]


def test_retries_inside_a_batch(counting, tmp_path):
    """``retry`` tries again the items that failed, and no others."""
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(5))
    recipe = Pipeline().then(note_run, on=counting, batch=4, retry=policy).then(increment)
    stream = recipe.map([(str(tmp_path / str(value)), value) for value in range(8)])

    assert list(stream) == list(range(1, 9))
    assert [len((tmp_path / str(value)).read_text()) for value in range(8)] == [3] * 8
    assert [(one.started, one.succeeded, one.failed) for one in stream.statistics()] == [(8, 8, 0)] * 2


def test_a_killed_worker_breaks_a_pool_that_does_not_heal():
    """Where the pool breaks with its worker, the items fail with its error, and nothing hangs."""
    with futurechain.ProcessPoolExecutor(1) as pool:
        found = list(Pipeline().then(die_on_threes, on=pool, batch=5).map(range(10), return_exceptions=True))

    assert isinstance(found[3], BrokenProcessPool)


def test_concurrency_on_processes(counting):
    """``concurrency`` bounds how many trips are inside, since a worker runs one item at a time."""
    recipe = Pipeline().then(increment, on=counting, concurrency=1)

    assert list(recipe.map(range(100))) == list(range(1, 101))


def test_a_trip_that_is_cut_goes_on_in_order(counting):
    """What a trip has not begun goes to the front of the queue: order and results are kept."""
    seconds = [0.0] * 300 + [0.005] * 60

    assert list(Pipeline().then(spin, on=counting).map(seconds, window=400)) == seconds


def test_an_ordered_stream_waits_for_one_trip_alone(tmp_path, counting):
    """What is before an item in its own trip, or in an earlier one, is handed out while a later trip is still away."""
    gate = tmp_path / "gate"
    items = [(value + 5, str(gate)) for value in range(15)]
    with Pipeline().then(stuck_on_threes, on=counting, batch=5).map(items, window=20) as stream:
        assert [next(stream) for _ in range(5)] == [5, 6, 7, 8, 9]
        gate.touch()
        assert list(stream) == list(range(10, 20))


def test_no_trip_takes_longer_than_its_time_and_one_item(monkeypatch):
    """When items take a hundred times as long from one to the next, the worker cuts trips that were sized before."""
    now = [0.0]
    monkeypatch.setattr(trips, "perf_counter", lambda: now[0])

    def drift(value):
        now[0] += 1e-5 if value < 5000 else 1e-3
        return value

    trip, size, waiting, longest = one_trip(drift), TripSize(None), list(range(6000)), 0.0
    while waiting:
        before = now[0]
        report = trip(waiting[: size.size], None, size.seconds)
        longest = max(longest, now[0] - before)
        size.learn(report.begun, sum(report.seconds))
        del waiting[: report.begun]

    assert longest <= LONGEST + 1e-3 + 1e-9
    assert size.size == pytest.approx(10, abs=1)


@pytest.mark.parametrize("fused", [False, True])
def test_no_real_trip_takes_more_than_its_time_and_one_item(fused):
    """The same with real workers, by their own clocks: no trip has an item more after its 40 ms were over."""
    reports = []

    class ReportingPool(futurechain.ProcessPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            future = super().submit(fn, *args, **kwargs)
            future.add_done_callback(lambda done: reports.append((len(args[0]), done.result())))
            return future

    costs = [1e-5] * 4000 + [4e-3] * 150  # what is on its way was sized for the small ones
    with ReportingPool(2) as pool:
        recipe = Pipeline().then(spin_between, on=pool)
        recipe = recipe.then(tuple) if fused else recipe
        assert len(list(recipe.map(costs))) == len(costs)

    trips_of_many = [(sent, unpacked(report)) for sent, report in reports if sent > 1]
    assert any(sent > len(spans) for sent, spans in trips_of_many)  # some were ended
    assert all(spans[-2][1] - spans[0][0] <= LONGEST for _, spans in trips_of_many if len(spans) > 1)


def test_statistics_and_notes_of_each_step_in_a_batch(counting):
    """Each fused step has its own times, counts and notes, although its items share a trip."""
    recipe = Pipeline().then(spin, on=counting, batch=10, name="short").then(spin_thrice, name="long")
    recipe = recipe.then(fail_on_zero, name="picky")
    stream = recipe.map([0.001, 0.0] * 20, return_exceptions=True)
    found = list(stream)
    short, long, picky = stream.statistics()

    assert counting.trips == [10] * 4
    assert [(one.started, one.succeeded, one.failed) for one in (short, long, picky)] == [
        (40, 40, 0), (40, 40, 0), (40, 20, 20),
    ]  # fmt: skip
    assert long.seconds_run >= 0.06  # what it spins at least
    assert short.seconds_run >= 0.02
    assert picky.seconds_run < long.seconds_run
    assert short.seconds_queued > 0
    assert all("raised in stage picky, 3 of 3" in one.__notes__[0] for one in found[1::2])


def test_a_timeout_of_a_later_fused_step(counting, tmp_path):
    """``timeout`` of a step in the middle of a batch counts from its own beginning, and costs that item alone."""
    gate = tmp_path / "gate"
    recipe = Pipeline().then(spin_first, on=counting, batch=4).then(stuck_on_threes, timeout=0.4).then(increment)
    recipe = recipe.catch(TimeoutError, lambda error: -1).then(times_ten)
    stream = recipe.map([(value, str(gate)) for value in range(8)])

    assert list(stream) == [10, 20, 30, -10, 50, 60, 70, 80]
    gate.touch()
    assert [(one.started, one.succeeded, one.failed) for one in stream.statistics()] == [
        (8, 8, 0), (8, 7, 1), (7, 7, 0), (1, 1, 0), (8, 8, 0),
    ]  # fmt: skip


def test_a_retry_of_a_later_step(counting, tmp_path):
    """``retry`` of a step makes a trip of its own, and repeats that step alone, for the items that failed."""
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(5))
    recipe = Pipeline().then(note_first, on=counting, batch=4).then(note_run, retry=policy, batch=4, timeout=30)
    stream = recipe.then(increment).map([(str(tmp_path / str(value)), value) for value in range(8)])

    assert list(stream) == list(range(1, 9))
    assert all(len((tmp_path / f"{value}-first").read_text()) == 1 for value in range(8))
    assert all(len((tmp_path / str(value)).read_text()) == 3 for value in range(8))
    assert [(one.started, one.succeeded, one.failed) for one in stream.statistics()] == [(8, 8, 0)] * 3


def test_timeouts_in_a_forked_worker(processes):
    """What a trip has made for its timeouts in this process is of no use to a worker that is forked afterwards."""
    report, _ = travel(Trip("trip", (increment,), (30,)), [1])
    assert not report.failures

    assert list(Pipeline().then(increment, on=processes, timeout=30).map([1, 2])) == [2, 3]


def test_the_timers_of_timeouts_are_withdrawn():
    """On a pool that stops what it cancels, an item that is done leaves no timer, however long its timeout is."""
    with ManualClock() as clock, futurechain.ProcessPoolExecutor(2, stop_cancelled=True) as pool:
        recipe = Pipeline().then(increment, on=pool, timeout=3600)
        assert list(recipe.map(range(30))) == list(range(1, 31))
        assert recipe.submit(1).result() == 2
        assert clock.pending == 0


def test_cancelled_trips_leave_nothing(counting):
    """Closing a stream cancels the trips that wait, and waits for those that are made."""
    stream = Pipeline().then(increment, on=counting).then(times_ten).map(itertools.count(), window=100)
    assert list(itertools.islice(stream, 500)) == [10 * value for value in range(1, 501)]
    stream.close()

    assert all(one.in_flight == 0 for one in stream.statistics())
    assert counting.submit(increment, 1).result() == 2


def test_mixed_executors_between_trips(counting, pool):
    """Trips with steps elsewhere in between are trips of their own."""
    recipe = Pipeline().then(increment, on=counting).then(increment, on=pool).then(increment, on=counting)
    recipe = recipe.then(times_ten, on=INLINE)

    assert list(recipe.map(range(200))) == [10 * (value + 3) for value in range(200)]


# -- pools that heal, and pools that stop what was cancelled ----------------------------------------------------------


@pytest.mark.parametrize("batch", ["auto", 1, 5])
def test_a_killed_workers_item_fails_alone(batch):
    """On a pool that heals, only the item that killed its worker fails; the others of its trip are tried again."""
    with futurechain.ProcessPoolExecutor(2, heal=True) as pool:
        stream = Pipeline().then(die_on_threes, on=pool, batch=batch).map(range(30), return_exceptions=True)
        found = list(stream)

    assert [value for value in range(30) if found[value] != value] == [3, 13, 23]
    assert all(isinstance(found[value], BrokenProcessPool) for value in (3, 13, 23))
    (figures,) = stream.statistics()
    assert (figures.started, figures.succeeded, figures.failed, figures.in_flight) == (30, 27, 3, 0)


@pytest.mark.parametrize("ordered", [True, False])
def test_each_fused_step_may_kill_its_worker(ordered):
    """The same holds in the middle of fused steps, with others around them: nothing is lost, or comes twice."""
    with futurechain.ProcessPoolExecutor(2, heal=True) as pool, futurechain.ThreadPoolExecutor(2) as threads:
        recipe = Pipeline().then(increment, on=threads).then(increment, on=pool).then(die_on_threes).then(increment)
        recipe = recipe.catch(BrokenProcessPool, lambda error: -1).then(increment, on=threads)
        found = list(recipe.map(range(200), window=40, ordered=ordered))

    expected = [0 if (value + 2) % 10 == 3 else value + 4 for value in range(200)]
    assert (found if ordered else sorted(found)) == (expected if ordered else sorted(expected))


def test_a_stream_whose_workers_are_killed_at_any_moment():
    """Whoever kills workers, of a pool that heals only the items that were run just then fail."""
    over, killed, found = threading.Event(), [], []

    def kill():
        alive = 0  # the next one only when there has been progress: who cannot even start breaks the pool
        while not over.wait(0.02):
            for pid in list(pool._processes)[:1] if len(found) >= alive else ():
                alive = len(found) + 40
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    with futurechain.ProcessPoolExecutor(2, heal=True) as pool:
        murderer = threading.Thread(target=kill)
        murderer.start()
        try:
            items = [0.0005] * 1000
            found.extend(Pipeline().then(spin, on=pool).map(items, return_exceptions=True, window=100))
        finally:
            over.set()
            murderer.join()

    failed = [one for one in found if one != 0.0005]
    assert len(found) == len(items)
    assert all(isinstance(one, BrokenProcessPool) for one in failed)
    assert len(failed) <= len(killed)


def test_a_timeout_stops_the_work_where_that_can_be(tmp_path):
    """On a pool with ``stop_cancelled=True`` a timeout ends the run itself, and the worker is replaced."""
    gate = tmp_path / "never"
    with futurechain.ProcessPoolExecutor(2, stop_cancelled=True) as pool:
        recipe = Pipeline().then(stuck_on_threes, on=pool, timeout=0.5).then(increment)
        items = [(value, str(gate)) for value in range(8)]
        found = list(recipe.map(items, return_exceptions=True))
        error = recipe.submit(items[3]).exception()
        assert recipe.submit(items[4]).result() == 5

    assert isinstance(found[3], TimeoutError)
    assert isinstance(error, TimeoutError)
    assert [*found[:3], *found[4:]] == [1, 2, 3, 5, 6, 7, 8]


# -- fixed batches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 100, "auto"])
@pytest.mark.parametrize("second", [1, 3, "auto"])
def test_an_item_that_jumps_over_a_trip_lets_that_go(first, second):
    """A trip that waits to be filled does not wait for an item whose error passes its step by."""
    fails = threading.Event()

    def fail_late(value):
        if value == 9:
            fails.wait(0.1)
            raise ValueError(value)
        return value

    with (
        futurechain.ThreadPoolExecutor(10) as threads,
        futurechain.ProcessPoolExecutor(1) as one,
        futurechain.ProcessPoolExecutor(1) as other,
    ):
        begun = Pipeline().then(fail_late, on=threads).then(increment, on=one, batch=first)
        pipeline = begun.catch(ValueError, lambda _: 0).then(increment, on=other, batch=second)
        assert sorted(pipeline.map(range(10))) == [1, *range(2, 11)]


# -- what does not count ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_start_of_a_worker_does_not_count(method):
    """Where a step that takes too long is stopped, its time begins when a worker that is ready has it."""
    context = multiprocessing.get_context(method)
    with futurechain.ProcessPoolExecutor(1, context, time.sleep, (0.5,), stop_cancelled=True, heal=True) as pool:
        assert list(Pipeline().then(increment, on=pool, timeout=0.3).map(range(3))) == [1, 2, 3]
