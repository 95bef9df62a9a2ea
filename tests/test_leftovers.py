"""What is left behind: reports of losers, cycles that only the collector frees, links of futures that are done."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref

import pytest

from futurechain import (
    Future,
    ThreadPoolExecutor,
    delay,
    ensure_future,
    fail,
    first,
    gather,
    inlineCallbacks,
    race,
    some,
    succeed,
)
from futurechain.errors import CancelledError

LONG = 10


def failing(name="loser"):
    return fail(KeyError(name))


def pending_then_failing():
    source = Future()
    return source, source.then(lambda _: 1 / 0)


# -- losers are no failures that nobody looked at  ----------------------------------


COMBINATIONS = {
    "first, winner first": lambda: first(succeed(1), failing()),
    "first, loser first": lambda: first(failing(), succeed(1)),
    "race, winner first": lambda: race(succeed(1), failing()),
    "race, loser first": lambda: race(failing(), succeed(1)).catch(lambda e: 1),
    "race of two losers": lambda: race(failing(), failing()).catch(lambda e: 1),
    "some, losers last": lambda: some(1, succeed(1), failing(), failing()),
    "some, losers first": lambda: some(1, failing(), failing(), succeed(1)),
    "some, not enough": lambda: some(2, failing(), succeed(1), failing()).catch(lambda e: 1),
    "gather of two": lambda: gather(failing("a"), failing("b")).catch(lambda e: 1),
    "gather of three": lambda: gather(succeed(1), failing("a"), failing("b")).catch(lambda e: 1),
    "gather, exceptions returned": lambda: gather(failing("a"), failing("b"), return_exceptions=True),
    "first of nothing good": lambda: first(failing("a"), failing("b")).catch(lambda e: 1),
    "race in a race": lambda: race(succeed(1), race(failing(), failing())),
    "gather in a first": lambda: first(gather(failing(), failing()), succeed(1)),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_losers_are_silent(name, caplog):
    """What a combination waited for counts as looked at, whatever the order of its arguments."""
    with caplog.at_level(logging.DEBUG, logger="futurechain"):
        end = COMBINATIONS[name]()
        assert end.exception(0) is None
        del end
        gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize("combine", [first, race, gather, lambda *f: some(1, *f), lambda *f: some(2, *f)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_losers_that_end_later_are_silent(combine, order, caplog):
    """The same when they fail one after the other, after the combination has its outcome or before."""
    with caplog.at_level(logging.DEBUG, logger="futurechain"):
        sources = [Future() for _ in range(3)]
        stages = [sources[0].then(abs), sources[1].then(lambda _: 1 / 0), sources[2].then(lambda _: 1 / 0)]
        keep = [stage.shield() for stage in stages]  # a loser is not cancelled, and goes on
        end = combine(*stages).catch(BaseException, lambda e: 1)
        for index in order:
            if not sources[index].done():
                sources[index].set_result(0)
        assert end.done()
        for one in keep:
            one.exception(0)
        del end, keep, stages, sources
        gc.collect()
    assert caplog.records == []


def test_a_failure_that_nobody_looked_at_is_reported_once(caplog):
    """The control: the failure of a combination that nobody looks at is reported, once."""
    with caplog.at_level(logging.DEBUG, logger="futurechain"):
        gather(failing("a"), failing("b"))
        gc.collect()
    assert len(caplog.records) == 1


# -- finally_  ----------------------------------


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("inner_first", [False, True])
def test_a_returned_finally_keeps_its_outcome(depth, inner_first):
    """A finally_ stage that waits, and is returned by handlers, gives them its own outcome, not what it waits for."""
    source, cleanup = Future(), Future()
    stage = end = source.finally_(lambda: cleanup)
    if inner_first:
        source.set_result(5)
    for _ in range(depth):
        end = succeed(0).then(lambda _, end=end: end)
    if not inner_first:
        source.set_result(5)
    cleanup.set_result(99)
    assert (stage.result(0), end.result(0)) == (5, 5)


@pytest.mark.parametrize("family", ["then", "addCallback", "coroutine", "gather"])
def test_a_returned_finally_passes_errors(family):
    """The same with an error, which the cleanup's result must not hide; and with a cleanup that fails."""
    for cleanup_fails in (False, True):
        source, cleanup = Future(), Future()
        stage = source.finally_(lambda cleanup=cleanup: cleanup)
        if family == "then":
            end = succeed(0).then(lambda _, stage=stage: stage)
        elif family == "addCallback":
            end = succeed(0).addCallback(lambda _, stage=stage: stage)
        elif family == "gather":
            end = gather(stage)
        else:

            async def walk(stage=stage):
                return await stage

            end = ensure_future(walk())
        source.set_exception(KeyError("kept"))
        cleanup.set_exception(ValueError()) if cleanup_fails else cleanup.set_result(99)
        assert isinstance(end.exception(0), ValueError if cleanup_fails else KeyError)
        stage.exception(0)


