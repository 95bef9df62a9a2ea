"""`limit`: views of an executor that let only so much through."""

from __future__ import annotations

import concurrent.futures as cf
import itertools
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import futurechain
from futurechain import INLINE, Future, Pipeline, ThreadPoolExecutor, gather, limit, succeed, wrap_executor
from futurechain.errors import CancelledError
from futurechain.testing import ManualClock
from guard import within
from steps import increment, times_ten, with_pid


class Gauge:
    """A task that counts how many of it run at once, until it is let go."""

    def __init__(self):
        self.gate, self.lock = threading.Semaphore(0), threading.Lock()
        self.running, self.most, self.started = 0, 0, []
        self.begun = threading.Semaphore(0)

    def __call__(self, value=None):
        with self.lock:
            self.running += 1
            self.started.append(value)
            self.most = max(self.most, self.running)
        self.begun.release()
        self.gate.acquire(timeout=30)
        with self.lock:
            self.running -= 1
        return value


@pytest.fixture
def many():
    """A pool with more workers than any view lets run."""
    with futurechain.ThreadPoolExecutor(8) as pool:
        yield pool


# -- concurrency ------------------------------------------------------------------------------------------------------


def test_it_runs_what_it_is_given(executor):
    """A view gives the results that the executor gives, of tasks and of chains."""
    view = limit(executor, concurrency=1)

    assert view.submit(increment, 1).result() == 2
    assert view.submit(increment, 1).then(times_ten).then(increment).result() == 21
    assert [future.result() for future in [view.submit(increment, v) for v in range(50)]] == list(range(1, 51))
    assert list(view.map(increment, range(5))) == [1, 2, 3, 4, 5]


def test_so_many_run_at_once(many):
    """At most ``concurrency`` run at once; the others wait, and hold no thread."""
    view, task = limit(many, concurrency=2), Gauge()
    futures = [view.submit(task, value) for value in range(6)]
    task.begun.acquire(timeout=30), task.begun.acquire(timeout=30)

    assert many.submit(increment, 1).result(10) == 2
    assert sorted(task.started) == [0, 1]
    task.gate.release(6)
    assert [future.result() for future in futures] == list(range(6))
    assert task.most == 2


def test_it_chains(many):
    """``on=limit(...)`` bounds the stages of chains, and the chain goes on there."""
    view, task = limit(many, concurrency=1), Gauge()
    stages = [succeed(value).then(task, on=view) for value in range(4)]
    whole = gather(*stages)
    task.gate.release(4)

    assert whole.result(30) == (0, 1, 2, 3)
    assert task.most == 1


def test_several_views_share_an_executor(many):
    """Each view has bounds of its own over the same workers."""
    one, two, task = limit(many, concurrency=1), limit(many, concurrency=2), Gauge()
    futures = [view.submit(task) for view in (one, two) for _ in range(3)]
    for _ in range(3):
        task.begun.acquire(timeout=30)
    assert task.running == 3
    task.gate.release(6)
    cf.wait(futures)
    assert task.most <= 3


def test_views_of_views(many):
    """A view may be a view of a view: both bounds hold."""
    outer, task = limit(limit(many, concurrency=1), concurrency=5), Gauge()
    futures = [outer.submit(task, value) for value in range(4)]
    task.gate.release(4)

    assert [future.result() for future in futures] == [0, 1, 2, 3]
    assert task.most == 1


def test_a_pending_result_counts_as_running(many):
    """A task that returns a future runs until that is settled."""
    view, inner, started = limit(many, concurrency=1), futurechain.Future(), []
    first = view.submit(lambda: inner)
    second = view.submit(lambda: started.append(1))
    many.submit(int).result()
    assert not second.done()
    assert started == []
    inner.set_result(5)

    assert first.result() == 5
    assert second.result(30) is None


def test_a_failure_gives_the_slot_back(many):
    """However a task ends, the next one has its turn."""
    view = limit(many, concurrency=1)
    futures = [view.submit(int, "x") for _ in range(3)] + [view.submit(int, "3")]

    assert all(isinstance(future.exception(), ValueError) for future in futures[:3])
    assert futures[3].result() == 3


def test_at_once_does_not_nest():
    """A view of INLINE runs any number of waiting tasks without growing the stack."""
    view, gate = limit(INLINE, concurrency=1), futurechain.Future()
    first = view.submit(lambda: gate)
    rest = [view.submit(increment, value) for value in range(5000)]
    gate.set_result(0)

    assert first.result() == 0
    assert [future.result() for future in rest] == list(range(1, 5001))


