"""Chains on executors out of this process, and on anybody's executor."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import contextvars
import gc
import os
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

import work
from futurechain import (
    INLINE,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    fail,
    succeed,
    trace,
    wrap_executor,
)
from futurechain.errors import ExecutorShutdownError, LostFutureError, StagePicklingError
from guard import share

POOLS = {
    "ours": lambda: ProcessPoolExecutor(1),
    "standard": lambda: wrap_executor(cf.ProcessPoolExecutor(1)),
}


@pytest.fixture(scope="module", params=POOLS.values(), ids=list(POOLS))
def far(request):
    """A process pool of each kind, with one worker."""
    with request.param() as pool:
        yield pool


def name(*_):
    return threading.current_thread().name


# -- what handles errors and cleans up runs here ------------------------------------------------------------------


def test_error_handlers_run_here(far):
    """On a callback thread, closures and all."""
    seen = []
    assert far.submit(int, "x").catch(ValueError, lambda error: seen.append(name()) or 0).result(30) == 0
    assert far.submit(int, "x").then(work.double, lambda error: os.getpid()).result(30) == os.getpid()
    assert far.submit(int, "x").then(None, on_error=lambda error: 3).result(30) == 3
    assert seen[0].startswith("futurechain-callback")


def test_cleanups_run_here(far):
    """After a value and after an error; a lock is released where it was taken."""
    lock = threading.Semaphore(0)
    assert far.submit(work.double, 2).finally_(lock.release).result(30) == 4
    assert isinstance(far.submit(int, "x").finally_(lock.release).exception(30), ValueError)
    assert lock.acquire(timeout=0)
    assert lock.acquire(timeout=0)


def test_the_chain_stays_on_the_pool(far):
    """The stages after an error handler run in a worker again; with `on=` it moves, as always."""
    assert far.submit(int, "x").catch(lambda _: 0).then(work.pid).result(30) != os.getpid()
    assert far.submit(work.double, 2).finally_(lambda: None).then(work.pid).result(30) != os.getpid()
    assert far.submit(int, "x").catch(lambda _: 0, on=INLINE).then(work.pid).result(30) == os.getpid()
    with ThreadPoolExecutor(1, "mine") as threads:
        moved = far.submit(int, "x").catch(name, on=threads).then(lambda first: (first, name()))
        assert moved.result(30) == ("mine_0", "mine_0")


def test_timeouts_can_be_caught(far):
    """With a closure, although nothing of it pickles."""
    assert far.submit(work.nap, 0.5).timeout(0.05).catch(TimeoutError, lambda _: "late").result(30) == "late"


@pytest.mark.parametrize(
    "attach",
    [
        lambda future, handler: future.catch(handler),
        lambda future, handler: future.catch(ValueError, handler),
        lambda future, handler: future.then(work.double, handler),
        lambda future, handler: future.finally_(lambda: handler(None)),
    ],
)
def test_what_a_handler_raises_has_the_original_as_its_context(far, attach):
    """As in an `except` block."""

    def bad(_):
        raise KeyError("second")

    error = attach(far.submit(int, "x"), bad).exception(30)
    assert isinstance(error, KeyError)
    assert isinstance(error.__context__, ValueError)


def test_a_handler_may_return_a_future_and_submit(far):
    """What it returns is waited for."""
    stage = far.submit(int, "x").catch(lambda _: far.submit(work.double, 4)).then(work.double)
    assert stage.result(30) == 16


def test_handlers_see_the_context_in_which_they_were_attached(far):
    """Though they run on a callback thread."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("attached")
    stage = far.submit(int, "x").catch(lambda _: variable.get())
    variable.set("later")
    assert stage.result(30) == "attached"


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "stage"),
    [
        (lambda pool: pool.submit(lambda: 1), "<lambda>"),
        (lambda pool: pool.submit(work.double, threading.Lock()), "double"),
        (lambda pool: pool.submit(work.give_lock), "give_lock"),
        (lambda pool: pool.submit(work.double, 1).then(lambda value: value), "<lambda>"),
        (lambda pool: pool.submit(work.double, 1).then(work.give_lock).then(work.double), "give_lock"),
    ],
)
def test_what_cannot_be_pickled_is_named_with_the_remedies(far, begin, stage):
    """Function, argument and result alike; and the remedy says that it moves what comes after it."""
    error = begin(far).exception(30)
    assert isinstance(error, StagePicklingError)
    assert f"stage {stage} cannot travel" in str(error)
    assert "module-level function" in str(error)
    assert "on=INLINE" in str(error)
    assert "the stages after it stay here too" in str(error)
    assert error.__notes__[0].startswith(f"raised in stage {stage}")


