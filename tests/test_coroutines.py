"""Coroutines without an event loop, and the same ones under asyncio and trio."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextlib
import contextvars
import itertools
import sys
import threading
import time
import types

import pytest
import trio

import work
from futurechain import (
    Failure,
    Future,
    ThreadPoolExecutor,
    delay,
    ensure_future,
    fail,
    gather,
    inlineCallbacks,
    returnValue,
    succeed,
    wrap_executor,
)
from futurechain.defer import Deferred
from futurechain.errors import CancelledError, LostFutureError
from futurechain.testing import ManualClock
from garbage import collect_garbage, leaves_no_cycle

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


async def double(future):
    return 2 * await future


# -- inlineCallbacks --------------------------------------------------------------------------------------------------


def test_a_walk_through_results_and_errors():
    """Plain values come right back, futures' results come in, errors are raised at the yield."""
    later, failing, steps = Future(), Future(), []

    @inlineCallbacks
    def walk():
        steps.append((yield 1))
        steps.append((yield later))
        try:
            yield failing
        except KeyError as error:
            steps.append(type(error))
        return "end"

    future = walk()
    assert steps == [1]
    later.set_result(2)
    assert not future.done()
    failing.set_exception(KeyError())

    assert future.result(0) == "end"
    assert steps == [1, 2, KeyError]


def test_return_value():
    """returnValue ends the generator with a value; a returned future is waited for."""
    inner = Future()

    @inlineCallbacks
    def old_way():
        yield
        returnValue(5)

    @inlineCallbacks
    def returns_future():
        yield
        return inner

    future = returns_future()
    inner.set_result(6)

    assert old_way().result(0) == 5
    assert future.result(0) == 6


def test_yield_means_the_end_of_the_chain_and_await_the_very_future():
    """`yield d` waits for `d.final`, `await f` for f."""
    source = succeed(1)
    source.addCallback(work.double)

    @inlineCallbacks
    def generator():
        return (yield source)

    assert generator().result(0) == 2
    assert ensure_future(double(source)).result(0) == 2


def test_an_async_function():
    """inlineCallbacks takes async functions, too; exceptions pass out, BaseExceptions as well."""

    @inlineCallbacks
    async def leave(future):
        await future
        work.leave()

    source = Future()
    left = leave(source)
    source.set_result(0)

    assert inlineCallbacks(double)(succeed(4)).result(0) == 8
    assert isinstance(left.exception(0), SystemExit)


@pytest.mark.parametrize("given", [3, int])
def test_wrong_use(given):
    """What is no function, or gives no generator, is a TypeError that shows the right use."""
    with pytest.raises(TypeError, match=r"generator function"):
        inlineCallbacks(given)()


def test_foreign_futures():
    """A standard future may be yielded and awaited by wrapping it."""
    foreign = cf.Future()

    @inlineCallbacks
    def generator():
        return (yield foreign)

    future = generator()
    foreign.set_result(3)

    assert future.result(10) == 3


# -- ensure_future ----------------------------------------------------------------------------------------------------


def test_ensure_future_takes_futures_coroutines_and_awaitables():
    """A future is adopted, a coroutine run, an awaitable awaited."""

    class Waits:
        def __await__(self):
            return (yield from succeed(3).__await__())

    source = succeed(1)

    assert ensure_future(source) is source
    assert ensure_future(double(source)).result(0) == 2
    assert ensure_future(Waits()).result(0) == 3
    with pytest.raises(TypeError, match="not 3"):
        ensure_future(3)


def test_steps_run_on_the_executor():
    """Each step runs on a worker of the pool, and the pool's shutdown waits for the coroutine."""
    gate, names = Future(), []

    async def steps():
        names.append(threading.current_thread().name)
        await gate
        names.append(threading.current_thread().name)
        return "done"

    with ThreadPoolExecutor(1, "steps") as pool:
        future = ensure_future(steps(), on=pool)
        pool.submit(int).result(10)
        gate.set_result(None)

    assert future.result(0) == "done"
    assert names == ["steps_0", "steps_0"]