# -- cancelling -------------------------------------------------------------------------------------------------------


def test_what_is_cancelled_in_the_queue_has_no_slot(many):
    """A task that is cancelled while it waits is not run, and takes no slot."""
    view, task = limit(many, concurrency=1), Gauge()
    first, second, third = (view.submit(task, value) for value in range(3))
    task.begun.acquire(timeout=30)

    assert second.cancel()
    task.gate.release(2)
    assert third.result(30) == 2
    assert first.result() == 0
    assert task.started == [0, 2]


@given(st.lists(st.sampled_from(["submit", "cancel", "finish"]), max_size=40))
def test_slots_are_conserved(steps):
    """Whatever is submitted, cancelled and finished, at most so many run, and in the end none."""
    view, running, futures = limit(INLINE, concurrency=2), [], []

    def begin():
        running.append(futurechain.Future())
        return running[-1]

    for step in steps:
        if step == "submit":
            futures.append(view.submit(begin))
        elif step == "cancel" and futures:
            futures[len(futures) // 2].cancel()
        elif step == "finish" and any(not inner.done() for inner in running):
            next(inner for inner in running if not inner.done()).set_result(1)
        assert sum(not inner.done() for inner in running) <= 2
    while any(not inner.done() for inner in running):
        next(inner for inner in running if not inner.done()).set_result(1)
    assert all(future.done() for future in futures)


def test_cancelling_is_linear(many):
    """Cancelling what waits costs the same for each, however much waits: by hand, and by the shutdown of the view."""

    def measure(count):
        gate, seconds = futurechain.Future(), []
        for by_hand in (True, False):
            view = limit(INLINE, concurrency=1)
            futures = [view.submit(gate.shield) for _ in range(count)]
            began = time.perf_counter()
            if by_hand:
                cf.wait([future for future in reversed(futures) if not future.cancel()])
            else:
                view.shutdown(wait=False, cancel_futures=True)
            seconds.append(time.perf_counter() - began)
            assert all(future.cancelled() for future in futures)
        return max(seconds) / count

    small = min(measure(300) for _ in range(3))
    assert min(measure(4800) for _ in range(3)) < 5 * small


def test_a_worker_that_waits_runs_what_its_view_has_let_through():
    """Workers that wait for tasks of a view of their own pool run these, as they run the pool's."""
    with futurechain.ThreadPoolExecutor(2) as pool:
        view = limit(pool, concurrency=2)

        def outer(value):
            return view.submit(increment, value).then(times_ten).result()

        assert [one.result(30) for one in [pool.submit(outer, value) for value in range(20)]] == [
            10 * (value + 1) for value in range(20)
        ]


class AtOnce(cf.Executor):
    """Runs each task in ``submit``."""

    def submit(self, fn, /, *args, **kwargs):
        future = cf.Future()
        future.set_result(fn(*args, **kwargs))
        return future


ON_THE_SPOT = {
    "inline": lambda: INLINE,
    "wrapped": lambda: wrap_executor(AtOnce()),
    "view": lambda: limit(INLINE, concurrency=3),
}
WAITS = {
    "result": lambda future: future.result(30),
    "wait": lambda future: cf.wait([future], 30).done.pop().result(),
    "as_completed": lambda future: next(iter(cf.as_completed([future], 30))).result(),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("make", ON_THE_SPOT.values(), ids=ON_THE_SPOT)
def test_what_runs_where_it_is_started_waits_for_more(make, wait):
    """A task, or a callback after one, that runs within the start of its view waits for another task of that view."""
    view, source = limit(make(), concurrency=2), futurechain.Future()
    end = source.then(increment, on=view).addCallback(lambda value: wait(view.submit(increment, value)))

    source.set_result(1)
    assert end.result(30) == 3
    assert view.submit(lambda: wait(view.submit(increment, 1))).result(30) == 2


# -- a rate -----------------------------------------------------------------------------------------------------------


def test_so_many_start_in_a_second():
    """At most ``per_second`` start in any second; the others follow as soon as they may."""
    with ManualClock() as clock:
        view, started = limit(INLINE, per_second=3), []
        futures = [view.submit(lambda: started.append(clock.now())) for _ in range(8)]
        assert len(started) == 3
        clock.advance(0.9)
        assert len(started) == 3
        clock.advance(0.1)
        assert len(started) == 6
        clock.advance(1)
        assert len(started) == 8

    assert all(future.done() for future in futures)
    assert clock.pending == 0


@pytest.mark.parametrize(("rate", "seconds"), [(0.5, 2.0), (1, 1.0), (2.5, 0.8)])
def test_a_rate_need_not_be_whole(rate, seconds):
    """A rate below 1 starts one in so many seconds; others let the whole number start, in a longer or shorter time."""
    with ManualClock() as clock:
        view, started = limit(INLINE, per_second=rate), []
        for _ in range(6):
            view.submit(lambda: started.append(clock.now()))
        first = len(started)
        clock.advance(seconds * 0.99)
        assert len(started) == first == max(1, int(rate))
        clock.advance(seconds * 0.01 + 1e-9)
        assert len(started) == 2 * first
        clock.advance(100)
        assert len(started) == 6


@given(st.integers(1, 5), st.lists(st.floats(0, 2), max_size=30))
def test_no_second_has_more(rate, pauses):
    """Whenever tasks come, no second has more starts than the rate."""
    with ManualClock() as clock:
        view, started = limit(INLINE, per_second=rate), []
        for pause in pauses:
            view.submit(lambda: started.append(clock.now()))
            clock.advance(pause)
        clock.advance(100)

    assert len(started) == len(pauses)
    assert all(later - earlier > 1 - 1e-6 for earlier, later in zip(started, started[rate:], strict=False))


def test_cancelling_what_waits_for_its_time():
    """A task that is cancelled while it waits for its time takes none of it."""
    with ManualClock() as clock:
        view, started = limit(INLINE, per_second=1), []
        futures = [view.submit(lambda v=v: started.append(v)) for v in range(3)]
        assert futures[1].cancel()
        clock.advance(1)
        assert started == [0, 2]


def test_concurrency_and_rate_together():
    """Both bounds hold: a slot that is free does not help before its time, nor the time without a slot."""
    with ManualClock() as clock:
        view, running = limit(INLINE, concurrency=1, per_second=2), []
        futures = [view.submit(lambda: running.append(futurechain.Future()) or running[-1]) for _ in range(4)]
        assert len(running) == 1
        clock.advance(5)
        assert len(running) == 1
        for number in range(3):
            running[number].set_result(number)
            clock.advance(0.5)
            assert len(running) == number + 2
        running[3].set_result(3)

    assert [future.result() for future in futures] == [0, 1, 2, 3]
    assert clock.pending == 0


def test_the_rate_of_a_stream():
    """In a stream each item counts, whatever the window; the other steps go on meanwhile."""
    with ManualClock() as clock, futurechain.ThreadPoolExecutor(1) as reader:
        view, started, came = limit(INLINE, per_second=5), [], threading.Semaphore(0)
        recipe = Pipeline().then(lambda value: started.append(clock.now()) or value, on=view)
        stream = recipe.map(range(15), window=15)
        found = reader.submit(lambda: [came.release() or one for one in stream])
        for number in range(1, 4):
            for _ in range(5):
                assert came.acquire(timeout=30)
            assert len(started) == 5 * number
            clock.advance(1)

    assert found.result() == list(range(15))
    assert clock.pending == 0


def test_first_come_first_served(many):
    """Tasks of several callers, and stages, are let through in the order in which they came to the view."""
    view, task, order = limit(many, concurrency=1), Gauge(), []
    first = view.submit(task)
    others = []
    for number in range(20):
        others.append(view.submit(order.append, 2 * number))
        others.append(succeed(2 * number + 1).then(order.append, on=view))
    task.gate.release()
    cf.wait([first, *others])

    assert order == list(range(40))


# -- a bounded queue --------------------------------------------------------------------------------------------------


def test_an_outside_submit_waits_for_room(many):
    """When so many are queued, a ``submit`` from outside waits; it goes on when there is room."""
    view, task = limit(many, concurrency=1, queued=2), Gauge()
    futures = [view.submit(task, value) for value in range(3)]
    task.begun.acquire(timeout=30)
    submitted = threading.Event()

    def caller():
        futures.append(view.submit(task, 3))
        submitted.set()

    thread = threading.Thread(target=caller)
    thread.start()
    assert not submitted.wait(0.1)
    task.gate.release()
    assert submitted.wait(30)
    thread.join()
    task.gate.release(3)
    assert [future.result() for future in futures] == [0, 1, 2, 3]


def test_callers_go_on_in_the_order_in_which_they_came(many):
    """Callers that wait for room go on in order: none is passed over."""
    view, task = limit(many, concurrency=1, queued=1), Gauge()
    view.submit(task, "first"), view.submit(task, "second")
    threads = []
    for number in range(5):
        thread = threading.Thread(target=view.submit, args=(task, number))
        thread.start()
        threads.append(thread)
        while len(view._scheduler._rooms) <= number:
            threading.Event().wait(0.001)
    task.gate.release(7)
    for thread in threads:
        thread.join()
    view.shutdown()

    assert task.started == ["first", "second", 0, 1, 2, 3, 4]


def test_stages_never_wait_for_room():
    """What attaches and submits inside of the library is never held up: a pool of one goes on."""
    with futurechain.ThreadPoolExecutor(1) as pool:
        view = limit(pool, concurrency=2, queued=1)
        stages = [succeed(value).then(increment, on=view) for value in range(50)]
        assert gather(*stages).result(30) == tuple(range(1, 51))
        assert pool.submit(lambda: [view.submit(increment, v) for v in range(20)]).result(30)[-1].result(30) == 20


def test_an_interrupted_caller_leaves_no_trace(many):
    """A caller that gives up waiting takes no room with it."""
    view, task = limit(many, concurrency=1, queued=1), Gauge()
    futures = [view.submit(task, 0), view.submit(task, 1)]
    view.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="shutdown"):
        view.submit(task, 2)
    task.gate.release(2)
    assert [future.result() for future in futures] == [0, 1]


# -- shutting down ----------------------------------------------------------------------------------------------------


def test_a_view_ends_alone(many):
    """The shutdown of a view refuses new work there, waits for what it has, and leaves the executor to others."""
    view, other = limit(many, concurrency=1), limit(many, concurrency=1)
    futures = [view.submit(increment, value) for value in range(10)]
    view.shutdown()

    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match=r"shutdown of limit\(ThreadPoolExecutor"):
        view.submit(increment, 1)
    assert other.submit(increment, 1).result() == 2
    assert many.submit(increment, 1).result() == 2


