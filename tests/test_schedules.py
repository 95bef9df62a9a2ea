"""A sample of all schedules, the same in each run; and the machine that stops threads at their bytecodes."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import itertools
import random
import threading
import time
from functools import partial

import pytest

from futurechain import (
    INLINE,
    Future,
    Pipeline,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    ensure_future,
    limit,
    wrap_executor,
)
from futurechain.errors import InvalidStateError
from futurechain.pipeline.bodies import Body
from guard import IS_THOROUGH, share
from tests import inside
from tests.schedules import Case, Runner, sample
from tests.stepping import NEVER, Hang, Stepper
from tests.worlds import SHAPES

SCHEDULES = 360
"""In each shape."""


@pytest.mark.parametrize("shape", SHAPES)
def test_no_order_of_events_breaks_a_promise(shape):
    """Whatever another thread does before whichever bytecode: all is settled, once, in order, and nothing is left."""
    with Runner() as runner:
        sample(runner, random.Random(f"{shape} 1"), shapes=[shape], schedules=share(SCHEDULES))
    assert not runner.found, "\n".join(map(repr, runner.found[:3]))


@pytest.mark.parametrize("settle", ["set_result", "set_exception"])
def test_a_stage_that_begins_to_wait_while_it_is_given_up(settle):
    """It is cancelled, in all orders with one interruption."""
    with Runner() as runner:
        runner.exhaust(Case.parse(f"cleanup(then): cancel_last | {settle}"))
    assert not runner.found, "\n".join(map(repr, runner.found[:3]))


@pytest.mark.parametrize("dependents", ["then, adopt", "adopt, then", "adopt, adopt"])
@pytest.mark.parametrize("given_up", ["cancel_first", "cancel_last"])
def test_a_consumer_that_moves_on_while_another_one_is_given_up(dependents, given_up):
    """It still wants its source, in all orders with one interruption: that is not cancelled."""
    with Runner(few=True) as runner:
        runner.exhaust(Case.parse(f"returns({dependents}): {given_up} | set_result"))
    assert not runner.found, "\n".join(map(repr, runner.found[:3]))


def test_an_entry_that_comes_when_its_stage_was_cancelled_is_taken_back():
    """Each thread is interrupted once: while it attaches, and while it cancels."""
    chance, case = random.Random(1), Case.parse("waiting(): catch | cancel_root")
    with Runner() as runner:
        for _ in range(share(6000)):
            moments = [chance.randrange(60, 110), chance.randrange(280, 340), chance.randrange(100, 300)]
            runner.run(case, [*zip((0, 1, 0), moments, strict=True), (1, NEVER)])
    assert not runner.found, "\n".join(map(repr, runner.found[:3]))


def until(condition):
    """Wait for what another thread is about to do."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0)


class Hasty(cf.ThreadPoolExecutor):
    """Has run what it is given before `submit` returns."""

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)
        until(future.done)
        return future


POOLS = {
    "threads": lambda: ThreadPoolExecutor(1),
    "view of threads": lambda: limit(ThreadPoolExecutor(1), concurrency=1),
    "wrapped": lambda: wrap_executor(Hasty(1)),
    "view of wrapped": lambda: limit(wrap_executor(Hasty(1)), concurrency=1),
}


def offer(future, value):
    """Settle it, unless somebody has cancelled it."""
    with contextlib.suppress(InvalidStateError):
        future.set_result(value)


