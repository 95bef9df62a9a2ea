"""`DaskExecutor`: chains on a cluster of two worker processes, and what moves between them."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextvars
import gc
import json
import operator
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from uuid import uuid4

import pytest

import futurechain
import work
from benchmarks import ratios
from futurechain import (
    INLINE,
    Pipeline,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    first,
    gather,
    limit,
    race,
    render,
    succeed,
    trace,
)
from futurechain.errors import ClusterLostError, ExecutorShutdownError, StagePicklingError, WorkerDiedError
from programs import run_program

distributed = pytest.importorskip("distributed")

import dask  # noqa: E402

import cluster_work  # noqa: E402  # needs distributed
from futurechain.dask import DaskExecutor  # noqa: E402

Client = distributed.Client
HERE = os.getpid()
KEYS = {"zeros", "length", "double", "as_tuple", "boom", "nap", "is_none"}
VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


def local_cluster(workers: int = 2):
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=":0", resources={"LEFT": 1}, silence_logs=60
    )


@pytest.fixture(scope="module")
def cluster():
    with local_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    with Client(cluster) as client:
        yield client


@pytest.fixture
def executor(client) -> Iterator[DaskExecutor]:
    with DaskExecutor(client) as executor:
        yield executor


@pytest.fixture
def gate(client):
    """An event that tasks wait for; it is set at the end in any case."""
    event = distributed.Event(f"gate-{uuid4()}", client=client)
    yield event
    event.set()


def until(condition, seconds: float = 30.0) -> None:
    """Wait until something that comes by itself has come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.01)


def to_client(client) -> int:
    """How many bytes the workers have sent to clients so far, by their own records."""
    logs = client.run(
        lambda dask_worker: [one["total"] for one in dask_worker.transfer_outgoing_log if one["who"] is None]
    )
    return sum(map(sum, logs.values()))


def keys_of(client) -> set[str]:
    return set(client.run_on_scheduler(lambda dask_scheduler: [str(key) for key in dask_scheduler.tasks]))


# -- what everybody would expect --------------------------------------------------------------------------------------


def test_a_chain_gives_its_last_value(executor):
    """`submit(a).then(b).then(c).result()` is what the last step returns, and all of it is real futures."""
    begun = executor.submit(work.fetch, url="url")
    future = begun.then(work.parse).then(work.save)

    assert isinstance(begun, cf.Future)
    assert isinstance(future, futurechain.Future)
    assert future.result(30) == "Save successful"
    assert begun.result(30) == "page of url"


def test_an_error_skips_values_and_is_handled_here(executor):
    """An error passes value stages without running them; its handlers run in this process, with a note of the stage."""
    seen = []
    future = (
        executor.submit(work.double, 2)
        .then(work.boom)
        .then(work.double)
        .catch(KeyError, seen.append)
        .catch(ValueError, lambda error: (os.getpid(), error.__notes__))
    )

    assert future.result(30) == (HERE, [f"raised in stage boom, on {executor._scheduler.name}"])
    assert seen == []


def test_what_passes_an_error_on_has_the_same_one(executor):
    """The stages behind a failed one have its very exception."""
    failed = executor.submit(work.boom)
    skipped = failed.then(work.double).then(work.double)

    assert skipped.exception(30) is failed.exception(30)


def test_a_chain_goes_on_after_a_handler(executor):
    """After `catch` the chain is on the cluster again, whether there was an error or not."""
    assert executor.submit(work.boom).catch(lambda _: 4).then(work.double).result(30) == 8
    assert executor.submit(work.double, 1).catch(lambda _: 4).then(work.double).result(30) == 4
    assert executor.submit(work.boom).then(work.double, lambda _: 5).then(work.double).result(30) == 10
    assert executor.submit(work.double, 1).then(work.double, lambda _: 5).then(work.pid).result(30) != HERE


def test_an_error_handler_that_fails_has_a_context(executor):
    """What a handler raises has the error that it was to handle as its context."""
    error = executor.submit(work.boom).catch(lambda _: {}["key"]).exception(30)

    assert isinstance(error, KeyError)
    assert isinstance(error.__context__, ValueError)


def test_finally_runs_here_and_keeps_the_outcome(executor):
    """`finally_` calls its function in this process, and passes the value or the error on."""
    ran = []

    assert executor.submit(work.double, 2).finally_(lambda: ran.append(os.getpid())).then(work.double).result(30) == 8
    assert isinstance(executor.submit(work.boom).finally_(lambda: ran.append(os.getpid())).exception(30), ValueError)
    assert ran == [HERE, HERE]


def test_stages_elsewhere_in_between(executor, pool):
    """A chain may leave the cluster for INLINE or for another executor, and come back."""
    future = (
        executor.submit(work.double, 1)
        .then(lambda value: (value, os.getpid()), on=INLINE)
        .then(lambda pair: pair[0] if pair[1] == HERE else None)
        .then(work.double, on=executor)
        .then(lambda value: value + 1, on=pool)
        .then(work.double, on=executor)
        .then(work.double)
    )

    assert future.result(30) == 20
    assert pool.submit(work.double, 1).then(work.double, on=executor).then(work.pid).result(30) not in {0, HERE}
    assert isinstance(pool.submit(work.boom).then(work.double, on=executor).exception(30), ValueError)