def test_a_stage_on_a_view_that_is_shut_down(many):
    """A stage on a view that is shut down fails with a RuntimeError that shows the remedy."""
    view = limit(many, concurrency=1)
    view.shutdown()

    with pytest.raises(RuntimeError, match="on=INLINE"):
        succeed(1).then(increment, on=view).result()


def test_a_callers_wait_ends_with_the_view(many):
    """Who waits for room when the view is shut down gets a RuntimeError."""
    view, task, errors = limit(many, concurrency=1, queued=1), Gauge(), []
    futures = [view.submit(task), view.submit(task)]

    def caller():
        try:
            view.submit(task)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=caller)
    thread.start()
    while not view._scheduler._rooms:
        threading.Event().wait(0.001)
    view.shutdown(wait=False)
    thread.join(30)
    task.gate.release(2)
    cf.wait(futures)

    assert "shutdown of limit" in errors[0]


def test_cancelling_with_the_shutdown_of_a_view(many):
    """``shutdown(cancel_futures=True)`` cancels what waits in this view, and nothing else."""
    view, other, task = limit(many, concurrency=1), limit(many, concurrency=1), Gauge()
    running, queued, elsewhere = view.submit(task), view.submit(task), other.submit(task)
    task.begun.acquire(timeout=30), task.begun.acquire(timeout=30)
    threading.Timer(0.02, lambda: task.gate.release(2)).start()
    view.shutdown(cancel_futures=True)

    assert running.done()
    assert queued.cancelled()
    assert elsewhere.result(30) is None


