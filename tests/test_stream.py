"""`Stream`: many items through a pipeline, within a window."""

from __future__ import annotations

import _thread
import ast
import asyncio
import collections
import concurrent.futures as cf
import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
import tenacity
import trio

import futurechain
import guard
from futurechain import INLINE, Pipeline
from futurechain.testing import ManualClock
from guard import share
from steps import (
    crowd,
    fail_on_threes,
    handled_here,
    increment,
    meet,
    outlast_the_signal,
    stop,
    times_ten,
)

KINDS = ("inline", "threads", "processes", "mixed", "wrapped", "limited")


@pytest.fixture(params=KINDS)
def recipe(request):
    """``(value + 1) * 10``, in two steps, over each kind of executor and over a mixture."""
    with futurechain.ThreadPoolExecutor(2) as threads, futurechain.ProcessPoolExecutor(2) as processes:
        wrapped = futurechain.wrap_executor(cf.ThreadPoolExecutor(2))
        with wrapped:
            first, second = {
                "inline": (INLINE, None),
                "threads": (threads, None),
                "processes": (processes, None),
                "mixed": (threads, processes),
                "wrapped": (wrapped, processes),
                "limited": (futurechain.limit(threads, concurrency=1), futurechain.limit(processes, concurrency=1)),
            }[request.param]
            yield Pipeline().then(increment, on=first).then(times_ten, on=second)


def expected(items):
    return [(value + 1) * 10 for value in items]


# -- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 1, 2, 7, 100])
def test_results_in_order(recipe, window):
    """A stream hands out the results in the order of the items, whatever the window."""
    assert list(recipe.map(range(200), window=window)) == expected(range(200))


@pytest.mark.parametrize("window", [None, 1, 7])
def test_results_as_they_come(recipe, window):
    """With ``ordered=False`` every result comes once, in any order."""
    assert sorted(recipe.map(range(200), window=window, ordered=False)) == expected(range(200))


def test_an_empty_input(recipe):
    """No items, no results."""
    assert list(recipe.map([])) == []


def test_an_old_style_sequence():
    """What has only ``__getitem__`` can be iterated, too."""

    class Old:
        def __getitem__(self, index):
            if index > 2:
                raise IndexError
            return index

    assert list(Pipeline().then(increment).map(Old())) == [1, 2, 3]


def test_an_infinite_input(recipe):
    """The input may have no end; closing the stream ends it."""
    with recipe.map(itertools.count(), window=10) as stream:
        assert list(itertools.islice(stream, 500)) == expected(range(500))