def test_handlers_see_the_context_of_the_attaching(executor):
    """What runs here runs in the context in which it was attached."""
    VARIABLE.set("here")
    future = executor.submit(work.boom).catch(lambda _: VARIABLE.get())
    VARIABLE.set("later")

    assert future.result(30) == "here"


def test_twisted_callbacks_run_here(executor):
    """`addCallback` gets the value, in this process and never on Dask's event loop."""
    future = executor.submit(work.double, 2)
    future.addCallback(lambda value: (value, threading.current_thread().name))

    value, thread = future.final.result(30)

    assert value == 4
    assert thread != executor.client.loop_thread.name if hasattr(executor.client, "loop_thread") else True


def test_a_callback_that_blocks_holds_up_nobody(executor):
    """While a done callback waits, other futures are settled, and their callbacks run."""
    free, told = threading.Event(), threading.Event()
    executor.submit(work.double, 1).add_done_callback(lambda _: free.wait(30))
    executor.submit(work.double, 2).add_done_callback(lambda _: told.set())

    assert told.wait(30)
    free.set()


def test_map_is_in_order(executor):
    """`map` gives the results in order, in chunks or not."""
    assert list(executor.map(work.double, range(20), chunksize=7)) == [2 * n for n in range(20)]
    assert list(executor.map(work.double, range(5), buffersize=2)) == [0, 2, 4, 6, 8]


def test_map_brings_results_before_they_are_asked_for(executor, client):
    """As the standard executors do: what is on its way need not be waited for later."""
    before = to_client(client)
    results = executor.map(cluster_work.zeros, [100_000] * 3)

    until(lambda: to_client(client) - before >= 300_000)
    assert [len(one) for one in results] == [100_000] * 3


def test_those_who_look_see_how_many_workers_there_are(executor):
    """The threads of all workers count: the default window of a pipeline comes from that."""
    assert executor._max_workers == 2


def test_a_function_that_begins_a_task_on_the_cluster(executor):
    """A task that returns a future of Dask's has that one's result, and holds no worker while it waits for that."""
    futures = [executor.submit(cluster_work.begin_another, number).then(work.double) for number in range(4)]

    assert [one.result(30) for one in futures] == [0, 2, 4, 6]


def test_a_task_that_begins_a_chain(executor):
    """A task on the cluster may have an executor there, and returns the end of a chain: it has the result of that."""
    assert executor.submit(cluster_work.begin_a_chain, 3).then(work.double).result(30) == 24
    assert isinstance(executor.submit(cluster_work.begin_a_chain, "3", 1).exception(30), TypeError)


def test_futures_of_dasks_are_arguments(executor, client):
    """A future of Dask's as an argument stands for its result: by position, by name, or in a list."""
    one = client.submit(work.double, 1, pure=False)

    assert executor.submit(work.add, one, right=one).result(30) == 4
    assert executor.submit(sum, [one, one]).result(30) == 4
    assert executor.submit(cluster_work.named, key=1, workers=one, priority=2).result(30) == {
        "key": 1,
        "priority": 2,
        "workers": 2,
    }


def test_a_handler_that_returns_a_future_of_the_cluster(executor):
    """A `catch` may submit again: its stage has the outcome of that."""
    future = executor.submit(work.boom).catch(lambda _: executor.submit(work.double, 4)).then(work.double)

    assert future.result(30) == 16


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (work.leave, SystemExit),
        (cluster_work.stop_iteration, StopIteration),
        (cluster_work.falsy, cluster_work.Falsy),
        (cluster_work.two_arguments, StagePicklingError),
    ],
)
def test_odd_errors_arrive(executor, function, kind):
    """No exception ends a worker, or is taken for none; one that cannot come back is explained."""
    assert isinstance(executor.submit(function, 1).then(work.double).exception(30), kind)


def test_async_functions_are_refused(executor):
    """An `async def` function is told at the call; its coroutine, when it is returned there."""
    with pytest.raises(TypeError, match="on="):
        executor.submit(cluster_work.coroutine, 1)
    assert isinstance(executor.submit(partial(apply, cluster_work.coroutine), 1).exception(30), TypeError)


def apply(function, value):
    return function(value)


def test_asyncio_and_the_standard_functions(executor):
    """`await`, `asyncio.wrap_future`, `wait` and `as_completed` work, with values that are fetched for them."""

    async def main():
        return await executor.submit(work.double, 1), await asyncio.wrap_future(executor.submit(work.double, 2))

    assert asyncio.run(main()) == (2, 4)
    done = executor.submit(work.double, 3)
    done.exception(30)

    async def late():
        return await done

    assert asyncio.run(late()) == 6
    futures = [executor.submit(work.double, n) for n in range(5)]
    assert cf.wait(futures, 30).not_done == set()
    assert sorted(one.result(0) for one in cf.as_completed(futures, 30)) == [0, 2, 4, 6, 8]


def test_coroutines_wait_for_it(executor):
    """`inlineCallbacks` goes on with the value, whether it is here, on its way or still on the cluster."""

    @futurechain.inlineCallbacks
    def steps():
        one = executor.submit(work.double, 1)
        one.exception(30)
        value = yield one
        more = yield executor.submit(work.double, value)
        return value + more

    assert steps().result(30) == 6


