"""`Future`: two families on one type, and everything that holds for both."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import copy
import dataclasses
import gc
import itertools
import pickle
import sys
import threading
import tracemalloc
import weakref

import pytest

import work
from futurechain import INLINE, Failure, Future, ThreadPoolExecutor, fail, gather, race, succeed, wrap_future
from futurechain.errors import CancelledError, InvalidStateError, LostFutureError

MILLION = 1_000_000


def increment(value):
    return value + 1


def settled_by(future, value=None):
    """Settle `future` from another thread."""
    thread = threading.Thread(target=future.set_result, args=(value,))
    thread.start()
    return thread


# -- one type -----------------------------------------------------------------------------------------------------


def test_is_a_standard_future():
    """Every future we make is a `concurrent.futures.Future` and ours."""
    futures = [Future(), succeed(1), Future().then(increment), Future().addCallback(increment), Future().shield()]

    assert all(isinstance(future, cf.Future) and isinstance(future, Future) for future in futures)


def test_succeed_and_fail():
    """`succeed` and `fail`, as functions and as class methods, make settled futures."""
    assert succeed(1).result() == Future.succeed(1).result() == 1
    assert isinstance(fail(KeyError()).exception(), KeyError)
    assert isinstance(Future.fail(KeyError()).exception(), KeyError)
    assert isinstance(fail(Failure(KeyError())).exception(), KeyError)
    assert isinstance(succeed(Failure(KeyError())).exception(), KeyError)


def test_fail_wants_an_exception():
    """`fail` of something else is a TypeError that names it."""
    with pytest.raises(TypeError, match="not 3"):
        fail(3)


# -- the promise family ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_then_transforms(late):
    """`then` gives the handler's value, attached before or after the future is settled."""
    future = Future()
    if late:
        future.set_result(1)
    stage = future.then(increment).then(increment)
    if not late:
        future.set_result(1)

    assert stage.result(0) == 3
    assert future.result() == 1


def test_then_twice_makes_two_branches():
    """`then` attaches to this very future."""
    future = Future()
    one, two = future.then(increment), future.then(work.double)
    future.set_result(5)

    assert (one.result(), two.result()) == (6, 10)


def test_exactly_one_of_a_pair_runs():
    """In `then(a, b)`, b never sees a's error."""
    seen = []

    stage = succeed(1).then(work.boom, seen.append)

    assert isinstance(stage.exception(), ValueError)
    assert seen == []
    assert fail(KeyError("k")).then(work.boom, work.recover).result() == "recovered from KeyError"


def test_what_is_skipped_passes_the_same_object_on():
    """A value handler is skipped on error and an error handler on success, with the very same outcome."""
    error, value = KeyError("k"), object()

    assert fail(error).then(increment).then(increment).exception() is error
    assert succeed(value).catch(work.recover).then(None, work.recover).result() is value


def test_none_passes_through():
    """None for a handler means "pass through", in every method."""
    for stage in (
        succeed(1).then(None, None),
        succeed(1).then(),
        succeed(1).catch(None),
        succeed(1).catch(KeyError, None),
        succeed(1).finally_(None),
        succeed(1).addCallback(None),
        succeed(1).addErrback(None),
        succeed(1).addBoth(None),
        succeed(1).addCallbacks(None, None),
    ):
        assert stage.result() == 1


def test_catch_filters_by_type():
    """`catch(types, handler)` runs for these types only, and gets the exception."""
    assert fail(KeyError("k")).catch(LookupError, work.recover).result() == "recovered from KeyError"
    assert fail(KeyError("k")).catch((OSError, KeyError), work.recover).result() == "recovered from KeyError"
    assert isinstance(fail(KeyError("k")).catch(OSError, work.recover).exception(), KeyError)


def test_finally_keeps_the_outcome():
    """`finally_` calls without arguments, however the future ended, and keeps the outcome."""
    calls = []
    error = KeyError()

    assert succeed(1).finally_(lambda: calls.append("ok") or 99).result() == 1
    assert fail(error).finally_(lambda: calls.append("error")).exception() is error
    assert calls == ["ok", "error"]


def test_finally_waits_and_fails():
    """`finally_` waits for a future it returns; its error replaces the outcome."""
    gate = Future()
    stage = succeed(1).finally_(lambda: gate)

    assert not stage.done()
    gate.set_result("ignored")
    assert stage.result(0) == 1
    assert isinstance(fail(KeyError()).finally_(work.boom).exception(), ValueError)
    assert isinstance(succeed(1).finally_(lambda: fail(OSError())).exception(), OSError)


# -- Twisted's family -----------------------------------------------------------------------------------------------


def test_add_callback_appends_to_the_chain():
    """`d.addCallback(a); d.addCallback(b)`: b gets a's result; `d` keeps its own."""
    future = Future()
    future.addCallback(increment)
    future.addCallback(work.double)
    future.set_result(1)

    assert future.result() == 1
    assert future.final.result() == 4