@pytest.mark.parametrize("kind", ["thread", "process", "wrapped"])
def test_the_shutdown_of_the_executor_ends_what_its_views_have(kind):
    """The shutdown of an executor waits for what its views have queued."""
    make = {
        "thread": lambda: futurechain.ThreadPoolExecutor(2),
        "process": lambda: futurechain.ProcessPoolExecutor(2),
        "wrapped": lambda: futurechain.wrap_executor(cf.ThreadPoolExecutor(2)),
    }
    with make[kind]() as pool:
        view = limit(pool, concurrency=1)
        futures = [view.submit(increment, value) for value in range(20)]
        stages = [succeed(value).then(increment, on=view) for value in range(20)]

    assert [future.result(30) for future in (*futures, *stages)] == [*range(1, 21)] * 2
    with pytest.raises(RuntimeError, match="shutdown"):
        view.submit(increment, 1)


def test_the_shutdown_of_the_executor_cancels_what_its_views_have():
    """``shutdown(cancel_futures=True)`` of the executor cancels what its views have queued."""
    pool, task = futurechain.ThreadPoolExecutor(2), Gauge()
    view = limit(pool, concurrency=1)
    running, *queued = [view.submit(task) for _ in range(5)]
    task.begun.acquire(timeout=30)
    pool.shutdown(wait=False, cancel_futures=True)

    assert all(future.cancelled() for future in queued)
    task.gate.release(5)
    pool.shutdown()
    assert running.done()
    with pytest.raises(CancelledError):
        queued[-1].result()