def test_loky_names_them_the_same():
    """Whatever its own error is called."""
    loky = pytest.importorskip("loky")
    with loky.ProcessPoolExecutor(1) as executor, wrap_executor(executor) as pool:
        for begin, stage in (
            (lambda: pool.submit(work.double, threading.Lock()), "double"),
            (lambda: pool.submit(work.give_lock), "give_lock"),
        ):
            error = begin().exception(60)
            assert isinstance(error, StagePicklingError)
            assert f"stage {stage} cannot travel" in str(error)
            assert error.__notes__[0].startswith(f"raised in stage {stage}")


@pytest.mark.parametrize("make", POOLS.values(), ids=list(POOLS))
def test_a_broken_pool_settles_everything(make):
    """Queued tasks, pending stages, error handlers; each has an error of its own, with its name."""
    seen = []
    with make() as pool:
        tasks = [pool.submit(work.die), *[pool.submit(work.double, n) for n in range(30)]]
        stages = [task.then(work.double) for task in tasks]
        caught = tasks[0].catch(BrokenProcessPool, seen.append)
        tasks[-1].cancel()
        errors = [task.exception(30) for task in tasks[:-1] if not task.cancelled()]
        assert caught.result(30) is None
        for stage in stages:
            assert stage.done() or stage.exception(30) is not None
    broken = [error for error in errors if error is not None]
    assert all(isinstance(error, BrokenProcessPool) for error in broken)
    assert len({id(error) for error in broken}) == len(broken)
    assert len(seen) == 1


def test_a_stage_of_an_executor_that_ended_first_carries_the_remedy():
    """`wrap_executor(ex)` inside `with ex:`: the outer block ends first."""
    with cf.ThreadPoolExecutor(1) as executor:
        pool = wrap_executor(executor)
        first = pool.submit(work.double, 1)
        first.result(10)
    error = first.then(work.double).exception(10)
    assert isinstance(error, ExecutorShutdownError)
    assert "on=INLINE" in str(error)
    assert error.__notes__[0].startswith("raised in stage double")
    pool.shutdown()


# -- cancellation -------------------------------------------------------------------------------------------------


class Slow(cf.Executor):
    """Hands out a future when told to, and settles nothing by itself."""

    def __init__(self):
        self.entered, self.gate, self.futures = threading.Event(), threading.Event(), []

    def submit(self, fn, /, *args, **kwargs):
        self.entered.set()
        assert self.gate.wait(10)
        self.futures.append(cf.Future())
        return self.futures[-1]

    def shutdown(self, wait=True):
        pass


def test_a_cancel_during_the_launch_withdraws_the_work():
    """And nothing of it stays behind: the shutdown does not wait for it."""
    executor, source = Slow(), Future()
    pool = wrap_executor(executor)
    stage = source.then(work.double, on=pool)
    thread = threading.Thread(target=source.set_result, args=(1,))
    thread.start()
    assert executor.entered.wait(10)
    assert stage.cancel()
    executor.gate.set()
    thread.join(10)
    assert executor.futures[0].cancelled()
    pool.shutdown()


