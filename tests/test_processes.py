"""`ProcessPoolExecutor` and `wrap_executor`: chains on executors that settle futures elsewhere."""

from __future__ import annotations

import concurrent.futures as cf
import contextvars
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool

import pytest

import work
from futurechain import (
    INLINE,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    fail,
    limit,
    race,
    succeed,
    wrap_executor,
    wrap_future,
)
from futurechain.errors import ExecutorShutdownError, StagePicklingError
from futurechain.executors.parcel import call_there, time_there

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


def thread_name(*_):
    return threading.current_thread().name


def test_fetch_parse_save_gives_the_last_value(processes):
    """`submit(fetch).then(parse).then(save).result()` is what the last step returns."""
    assert processes.submit(work.fetch, "url").then(work.parse).then(work.save).result(30) == "Save successful"


def test_one_rule_on_every_executor(executor):
    """Values, errors, filters, finally_ and cancellation mean the same wherever the stages run."""
    assert executor.submit(work.add, 1, 2).then(work.double).result(30) == 6
    recovered = executor.submit(work.boom).then(work.double).catch(ValueError, work.recover)
    assert recovered.result(30).endswith("ValueError")
    assert isinstance(executor.submit(work.boom).catch(KeyError, work.recover).exception(30), ValueError)
    assert executor.submit(work.add, 1, 2).finally_(work.pid).result(30) == 3
    assert isinstance(executor.submit(work.leave).then(work.double).exception(30), SystemExit)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_arguments_of_the_standard_pool(method):
    """It takes max_workers, mp_context, initializer, initargs and max_tasks_per_child."""
    options = {} if method == "fork" else {"max_tasks_per_child": 2}
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context, initializer=work.double, initargs=(1,), **options) as pool:
        assert isinstance(pool, cf.ProcessPoolExecutor)
        assert list(pool.map(work.double, range(4), chunksize=2)) == [0, 2, 4, 6]
        assert pool.submit(work.add, 1, 2).then(work.double).result(30) == 6


def test_stages_run_in_worker_processes(processes):
    """Promise-family stages run in another process, `on=INLINE` and Twisted's callbacks in this one."""
    future = processes.submit(work.double, 2)

    assert future.then(work.pid).result(30) != os.getpid()
    assert future.then(work.pid, on=INLINE).result(30) == os.getpid()
    assert future.addCallback(work.pid).result(30) == os.getpid()


def test_callbacks_run_on_a_callback_thread(processes):
    """Not on the manager's thread: one that is slow delays no other result."""
    gate = threading.Event()
    slow = processes.submit(time.sleep, 0.7)
    slow.addCallback(lambda _: gate.wait(30) and thread_name())
    quick = [processes.submit(work.double, 1).then(work.double).addCallback(work.double) for _ in range(3)]

    assert [future.result(30) for future in quick] == [8, 8, 8]
    gate.set()
    assert slow.final.result(30).startswith("futurechain-callback")


@pytest.mark.parametrize("arguments", [(), (3,)])
def test_submit_wants_a_function(processes, arguments):
    """`submit` without a function is a TypeError at the call."""
    with pytest.raises(TypeError, match="submit\\(\\) wants a function"):
        processes.submit(*arguments)


@pytest.mark.parametrize(
    "begin",
    [
        lambda pool: pool.submit(lambda: 1),
        lambda pool: pool.submit(math.sqrt, 4).then(lambda value: value),
        lambda pool: pool.submit(work.double, threading.Lock()),
        lambda pool: pool.submit(work.give_lock),
        lambda pool: pool.submit(math.sqrt, 4).then(work.give_lock).then(work.double),
    ],
)
def test_what_cannot_be_pickled_fails_its_stage(processes, begin):
    """An unpicklable function, argument or result: an error that names the stage and two remedies."""
    with pytest.raises(StagePicklingError, match=r"stage .* module-level function .* on=INLINE") as caught:
        begin(processes).result(30)

    assert caught.value.__cause__ is not None
    assert processes.submit(work.double, 2).result(30) == 4