def test_combinators_take_its_futures(executor, pool):
    """`race`, `first`, and `gather` of futures that are not all of the cluster's, have the values."""
    assert first(executor.submit(work.boom), executor.submit(work.double, 2)).result(30) == 4
    assert race(executor.submit(work.double, 2)).result(30) == 4
    assert gather(executor.submit(work.double, 2), pool.submit(work.double, 1), succeed(3)).result(30) == (4, 2, 3)


# -- what moves -------------------------------------------------------------------------------------------------------


def test_intermediate_results_never_come_here(executor, client):
    """A chain with big values sends next to nothing to the client: only the last result, when it is asked for."""
    before = to_client(client)

    future = executor.submit(cluster_work.make, 2_000_000, HERE).then(cluster_work.grow).then(cluster_work.length)

    assert future.result(30) == 2_000_001
    assert to_client(client) - before < 1000


def test_what_does_not_ask_fetches_nothing(executor, client):
    """`exception()`, `done()`, `wait`, `as_completed`, handlers and `repr` leave the value where it is."""
    before = to_client(client)
    cleaned = []
    begun = executor.submit(cluster_work.make, 2_000_000, HERE)
    kept = begun.catch(cleaned.append).finally_(lambda: cleaned.append("up")).shield().timeout(30)

    assert kept.exception(30) is None
    assert kept.done()
    assert cf.wait([begun, kept], 30).not_done == set()
    assert set(cf.as_completed([begun, kept], 30)) == {begun, kept}
    assert (begun.exception(0), kept.exception(0)) == (None, None)
    assert "finished" in repr(kept)
    assert kept.then(cluster_work.length).result(30) == 2_000_000
    assert cleaned == ["up"]
    assert to_client(client) - before < 1000


def test_an_error_comes_without_data(executor, client):
    """A failing stage on a big value, and its handler here, move none of it."""
    before = to_client(client)

    future = executor.submit(cluster_work.zeros, 2_000_000).then(work.boom).then(work.double).catch(lambda _: 1)

    assert future.result(30) == 1
    assert to_client(client) - before < 1000


def test_a_value_that_cannot_come_fails_who_asks(executor):
    """A value that cannot be unpickled here is an error of who asks, and of nobody else."""
    future = executor.submit(cluster_work.make, 10, HERE)

    assert future.exception(30) is None
    with pytest.raises(Exception, match=r"."):
        future.result(30)
    assert future.then(cluster_work.length).result(30) == 10


def test_a_value_that_cannot_be_sent_fails_who_asks(executor):
    """The same for one that does not pickle: by name, with the remedies."""
    future = executor.submit(work.give_lock)

    with pytest.raises(StagePicklingError, match="give_lock"):
        future.result(30)


def test_a_value_is_here_before_anybody_is_told(executor):
    """In a done callback `result(0)` has the value."""
    values = []
    told = threading.Event()

    def tell(future):
        values.append(future.result(0))
        told.set()

    executor.submit(work.double, 2).add_done_callback(tell)

    assert told.wait(30)
    assert values == [4]


def test_a_short_timeout_is_no_error_for_what_is_done(executor):
    """`result(0)` of a future that is done waits for its value's way."""
    future = executor.submit(cluster_work.zeros, 1_000_000)
    cf.wait([future], 30)

    assert len(future.result(0)) == 1_000_000


def test_the_next_stage_is_sent_at_once(executor, client, gate):
    """The scheduler knows the whole chain while its first task still runs."""
    future = executor.submit(cluster_work.wait_for, gate.name, 1).then(cluster_work.rapid).then(cluster_work.spin)

    until(lambda: {"wait_for", "rapid", "spin"} <= {key.split("-")[0] for key in keys_of(client)})
    assert not future.done()
    future.cancel()


def test_a_chain_is_sent_when_its_beginning_is(executor, client, gate):
    """What was attached to a stage that had to wait for something here is sent together with it."""
    begun = futurechain.Future()
    future = begun.then(cluster_work.wait_for, on=executor).then(cluster_work.rapid).then(cluster_work.spin)
    begun.set_result(gate.name)

    until(lambda: {"wait_for", "rapid", "spin"} <= {key.split("-")[0] for key in keys_of(client)})
    future.cancel()


def test_gather_is_one_task_on_the_cluster(executor, client):
    """The values of a `gather` meet on a worker; none comes here for a next stage on the cluster."""
    before = to_client(client)
    parts = [executor.submit(cluster_work.make, 1_000_000, HERE) for _ in range(3)]

    whole = gather(*parts)

    assert whole.then(cluster_work.lengths, on=executor).result(30) == 3_000_000
    assert to_client(client) - before < 1000
    assert isinstance(gather(*parts, executor.submit(work.boom)).exception(30), ValueError)


def test_gather_has_a_tuple(executor):
    """`gather` of cluster futures is a tuple in order, with the errors in it if that is wanted."""
    one, two = executor.submit(work.double, 1), executor.submit(work.boom)

    assert gather(one, one, executor.submit(work.double, 2)).result(30) == (2, 2, 4)
    value, error = gather(one, two, return_exceptions=True).result(30)
    assert value == 2
    assert isinstance(error, ValueError)
    assert gather(one, one).then(sum).result(30) == 4