# -- pipelines --------------------------------------------------------------------------------------------------------


def test_a_rate_counts_items(processes):
    """On a view with a rate each step of each item counts: nothing is fused, nothing batched."""
    view = limit(processes, per_second=100_000)
    recipe = Pipeline().then(with_pid, on=view).then(with_pid)

    assert [value for value, _, _ in recipe.map(range(20))] == list(range(20))


@pytest.mark.parametrize("close", ["view", "pool"])
def test_a_view_that_ends_under_a_stream(close):
    """A stream whose view, or the pool below it, is shut down meanwhile fails, and has nothing left."""
    with futurechain.ThreadPoolExecutor(2) as pool:
        view = limit(pool, concurrency=1)
        stream = Pipeline().then(increment, on=view).map(itertools.count(), window=8)
        next(stream)
        (view if close == "view" else pool).shutdown()
        with pytest.raises(RuntimeError, match="shutdown of"):
            list(stream)
        assert not stream._flow.running
        with pytest.raises(RuntimeError, match="is shut down: give on="):
            Pipeline().then(increment, on=view)
        with pytest.raises(RuntimeError, match="after shutdown of"):
            limit(view)


def test_a_view_in_a_stream(many):
    """The bounds of a view hold for the steps of streams, and for several streams together."""
    task = Gauge()
    task.gate.release(1000)
    view = limit(many, concurrency=2)
    recipe = Pipeline().then(task, on=view)
    with cf.ThreadPoolExecutor(3) as users:
        assert list(users.map(lambda _: list(recipe.map(range(50))), range(3))) == [list(range(50))] * 3

    assert task.most <= 2


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["concurrency", "queued"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_wrong_counts(pool, name, value, error):
    """A count below 1 is a ValueError, one that is no whole number a TypeError; both name it."""
    with pytest.raises(error, match=f"{name}="):
        limit(pool, **{name: value})


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-2.5, ValueError), (float("nan"), ValueError), ("3", TypeError)]
)
def test_wrong_rates(pool, value, error):
    """A rate is a positive number."""
    with pytest.raises(error, match="per_second="):
        limit(pool, per_second=value)


def test_wrong_executors():
    """What is no executor is a TypeError; one that is shut down a RuntimeError."""
    with pytest.raises(TypeError, match="executor"):
        limit(3)
    pool = futurechain.ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        limit(pool, concurrency=1)


def test_wrong_functions(pool):
    """What is not callable is a TypeError at ``submit``, and leaves the view usable."""
    view = limit(pool, concurrency=1, queued=1)
    for _ in range(3):
        with pytest.raises(TypeError, match="submit"):
            view.submit(3)
    assert view.submit(increment, 1).result() == 2


def test_its_repr(pool):
    """The repr of a view shows its bounds."""
    assert repr(limit(pool, concurrency=2, queued=9)).endswith(", concurrency=2, queued=9)")


@pytest.mark.parametrize("make", [futurechain.ThreadPoolExecutor, futurechain.ProcessPoolExecutor])
def test_a_view_maps_as_its_executor_does(make):
    """With a buffer, and in chunks where these save trips."""
    with make(2) as pool:
        view = limit(pool, concurrency=2)
        assert list(view.map(pow, [2, 3, 4], [5, 2, 2], buffersize=1)) == [32, 9, 16]
        assert list(view.map(pow, [2, 3, 4], [5, 2, 2], chunksize=2)) == [32, 9, 16]
        with pytest.raises(ValueError, match="buffersize="):
            view.map(pow, [2], [5], buffersize=0)


# -- what waits for its own view --------------------------------------------------------------------------------------


class Counted:
    """A function that counts how many of it run at once."""

    def __init__(self):
        self.lock, self.running, self.most = threading.Lock(), 0, 0

    def __call__(self, value=0):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.0005)
        with self.lock:
            self.running -= 1
        return value


