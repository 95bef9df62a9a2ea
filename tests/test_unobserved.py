"""Errors say where they came from, and no failure is lost in silence."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import threading
import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import work
from futurechain import Future, ProcessPoolExecutor, ThreadPoolExecutor, ensure_future, fail, gather, succeed
from futurechain.errors import LostFutureError
from programs import run_program


@pytest.fixture(autouse=True)
def quick_collections():
    """Collecting garbage looks at what a test makes only, not at all that pytest holds: thirty times faster."""
    gc.freeze()


def notes(error):
    return getattr(error, "__notes__", [])


def test_an_error_names_its_stage():
    """It carries one note: stage and executor."""
    source = Future()
    last = source.then(work.double).then(work.boom).then(work.double)
    source.set_result(1)

    assert notes(last.exception()) == ["raised in stage boom, on INLINE"]


def test_an_error_that_is_raised_again_has_one_note():
    """The first stage that raised it is what counts."""

    def again(error):
        raise error

    assert notes(succeed(1).then(work.boom).catch(again).exception()) == ["raised in stage boom, on INLINE"]


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_notes_of_pools(kind):
    """Tasks and stages on pools say so; across processes, too."""
    with kind(1) as pool:
        stage = pool.submit(work.double, 1).then(work.boom)
        note = notes(stage.exception(30))
        assert len(note) == 1
        assert note[0].startswith("raised in stage boom, on " + kind.__name__)
        assert notes(pool.submit(work.boom).exception(30))[0].startswith("raised in stage boom, on ")


def test_an_exception_that_takes_no_notes():
    """It fails its stage all the same."""

    class Closed(Exception):
        def add_note(self, note):
            raise RuntimeError("no notes")

    def raise_it(_):
        raise Closed

    assert isinstance(succeed(1).then(raise_it).exception(), Closed)


def test_a_failure_that_nobody_looked_at_is_reported_once(caplog):
    """When it goes, at the end of its chain."""
    succeed(1).then(work.boom).then(work.double).addCallback(work.double)
    gc.collect()

    assert [record.name for record in caplog.records] == ["futurechain"]
    assert "boom" in caplog.text


@pytest.mark.parametrize(
    "look",
    [
        lambda future: future.exception(),
        lambda future: cf.wait([future]) and future.exception(),
        lambda future: future.add_done_callback(print),
        lambda future: future.catch(print),
        lambda future: future.addErrback(print),
        lambda future: gather(future, return_exceptions=True),
        lambda future: succeed(1).then(lambda _: future).exception(),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_whoever_looks_has_heard(look, late, caplog):
    """A dependent, a result(), an exception(), a done callback, a combination: no report."""
    future = Future()
    if late:
        future.set_exception(KeyError("k"))
        look(future)
    else:
        dependent = future.then(None, print)
        future.set_exception(KeyError("k"))
        del dependent
    del future
    gc.collect()

    assert caplog.records == []


def test_a_cancellation_is_no_such_failure(caplog):
    """Nobody has to look at it."""
    future = Future()
    future.cancel()
    del future
    gc.collect()

    assert caplog.records == []


def test_running_work_that_was_cancelled_may_fail_in_silence(pool, caplog):
    """Nobody wants it any more."""
    gate, started = threading.Event(), threading.Event()
    task = pool.submit(lambda: started.set() or (gate.wait(10) and work.boom()))
    stage = task.then(print)
    assert started.wait(10)
    stage.cancel()
    gate.set()
    cf.wait([pool.submit(int)])
    pool.shutdown()
    del task, stage
    gc.collect()

    assert caplog.records == []


def test_reported_at_the_end_of_the_interpreter():
    """A failure that is still held then is reported, too, once."""
    program = "from futurechain import fail\nheld = fail(KeyError('held'))"
    run = run_program(program)

    assert run.stderr.count("nobody looked at it") == 1
    assert "KeyError: 'held'" in run.stderr


def test_held_and_heard_later(caplog):
    """Looking late is looking."""
    future = fail(KeyError("k"))
    gc.collect()
    assert isinstance(future.exception(), KeyError)
    del future
    gc.collect()

    assert caplog.records == []


def read(future):
    with suppress(ValueError):
        future.result()


ENDINGS = {
    "nothing": lambda future: None,
    "wait": lambda future: cf.wait([future]),
    "result": read,
    "exception": lambda future: future.exception(),
    "callback": lambda future: future.add_done_callback(lambda done: None),
    "await": lambda future: ensure_future(_swallow(future)),
    "gather": lambda future: gather(future, return_exceptions=True),
}


async def _swallow(future):
    with suppress(ValueError):
        await future


def _raise(_):
    raise ValueError("raised")


STEPS = {
    "then good": lambda future: future.then(lambda value: value),
    "then bad": lambda future: future.then(_raise),
    "catch": lambda future: future.catch(lambda error: None),
    "finally": lambda future: future.finally_(lambda: None),
    "errback": lambda future: future.then(None, _raise),
    "shield": lambda future: future.shield(),
}
FAILS_AFTER = {"then bad": lambda failed: True, "catch": lambda failed: False}
"""For each step whether it fails, given whether the one before has; by default as that."""
trees = st.lists(st.tuples(st.integers(0, 8), st.sampled_from(sorted(STEPS))), max_size=8)
ends = st.lists(st.sampled_from(sorted(ENDINGS)), min_size=9, max_size=9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.tuples(st.booleans(), st.booleans(), trees, ends))
def test_each_failure_that_nobody_looked_at_is_reported_once(data, caplog):
    """No false alarm and none missed, for any tree of stages and any way of looking at its ends."""
    fails, late, tree, ends = data
    caplog.clear()
    gc.freeze()  # what Hypothesis has kept of the examples before
    failed, used, futures = [fails], set(), [Future()]
    settle = futures[0].set_exception if fails else futures[0].set_result
    outcome = ValueError("root")
    if not late:
        settle(outcome)
    for wanted, step in tree:
        parent = wanted % len(futures)
        used.add(parent)
        futures.append(STEPS[step](futures[parent]))
        failed.append(FAILS_AFTER.get(step, bool)(failed[parent]))
    if late:
        settle(outcome)
    future = None
    for number, future in enumerate(futures):
        ENDINGS[ends[number]](future)
    expected = sum(
        failed[number] and number not in used and ends[number] in {"nothing", "wait"} for number in range(len(futures))
    )

    assert not any("nobody looked" in record.getMessage() for record in caplog.records)
    del future, settle
    futures.clear()
    gc.collect()
    assert sum("nobody looked" in record.getMessage() for record in caplog.records) == expected


def test_the_end_of_the_interpreter_is_no_failure():
    """What is still pending then is not reported: nobody forgot it, and nobody waits for it."""
    program = "from futurechain import Future; f = Future(); g = f.then(print); g.catch(print)"
    run = run_program(program)
    assert (run.stdout, run.stderr) == ("", "")


def test_a_lost_future_is_reported_at_the_end_of_its_chain(caplog):
    """Once, with the stages behind it; and not at all if somebody looked there."""
    last = Future().then(work.double).then(str)
    assert isinstance(last.exception(10), LostFutureError)
    del last
    gc.collect()
    assert caplog.records == []

    Future().then(work.double).then(str)
    gc.collect()
    wait_until(lambda: caplog.records)
    (record,) = caplog.records
    assert "nobody looked at it" in record.getMessage()


def test_ctrl_c_that_is_raised_is_not_reported(caplog):
    """The main thread gets it; that is enough."""

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        succeed(1).then(interrupted)
    gc.collect()
    assert caplog.records == []


def wait_until(condition):
    """Wait for what a callback thread does."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