def children():
    return tuple(sorted(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def memory():
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in ("self", *children())]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def held():
    """Return what a process may leak, but for memory."""
    return threading.active_count(), children(), len([*Path("/proc/self/fd").iterdir()])


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize(("kind", "seconds"), [("threads", 10), ("processes", 10), ("mixed", 60)])
def test_an_infinite_input_for_long(kind, seconds):
    """An infinite stream runs for as long as one likes in constant memory, processes included, and ends at once."""
    peaks, helds = [], []
    with futurechain.ThreadPoolExecutor(2) as threads, futurechain.ProcessPoolExecutor(2) as processes:
        both = {"threads": (threads, threads), "processes": (processes, processes), "mixed": (threads, processes)}
        first, second = both[kind]
        recipe = Pipeline().then(increment, on=first, timeout=3600).then(times_ten, on=second)
        end = time.monotonic() + seconds
        with recipe.map(itertools.count(), window=500) as stream:
            for number, result in enumerate(stream):
                assert result == (number + 1) * 10
                if number % 20_000 == 19_999:
                    peaks.append(memory())
                    helds.append(held())
                    if time.monotonic() > end:
                        break
        assert all(one.in_flight == 0 for one in stream.statistics())

    assert max(peaks[1:]) < 1.05 * peaks[0] + 2_000_000
    threads, workers, files = helds[0]
    assert {one[1] for one in helds} == {workers}
    assert max(one[2] for one in helds) <= files + 4
    assert helds[-1][0] <= threads + 4  # callback threads come and go


def test_streams_of_streams(pool):
    """A stream is an iterable: two recipes and a function in between are one flow."""
    first = Pipeline().then(range, on=pool)
    second = Pipeline().then(times_ten, on=pool)

    flat = itertools.chain.from_iterable(first.map(range(5), window=2))

    assert list(second.map(flat, window=3)) == [10 * v for n in range(5) for v in range(n)]


def test_a_stream_inside_of_a_pool_of_one():
    """A task on a pool of one may consume a stream over that very pool."""
    with futurechain.ThreadPoolExecutor(1) as pool:
        recipe = Pipeline().then(increment, on=pool).then(times_ten)
        assert pool.submit(lambda: list(recipe.map(range(50), window=4))).result(30) == expected(range(50))
        assert sorted(pool.submit(lambda: list(recipe.map(range(50), ordered=False))).result(30)) == expected(range(50))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", ["processes first", "later", "another pool's", "its own", "in a view"])
def test_a_consumer_on_a_pool_of_one(kind, ordered):
    """The only worker of a pool may consume a stream whose steps come to its pool while it waits: it runs them."""
    with futurechain.ThreadPoolExecutor(1) as pool, futurechain.ProcessPoolExecutor(2) as processes:
        first, on = {
            "processes first": (increment, processes),
            "later": (lambda value: futurechain.delay(0.001, value + 1), INLINE),
            "another pool's": (lambda value: processes.submit(increment, value), INLINE),
            "its own": (lambda value: pool.submit(increment, value), INLINE),
            "in a view": (increment, futurechain.limit(pool, concurrency=1)),
        }[kind]
        recipe = Pipeline().then(first, on=on).then(times_ten, on=pool)
        for window in (1, 5, 20) * 3:
            consumer = pool.submit(lambda window=window: list(recipe.map(range(40), window=window, ordered=ordered)))
            assert sorted(consumer.result(30)) == expected(range(40))


def test_a_worker_waits_for_whatever_comes_first(pool):
    """A consumer on a worker goes on with what is ready, though another item waits for the consumer itself."""
    gate = futurechain.Future()
    recipe = Pipeline().then(lambda value: futurechain.delay(0.01, value) if value else gate)

    def consume():
        with recipe.map(range(3), ordered=False) as stream:
            found = [next(stream), next(stream)]
            gate.set_result(0)
            return [*found, *stream]

    assert pool.submit(consume).result(30) == [1, 2, 0]


def test_streams_inside_of_streams(pool):
    """A step may consume a stream over its own pool, at any depth, on all workers at once."""

    def total(value):
        return sum(Pipeline().then(increment, on=pool).map(range(value), window=3))

    def total_of_totals(value):
        return sum(Pipeline().then(total, on=pool).map(range(value)))

    sums = [sum(n * (n + 1) // 2 for n in range(value)) for value in range(8)]
    assert list(Pipeline().then(total_of_totals, on=pool).map(range(8), window=4)) == sums
    assert pool.submit(abs, -5).then(total_of_totals).addCallback(total).result(30) == sum(range(1, sums[5] + 1))


def test_a_stream_in_a_chain_that_has_begun():
    """After the shutdown of the pool was called, tasks and handlers of its begun chains may still use pipelines."""
    closing, found = threading.Event(), []
    with futurechain.ThreadPoolExecutor(2) as pool:
        view = futurechain.limit(pool, concurrency=2)
        recipe = Pipeline().then(increment, on=pool).then(times_ten, on=view)

        def use(_):
            found.append(list(recipe.map(range(20))))
            found.append([recipe.submit(value).result() for value in range(20)])
            found.append(list(Pipeline().then(increment, on=pool).then(times_ten).map(range(20))))

        pool.submit(closing.wait, 30).then(use)
        pool.submit(closing.wait, 30).addCallback(use)
        threading.Timer(0.05, closing.set).start()

    assert found == [expected(range(20))] * 6
    with pytest.raises(RuntimeError, match="shut down"):
        recipe.map([1])


# -- the window -------------------------------------------------------------------------------------------------------


def test_nothing_starts_before_the_first_next(recipe):
    """Neither the input is touched nor a step started before the first ``next``."""
    touched = []

    class Items:
        def __iter__(self):
            touched.append(1)
            return iter([1])

    stream = recipe.map(Items())

    assert touched == []
    assert next(stream) == 20
    assert touched == [1]


def most_inside(count, stream_of):
    """How many of so many items were at most between "read" and "handed out"; all of them come out."""
    read, handed, most = 0, 0, 0

    def items():
        nonlocal read, most
        for value in range(count):
            read += 1
            most = max(most, read - handed)
            yield value

    for _ in stream_of(items()):
        handed += 1
    assert handed == count
    return most


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("window", [1, 2, 5, 40])
def test_the_window_bounds_what_is_inside(recipe, window, ordered):
    """At most a window of items is anywhere between "read" and "handed to the consumer"."""
    assert most_inside(300, lambda items: recipe.map(items, window=window, ordered=ordered)) <= window


def test_a_ready_result_goes_before_reading_on():
    """When half of the window is under way, a result that is ready goes first."""
    read = []
    stream = Pipeline().then(increment).map((read.append(v) or v for v in range(100)), window=10)

    assert next(stream) == 1
    assert len(read) == 5
    assert next(stream) == 2
    assert len(read) == 6


def test_reading_ends_when_something_is_ready(pool):
    """While more than half of the window is read, since there was nothing else to do, what comes goes first."""
    gate, read = threading.Event(), []

    def items():
        for value in itertools.count():
            read.append(value)
            if value == 70:
                gate.set()
                while not stream._flow.is_ready():
                    time.sleep(0.001)
            yield value

    with Pipeline().then(lambda value: gate.wait(30) and value, on=pool).map(items(), window=100) as stream:
        assert next(stream) == 0
        assert read == list(range(71))


def test_the_input_is_read_in_the_consumers_thread(pool):
    """``items`` is read inside of ``next``, in the thread that calls it."""
    threads = set()

    def items():
        for value in range(100):
            threads.add(threading.current_thread())
            yield value

    assert len(list(Pipeline().then(increment, on=pool).map(items(), window=8))) == 100
    assert threads == {threading.current_thread()}


def test_an_input_may_wait_for_earlier_results(recipe):
    """An item is let in before the next one is read: an input that waits for its outcome gets it."""
    done = threading.Semaphore(0)

    def items():
        yield 1
        assert done.acquire(timeout=30)
        yield 2

    signalling = recipe.then(lambda v: done.release() or v, on=INLINE)

    assert list(signalling.map(items(), window=10)) == [20, 30]


def test_the_default_window_keeps_every_worker_busy():
    """By default the window is large enough for every worker, and for twice each ``concurrency``."""
    together = threading.Barrier(20)
    with futurechain.ThreadPoolExecutor(20) as pool:
        recipe = Pipeline().then(lambda value: together.wait(30) * 0, on=pool)
        assert list(recipe.map(range(40))) == [0] * 40

    waiting = []
    recipe = Pipeline().then(lambda value: waiting.append(futurechain.Future()) or waiting[-1], concurrency=50)
    items = (len(waiting) >= 50 and waiting[value - 50].set_result(value) for value in itertools.count())
    with recipe.map(items) as stream:
        assert next(stream) == 50


def test_the_default_window_of_processes(tmp_path):
    """Each worker process has something to do, too."""
    with futurechain.ProcessPoolExecutor(4) as processes:
        recipe = Pipeline().then(meet, on=processes)
        assert list(recipe.map([(str(tmp_path), number, 4) for number in range(12)])) == list(range(12))


def test_the_default_window_grows_with_the_trips(processes):
    """It holds four trips for each worker, as long as they are by then: small items are read far ahead."""
    assert most_inside(10_000, Pipeline().then(increment, on=processes).map) > 100


@pytest.mark.parametrize("kind", ["threads", "inline"])
def test_concurrency_bounds_a_step(pool, kind):
    """At most ``concurrency`` items are being run in the step at once."""
    now, most, lock = 0, 0, threading.Lock()

    def step(value):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.001)
        with lock:
            now -= 1
        return value

    on = pool if kind == "threads" else INLINE
    before = Pipeline().then(increment, on=pool)
    with futurechain.ThreadPoolExecutor(8) as many:
        bounded = before.then(step, on=many if kind == "threads" else on, concurrency=3)
        assert list(bounded.map(range(60))) == list(range(1, 61))

    assert most <= 3


def test_concurrency_of_coroutines():
    """A step that waits for a coroutine is being run until that ends, and holds no thread."""
    now, most = 0, 0

    async def step(value):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await futurechain.delay(0.001)
        now -= 1
        return value

    assert list(Pipeline().then(step, concurrency=4).map(range(40), window=20)) == list(range(40))
    assert most == 4


@pytest.mark.parametrize("batch", ["auto", 3])
def test_concurrency_bounds_a_step_on_processes(tmp_path, batch):
    """At most ``concurrency`` items are being run in a step elsewhere, of fused ones, too, and in batches."""
    with futurechain.ProcessPoolExecutor(4) as processes:
        recipe = Pipeline().then(crowd, on=processes, batch=batch).then(crowd, concurrency=2)
        found = list(recipe.map([(str(tmp_path), number) for number in range(40)], window=30))

    assert [number for _, number, *_ in found] == list(range(40))
    assert max(most for *_, most in found) <= 2


# -- errors -----------------------------------------------------------------------------------------------------------


def picky(recipe):
    return recipe.then(lambda v: fail_on_threes(v // 10 - 1), on=INLINE)


def test_the_first_failure_is_raised_at_its_place(recipe):
    """What comes before the failure is handed out, then it is raised, and the stream is at its end."""
    stream = picky(recipe).map(range(100), window=20)

    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no threes: 3"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_failures_can_be_handed_out(recipe):
    """With ``return_exceptions=True`` failures are results."""
    found = list(picky(recipe).map(range(25), return_exceptions=True))

    assert [one for one in found if not isinstance(one, ValueError)] == [v for v in range(25) if v % 10 != 3]
    assert [str(found[index]) for index in (3, 13, 23)] == [f"no threes: {v}" for v in (3, 13, 23)]


def test_a_failure_without_order(recipe):
    """Without order, the first failure is raised when its turn has come."""
    with pytest.raises(ValueError, match="no threes"):
        list(picky(recipe).map(itertools.count(), ordered=False))


class Sloppy(cf.ThreadPoolExecutor):
    """An executor that does not claim its futures: one can be cancelled while its call runs, which goes on."""

    def submit(self, fn, /, *args, **kwargs):
        future = self.last = cf.Future()

        def run():
            value = fn(*args, **kwargs)
            with contextlib.suppress(cf.InvalidStateError):
                future.set_result(value)

        threading.Thread(target=run, daemon=True).start()
        return future


@pytest.mark.parametrize("kind", ["runners", "slots"])
def test_a_task_that_runs_although_it_was_cancelled(kind):
    """Its item is done by it and by nobody else, and what it holds, a worker or a slot, is given back once."""
    sloppy, inside, most, done = Sloppy(1 if kind == "runners" else 4), [], [], []
    on = sloppy if kind == "runners" else futurechain.limit(sloppy, concurrency=4)

    def work(value):
        inside.append(value)
        most.append(len(inside))
        done.append(value)
        if value % 3 == 0:
            sloppy.last.cancel()
        time.sleep(0.001)  # so that one too many would meet this one
        inside.remove(value)
        return value

    stream = Pipeline().then(work, on=on, concurrency=None if kind == "runners" else 1).map(range(60), window=20)
    assert list(stream) == sorted(done) == [*range(60)]
    assert max(most) == 1


def test_what_nobody_wants_is_cancelled():
    """When an item fails, those after it are cancelled at once, those before it go on."""
    gate, full, ran = threading.Event(), threading.Event(), []

    def step(value):
        ran.append(value)
        if value == 0:
            gate.wait(30)
        elif value == 1:
            full.wait(30)
            raise ValueError(value)
        return value

    def items():
        for value in range(50):
            if value == 49:
                full.set()
            yield value

    with futurechain.ThreadPoolExecutor(2) as pool:
        stream = Pipeline().then(step, on=pool).map(items(), window=50)
        threading.Timer(0.05, gate.set).start()
        assert next(stream) == 0
        with pytest.raises(ValueError, match="1"):
            next(stream)
        (figures,) = stream.statistics()

    assert ran == [0, 1]
    assert figures.cancelled >= 47
    assert (figures.started, figures.succeeded, figures.failed, figures.in_flight) == (2, 1, 1, 0)


def test_a_failure_waits_for_what_runs():
    """A failure is raised when nothing runs any more."""
    started, gate, over = threading.Event(), threading.Event(), []

    def step(value):
        if value == 0:
            started.wait(30)
            raise ValueError
        started.set()
        gate.wait(30)
        over.append(value)

    with futurechain.ThreadPoolExecutor(2) as pool:
        threading.Timer(0.05, gate.set).start()
        with pytest.raises(ValueError):
            next(Pipeline().then(step, on=pool).map(range(2)))
        assert over == [1]


def test_stop_iteration_in_a_step(recipe):
    """A step that raises StopIteration fails with a RuntimeError from it, and does not end the stream."""
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        list(recipe.then(stop).map(range(3)))

    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
def test_no_error_passes_for_the_end(pool, error):
    """What ends loops is a RuntimeError when a step raises it, or returns a future that fails with it."""

    def step(value):
        if value == 1:
            raise error(value)
        return futurechain.fail(error(value)) if value == 2 else value

    async def main(recipe):
        return [one async for one in recipe.map(range(4), return_exceptions=True)]

    for on in (INLINE, pool):
        recipe = Pipeline().then(step, on=on)
        for found in (list(recipe.map(range(4), return_exceptions=True)), asyncio.run(main(recipe))):
            assert [type(one) for one in found] == [int, RuntimeError, RuntimeError, int]
        with pytest.raises(RuntimeError, match=error.__name__):
            list(recipe.map(range(4)))
        assert isinstance(recipe.submit(1).exception(), RuntimeError)


def test_an_input_whose_error_is_the_end_of_async_loops():
    """An input that raises StopAsyncIteration ends no ``async for`` either."""

    class Items:
        def __iter__(self):
            return self

        def __next__(self):
            raise StopAsyncIteration

    async def main():
        return [one async for one in Pipeline().then(increment).map(Items())]

    with pytest.raises(RuntimeError, match="the input raised StopAsyncIteration"):
        asyncio.run(main())


@pytest.mark.parametrize("every", [1, 2])
def test_failures_from_the_end_are_linear(every):
    """Failures that come from the last item to the first each cost the same: nothing is looked through each time."""

    def wait(stream):
        with pytest.raises(ValueError):
            next(stream)

    def measure(count):
        futures = [futurechain.Future() for _ in range(count)]
        stream = Pipeline().then(futures.__getitem__).map(range(count), window=count)
        waiter = threading.Thread(target=wait, args=(stream,))
        waiter.start()
        while not stream._flow.is_waited_for():
            time.sleep(0.001)
        began = time.perf_counter()
        for future in futures[count - 1 : 0 : -every]:
            future.set_exception(ValueError(1))
        seconds = time.perf_counter() - began
        futures[0].set_exception(ValueError(0))
        waiter.join()
        return seconds / count

    small = min(measure(300) for _ in range(4))
    assert min(measure(4800) for _ in range(3)) < 6 * small


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, BaseException, asyncio.CancelledError])
def test_what_is_no_exception_ends_the_stream_at_once(recipe, error):
    """Whatever an input raises that is no `Exception` goes right to the consumer, and nothing is left running."""

    def items():
        yield from range(5)
        raise error

    stream = recipe.map(items(), window=30)
    with pytest.raises(error):
        list(stream)
    assert all(one.in_flight == 0 for one in stream.statistics())
    with pytest.raises(StopIteration):
        next(stream)


def test_an_error_of_the_input(recipe):
    """An exception of the input is raised after the results of what was read before it; nothing is left."""

    def items():
        yield from range(5)
        raise LookupError("no more")

    stream = recipe.map(items())
    found = list(itertools.islice(stream, 5))

    assert found == expected(range(5))
    with pytest.raises(LookupError, match="no more"):
        next(stream)
    assert all(one.in_flight == 0 for one in stream.statistics())


def test_ctrl_c_in_the_input(recipe):
    """A KeyboardInterrupt ends the stream at once, with nothing left running."""

    def items():
        yield from range(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(recipe.map(items(), window=30))


def test_the_notes_name_the_step(recipe):
    """An error carries a note with the name of its step, of how many, and where."""
    failing = recipe.then(fail_on_threes, name="picky", on=INLINE)

    with pytest.raises(ValueError) as caught:
        list(Pipeline().then(fail_on_threes, name="picky").map([3]))
    assert caught.value.__notes__ == ["raised in stage picky, 1 of 1, on INLINE"]
    assert list(failing.map([1])) == [20]


# -- ending -----------------------------------------------------------------------------------------------------------


def test_closing_ends_everything(recipe):
    """After ``close`` nothing runs any more, and nothing is handed out."""
    stream = recipe.map(itertools.count(), window=20)
    next(stream)
    stream.close()
    stream.close()

    assert all(one.in_flight == 0 for one in stream.statistics())
    with pytest.raises(RuntimeError, match="closed"):
        next(stream)


def test_closing_waits_for_what_runs():
    """``close`` waits for the step that a thread is in."""
    started, gate, over = threading.Event(), threading.Event(), []

    def step(value):
        if value == 0:
            return value
        started.set()
        gate.wait(30)
        return over.append(value)

    with futurechain.ThreadPoolExecutor(1) as pool, Pipeline().then(step, on=pool).map(range(10)) as stream:
        next(stream)
        started.wait(30)
        threading.Timer(0.02, gate.set).start()
        stream.close()
        assert over == [1]


def test_a_step_may_close_its_stream(recipe):
    """A step that closes its own stream does not wait for itself; the consumer learns that this is not all."""
    stream = recipe.then(lambda value: value < 100 or stream.close(), on=INLINE).map(itertools.count(), window=8)

    with pytest.raises(RuntimeError, match="closed"):
        list(stream)
    assert all(one.in_flight == 0 for one in stream.statistics())


@pytest.mark.parametrize("kind", ["threads", "callbacks"])
def test_a_step_that_closes_its_stream_in_another_thread(pool, processes, kind):
    """The same where the step, or the handler of an error, runs in another thread than the consumer's."""
    steps = {
        "threads": Pipeline().then(lambda value: value < 20 or stream.close(), on=pool),
        "callbacks": Pipeline().then(fail_on_threes, on=processes).catch(lambda error: stream.close()),
    }
    stream = steps[kind].map(itertools.count(), window=8)

    with pytest.raises(RuntimeError, match="closed"):
        list(stream)
    assert not stream._flow.running


def test_closing_in_another_thread(pool):
    """A consumer that waits while another thread closes the stream gets a RuntimeError: what it has is not all."""
    started, gate = threading.Event(), threading.Event()
    stream = Pipeline().then(lambda value: started.set() or gate.wait(30), on=pool).map(range(10))

    def close():
        started.wait(30)
        threading.Timer(0.02, gate.set).start()
        stream.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(RuntimeError, match="closed"):
        next(stream)
    closer.join()


@pytest.mark.parametrize("reading", ["sync", "async"])
def test_a_closed_stream_reads_no_more(pool, reading):
    """Closing while the input is read ends the reading after the item that is being read; the rest stays unread."""
    read = []

    def numbers():
        for number in range(100):
            read.append(number)
            if number == 3:
                closer = threading.Thread(target=stream.close)
                closer.start()
                closer.join(20)
                assert not closer.is_alive()
            yield number

    async def numbers_later():
        for number in numbers():
            yield number

    async def consume():
        return await anext(stream)

    stream = Pipeline().then(increment, on=pool).map(numbers() if reading == "sync" else numbers_later(), window=1000)
    with pytest.raises(RuntimeError, match="closed"):
        next(stream) if reading == "sync" else asyncio.run(consume())
    assert read == [0, 1, 2, 3]


def closing_waits_for(stream, begun, goes_on, ended):
    """Consume `stream` in one thread, close it in another one meanwhile; see that this waits until `ended`."""
    consumer = threading.Thread(target=_drain, args=(stream,), daemon=True)
    consumer.start()
    assert begun.wait(20)
    found = []
    closer = threading.Thread(target=lambda: (stream.close(), found.append(ended())), daemon=True)
    closer.start()
    wait_until(lambda: "closed" in repr(stream))
    closer.join(0.05)
    assert closer.is_alive()
    goes_on.set()
    closer.join(20)
    consumer.join(20)
    assert found == [True]


@pytest.mark.parametrize("kind", ["INLINE", "thread", "slots", "async def", "async def, later", "after a wait"])
def test_closing_in_another_thread_waits_for_every_kind_of_step(pool, kind):
    """Also for one in the consumer's own thread, and for a coroutine that is just in a thread of its pool."""
    begun, goes_on, active = threading.Event(), threading.Event(), []

    def work(value):
        active.append(value)
        begun.set()
        goes_on.wait(20)
        active.remove(value)
        return value

    async def coroutine(value):
        return work(value)

    async def later(value):
        await pool.submit(int)
        return work(value)

    async def tidy(value):
        try:
            work(value)
        finally:
            active.append("tidy")
            try:
                await pool.submit(int)
            finally:
                active.remove("tidy")

    step = {"async def": coroutine, "async def, later": later, "after a wait": tidy}.get(kind, work)
    on = {"INLINE": INLINE, "slots": futurechain.limit(pool, concurrency=1)}.get(kind, pool)
    stream = Pipeline().then(step, on=on, concurrency=1).map([1, 2, 3])
    closing_waits_for(stream, begun, goes_on, lambda: not active)


class Hesitant(cf.Executor):
    """Takes its time to submit."""

    def __init__(self):
        self.begun, self.goes_on, self.submitted = threading.Event(), threading.Event(), False

    def submit(self, fn, /, *args, **kwargs):
        self.begun.set()
        assert self.goes_on.wait(20)
        self.submitted = True
        return cf.Future()

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


def test_closing_waits_for_what_is_just_being_submitted():
    """What the consumer's thread has begun to submit is not found out after ``close`` has returned."""
    executor = Hesitant()
    stream = Pipeline().then(increment, on=executor).map([1, 2, 3])
    closing_waits_for(stream, executor.begun, executor.goes_on, lambda: executor.submitted)


def test_closing_waits_for_workers_that_are_stopped(tmp_path):
    """Where a step that runs can be stopped, ``close`` returns when its worker has ended."""
    path = tmp_path / "pid"
    with futurechain.ProcessPoolExecutor(1, stop_cancelled=True, heal=True) as processes:
        stream = Pipeline().then(outlast_the_signal, on=processes).map([str(path)])
        consumer = threading.Thread(target=_drain, args=(stream,), daemon=True)
        consumer.start()
        wait_until(lambda: path.exists() and path.read_text())
        stream.close()
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
        consumer.join(20)


def test_a_coroutine_holds_its_slot_until_it_ends(pool):
    """Also when its step has timed out: what bounds the step is what really runs."""
    active, most = [], []

    async def work(value):
        active.append(value)
        most.append(len(active))
        time.sleep(0.05)  # noqa: ASYNC251  # it is to be in the thread
        active.remove(value)

    pipeline = Pipeline().then(work, on=pool, concurrency=1, timeout=0.01)
    results = list(pipeline.map(range(4), return_exceptions=True))
    assert [type(one) for one in results] == [TimeoutError] * 4
    assert max(most) == 1


@pytest.mark.parametrize("on", ["INLINE", "threads"])
def test_closing_while_clean_ups_wait(pool, on):
    """A coroutine whose clean-up waits, more than once, for what never comes is left to itself; the others, too."""

    class Block:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *what):
            await futurechain.Future()

    async def step(value):
        async with Block(), Block():
            begun.append(value)
            await futurechain.Future()

    begun = []
    stream = Pipeline().then(step, on=INLINE if on == "INLINE" else pool).map([1, 2], window=2)
    consumer = threading.Thread(target=_drain, args=(stream,), daemon=True)
    consumer.start()
    wait_until(lambda: len(begun) == 2)
    closer = threading.Thread(target=stream.close, daemon=True)
    closer.start()
    for thread in closer, consumer:
        thread.join(20)
        assert not thread.is_alive()


def test_a_coroutine_that_never_begins_gives_its_slot_back():
    """One whose pool cancels what it has before its first step: it has not begun, and closing does not wait for it."""
    gate, begun = threading.Event(), []

    async def step(value):
        begun.append(value)

    def hold(value):
        gate.wait(20)
        return value

    with futurechain.ThreadPoolExecutor(1) as one:
        stream = Pipeline().then(step, on=one, concurrency=1).map([1, 2])
        one.submit(hold, 1)
        consumer = threading.Thread(target=_drain, args=(stream,), daemon=True)
        consumer.start()
        one.shutdown(wait=False, cancel_futures=True)
        gate.set()
        stream.close()
        consumer.join(20)
        assert not consumer.is_alive()


def test_closing_where_workers_are_stopped_ends_always():
    """Whenever it comes: also when a worker gets what is just being cancelled."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with futurechain.ProcessPoolExecutor(2, stop_cancelled=True, heal=True) as processes:
            for number in range(share(90)):
                stream = Pipeline().then(increment, on=processes, batch=1).map(range(200), window=20)
                for _ in range(number % 20):
                    next(stream)
                closer = threading.Thread(target=stream.close, daemon=True)
                closer.start()
                closer.join(30)
                assert not closer.is_alive()
    finally:
        sys.setswitchinterval(before)


def test_closing_while_the_input_is_asked_for_an_iterator(pool):
    """The consumer is told that the stream is closed: nothing is not all that there was to come."""

    class Closing:
        def __iter__(self):
            stream.close()
            return iter([1, 2, 3])

    stream = Pipeline().then(increment, on=pool).map(Closing())
    with pytest.raises(RuntimeError, match="closed"):
        list(stream)


def test_no_step_runs_while_the_end_of_the_input_is_handled():
    """What a step raises, or a worker that is forked just then, has nothing to do with it."""
    with futurechain.ProcessPoolExecutor(1) as processes:
        assert list(Pipeline().then(handled_here, on=processes, batch=5).map([1, 2])) == ["None", "None"]
    assert list(Pipeline().then(handled_here, on=INLINE).then(str, on=INLINE).map([1])) == ["None"]


def test_a_closed_stream_leaves_no_failure_behind(pool, caplog):
    """An item that failed, and is about to be tried again when nobody wants it any more, is nobody's failure."""

    def fail(item):
        raise ValueError(item)

    for number in range(share(100)):
        policy = tenacity.Retrying(wait=tenacity.wait_fixed(0.001 * (number % 2)))
        with Pipeline().then(fail, on=pool, retry=policy).map(range(20), return_exceptions=True) as stream:
            threading.Timer(0.0005, stream.close).start()
            with contextlib.suppress(RuntimeError):
                next(stream)
    gc.collect()
    assert not [record for record in caplog.records if "nobody looked at it" in record.getMessage()]


def test_one_consumer_at_a_time(pool):
    """A second thread in ``next`` gets a RuntimeError; nothing is lost, handed out twice, or out of order."""
    gate, waiting = threading.Event(), threading.Event()
    stream = Pipeline().then(lambda value: waiting.set() or (gate.wait(30) and value), on=pool).map(range(50), window=4)
    found, refused = [], []

    first = threading.Thread(target=lambda: found.extend(stream))
    first.start()
    waiting.wait(30)
    while not stream._flow.is_waited_for():
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="another consumer is in it"):
        next(stream)
    gate.set()
    first.join()
    assert found == list(range(50))

    stream, found = Pipeline().then(increment, on=pool).map(range(3000), window=20), ([], [])

    def consume(mine):
        while True:
            try:
                mine.append(next(stream))
            except StopIteration:
                return
            except RuntimeError:
                refused.append(1)

    with switching_often():
        threads = [threading.Thread(target=consume, args=(mine,)) for mine in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found[0] + found[1]) == list(range(1, 3001))
    assert all(mine == sorted(mine) for mine in found)


@contextlib.contextmanager
def switching_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_a_stream_is_good_for_one_pass(recipe):
    """Iterating a stream that was consumed is a RuntimeError that says so; ``next`` says that it is at its end."""
    stream = recipe.map([1])

    assert list(stream) == [20]
    with pytest.raises(StopIteration):
        next(stream)
    with pytest.raises(RuntimeError, match=r"one pass; call pipeline.map"):
        iter(stream)


def test_a_dropped_stream_cancels(pool):
    """A stream that is dropped cancels what has not begun, and does not wait."""
    gate, ran = threading.Event(), []

    def step(value):
        if value:
            gate.wait(30)
        ran.append(value)

    stream = Pipeline().then(step, on=pool).map(range(100), window=50)
    next(stream)
    flow = stream._flow
    dead = weakref.ref(stream)
    del stream
    gc.collect()
    assert dead() is None
    for _ in range(3000):
        if flow.closed:
            break
        threading.Event().wait(0.001)
    gate.set()
    pool.shutdown()

    assert len(ran) <= 3


def test_results_are_let_go(pool):
    """A result lives as long as the consumer holds it: memory does not grow with the number of items."""

    class Big:
        pass

    alive = weakref.WeakSet()

    def make(value):
        big = Big()
        alive.add(big)
        return big

    most = 0
    for _ in Pipeline().then(make, on=pool).map(range(2000), window=10):
        most = max(most, len(alive))

    assert most <= 12


# -- timeouts and retries ---------------------------------------------------------------------------------------------


def test_a_timeout_in_a_stream(pool):
    """An item whose run takes too long fails alone, with TimeoutError; the thread is still at it."""
    gate = threading.Event()
    recipe = Pipeline().then(lambda v: gate.wait(30) if v == 3 else v, on=pool, timeout=0.05)
    recipe = recipe.catch(TimeoutError, lambda e: "late")

    stream = recipe.map(range(6))
    assert list(itertools.islice(stream, 6)) == [0, 1, 2, "late", 4, 5]
    gate.set()


def test_a_run_that_ends_too_late():
    """What a run gives after its time is of no interest any more, wherever its item is by then; no timer is left."""
    gate, handled = threading.Event(), futurechain.Future()

    def step(value):
        clock.advance(2)
        gate.wait(30)
        return "too late"

    with ManualClock() as clock, futurechain.ThreadPoolExecutor(2) as pool:
        recipe = Pipeline().then(step, on=pool, timeout=1).catch(TimeoutError, lambda error: handled, on=INLINE)
        stream = recipe.then(lambda value: value, timeout=3600).map([1])
        waiting = pool.submit(lambda: list(stream))
        for _ in range(3000):
            if stream.statistics()[1].in_flight:
                break
            time.sleep(0.001)
        gate.set()
        while stream.statistics()[0].in_flight:
            time.sleep(0.001)
        handled.set_result("handled")
        assert waiting.result(30) == ["handled"]
        assert clock.pending == 0

    first, second, third = stream.statistics()
    assert (first.started, first.succeeded, first.failed) == (1, 0, 1)
    assert (second.succeeded, third.succeeded) == (1, 1)


def test_the_time_in_a_queue_does_not_count():
    """``timeout`` counts from when the item begins to run in the step."""
    with ManualClock() as clock, futurechain.ThreadPoolExecutor(1) as pool:

        def step(value):
            clock.advance(0.9)
            return value

        assert list(Pipeline().then(step, on=pool, timeout=1).map(range(10))) == list(range(10))


def test_a_retry_in_a_stream(recipe):
    """``retry`` is for each item alone; the others go on meanwhile."""
    failed = set()

    def flaky(value):
        if value % 20 and value not in failed:
            failed.add(value)
            raise ConnectionError(value)
        return value

    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.001))
    stream = recipe.then(flaky, on=INLINE, retry=policy).map(range(30))

    assert list(stream) == expected(range(30))
    last = stream.statistics()[-1]
    assert (last.started, last.succeeded, last.failed, last.in_flight) == (30, 30, 0, 0)


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("kind", ["threads", "view", "wrapped"])
def test_a_pool_that_is_shut_down_while_a_retry_waits(kind, keeps):
    """The step cannot be run again: the item fails with that, whatever the policy says, and the stream ends."""
    beneath = cf.ThreadPoolExecutor(1)
    make = {
        "threads": lambda: futurechain.ThreadPoolExecutor(1),
        "view": lambda: futurechain.limit(futurechain.ThreadPoolExecutor(1), concurrency=1),
        "wrapped": lambda: futurechain.wrap_executor(beneath),
    }
    pool = make[kind]()

    def fail_and_shut_down(item):
        pool.shutdown(wait=False)
        raise ValueError(item)

    policy = tenacity.Retrying(wait=tenacity.wait_fixed(0.05))
    stream = Pipeline().then(fail_and_shut_down, on=pool, retry=policy).map([1], return_exceptions=keeps)
    ended = futurechain.Future()

    def consume():
        try:
            ended.set_result(next(stream))
        except BaseException as error:
            ended.set_result(error)

    threading.Thread(target=consume, daemon=True).start()
    error = ended.result(20)
    assert isinstance(error, RuntimeError)
    assert "after shutdown" in str(error)
    stream.close()
    beneath.shutdown()