def test_an_unpicklable_exception_fails_its_stage(processes):
    """An exception that does not pickle fails the stage all the same."""
    assert processes.submit(work.raise_stubborn).then(work.double).exception(30) is not None
    assert isinstance(processes.submit(work.raise_falsy).then(work.double).exception(30), work.Falsy)


def test_a_type_error_of_the_users_own_stays_as_it_is(processes):
    """Only what goes wrong on the way is explained as pickling."""
    error = processes.submit(work.add, 1, "2").exception(30)

    assert type(error) is TypeError


def test_a_killed_worker_settles_the_chain():
    """SIGKILL in the middle of a three-stage chain fails everything attached, soon."""
    with ProcessPoolExecutor(1) as pool:
        first = pool.submit(work.double, 2)
        second = first.then(work.die)
        third = second.then(work.double)
        callback = second.addErrback(lambda failure: failure.type)

        assert isinstance(third.exception(30), BrokenProcessPool)
        assert callback.result(30) is BrokenProcessPool
        with pytest.raises(BrokenProcessPool):
            pool.submit(int).result(30)
        assert isinstance(first.then(work.double).exception(30), BrokenProcessPool)


def test_system_exit_in_a_process(processes):
    """sys.exit() in a task, a process stage and a local callback settles them; the pool goes on."""
    assert isinstance(processes.submit(work.leave).exception(30), SystemExit)
    assert isinstance(processes.submit(work.double, 1).then(work.leave).exception(30), SystemExit)
    assert isinstance(processes.submit(work.double, 1).addCallback(work.leave).exception(30), SystemExit)
    assert processes.submit(work.double, 2).result(30) == 4


def test_running_and_cancel():
    """A running task says so and cannot be cancelled; a queued one is withdrawn."""
    with ProcessPoolExecutor(1) as pool:
        running = pool.submit(time.sleep, 1.5)
        queued = [pool.submit(work.double, 1).then(work.double) for _ in range(5)]
        while not running.running():
            pass
        assert not running.cancel()
        assert queued[-1].cancel()
        assert queued[0].result(30) == 4
        assert running.result(30) is None


# -- ending ---------------------------------------------------------------------------------------------------------


def test_shutdown_waits_for_whole_chains():
    """Leaving the with block waits for stages not submitted yet, and for local callbacks."""
    seen = []
    with ProcessPoolExecutor(1) as pool:
        pool.submit(work.double, 1).then(work.double).then(work.double).addCallback(seen.append)

    assert seen == [8]


def test_shutdown_without_waiting_lets_chains_end():
    """After shutdown(wait=False) what was begun still ends, and then the workers go; new work is refused."""
    pool = ProcessPoolExecutor(1)
    stage = pool.submit(time.sleep, 0.2).then(work.pid).then(str)
    manager = pool._executor_manager_thread
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)

    assert stage.result(30).isdigit()
    manager.join(30)
    assert not manager.is_alive()


def test_shutdown_cancels_pending_stages():
    """shutdown(cancel_futures=True) cancels pending stages; what runs is left to end."""
    pool = ProcessPoolExecutor(1)
    running = pool.submit(time.sleep, 1.0)
    while not running.running():
        pass
    stage = running.then(work.double)
    pool.shutdown(cancel_futures=True)

    assert running.result(0) is None
    assert stage.cancelled()


def test_a_stage_after_the_shutdown_fails_with_the_remedy():
    """It fails with an error that shows what to do."""
    with ProcessPoolExecutor(1) as pool:
        future = pool.submit(work.double, 1)

    with pytest.raises(ExecutorShutdownError, match="on=INLINE"):
        future.then(work.double).result(30)
    assert future.then(work.double, on=INLINE).result(0) == 4


