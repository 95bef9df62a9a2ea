"""Waits in handlers, at any depth and in any way: a thread never waits for something that only it would have run."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextlib
import sys
import threading

import pytest

from futurechain import (
    INLINE,
    Future,
    ThreadPoolExecutor,
    delay,
    ensure_future,
    fail,
    gather,
    inlineCallbacks,
    race,
    succeed,
    wrap_executor,
)
from guard import share, within

LONG = 10
"""No wait takes that long, unless it hangs."""


def by_result(future):
    return future.result(LONG)


def by_exception(future):
    assert future.exception(LONG) is None
    return future.result(0)


def by_wait(future):
    done, _ = cf.wait([future], LONG)
    return done.pop().result(0)


def by_wait_for_the_first(future):
    done, _ = cf.wait([future, Future()], LONG, cf.FIRST_COMPLETED)
    return done.pop().result(0)


def by_as_completed(future):
    return next(cf.as_completed([future], LONG)).result(0)


def by_wrap_future(future):
    async def main():
        return await asyncio.wait_for(asyncio.wrap_future(future), LONG)

    return asyncio.run(main())


def by_await(future):
    async def main():
        return await asyncio.wait_for(_await(future), LONG)

    return asyncio.run(main())


async def _await(future):
    return await future


WAITS = [by_result, by_exception, by_wait, by_wait_for_the_first, by_as_completed, by_wrap_future, by_await]
EACH_WAIT = pytest.mark.parametrize("wait", WAITS)
BLOCKING_WAITS = WAITS[:5]
"""Those outside an event loop: a worker then runs itself what is still queued."""
EACH_FAMILY = pytest.mark.parametrize(
    "attach", [lambda f, g: f.then(g), lambda f, g: f.addCallback(g)], ids=["then", "addCallback"]
)


# -- depth  ----------------------------------


@EACH_WAIT
@EACH_FAMILY
@pytest.mark.parametrize("depth", [1, 39, 40, 41, 60])
@within(60)
def test_a_wait_in_a_handler_in_a_handler(attach, depth, wait):
    """Each handler may settle a future of its own and wait for what depends on it, however deep in handlers that is."""

    def step(n):
        source = Future()
        end = attach(source, lambda _: step(n + 1) if n < depth else "deepest")
        source.set_result(0)
        return (wait if n == depth - 1 else by_result)(end)  # an event loop runs in no other one

    assert step(0) == "deepest"


@within(60)
def test_a_wait_at_the_deepest_level_is_not_deaf_to_its_timeout():
    """A wait for what nobody will settle ends with its timeout, at depth 60 as well."""
    never = Future()

    def step(n):
        source = Future()
        end = source.then(lambda _: step(n + 1) if n < 60 else never.result(0.05))
        source.set_result(0)
        return end.result(LONG)

    with pytest.raises(TimeoutError):
        step(0)


# -- what was attached meanwhile, and what was put off  ----------------------------------


@EACH_WAIT
@EACH_FAMILY
@within(30)
def test_a_stage_attached_while_its_parents_handler_runs(attach, wait):
    """A later handler may wait for a stage that an earlier one attached to the very future that is being worked off."""
    source, box, values = Future(), [], []
    source.then(lambda value: box.append(source.then(lambda v: v + 1)))
    attach(source.then(lambda value: value), lambda value: values.append(wait(box[0])))
    source.set_result(5)

    assert values == [6]


@EACH_WAIT
@within(30)
def test_an_earlier_stage_waits_for_one_attached_in_its_own_chain(wait):
    """The same in one chain: f.then(c1).then(wait)."""
    source, box = Future(), []
    end = source.then(lambda value: box.append(source.then(lambda v: v + 1))).then(lambda _: wait(box[0]))
    source.set_result(5)

    assert end.result(LONG) == 6


@EACH_WAIT
@pytest.mark.parametrize("number", [1, 2, 5])
@within(30)
def test_a_branch_waits_for_a_later_branch(wait, number):
    """A branch may wait for those that come after it, and for what depends on them."""
    source, branches = Future(), []
    first = source.then(lambda _: [wait(branch) for branch in branches])
    for index in range(number):
        stage = source.then(lambda value, index=index: value + index)
        branches.append(stage.then(lambda value: value * 10))
    source.set_result(1)

    assert first.result(LONG) == [10 * (1 + index) for index in range(number)]


@EACH_WAIT
@within(30)
def test_a_stage_waits_for_a_stage_on_a_settled_future(wait):
    """What a handler attaches to a settled INLINE future is put off until it returns, or waits."""
    settled = succeed(1)
    end = succeed(0).then(lambda _: wait(settled.then(lambda v: v + 1).then(lambda v: v + 1)))

    assert end.result(LONG) == 3


@EACH_WAIT
@within(30)
def test_an_inner_handler_waits_for_what_an_outer_one_has_put_off(wait):
    """What an outer handler has put off is done when an inner one waits for it, two futures further in."""
    outer, inner, values = Future(), Future(), []
    put_off = []
    inner.then(lambda _: None).then(lambda _: values.append(wait(put_off[0])))

    def first(value):
        put_off.append(succeed(value).then(lambda v: v + 1))
        inner.set_result(None)

    outer.then(first)
    outer.set_result(1)
    assert values == [2]


@EACH_WAIT
@within(30)
def test_a_wait_for_a_combination_of_what_was_put_off(wait):
    """A gather, a race and a chain of returned futures of what this thread has put off are waited for in vain never."""
    source, stages = Future(), []

    def handler(_):
        return wait(gather(race(*stages), gather(*stages), succeed(None).then(lambda _: stages[0])))

    end = source.then(handler)
    stages.extend(source.then(lambda value, n=n: value + n) for n in range(3))
    source.set_result(1)

    assert end.result(LONG) == (1, (1, 2, 3), 1)


@EACH_WAIT
@within(30)
def test_a_done_callback_waits(wait):
    """A done callback may wait for the stages that come after it."""
    source, values, box = Future(), [], []
    source.add_done_callback(lambda _: values.append(wait(box[0])))
    box.append(source.then(lambda v: v + 1))
    source.set_result(1)

    assert values == [2]


@EACH_WAIT
@within(30)
def test_a_coroutine_step_waits(wait):
    """A step of a coroutine is a handler: it may wait for what its thread has put off."""
    source, branches = Future(), []

    @inlineCallbacks
    def walk():
        yield source
        return [wait(branch) for branch in branches]

    end = walk()
    branches.append(source.then(lambda v: v + 1))
    branches.append(source.then(lambda v: v + 2).then(lambda v: v + 3))
    source.set_result(0)

    assert end.result(LONG) == [1, 5]


@within(30)
def test_an_error_is_waited_for_as_well():
    """exception() and cf.wait with FIRST_EXCEPTION see the failure of a stage that was put off."""
    source, seen, box = Future(), [], []
    source.then(lambda _: seen.append(type(box[0].exception(LONG))))
    source.then(lambda _: seen.append(len(cf.wait([box[1], Future()], LONG, cf.FIRST_EXCEPTION).done)))
    box.append(source.then(lambda _: 1 / 0))
    box.append(source.then(lambda _: 1 / 0).then(str))
    source.set_result(0)

    assert set(seen) == {ZeroDivisionError, 1}


@within(30)
def test_a_wait_for_many_at_once():
    """cf.wait and as_completed for many put-off stages see them all."""
    source, stages, seen = Future(), [], {}
    source.then(lambda _: seen.update(a=sorted(one.result() for one in cf.as_completed(stages, LONG))))
    source.then(lambda _: seen.update(b=len(cf.wait(stages, LONG).done)))
    stages.extend(source.then(lambda value, n=n: n) for n in range(100))
    source.set_result(0)

    assert seen == {"a": list(range(100)), "b": 100}


# -- workers of pools  ----------------------------------


@EACH_WAIT
@within(60)
def test_the_stage_that_a_worker_means_to_carry_on_with(wait):
    """A callback that waits for the stage its worker was to carry on with sees it run: here, or on an idle worker."""
    with ThreadPoolExecutor(4) as pool:
        go = threading.Event()
        task = pool.submit(go.wait, LONG)
        stage = task.then(lambda value: "stage")
        callback = task.addCallback(lambda _: wait(stage))
        go.set()
        assert callback.result(LONG) == "stage"


@pytest.mark.parametrize("wait", BLOCKING_WAITS)
@within(60)
def test_the_stage_that_the_only_worker_means_to_carry_on_with(wait):
    """The same on a pool of one: the waiting worker runs that very stage."""
    with ThreadPoolExecutor(1) as pool:
        go = threading.Event()
        task = pool.submit(go.wait, LONG)
        stage = task.then(lambda value: "stage").then(lambda value: value + "s")
        callback = task.addCallback(lambda _: wait(stage))
        go.set()
        assert callback.result(LONG) == "stages"


@pytest.mark.parametrize(
    "shape",
    [
        lambda task, h, pool: task.addCallback(lambda v: v).then(h),
        lambda task, h, pool: task.then(lambda v: v, on=INLINE).then(h, on=pool),
        lambda task, h, pool: task.timeout(LONG).then(h),
        lambda task, h, pool: task.addCallback(lambda v: v).addCallback(lambda v: v).then(h),
        lambda task, h, pool: gather(task).then(h, on=pool),
        lambda task, h, pool: task.shield().then(h),
        lambda task, h, pool: task.then(None).then(h),
        lambda task, h, pool: succeed(0).then(lambda _: task).then(h, on=pool),
    ],
)
@within(60)
def test_a_slow_stage_holds_up_no_other(shape):
    """While a worker carries on with one stage, all others that are ready run on idle workers."""
    with ThreadPoolExecutor(3) as pool:
        go, release, ran = threading.Event(), threading.Event(), threading.Event()
        task = pool.submit(go.wait, LONG)
        slow = task.then(lambda _: release.wait(LONG))
        other = shape(task, lambda _: ran.set(), pool)
        go.set()
        try:
            assert ran.wait(LONG)
        finally:
            release.set()
        assert slow.result(LONG)
        assert other.exception(LONG) is None


@pytest.mark.parametrize("wait", BLOCKING_WAITS)
@pytest.mark.parametrize("depth", [1, 5, 30])
@within(60)
def test_a_task_that_waits_for_tasks_on_a_pool_of_one(wait, depth):
    """pool.submit(f).result() inside a task works on a pool of one, at any depth."""
    with ThreadPoolExecutor(1) as pool:

        def step(n):
            return n if n == depth else wait(pool.submit(step, n + 1))

        assert pool.submit(step, 0).result(LONG) == depth


@pytest.mark.parametrize("attach", ["task", "stage", "cleanup"])
@pytest.mark.parametrize("begun", ["before", "by the one who waits"])
@within(60)
def test_what_has_returned_a_future_is_not_run_again_by_those_who_wait_for_it(attach, begun):
    """A task or stage that waits for a returned future has run, wherever it is queued still."""
    inner, calls, is_submitted, tasks = Future(), [], threading.Event(), []

    def returns(*_):
        calls.append(1)
        return inner

    def asks():
        is_submitted.wait(LONG)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                tasks[0].result(0)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(asks) if begun != "before" else None
        tasks.append({
            "task": lambda: pool.submit(returns),
            "stage": lambda: pool.submit(int).then(returns),
            "cleanup": lambda: pool.submit(int).finally_(returns),
        }[attach]())  # fmt: skip
        asking = asking or pool.submit(asks)
        is_submitted.set()
        asking.result(LONG)
        pool.submit(int).result(LONG)  # what was queued before has had its turn
        inner.set_result(0)
        assert (tasks[0].result(LONG), calls) == (0, [1])


@within(60)
def test_of_several_workers_one_runs_what_they_wait_for():
    """However workers that wait for a task, and the one whose turn it is, take turns: it is run once."""

    def once(calls, inner):
        calls.append(1)
        return inner

    def asks(task):
        with contextlib.suppress(TimeoutError):
            task.result(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            for _ in range(share(900)):
                calls, inner = [], Future()
                task = pool.submit(once, calls, inner)
                asking = [pool.submit(asks, task) for _ in range(4)]
                cf.wait(asking, LONG)
                inner.set_result(7)
                assert (task.result(LONG), calls) == (7, [1])
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("wait", BLOCKING_WAITS)
@within(60)
def test_a_stage_that_waits_for_a_chain_of_its_own_pool(wait):
    """A stage waits for a whole chain whose root is still queued on its own pool, with others queued before it."""
    with ThreadPoolExecutor(1) as pool:
        order = []

        def handler(_):
            for number in range(3):
                pool.submit(order.append, number)
            return wait(pool.submit(order.append, "mine").then(lambda _: "a").then(lambda a: a + "b"))

        assert pool.submit(int).then(handler).result(LONG) == "ab"
        pool.submit(int).result(LONG)
    assert sorted(map(str, order)) == ["0", "1", "2", "mine"]


@pytest.mark.parametrize("wait", BLOCKING_WAITS)
@within(60)
def test_a_worker_that_waits_runs_that_work_alone(wait):
    """What is queued on the pool besides is not run inside the waiting task."""
    with ThreadPoolExecutor(1) as pool:
        running, nested = [], []

        def other():
            nested.append(list(running))

        def task():
            running.append("task")
            others = [pool.submit(other) for _ in range(5)]
            value = wait(pool.submit(lambda: "wanted"))
            running.pop()
            return value, others

        value, others = pool.submit(task).result(LONG)
        cf.wait(others, LONG)
    assert value == "wanted"
    assert nested == [[]] * 5


@pytest.mark.parametrize("wait", BLOCKING_WAITS)
@within(60)
def test_the_taken_work_runs_in_its_own_context(wait):
    """Work that a waiting worker runs itself sees the context in which it was submitted."""
    import contextvars

    variable = contextvars.ContextVar("variable", default="unset")
    with ThreadPoolExecutor(1) as pool:

        def task():
            variable.set("submitted")
            future = pool.submit(variable.get)
            variable.set("later")
            return wait(future), variable.get()

        assert pool.submit(task).result(LONG) == ("submitted", "later")


@pytest.mark.parametrize("wait", BLOCKING_WAITS)
@within(60)
def test_all_workers_wait_at_once(wait):
    """A pool all of whose workers wait for queued work of the pool goes on."""
    with ThreadPoolExecutor(3) as pool:
        barrier = threading.Barrier(3)

        def task(number):
            barrier.wait(LONG)
            return wait(gather(*[pool.submit(lambda n=n: n) for n in range(number + 1)]))

        tasks = [pool.submit(task, number) for number in range(3)]
        assert [one.result(LONG) for one in tasks] == [(0,), (0, 1), (0, 1, 2)]


@within(60)
def test_a_recursive_sum_on_a_pool_of_two():
    """Divide and conquer with blocking waits needs no more workers than there are."""
    with ThreadPoolExecutor(2) as pool:

        def total(low, high):
            if high - low == 1:
                return low
            middle = (low + high) // 2
            left, right = pool.submit(total, low, middle), pool.submit(total, middle, high)
            return left.result(LONG) + right.result(LONG)

        assert pool.submit(total, 0, 64).result(LONG) == sum(range(64))


@pytest.mark.parametrize("wait", BLOCKING_WAITS)
@within(60)
def test_a_wait_for_queued_work_among_others(wait):
    """Waiting for a gather, a race, a returned future, a coroutine over queued work of the own pool of one."""
    with ThreadPoolExecutor(1) as pool:

        async def walk():
            return await pool.submit(lambda: 1)

        def task():
            return (
                wait(gather(pool.submit(int), pool.submit(int))),
                wait(race(pool.submit(lambda: 2))),
                wait(pool.submit(lambda: pool.submit(lambda: 3))),
                wait(ensure_future(walk())),
                wait(pool.submit(lambda: 4).timeout(LONG)),
                wait(pool.submit(lambda: 5).shield()),
            )

        assert pool.submit(task).result(LONG) == ((0, 0), 2, 3, 1, 4, 5)


@within(60)
def test_waiting_for_another_pool_that_waits_for_this_one():
    """Two pools of one whose workers wait for work that is queued on their own by the other do not deadlock."""
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:

        def ping():
            return a.submit(lambda: "ping")

        def outer():
            queued = a.submit(lambda: "mine")
            there = b.submit(lambda: "there")
            return there.result(LONG), queued.result(LONG)

        assert a.submit(outer).result(LONG) == ("there", "mine")
        assert b.submit(ping).result(LONG) == "ping"


@EACH_WAIT
@within(60)
def test_a_callback_of_a_process_pool_waits(processes, wait):
    """A callback of a process pool may wait for another task, its own branch and a stage of the same pool."""
    task = processes.submit(abs, -3)
    stage = task.then(abs)
    callback = task.addCallback(lambda value: value + wait(stage) + wait(processes.submit(abs, -4)))

    assert callback.result(LONG) == 10


@EACH_WAIT
@within(60)
def test_a_handler_waits_for_a_wrapped_executor(wait):
    """A task on a wrapped pool of two waits for its own branches and for other tasks there."""
    with wrap_executor(cf.ThreadPoolExecutor(2)) as pool:
        assert pool.submit(lambda: wait(pool.submit(abs, -3).then(lambda v: v + 1))).result(LONG) == 4


@EACH_WAIT
@within(60)
def test_a_handler_waits_for_a_timer(wait):
    """A delay, a timeout and what depends on them come although a handler waits for them."""
    assert succeed(0).then(lambda _: wait(delay(0.01, 1).then(lambda v: v + 1))).result(LONG) == 2


@within(60)
def test_a_timer_callback_that_waits_for_another_timer():
    """A stage behind one delay waits for another one: the thread of the timers is not held up."""
    future = delay(0.01).then(lambda _: delay(0.01, 1).then(lambda v: v + 1).result(LONG))
    assert future.result(LONG) == 2


@within(60)
def test_waits_everywhere_at_once():
    """Handlers that wait for each other's branches, in four threads that settle at the same time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            sources = [Future() for _ in range(4)]
            branches = [[] for _ in sources]
            for number, source in enumerate(sources):
                branches[number].append(
                    source.then(lambda value, n=number, all_=branches: all_[(n + 1) % 4][1].result(LONG))
                )
            for number, source in enumerate(sources):
                branches[number].append(source.then(lambda value: value))
            barrier = threading.Barrier(4)

            def settle(number, sources=sources, barrier=barrier):
                barrier.wait(LONG)
                sources[number].set_result(number)

            workers = [threading.Thread(target=settle, args=(number,)) for number in range(4)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(LONG)
            assert [pair[0].result(LONG) for pair in branches] == [1, 2, 3, 0]
    finally:
        sys.setswitchinterval(interval)


@within(30)
def test_a_failing_branch_is_waited_for():
    """A wait for a branch that fails raises its error in the handler, whose stage fails with it."""
    source, box = Future(), []
    stage = source.then(lambda _: box[0].result(LONG))
    box.append(source.then(lambda _: fail(KeyError("inner"))))
    source.set_result(0)
    assert isinstance(stage.exception(LONG), KeyError)


@pytest.mark.parametrize("workers", [1, 2])
@within(30)
def test_what_is_queued_does_not_run_in_a_thread_that_holds_others(workers):
    """`wait` holds the conditions of all it waits for: what is queued, and waits for one of these, runs elsewhere."""
    begun, chosen, settled = threading.Event(), threading.Event(), threading.Event()
    others = []

    def settle():
        begun.wait()
        chosen.wait()
        for other in others:
            other.set_result(0)
        settled.set()

    def queued():
        begun.set()
        return settled.wait(LONG)

    def task(pool, reserve):
        last = pool.submit(queued)
        more = [pool.submit(int) for _ in range(50)]
        others.extend(one for one in reserve if id(one) < id(last))  # those are taken before it
        chosen.set()
        _, left = cf.wait([*others, last, *more], LONG)
        assert not left
        return last.result(0)

    threading.Thread(target=settle, daemon=True).start()
    reserve = sorted((Future() for _ in range(2000)), key=id)
    del reserve[::2]  # so that some of the next ones lie between them
    with ThreadPoolExecutor(workers) as pool:
        before = threading.active_count()
        assert pool.submit(task, pool, reserve).result(LONG) is True
        assert threading.active_count() <= before + workers + 1
    begun.set()


def comes_back(one, two, queued):
    return two.submit(queued.wait, LONG).then(lambda _: "done", on=one)


def is_returned(one, two, queued):
    return two.submit(lambda: queued.wait(LONG) and one.submit(lambda: "done"))


def is_returned_behind_another(one, two, queued):
    return two.submit(lambda: queued.wait(LONG) and one.submit(str).then(lambda _: "done", on=INLINE))


def is_awaited(one, two, queued):
    async def walk():
        await two.submit(queued.wait, LONG)
        return await one.submit(lambda: "done")

    return ensure_future(walk(), on=two)


def is_gathered(one, two, queued):
    return two.submit(lambda: queued.wait(LONG) and gather(one.submit(int), one.submit(str))).then(lambda _: "done")


@pytest.mark.parametrize("way", [comes_back, is_returned, is_returned_behind_another, is_awaited, is_gathered])
@pytest.mark.parametrize("wait", [by_result, by_exception])
@within(60)
def test_what_comes_to_be_queued_while_its_only_worker_waits_for_it(way, wait):
    """A worker that is blocked already still runs what it waits for, when that comes to be queued on its pool."""
    for _ in range(20):
        queued = threading.Event()
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(2) as two:

            def task(one=one, two=two, queued=queued):
                future = way(one, two, queued)
                two.submit(queued.set)
                return wait(future)

            assert one.submit(task).result(LONG) == "done"


@within(60)
def test_a_worker_that_is_woken_for_nothing_keeps_its_timeout():
    """What others queue meanwhile does not make a wait longer."""
    with ThreadPoolExecutor(1) as pool:
        stop = threading.Event()

        def wait_for_what_never_comes():
            try:
                Future().result(0.05)
            except TimeoutError:
                return "in time"
            finally:
                stop.set()

        future = pool.submit(wait_for_what_never_comes)
        while not stop.is_set():
            succeed(0).then(abs, on=pool)
        assert future.result(LONG) == "in time"


@pytest.mark.parametrize("way", [by_result, by_exception, by_wait, by_as_completed])
@pytest.mark.parametrize("steps", [0, 3])
@within(30)
def test_a_worker_takes_the_steps_of_a_coroutine(way, steps):
    """A worker that waits for a coroutine on its own pool runs its steps, the first and the later ones."""

    async def count(pool):
        return sum([await pool.submit(int, "1") for _ in range(steps)])

    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(lambda: way(ensure_future(count(pool), on=pool)))
        stage = pool.submit(lambda: way(ensure_future(count(pool), on=pool).then(str)))
    assert end.result(0) == steps
    assert stage.result(0) == str(steps)