def test_a_process_pool_that_is_shut_down_while_a_retry_waits():
    """There, too."""
    pool = futurechain.ProcessPoolExecutor(1)

    def shut_down(state):
        pool.shutdown(wait=False)
        return 0.01

    policy = tenacity.Retrying(wait=shut_down)
    with Pipeline().then(int, on=pool, retry=policy).map(["x"]) as stream, cf.ThreadPoolExecutor(1) as consumers:
        assert "after shutdown" in str(consumers.submit(next, stream).exception(20))


def test_closing_while_a_policy_is_asked(pool):
    """An item that is dropped in that moment is not tried again, and nothing waits for it."""
    asked, go_on = threading.Event(), threading.Event()

    def before(state):
        if state.attempt_number > 1 or not asked.is_set():
            asked.set()
            go_on.wait(20)

    def fail(item):
        raise ValueError(item)

    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.01), before=before)
    stream = Pipeline().then(fail, on=pool, retry=policy).map([1])
    consumer = threading.Thread(target=_drain, args=(stream,), daemon=True)
    consumer.start()
    assert asked.wait(20)
    closer = threading.Thread(target=stream.close, daemon=True)
    closer.start()
    wait_until(lambda: "closed" in repr(stream))
    go_on.set()
    closer.join(20)
    consumer.join(20)
    assert not closer.is_alive()
    assert not consumer.is_alive()