def test_a_closed_pool_still_lets_the_coroutine_end():
    """Steps the pool does not take any more run where the awaited future is settled."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()

    assert ensure_future(double(succeed(2)), on=pool).result(10) == 4


def test_ten_thousand_coroutines_wait_on_two_threads():
    """No thread per coroutine."""
    gate, before = Future(), set(threading.enumerate())
    with ThreadPoolExecutor(2) as pool:
        whole = gather(*[ensure_future(double(gate), on=pool) for _ in range(10_000)])
        begun = set(threading.enumerate()) - before
        gate.set_result(1)
        assert sum(whole.result(60)) == 20_000

    assert len(begun) < 20


def test_process_pools_cannot_run_steps(processes):
    """It is a TypeError that says so; a coroutine returned by a local callback there is run here."""
    with pytest.raises(TypeError, match="cannot run on"):
        ensure_future(double(succeed(1)), on=processes)
    assert processes.submit(work.double, 1).addCallback(lambda value: double(succeed(value))).result(30) == 4


def test_coroutines_are_flattened():
    """A handler may be an async function, in both families, on any thread."""

    async def handler(value):
        return value + await succeed(1)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(int).then(handler).addCallback(handler).result(10) == 2
        assert succeed(1).then(handler).result(0) == 2


def test_a_hundred_thousand_awaits_need_no_stack():
    """Settled futures are not waited for: a loop."""

    async def count():
        total = 0
        for _ in range(100_000):
            total += await succeed(1)
        return total

    @inlineCallbacks
    def generator():
        total = 0
        for _ in range(100_000):
            total += yield succeed(1)
        return total

    assert ensure_future(count()).result(0) == 100_000
    assert generator().result(0) == 100_000


def test_one_context_per_run():
    """The steps of one run share one context, that in which it began; tokens can be reset."""
    gate = Future()

    async def run():
        token = VARIABLE.set("inside")
        await gate
        seen = VARIABLE.get()
        VARIABLE.reset(token)
        return seen, VARIABLE.get()

    VARIABLE.set("begun")
    future = ensure_future(run())
    VARIABLE.set("later")
    gate.set_result(None)

    assert future.result(0) == ("inside", "begun")
    assert VARIABLE.get() == "later"


def test_awaiting_oneself_is_a_cycle():
    """It fails with a TypeError that names it."""
    gate = Future()

    async def wait_for_myself():
        await gate
        await future

    future = ensure_future(wait_for_myself())
    gate.set_result(None)

    with pytest.raises(TypeError, match="cycle"):
        future.result(0)


def test_awaiting_something_odd():
    """Without a loop, awaiting asyncio's things is a TypeError inside the coroutine, with a note of what to do."""

    class Odd:
        def __await__(self):
            yield 3

    async def odd():
        await Odd()

    with pytest.raises(TypeError, match="cannot be awaited without an event loop") as caught:
        ensure_future(odd()).result(0)
    assert "run_coroutine_threadsafe" in caught.value.__notes__[-1]


# -- cancellation -----------------------------------------------------------------------------------------------------


def test_cancelling_cancels_what_is_awaited_and_throws():
    """The future is cancelled at once, the awaited one if nobody else uses it, and the coroutine cleans up."""
    source, shared, seen = Future(), Future(), []
    shared.then(print)

    async def wait(future):
        try:
            await future
        except CancelledError:
            seen.append("cancelled")
            assert await succeed(1) == 1
            seen.append("cleaned up")
            raise

    one, two = ensure_future(wait(source)), ensure_future(wait(shared))
    assert one.cancel()
    assert two.cancel()

    assert one.cancelled()
    assert source.cancelled()
    assert not shared.cancelled()
    assert seen == ["cancelled", "cleaned up"] * 2


def test_a_cancelled_coroutine_cannot_wait_for_ever():
    """A clean-up that waits for something pending is closed."""
    closed = []

    async def stubborn():
        try:
            await Future()
        finally:
            try:
                await Future()
            finally:
                closed.append(True)

    source = ensure_future(stubborn())
    source.cancel()

    assert closed == [True]


def test_cancelling_while_a_step_runs():
    """The running step throws it in at its next wait."""
    started, gate, seen, ended = threading.Event(), threading.Event(), [], threading.Event()

    async def steps():
        started.set()
        gate.wait(10)
        try:
            await Future()
        except CancelledError:
            seen.append("cancelled")
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        future = ensure_future(steps(), on=pool)
        started.wait(10)
        assert future.cancel()
        gate.set()
        assert ended.wait(10)

    assert seen == ["cancelled"]


# -- asyncio ----------------------------------------------------------------------------------------------------------


def test_await_under_asyncio(pool):
    """Results and errors come through, settled or not."""

    async def main():
        with pytest.raises(ValueError, match="boom"):
            await pool.submit(work.boom)
        return await pool.submit(work.double, 2), await double(pool.submit(work.double, 2)), await succeed(1)

    assert asyncio.run(main()) == (4, 8, 1)