def test_add_callback_returns_the_new_final():
    """The fluent form means the same, and works on whichever future of the chain."""
    future = Future()
    last = future.addCallback(increment).addCallback(work.double)

    assert future.final is last
    assert future.addCallback(str) is future.final is last.final
    future.set_result(1)
    assert future.final.result() == "4"


def test_add_callback_after_settling_runs_at_once():
    """A callback on a settled chain runs in the attaching thread, at once, even inside a handler."""
    order = []

    def outer(value):
        succeed(0).addCallback(lambda _: order.append("inner"))
        order.append("outer")
        return value

    succeed(1).addCallback(outer)

    assert order == ["inner", "outer"]


def test_arguments_go_behind_the_result():
    """All four methods pass further arguments on."""
    assert succeed(1).addCallback(lambda *a, **k: (a, k), 2, x=3).result() == ((1, 2), {"x": 3})
    args, kwargs = fail(KeyError()).addErrback(lambda *a, **k: (a, k), 2, x=3).result()
    assert isinstance(args[0], Failure)
    assert (args[1:], kwargs) == ((2,), {"x": 3})
    assert succeed(1).addBoth(lambda *a: a, 2).result() == (1, 2)
    pair = succeed(1).addCallbacks(lambda *a, **k: (a, k), None, (2,), {"x": 3})
    assert pair.result() == ((1, 2), {"x": 3})
    pair = fail(KeyError()).addCallbacks(None, lambda _, *a, **k: (a, k), (), {}, (2,), {"x": 3})
    assert pair.result() == ((2,), {"x": 3})


def test_errback_gets_a_failure_and_recovers():
    """An errback gets a `Failure`; what it returns is a result."""
    assert fail(KeyError("k")).addErrback(lambda failure: failure.trap(KeyError)).result() is KeyError


def test_returning_a_failure_fails():
    """Returning a `Failure` is Twisted's way to raise again, in both families."""
    error = KeyError("k")

    assert fail(error).addErrback(lambda failure: failure).exception() is error
    assert succeed(1).then(lambda _: Failure(error)).exception() is error


def test_concurrent_attachers_form_one_line():
    """Callbacks attached by several threads to one chain at once all run, one after the other."""
    future = Future()
    barrier = threading.Barrier(4)

    def attach():
        barrier.wait()
        for _ in range(500):
            future.addCallback(increment)

    threads = [threading.Thread(target=attach) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        future.set_result(0)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert future.final.result() == 2000


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attach",
    [
        lambda future: future.then(3),
        lambda future: future.then(increment, 3),
        lambda future: future.catch(3),
        lambda future: future.catch(KeyError, 3),
        lambda future: future.finally_(3),
        lambda future: future.addCallback(3),
        lambda future: future.addErrback(3),
        lambda future: future.addBoth(3),
        lambda future: future.addCallbacks(3),
        lambda future: future.addCallbacks(increment, 3),
        lambda future: future.add_done_callback(3),
        lambda future: future.then(increment, on=3),
        lambda future: future.catch(3, work.recover),
        lambda future: future.catch((), work.recover),
        lambda future: future.set_exception(3),
        lambda _: wrap_future(3),
        lambda _: fail(3),
    ],
)
def test_bad_input_is_named_at_the_call(attach):
    """What is neither callable nor None, no executor, no future, no exception: a TypeError that names it."""
    with pytest.raises(TypeError, match=r"not (3|\(\))|3 was given"):
        attach(Future())


def test_catch_takes_one_or_two():
    """`catch()` and `catch(a, b, c)` say what the two forms are."""
    for arguments in ((), (1, 2, 3)):
        with pytest.raises(TypeError, match="catch\\(handler\\)"):
            Future().catch(*arguments)


# -- flattening -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", [Future, cf.Future])
def test_returned_futures_are_flattened(kind, late):
    """A handler that returns any future gives its stage that outcome, settled already or later."""
    inner = kind()
    if not late:
        inner.set_result(7)
    for attach in (Future.then, Future.addCallback):
        source = Future()
        stage = attach(source, lambda _: inner)
        source.set_result(None)
        if late:
            assert not stage.done()
        assert late or stage.result(0) == 7
    if late:
        stages = [succeed(0).then(lambda _: inner), succeed(0).addCallback(lambda _: inner)]
        inner.set_result(7)
        assert [stage.result(0) for stage in stages] == [7, 7]


def test_which_future_is_meant():
    """In the promise family the very future that is returned, in Twisted's the end of its chain."""
    inner = succeed(1)
    inner.addCallback(increment)

    assert succeed(0).then(lambda _: inner).result() == 1
    assert succeed(0).addCallback(lambda _: inner).result() == 2