def _drain(stream):
    with contextlib.suppress(RuntimeError, ValueError):
        for _ in stream:
            pass


def wait_until(condition):
    """Wait for what another thread is about to do."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_closing_withdraws_a_retry(pool):
    """Closing the stream cancels an item that waits for its next attempt."""
    tried = threading.Event()

    def never(value):
        if value == 0:
            return value
        tried.set()
        raise ConnectionError

    policy = tenacity.Retrying(wait=tenacity.wait_fixed(3600))
    with ManualClock() as clock:
        with Pipeline().then(never, on=pool, retry=policy).map(range(2)) as stream:
            assert next(stream) == 0
            assert tried.wait(30)
        assert clock.pending == 0


def test_runs_of_an_item_that_follow_each_other_at_once():
    """The next run may come back from another thread before the one of the first has asked the policy to its end."""
    runs = collections.Counter()

    def flaky(value):
        runs[value] += 1
        if runs[value] < 3:
            raise ValueError(value)
        return value

    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)
        results = list(Pipeline().then(flaky, retry=policy).map(range(share(1000)), window=1))
    finally:
        sys.setswitchinterval(before)
    assert results == list(range(len(results)))
    assert set(runs.values()) == {3}


def test_a_handler_of_errors_has_no_bounds_of_its_own(pool):
    """``retry`` and ``timeout`` of a step are for its function, in a stream as in ``submit``."""
    calls = []

    def handle(error):
        calls.append(error)
        raise KeyError("handled")

    def take_long(error):
        threading.Event().wait(0.1)
        return "handled"

    bad = Pipeline().then(int, on=pool)
    retried = bad.then(str, handle, retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(3)))
    timed = bad.then(str, take_long, timeout=0.01)
    for one_by_one in (True, False):
        (error,) = [retried.submit("x").exception(30)] if one_by_one else retried.map("x", return_exceptions=True)
        assert isinstance(error, KeyError)
        assert len(calls) == 1
        calls.clear()
        assert (timed.submit("x").result(30) if one_by_one else next(timed.map("x"))) == "handled"


def test_the_figures_of_items_that_were_refused_or_dropped_add_up():
    """Each item that has begun a step has ended there, or counts as cancelled in the step where it was."""
    pool = futurechain.ThreadPoolExecutor(1)

    def shut_down(value):
        pool.shutdown(wait=False)
        return value

    stream = Pipeline().then(shut_down, on=INLINE).then(abs, on=pool).map(range(5), return_exceptions=True)
    list(stream)
    second = stream.statistics()[1]
    assert (second.started, second.failed) == (5, 5)
    with futurechain.ProcessPoolExecutor(1) as processes:
        for _ in range(20):
            with Pipeline().then(abs, on=processes).then(float, on=processes).map(range(400), window=60) as stream:
                for _ in range(20):
                    next(stream)
            first, last = stream.statistics()
            assert first.started <= first.succeeded + first.failed + first.cancelled
            assert last.started == last.succeeded + last.failed


LATE = """
import os, random, signal, sys, threading, time
from futurechain import Pipeline, ProcessPoolExecutor, ThreadPoolExecutor, limit
sys.setswitchinterval(1e-6)
signal.signal(signal.SIGINT, signal.default_int_handler)
begun, ended, late, chance = [], [], 0, random.Random(1)
def step(value):
    begun.append(value)
    time.sleep(0.002)
    ended.append(value)
