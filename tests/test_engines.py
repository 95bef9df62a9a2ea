"""Other people's executors through `wrap_executor`: one body over each of them."""

from __future__ import annotations

import concurrent.futures as cf
import os
import threading

import pytest

import engines
import work
from futurechain import INLINE, Pipeline, wrap_executor, wrap_future


def needs(name: str):
    return pytest.param(name, marks=[] if name in engines.QUICK else pytest.mark.slow)


@pytest.fixture(scope="module", params=[needs(name) for name in engines.ENGINES])
def executor(request):
    """Each engine in turn, with one worker; skipped with the reason where it cannot be had."""
    try:
        with engines.engine(request.param) as executor:
            yield executor
    except engines.Absent as why:
        pytest.skip(f"{request.param}: {why}")


def test_a_chain(executor):
    """Values go through the steps, errors past them to their handler, which runs here."""
    assert executor.submit(work.fetch, "url").then(work.parse).then(work.save).result(60) == "Save successful"
    handled = executor.submit(work.boom).then(work.double).catch(ValueError, lambda _: os.getpid()).then(abs)
    assert handled.result(60) == os.getpid()
    assert isinstance(executor.submit(work.boom).catch(KeyError, work.recover).exception(60), ValueError)


def test_a_cleanup(executor):
    """`finally_` runs here, and keeps the outcome."""
    lock = threading.Semaphore(0)

    assert executor.submit(work.double, 2).finally_(lock.release).then(work.double).result(60) == 8
    assert lock.acquire(timeout=0)


def test_a_stage_elsewhere(executor):
    """A chain leaves the engine, and comes back to it."""
    future = executor.submit(work.double, 1).then(lambda value: value + 1, on=INLINE).then(work.double, on=executor)

    assert future.result(60) == 6


def test_callbacks_of_both_families(executor):
    """Twisted's callbacks and done callbacks run, with the value at hand."""
    told = threading.Event()
    future = executor.submit(work.double, 2)
    future.add_done_callback(lambda done: done.result(0) == 4 and told.set())

    assert future.addCallback(lambda value: value + 1).result(60) == 5
    assert told.wait(60)


def test_a_queued_chain_is_cancelled(executor):
    """What waits behind other work can always be cancelled, up to its beginning."""
    before = executor.submit(engines.nap, 0.05)
    begun = [executor.submit(engines.nap, 0.05) for _ in range(4)][-1]
    last = begun.then(work.double)

    assert last.cancel()
    assert last.cancelled()
    before.result(60)
    assert cf.wait([begun], 60).not_done == set()


def test_a_pipeline(executor):
    """`Pipeline.map` gives the results in order, and an item fails alone."""
    assert list(Pipeline().then(work.double, on=executor).map(range(50), window=20)) == [2 * n for n in range(50)]
    outcomes = list(Pipeline().then(work.boom, on=executor).map(range(3), return_exceptions=True))
    assert [type(one) for one in outcomes] == [ValueError] * 3


def test_map(executor):
    """`map` is in order."""
    assert list(executor.map(work.double, range(5))) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("name", [needs(name) for name in engines.ENGINES])
def test_the_end_waits_for_chains(name):
    """The end of the `with` block waits for whole chains, and then ends the engine."""
    try:
        with engines.engine(name) as executor:
            last = executor.submit(engines.nap, 0.1, 2).then(work.double).catch(lambda _: 0).then(work.double)
            executor.shutdown()
            assert last.done()
            assert last.result() == 8
            with pytest.raises(RuntimeError, match="after shutdown"):
                executor.submit(work.double, 1)
    except engines.Absent as why:
        pytest.skip(f"{name}: {why}")


def test_a_broken_pool_of_pebbles_settles_everything():
    """When the pool has stopped under its wrapper, what was inside and what was queued fails, and nothing hangs."""
    pebble = pytest.importorskip("pebble")
    pool = pebble.ProcessPool(1)
    executor = wrap_executor(pool)
    assert wrap_executor(pool) is executor
    futures = [executor.submit(engines.nap, 30) for _ in range(3)]
    while not futures[0].running():
        pass
    pool.stop()
    pool.join()

    assert cf.wait(futures, 30).not_done == set()
    assert all(one.cancelled() or isinstance(one.exception(), cf.BrokenExecutor) for one in futures)
    executor.shutdown()


@pytest.mark.slow
def test_rays_futures():
    """Ray's futures are adopted by `wrap_future`."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        remote = ray.remote(lambda value: value * 2)
        assert wrap_future(remote.remote(2).future()).then(work.double).result(60) == 8
    finally:
        ray.shutdown()