def test_interpreter_exit_ends_chains():
    """At interpreter exit the moving chains of a pool nobody closed still end."""
    program = """
        import math
        from futurechain import ProcessPoolExecutor
        if __name__ == "__main__":
            pool = ProcessPoolExecutor(1)
            pool.submit(math.sqrt, 16).then(math.sqrt).then(math.sqrt).addCallback(print)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (run.stdout[:6], run.stderr) == ("1.4142", "")


# -- anybody's executor ---------------------------------------------------------------------------------------------


def test_wrap_executor_returns_ours_and_the_same_again():
    """Ours come back as they are; the same executor gives the same wrapper."""
    with ThreadPoolExecutor(1) as ours, cf.ThreadPoolExecutor(1) as theirs:
        assert wrap_executor(ours) is ours
        assert wrap_executor(theirs) is wrap_executor(theirs)
        assert "WrappedExecutor" in repr(wrap_executor(theirs))


def test_wrap_executor_wants_an_executor():
    """Something else is a TypeError that names it."""
    with pytest.raises(TypeError, match="not 3"):
        wrap_executor(3)


def test_a_plain_executor_may_be_given_as_on():
    """`on=` takes any executor; context variables go along into a standard thread pool."""
    with cf.ThreadPoolExecutor(1, "theirs") as theirs:
        VARIABLE.set("attached")
        stage = succeed(1).then(lambda _: (thread_name(), VARIABLE.get()), on=theirs)
        after = stage.then(thread_name)

        assert stage.result(30) == ("theirs_0", "attached")
        assert after.result(30) == "theirs_0"


class Refusing(cf.Executor):
    """Refuses everything."""

    def submit(self, fn, /, *args, **kwargs):
        raise OSError("no more")

    def shutdown(self, wait=True):
        self.waited = wait


class Manual(cf.Executor):
    """Lets the test settle the futures; knows no cancel_futures, cancels nothing, is never running."""

    class Future(cf.Future):
        def cancel(self):
            raise NotImplementedError

    def __init__(self):
        self.futures = []

    def submit(self, fn, /, *args, **kwargs):
        self.futures.append(self.Future())
        return self.futures[-1]

    def shutdown(self, wait=True):
        self.waited = wait


def test_a_submit_that_raises():
    """It raises at `submit`, and fails the stage where the chain submits."""
    executor = Refusing()
    with wrap_executor(executor) as wrapped:
        with pytest.raises(OSError, match="no more"):
            wrapped.submit(int)
        assert isinstance(succeed(1).then(str, on=wrapped).then(str).exception(0), OSError)

    assert executor.waited is True


def test_differences_are_ironed_out():
    """cancel() works on futures that cannot, and shutdown(cancel_futures=True) on executors that do not know it."""
    executor = Manual()
    wrapped = wrap_executor(executor)
    one, two = wrapped.submit(int), wrapped.submit(int)
    assert one.cancel()
    wrapped.shutdown(cancel_futures=True)

    assert two.cancelled()
    assert executor.waited is True


def test_a_returned_future_is_flattened_on_foreign_thread_pools():
    """What a stage returns on a wrapped thread pool is waited for, too."""
    with wrap_executor(cf.ThreadPoolExecutor(1)) as wrapped:
        inner = Future()
        stage = wrapped.submit(lambda: inner)
        assert not cf.wait([stage], 0.01).done
        inner.set_result(5)
        assert stage.result(30) == 5


class AtOnce(cf.Executor):
    """Runs everything in `submit`; nothing is known of it but its interface."""

    def submit(self, fn, /, *args, **kwargs):
        future = cf.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def test_a_returned_future_is_flattened_on_any_executor():
    """Also where nothing is known of that but its interface: it may share our memory."""
    with wrap_executor(AtOnce()) as wrapped:
        inner = Future()
        stages = [wrapped.submit(lambda: inner), succeed(1).then(lambda _: inner, on=wrapped)]
        after = stages[0].then(work.double)
        assert not cf.wait(stages, 0.01).done
        inner.set_result(5)
        assert [stage.result(30) for stage in stages] == [5, 5]
        assert after.result(30) == 10
        assert wrapped.submit(lambda: fail(KeyError())).catch(KeyError, lambda _: "caught").result(30) == "caught"


def test_loky():
    """loky's executor works in a wrapper: chains, errors, pickling, shutdown."""
    loky = pytest.importorskip("loky")
    with wrap_executor(loky.ProcessPoolExecutor(1)) as wrapped:
        assert wrapped.submit(work.add, 1, 2).then(work.double).result(60) == 6
        assert wrapped.submit(work.boom).catch(ValueError, work.recover, on=INLINE).result(60).endswith("ValueError")
        assert wrapped.submit(time.sleep, 0.7).addCallback(thread_name).result(60).startswith("futurechain-callback")
        wrapped.shutdown(cancel_futures=True)