def interrupt():
    time.sleep(chance.uniform(0, 0.0015))
    os.kill(os.getpid(), signal.SIGINT)
pool = ThreadPoolExecutor(2)
on = limit(pool, concurrency=2) if sys.argv[1] == "view" else pool
for _ in range(400):
    thread = threading.Thread(target=interrupt)
    try:
        with Pipeline().then(step, on=on).map(range(5), window=2) as stream:
            thread.start()
            for _ in stream:
                pass
            thread.join()
    except KeyboardInterrupt:
        pass
    late += len(begun) != len(ended)
    try:
        thread.join()
    except KeyboardInterrupt:
        thread.join()
print("late", late)
"""


@pytest.mark.parametrize("kind", ["threads", "view"])
def test_no_step_runs_on_after_ctrl_c(kind):
    """Wherever it comes: when the block of the stream is left, none of its steps is running."""
    guard.check(LATE.replace("sys.argv[1]", repr(kind)), prints="late 0", seconds=60)


# -- asyncio ----------------------------------------------------------------------------------------------------------


async def numbers(count):
    for value in range(count):
        await asyncio.sleep(0)
        yield value


@pytest.mark.parametrize("ordered", [True, False])
def test_async_for(recipe, ordered):
    """``async for`` reads a stream in an event loop, from an async input or from another."""

    async def main(items):
        async with recipe.map(items, ordered=ordered, window=9) as stream:
            return [result async for result in stream]

    assert sorted(asyncio.run(main(numbers(40)))) == expected(range(40))
    assert sorted(asyncio.run(main(range(40)))) == expected(range(40))


def test_the_loop_goes_on_meanwhile(pool):
    """While ``async for`` waits, the loop runs other tasks."""
    gate = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, gate.set)
        return [result async for result in Pipeline().then(lambda v: gate.wait(30), on=pool).map([1])]

    assert asyncio.run(main()) == [True]


def test_an_async_input_in_a_plain_loop(recipe):
    """An async input in a plain ``for`` is a TypeError that shows the remedy."""

    async def items():
        yield 1

    with pytest.raises(TypeError, match="async for"):
        list(recipe.map(items()))


def test_failures_in_async_for(recipe):
    """A failure is raised in ``async for`` as it is in ``for``, and the stream has ended."""

    async def main():
        stream = picky(recipe).map(numbers(30))
        with pytest.raises(ValueError, match="no threes: 3"):
            async for _ in stream:
                pass
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    asyncio.run(main())


def test_cancelling_the_consumer(pool):
    """Cancelling the task that reads a stream ends the stream."""
    gate, started = threading.Event(), futurechain.Future()

    def step(value):
        if value == 0:
            started.set_result(None)
        gate.wait(30)

    async def main():
        stream = Pipeline().then(step, on=pool).map(itertools.count(), window=10)

        async def consume():
            async for _ in stream:
                pass

        task = asyncio.create_task(consume())
        await started
        task.cancel()
        asyncio.get_running_loop().call_later(0.01, gate.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        return stream.statistics()

    assert all(one.in_flight == 0 for one in asyncio.run(main()))


def test_cancelling_the_consumer_twice(pool):
    """A task that is cancelled while it ends its stream leaves; the stream can still be closed, and waited for."""
    gate, started, over = threading.Event(), futurechain.Future(), []

    def step(value):
        started.set_result(None)
        gate.wait(30)
        over.append(value)

    async def main():
        stream = Pipeline().then(step, on=pool).map(range(9), window=1)
        task = asyncio.ensure_future(anext(stream))
        await started
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.01)
        assert task.cancelled()
        asyncio.get_running_loop().call_later(0.02, gate.set)
        await stream.aclose()
        assert over == [0]
        stream.close()

    asyncio.run(main())


def test_a_cancelled_trio_task_waits_for_what_runs(pool):
    """As under asyncio: when the block is left, nothing runs any more."""
    active = []

    def work(value):
        active.append(value)
        time.sleep(0.05)
        active.remove(value)

    async def main():
        with trio.move_on_after(0.01) as scope:
            async with Pipeline().then(work, on=pool).map(range(4)) as stream:
                async for _ in stream:
                    pass
        return scope.cancelled_caught, list(active)

    assert trio.run(main) == (True, [])


def test_a_coroutine_of_ours_that_closes_a_stream_under_trio(pool):
    """It is not trio's to be shielded: it goes on in a thread of the pool."""
    begun, gate, asked = threading.Event(), threading.Event(), []

    def work(value):
        begun.set()
        gate.wait(20)
        return value

    async def inner():
        stream = Pipeline().then(work, on=pool).map(range(3))
        asked.append(pool.submit(next, stream))
        begun.wait(20)
        threading.Timer(0.02, gate.set).start()
        await stream.aclose()

    async def main():
        await futurechain.ensure_future(inner())
        with trio.move_on_after(0.01) as scope:
            await trio.sleep(20)
        return scope.cancelled_caught

    assert trio.run(main)
    with pytest.raises(RuntimeError, match="closed"):
        asked[0].result(20)