def test_cycles_fail():
    """A future that would wait for itself fails with a TypeError that names the cycle."""
    source = Future()
    first = source.then(lambda _: second)
    second = first.then(increment)
    source.set_result(0)

    with pytest.raises(TypeError, match="cycle"):
        first.result(0)
    with pytest.raises(TypeError, match="cycle"):
        second.result(0)


def test_cycle_through_a_chain():
    """A callback that returns its own chain's end fails, too."""
    source = Future()
    source.addCallback(lambda _: source)
    source.set_result(0)

    assert isinstance(source.final.exception(0), TypeError)


def test_a_late_dependent_of_a_forwarded_stage():
    """Who attaches to a stage that waits for a returned future gets its outcome, and keeps it alive."""
    inner, seen = Future(), []
    stage = succeed(0).then(lambda _: inner)
    stage.then(seen.append)
    stage.then(seen.append)
    stage.add_done_callback(lambda future: seen.append(future.result()))
    del stage
    gc.collect()
    inner.set_result(7)

    assert seen == [7, 7, 7]


def test_dropped_stages_leave_no_trace_on_a_long_lived_future():
    """Stages that wait for a returned future and are dropped take their entries along."""
    inner = Future()
    for _ in range(1000):
        succeed(0).then(lambda _: inner)
    gc.collect()

    assert sum(len(held) if isinstance(held, dict) else 1 for held in inner._dependents) < 5
    inner.set_result(0)


# -- order ----------------------------------------------------------------------------------------------------------


def test_handlers_run_in_the_order_they_were_attached():
    """Many handlers of one future, of every kind, run in order."""
    future, order = Future(), []
    for number in range(10):
        if number % 3:
            future.then(lambda _, number=number: order.append(number))
        else:
            future.add_done_callback(lambda _, number=number: order.append(number))
    future.set_result(None)

    assert order == list(range(10))


def test_a_handler_attached_while_handlers_run_comes_after_them():
    """Attached from inside a handler, it waits for the others."""
    future, order = Future(), []

    def first(_):
        future.then(lambda _: order.append("late"))
        order.append("first")

    future.then(first)
    future.then(lambda _: order.append("second"))
    future.set_result(None)

    assert order == ["first", "second", "late"]


def test_inline_stage_inside_a_handler_starts_after_it():
    """A promise-family stage on a settled future starts when the running handler has returned."""
    order = []

    def outer(_):
        succeed(0).then(lambda _: order.append("inner"))
        order.append("outer")

    succeed(0).then(outer)

    assert order == ["outer", "inner"]


def test_result_inside_a_handler_does_not_wait_for_what_was_put_off():
    """A handler that blocks on a stage of its own thread makes it run."""
    assert succeed(1).then(lambda value: succeed(value).then(increment).result(1)).result(1) == 2


def test_nested_settling_is_never_too_deep():
    """A future settled in a handler of one settled in a handler ... costs no stack."""
    futures = [Future() for _ in range(5000)]
    for one, following in itertools.pairwise(futures):
        one.add_done_callback(lambda _, following=following: following.set_result(None))
    futures[0].set_result(None)

    assert futures[-1].done()


# -- stack and memory -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("attach", [Future.then, Future.addCallback])
def test_a_million_stages_before_settling(attach):
    """A million attached stages need no stack."""
    first = last = Future()
    for _ in range(MILLION):
        last = attach(last, increment)
    first.set_result(0)

    assert last.result(0) == MILLION


@pytest.mark.slow
@pytest.mark.parametrize("attach", [Future.then, Future.addCallback])
def test_a_million_stages_on_a_settled_future(attach):
    """A million stages, each attached to a settled future, need no stack."""
    last = succeed(0)
    for _ in range(MILLION):
        last = attach(last, increment)

    assert last.result(0) == MILLION


@pytest.mark.slow
def test_nested_returned_futures():
    """100,000 futures, each returned by the handler of the one before, settle whichever comes first."""
    count = 100_000
    sources = [Future() for _ in range(count)]
    stages = [None] * count
    stages[-1] = sources[-1]
    for number in range(count - 1):
        stages[number] = sources[number].then(lambda _, following=number + 1: stages[following])
    for source in sources[:-1]:
        source.set_result(None)
    sources[-1].set_result("end")

    assert stages[0].result(0) == "end"
    assert all(stage.result(0) == "end" for stage in stages)


def test_recursion_through_returned_futures_needs_constant_memory():
    """`return` of a new chain from a handler, again and again, costs neither stack nor memory."""

    def run(count):
        def step(number):
            return number if number == count else succeed(number + 1).then(step)

        tracemalloc.start()
        try:
            assert succeed(0).then(step).result(0) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    run(100)
    assert min(run(20_000) for _ in range(3)) < 2 * run(1_000) + 50_000  # other threads may allocate meanwhile