@pytest.mark.parametrize("event", ["start", "resume"])
@pytest.mark.parametrize("make", POOLS.values(), ids=POOLS)
def test_a_step_is_taken_once_whenever_its_pool_is_shut_down(make, event):
    """Before whichever bytecode its queued work is cancelled: no step is lost, or taken twice, nor is the clean-up."""

    async def work(gate, log):
        log.append("begun")
        try:
            log.append(await gate)
        finally:
            log.append("ended")

    def start():
        box.append(ensure_future(coroutine, on=pool))

    with Stepper(inside.STARTING_FILES, threads=2, few=True) as stepper:
        for stop in itertools.count(0, 1 if IS_THOROUGH else 3):
            pool, gate, log, box = make(), Future(), [], []
            coroutine = work(gate, log)
            if event == "resume":
                start()
                until(lambda gate=gate: inside.has_dependents(gate))
            act = start if event == "start" else partial(offer, gate, "value")
            close = partial(pool.shutdown, wait=False, cancel_futures=True)
            slots = stepper.run([act, close], [(0, stop), (1, NEVER)])
            gate.cancel()
            pool.shutdown()
            if isinstance(slots[0].error, RuntimeError):
                assert "after shutdown" in str(slots[0].error)
            else:
                assert [slot.error for slot in slots] == [None, None]
                assert box[0].done()
            until(lambda coroutine=coroutine: coroutine.cr_frame is None)
            assert log in ([], ["begun", "ended"], ["begun", "value", "ended"])
            if slots[0].steps <= stop:
                return


@pytest.mark.parametrize("make", [*POOLS.values(), lambda: wrap_executor(cf.ThreadPoolExecutor(1))])
def test_nothing_is_left_in_a_stage_that_is_cancelled_while_it_starts(make):
    """Before whichever bytecode its pool is shut down, and what lies beneath: it is settled, and holds nothing."""

    def close():
        pool.shutdown(wait=False, cancel_futures=True)
        beneath = pool
        while (beneath := getattr(beneath, "executor", None) or getattr(beneath, "_executor", None)) is not None:
            beneath.shutdown(wait=False)

    with Stepper(inside.STARTING_FILES, threads=2, few=True) as stepper:
        for stop in itertools.count(0, 1 if IS_THOROUGH else 3):
            pool, root = make(), Future()
            stage = root.then(str, on=pool)
            slots = stepper.run([partial(offer, root, 1), close], [(0, stop), (1, NEVER)])
            assert [slot.error for slot in slots] == [None, None]
            until(stage.done)
            until(lambda stage=stage: not inside.left_in(stage))
            close()
            if slots[0].steps <= stop:
                return


@pytest.mark.parametrize("make", [partial(ProcessPoolExecutor, 1), POOLS["wrapped"]], ids=["processes", "wrapped"])
def test_nothing_is_left_in_a_stage_that_is_cancelled_while_it_is_sent(make):
    """Before whichever bytecode that happens: it is settled, holds nothing, and has not run if it is cancelled."""
    with make() as pool, Stepper(inside.STARTING_FILES, threads=2, few=True) as stepper:
        pool.submit(abs, -1).result()
        for stop in itertools.count(0, 1 if IS_THOROUGH else 3):
            root, ran = Future(), []
            stage = root.then(str if type(pool) is ProcessPoolExecutor else ran.append, on=pool)
            slots = stepper.run([partial(offer, root, 1), stage.cancel], [(0, stop), (1, NEVER)])
            assert [slot.error for slot in slots] == [None, None]
            until(stage.done)
            assert not stage.cancelled() or not ran
            until(lambda stage=stage: not inside.left_in(stage))
            if slots[0].steps <= stop:
                return


WORKERS = {
    "threads": lambda: ThreadPoolExecutor(1),
    "processes": lambda: ProcessPoolExecutor(1),
    "view of processes": lambda: limit(ProcessPoolExecutor(1), concurrency=1),
    "wrapped": lambda: wrap_executor(Hasty(1)),
    "wrapped processes": lambda: wrap_executor(cf.ProcessPoolExecutor(1)),
}