def test_one_task_at_a_time(pool):
    """A second task in ``anext`` gets a RuntimeError; the first one gets everything."""

    async def main(items):
        stream = Pipeline().then(increment, on=pool).map(items, window=5)
        found = [], []

        async def consume(mine):
            async for one in stream:
                mine.append(one)

        outcomes = await asyncio.gather(*map(consume, found), return_exceptions=True)
        assert isinstance(outcomes[1], RuntimeError)
        assert "another consumer is in it" in str(outcomes[1])
        return found

    for items in (range(100), numbers(100)):
        assert asyncio.run(main(items)) == (list(range(1, 101)), [])


def test_an_async_input_is_read_within_the_window(recipe):
    """An async input is read in the consumer's task, and no further than the window."""
    read, handed, most, tasks = 0, 0, 0, set()

    async def items():
        nonlocal read, most
        for value in range(100):
            read += 1
            most = max(most, read - handed)
            tasks.add(asyncio.current_task())
            yield value
            await asyncio.sleep(0)

    async def main():
        nonlocal handed
        async for _ in recipe.map(items(), window=7):
            handed += 1
        assert tasks == {asyncio.current_task()}

    asyncio.run(main())
    assert handed == 100
    assert most <= 7


# -- statistics -------------------------------------------------------------------------------------------------------