@pytest.mark.slow
def test_hundreds_of_thousands_of_times_in_a_loop():
    """As many steps of that recursion."""
    many = 300_000

    def step(number):
        return number if number == many else succeed(number + 1).then(step)

    assert succeed(0).then(step).result(0) == many


def test_intermediate_results_are_free_to_go():
    """What has run is dropped: handlers, links, and results that nobody can ask for any more."""

    class Result:
        pass

    def make(_):
        result = Result()
        refs.append(weakref.ref(result))
        return result

    refs, gc_was = [], gc.isenabled()
    gc.disable()
    try:
        source = Future()
        last = source.then(make).then(make).addCallback(make).addCallback(lambda _: 1)
        source.set_result(None)
        assert last.result(0) == 1
        assert [ref() for ref in refs] == [None] * 3
    finally:
        if gc_was:
            gc.enable()


def test_failed_tasks_are_no_cyclic_garbage():
    """A failed task goes with its last reference, although its error has a traceback."""
    with ThreadPoolExecutor(1) as pool:
        gc.disable()
        try:
            future = pool.submit(work.boom)
            with pytest.raises(ValueError, match="boom"):
                future.result()
            pool.submit(int).result()
            ref = weakref.ref(future)
            del future
            assert ref() is None
        finally:
            gc.enable()


# -- cancelling -----------------------------------------------------------------------------------------------------


def test_cancel_settles_at_once_and_goes_down():
    """A pending future is cancelled at once; error handlers, addBoth and finally_ see it."""
    seen = []
    future = Future()
    future.then(None, seen.append)
    future.finally_(lambda: seen.append("finally"))
    future.addBoth(lambda failure: seen.append(failure.type))

    assert future.cancel()
    assert future.cancelled()
    assert isinstance(seen[0], CancelledError)
    assert seen[1:] == ["finally", CancelledError]
    assert future.cancel()


def test_cancel_goes_up_when_nobody_else_consumes():
    """A parent nobody else consumes is cancelled, one with another live branch goes on."""
    source = Future()
    middle = source.then(increment)
    one, two = middle.then(increment), middle.then(increment)

    one.cancel()
    assert not middle.cancelled()
    two.cancel()
    assert middle.cancelled()
    assert source.cancelled()


@pytest.mark.parametrize("consume", [lambda f: f.then(increment), lambda f: f.add_done_callback(print)])
def test_other_consumers_keep_a_parent(consume, capsys):
    """A branch or a done callback is a consumer."""
    source = Future()
    consume(source)
    source.then(increment).cancel()

    assert not source.cancelled()
    source.set_result(0)


def test_a_blocked_thread_is_a_consumer():
    """A thread that waits in result() keeps the future from being cancelled from below."""
    source, results = Future(), []
    thread = threading.Thread(target=lambda: results.append(source.result(30)))
    thread.start()
    while "dependent" not in repr(source):
        pass
    source.then(increment).cancel()
    source.set_result(5)
    thread.join()

    assert results == [5]


def test_shield_stops_the_way_up():
    """Cancelling a shield leaves its parent alone; the outcome still passes through it."""
    source = Future()
    source.shield().cancel()

    assert not source.cancelled()
    assert succeed(1).shield().result() == 1


def test_cancel_reaches_the_inner_future():
    """Cancelling a stage cancels the returned future it waits for, unless somebody else uses that."""
    inner, shared = Future(), Future()
    shared.then(increment)
    succeed(0).then(lambda _: inner).cancel()
    succeed(0).then(lambda _: shared).cancel()

    assert inner.cancelled()
    assert not shared.cancelled()


def test_a_cancelled_finally_still_cleans_up():
    """The function of a finally_ that is cancelled itself runs once."""
    calls = []
    source = Future()
    source.finally_(lambda: calls.append(1)).cancel()

    assert calls == [1]
    assert source.cancelled()


def test_cancel_of_a_settled_future():
    """A settled future cannot be cancelled."""
    assert not succeed(1).cancel()


# -- every way of failing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), work.Falsy(), BaseException("b")])
def test_any_exception_fails_the_stage_and_no_more(error):
    """Whatever a handler raises is an outcome, false exceptions included."""

    def raise_it(_):
        raise error

    assert succeed(1).then(raise_it).then(increment).catch(lambda caught: caught).result() is error


def test_false_exceptions_are_raised():
    """`result()` raises an exception that is false, and `exception()` returns it."""
    future = fail(work.Falsy("falsy"))

    assert isinstance(future.exception(), work.Falsy)
    with pytest.raises(work.Falsy):
        future.result()