def test_gather_outlives_its_executor(client, executor):
    """After the end of the `with` block its futures can be gathered, though it takes no more; another one goes on."""
    with DaskExecutor(client) as ended:
        parts = [ended.submit(work.double, n) for n in range(3)]
        whole = gather(*parts)

    assert whole.result(30) == (0, 2, 4)
    assert gather(*parts).result(30) == (0, 2, 4)
    assert gather(*parts).then(sum, on=executor).result(30) == 6
    assert gather(*parts, executor.submit(work.double, 3)).result(30) == (0, 2, 4, 6)


def test_gathers_can_be_gathered(executor, client):
    """All of that happens on the cluster."""
    before = to_client(client)
    one, two, three = (executor.submit(cluster_work.make, size, HERE) for size in (10, 100_000, 1000))

    whole = gather(gather(one), gather(two, three)).then(cluster_work.nested_lengths, on=executor)

    assert whole.result(30) == 101_010
    assert to_client(client) - before < 1000


def test_keys_are_released(executor, client):
    """When nobody holds the futures any more, the cluster has forgotten everything."""
    future = executor.submit(cluster_work.zeros, 1000).then(cluster_work.length).catch(lambda _: 0).then(work.double)
    assert future.result(30) == 2000
    whole = gather(executor.submit(work.double, 1), executor.submit(work.double, 1))
    assert whole.result(30) == (2, 2)
    failed = executor.submit(cluster_work.zeros, 10).then(work.boom).then(work.double)
    assert isinstance(failed.exception(30), ValueError)
    dropped = [executor.submit(work.nap, 0.01).then(work.is_none) for _ in range(20)]
    assert any(one.cancel() for one in dropped)
    cf.wait(dropped, 30)
    del future, whole, failed, dropped

    until(lambda: not any(key.split("-")[0] in KEYS for key in keys_of(client)))


def test_a_release_goes_with_the_next_submission(client, monkeypatch):
    """What nobody needs any more is told with what is submitted next, and not in a message of its own before."""
    gc.collect()
    monkeypatch.setattr("futurechain.dask.scheduler.MOMENT", 3600)
    with DaskExecutor(client) as fresh:
        before = set(client.futures)
        assert fresh.submit(work.double, 1).result(30) == 2
        gc.collect()
        (key,) = set(client.futures) - before
        nap = fresh.submit(work.nap, 0)
        until(lambda: key not in client.futures)
        assert nap.exception(30) is None


def test_intermediate_results_are_released(executor, client, gate):
    """A value that only the next stage needed goes when that has ended, while the chain still runs."""
    waiting = executor.submit(cluster_work.zeros, 10).then(cluster_work.length).then(work.double).then(gated(gate.name))

    until(lambda: states_of(client).get("length") == "released")
    assert states_of(client).get("zeros") in {None, "released"}
    assert not waiting.done()
    waiting.cancel()


def gated(name: str) -> Callable[[object], object]:
    return partial(cluster_work.wait_for, name)


def states_of(client) -> dict[str, str]:
    return client.run_on_scheduler(
        lambda dask_scheduler: {str(key).split("-")[0]: task.state for key, task in dask_scheduler.tasks.items()}
    )


# -- cancelling -------------------------------------------------------------------------------------------------------


def test_cancel_goes_down_and_up(executor, client, gate):
    """Cancelling the last future cancels what nobody else consumes, here and on the cluster; the first, all behind."""
    begun = executor.submit(cluster_work.wait_for, gate.name)
    middle = begun.then(work.double)
    last = middle.then(work.double)
    until(lambda: any(key.startswith("wait_for") for key in keys_of(client)))

    assert last.cancel()
    assert (begun.cancelled(), middle.cancelled()) == (True, True)
    until(lambda: not any(key.startswith("wait_for") for key in keys_of(client)))

    begun = executor.submit(cluster_work.wait_for, gate.name)
    last = begun.then(work.double).then(work.double)
    assert begun.cancel()
    assert last.cancelled()


def test_cancel_spares_what_others_consume(executor, gate):
    """A future with another dependent goes on."""
    begun = executor.submit(cluster_work.wait_for, gate.name, 3)
    kept, dropped = begun.then(work.double), begun.then(work.double)
    here = begun.then(lambda value: value + 1, on=INLINE)

    assert dropped.cancel()
    assert here.cancel()
    assert not begun.cancelled()
    gate.set()
    assert kept.result(30) == 6


def test_cancel_from_a_stage_here_goes_up(executor, gate):
    """A cancelled stage on another executor cancels what it waited for on the cluster."""
    begun = executor.submit(cluster_work.wait_for, gate.name)
    here = begun.then(work.double, on=INLINE)

    assert here.cancel()
    assert begun.cancelled()


def test_what_is_done_is_not_cancelled(executor):
    """`cancel()` says False when the work is done, wherever its value is, and changes nothing."""
    future = executor.submit(work.double, 2)
    assert future.exception(30) is None

    assert not future.cancel()
    assert future.result(30) == 4