def test_statistics(recipe):
    """``statistics`` is a tuple of records, one for each step, with its name and its counts."""
    stream = recipe.map(range(50))
    before = stream.statistics()
    list(stream)
    after = stream.statistics()

    assert [one.name for one in after] == ["increment", "times_ten"]
    assert [one.started for one in before] == [0, 0]
    for one in after:
        assert (one.started, one.succeeded, one.failed, one.cancelled, one.in_flight) == (50, 50, 0, 0, 0)
        assert one.seconds_run > 0
        assert one.seconds_queued >= 0
    with pytest.raises(AttributeError):
        after[0].started = 3


def test_statistics_of_handlers(recipe):
    """A step counts the items that it had something to do for; the others pass it by."""
    stream = picky(recipe).catch(ValueError, lambda e: None).then(lambda v: v).map(range(20))
    list(stream)
    *_, failing, handler, last = stream.statistics()

    assert (failing.started, failing.succeeded, failing.failed) == (20, 18, 2)
    assert (handler.started, handler.succeeded, handler.failed) == (2, 2, 0)
    assert (last.started, last.succeeded, last.failed) == (20, 20, 0)


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [f"pipeline/{name}.py" for name in ("flow", "runners", "stations", "trip_stations")] + ["executors/limit.py"],
)
def test_no_loop_inside_of_a_lock(source):
    """No loop stands directly in a ``with`` for a lock: CPython 3.13 might leave it locked after Ctrl-C."""
    tree = ast.parse((Path(futurechain.__file__).parent / source).read_text("utf-8"))
    locked = [
        node for node in ast.walk(tree) if isinstance(node, ast.With) and "lock" in ast.unparse(node.items[0]).lower()
    ]

    assert locked
    assert not [one for node in locked for one in ast.walk(node) if isinstance(one, ast.For | ast.While)]