def test_errors_pass_without_a_trip():
    """What is skipped needs no worker, on a pool that is broken even."""
    with ProcessPoolExecutor(1) as pool:
        assert isinstance(pool.submit(work.die).exception(30), BrokenProcessPool)
        assert isinstance(fail(KeyError()).then(work.double, on=pool).exception(0), KeyError)


def test_sigint_is_not_needed_to_end(processes):
    """A worker that is killed while idle breaks the pool; what comes then fails."""
    pid = processes.submit(work.pid).result(30)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(BrokenProcessPool):
        while True:
            processes.submit(work.double, 1).result(30)


class Vague(Exception):
    """An exception whose truth cannot be told."""

    def __bool__(self):
        raise RuntimeError("bool")


def raise_vague():
    raise Vague("vague")


def test_errors_that_are_neither_true_nor_false():
    """They come back from a worker as errors."""
    with pytest.raises(Vague):
        raise_vague()
    assert isinstance(call_there(raise_vague).value, Vague)


def test_an_executor_without_a_dict():
    """It gets a new wrapper each time."""

    class Slotted(cf.Executor):
        __slots__ = ()

        @property
        def __dict__(self):
            raise AttributeError

    executor = Slotted()
    assert wrap_executor(executor) is not wrap_executor(executor)


def test_shutdown_with_cancel_while_callbacks_run():
    """A callback that is running is left to end, and waited for."""
    gate, started, seen = threading.Event(), threading.Event(), []
    pool = ProcessPoolExecutor(1)
    future = pool.submit(time.sleep, 0.7)
    future.addCallback(lambda _: started.set() or seen.append(gate.wait(10)))
    assert started.wait(10)
    threading.Timer(0.1, gate.set).start()
    pool.shutdown(cancel_futures=True)

    assert seen == [True]


def test_an_exception_that_cannot_travel_back_fails_its_own_stage(processes):
    """The pool stays whole, and the error names the stage and the exception."""
    error = processes.submit(work.raise_two_arguments).exception(30)
    assert isinstance(error, StagePicklingError)
    assert "raise_two_arguments raised TwoArguments: 1" in str(error)
    assert processes.submit(abs, -1).result(30) == 1


def test_any_error_of_pickling_is_explained(processes):
    """Whatever class it has."""
    error = processes.submit(abs, work.Unwilling()).exception(30)
    assert isinstance(error, StagePicklingError)
    assert "RuntimeError" in repr(error.__cause__)


def test_each_stage_of_a_broken_pool_has_an_error_of_its_own():
    """With a note of its own name, although the pool gave one exception to all."""
    with ProcessPoolExecutor(1) as pool:
        stages = [pool.submit(work.die), pool.submit(work.double, 1).then(work.double)]
        errors = [stage.exception(30) for stage in stages]
    assert all(isinstance(error, BrokenProcessPool) for error in errors)
    assert errors[0] is not errors[1]
    assert [error.__notes__[0].split(",")[0] for error in errors] == ["raised in stage die", "raised in stage double"]


def test_what_cannot_be_built_anew_is_told_by_the_worker():
    """In the worker's own words, also while somebody watches."""
    for there in (call_there, time_there):
        with pytest.raises(StagePicklingError, match="cannot travel back"):
            there(work.raise_two_arguments)