def test_cancellation_under_asyncio():
    """Cancelling the task cancels the future, unless somebody else uses it; a cancelled future cancels the await."""
    alone, shared, cancelled = Future(), Future(), Future()
    shared.then(print)

    async def main():
        for future in (alone, shared):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(double(future), 0.001)
        asyncio.get_running_loop().call_soon(cancelled.cancel)
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    asyncio.run(main())

    assert alone.cancelled()
    assert not shared.cancelled()
    assert repr(shared) == "<Future pending on INLINE, 1 dependent>"


# -- trio -------------------------------------------------------------------------------------------------------------


def test_await_under_trio(pool):
    """The same body awaits under trio."""

    async def main():
        with pytest.raises(ValueError, match="boom"):
            await pool.submit(work.boom)
        return await double(pool.submit(work.double, 2)), await succeed(1)

    assert trio.run(main) == (8, 1)


def test_cancellation_under_trio():
    """A cancelled scope cancels the future, unless somebody else uses it."""
    alone, shared = Future(), Future()
    shared.then(print)

    async def main():
        for future in (alone, shared):
            with trio.move_on_after(0.001) as scope:
                await future
            assert scope.cancelled_caught

    trio.run(main)

    assert alone.cancelled()
    assert not shared.cancelled()


def test_a_coroutine_with_time():
    """delay and timeout are awaited like anything else."""
    never = Future()

    async def wait():
        try:
            await never.timeout(5)
        except TimeoutError:
            return await delay(5, "late")

    with ManualClock() as clock:
        future = ensure_future(wait())
        clock.advance(5)
        clock.advance(5)

    assert future.result(0) == "late"


def test_a_failure_returned_by_a_coroutine_fails_it():
    """As it does for any handler."""

    async def returns_failure():
        return Failure(KeyError())

    assert isinstance(ensure_future(returns_failure()).exception(0), KeyError)
    assert isinstance(ensure_future(double(fail(KeyError()))).exception(0), KeyError)


def test_a_stage_made_in_a_step_is_run_before_it_is_waited_for():
    """A step that yields a stage on a settled future goes on at once: nobody else would start that stage."""

    @inlineCallbacks
    def walk():
        doubled = yield succeed(4).then(lambda n: 2 * n)
        return doubled + 1

    assert walk().result(0) == 9


# -- drivers that are not ours, notes, cycles -------------------------------------------------------------------------


def test_a_driver_that_does_not_wait_is_told():
    """A coroutine that somebody drives who sends values straight back gets a RuntimeError, and nothing blocks."""
    steps = double(Future())
    yielded = steps.send(None)
    with pytest.raises(RuntimeError, match="ensure_future"):
        steps.send(yielded)


def test_twisteds_driver_is_told():
    """The same under Twisted's own coroutines, as far as futures go; what is settled is no problem."""
    twisted = pytest.importorskip("twisted.internet.defer")

    assert twisted.ensureDeferred(double(succeed(2))).result == 4
    failed = []
    twisted.ensureDeferred(double(Future())).addErrback(lambda failure: failed.append(failure.type))
    assert failed == [RuntimeError]


@pytest.mark.parametrize("on", ["INLINE", "pool"])
def test_an_error_has_a_note(on, pool):
    """It names the coroutine or generator that raised it, as it does for any stage."""

    async def broken():
        raise KeyError

    @inlineCallbacks
    def generator():
        yield
        raise KeyError

    future = ensure_future(broken(), on=pool if on == "pool" else None)

    assert future.exception(10).__notes__[0].startswith("raised in stage broken")
    assert generator().exception(10).__notes__[0].startswith("raised in stage generator")


def test_what_needs_a_loop_says_where_the_coroutine_runs():
    """A bare "no running event loop" has a note that names the stage and the way out."""

    async def sleeps():
        await asyncio.sleep(1)

    for future in (ensure_future(sleeps()), succeed(0).then(lambda _: sleeps())):
        error = future.exception(0)
        assert isinstance(error, RuntimeError)
        notes = "\n".join(error.__notes__)
        assert "stage sleeps runs on INLINE" in notes
        assert "run_coroutine_threadsafe" in notes


def test_return_value_belongs_into_a_generator():
    """Outside it is a TypeError."""
    with pytest.raises(TypeError, match="returnValue"):
        returnValue(1)
    with pytest.raises(TypeError, match="returnValue"):
        inlineCallbacks(lambda: returnValue(1))()


async def fails(source):
    await source
    raise KeyError


def failed():
    source = Future()
    ends = [ensure_future(fails(source))]
    source.set_result(1)
    ends.pop().exception(0)  # not in an assert, which would keep it


def cancelled(start):
    assert start(Future()).cancel()


