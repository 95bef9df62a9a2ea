"""What all pools share: whose work it is, who may still bring some, and when all is over."""

from __future__ import annotations

import concurrent.futures as cf
import functools
import gc
import threading
import weakref

import pytest

import work
from futurechain import (
    INLINE,
    Future,
    Pipeline,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    delay,
    ensure_future,
    fail,
    gather,
    inlineCallbacks,
    limit,
    retry,
    wrap_executor,
)
from futurechain.errors import ExecutorShutdownError
from programs import run_program

POOLS = {
    "thread": lambda: ThreadPoolExecutor(3),
    "process": lambda: ProcessPoolExecutor(2),
    "wrapped threads": lambda: wrap_executor(cf.ThreadPoolExecutor(3)),
    "wrapped processes": lambda: wrap_executor(cf.ProcessPoolExecutor(2)),
}
each_pool = pytest.mark.parametrize("make", POOLS.values(), ids=list(POOLS))


def output(text):
    """What a program prints, errors and warnings included."""
    done = run_program(text)
    return done.stdout + done.stderr


# -- inside work ----------------------------------------------------------------------------------------------------


@each_pool
def test_what_a_callback_submits_at_the_end_of_the_block_is_inside_work(make):
    """A Twisted-family callback may submit, and the end of the block waits for that, too."""
    seen = []
    with make() as pool:
        future = pool.submit(work.nap, 0.1).addCallback(lambda _: pool.submit(work.double, 4)).addCallback(seen.append)
    assert future.result(0) is None
    assert seen == [8]


@each_pool
def test_what_a_coroutine_yields_at_the_end_of_the_block_is_inside_work(make):
    """Its second step submits as the first did."""

    @inlineCallbacks
    def steps(pool):
        yield pool.submit(work.nap, 0.1)
        return (yield pool.submit(work.double, 4))

    with make() as pool:
        future = steps(pool)
    assert future.result(0) == 8


@each_pool
def test_a_gather_of_tasks_in_a_handler_is_inside_work(make):
    """As many as it likes."""
    with make() as pool:
        future = pool.submit(work.nap, 0.1).then(
            lambda _: gather(*[pool.submit(work.double, n) for n in range(4)]), on=INLINE
        )
    assert list(future.result(0)) == [0, 2, 4, 6]


@pytest.mark.parametrize("make", [POOLS["thread"], POOLS["wrapped threads"]])
def test_what_a_task_and_a_stage_submit_is_inside_work(make):
    """`lambda v: pool.submit(work, v)`, at the end of the block."""
    seen = []
    with make() as pool:
        pool.submit(lambda: work.nap(0.1) or pool.submit(seen.append, 1))
        pool.submit(work.nap, 0.1).then(lambda _: pool.submit(seen.append, 2))
    assert sorted(seen) == [1, 2]


def test_inside_work_has_all_workers():
    """No worker goes while another may still bring work: three tasks that wait for each other all run."""
    barrier = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        future = pool.submit(work.nap, 0.1).then(lambda _: gather(*[pool.submit(barrier.wait, 10) for _ in range(3)]))
    assert sorted(future.result(0)) == [0, 1, 2]


def test_a_coroutine_on_a_pool_may_wait_for_a_timer_at_the_end_of_the_block():
    """The block waits for it, and its next step may submit."""

    async def steps(pool):
        await delay(0.05)
        return await pool.submit(work.double, 4)

    with ThreadPoolExecutor(1) as pool:
        future = ensure_future(steps(pool), on=pool)
    assert future.result(0) == 8