def test_finally_runs_when_its_stage_is_cancelled(executor, gate):
    """`finally_` of a cancelled chain runs, here."""
    ran = threading.Event()
    begun = executor.submit(cluster_work.wait_for, gate.name)
    begun.then(work.double).finally_(ran.set)

    assert begun.cancel()
    assert ran.wait(30)


def test_timeout_takes_its_branch_back(executor, gate):
    """`timeout()` fails its future, and cancels upward."""
    begun = executor.submit(cluster_work.wait_for, gate.name)

    assert isinstance(begun.timeout(0.01).then(work.double).exception(30), TimeoutError)
    until(begun.cancelled)


def test_who_attaches_while_it_is_sent_is_served(executor):
    """Stages that several threads attach while the one before is being sent are all run, once each."""
    for _ in range(5):
        begun = futurechain.Future()
        first = begun.then(work.double, on=executor)
        with ThreadPoolExecutor(4) as threads:
            attaching = [threads.submit(attach_five, first) for _ in range(4)]
            begun.set_result(1)
            last = [one for attached in attaching for one in attached.result(30)]
        assert [one.result(30) for one in last] == [4] * 20


def attach_five(future):
    return [future.then(work.double) for _ in range(5)]


def test_cancel_meets_the_end_of_the_work(executor):
    """However a cancellation and the end of the work meet, the future is settled one way or the other."""
    for _ in range(100):
        futures = [executor.submit(work.double, n) for n in range(4)]
        chained = [one.then(work.double) for one in futures]
        outcomes = [one.cancel() for one in chained]
        assert [one.cancelled() for one in chained] == outcomes
        assert cf.wait([*futures, *chained], 30).not_done == set()


# -- options and shutdown ---------------------------------------------------------------------------------------------


def test_options_for_a_stage_and_those_after_it(executor, client):
    """`with_options` says where the stages run: on the named worker, from that stage on."""
    names = client.run(lambda dask_worker: dask_worker.name)
    for address in names:
        there = executor.with_options(workers=[address], allow_other_workers=False)
        future = executor.submit(work.double, 1).then(work.double, on=there).then(cluster_work.worker_name)
        assert future.result(30) == names[address]
        assert there.submit(cluster_work.worker_name).result(30) == names[address]
    bound = executor.with_options(resources={"LEFT": 1}, priority=5).with_options(retries=1)
    assert bound.submit(work.double, 1).then(work.double).result(30) == 4


def test_options_hold_the_executor(client):
    """An executor with options is the same executor, which lives as long as that; options add up."""
    there = DaskExecutor(client, priority=1).with_options(retries=2).with_options(retries=1)
    gc.collect()

    assert there.submit(work.double, 1).then(work.double).result(30) == 4
    assert "open" in repr(there)
    assert ", priority=1, retries=1>" in repr(there)
    there.shutdown()


def test_an_executor_that_is_dropped_ends_its_chains(client, gate):
    """What it has begun is done, and nothing more is taken."""
    last = DaskExecutor(client).submit(cluster_work.wait_for, gate.name, 2).then(work.double)
    gc.collect()
    gate.set()

    assert last.result(30) == 4
    assert isinstance(last.then(work.double).exception(30), ExecutorShutdownError)


def test_retries_are_dasks_own(executor, tmp_path):
    """With `retries` a failing task is run again on the cluster, and only the last error comes."""
    again = executor.with_options(retries=2)

    assert "attempt 3" in str(again.submit(work.fail_counting, str(tmp_path / "calls")).exception(30))


def test_limit_bounds_what_runs_there(executor):
    """A `limit` view of the cluster chains, and moves no data for that."""
    with limit(executor, concurrency=1) as view:
        futures = [view.submit(cluster_work.make, 10, HERE).then(cluster_work.grow) for _ in range(4)]
        assert [one.then(cluster_work.length).result(30) for one in futures] == [11] * 4


def test_shutdown_waits_for_chains_and_leaves_the_client_open(client, gate):
    """The end of the `with` block waits for whole chains; afterwards new work is refused, and the client goes on."""
    values = []
    with DaskExecutor(client) as executor:
        begun = executor.submit(cluster_work.wait_for, gate.name, 2)
        last = begun.then(work.double).catch(lambda _: 0).then(work.double)
        last.then(values.append, on=INLINE)
        threading.Timer(0.1, gate.set).start()

    assert (last.done(), values) == (True, [8])
    with pytest.raises(RuntimeError, match="after shutdown of DaskExecutor"):
        executor.submit(work.double, 1)
    with pytest.raises(ExecutorShutdownError, match="on=INLINE"):
        last.then(work.double).result(30)
    assert client.submit(work.double, 2).result() == 4


def test_shutdown_cancels_if_asked(client, gate):
    """`shutdown(cancel_futures=True)` cancels tasks and stages."""
    executor = DaskExecutor(client)
    futures = [executor.submit(cluster_work.wait_for, gate.name).then(work.double) for _ in range(4)]

    executor.shutdown(cancel_futures=True)

    assert all(one.cancelled() for one in futures)


# -- bad input --------------------------------------------------------------------------------------------------------


