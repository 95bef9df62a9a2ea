"""gather, race, first, some, reduce: on any mix of futures, with consumer-counted cancellation."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import sys
import threading
import tracemalloc

import pytest

import work
from futurechain import Future, fail, first, gather, race, reduce, some, succeed


@pytest.fixture(params=[Future, cf.Future])
def kind(request):
    return request.param


# -- gather ---------------------------------------------------------------------------------------------------------


def test_gather_gives_all_results_in_order(kind):
    """A tuple, in the order of the arguments, whatever the order of settling."""
    one, two = kind(), kind()
    both = gather(one, two, succeed(3), one)
    two.set_result(2)
    assert not both.done()
    one.set_result(1)

    assert both.result(5) == (1, 2, 3, 1)


def test_gather_of_nothing():
    """It is an empty tuple, at once."""
    assert gather().result(0) == ()


def test_gather_fails_with_the_first_error(kind):
    """And cancels what nobody else consumes."""
    error, pending, shared, failing = KeyError("k"), kind(), Future(), kind()
    shared.then(print)
    all_of_them = gather(pending, shared, failing)
    failing.set_exception(error)

    assert all_of_them.exception(5) is error
    assert pending.cancelled()
    assert not shared.cancelled()


def test_gather_returns_exceptions():
    """With return_exceptions, an exception stands where a result would."""
    error, source = KeyError("k"), Future()
    both = gather(fail(error), source, return_exceptions=True)
    source.set_result(2)

    assert both.result(0) == (error, 2)


def test_cancelling_a_gather_cancels_its_parts():
    """Those that nobody else consumes; duplicates count once they are all gone."""
    one, shared = Future(), Future()
    shared.then(print)
    both = gather(one, one, shared)
    both.cancel()

    assert one.cancelled()
    assert not shared.cancelled()


def test_cancelled_parts_cancel_the_whole():
    """A cancelled part is an error like others."""
    one = Future()
    both = gather(one, Future())
    one.cancel()

    assert both.cancelled()


def test_gather_from_several_threads():
    """Parts settled by several threads at once give one outcome, with all results."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            parts, barrier = [Future() for _ in range(4)], threading.Barrier(4)
            whole = gather(*parts)

            def settle(part, barrier=barrier):
                barrier.wait()
                part.set_result(1)

            threads = [threading.Thread(target=settle, args=(part,)) for part in parts]
            for thread in threads:
                thread.start()
            assert whole.result(10) == (1, 1, 1, 1)
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)


def test_gather_of_many():
    """100,000 futures are no problem."""
    parts = [Future() for _ in range(100_000)]
    whole = gather(*parts)
    for part in parts:
        part.set_result(1)

    assert sum(whole.result(0)) == 100_000


@pytest.mark.parametrize("combine", [gather, race, first, lambda *futures: some(1, *futures)])
def test_what_is_no_future_is_refused(combine):
    """A TypeError at the call names it."""
    with pytest.raises(TypeError, match="not 3"):
        combine(3)


def test_a_cycle_through_a_gather():
    """A stage that returns a combination of itself fails."""
    source = Future()
    stage = source.then(lambda _: gather(succeed(1), after))
    after = stage.then(print)
    source.set_result(0)

    assert isinstance(stage.exception(0), TypeError)


# -- race, first, some ------------------------------------------------------------------------------------------------


def test_race_takes_the_first_to_settle(kind):
    """Result or error; the losers are cancelled."""
    one, two = kind(), kind()
    winner = race(one, two)
    two.set_result(2)

    assert winner.result(5) == 2
    assert one.cancelled()
    assert isinstance(race(Future(), fail(KeyError())).exception(0), KeyError)


def test_race_with_a_settled_one_cancels_the_rest():
    """Attached or not."""
    before, after = Future(), Future()

    assert race(before, succeed(1), after).result(0) == 1
    assert before.cancelled()
    assert after.cancelled()