def test_a_local_handler_behind_a_timer_may_submit_at_the_end_of_the_block():
    """It belongs to a chain that has begun here, whatever thread runs it."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(int).then(lambda _: delay(0.05)).then(lambda _: pool.submit(work.double, 4), on=INLINE)
    assert future.result(0) == 8


@each_pool
def test_what_is_attached_to_an_unsettled_future_of_a_begun_chain_is_inside_work(make):
    """From anywhere, after the shutdown."""
    pool = make()
    begun = pool.submit(work.nap, 0.3)
    pool.shutdown(wait=False)
    stage = begun.then(work.is_none).then(work.is_none)
    assert stage.result(30) is False
    pool.shutdown()


@each_pool
def test_outside_work_is_refused_from_the_moment_of_the_shutdown(make):
    """A task by raising; a stage on a bare or settled future when its turn comes."""
    pool, bare = make(), Future()
    begun = pool.submit(work.nap, 0.3)
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(work.double, 1)
    stage = bare.then(work.double, on=pool)
    bare.set_result(1)

    error = stage.exception(30)
    assert isinstance(error, ExecutorShutdownError)
    assert "on=INLINE" in str(error)
    assert "raised in stage double" in error.__notes__[0]
    assert begun.result(30) is None
    pool.shutdown()


@each_pool
def test_a_refused_error_handler_has_the_error_as_its_context(make):
    """So that it is not lost."""
    pool = make()
    pool.shutdown()
    original = KeyError("original")
    for stage in (fail(original).catch(work.recover, on=pool), fail(original).finally_(work.pid, on=pool)):
        error = stage.exception(30)
        assert isinstance(error, ExecutorShutdownError)
        assert error.__context__ is original


@each_pool
def test_a_pool_is_over_when_what_it_waited_for_was_cancelled(make):
    """A stage behind a bare future holds a shutdown up until it is cancelled."""
    pool, bare = make(), Future()
    stage = bare.then(work.double, on=pool)
    threading.Timer(0.1, stage.cancel).start()
    pool.shutdown()
    assert stage.cancelled()


@each_pool
def test_a_pool_without_work_ends_at_once(make):
    """And twice does no harm."""
    pool = make()
    pool.shutdown()
    pool.shutdown(wait=False, cancel_futures=True)
    assert "shut down" in repr(pool)


def test_a_pool_may_be_opened_and_closed_in_a_task_of_another():
    """Each waits for its own chains."""

    def inner():
        with ThreadPoolExecutor(2) as pool:
            return pool.submit(work.double, 2).then(lambda value: pool.submit(work.double, value))

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inner).result(30) == 8


@each_pool
def test_the_scheduler_does_not_keep_the_executor(make):
    """A future that is settled keeps no pool alive."""
    pool = make()
    future = pool.submit(work.double, 1)
    future.result(30)
    pool.shutdown()
    ref = weakref.ref(pool)
    del pool
    gc.collect()
    assert ref() is None
    assert future.result(0) == 2


# -- map and the with block -----------------------------------------------------------------------------------------


@each_pool
def test_map_takes_several_iterables_in_order(make):
    """As the built-in does, up to the end of the shortest."""
    with make() as pool:
        assert list(pool.map(work.add, range(5), range(10, 13))) == [10, 12, 14]
        assert list(pool.map(work.double, range(7), chunksize=3)) == [0, 2, 4, 6, 8, 10, 12]
        assert list(pool.map(work.double, [])) == []


@each_pool
def test_map_with_a_buffer_reads_no_further(make):
    """`buffersize` items are under way or waiting; one more is read for each result that is handed out."""
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield number

    with make() as pool:
        results = pool.map(work.double, items(), buffersize=3)
        assert read == [0, 1, 2]
        assert next(results) == 0
        assert read == [0, 1, 2, 3]
        results.close()


def test_map_with_a_buffer_holds_its_executor(pool):
    """No result is lost when nobody else does, as with a view of `limit` that is made for the call."""
    results = limit(pool, concurrency=2).map(work.double, range(10), buffersize=2)
    gc.collect()
    assert list(results) == [work.double(n) for n in range(10)]


@pytest.mark.parametrize(("options", "error"), [({"buffersize": 0}, ValueError), ({"buffersize": "1"}, TypeError)])
def test_map_refuses_a_bad_buffer(pool, options, error):
    """At the call."""
    with pytest.raises(error, match="buffersize"):
        pool.map(int, [], **options)


def test_map_refuses_a_bad_chunk(processes):
    """At the call, where it has a meaning."""
    with pytest.raises(ValueError, match="chunksize"):
        processes.map(int, [], chunksize=0)


@each_pool
def test_map_cancels_the_rest_after_an_error(make):
    """And after a time-out, and when the iterator is closed."""
    with make() as pool:
        with pytest.raises(ValueError, match="boom"):
            list(pool.map(work.boom, range(20)))
        with pytest.raises(TimeoutError):
            list(pool.map(work.nap, [0.3], timeout=0.01))


@pytest.mark.parametrize("make", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_cancel_on_error_cancels_what_has_not_begun(make):
    """If the block is left by an exception; without it, or without an exception, everything is run."""
    for cancel, left_by, cancelled in ((True, KeyboardInterrupt, True), (True, None, False), (False, KeyError, False)):
        try:
            with make(1, cancel_on_error=cancel) as pool:
                futures = [pool.submit(work.nap, 0.05) for _ in range(8)]
                if left_by is not None:
                    raise left_by
        except BaseException as error:
            assert type(error) is left_by
        assert futures[-1].cancelled() is cancelled


# -- the end of the interpreter ---------------------------------------------------------------------------------------

PROLOGUE = """
import time
from futurechain import *
one, two = ThreadPoolExecutor(2), ThreadPoolExecutor(2)
delay(0).result()  # the clock's thread: at the end, Python 3.12 starts none
"""


@pytest.mark.parametrize(
    "program",
    [
        "one.submit(time.sleep, 0.2).then(lambda _: print('ran'), on=two)",
        "one.submit(lambda: time.sleep(0.2) or two.submit(print, 'ran'))",
        "two.submit(int).result(); one.submit(time.sleep, 0.2).addCallback(lambda _: two.submit(print, 'ran'))",
        "one.submit(int).then(lambda _: delay(0.2)).then(lambda _: print('ran'))",
        "f = Future(); f.then(lambda _: print('ran'), on=two); one.submit(lambda: time.sleep(0.2) or f.set_result(1))",
        "bare = Future(); bare.then(int, on=two).catch(lambda _: print('ran'))",
        "bare = Future(); bare.timeout(0.2).catch(lambda _: print('ran'), on=two)",
        "bare = Future(); bare.then(int, on=two).finally_(lambda: print('ran'))",
    ],
)
def test_what_moves_comes_to_its_end(program):
    """The end of the interpreter waits for it, wherever it leads, and fails what cannot come."""
    assert output(PROLOGUE + program) == "ran\n"


@pytest.mark.parametrize(
    "program",
    [
        "bare = Future(); stage = bare.then(str, on=one)",
        "delay(600).then(print)",
        "one.submit(int); timer = delay(600)",
        ("kept = []\ndef again(_):\n    kept.append(Future())\n    return kept[-1].then(str, on=one).catch(again)\n"
        "again(0)"),
    ],
)
def test_what_cannot_come_holds_up_nothing(program):
    """A bare future, and a timer with no pool behind it."""
    assert output(PROLOGUE + program) == ""


def test_daemon_threads_of_a_foreign_executor_hold_up_nothing():
    """What a wrapped executor of another kind still does is not waited for."""
    program = """
        import concurrent.futures as cf, threading, time
        from futurechain import ThreadPoolExecutor, wrap_executor

        class FireAndForget(cf.Executor):
            def submit(self, fn, /, *args, **kwargs):
                future = cf.Future()
                threading.Thread(target=lambda: future.set_result(fn(*args, **kwargs)), daemon=True).start()
                return future

        executor = wrap_executor(FireAndForget())
        stage = executor.submit(time.sleep, 600).then(print).then(print, on=ThreadPoolExecutor(1))
    """
    assert output(program) == ""


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
def test_chains_on_wrapped_standard_pools_come_to_their_end(kind):
    """All of their stages."""
    program = f"""
        import concurrent.futures as cf, math
        from futurechain import wrap_executor
        if __name__ == "__main__":
            pool = wrap_executor(cf.{kind}(1))
            pool.submit(math.sqrt, 256).then(math.sqrt).then(math.sqrt).addCallback(print)
    """
    assert output(program) == "2.0\n"


def test_a_pool_works_in_a_forked_child():
    """Whatever its workers were doing in the parent."""
    program = """
        import os, threading, warnings
        from futurechain import ThreadPoolExecutor
        warnings.simplefilter('ignore')  # that threads are running is the point
        pool, gate = ThreadPoolExecutor(2), threading.Event()
        busy = [pool.submit(gate.wait, 10).then(str) for _ in range(5)]
        child = os.fork()
        if not child:
            assert pool.submit(int).then(str).result(10) == "0"
            pool.shutdown()
            print("child", flush=True)
        else:
            assert os.waitpid(child, 0)[1] == 0
            gate.set()
            print("parent", busy[-1].result(10))
    """
    assert output(program) == "child\nparent True\n"


# -- coroutines stay in this process --------------------------------------------------------------------------------

ASYNC_CALLS = {
    "submit": lambda pool, fn: pool.submit(fn, 1),
    "on=": lambda pool, fn: Future().then(fn, on=pool),
    "the chain's own pool": lambda pool, fn: pool.submit(work.double, 1).then(fn),
    "a partial": lambda pool, fn: pool.submit(work.double, 1).then(functools.partial(fn)),
    "beside an error handler": lambda pool, fn: pool.submit(work.double, 1).then(fn, str),
    "a view": lambda pool, fn: limit(pool, concurrency=1).submit(fn, 1),
    "on= a view": lambda pool, fn: Future().then(fn, on=limit(pool, concurrency=1)),
    "retry": lambda pool, fn: retry(fn, 1, policy=pytest.importorskip("tenacity").Retrying(), on=pool),
    "a pipeline": lambda pool, fn: Pipeline().then(fn, on=pool),
}


@pytest.mark.parametrize("call", ASYNC_CALLS.values(), ids=list(ASYNC_CALLS))
@pytest.mark.parametrize("kind", ["process", "wrapped processes"])
def test_coroutines_cannot_run_in_a_worker_process(kind, call):
    """An ``async def`` function is a TypeError at the call that would send it to another process."""
    with POOLS[kind]() as pool:
        with pytest.raises(TypeError, match=r"async def function wait_for on .*, which does not share our memory"):
            call(pool, work.wait_for)
        assert pool.submit(work.double, 4).result() == 8


@each_pool
def test_error_handlers_may_be_coroutines(make):
    """They run in this process, whatever the pool is."""

    async def repair(error):
        return "repaired"

    with make() as pool:
        assert pool.submit(work.boom).catch(repair).result() == "repaired"
        assert pool.submit(work.boom).then(str, repair).result() == "repaired"
