"""What is done n times costs n times as much: each shape at two sizes, in turns, compared for each of its parts."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import time
import tracemalloc
from collections import deque

import pytest

import guard
from futurechain import (
    INLINE,
    Future,
    ThreadPoolExecutor,
    ensure_future,
    fail,
    first,
    gather,
    inlineCallbacks,
    limit,
    race,
    some,
    succeed,
)
from guard import within

SMALL, LARGE = 500, 8_000
BOUND = 5
"""How much more each part may cost in the large shape; 16 is what a quadratic one would show."""
ROUNDS = 6

SHAPES = {}
SMALLER = {"a_chain_of_raises", "a_chain_of_raises_on_callbacks", "one_error_raised_again_and_again"}
"""A raise costs more than a stage that returns; these are compared at a tenth of the sizes."""


def shape(function):
    SHAPES[function.__name__] = function
    return function


class Watch:
    """A stop watch: only what is done inside of it counts."""

    def __init__(self):
        self.seconds = 0.0

    def __enter__(self):
        self._began = time.perf_counter()

    def __exit__(self, *_):
        self.seconds += time.perf_counter() - self._began


# -- coroutines  ----------------------------------


@shape
def coroutines_that_await_each_other(n, watch):
    async def step(inner):
        return await inner + 1

    with watch:
        source = end = Future()
        for _ in range(n):
            end = ensure_future(step(end))
        source.set_result(0)
    assert end.result(0) == n


@shape
def generators_that_yield_each_other(n, watch):
    @inlineCallbacks
    def step(inner):
        return (yield inner) + 1

    with watch:
        source = end = Future()
        for _ in range(n):
            end = step(end)
        source.set_result(0)
    assert end.result(0) == n


@shape
def coroutines_that_await_one_tail(n, watch):
    async def step(tail):
        return await tail

    source = Future()
    tail = source.then(lambda v: v).then(lambda v: v)
    with watch:
        ends = [ensure_future(step(tail)) for _ in range(n)]
        source.set_result(7)
    assert all(end.result(0) == 7 for end in ends)


@shape
def coroutines_that_await_the_tail_of_a_long_chain(n, watch):
    async def step(tail):
        return await tail

    with watch:
        source = tail = Future()
        ends = []
        for _ in range(n):
            tail = tail.then(lambda v: v)
            ends.append(ensure_future(step(tail)))
        source.set_result(7)
    assert all(end.result(0) == 7 for end in ends)


@shape
def coroutines_that_are_cancelled_from_the_outside_in(n, watch):
    async def step(inner):
        return await inner

    source = end = Future()
    for _ in range(n):
        end = ensure_future(step(end))
    with watch:
        assert end.cancel()
    assert source.cancelled()


# -- returned futures  ----------------------------------


@shape
def handlers_that_return_the_tail_of_a_pending_chain(n, watch):
    with watch:
        source = tail = Future()
        for _ in range(n):
            tail = succeed(0).then(lambda _, tail=tail: tail).then(lambda v: v + 1)
        source.set_result(0)
    assert tail.result(0) == n


@shape
def handlers_that_return_one_tail(n, watch):
    source = Future()
    tail = source.then(lambda v: v)
    with watch:
        ends = [succeed(0).then(lambda _: tail) for _ in range(n)]
        source.set_result(3)
    assert all(end.result(0) == 3 for end in ends)


@shape
def one_chain_grows_at_its_end_while_it_is_returned(n, watch):
    with watch:
        source = Future()
        tail, ends = source, []
        for _ in range(n):
            tail = tail.then(lambda v: v + 1)
            ends.append(succeed(0).then(lambda _, tail=tail: tail))
        source.set_result(0)
    assert [end.result(0) for end in ends] == list(range(1, n + 1))


@shape
def each_returns_the_next_from_the_inside(n, watch):
    sources = [Future() for _ in range(n + 1)]
    with watch:
        ends = [sources[k].then(lambda _, k=k: ends[k + 1]) for k in range(n)]
        ends.append(sources[n])
        for source in sources:
            source.set_result(5)
    assert ends[0].result(0) == 5


@shape
def each_returns_the_next_from_the_outside(n, watch):
    sources = [Future() for _ in range(n + 1)]
    with watch:
        ends = [sources[k].then(lambda _, k=k: ends[k + 1]) for k in range(n)]
        ends.append(sources[n])
        for source in reversed(sources):
            source.set_result(5)
    assert ends[0].result(0) == 5


@shape
def each_returns_the_next_in_a_disorder(n, watch):
    sources = [Future() for _ in range(n + 1)]
    order = [(k * 7919) % (n + 1) for k in range(n + 1)]
    with watch:
        ends = [sources[k].then(lambda _, k=k: ends[k + 1]) for k in range(n)]
        ends.append(sources[n])
        for k in order:
            sources[k].set_result(5)
    assert ends[0].result(0) == 5


@shape
def callbacks_that_return_chains(n, watch):
    with watch:
        source = Future()
        end = succeed(0)
        for _ in range(n):
            inner = Future()
            inner.addCallback(lambda v: v + 1)
            end.addCallback(lambda v, inner=inner: (inner.set_result(v), inner)[1])
        source.set_result(0)
    assert end.final.result(0) == n


@shape
def a_recursion_through_returned_futures(n, watch):
    def step(k):
        return k if k == n else succeed(k + 1).then(step)

    with watch:
        assert succeed(0).then(step).result(0) == n


# -- cancelling  ----------------------------------


@shape
def branches_cancelled_oldest_first(n, watch):
    source = Future()
    branches = [source.then(lambda v: v) for _ in range(n)]
    with watch:
        for branch in branches:
            branch.cancel()
    assert source.cancelled()


@shape
def branches_cancelled_youngest_first(n, watch):
    source = Future()
    branches = [source.then(lambda v: v) for _ in range(n)]
    with watch:
        for branch in reversed(branches):
            branch.cancel()
    assert source.cancelled()


@shape
def every_other_branch_cancelled(n, watch):
    source = Future()
    branches = [source.then(lambda v: v) for _ in range(n)]
    with watch:
        for branch in branches[::2]:
            branch.cancel()
        source.set_result(1)
    assert all(branch.result(0) == 1 for branch in branches[1::2])


@shape
def branches_cancelled_while_more_come(n, watch):
    source, window = Future(), deque()
    with watch:
        for _ in range(n):
            window.append(source.then(lambda v: v))
            if len(window) > 100:
                window.popleft().cancel()
    assert not source.done()


@shape
def stages_cancelled_that_wait_for_one_returned_future(n, watch):
    inner = Future()
    stages = [succeed(0).then(lambda _: inner) for _ in range(n)]
    with watch:
        for stage in stages:
            stage.cancel()
    assert inner.cancelled()


@shape
def timeouts_of_one_future_that_are_cancelled(n, watch):
    source = Future()
    branches = [source.timeout(3600) for _ in range(n)]
    with watch:
        for branch in branches:
            branch.cancel()


@shape
def callbacks_cancelled_in_a_long_chain(n, watch):
    source = end = Future()
    for _ in range(n):
        end = end.addCallback(lambda v: v)
    with watch:
        assert end.cancel()
    assert source.cancelled()


# -- combinations  ----------------------------------


@shape
def half_of_them(n, watch):
    futures = [Future() for _ in range(n)]
    with watch:
        end = some(n // 2, *futures)
        for future in futures:
            if not future.done():
                future.set_result(1)
    assert len(end.result(0)) == n // 2


@shape
def half_of_them_when_the_others_fail(n, watch):
    futures = [Future() for _ in range(n)]
    with watch:
        end = some(n // 2, *futures)
        for number, future in enumerate(futures):
            if not future.done():
                future.set_exception(KeyError()) if number % 3 == 0 else future.set_result(1)
    assert len(end.result(0)) == n // 2


@shape
def all_fail_first(n, watch):
    futures = [Future() for _ in range(n)]
    with watch:
        end = first(*futures)
        for future in futures:
            future.set_exception(KeyError())
    assert len(end.exception(0).exceptions) == n


@shape
def a_gather_with_exceptions(n, watch):
    futures = [Future() for _ in range(n)]
    with watch:
        end = gather(*futures, return_exceptions=True)
        for future in futures:
            future.set_exception(KeyError())
    assert len(end.result(0)) == n


@shape
def a_gather_that_is_cancelled(n, watch):
    futures = [Future() for _ in range(n)]
    with watch:
        gather(*futures).cancel()
    assert all(future.cancelled() for future in futures)


@shape
def a_gather_of_one_future_many_times(n, watch):
    source = Future()
    with watch:
        end = gather(*[source] * n)
        source.set_result(1)
    assert len(end.result(0)) == n


@shape
def one_future_raced_again_and_again(n, watch):
    source = Future()
    source.then(lambda v: v)
    with watch:
        for _ in range(n):
            race(source, succeed(1)).result(0)


@shape
def one_future_raced_by_pending_ones(n, watch):
    source = Future()
    source.then(lambda v: v)
    with watch:
        others = [Future() for _ in range(n)]
        races = [race(source, other) for other in others]
        for other in others:
            other.set_result(1)
    assert all(one.result(0) == 1 for one in races)
    assert not source.cancelled()


@shape
def nested_gathers(n, watch):
    source = Future()
    with watch:
        end = source
        for _ in range(n):
            end = gather(end)
        source.set_result(1)
    assert end.done()


# -- chains, errors, executors  ----------------------------------


@shape
def a_chain_of_raises(n, watch):
    def bad(_):
        raise KeyError

    with watch:
        source = end = Future()
        for _ in range(n):
            end = end.then(bad).catch(lambda error: 1)
        source.set_result(0)
    assert end.result(0) == 1


@shape
def a_chain_of_raises_on_callbacks(n, watch):
    def bad(_):
        raise KeyError

    with watch:
        source = Future()
        for _ in range(n):
            source.addCallback(bad).addErrback(lambda failure: 1)
        source.set_result(0)
    assert source.final.result(0) == 1


@shape
def one_error_through_all(n, watch):
    with watch:
        source = end = Future()
        for _ in range(n):
            end = end.then(lambda v: v)
        source.set_exception(KeyError())
    assert isinstance(end.exception(0), KeyError)


@shape
def one_error_raised_again_and_again(n, watch):
    def again(error):
        raise error

    with watch:
        source = end = Future()
        for _ in range(n):
            end = end.catch(again)
        source.set_exception(KeyError())
    assert isinstance(end.exception(0), KeyError)


@shape
def executors_in_turns(n, watch):
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        with watch:
            source = end = Future()
            for number in range(n):
                end = end.then(abs, on=(a, b)[number % 2])
        source.cancel()


@shape
def callbacks_by_the_root(n, watch):
    with watch:
        source = Future()
        for _ in range(n):
            source.addCallback(lambda v: v + 1)
        source.set_result(0)
    assert source.final.result(0) == n


@shape
def callbacks_on_a_settled_future(n, watch):
    source = succeed(0)
    with watch:
        for _ in range(n):
            source.addCallback(lambda v: v + 1)
    assert source.final.result(0) == n


@shape
def callbacks_attached_by_callbacks(n, watch):
    source, left = Future(), [n]

    def handler(value):
        left[0] -= 1
        if left[0]:
            source.addCallback(handler)
        return value + 1

    with watch:
        source.addCallback(handler)
        source.set_result(0)
    assert source.final.result(0) == n


@shape
def branches_attached_by_branches(n, watch):
    source, left = Future(), [n]

    def handler(value):
        left[0] -= 1
        if left[0]:
            source.then(handler)

    with watch:
        source.then(handler)
        source.set_result(0)
    assert left == [0]


@shape
def stages_put_off_in_one_handler(n, watch):
    settled, count = succeed(0), []
    with watch:
        succeed(0).then(lambda _: [settled.then(count.append) for _ in range(n)] and None)
    assert len(count) == n


@shape
def futures_settled_in_handlers(n, watch):
    futures = [Future() for _ in range(n + 1)]
    for this, following in itertools.pairwise(futures):
        this.then(lambda _, following=following: following.set_result(0))
    with watch:
        futures[0].set_result(0)
    assert futures[n].done()


@shape
def waits_with_put_off_stages(n, watch):
    settled = succeed(1)
    with watch:
        succeed(0).then(lambda _: sum(settled.then(lambda v: v).result(0) for _ in range(n))).result(0)


@shape
def dones_asked_and_waits_given_up(n, watch):
    source = Future()
    with watch:
        for _ in range(n):
            with contextlib.suppress(TimeoutError):
                source.result(0)


@shape
def tasks_of_a_pool_cancelled_oldest_first(n, watch):
    import threading

    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(release.wait, 60)
        tasks = [pool.submit(abs, 0) for _ in range(n)]
        with watch:
            for task in tasks:
                assert task.cancel()
        release.set()


@shape
def tasks_of_a_view_that_wait(n, watch):
    gate = Future()
    with ThreadPoolExecutor(1) as pool:
        view = limit(pool, concurrency=n + 1)
        with watch:
            tasks = [view.submit(lambda: gate) for _ in range(n)]
            pool.submit(int).result()
        gate.set_result(1)
        assert tasks[-1].result() == 1


@shape
def nested_futures_dropped(n, watch):
    source = end = Future()
    for _ in range(n):
        end = end.then(lambda v: v)
    with watch:
        del source, end
        gc.collect()


@within(60)
def test_a_raise_costs_microseconds():
    """An exception raised in the first stage of a long chain costs a few stages that return, and not all behind it."""

    def bad(_):
        raise KeyError

    def chain(first, length=1_000):
        source = end = Future()
        end = end.then(first).catch(lambda error: 1)
        for _ in range(length):
            end = end.then(lambda v: v)
        watch = Watch()
        with watch:
            source.set_result(0)
        return watch.seconds

    raising, plain = [], []
    for _ in range(15):
        raising.append(chain(bad))
        plain.append(chain(lambda v: v))
    assert min(raising) <= 1.5 * min(plain)  # 1,000 stages that return take as long as some hundred raises


@pytest.mark.parametrize("name", SHAPES)
@within(110)
def test_it_is_linear(name):
    """The large shape costs for each of its parts about what the small one does."""
    run = SHAPES[name]
    small, large = (SMALL // 10, LARGE // 10) if name in SMALLER else (SMALL, LARGE)
    each = {small: [], large: []}
    for _ in range(ROUNDS):
        for size in (small, large):
            gc.collect()
            watch = Watch()
            run(size, watch)
            each[size].append(watch.seconds / size)
        if min(each[large]) <= BOUND * min(each[small]):
            return  # noise makes things slower, never faster
    assert min(each[large]) <= BOUND * min(each[small])


# -- memory  ----------------------------------


def _peak(run, size):
    gc.collect()
    tracemalloc.start()
    try:
        run(size)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _recursion(n):
    def step(k):
        return k if k == n else succeed(k + 1).then(step)

    assert succeed(0).then(step).result(0) == n


def _recursion_of_pending_futures(n):
    sources = deque()

    def step(k):
        if k == n:
            return k
        sources.append(source := Future())
        return source.then(step)

    end = succeed(0).then(step)
    for number in range(n):
        sources.popleft().set_result(number + 1)
    assert end.result(0) == n


def _recursion_of_callbacks(n):
    sources = deque()

    def step(k):
        if k == n:
            return k
        sources.append(source := Future())
        return source.addCallback(step)

    end = succeed(0).addCallback(step)
    for number in range(n):
        sources.popleft().set_result(number + 1)
    assert end.result(0) == n


def _recursion_of_coroutine_loops(n):
    @inlineCallbacks
    def loop():
        for _ in range(n):
            yield succeed(0)

    assert loop().result(0) is None


def _races_of_a_long_lived_future(n):
    source = Future()
    for _ in range(n):
        race(source, succeed(1))
    source.cancel()


def _cancelled_adopters(n):
    inner, keep = Future(), Future()
    inner.then(keep.set_result)
    for _ in range(n):
        succeed(0).then(lambda _: inner).cancel()
    assert not inner.cancelled()


def _cancelled_branches(n):
    source = Future()
    keep = source.then(lambda v: v)
    for _ in range(n):
        source.then(lambda v: v).cancel()
    assert not keep.done()


def _waits_given_up(n):
    source = Future()
    for _ in range(n):
        with contextlib.suppress(TimeoutError):
            source.result(0)


def _wrapped_coroutines(n):
    source = Future()
    keep = source.then(lambda v: v)

    async def wait():
        await source

    for _ in range(n):
        ensure_future(wait()).cancel()
    assert not keep.done()


@pytest.mark.parametrize(
    "run",
    [
        _recursion,
        _recursion_of_pending_futures,
        _recursion_of_callbacks,
        _recursion_of_coroutine_loops,
        _races_of_a_long_lived_future,
        _cancelled_adopters,
        _cancelled_branches,
        _waits_given_up,
        _wrapped_coroutines,
    ],
)
def test_the_memory_does_not_grow(run):
    """What goes round and round holds no more after 8,000 rounds than after 2,000: some kilobytes at most."""
    name = run.__name__
    program = f"from test_linear import _peak, {name} as run; run(10); print(_peak(run, 8_000) - _peak(run, 2_000))"
    alone = guard.run(["-c", program], seconds=100)  # here threads may allocate that another test's engine has left
    assert int(alone.out) < 100_000, alone.err


@within(110)
def test_a_long_chain_is_dropped_without_a_deep_stack():
    """A chain of 200,000 stages is freed, pending or settled, cancelled or failed."""
    for end_it in (
        lambda s: None,
        lambda s: s.set_result(0),
        lambda s: s.cancel(),
        lambda s: s.set_exception(KeyError()),
    ):
        source = end = Future()
        for _ in range(200_000):
            end = end.then(lambda v: v)
        end_it(source)
        end.cancel()
        end.exception(0) if end.done() and not end.cancelled() else None
        del source, end
        gc.collect()
    assert fail(KeyError()).catch(lambda e: 1, on=INLINE).result(0) == 1
    assert sys.getrecursionlimit()
