"""The Deferred's own engine: no stack, no cycles, every race decided, and the ways to futures and back."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import itertools
import logging
import sys
import threading
from functools import partial

import pytest
import trio

import futurechain
from futurechain import defer
from futurechain.defer import Deferred, Failure
from garbage import leaves_no_cycle

COUNT = 20_000


@defer.inlineCallbacks
def generator(source):
    return (yield source)


async def coroutine(source):
    return await source


def waiting(last):
    """Deferreds of which each waits for the next, and the last of which is `last`."""
    deferreds = [*(Deferred() for _ in range(60)), last]
    for this, following in itertools.pairwise(deferreds):
        this.addCallback(lambda _, following=following: following)
    for this in deferreds[:-1]:
        this.callback(None)
    return deferreds[0]


def chained(source):
    for _ in range(60):
        following = Deferred()
        source.chainDeferred(following)
        source = following
    return source


def nested(wrap, source, count=60):
    for _ in range(count):
        source = wrap(source)
    return source


SHAPES = {
    "waiting": waiting,
    "chained": chained,
    "generators": partial(nested, generator),
    "coroutines": partial(nested, lambda source: defer.ensureDeferred(coroutine(source))),
}


def deep(depth, call):
    return deep(depth - 1, call) if depth else call()


# -- the stack --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_lost_near_the_recursion_limit(shape):
    """Wherever in the stack a Deferred is fired: all that waits for it goes on, or it is not fired, and says so."""
    before, found = sys.getrecursionlimit(), set()
    for room in range(1, 60):
        source, seen = Deferred(), []
        end = SHAPES[shape](source).addBoth(seen.append)
        depth = 0
        frame = sys._getframe()
        while frame is not None:
            depth, frame = depth + 1, frame.f_back
        sys.setrecursionlimit(depth + 100)
        try:
            deep(100 - room, partial(source.callback, "value"))
        except RecursionError:
            sys.setrecursionlimit(before)
            assert not source.called
            source.callback("value")
            found.add("refused")
        else:
            found.add("fired")
        finally:
            sys.setrecursionlimit(before)
        assert (seen, end.result) == (["value"], None)

    assert found == {"refused", "fired"}


@pytest.mark.parametrize("wrap", [generator, lambda source: defer.ensureDeferred(coroutine(source))])
def test_coroutines_that_wait_for_each_other_need_no_stack(wrap):
    """Neither when the last one goes on, nor when the first one is cancelled."""
    source, other = Deferred(), Deferred()
    end, cancelled = nested(wrap, source, COUNT), nested(wrap, other, COUNT)
    source.callback("value")
    cancelled.cancel()

    assert end.result == "value"
    assert other.called
    assert cancelled.result.check(defer.CancelledError)
    cancelled.addErrback(lambda _: None)


def test_chained_deferreds_need_no_stack():
    """``chainDeferred`` fires the next one in the same loop; one that was fired already is an error here."""
    first = last = Deferred()
    for _ in range(COUNT):
        following = Deferred()
        last.chainDeferred(following)
        last = following
    first.callback("value")
    clash = Deferred().chainDeferred(first)
    clash.callback(0)

    assert (first.result, last.result) == (None, "value")
    assert clash.result.check(defer.AlreadyCalledError)
    clash.addErrback(lambda _: None)


# -- cycles -----------------------------------------------------------------------------------------------------------


def fail_callback():
    defer.succeed(1).addCallback(lambda _: 1 / 0).addErrback(lambda _: None)


def fail_steps(wrap):
    async def steps(source):
        await source
        raise ValueError

    source = Deferred()
    end = wrap(steps(source))
    source.callback(1)
    end.addErrback(lambda _: None)


def cancel_steps(wrap):
    end = wrap(Deferred())
    end.cancel()
    end.addErrback(lambda _: None)


ENDS = {
    "callback": fail_callback,
    "failed": partial(fail_steps, defer.ensureDeferred),
    "cancelled generator": partial(cancel_steps, generator),
    "cancelled coroutine": partial(cancel_steps, lambda source: defer.ensureDeferred(coroutine(source))),
    "returned": lambda: cancel_steps(lambda source: defer.succeed(0).addCallback(lambda _: source)),
    "timeout": lambda: Deferred().addTimeout(100).callback(1),
    "future": lambda: defer.ensureDeferred(coroutine(futurechain.succeed(1))).future.result(0),
}


@pytest.mark.parametrize("end", ENDS)
def test_no_cycle_is_left(end):
    """Whatever way a Deferred or its coroutine ended, no garbage collection is needed to be rid of it."""
    assert leaves_no_cycle(ENDS[end])


# -- Twisted's own failures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["errback", "callback", "returned", "maybeDeferred"])
def test_twisteds_failure_is_one(way):
    """Twisted's `Failure` runs the errbacks, which get it as it is; futures and generators get its exception."""
    failure = pytest.importorskip("twisted.python.failure").Failure(KeyError("k"))

    def make():
        deferred = Deferred()
        if way == "returned":
            return defer.succeed(1).addCallback(lambda _: failure)
        if way == "maybeDeferred":
            return defer.maybeDeferred(lambda: failure)
        getattr(deferred, way)(failure)
        return deferred

    seen = []
    make().addCallbacks(lambda _: seen.append("value"), seen.append)
    ended = generator(make())
    ended.addErrback(lambda caught: seen.append(caught.value))

    assert seen == [failure, failure.value]
    assert isinstance(make().future.exception(0), KeyError)