@pytest.mark.parametrize("order", ["cancel first", "start first"])
@pytest.mark.parametrize("make", WORKERS.values(), ids=WORKERS)
def test_what_is_cancelled_has_not_run_and_does_not(make, order, tmp_path):
    """Before whichever bytecode of a cancellation its turn comes, or the other way round: it is for one of the two."""
    with make() as pool, Stepper(inside.STARTING_FILES | inside.CORE_FILES, threads=2, few=True) as stepper:
        pool.submit(abs, -1).result()
        for stop in itertools.count(0, 1 if IS_THOROUGH else 3):
            root, ran = Future(), tmp_path / str(stop)
            stage = root.then(ran.write_text, on=pool)
            cancel, start = stage.cancel, partial(offer, root, "ran")
            jobs = [cancel, start] if order == "cancel first" else [start, cancel]
            slots = stepper.run(jobs, [(0, stop), (1, NEVER)])
            assert [slot.error for slot in slots] == [None, None]
            until(stage.done)
            pool.submit(abs, -1).result()  # there is one worker: what came before has run
            assert stage.cancelled() != ran.exists()
            assert stage.cancelled() == slots[jobs.index(cancel)].value
            until(lambda stage=stage: not inside.left_in(stage))
            if slots[0].steps <= stop:
                return


@pytest.mark.parametrize("order", ["cancel first", "begin first"])
def test_a_worker_that_begins_while_its_future_is_cancelled(order):
    """In whatever moment both come: the work is not wanted, or was not cancelled."""
    with Stepper(inside.CORE_FILES, threads=2, few=True) as stepper:
        for stop in itertools.count():
            future = Future()
            jobs = [future.cancel, future.set_running_or_notify_cancel]
            slots = stepper.run(jobs if order == "cancel first" else jobs[::-1], [(0, stop), (1, NEVER)])
            assert [slot.error for slot in slots] == [None, None]
            assert slots[0].value != slots[1].value
            if slots[0].steps <= stop:
                return


class ByHand(cf.ThreadPoolExecutor):
    """Keeps what it is given, to be run by hand."""

    def submit(self, fn, /, *args, **kwargs):
        self.future, self.call = cf.Future(), partial(fn, *args, **kwargs)
        return self.future


@pytest.mark.parametrize("end", [lambda future: future.set_exception(OSError("broken")), cf.Future.cancel])
def test_a_foreign_pool_that_breaks_just_when_a_call_begins(end):
    """Before whichever bytecode its future fails, or is cancelled: the stage is settled."""
    with Stepper(inside.STARTING_FILES | inside.CORE_FILES, threads=2, few=True) as stepper:
        for stop in itertools.count():
            executor = ByHand(1)
            pool = wrap_executor(executor)
            task = pool.submit(abs, -1)
            slots = stepper.run([executor.call, partial(end, executor.future)], [(0, stop), (1, NEVER)])
            assert [slot.error for slot in slots] == [None, None]
            if not executor.future.done():
                executor.future.set_result(slots[0].value)
            until(task.done)
            if slots[0].steps <= stop:
                return