def test_values_with_odd_methods():
    """Values whose `__eq__` and `__bool__` raise pass through untouched."""

    class Odd:
        def __eq__(self, other):
            raise RuntimeError("eq")

        def __bool__(self):
            raise RuntimeError("bool")

        __hash__ = None

    odd = Odd()
    source = Future()
    stage = source.then(lambda value: value).addCallback(lambda value: value)
    source.set_result(odd)

    assert stage.result(0) is odd
    assert cf.wait([stage]).done == {stage}


def test_keyboard_interrupt_in_the_main_thread_goes_on():
    """A KeyboardInterrupt of a handler settles the chain, and propagates in the main thread."""

    def interrupt(_):
        raise KeyboardInterrupt

    source = Future()
    stage = source.then(interrupt)
    after = stage.then(None, type)
    with pytest.raises(KeyboardInterrupt):
        source.set_result(0)

    assert isinstance(stage.exception(0), KeyboardInterrupt)
    assert after.result(0) is KeyboardInterrupt


def test_a_lost_producer_fails_its_dependents():
    """A future dropped unsettled by its producer takes its dependents out of their misery."""
    source = Future()
    stage = source.then(increment)
    del source
    gc.collect()

    assert isinstance(stage.exception(10), LostFutureError)


def test_a_lost_producer_of_a_subclass():
    """User subclasses tell their dependents, too."""

    class Mine(Future):
        pass

    source = Mine()
    stage = source.then(increment)
    del source
    gc.collect()

    assert isinstance(stage.exception(10), LostFutureError)


def test_a_lost_foreign_producer():
    """A standard future dropped unsettled fails what stands for it."""
    foreign = cf.Future()
    stage = wrap_future(foreign).then(increment)
    del foreign
    gc.collect()

    assert isinstance(stage.exception(10), LostFutureError)


def test_errors_of_done_callbacks_are_logged(caplog):
    """Whatever a done callback raises is logged, and the others run."""
    future, seen = Future(), []
    future.add_done_callback(work.boom)
    future.add_done_callback(work.leave)
    future.add_done_callback(seen.append)
    future.set_result(0)

    assert seen == [future]
    assert caplog.text.count("exception calling callback") == 2


def test_a_filter_that_raises_fails_the_stage():
    """An exception class whose instance check raises fails the stage with that error."""

    class Meta(type):
        def __instancecheck__(cls, instance):
            raise OSError("check")

    class Odd(Exception, metaclass=Meta):
        pass

    assert isinstance(fail(KeyError()).catch(Odd, work.recover).exception(), OSError)


# -- the standard interface -------------------------------------------------------------------------------------------


def test_a_producers_way():
    """set_running_or_notify_cancel, set_result, and the states between."""
    future = Future()
    assert not future.running()
    assert future.set_running_or_notify_cancel()
    assert future.running()
    assert not future.cancel()
    with pytest.raises(InvalidStateError):
        future.set_running_or_notify_cancel()
    future.set_result(1)
    assert not future.running()
    with pytest.raises(InvalidStateError, match="finished already"):
        future.set_result(2)
    with pytest.raises(InvalidStateError, match="finished already"):
        future.set_exception(KeyError())


def test_a_cancelled_future_is_not_set_running():
    """set_running_or_notify_cancel returns False for it."""
    future = Future()
    future.cancel()

    assert not future.set_running_or_notify_cancel()


def test_set_exception_takes_a_class():
    """A class is instantiated, as raise does."""
    future = Future()
    future.set_exception(KeyError)

    assert isinstance(future.exception(), KeyError)


def test_result_times_out():
    """result and exception raise TimeoutError in time; the future goes on."""
    future = Future()
    with pytest.raises(TimeoutError):
        future.result(0)
    with pytest.raises(TimeoutError):
        future.exception(0.001)
    future.set_result(1)

    assert future.result(0) == 1
    assert future.exception() is None


def test_cancelled_raises():
    """result and exception of a cancelled future raise CancelledError."""
    future = Future()
    future.cancel()

    with pytest.raises(CancelledError):
        future.result()
    with pytest.raises(CancelledError):
        future.exception()


@pytest.mark.parametrize("settle", [lambda f: f.set_result(1), lambda f: f.set_exception(KeyError()), Future.cancel])
def test_wait_and_as_completed_wake(settle):
    """wait(), as_completed() and result() wake on every way of settling."""
    future, stage = Future(), None
    stage = future.then(increment)
    done = []
    threads = [
        threading.Thread(target=lambda: done.append(len(cf.wait([future, stage], 30).done))),
        threading.Thread(target=lambda: done.append(len(list(cf.as_completed([future, stage], 30))))),
    ]
    for thread in threads:
        thread.start()
    while len(future._waiters) < 2:
        pass
    settle(future)
    for thread in threads:
        thread.join()

    assert done == [2, 2]


