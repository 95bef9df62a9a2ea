"""tracing: what a trace records of each stage, and what it leaves alone."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import weakref
from operator import neg

import pytest

import work
from futurechain import (
    INLINE,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    debug,
    gather,
    inlineCallbacks,
    succeed,
    trace,
    wrap_executor,
)
from futurechain.core.observers import watch
from programs import run_program


@pytest.fixture
def switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def by_name(t):
    """The spans of a trace, by the name of their function."""
    return {span.name: span for span in t.spans()}


def first(value):
    return value


def second(value):
    return value + 1


def third(value):
    return str(value)


def broken(value):
    raise ValueError(f"no {value}")


def in_order(span):
    moments = [span.attached, span.queued, span.started, span.settled]
    known = [moment for moment in moments if moment is not None]
    return known == sorted(known)


def test_the_stages_of_a_chain():
    """Each has its name, times in order, the type of its result, and the stage before it as its parent."""
    with trace() as t:
        root = Future()
        root.then(first).then(second).then(third)
        root.set_result(1)

    one, two, three = t.spans()
    assert [span.name for span in (one, two, three)] == ["first", "second", "third"]
    assert [span.parents for span in (one, two, three)] == [(), (one.number,), (two.number,)]
    assert [span.detail for span in (one, two, three)] == ["int", "int", "str"]
    assert {span.state for span in t.spans()} == {"returned"}
    assert all(in_order(span) and span.started is not None for span in t.spans())
    assert {span.track for span in t.spans()} == {threading.current_thread().name}


def test_what_happened_to_each_stage():
    """Failed, passed over, cancelled and pending stages are told apart."""
    with trace() as t:
        succeed(1).then(broken).then(first).catch(ValueError, third)
        waiting = Future()
        waiting.then(second).cancel()
        never = Future()
        stage = never.then(neg)

    spans = by_name(t)
    assert {name: span.state for name, span in spans.items()} == {
        "broken": "failed",
        "first": "passed",
        "third": "returned",
        "second": "cancelled",
        "neg": "pending",
    }
    assert spans["broken"].detail == "ValueError: no 1"
    assert spans["first"].started is None
    assert not stage.done()


def test_a_thread_pool():
    """Waiting for a worker and running are told apart, and the track is the worker's thread."""
    with trace() as t, ThreadPoolExecutor(1, "crew") as pool:
        pool.submit(first, 1).then(second)

    spans = by_name(t)
    assert spans["first"].queued is not None
    assert spans["first"].executor == "crew"
    assert {span.track for span in spans.values()} == {"crew_0"}
    assert all(in_order(span) for span in spans.values())
    assert spans["second"].parents == (spans["first"].number,)


def test_a_process_pool():
    """The worker process says when it began; its track is its own, and errors are known as well."""
    with trace() as t, ProcessPoolExecutor(1) as pool:
        future = pool.submit(work.double, 4).then(work.boom)
        assert future.exception() is not None

    double, fail = t.spans()
    assert (double.name, fail.name) == ("double", "boom")
    assert double.process == fail.process != os.getpid()
    assert str(double.process) in double.track
    assert in_order(double)
    assert in_order(fail)
    assert double.detail == "int"
    assert fail.state == "failed"


def test_anybodys_executor():
    """What does not say when it began has run from when it was handed over."""
    loky = pytest.importorskip("loky")
    executor = loky.ProcessPoolExecutor(1)
    with trace() as t, wrap_executor(executor) as pool:
        assert pool.submit(abs, -3).result() == 3

    (span,) = t.spans()
    assert span.started == span.queued is not None
    assert span.track == span.executor


def test_combinations_and_returned_futures():
    """A combination has all that it waits for as parents; so has a stage whose function returned a future."""
    with trace() as t:
        one, two = Future(), Future()
        gather(one.then(first), two.then(second)).then(third)
        inner = Future()
        inner_stage = inner.then(neg)
        one.then(lambda _: inner_stage)
        for future in (one, two, inner):
            future.set_result(5)

    spans = by_name(t)
    whole = spans["gather"]
    assert set(whole.parents) == {spans["first"].number, spans["second"].number}
    assert spans["neg"].number in spans["<lambda>"].parents


def test_a_coroutine_is_one_stage():
    """From its first step to its end."""

    @inlineCallbacks
    def walk(start):
        yield start
        return 3

    with trace() as t:
        start = Future()
        walk(start)
        start.set_result(None)

    (span,) = t.spans()
    assert (span.name, span.state, span.detail) == ("walk", "returned", "int")
    assert span.started is not None


def test_traces_may_overlap():
    """Each has what was attached while it was on."""
    with trace() as outer:
        succeed(1).then(first)
        with trace() as inner:
            succeed(1).then(second)
        succeed(1).then(third)

    assert [span.name for span in outer.spans()] == ["first", "second", "third"]
    assert [span.name for span in inner.spans()] == ["second"]
    assert not watch.on