# -- other kinds of futures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [cf.Future, futurechain.Future])
def test_from_any_future(kind):
    """Results, errors, and a cancellation in both directions."""
    good, bad, given_up, cancelled = kind(), kind(), kind(), kind()
    deferreds = [Deferred.fromFuture(one) for one in (good, bad, given_up, cancelled)]
    good.set_result(1)
    bad.set_exception(KeyError())
    deferreds[2].cancel()
    cancelled.cancel()
    seen = []
    for deferred in deferreds:
        deferred.addBoth(lambda outcome: seen.append(getattr(outcome, "type", outcome)))

    assert seen == [1, KeyError, defer.CancelledError, defer.CancelledError]
    assert given_up.cancelled()


def test_from_asyncios_future():
    """The same; how a cancellation ends is for asyncio to say, and the error is its own."""

    async def main():
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(4)]
        deferreds = [Deferred.fromFuture(one) for one in futures]
        seen = []
        for deferred in deferreds:
            deferred.addBoth(lambda outcome: seen.append(getattr(outcome, "type", outcome)))
        futures[0].set_result(1)
        futures[1].set_exception(KeyError())
        deferreds[2].cancel()
        await asyncio.to_thread(deferreds[3].cancel)
        while len(seen) < 4:  # noqa: ASYNC110  # the callbacks are under way already
            await asyncio.sleep(0)
        return seen, futures[2].cancelled(), futures[3].cancelled()

    seen, *cancelled = asyncio.run(main())

    assert seen == [1, KeyError, asyncio.CancelledError, asyncio.CancelledError]
    assert cancelled == [True, True]
    with pytest.raises(TypeError, match="fromFuture"):
        Deferred.fromFuture(3)