ENDS = {
    "failed": failed,
    "cancelled coroutine": lambda: cancelled(lambda source: ensure_future(double(source))),
    "cancelled generator": lambda: cancelled(inlineCallbacks(lambda source: (yield source))),
    "done": lambda: ensure_future(double(succeed(1))).result(0),
}


@pytest.mark.parametrize("end", ENDS)
def test_no_cycle_is_left(end):
    """However a coroutine or a generator ends, no garbage collection is needed to be rid of it."""
    assert leaves_no_cycle(ENDS[end])


@pytest.mark.parametrize("shape", ["chain", "tail"])
def test_thousands_of_coroutines_need_no_stack(shape):
    """In a chain, or all awaiting one future."""
    source = last = Future()
    for _ in range(20_000):
        last = ensure_future(plain(last if shape == "chain" else source))
    source.set_result(1)

    assert last.result(0) == 1


async def plain(future):
    return await future


def test_a_coroutine_that_is_cancelled_while_it_runs_is_settled():
    """Whoever cancels it needs nothing that the step which ends it gives up; the pool knows it no more."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    async def walk(futures):
        for future in futures:
            await future

    def settle(barrier, futures):
        barrier.wait()
        for future in futures:
            with contextlib.suppress(cf.InvalidStateError):
                future.set_result(1)

    try:
        with ThreadPoolExecutor(1) as home:
            for _ in range(1500):
                futures, barrier = [Future() for _ in range(4)], threading.Barrier(2)
                walking = ensure_future(walk(futures), on=home)
                settler = threading.Thread(target=settle, args=(barrier, futures))
                settler.start()
                barrier.wait()
                walking.cancel()
                settler.join()
    finally:
        sys.setswitchinterval(interval)


def test_a_coroutine_that_goes_with_what_it_waits_for(caplog):
    """Its future fails with what it has lost, also when the garbage collector has closed the coroutine first."""
    ensure_future(Deferred())
    ensure_future(double(Future().then(int)))
    end = time.monotonic() + 20
    while not caplog.records and time.monotonic() < end:
        collect_garbage()

    assert {type(record.exc_info[1]) for record in caplog.records} == {LostFutureError}


@pytest.mark.parametrize("make", [lambda: succeed(1), lambda: double(succeed(1))], ids=["future", "coroutine"])
def test_the_executor_of_ensure_future_is_checked(make):
    """Also where it is not needed, because there is nothing to run."""
    x = make()
    with pytest.raises(TypeError, match="on= wants an executor"):
        ensure_future(x, on=3)
    if asyncio.iscoroutine(x):
        x.close()


@pytest.mark.parametrize("make", [ThreadPoolExecutor, lambda n: wrap_executor(cf.ThreadPoolExecutor(n))])
def test_a_pool_that_is_shut_down_while_a_coroutine_begins(make):
    """At whatever call of it: the future comes, and is cancelled, or has the value."""

    async def seven():
        return 7

    before = sys.getprofile()
    for moment in itertools.count(1):
        calls, pool = itertools.count(1), make(1)

        def shut_down_then(_, event, __, calls=calls, moment=moment, pool=pool):
            if event == "call" and next(calls) == moment:
                sys.setprofile(before)
                pool.shutdown(wait=False, cancel_futures=True)

        coroutine, future = seven(), None
        sys.setprofile(shut_down_then)
        try:
            future = ensure_future(coroutine, on=pool)
        except RuntimeError as error:
            assert "after shutdown" in str(error)
        finally:
            sys.setprofile(before)
        pool.shutdown()
        coroutine.close()
        if future is not None:
            assert future.cancelled() or isinstance(future.exception(0), RuntimeError) or future.result(0) == 7
        if next(calls) <= moment:
            assert moment > 3
            break


@pytest.mark.parametrize("module", ["asyncio", "asyncio.events", "trio"])
def test_while_another_thread_imports_an_event_loop(monkeypatch, module):
    """A module that has nothing in it yet runs no loop: coroutines go on."""

    async def steps():
        for _ in range(3):
            await delay(0.001)
        return 5

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        assert ensure_future(steps(), on=pool).then(str, on=pool).result(30) == "5"


def test_what_a_cancelled_coroutine_waits_for_next_is_cancelled():
    """Also when it was cancelled while it ran, and comes to wait only after that."""
    nap, started, cancelled = delay(3600), threading.Event(), threading.Event()

    async def steps():
        started.set()
        cancelled.wait(30)
        await nap

    with ThreadPoolExecutor(1) as pool:
        future = ensure_future(steps(), on=pool)
        started.wait(30)
        assert future.cancel()
        cancelled.set()
    assert nap.cancelled()