def test_off_means_off():
    """After the block nothing is recorded."""
    with trace() as t:
        pass
    succeed(1).then(first)
    Future().addCallback(first).cancel()

    assert t.spans() == []


def test_twisted_s_family_is_recorded():
    """Callbacks and errbacks alike, and a mistake in attaching one is refused as ever."""
    with trace() as t:
        future = succeed(1)
        future.addCallback(second)
        future.addCallbacks(broken, third)
        future.addErrback(lambda failure: None)
        with pytest.raises(TypeError):
            future.addCallback(3)
        with pytest.raises(TypeError):
            future.then(3)

    assert [span.state for span in t.spans()] == ["returned", "failed", "returned"]


def test_no_result_lives_longer():
    """A trace holds names and types, neither results nor exceptions nor, after the block, functions."""

    class Thing:
        pass

    def make(_):
        return Thing()

    seen = weakref.ref(make)
    with trace() as t:
        future = succeed(None).then(make)
        thing = weakref.ref(future.result())
        del future
        gc.collect()
        assert thing() is None
    del make
    gc.collect()

    assert seen() is None
    assert t.spans()[0].detail == "Thing"


def test_saving(tmp_path):
    """The suffix says what for; another one is refused."""
    with trace() as t:
        succeed(1).then(first, on=INLINE)
    t.save(tmp_path / "x.json")
    t.save(str(tmp_path / "x.html"))

    events = json.loads((tmp_path / "x.json").read_text())["traceEvents"]
    assert [event["name"] for event in events if event["ph"] == "X"] == ["first"]
    assert "first" in (tmp_path / "x.html").read_text()
    with pytest.raises(ValueError, match=r"\.json"):
        t.save(tmp_path / "x.png")


def test_stages_of_many_threads(switch_often):
    """None is lost and none is mixed up with another, whichever threads attach at once."""
    barrier = threading.Barrier(4)
    with trace() as t:

        def attach():
            barrier.wait()
            for _ in range(500):
                succeed(1).then(first).then(second)

        threads = [threading.Thread(target=attach) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    spans = t.spans()
    assert len(spans) == 4000
    assert [span.number for span in spans] == list(range(4000))
    for span in spans:
        if span.name == "second":
            (parent,) = span.parents
            assert spans[parent].name == "first"
            assert spans[parent].track == span.track


def test_together_with_debug_mode():
    """Several observers are told the same."""
    debug(True)
    try:
        with trace() as t:
            succeed(1).then(first).then(second)
    finally:
        debug(False)

    assert [span.name for span in t.spans()] == ["first", "second"]


def test_waiting_for_a_returned_future_is_not_running():
    """The stage has run until its function returned; it is settled later."""
    inner = Future()

    def wait(_):
        return inner

    with trace() as t:
        stage = succeed(1).then(wait)
        succeed(1).then(first)
        inner.set_result(2)
        assert stage.result() == 2

    spans = by_name(t)
    assert spans["wait"].returned < spans["first"].started < spans["wait"].settled


def test_a_trace_that_was_never_on():
    """To save it is a mistake, and is told."""
    with pytest.raises(RuntimeError, match="with trace"):
        trace().save("x.html")


def test_watching_may_begin_before_the_first_future():
    """Whoever watches before anything else of the package was used misses nothing."""
    program = (
        "import futurechain as fc\n"
        "fc.debug()\n"
        "with fc.trace() as t:\n    fc.succeed(1).then(str).then(len)\n"
        "print([span.name for span in t.spans()])\n"
        "fc.succeed(1).then(lambda n: n / 0)\n"
    )
    run = run_program(program)
    assert run.stdout == "['str', 'len']\n"
    assert "attached at <string>:6" in run.stderr


def test_a_stage_made_in_debug_mode_is_settled_in_a_trace():
    """Whoever comes to watch later finds stages of which it knows nothing; they run all the same."""
    debug(True)
    try:
        root = Future()
        stage = root.then(str)
        with trace() as t:
            later = stage.then(len)
            root.set_result(12)
    finally:
        debug(False)
    assert (stage.result(0), later.result(0)) == ("12", 2)
    assert [span.name for span in t.spans()] == ["len"]


def test_nothing_starts_before_it_was_queued(processes):
    """A worker process may begin before the thread that hands over has noted that it did; the times say otherwise."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with trace() as t:
            futures = [processes.submit(work.add, number, 1).then(work.double) for number in range(200)]
            assert [future.result(60) for future in futures] == [2 * number + 2 for number in range(200)]
    finally:
        sys.setswitchinterval(before)

    for span in t.spans():
        assert span.attached <= span.queued <= span.started <= span.settled