@pytest.mark.parametrize("run", [asyncio.run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"])
def test_a_deferred_can_be_awaited_anywhere(run):
    """Under asyncio and trio, too; the result is taken away."""
    late = Deferred()

    async def main():
        threading.Timer(0, late.callback, ["late"]).start()
        with pytest.raises(KeyError):
            await defer.fail(KeyError())
        return await defer.succeed("settled"), await late

    assert run(main()) == ("settled", "late")
    assert late.result is None


def test_our_coroutines_await_deferreds():
    """``ensure_future`` and ``inlineCallbacks`` of futures wait for Deferreds; ours wait for their futures."""
    source = Deferred()
    future = futurechain.ensure_future(coroutine(source))
    yielded = futurechain.inlineCallbacks(generator.__wrapped__)(Deferred.fromFuture(future))
    back = defer.ensureDeferred(coroutine(yielded))
    source.callback(1)

    assert (future.result(0), yielded.result(0), back.result) == (1, 1, 1)


def test_a_future_of_a_deferred():
    """`d.future` leaves the Deferred its result; the same future is given as long as nothing is added."""
    source = Deferred()
    future = source.future
    assert source.future is future
    source.addCallback(str)
    assert source.future is not future
    source.callback(1)

    assert (future.result(0), source.future.result(0), source.result) == (1, "1", "1")
    with pytest.raises(TypeError, match=r"\.future"):
        futurechain.gather(source)


def test_a_ring_through_futures():
    """A Deferred that waits for a future that waits for it fails, over however many stages."""
    source = Deferred()
    source.addCallback(lambda _: source.future.then(str).then(str))
    source.callback(None)

    assert "cycle" in source.result.getErrorMessage()
    source.addErrback(lambda _: None)


def test_locks_run_functions_that_return_futures(pool):
    """The lock is given back when the future has its result, or its error."""
    semaphore, gate = defer.DeferredSemaphore(1), threading.Event()
    first = semaphore.run(pool.submit, gate.wait, 10)
    second = semaphore.run(pool.submit, int, "no number")
    third = semaphore.run(pool.submit, int, "3")
    assert semaphore.tokens == 0
    gate.set()

    assert first.future.result(10) is True
    assert isinstance(second.future.exception(10), ValueError)
    assert third.future.result(10) == 3
    assert semaphore.tokens == 1


# -- the rest of the vocabulary ---------------------------------------------------------------------------------------


def test_coroutines_and_generators_are_taken_alike():
    """`fromCoroutine` takes what `ensureDeferred` does; other things are a `NotACoroutineError`, a TypeError."""
    make = generator.__wrapped__
    for start in (Deferred.fromCoroutine, defer.ensureDeferred):
        assert start(make(defer.succeed(1))).result == 1
        assert start(coroutine(defer.succeed(1))).result == 1
        with pytest.raises(defer.NotACoroutineError, match="3 is not a coroutine"):
            start(3)
    assert issubclass(defer.NotACoroutineError, TypeError)


def test_a_generator_that_is_yielded_is_run():
    """As in Twisted: like a coroutine."""
    make = generator.__wrapped__

    assert generator(make(defer.succeed(2))).result == 2


def test_return_value_belongs_into_a_generator():
    """Anywhere else it is a TypeError, and nothing flies through the caller."""
    with pytest.raises(TypeError, match="returnValue"):
        defer.returnValue(1)
    with pytest.raises(TypeError, match="returnValue"):
        defer.inlineCallbacks(lambda: defer.returnValue(1))()


def test_first_errors_compare():
    """By index and failure."""
    failure, other = Failure(KeyError()), Failure(KeyError())

    assert defer.FirstError(failure, 1) == defer.FirstError(failure, 1)
    assert defer.FirstError(failure, 1) != defer.FirstError(failure, 2)
    assert defer.FirstError(failure, 1) != defer.FirstError(other, 1)
    assert defer.FirstError(failure, 1) != failure
    assert len({defer.FirstError(failure, 1), defer.FirstError(failure, 1)}) == 1


def test_small_helpers(caplog):
    """`passthru`, `timeout` and `logError` do what their names say."""
    assert defer.passthru(3) == 3
    late = Deferred()
    defer.timeout(late)
    late.addErrback(defer.logError).addErrback(lambda failure: failure.type)

    assert late.result is defer.TimeoutError
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_debugging_tells_who_made_and_who_fired_it():
    """With `setDebugging`, `AlreadyCalledError` shows both stacks, to the line of the program; without, it does not."""
    assert not defer.getDebugging()
    defer.setDebugging(True)
    try:
        deferred = Deferred()
        deferred.callback(1)
        both = r"(?s)created.*test_debugging.*Invoker.*test_debugging"
        with pytest.raises(defer.AlreadyCalledError, match=both) as caught:
            deferred.callback(2)
        assert str(caught.value).rstrip().endswith("deferred.callback(1)")
    finally:
        defer.setDebugging(False)
    quiet = defer.succeed(1)
    with pytest.raises(defer.AlreadyCalledError) as caught:
        quiet.callback(2)

    assert "created" not in str(caught.value)


def test_failures_of_failures():
    """`Failure` takes another one, and Twisted's three arguments; `getTraceback` its details."""
    try:
        raise KeyError("k")
    except KeyError as error:
        failure, trace = Failure(error), error.__traceback__
    bare = Failure(ValueError("x"), ValueError, trace)

    assert Failure(failure).value is failure.value
    assert bare.getTracebackObject() is trace
    assert failure.getTraceback(detail="brief").endswith("KeyError: 'k'\n")
    assert "trace = " in bare.getTraceback(detail="verbose")
    with pytest.raises(ValueError, match="detail"):
        failure.getTraceback(detail="all")


def test_an_error_has_a_note():
    """It names the callback, or the generator, that raised it."""

    @defer.inlineCallbacks
    def broken():
        yield
        raise KeyError

    def wrong(_):
        raise KeyError

    seen = []
    for deferred in (broken(), defer.succeed(1).addCallback(wrong)):
        deferred.addErrback(lambda failure: seen.append(failure.value.__notes__[0]))

    assert [note.startswith(f"raised in stage {name}") for note, name in zip(seen, ("broken", "wrong"), strict=True)]
    assert len(seen) == 2


def test_ctrl_c_in_a_callback_is_raised_in_the_main_thread():
    """It is the result as well; the callbacks after it run first."""
    seen = []

    def interrupt(_):
        raise KeyboardInterrupt

    deferred = Deferred().addCallback(interrupt).addErrback(seen.append)
    with pytest.raises(KeyboardInterrupt):
        deferred.callback(1)

    assert seen[0].check(KeyboardInterrupt)


def test_many_callbacks_that_wait():
    """A Deferred whose callbacks all return Deferreds takes them one after the other, at the same price for each."""
    deferred, inner = Deferred(), [Deferred() for _ in range(COUNT)]
    for one in inner:
        deferred.addCallback(lambda total, one=one: one.addCallback(total.__add__))
    deferred.callback(0)
    for one in inner:
        one.callback(1)

    assert deferred.result == COUNT