@pytest.mark.parametrize("cancels", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_nothing_runs_after_a_shutdown_has_returned(depth, cancels):
    """A task that is submitted meanwhile, at whichever bytecode, has run before, or is refused."""
    with Stepper(inside.STARTING_FILES, threads=2, few=True) as stepper:
        for stop in itertools.count(0, 1 if IS_THOROUGH else 3):
            pools, log = [ThreadPoolExecutor(1)], []
            for _ in range(depth):
                pools.append(limit(pools[-1], concurrency=1))
            pool = pools[-1]

            def close(pool=pool, log=log):
                pool.shutdown(cancel_futures=cancels)
                log.append("closed")

            slots = stepper.run([partial(pool.submit, log.append, "ran"), close], [(0, stop), (1, NEVER)])
            if slots[0].error is None:
                until(slots[0].value.done)
            else:
                assert "after shutdown" in str(slots[0].error)
            for one in pools:
                one.shutdown()
            assert log in (["closed"], ["ran", "closed"])
            if slots[0].steps <= stop:
                return


def test_a_consumer_whose_stream_is_closed_meanwhile():
    """Before whichever bytecode another thread closes it: ``next`` ends, and so does ``close``."""
    with ThreadPoolExecutor(1) as pool, Stepper(inside.STREAM_FILES, threads=2, few=True) as stepper:
        for stop in itertools.count(0, 1 if IS_THOROUGH else 3):
            stream = Pipeline().then(lambda _: Future(), on=pool).map([1])
            slots = stepper.run([partial(next, stream), stream.close], [(0, stop), (1, NEVER)])
            assert isinstance(slots[0].error, (RuntimeError, StopIteration))
            assert slots[1].error is None
            if slots[0].steps <= stop:
                return


def test_the_run_of_a_coroutine_is_over_once():
    """Before whichever bytecode of its end its future is heard of, or the other way round."""

    async def wait(gate):
        await gate

    with Stepper(inside.STREAM_FILES, threads=2) as stepper:
        for order in ("end first", "hear first"):
            for stop in itertools.count():
                gate, over = Future(), []
                body = Body(wait(gate), INLINE, [])
                jobs = [partial(gate.set_result, None), partial(body.when_over, partial(over.append, None))]
                slots = stepper.run(jobs if order == "end first" else jobs[::-1], [(0, stop), (1, NEVER)])
                assert [slot.error for slot in slots] == [None, None]
                assert len(over) == 1
                if slots[0].steps <= stop:
                    break


# -- the machine ------------------------------------------------------------------------------------------------------


def count_badly(box):
    """Add one, in two steps, so that another thread can come between."""
    value = box[0]
    box[0] = value + 1


@pytest.fixture
def stepper():
    with Stepper({__file__}) as machine:
        yield machine


def test_some_plan_finds_each_race(stepper):
    """A read and a store come apart in some plans with one interruption, and in no plan without."""
    results = []
    for stop in range(20):
        box = [0]
        stepper.run([lambda box=box: count_badly(box)] * 2, [(0, stop), (1, NEVER)])
        results.append(box[0])
    assert results[0] == results[-1] == 2
    assert 1 in results


def test_a_plan_is_the_same_in_each_run(stepper):
    """The same plan gives the same number of steps and the same result."""

    def once():
        box = [0]
        jobs = [lambda: count_badly(box), lambda: count_badly(box)]
        return [slot.steps for slot in stepper.run(jobs, [(0, 3), (1, 2), (0, 5)])], box

    assert len({repr(once()) for _ in range(20)}) == 1


def test_a_blocked_thread_gives_up_its_turn(stepper):
    """Who waits for another thread lets that go on, whatever the plan says."""
    event = threading.Event()
    first, second = stepper.run([event.wait, event.set], [(0, NEVER), (1, NEVER)])
    assert first.finished
    assert second.finished


def test_when_nobody_can_go_on_the_test_is_asked_to_help(stepper):
    """A thread that waits for something from outside gets it from ``unblock``; and without it that is a `Hang`."""
    event = threading.Event()
    stepper.run([event.wait], [], unblock=event.set)
    never = threading.Event()
    with pytest.raises(Hang, match="wait"):
        stepper.run([never.wait], [], patience=0.1)
    never.set()


def test_what_a_job_raises_is_kept(stepper):
    """An exception in one thread ends that job only."""
    first, second = stepper.run([lambda: 1 / 0, lambda: 5], [])
    assert isinstance(first.error, ZeroDivisionError)
    assert second.value == 5


def test_a_case_reads_as_it_is_written():
    """What a report prints can be given to ``--case``."""
    text = "bare(then, adopt): cancel_root | set_result"
    assert repr(Case.parse(text)) == text


def test_a_broken_promise_is_seen():
    """A handler that runs twice, or a future that is not settled, is a fault."""
    with Runner() as runner:
        world, _ = Case.parse("bare(then): look | look").make(runner)
        world.close()
        world.stages[0].handle(None)
        assert any("ran 2 times" in fault for fault in world.check())
        world.end()