def test_a_broken_standard_pool_is_not_submitted_to_in_its_own_thread():
    """Its manager holds the lock that `submit` wants while it fails what a view of `limit` has let through."""
    with wrap_executor(cf.ProcessPoolExecutor(1)) as pool:
        view = limit(pool, concurrency=2)
        tasks = [view.submit(work.die), *[view.submit(work.double, n) for n in range(5)]]
        stages = [task.then(work.double) for task in tasks]

        assert cf.wait(tasks + stages, 30).not_done == set()
        assert isinstance(tasks[-1].exception(0), BrokenProcessPool)
        assert isinstance(stages[-1].exception(0), BrokenProcessPool)
    assert {type(task.exception(0)) for task in tasks} == {BrokenProcessPool}


def test_a_standard_pool_is_never_asked_to_cancel(monkeypatch):
    """Not by `cancel()`, a timeout, or a lost race: Python 3.11 would lose the rest when a worker dies."""
    with cf.ProcessPoolExecutor(1) as executor:
        asked, cancel = [], cf.Future.cancel
        monkeypatch.setattr(cf.Future, "cancel", lambda future: asked.append(future) or cancel(future))
        pool = wrap_executor(executor)
        pool.submit(work.nap, 0.5)
        queued = [pool.submit(work.double, n) for n in range(8)]
        assert queued[7].cancel()
        assert queued[6].then(work.double).cancel()
        assert race(queued[5], succeed(1)).result(0) == 1
        with pytest.raises(TimeoutError):
            queued[4].timeout(0.01).result(30)
        pool.shutdown()

        assert all(task.cancelled() for task in queued[4:])
        assert cf.Future not in map(type, asked)


AFTER_A_BREAK = {
    "an error handler": lambda pool, task: task.catch(lambda _: None),
    "a submit": lambda pool, task: task.addErrback(lambda _: pool.submit(int)),
    "a shutdown": lambda pool, task: task.addErrback(lambda _: pool.shutdown(wait=False)),
    "a stage": lambda pool, task: task.then(None, str),
}


@pytest.mark.parametrize("attach", AFTER_A_BREAK.values(), ids=list(AFTER_A_BREAK))
@pytest.mark.parametrize("wrap", [True, False], ids=["wrapped executor", "wrapped futures"])
def test_a_standard_thread_pool_that_cannot_begin_holds_nobody_up(attach, wrap):
    """Its worker holds the lock that `submit` and `shutdown` want while it fails what waits: nothing runs there."""
    gate = threading.Event()
    executor = cf.ThreadPoolExecutor(1, initializer=lambda: gate.wait(30) and work.boom())
    pool = wrap_executor(executor) if wrap else executor
    tasks = [pool.submit(int) if wrap else wrap_future(pool.submit(int)) for _ in range(3)]
    ends = [attach(pool, task) for task in tasks]
    gate.set()

    assert cf.wait(tasks + ends, 30).not_done == set()
    assert {type(task.exception(0)) for task in tasks} == {BrokenThreadPool}
    assert {type(end.exception(0)) for end in ends} <= {BrokenThreadPool, type(None)}
    pool.shutdown()


def test_a_standard_thread_pool_that_cannot_begin_fails_all_that_waits():
    """Although some of it was cancelled, of which the pool is not told: it would stop there."""
    gate = threading.Event()
    with wrap_executor(cf.ThreadPoolExecutor(1, initializer=lambda: gate.wait(30) and work.boom())) as pool:
        tasks = [pool.submit(int) for _ in range(6)]
        assert tasks[2].cancel()
        assert tasks[4].then(str).cancel()
        gate.set()
        assert cf.wait(tasks, 30).not_done == set()
    assert [type(task.exception(0)) for task in tasks if not task.cancelled()] == [BrokenThreadPool] * 4


@pytest.mark.parametrize("make", [lambda: cf.ThreadPoolExecutor(1), lambda: cf.ProcessPoolExecutor(1)])
def test_what_is_withdrawn_has_no_outcome(make):
    """Whether the worker comes to it before or after: it is cancelled, or what was to come out."""
    with wrap_executor(make()) as pool:
        for _ in range(300):
            task, end = pool.submit(work.one), pool.submit(work.one)
            cancelled = task.cancel()
            assert end.result(30) == 1
            assert task.cancelled() if cancelled else task.result(30) == 1