def test_wait_on_a_settled_future():
    """A bell that is asked for late has told."""
    assert cf.wait([succeed(1), fail(KeyError())]).not_done == set()


def test_asyncio_wraps_it():
    """asyncio.wrap_future takes our futures as they are."""

    async def main():
        return await asyncio.wrap_future(succeed(1).then(increment))

    assert asyncio.run(main()) == 2


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Future, "<Future pending on INLINE>"),
        (lambda: succeed(1), "<Future finished returned int on INLINE>"),
        (lambda: fail(KeyError()), "<Future finished raised KeyError on INLINE>"),
        (lambda: HELD.shield(), "<Future stage pass pending on INLINE>"),  # noqa: PLW0108  # it is made below
        (lambda: HELD.then(increment), "<Future stage increment pending on INLINE>"),
        (lambda: HELD.then(increment, work.recover), "<Future stage increment/recover pending on INLINE>"),
    ],
)
def test_repr(make, expected):
    """The repr tells stage, state and executor."""
    assert repr(make()) == expected


HELD = Future()


def test_repr_counts_dependents():
    """The repr tells how many wait, and a cancelled future says so."""
    future = Future()
    future.then(increment)
    assert repr(future) == "<Future pending on INLINE, 1 dependent>"
    future.then(increment)
    future.then(increment)
    assert repr(future) == "<Future pending on INLINE, 3 dependents>"
    future.cancel()
    assert repr(future) == "<Future cancelled on INLINE>"


# -- foreign futures ------------------------------------------------------------------------------------------------


def test_wrap_future_adopts():
    """wrap_future gives the outcome of a standard future, and returns ours as they are."""
    ours, foreign = Future(), cf.Future()
    assert wrap_future(ours) is ours
    adopted = wrap_future(foreign)
    stage = adopted.then(increment)
    assert foreign.set_running_or_notify_cancel()
    assert adopted.running()
    foreign.set_result(1)

    assert stage.result(5) == 2


@pytest.mark.parametrize("error", [KeyError("k"), work.Falsy()])
def test_wrap_future_adopts_errors(error):
    """Errors come through as they are."""
    foreign = cf.Future()
    foreign.set_exception(error)

    assert wrap_future(foreign).exception(0) is error


def test_wrap_future_and_cancellation():
    """Cancellation goes both ways."""
    down, up = cf.Future(), cf.Future()
    adopted = wrap_future(down)
    down.cancel()
    wrap_future(up).then(increment).cancel()

    assert adopted.cancelled()
    assert up.cancelled()


def test_wrap_future_whose_cancel_raises():
    """A foreign future that cannot be cancelled harms nobody."""

    class Rigid(cf.Future):
        def cancel(self):
            raise NotImplementedError

    foreign = Rigid()
    adopted = wrap_future(foreign)

    assert adopted.cancel()
    foreign.set_result(0)


def test_callbacks_never_run_on_an_event_loop_thread():
    """A foreign future settled on a loop's thread hands the callbacks to a callback thread."""
    foreign, names = cf.Future(), Future()
    wrap_future(foreign).then(lambda _: names.set_result(threading.current_thread().name))

    async def main():
        foreign.set_result(0)

    asyncio.run(main())

    assert names.result(10).startswith("futurechain-callback")


# -- INLINE ---------------------------------------------------------------------------------------------------------


def test_on_moves_this_stage_and_all_after():
    """`on=` sticks, across error handlers too."""
    here = threading.current_thread()
    with ThreadPoolExecutor(1) as pool:
        moved = succeed(0).then(lambda _: threading.current_thread(), on=pool)
        after = moved.catch(print).then(lambda _: threading.current_thread())
        back = after.then(lambda _: threading.current_thread(), on=INLINE)

        assert moved.result(10) is after.result(10) is not here
        assert back.result(10) in (here, after.result())


def test_inline_is_one_object():
    """INLINE pickles as itself, and submit refuses what is no function."""
    assert pickle.loads(pickle.dumps(INLINE)) is INLINE
    with pytest.raises(TypeError, match="not nothing"):
        INLINE.submit()


def test_a_foreign_future_that_lies():
    """One that raises from its own methods fails what stands for it."""

    class Lying(cf.Future):
        def exception(self, timeout=None):
            raise OSError("lost")

    foreign = Lying()
    ours = wrap_future(foreign)
    foreign.set_result(0)

    assert isinstance(ours.exception(10), OSError)


def test_plan_errors_on_a_pool():
    """A filter that raises fails a stage on a pool, too."""

    class Meta(type):
        def __instancecheck__(cls, instance):
            raise OSError("check")

    class Odd(Exception, metaclass=Meta):
        pass

    with ThreadPoolExecutor(1) as pool:
        assert isinstance(fail(KeyError()).catch(Odd, work.recover, on=pool).exception(10), OSError)