INTERRUPTED = """
import gc, itertools, os, sys, threading, time
from pathlib import Path
import tenacity
from futurechain import INLINE, Pipeline, ProcessPoolExecutor, ThreadPoolExecutor, clock
from steps import increment, times_ten

def use(items, after):
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(2, stop_cancelled=True) as processes:
        places = {"inline": INLINE, "threads": threads, "processes": processes}
        recipe = Pipeline().then(increment, on=places[sys.argv[1]], timeout=3600)
        recipe = recipe.then(times_ten, on=places[sys.argv[2]], timeout=3600, retry=tenacity.Retrying())
        with recipe.map(items, window=50) as stream:
            for number, _ in enumerate(stream):
                if number == after:
                    os.write(1, b".")

def left():
    gc.collect()
    timers = [one for one in gc.get_objects() if isinstance(one, clock.Timer) and one.is_pending()]
    threads = sorted(thread.name for thread in threading.enumerate() if "callback" not in thread.name)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return timers, threads, children, len(os.listdir("/proc/self/fd"))

def settled(wanted):
    for _ in range(100):  # what a pool has for itself may end an instant after it
        if wanted(left()):
            break
        time.sleep(0.01)
    return left()

use(range(100), None)
before = settled(lambda left: left[1] == ["MainThread", "futurechain-clock"])
try:
    use(itertools.count(), 300)
except KeyboardInterrupt:
    print("interrupted")
after = settled(before.__eq__)
print("whole" if after == before else (before, after))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not tell what a process holds")
@pytest.mark.parametrize("first", ["inline", "threads", "processes"])
@pytest.mark.parametrize("second", ["inline", "threads", "processes"])
def test_ctrl_c_leaves_nothing(first, second):
    """After Ctrl-C, which the workers get as well, there is no thread, process, timer or file that was not before."""
    command = ["-W", "error", "-c", INTERRUPTED, first, second]
    ended = guard.run(command, after_start=lambda group: os.killpg(group, signal.SIGINT))

    assert (ended.out, ended.code, ended.left) == (".interrupted\nwhole\n", 0, False), ended.err


@pytest.mark.parametrize("step", range(6))
def test_ctrl_c_while_the_consumer_waits(pool, step):
    """Ctrl-C ends the stream wherever it meets the consumer, with nothing left running."""

    def interrupt(value):
        if value == 20 + step:
            _thread.interrupt_main()
        return value

    stream = Pipeline().then(interrupt, on=pool).then(times_ten).map(itertools.count(), window=5 + step)
    with pytest.raises(KeyboardInterrupt):
        for _ in stream:
            pass

    assert all(one.in_flight == 0 for one in stream.statistics())
    assert not stream._flow.running


def test_ctrl_c_in_a_step_of_the_main_thread():
    """A KeyboardInterrupt raised by a step that runs in the main thread goes to the program."""

    def step(value):
        if value == 3:
            raise KeyboardInterrupt
        return value

    with ManualClock() as clock:
        stream = Pipeline().then(step, timeout=3600).map(itertools.count(), window=4)
        with pytest.raises(KeyboardInterrupt):
            list(stream)
        with pytest.raises(StopIteration):
            next(stream)
        assert clock.pending == 0