def test_only_a_connected_client_will_do(cluster, client):
    """Something else, an asynchronous client and a closed one are refused, with the right call."""
    client.submit(int).result()  # first: all clients are told what was cancelled, and one that connects fails by that
    with pytest.raises(TypeError, match=r"DaskExecutor\(Client\('tcp://"):
        DaskExecutor("tcp://127.0.0.1:1")

    async def refused():
        async with Client(cluster.scheduler_address, asynchronous=True) as wrong:
            with pytest.raises(TypeError, match="without asynchronous=True"):
                DaskExecutor(wrong)

    asyncio.run(refused())
    closed = Client(cluster)
    executor = DaskExecutor(closed)
    closed.close()
    with pytest.raises(RuntimeError, match="is closed"):
        DaskExecutor(closed)
    with pytest.raises(ClusterLostError, match="client of DaskExecutor-"):
        executor.submit(work.double, 1)


def test_a_client_that_is_closed_meanwhile(cluster):
    """A task that is being sent while the client is closed says so."""
    client = Client(cluster)

    with pytest.raises(ClusterLostError, match="is closed"):
        DaskExecutor(client).submit(work.double, cluster_work.Closes(client))


def test_a_forked_child_has_no_client(client):
    """What serves the client stays in the parent: in a forked child, all that would need it fails at once."""
    executor = DaskExecutor(client)
    done = executor.submit(work.double, 1)
    assert done.exception(30) is None

    executor._scheduler.forget()  # as a forked child does; a real one may find Dask's own locks taken for ever

    assert isinstance(done.then(work.double).exception(30), ClusterLostError)
    with pytest.raises(ClusterLostError, match="left behind by a fork"):
        executor.submit(abs, 1)
    with pytest.raises(ClusterLostError, match="left behind by a fork"):
        done.result(30)
    executor.shutdown()


def test_options_are_checked(client, executor):
    """An unknown option is named, with the known ones."""
    with pytest.raises(TypeError, match=r"workers, .*no worker="):
        executor.with_options(worker=1)
    with pytest.raises(TypeError, match="no color="):
        DaskExecutor(client, color=1)


def test_what_cannot_be_sent_is_told(executor):
    """A function or an argument that does not pickle is told at the call, or fails its stage alone, by its name."""
    with pytest.raises(StagePicklingError, match="double cannot travel"):
        executor.submit(work.double, threading.Lock())
    with pytest.raises(TypeError, match="wants a function"):
        executor.submit(3)

    lock = threading.Lock()
    begun = executor.submit(work.double, 1)
    failed = begun.then(lambda _: lock)
    assert isinstance(failed.exception(30), StagePicklingError)
    assert begun.result(30) == 2
    assert isinstance(executor.submit(work.boom).then(lambda _: lock).exception(30), ValueError)


def test_what_cannot_be_unpickled_there_is_told(executor):
    """A function that the cluster cannot build anew fails its task, by its name."""
    assert isinstance(executor.submit(cluster_work.Unsendable()).exception(30), StagePicklingError)


def test_no_extra_no_executor():
    """Without distributed the import names the extra."""
    code = "import sys; sys.modules['distributed'] = None\nimport futurechain.dask"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert "futurechain[dask]" in done.stderr


# -- a cluster that goes ----------------------------------------------------------------------------------------------


def test_a_closed_client_settles_everything(cluster, gate):
    """When the client is closed, what was under way fails, and what is still to be fetched, too; nothing hangs."""
    client = Client(cluster)
    executor = DaskExecutor(client)
    done = executor.submit(work.double, 1)
    assert done.exception(30) is None
    running = executor.submit(cluster_work.wait_for, gate.name)
    behind = running.then(work.double).then(work.double)

    client.close()

    assert isinstance(running.exception(30), ClusterLostError)
    assert isinstance(behind.exception(30), ClusterLostError)
    with pytest.raises(ClusterLostError):
        done.result(30)
    executor.shutdown()