# -- cycles  ----------------------------------


def cancelled_coroutine():
    async def wait():
        await Future()

    future = ensure_future(wait())
    future.cancel()
    assert future.cancelled()


def cancelled_generator():
    @inlineCallbacks
    def wait():
        yield Future()

    future = wait()
    future.cancel()


def failed_generator():
    @inlineCallbacks
    def wait():
        yield succeed(1)
        raise KeyError

    wait().exception(0)


def failed_coroutine():
    source = Future()

    async def wait():
        await source
        raise KeyError

    future = ensure_future(wait())
    source.set_result(0)
    future.exception(0)
    source = future = None  # a traceback keeps this frame, too


def finished_coroutine():
    source = Future()

    async def wait():
        return await source

    future = ensure_future(wait())
    source.set_result(0)
    future.result(0)


def awaited_failure():
    source = Future()
    box = [source]  # the coroutine's own variable would make a cycle: the future's error has its frame

    async def wait():
        await box.pop()

    future = ensure_future(wait())
    source.set_exception(KeyError())
    future.exception(0)
    source = future = None


def failed_stage():
    source = Future()
    end = source.then(lambda _: 1 / 0).then(abs)
    source.set_result(0)
    end.exception(0)
    source = end = None


def raised_result():
    end = succeed(0).then(lambda _: 1 / 0)
    try:
        end.result(0)
    except ZeroDivisionError:
        pass
    del end


def cancelled_chain():
    source = Future()
    source.then(abs).then(abs).addCallback(abs).cancel()


def cancelled_combination():
    gather(Future(), race(Future(), Future()), first(Future())).cancel()


def decided_combination():
    source, other = Future(), Future()
    end = race(source.then(abs), gather(source, other))
    source.set_result(1)
    end.result(0)


def returned_future():
    inner = Future()
    end = succeed(0).then(lambda _: inner)
    inner.set_result(1)
    end.result(0)


def cancelled_returned_future():
    inner = Future()
    succeed(0).then(lambda _: inner).cancel()


def timed_out():
    source = Future()
    source.timeout(60).cancel()
    source.cancel()


def ring():
    box = []
    source = Future()
    box.append(source.then(lambda _: box[0]))
    source.set_result(0)
    box.pop().exception(0)


def finally_with_a_future():
    cleanup, source = Future(), Future()
    end = source.finally_(lambda: cleanup)
    source.set_result(0)
    cleanup.set_result(0)
    end.result(0)


def waited():
    source = Future()
    end = source.then(abs)
    threading.Timer(0.001, source.set_result, (1,)).start()
    end.result(LONG)


def delayed():
    delay(60).then(abs).cancel()


WAYS = [
    cancelled_coroutine,
    cancelled_generator,
    failed_generator,
    failed_coroutine,
    finished_coroutine,
    awaited_failure,
    failed_stage,
    raised_result,
    cancelled_chain,
    cancelled_combination,
    decided_combination,
    returned_future,
    cancelled_returned_future,
    timed_out,
    ring,
    finally_with_a_future,
    delayed,
]


@pytest.fixture
def counted():
    """Leave freeing to reference counts alone, and tell what they have not freed of ours."""
    gc.collect()
    gc.disable()

    def unfreed():
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        kinds = [type(one).__name__ for one in gc.garbage if _is_of_interest(one)]
        gc.garbage.clear()
        return kinds

    yield unfreed
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()
    gc.collect()