def one_task(view, counted):
    return view.submit(counted, 1).then(lambda value: view.submit(counted, value + 1)), 2


def several_tasks(view, counted):
    return view.submit(counted).then(lambda _: gather(*[view.submit(counted, n) for n in range(5)])), (0, 1, 2, 3, 4)


def a_recursion(view, counted):
    def step(number):
        return number if number == 40 else view.submit(counted, number + 1).then(step)

    return view.submit(counted).then(step), 40


def a_task_of_an_async_function(view, counted):
    async def work():
        return counted(await futurechain.delay(0.001, 7))

    return view.submit(work), 7


def a_coroutine_that_awaits_tasks(view, counted):
    async def work():
        return await view.submit(counted, 3) + await view.submit(counted, 4)

    return view.submit(work), 7


def a_future_that_leads_there_later(view, counted):
    inner = futurechain.Future()
    end = view.submit(lambda: inner)
    queued = view.submit(counted, 5)
    inner.set_result(0)
    return gather(end, queued), (0, 5)


def one_that_returns_a_task_later(view, counted):
    gate = futurechain.Future()
    end = view.submit(lambda: gate.then(lambda _: view.submit(counted, 5)))
    gate.set_result(0)
    return end, 5


def a_view_of_the_view(view, counted):
    other = limit(view, concurrency=1)
    return other.submit(counted).then(lambda _: other.submit(counted).then(lambda _: view.submit(counted, 9))), 9


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("place", ["threads", "inline"])
@pytest.mark.parametrize(
    "way",
    [
        one_task, several_tasks, a_recursion, a_task_of_an_async_function, a_coroutine_that_awaits_tasks,
        a_future_that_leads_there_later, one_that_returns_a_task_later, a_view_of_the_view,
    ],
)  # fmt: skip
@within(60)
def test_what_waits_for_its_own_view(way, place, slots):
    """It runs in the slot of the one that waits for it: many at once hold each other up no more than one does.

    No more of them run at once than there are slots.
    """
    with futurechain.ThreadPoolExecutor(4) as threads:
        view, counted = limit(threads if place == "threads" else INLINE, concurrency=slots), Counted()
        made = [way(view, counted) for _ in range(10)]
        assert [end.result(30) for end, _ in made] == [value for _, value in made]
        assert counted.most <= slots
        assert view.submit(increment, 1).result(30) == 2


@within(60)
def test_a_guest_outlives_its_host(many):
    """When the one that waits is cancelled, what runs in its slot goes on, and has the slot."""
    view, gauge = limit(many, concurrency=1), Gauge()
    guests = []
    host = view.submit(lambda: guests.append(view.submit(gauge, 1)) or guests[0].shield())
    gauge.begun.acquire(timeout=30)
    assert host.cancel()
    other = view.submit(gauge, 2)
    assert not gauge.begun.acquire(timeout=0.1)
    gauge.gate.release(2)
    assert (guests[0].result(30), other.result(30)) == (1, 2)
    assert gauge.most == 1


@within(10)
def test_what_a_shutdown_cancels_while_it_is_attached_holds_up_no_executor():
    """At whatever call of the attaching the view is shut down: the stage is settled, and the executor's end comes."""
    before = sys.getprofile()
    for moment in itertools.count(1):
        calls, root, pool = itertools.count(1), Future(), ThreadPoolExecutor(1)
        view, other = limit(pool, concurrency=2), root.then(str)

        def shut_down_then(_, event, __, calls=calls, moment=moment, view=view):
            if event == "call" and next(calls) == moment:
                sys.setprofile(before)
                view.shutdown(wait=False, cancel_futures=True)

        sys.setprofile(shut_down_then)
        try:
            stage = root.then(str, on=view)
        finally:
            sys.setprofile(before)
        root.set_result(1)
        pool.shutdown()
        assert stage.done()
        assert other.result(0) == "1"
        if next(calls) <= moment:
            assert moment > 3
            break


@within(30)
def test_a_view_of_a_view_forgets_what_is_refused():
    """When the executor beneath was shut down, all views on the way are free to end."""
    pool = ThreadPoolExecutor(1)
    inner = limit(pool, concurrency=1)
    outer = limit(inner, concurrency=1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        outer.submit(abs, 1)
    outer.shutdown()
    inner.shutdown()
    assert "shut down" in repr(inner)