@pytest.mark.slow
def test_the_end_of_the_interpreter_waits_for_no_cluster():
    """A program that ends with work on a cluster under way ends, in silence."""
    program = """
import time
from distributed import Client, LocalCluster
from futurechain.dask import DaskExecutor

cluster = LocalCluster(n_workers=1, processes=False, dashboard_address=":0", silence_logs=60)
future = DaskExecutor(Client(cluster)).submit(time.sleep, 3).then(str)
print("end")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (0, "end\n")
    assert "futurechain" not in done.stderr


@pytest.mark.slow
def test_a_restarted_cluster_settles_everything():
    """`client.restart()` fails what was under way, with the reason; what is submitted then runs."""
    with local_cluster() as cluster, Client(cluster) as client, DaskExecutor(client) as executor:
        running = executor.submit(time.sleep, 20)
        behind = running.then(work.double)
        client.restart()

        assert isinstance(behind.exception(30), ClusterLostError)
        assert "restart" in str(running.exception(30))
        assert executor.submit(work.double, 1).result(30) == 2


@pytest.mark.slow
def test_a_lost_scheduler_settles_everything():
    """When the cluster goes under its client, everything is settled."""
    cluster = local_cluster()
    client = Client(cluster, timeout=5)
    executor = DaskExecutor(client)
    running = executor.submit(time.sleep, 60)
    behind = running.then(work.double).catch(KeyError, repr)
    cluster.close()

    assert isinstance(behind.exception(60), ClusterLostError)
    executor.shutdown()
    client.close()


@pytest.fixture
def frail_cluster():
    """One that gives a task up when a second worker has died under it (Dask's own number is the fourth).

    A worker has nothing but what it runs: Dask blames everything for its death that it had been given. And there are
    more workers than die in a test: a nanny may give up when its worker dies before it knows that as started.
    """
    settings = {"distributed.scheduler.allowed-failures": 1, "distributed.scheduler.worker-saturation": 1.0}
    with dask.config.set(settings), local_cluster(5) as cluster:
        yield cluster


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(frail_cluster, tmp_path):
    """What was only on a dead worker is computed again; what was running there runs again."""
    with Client(frail_cluster) as client, DaskExecutor(client) as executor:
        made = executor.submit(cluster_work.zeros, 1000)
        assert made.exception(30) is None
        holder = next(iter(client.who_has([made._view.remote.engine]).values()))[0]
        client.run(os._exit, 1, workers=[holder], on_error="ignore")
        assert made.then(cluster_work.length).result(60) == 1000
        assert len(made.result(60)) == 1000
        assert executor.submit(cluster_work.die_once, 5, str(tmp_path / "died")).then(work.double).result(60) == 10


@pytest.mark.slow
def test_a_task_that_kills_workers_fails(frail_cluster):
    """A task under which one worker after the other dies fails, with Dask's error and ours, which can travel."""
    with Client(frail_cluster) as client, DaskExecutor(client) as executor:
        error = executor.submit(work.die).then(work.double).exception(100)
        again = executor.submit(cluster_work.same, error).result(60)

    for one in (error, again):
        assert isinstance(one, WorkerDiedError)
        assert isinstance(one, distributed.KilledWorker)
        assert str(one) == str(error)
        assert one.__notes__ == error.__notes__


@pytest.mark.slow
def test_an_item_that_kills_workers_fails_alone(frail_cluster):
    """The others of its trip are tried again, one at a time."""
    with Client(frail_cluster) as client, DaskExecutor(client) as executor:
        pipeline = Pipeline().then(cluster_work.die_at_seven, on=executor, batch=3)
        six, seven, eight = pipeline.map(range(6, 9), return_exceptions=True)

    assert (six, eight) == (6, 8)
    assert isinstance(seven, WorkerDiedError)


@pytest.mark.slow
def test_a_scheduler_that_dies_and_comes_back(tmp_path):
    """What a killed scheduler had fails; what is submitted to the next one at its address runs."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", "127.0.0.1"]
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    start = partial(subprocess.Popen, env=environment, stderr=subprocess.DEVNULL)
    first = start([*command, "--port", "0", "--scheduler-file", str(file)])
    ours = [first]
    try:
        until(lambda: file.exists() and file.read_text("utf-8").endswith("}"))
        address = json.loads(file.read_text("utf-8"))["address"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard", "--no-nanny"]
        ours.append(start(worker))
        with Client(address, timeout=60) as client, DaskExecutor(client) as executor:
            made = executor.submit(work.double, 1)
            assert made.exception(60) is None
            running = executor.submit(work.nap, 60)
            behind = running.then(work.double)
            first.kill()
            first.wait()
            assert isinstance(behind.exception(60), ClusterLostError)
            assert isinstance(running.exception(60), ClusterLostError)

            port = address.rsplit(":", 1)[1]
            ours.append(start([*command, "--port", port]))
            ours.append(start(worker))
            assert executor.submit(work.double, 1).then(work.double).result(60) == 4
            assert isinstance(made.then(work.double).exception(60), ClusterLostError)
    finally:
        for process in ours:
            process.kill()
            process.wait()


# -- pipelines --------------------------------------------------------------------------------------------------------


def test_a_pipeline_makes_trips(executor, client):
    """`Pipeline.map` is in order, within its window, with statistics for each step, in far fewer tasks than items."""
    pipeline = Pipeline().then(work.double, on=executor).then(cluster_work.rapid)
    items, before = iter(range(1000)), tasks_so_far(client)

    with pipeline.map(items, window=200) as results:
        for number, result in enumerate(results):
            assert result == 2 * number + 1
            assert operator.length_hint(items) >= 1000 - number - 201
        double, rapid = results.statistics()

    assert (double.succeeded, rapid.succeeded) == (1000, 1000)
    assert double.seconds_run > 0
    assert len(tasks_so_far(client) - before) < 200


def tasks_so_far(client) -> set[str]:
    """The keys of all that the scheduler remembers to have run."""
    return client.run_on_scheduler(lambda dask_scheduler: {str(one[0]) for one in dask_scheduler.transition_log})


@pytest.mark.slow
def test_ctrl_c_in_a_stream():
    """It ends the stream, and nothing of that is left on the cluster."""
    program = """
import os, signal, time
from distributed import Client, LocalCluster
from futurechain import Pipeline
from futurechain.dask import DaskExecutor

cluster = LocalCluster(n_workers=1, processes=False, dashboard_address=":0", silence_logs=60)
with cluster, Client(cluster) as client, DaskExecutor(client) as executor:
    try:
        with Pipeline().then(time.sleep, on=executor).map([0.01] * 100_000) as results:
            for number, _ in enumerate(results):
                if number == 100:
                    os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("interrupted")
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        time.sleep(0.01)
    print("nothing is left")
"""
    done = run_program(program)

    assert (done.stdout, done.stderr) == ("interrupted\nnothing is left\n", "")


def test_an_item_fails_alone(executor):
    """A failing item fails at its place; a handler between the steps runs here."""
    handled = Pipeline().then(cluster_work.odd, on=executor).catch(ValueError, lambda error: -error.args[0])
    assert list(handled.then(work.double).map(range(6))) == [0, -2, 4, -6, 8, -10]

    failing = Pipeline().then(cluster_work.odd, on=executor)
    outcomes = list(failing.map(range(4), return_exceptions=True))
    assert [type(one) for one in outcomes] == [int, ValueError, int, ValueError]


@pytest.mark.slow
def test_a_pipeline_runs_in_constant_memory(executor, client):
    """Neither the client nor the cluster keeps what is through."""
    seen = 0
    with Pipeline().then(cluster_work.zeros, on=executor).map((10_000 for _ in range(3000)), window=50) as results:
        for number, _ in enumerate(results):
            if number % 1000 == 999:
                seen = max(seen, len(keys_of(client)))
    assert 0 < seen < 60
    gc.collect()
    until(lambda: not any(key.startswith("zeros") for key in keys_of(client)))
    until(lambda: not any(str(key).startswith("zeros") for key in client.futures))


@pytest.mark.parametrize("place", ["threads", "processes", "cluster"])
def test_one_text_everywhere(place, executor):
    """The same pipeline, and the same chain, on threads, on processes and on a cluster: one name changes."""
    pools = {"threads": ThreadPoolExecutor, "processes": ProcessPoolExecutor}
    with pools[place](2) if place in pools else nullcontext(executor) as pool:
        pipeline = Pipeline().then(work.fetch, on=pool).then(work.parse).catch(OSError, repr).then(work.save)
        assert list(pipeline.map(["a", "b"])) == ["Save successful"] * 2
        assert pool.submit(work.fetch, "a").then(work.parse).catch(OSError, repr).then(work.save).result(30)


@pytest.mark.slow
def test_the_rows_of_the_benchmarks():
    """The rows beside Dask's own futures can be measured."""
    rows = ratios.on_a_cluster(lambda count: max(10, count // 1000))
    for row in rows:
        ratios.measure(row, 1)

    assert len(rows) == 3
    assert all(row.ratios for row in rows)


# -- seen -------------------------------------------------------------------------------------------------------------


def test_a_trace_names_the_workers(executor):
    """The track of a span is the worker of the cluster that ran it, and it has waited before it began."""
    with trace() as seen:
        executor.submit(cluster_work.spin, 0.01).then(len).result(30)

    spans = {span.name: span for span in seen.spans()}
    assert "worker" in spans["spin"].track
    assert spans["spin"].process != HERE
    assert spans["spin"].settled - spans["spin"].started >= 0.009
    assert spans["spin"].queued <= spans["spin"].started
    assert spans["len"].parents == (spans["spin"].number,)


def test_a_trace_tells_how_long_it_waited(client, executor):
    """A task begins when its worker has time for it, and not when it was sent there."""
    there = executor.with_options(workers=list(client.nthreads())[:1])
    with trace() as seen:
        futures = [there.submit(cluster_work.spin, 0.05), there.submit(cluster_work.spin, 0.05)]
        cf.wait(futures, 30)

    one, two = sorted((span for span in seen.spans() if span.name == "spin"), key=lambda span: span.started)
    assert two.queued < two.started
    assert two.started - one.started >= 0.045
    assert one.track == two.track


def test_a_trace_hears_of_several_executors(client):
    """Those that share a client, too."""
    with DaskExecutor(client) as left, DaskExecutor(client) as right, trace() as seen:
        for _ in range(3):
            futures = [left.submit(cluster_work.spin, 0.01), right.submit(cluster_work.spin, 0.01)]
            cf.wait(futures, 30)

    assert ["worker" in span.track for span in seen.spans() if span.name == "spin"] == [True] * 6


def test_a_picture_marks_what_is_elsewhere(executor, gate):
    """`render` draws one node for each stage, and marks those whose value is on the cluster."""
    begun = executor.submit(work.double, 1)
    last = begun.then(cluster_work.rapid)
    waiting = executor.submit(cluster_work.wait_for, gate.name).then(work.double)
    assert last.exception(30) is None

    assert "on the cluster" in render(last)
    assert last.result(30) == 3
    assert "returned int" in render(last)
    picture = render(waiting)
    assert [picture.count(name) for name in ("wait_for", "double")] == [1, 1]


def test_a_failure_that_nobody_looked_at_is_reported_once(executor, caplog):
    """Dropped at the end of its chain, and not for each future of it."""
    future = executor.submit(work.boom).then(work.double)
    cf.wait([future], 30)
    del future

    until(lambda: (gc.collect(), [one for one in caplog.records if one.name == "futurechain"])[1])
    assert len([one for one in caplog.records if one.name == "futurechain"]) == 1