def test_ctrl_c_in_a_stage_on_a_settled_future():
    """It propagates in the main thread, from the call that attached."""

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        succeed(1).then(interrupt)
    with pytest.raises(KeyboardInterrupt):
        succeed(1).addBoth(interrupt)


def test_twisted_recursion_is_never_too_deep():
    """Callbacks that attach to settled futures in callbacks, thousands deep, cost no stack."""
    seen = []

    def again(number):
        seen.append(number)
        if number:
            succeed(number - 1).addCallback(again)

    succeed(3000).addCallback(again)

    assert len(seen) == 3001


def hectic(rounds, one, two, check):
    """Run `one` and `two` on the same new things at the same moment, many times."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(rounds):
            things, barrier = {}, threading.Barrier(2)
            one_ready = one(things)
            two_ready = two(things)
            thread = threading.Thread(target=lambda b=barrier, r=one_ready: (b.wait(), r()))
            thread.start()
            barrier.wait()
            two_ready()
            thread.join()
            check(things)
    finally:
        sys.setswitchinterval(interval)


def test_returning_against_settling():
    """A future settled in the very moment in which a handler returns it loses nobody."""

    def one(things):
        things["inner"] = Future()
        return lambda: things["inner"].set_result(7)

    def two(things):
        def run():
            things["stage"] = succeed(0).then(lambda _: things["inner"]).then(increment)

        return run

    hectic(1500, one, two, lambda things: things["stage"].result(10))


def test_returning_against_cancelling():
    """A stage cancelled in the moment in which it begins to wait for a returned future is settled, one way."""

    def one(things):
        things["source"], things["inner"] = Future(), Future()
        things["stage"] = things["source"].then(lambda _: things["inner"])
        things["source"].then(increment)  # another consumer: the source itself is not cancelled
        return lambda: things["source"].set_result(0)

    def two(things):
        return things["stage"].cancel

    def check(things):
        things["inner"].cancel()
        assert things["stage"].done()

    hectic(1500, one, two, check)


def test_waiting_against_settling():
    """A thread that begins to wait in the moment of the settling is woken; wait() and result() alike."""

    def one(things):
        things["future"] = Future()
        return lambda: things["future"].set_result(1)

    def wait_or_read(things):
        def run():
            assert things["future"].result(10) == 1
            assert cf.wait([things["future"]], 10).done

        return run

    hectic(1500, one, wait_or_read, lambda things: None)


def test_many_attachers_against_settling():
    """Dependents of every kind, attached from another thread in the moment of the settling, all hear of it."""

    def one(things):
        things["future"], things["heard"] = Future(), []
        return lambda: things["future"].set_result(1)

    def two(things):
        def run():
            future, heard = things["future"], things["heard"]
            for _ in range(4):
                future.then(heard.append)
                future.add_done_callback(heard.append)
                future.addBoth(heard.append)

        return run

    hectic(800, one, two, lambda things: things["future"].final.exception(10) or check_heard(things))


def check_heard(things):
    while len(things["heard"]) < 12:
        pass


def test_timeout_against_settling():
    """A future settled in the moment its timeout is set leaves no timer and no doubt."""

    def one(things):
        things["future"] = Future()
        return lambda: things["future"].set_result(1)

    def two(things):
        def run():
            things["stage"] = things["future"].timeout(60)

        return run

    hectic(500, one, two, lambda things: things["stage"].result(10))


@pytest.mark.parametrize("make", [Future, lambda: succeed(1), lambda: Future().then(str)])
def test_a_future_does_not_travel(make):
    """Neither pickle nor copy takes one: a copy could never be settled."""
    future = make()
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="send its result instead"):
            copier(future)


def test_catch_wants_a_handler():
    """An exception class alone is a handler that was forgotten."""
    with pytest.raises(TypeError, match="ValueError and no handler"):
        succeed(1).catch(ValueError)


@pytest.mark.parametrize("on", [None, "pool"])
def test_an_error_in_an_error_handler_keeps_the_one_before(on, pool):
    """As in an except clause, in its ``__context__``."""
    first = KeyError("first")
    root = fail(first)
    stages = [
        root.catch(lambda error: 1 / 0, on=pool if on else None),
        root.then(None, lambda error: 1 / 0, on=pool if on else None),
        fail(first).addErrback(lambda failure: 1 / 0),
    ]
    for stage in stages:
        assert stage.exception(10).__context__ is first


def test_a_callable_that_answers_no_question():
    """A function whose attributes raise is called all the same, and its stage is settled."""

    class Sulking:
        def __call__(self, value):
            return value + 1

        def __getattribute__(self, name):
            raise RuntimeError(name)

    root = Future()
    inner = Future()
    stages = [root.then(Sulking()), root.then(Sulking(), lambda error: None), root.addCallback(Sulking())]
    waiting = root.then(lambda _: inner.then(Sulking()))
    root.set_result(1)
    inner.set_result(1)
    assert [stage.result(0) for stage in (*stages, waiting)] == [2] * 4


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


@pytest.mark.parametrize("attach", [
    lambda root, fn: root.then(fn),
    lambda root, fn: root.then(fn, fn),
    lambda root, fn: root.finally_(lambda: fn(0)),
    lambda root, fn: root.addCallback(fn),
    lambda root, fn: root.catch(fn),
])
def test_an_exception_that_forbids_to_be_changed(attach, pool):
    """It fails its stage like any other."""

    def broken(_):
        raise Frozen(3)

    for root in (Future(), fail(ValueError()), succeed(1), pool.submit(int)):
        stage = attach(root, broken)
        if type(root) is not type(stage) and not root.done():
            root.set_exception(KeyError())
        expected = stage.exception(10)
        assert expected is None or isinstance(expected, (Frozen, ValueError, KeyError))
    assert pool.submit(broken, 0).exception(10) == Frozen(3)


def test_ctrl_c_behind_a_combination_leaves_its_source_closed():
    """What attaches to the source afterwards runs."""
    source = Future()

    def interrupted(_):
        raise KeyboardInterrupt

    gather(source).then(interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.set_result(1)
    assert source.then(str).result(0) == "1"


def test_ctrl_c_while_cancelling_reaches_the_caller_after_all_is_cancelled():
    """The parent that nobody else consumes is cancelled as well."""
    parent = Future()
    stage = parent.then(str)

    def interrupted(*_):
        raise KeyboardInterrupt

    stage.catch(interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.cancel()
    assert parent.cancelled()


def test_ctrl_c_in_a_done_callback_of_a_settled_future():
    """It reaches the caller there and then."""

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        succeed(1).add_done_callback(interrupted)
    assert succeed(1).then(str).result(0) == "1"


def test_a_handler_may_wait_for_what_its_sibling_has_made_ready():
    """The stages that are about to run in this thread are run before it blocks."""
    root, seen = Future(), []
    last = root.then(str).then(len)
    root.then(lambda _: seen.append(last.result(10)))
    root.set_result(123)
    assert seen == [3]


def test_a_handler_attached_while_another_runs_comes_after_it():
    """Also if that one was the only one."""
    root, order = Future(), []

    def first(_):
        root.then(lambda _: order.append("late"))
        order.append("first")

    root.then(first)
    root.set_result(1)
    assert order == ["first", "late"]


@pytest.mark.parametrize("on_pool", [False, True])
def test_the_function_of_a_cancelled_finally_runs_once(on_pool, pool):
    """Whether it was cancelled before its turn, or while it waits for what the function returned."""
    calls, inner = [], Future()
    root = Future()

    def clean_up():
        calls.append(1)
        return inner

    stage = root.finally_(clean_up, on=pool if on_pool else None)
    root.set_result(1)
    while not calls:
        pass
    while stage.running():
        pass
    assert stage.cancel()
    assert calls == [1]

    with ThreadPoolExecutor(1) as busy:
        gate = threading.Event()
        busy.submit(gate.wait, 10)
        queued = succeed(1).finally_(lambda: calls.append(2), on=busy)
        assert queued.cancel()
        gate.set()
    assert calls == [1, 2]


def test_a_finally_stage_that_is_given_a_result():
    """By its consumer, before its parent is settled: it has that result."""
    source = Future()  # held, or the stage would be told that its producer is gone
    stage = source.finally_(lambda: None)
    stage.set_result(5)
    assert stage.result(0) == 5


def test_a_foreign_future_has_one_stand_in():
    """Who adopts it twice, and gives one up, does not hurt the other; nothing piles up in it."""
    foreign = cf.Future()
    used = wrap_future(foreign).then(str)
    for _ in range(100):
        race(foreign, succeed(1))
    assert not foreign.cancelled()
    assert len(foreign._done_callbacks) == 1
    foreign.set_result(2)
    assert used.result(0) == "2"

    running = cf.Future()
    running.set_running_or_notify_cancel()
    for _ in range(100):
        wrap_future(running).cancel()
    assert len(running._done_callbacks) == 1
    again = wrap_future(running)
    running.set_result(3)
    assert again.result(0) == 3


def test_cancelling_branches_costs_the_same_for_many():
    """Whether anybody else consumes the parent is asked without looking at all of them."""

    def steps(count):
        root = Future()
        branches = [root.then(str) for _ in range(count)]
        calls = 0

        def trace(frame, event, arg):
            nonlocal calls
            calls += event == "call"

        before = sys.getprofile()
        sys.setprofile(trace)
        try:
            branches[5].cancel()
        finally:
            sys.setprofile(before)
        return calls

    assert steps(1000) == steps(10)