def test_first_takes_the_first_success(kind):
    """Errors are passed over as long as there is hope."""
    one, two, three = kind(), kind(), kind()
    winner = first(one, two, three)
    one.set_exception(KeyError())
    two.set_result(2)

    assert winner.result(5) == 2
    assert three.cancelled()


def test_first_of_failures_has_them_all_in_order():
    """An ExceptionGroup, in the order of the arguments."""
    one, two = Future(), Future()
    winner = first(one, two)
    two.set_exception(OSError())
    one.set_exception(KeyError())
    error = winner.exception(0)

    assert isinstance(error, ExceptionGroup)
    assert [type(part) for part in error.exceptions] == [KeyError, OSError]


def test_some_takes_the_first_n():
    """As they come; fails when there cannot be so many any more."""
    parts = [Future() for _ in range(4)]
    two = some(2, *parts)
    parts[2].set_result("c")
    parts[1].set_exception(KeyError())
    parts[0].set_result("a")

    assert two.result(0) == ["c", "a"]
    assert parts[3].cancelled()
    assert some(0).result(0) == []
    assert isinstance(some(2, fail(KeyError()), Future()).exception(0), ExceptionGroup)


@pytest.mark.parametrize("call", [race, first, lambda: some(1), lambda: some(-1), lambda: some(2, succeed(1))])
def test_of_nothing(call):
    """What could never settle is a ValueError at once."""
    with pytest.raises(ValueError, match="never"):
        call()


@pytest.mark.parametrize("given", ["1", True, 1.0])
def test_some_wants_a_whole_number(given):
    """Anything else is a TypeError that names it."""
    with pytest.raises(TypeError, match="whole number"):
        some(given, succeed(1))


def test_racing_a_long_lived_future_leaves_no_trace():
    """A million races against it leave nothing behind."""
    lasting = Future()
    lasting.then(print)

    def measure(times):
        for _ in range(times):
            race(lasting, succeed(1))
            loser = Future()
            both = race(lasting, loser)
            loser.set_result(0)
            both.result(0)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = measure(100)
        after = measure(5000)
    finally:
        tracemalloc.stop()

    assert after - before < 5000
    assert not lasting.done()


# -- reduce ---------------------------------------------------------------------------------------------------------


def test_reduce_folds_in_order():
    """fn(value so far, next result); it may return futures."""
    parts = [Future() for _ in range(3)]
    plain = reduce(lambda total, part: total + part, parts, "")
    deep = reduce(lambda total, part: succeed(total + part), parts, ">")
    for part, letter in reversed(list(zip(parts, "abc", strict=True))):
        part.set_result(letter)

    assert plain.result(0) == "abc"
    assert deep.result(0) == ">abc"
    assert reduce(work.add, [], 5).result(0) == 5


def test_reduce_of_many_futures_needs_no_stack():
    """A fold whose function returns futures is a loop."""
    assert reduce(lambda total, part: succeed(total + part), [succeed(1)] * 20_000, 0).result(0) == 20_000


def test_reduce_wants_a_function():
    """Anything else is a TypeError that names it."""
    with pytest.raises(TypeError, match="not 3"):
        reduce(3, [], 0)


@pytest.mark.parametrize("combine", [gather, race, first])
def test_a_list_instead_of_futures_is_refused(combine):
    """The error names the function and shows the right call."""
    with pytest.raises(TypeError, match=rf"{combine.__name__}\(\*futures\)"):
        combine([succeed(1)])


@pytest.mark.parametrize("futures", [1, succeed(1)])
def test_reduce_wants_a_list(futures):
    """Of futures."""
    with pytest.raises(TypeError, match="list of futures"):
        reduce(max, futures, 0)


@pytest.mark.parametrize("combine", [gather, race, first])
@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_combinations_of_combinations(combine, end):
    """However deep they nest, they end, and what nobody else consumes is cancelled."""
    source = whole = Future()
    for _ in range(3000):
        whole = combine(whole)
    if end == "cancel":
        assert whole.cancel()
        assert source.cancelled()
    else:
        source.set_exception(ValueError())
        assert whole.exception(10) is not None
