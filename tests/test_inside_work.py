"""What a begun chain submits or attaches itself belongs to it: a shutdown runs it, and waits for that, too."""

from __future__ import annotations

import concurrent.futures as cf
import threading

import pytest
import tenacity

import work
from futurechain import (
    INLINE,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    delay,
    ensure_future,
    gather,
    inlineCallbacks,
    retry,
    wrap_executor,
)
from futurechain.errors import ExecutorShutdownError
from guard import within

LONG = 20
KINDS = {
    "threads": lambda: ThreadPoolExecutor(3),
    "one thread": lambda: ThreadPoolExecutor(1),
    "processes": lambda: ProcessPoolExecutor(2),
    "wrapped": lambda: wrap_executor(cf.ThreadPoolExecutor(2)),
}


def more(pool, value):
    """A handler in this process that goes on with another task of the pool."""
    return pool.submit(work.double, value)


def by_callback(root, pool):
    return root.addCallback(lambda value: more(pool, value))


def by_then(root, pool):
    return root.then(lambda value: more(pool, value), on=INLINE)


def by_catch(root, pool):
    return root.then(work.boom).catch(lambda _: more(pool, 1))


def by_finally(root, pool):
    return root.finally_(lambda: more(pool, 1)).then(work.double)


def by_gather(root, pool):
    return root.addCallback(lambda value: gather(*[pool.submit(work.add, value, n) for n in range(3)]))


def by_attaching(root, pool):
    return root.addCallback(lambda value: more(pool, value).then(work.double).then(work.double))


def by_delay(root, pool):
    return root.addCallback(lambda value: delay(0.02, value)).addCallback(lambda value: more(pool, value))


def by_coroutine(root, pool):
    async def walk():
        value = await root
        for _ in range(3):
            value = await pool.submit(work.double, value)
        return value

    return ensure_future(walk())


def by_generator(root, pool):
    @inlineCallbacks
    def walk():
        value = yield root
        value = yield pool.submit(work.double, value)
        return (yield more(pool, value))

    return walk()


def by_recursion(root, pool):
    def step(value):
        return value if value > 100 else pool.submit(work.double, value).addCallback(step)

    return root.addCallback(step)


def by_branches(root, pool):
    ends = [
        root.addCallback(lambda value: more(pool, value)),
        root.then(work.double).addCallback(lambda v: more(pool, v)),
    ]
    return gather(*ends)


WAYS = [
    by_callback,
    by_then,
    by_catch,
    by_finally,
    by_gather,
    by_attaching,
    by_delay,
    by_coroutine,
    by_generator,
    by_recursion,
    by_branches,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@within(60)
def test_inside_work_is_not_refused(kind, way):
    """What handlers and coroutines of begun chains submit after the end of the with block is run, and waited for."""
    with KINDS[kind]() as pool:
        gate = pool.submit(work.wait_a_moment)  # so that the block is left before anything has run
        end = way(gate.then(work.one), pool)
    assert end.done()
    assert end.exception(0) is None


@pytest.mark.parametrize("kind", ["threads", "one thread", "wrapped"])
@within(60)
def test_a_task_that_submits_after_the_shutdown(kind):
    """A task of a thread pool, its stages and their tasks submit more, in turn, after the block was left."""
    closed, numbers = threading.Event(), []

    def task(pool, number):
        closed.wait(LONG)
        numbers.append(number)
        if number < 10:
            pool.submit(task, pool, number + 1).then(lambda _: pool.submit(numbers.append, -number))

    with KINDS[kind]() as pool:
        pool.submit(task, pool, 0)
        threading.Timer(0.05, closed.set).start()
    assert sorted(numbers) == sorted([*range(11), *(-number for number in range(10))])


@pytest.mark.parametrize("kind", KINDS)
@within(60)
def test_inside_work_of_two_pools(kind):
    """A handler of one pool submits to another one that is shut down, too: its chain is still waited for there."""
    with KINDS[kind]() as first, ThreadPoolExecutor(1) as second:
        end = second.submit(work.wait_a_moment).then(
            lambda _: first.submit(work.wait_a_moment).then(work.one, on=second)
        )
    assert end.result(LONG) == 1


@pytest.mark.parametrize("kind", KINDS)
@within(60)
def test_outside_work_is_refused_at_once(kind):
    """After the call of shutdown, submit() in a thread that runs nothing of a begun chain is refused."""
    pool = KINDS[kind]()
    running = pool.submit(work.wait_a_moment)
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match=r"after shutdown"):
        pool.submit(work.one)
    assert running.then(work.one, on=INLINE).result(LONG) == 1
    pool.shutdown()