def test_what_a_worker_has_before_submit_returns_is_running():
    """A cancellation that comes just then says False, and a cleanup is run by that worker alone."""

    class Eager(cf.ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            future = super().submit(fn, *args, **kwargs)
            begun.wait(10)
            said.append(stage.cancel())
            return future

    begun, goes_on, said, calls, root = threading.Event(), threading.Event(), [], [], Future()

    def clean_up():
        begun.set()
        goes_on.wait(10)
        calls.append(1)

    with wrap_executor(Eager(1)) as pool:
        stage = root.finally_(clean_up, on=pool)
        root.set_result("kept")
        goes_on.set()
        assert (stage.result(10), said, calls) == ("kept", [False], [1])


@pytest.mark.parametrize("moment", ["before its turn", "while it runs", "after its end", "while it is begun"])
def test_an_interrupt_in_a_foreign_submit_loses_no_stage(moment):
    """The call may be queued by then: the stage fails with the interrupt, whatever becomes of the call."""
    begun, goes_on = threading.Event(), threading.Event()

    class Interrupted(cf.ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            if moment == "before its turn":
                super().submit(goes_on.wait, 10)
            future = super().submit(fn, *args, **kwargs)
            if moment == "while it runs":
                assert begun.wait(10)
            elif moment == "after its end":
                goes_on.set()
                future.result(10)
            raise KeyboardInterrupt

    def wait():
        begun.set()
        goes_on.wait(10)

    for _ in range(share(300) if moment == "while it is begun" else 1):
        goes_on.clear()
        root = Future()
        with wrap_executor(Interrupted(1)) as pool:
            stage = root.then(lambda _: wait(), on=pool)
            with contextlib.suppress(KeyboardInterrupt):
                root.set_result(None)
            assert type(stage.exception(10)) is KeyboardInterrupt
            goes_on.set()


def test_a_standard_pool_that_cancels_what_it_has_holds_up_nobody():
    """It does so with a lock held that its ``submit`` wants: what a cancelled task leads to may submit all the same."""
    gate, refused = threading.Event(), []
    executor = cf.ThreadPoolExecutor(1)
    pool = wrap_executor(executor)

    def submit(error):
        with pytest.raises(RuntimeError, match="shutdown") as raised:
            pool.submit(int)
        refused.append(raised.value)

    running = pool.submit(gate.wait, 20)
    stage = pool.submit(int).catch(submit, on=INLINE)
    closer = threading.Thread(target=executor.shutdown, kwargs={"wait": False, "cancel_futures": True}, daemon=True)
    closer.start()
    closer.join(20)
    assert not closer.is_alive()
    assert stage.result(20) is None
    gate.set()
    assert running.result(20)
    assert len(refused) == 1
    pool.shutdown()


def test_what_runs_is_asked_and_may_stop():
    """An executor whose futures can be cancelled while they run is asked; one that refuses goes on."""

    class Running(cf.Future):
        def __init__(self, *, stops):
            super().__init__()
            self.stops = stops
            self.set_running_or_notify_cancel()

        def cancel(self):
            return self.stops

    futures = []

    class Executor(cf.Executor):
        def submit(self, stops, /):
            futures.append(Running(stops=stops()))
            return futures[-1]

        def shutdown(self, wait=True):
            pass

    with wrap_executor(Executor()) as pool:
        stopped = pool.submit(lambda: True)
        going = pool.submit(lambda: False)
        assert stopped.cancel()
        assert not going.cancel()
        assert not going.done()
        stage = going.then(str)
        assert stage.cancel()
        assert not going.done()
        futures[1].set_result(1)
        assert going.result(10) == 1


def test_an_executor_that_forgets_a_future():
    """What depends on it is told so."""

    class Forgetful(cf.Executor):
        def submit(self, fn, /):
            return cf.Future()

        def shutdown(self, wait=True):
            pass

    with wrap_executor(Forgetful()) as pool:
        task = pool.submit(int)
        gc.collect()
        assert isinstance(task.then(str).exception(10), LostFutureError)


def test_queued_work_on_a_standard_process_pool_is_withdrawn_without_a_word_to_it(tmp_path):
    """The pool is never asked to cancel what it holds; a call that is not wanted any more does nothing there."""
    with cf.ProcessPoolExecutor(1) as executor, wrap_executor(executor) as pool:
        first = pool.submit(work.nap, 0.3)
        queued = [pool.submit(work.touch, str(tmp_path / str(n))) for n in range(8)]
        assert all(task.cancel() for task in queued[4:])
        assert first.result(30) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3"]


def test_a_storm_of_cancels_leaves_nothing_behind():
    """Cancelled before, during and after the launch: the pool ends, and every future is settled."""
    with cf.ProcessPoolExecutor(2) as executor, wrap_executor(executor) as pool:
        for _ in range(20):
            tasks = [pool.submit(work.double, n).then(work.double) for n in range(10)]
            canceller = threading.Thread(target=lambda tasks=tasks: [task.cancel() for task in tasks[::2]])
            canceller.start()
            canceller.join()
            assert len(cf.wait(tasks, 30).not_done) == 0


# -- what it looks like -------------------------------------------------------------------------------------------


def test_reprs_tell_the_state():
    """The name, whether it is open, what it works with."""
    with wrap_executor(cf.ThreadPoolExecutor(1)) as pool:
        assert repr(pool).startswith("<WrappedExecutor ThreadPoolExecutor-")
        assert " open, 0 pending, of <concurrent.futures.thread" in repr(pool)
    assert "shut down" in repr(pool)
    with ProcessPoolExecutor(1) as processes:
        assert " open, " in repr(processes)
    with wrap_executor(cf.ProcessPoolExecutor(1)) as pool:
        assert isinstance(pool.submit(work.die).exception(30), cf.BrokenExecutor)
        assert " broken, " in repr(pool)


def test_the_name_of_a_start_method_is_no_context():
    """The error says how to get one."""
    with pytest.raises(TypeError, match=r"get_context\(\"spawn\"\), not 'spawn'"):
        ProcessPoolExecutor(1, "spawn")


def test_no_two_pools_have_the_same_name():
    """Ours and wrapped ones: notes and pictures tell which is meant; a wrapped thread pool is called as its threads."""
    ours, theirs = ProcessPoolExecutor(1), wrap_executor(cf.ProcessPoolExecutor(1))
    threads = wrap_executor(cf.ThreadPoolExecutor(1, thread_name_prefix="downloads"))

    assert repr(ours).split()[1] != repr(theirs).split()[1]
    assert threads.submit(int, "five").exception().__notes__ == ["raised in stage int, on downloads"]
    for pool in (ours, theirs, threads):
        pool.shutdown()


def test_the_number_of_workers_is_found_through_the_wrapper():
    """By libraries that look for it, as Dask does."""
    with wrap_executor(cf.ThreadPoolExecutor(3)) as pool:
        assert pool._max_workers == 3
    assert wrap_executor(Slow())._max_workers == os.cpu_count()


def test_context_and_closures_on_a_wrapped_thread_pool():
    """It shares our memory, so that error handlers run there, as on ours."""
    with wrap_executor(cf.ThreadPoolExecutor(1, "theirs")) as pool:
        assert pool.submit(int, "x").catch(name).result(10) == "theirs_0"
        assert fail(KeyError()).catch(name, on=pool).result(10) == "theirs_0"
        assert succeed(1).finally_(lambda: None, on=pool).then(name).result(10) == "theirs_0"


def test_in_a_trace_nothing_starts_before_it_is_queued(tmp_path):
    """Under load, on a process pool."""
    with ProcessPoolExecutor(2) as pool, trace() as seen:
        for future in [pool.submit(work.double, n).then(work.double) for n in range(100)]:
            future.result(30)
    spans = [span for span in seen.spans() if span.started is not None]
    assert len(spans) == 200
    assert all(span.queued <= span.started for span in spans)


# -- cleaning up --------------------------------------------------------------------------------------------------


class ByHand(cf.ThreadPoolExecutor):
    """A thread pool that queues, and runs what it has queued when it is told to, in the thread that says so."""

    def __init__(self):
        super().__init__(1)
        self.queued = []

    def submit(self, fn, /, *args, **kwargs):
        future = cf.Future()
        self.queued.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self):
        """Run all that is queued."""
        while self.queued:
            future, call = self.queued.pop(0)
            if future.set_running_or_notify_cancel():
                future.set_result(call())


@pytest.mark.parametrize("end", [lambda stage, foreign: stage.cancel(), lambda stage, foreign: foreign.cancel()])
def test_a_cleanup_that_is_withdrawn_from_a_foreign_pool_is_run_nevertheless(end):
    """Once, whether the stage is cancelled or the foreign future."""
    calls, pool = [], ByHand()
    stage = succeed(1).finally_(lambda: calls.append(1), on=wrap_executor(pool))
    end(stage, pool.queued[0][0])
    with pytest.raises(cf.CancelledError):
        stage.result(10)
    end_by = time.monotonic() + 10
    while not calls and time.monotonic() < end_by:
        pool.run()
    pool.run()
    assert calls == [1]


def test_a_call_on_a_foreign_thread_pool_is_a_handler():
    """What is attached in it to a settled future runs after it."""
    order, pool = [], ByHand()

    def attach():
        succeed(1).then(lambda _: order.append("attached"))
        order.append("returned")

    task = wrap_executor(pool).submit(attach)
    pool.run()
    assert task.done()
    assert order == ["returned", "attached"]


@pytest.mark.parametrize("make", [lambda: ThreadPoolExecutor(1), lambda: wrap_executor(cf.ThreadPoolExecutor(1))])
def test_a_cleanup_belongs_to_a_begun_chain(make):
    """After the shutdown of its pool, too, and when the last stage there is cancelled in a thread of another pool."""
    pool, source, cleaned = make(), Future(), threading.Event()
    stage = source.finally_(cleaned.set, on=pool)
    pool.shutdown(wait=False)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(stage.cancel).result(30)
    assert cleaned.wait(30)