def _is_of_interest(one):
    kind = type(one)
    if kind.__name__ == "Timer":
        return False  # those withdrawn are forgotten by the thousand
    return str(kind.__module__).startswith("futurechain") or (  # in some classes it is a property
        issubclass(kind, BaseException) and kind is not AssertionError
    )


@pytest.mark.parametrize("way", WAYS)
def test_no_cycles_are_left(way, counted, caplog):
    """What has ended is freed at once, without the collector."""
    caplog.set_level("CRITICAL", logger="futurechain")
    way()
    counted()
    way()
    left = counted()
    assert left == []


@pytest.mark.parametrize("way", [*WAYS, waited])
def test_nothing_is_left_by_many(way, caplog):
    """Three hundred of each leave nothing, after the collector."""
    caplog.set_level("CRITICAL", logger="futurechain")
    for _ in range(20):
        way()
    gc.collect()
    before = sum(map(_is_of_interest, gc.get_objects()))
    for _ in range(300 if way is not waited else 20):
        way()
    gc.collect()
    assert sum(map(_is_of_interest, gc.get_objects())) <= before + 5


# -- what a settled future holds  ----------------------------------


class Thing:
    """Something whose end can be seen."""


def test_intermediate_results_live_no_longer_than_needed():
    """A result is freed as soon as nobody can ask for it, while the chain goes on."""
    source, seen = Future(), []

    def make(_):
        seen.append(weakref.ref(thing := Thing()))
        return thing

    end = source.then(make).then(lambda thing: None).then(lambda _: seen[0]())
    source.set_result(0)
    assert end.result(0) is None


@pytest.mark.parametrize("how", ["settled", "failed", "cancelled"])
def test_a_settled_stage_drops_handlers_and_sources(how):
    """A stage that is done holds neither its function nor what it waited for."""
    source, thing = Future(), Thing()
    end = source.then(lambda v, thing=thing: v)
    watched, upstream = weakref.ref(thing), weakref.ref(source)
    if how == "settled":
        source.set_result(1)
    elif how == "failed":
        source.set_exception(KeyError())
    else:
        end.cancel()
    del thing, source
    gc.collect()
    assert end.done()
    assert watched() is None
    assert upstream() is None
    assert end.cancelled() or end.exception(0) is None or isinstance(end.exception(0), KeyError)


def test_settled_futures_hold_no_source_after_races():
    """A stage attached or cancelled while its source is being settled holds nothing of that afterwards."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        kept = []
        for number in range(400):
            source, stages = Future(), []
            thread = threading.Thread(target=source.set_result, args=(number,))
            thread.start()
            stages.append(source.then(abs))
            stages.append(source.addCallback(abs))
            stages[0].cancel()
            thread.join()
            kept.extend((stage, weakref.ref(source)) for stage in stages)
            del source, thread
        gc.collect()
        assert all(stage.done() for stage, _ in kept)
        assert [upstream for _, upstream in kept if upstream() is not None] == []
    finally:
        sys.setswitchinterval(interval)


def test_a_worker_holds_nothing_of_its_last_task():
    """Results, arguments and functions of tasks are freed although the worker idles."""
    with ThreadPoolExecutor(1) as pool:
        thing = Thing()
        watched = weakref.ref(thing)
        pool.submit(lambda thing: thing, thing).then(lambda thing: [thing]).then(len).result(LONG)
        del thing
        pool.submit(int).result(LONG)
        gc.collect()
        assert watched() is None


def test_cancelled_waits_leave_nothing():
    """Waits given up, cancelled branches and adopters leave no entry in a future that lives on."""
    source = Future()
    keep = source.then(abs)
    things = []
    for _ in range(50):
        thing = Thing()
        things.append(weakref.ref(thing))
        source.then(lambda v, thing=thing: v).cancel()
        succeed(0).then(lambda _, thing=thing: source).cancel()
        gather(source, Future()).cancel()
        with pytest.raises(TimeoutError):
            source.result(0)
        with pytest.raises(TimeoutError):
            source.then(lambda v, thing=thing: v).shield().result(0)
        del thing
    alive = sum(one() is not None for one in things)
    assert alive <= 50  # shielded stages stay, as they should
    keep.cancel()
    with pytest.raises(CancelledError):
        keep.result(0)