@pytest.mark.parametrize("kind", KINDS)
@within(60)
def test_a_retry_on_a_pool_that_is_being_shut_down(kind):
    """It is refused, whoever asks, at each attempt; and the shutdown waits for nothing that nobody will end."""
    pool = KINDS[kind]()
    running, refused = pool.submit(work.wait_a_moment), []
    pool.shutdown(wait=False)
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(2))
    thread = threading.Thread(target=lambda: refused.append(retry(int, "1", policy=policy, on=pool)))
    thread.start()
    thread.join()
    assert "after shutdown" in str(refused[0].exception(LONG))
    pool.shutdown()
    assert running.done()


@pytest.mark.parametrize("kind", KINDS)
@within(60)
def test_a_stage_attached_too_late_is_settled(kind):
    """On a chain that has ended, of a pool that was shut down, a stage fails with an error that shows the remedy."""
    with KINDS[kind]() as pool:
        future = pool.submit(work.one)
    stage = future.then(work.double)
    error = stage.exception(LONG)
    assert isinstance(error, (ExecutorShutdownError, RuntimeError))
    assert "on=INLINE" in str(error)


@pytest.mark.parametrize("kind", KINDS)
@within(60)
def test_a_bare_future_behind_a_shutdown(kind):
    """A stage on a pool behind a bare future that nobody settles does not hold up the shutdown for ever, if dropped."""
    with KINDS[kind]() as pool:
        source = Future()
        stage = source.then(work.double, on=pool)
        threading.Timer(0.05, source.set_result, (4,)).start()
        pool.submit(work.one)
    assert stage.result(LONG) == 8


@pytest.mark.parametrize("kind", ["threads", "one thread"])
@within(60)
def test_shutdown_waits_for_a_worker_that_is_being_started(kind):
    """Whoever shuts a pool down while another thread submits sees every accepted task done."""
    for _ in range(200):
        pool, done, accepted = KINDS[kind](), [], []
        barrier = threading.Barrier(3)

        def submit(pool=pool, done=done, accepted=accepted, barrier=barrier):
            barrier.wait(LONG)
            try:
                for number in range(5):
                    pool.submit(done.append, number)
                    accepted.append(number)
            except RuntimeError:
                pass

        submitters = [threading.Thread(target=submit) for _ in range(2)]
        for thread in submitters:
            thread.start()
        barrier.wait(LONG)
        pool.shutdown()
        before = len(done)
        for thread in submitters:
            thread.join(LONG)
        assert before == len(done) == len(accepted)


@within(60)
def test_shutdown_waits_although_the_first_worker_has_not_started(monkeypatch):
    """A worker whose thread another thread is about to start is waited for."""
    starting, go, done = threading.Event(), threading.Event(), []
    start = threading.Thread.start

    def slow_start(thread):
        if thread.name.startswith("slowly"):
            starting.set()
            go.wait(LONG)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slow_start)
    pool = ThreadPoolExecutor(1, thread_name_prefix="slowly")
    submitter = threading.Thread(target=pool.submit, args=(done.append, 1))
    submitter.start()
    starting.wait(LONG)
    ended = threading.Event()
    closer = threading.Thread(target=lambda: (pool.shutdown(), ended.set()))
    closer.start()
    early = ended.wait(0.1)
    go.set()
    submitter.join(LONG)
    assert ended.wait(LONG)
    assert done == [1]
    assert not early
