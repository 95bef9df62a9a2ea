"""`futurechain.defer`: the same programs for it and, where Twisted is installed, for ``twisted.internet.defer``."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest

import futurechain
from futurechain import defer as ours
from futurechain.errors import LostFutureError
from futurechain.testing import ManualClock


@pytest.fixture(params=["futurechain.defer", "twisted.internet.defer"])
def defer(request: pytest.FixtureRequest) -> ModuleType:
    """The module under test: ours, and the one whose names it mirrors."""
    return pytest.importorskip(request.param)


@pytest.fixture
def eager() -> Iterator[None]:
    """Switch threads as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Clock:
    """As much of a reactor's clock as ``addTimeout`` needs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Call] = []

    def callLater(self, seconds: float, fn: Callable[..., object], *args: Any) -> Call:
        call = Call(self.now + seconds, fn, args)
        self.calls.append(call)
        return call

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for call in [call for call in self.calls if call.active() and call.due <= self.now]:
            call.live = False
            call.fn(*call.args)

    @property
    def pending(self) -> int:
        return sum(call.active() for call in self.calls)


class Call:
    """What ``callLater`` returns."""

    def __init__(self, due: float, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.due, self.fn, self.args, self.live = due, fn, args, True

    def active(self) -> bool:
        return self.live

    def cancel(self) -> None:
        assert self.live
        self.live = False


def seen(outcome: Any) -> Any:
    """A value as it is; a failure as the name of its exception, with the message."""
    if hasattr(outcome, "getErrorMessage"):
        return f"{outcome.type.__name__}: {outcome.getErrorMessage()}".removesuffix(": ")
    return outcome


def outcomes(*deferreds: Any) -> list[Any]:
    """A list that gets the outcome of each Deferred, as it comes; errors are handled by that."""
    found: list[Any] = []
    for deferred in deferreds:
        deferred.addBoth(lambda outcome: found.append(seen(outcome)))
    return found


def failure_of(defer: ModuleType, error: BaseException) -> Any:
    """A `Failure` of the module's own kind."""
    return defer.fail(error).addErrback(lambda failure: [failure]).result[0]


def fails(error: BaseException) -> Callable[..., Any]:
    def handler(*_: Any, **__: Any) -> Any:
        raise error

    return handler


# -- chains ---------------------------------------------------------------------------------------------------------


def test_callbacks_run_in_order_with_the_result_before(defer: ModuleType) -> None:
    """Each callback gets what the one before returned, and the add methods return the Deferred itself."""
    deferred = defer.Deferred()
    path = []

    same = deferred.addCallback(lambda n: path.append(n) or n + 1).addCallback(lambda n, m: path.append((n, m)), 5)

    assert same is deferred
    assert path == []
    deferred.callback(1)
    assert path == [1, (2, 5)]
    assert deferred.called
    assert deferred.result is None


def test_a_callback_on_a_settled_deferred_runs_at_once(defer: ModuleType) -> None:
    """What is added after the firing runs before the add method returns."""
    assert outcomes(defer.succeed(1).addCallback(lambda n: n + 1)) == [2]


@pytest.mark.parametrize("fires", ["callback", "errback"])
@pytest.mark.parametrize("steps", list(itertools.product(["ok", "raise", "failure"], repeat=3)), ids="-".join)
def test_criss_cross(defer: ModuleType, fires: str, steps: tuple[str, ...]) -> None:
    """In a chain of pairs one of each pair runs: the callback after a normal return, the errback after a failure."""
    path = []

    def handler(name: str, number: int) -> Callable[[Any], Any]:
        def handle(outcome: Any) -> Any:
            path.append((name, number, seen(outcome)))
            if steps[number] == "raise":
                raise ValueError(number)
            return failure_of(defer, KeyError(number)) if steps[number] == "failure" else number

        return handle

    deferred = defer.Deferred()
    for number in range(3):
        deferred.addCallbacks(handler("callback", number), handler("errback", number))
    deferred.callback("go") if fires == "callback" else deferred.errback(OSError("go"))

    names = [fires, *("callback" if step == "ok" else "errback" for step in steps)]
    shown = {"ok": lambda n: n, "raise": lambda n: f"ValueError: {n}", "failure": lambda n: f"KeyError: {n}"}
    inputs = ["go" if fires == "callback" else "OSError: go", *(shown[step](n) for n, step in enumerate(steps))]
    assert path == [(names[number], number, inputs[number]) for number in range(3)]
    assert outcomes(deferred) == [inputs[3]]


def test_none_passes_through(defer: ModuleType) -> None:
    """An outcome for which there is no handler is left as it is."""
    error = ValueError("x")

    assert outcomes(defer.succeed(1).addCallbacks(lambda n: n + 1, None).addErrback(fails(error))) == [2]
    assert outcomes(defer.fail(error).addCallback(fails(OSError())).addCallbacks(fails(OSError()))) == ["ValueError: x"]


def test_none_is_no_callback() -> None:
    """None in the place of a callback passes the result on."""
    nothing = ours.succeed(1).addCallback(None).addErrback(None).addBoth(None).addCallbacks(None, fails(OSError()))

    assert outcomes(nothing) == [1]


def test_arguments_go_to_their_own_handler(defer: ModuleType) -> None:
    """``addCallbacks`` has arguments for each of the two; ``addBoth`` gives the same to both."""
    def keep(*args: Any, **kwargs: Any) -> Any:
        return args[1:], kwargs

    arguments = {"callbackArgs": (1,), "callbackKeywords": {"a": 2}, "errbackArgs": (3,), "errbackKeywords": {"b": 4}}

    assert outcomes(defer.succeed(0).addCallbacks(keep, keep, **arguments)) == [((1,), {"a": 2})]
    assert outcomes(defer.fail(OSError()).addCallbacks(keep, keep, **arguments)) == [((3,), {"b": 4})]
    assert outcomes(defer.succeed(0).addBoth(keep, 5, c=6)) == [((5,), {"c": 6})]
    assert outcomes(defer.fail(OSError()).addErrback(keep, 7, d=8)) == [((7,), {"d": 8})]


def test_a_callback_added_by_a_callback_comes_last(defer: ModuleType) -> None:
    """Adding a callback while callbacks run appends it, and nothing runs before its turn."""
    path = []
    deferred = defer.Deferred()

    def adds(value: Any) -> Any:
        deferred.addCallback(lambda value: path.append(("late", value)))
        path.append("adds")
        return value + 1

    deferred.addCallback(adds).addCallback(lambda value: path.append(("second", value)) or value + 1)
    deferred.callback(1)

    assert path == ["adds", ("second", 2), ("late", 3)]


@pytest.mark.parametrize("error", [SystemExit(1), GeneratorExit(), BaseException("x")], ids=repr)
def test_any_exception_becomes_a_failure(defer: ModuleType, error: BaseException) -> None:
    """Whatever a callback raises goes to the next errback."""
    assert defer.succeed(1).addCallback(fails(error)).addErrback(lambda failure: [failure.value]).result == [error]


def test_there_is_no_result_before_the_firing(defer: ModuleType) -> None:
    """``called`` is False and there is no ``result`` until it is fired; then ``result`` follows the callbacks."""
    deferred = defer.Deferred()

    assert (deferred.called, deferred.paused, hasattr(deferred, "result")) == (False, 0, False)
    deferred.callback(1)
    assert (deferred.called, deferred.result) == (True, 1)
    deferred.addCallback(fails(ValueError("x")))
    assert seen(deferred.result) == "ValueError: x"
    assert outcomes(deferred) == ["ValueError: x"]


def test_it_is_fired_once(defer: ModuleType) -> None:
    """The second ``callback`` or ``errback`` raises AlreadyCalledError and changes nothing."""
    deferred = defer.Deferred()
    deferred.callback(1)

    with pytest.raises(defer.AlreadyCalledError):
        deferred.callback(2)
    with pytest.raises(defer.AlreadyCalledError):
        deferred.errback(ValueError())
    assert outcomes(deferred) == [1]


def test_errback_wraps_what_is_being_handled(defer: ModuleType) -> None:
    """``errback()`` and ``fail()`` without an error take the one of the surrounding except clause."""
    deferred = defer.Deferred()
    try:
        raise ValueError("x")
    except ValueError:
        deferred.errback()
        failed = defer.fail()

    assert outcomes(deferred, failed) == ["ValueError: x", "ValueError: x"]


def test_a_failure_fires_the_errbacks(defer: ModuleType) -> None:
    """``callback`` and ``succeed`` with a `Failure` do what ``errback`` does."""
    deferred = defer.Deferred()
    deferred.callback(failure_of(defer, ValueError("x")))

    assert outcomes(deferred, defer.succeed(failure_of(defer, KeyError()))) == ["ValueError: x", "KeyError"]


@pytest.mark.parametrize("method", ["addCallback", "addErrback", "addBoth", "addCallbacks"])
def test_only_functions_can_be_added(method: str) -> None:
    """A handler that is neither callable nor None is a TypeError at once."""
    with pytest.raises(TypeError, match=method):
        getattr(ours.Deferred(), method)(3)


def test_what_cannot_be_fired_with() -> None:
    """A Deferred is no result, and what is no exception is no error; the Deferred stays as it was."""
    deferred: ours.Deferred[int] = ours.Deferred()

    with pytest.raises(TypeError, match="return a Deferred from a callback"):
        deferred.callback(ours.Deferred())
    with pytest.raises(TypeError, match="exception"):
        deferred.errback("x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="exception"):
        deferred.errback()
    with pytest.raises(TypeError, match="canceller"):
        ours.Deferred("canceller")  # type: ignore[arg-type]
    deferred.callback(1)
    assert outcomes(deferred) == [1]


def test_repr_says_how_it_is() -> None:
    """The representation names the state: not fired, paused, waiting, or the result; as Twisted's does."""
    inner, running = ours.Deferred[Any](), []
    deferred = ours.Deferred[Any]().addCallback(lambda _: running.append(repr(deferred)) or inner)
    states = [repr(deferred)]
    deferred.pause()
    states.append(repr(deferred))
    deferred.callback(None)
    deferred.unpause()
    states.append(repr(deferred))
    inner.callback(3)
    states.append(repr(deferred))

    ends = ["", " paused", f" waiting on Deferred at {id(inner):#x}", " current result: 3"]
    assert states == [f"<Deferred at {id(deferred):#x}{end}>" for end in ends]
    assert running[0].endswith(" current result: None>")


# -- returned Deferreds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, ValueError("x")], ids=["value", "error"])
def test_a_returned_deferred_is_waited_for_and_emptied(defer: ModuleType, error: Any) -> None:
    """The outer one pauses until the inner one is fired; the result is moved: the inner one has None then."""
    inner, path = defer.Deferred(), []
    outer = defer.succeed(1).addCallback(lambda _: inner).addBoth(lambda outcome: path.append(seen(outcome)) or "end")

    assert (path, outer.called, outer.paused, outer.result) == ([], True, 1, inner)
    inner.callback(2) if error is None else inner.errback(error)
    assert path == [2 if error is None else "ValueError: x"]
    assert (outer.paused, outer.result, inner.result) == (0, "end", None)
    assert outcomes(inner) == [None]


def test_a_settled_deferred_is_taken_at_once(defer: ModuleType) -> None:
    """A returned Deferred that has its result is emptied at once, its error is handled."""
    inner, failed = defer.succeed(2), defer.fail(ValueError("x"))

    assert outcomes(defer.succeed(1).addCallback(lambda _: inner)) == [2]
    assert outcomes(defer.succeed(1).addCallback(lambda _: failed)) == ["ValueError: x"]
    assert (inner.result, failed.result) == (None, None)


def test_the_outer_ones_callbacks_come_before_later_ones_of_the_inner(defer: ModuleType) -> None:
    """The inner one's earlier callbacks, then the outer one's, then the inner one's later callbacks, which see None."""
    inner, outer, path = defer.Deferred(), defer.Deferred(), []
    inner.addCallback(lambda value: path.append(("before", value)) or value)
    outer.addCallback(lambda _: inner).addCallback(lambda value: path.append(("outer", value)))
    outer.callback(None)
    inner.addCallback(lambda value: path.append(("after", value)))
    inner.callback(1)

    assert path == [("before", 1), ("outer", 1), ("after", None)]


def test_an_inner_one_that_is_paused_is_waited_for(defer: ModuleType) -> None:
    """A returned Deferred with a result is not emptied while it is paused."""
    inner = defer.succeed(1)
    inner.pause()
    found = outcomes(defer.succeed(0).addCallback(lambda _: inner))

    assert found == []
    inner.unpause()
    assert found == [1]


@pytest.mark.slow
@pytest.mark.parametrize("order", [list, reversed], ids=["outside-in", "inside-out"])
def test_nested_deferreds_need_no_stack(defer: ModuleType, order: Callable[[Any], Any]) -> None:
    """100,000 Deferreds, each of which returns the next, are no deeper than two."""
    count = 100_000
    deferreds = [defer.Deferred() for _ in range(count)]
    for this, following in itertools.pairwise(deferreds):
        this.addCallback(lambda _, following=following: following)

    for deferred in order(deferreds[:-1]):
        deferred.callback(None)
    assert deferreds[0].result is deferreds[1]
    deferreds[-1].callback("end")

    assert deferreds[0].result == "end"
    assert [deferred.result for deferred in deferreds[1:]] == [None] * (count - 1)


def test_many_callbacks_need_no_stack(defer: ModuleType) -> None:
    """100,000 callbacks of one Deferred run one after the other."""
    deferred = defer.Deferred()
    for _ in range(100_000):
        deferred.addCallback(lambda n: n + 1)
    deferred.callback(0)

    assert deferred.result == 100_000


def test_a_returned_future_is_waited_for(pool: futurechain.ThreadPoolExecutor) -> None:
    """A callback may return any future, or a coroutine; the chain waits for it."""
    gate = threading.Event()

    async def coroutine(value: int) -> int:
        return value + await ours.succeed(10)

    deferred = ours.succeed(1).addCallback(lambda n: pool.submit(lambda: gate.wait() and n + 1)).addCallback(coroutine)

    assert (deferred.paused, deferred.result.done()) == (1, False)
    gate.set()
    assert deferred.future.result() == 12


def test_whoever_waits_for_itself_is_told() -> None:
    """A ring of Deferreds, of one or more or with a future in it, fails with TypeError instead of waiting for ever."""
    one: ours.Deferred[Any] = ours.Deferred()
    one.addCallback(lambda _: one)
    one.callback(None)
    two, three, four = ours.Deferred[Any](), ours.Deferred[Any](), ours.Deferred[Any]()
    two.addCallback(lambda _: three)
    three.addCallback(lambda _: four)
    four.addCallback(lambda _: two)
    for deferred in (two, three, four):
        deferred.callback(None)
    five = ours.Deferred[Any]()
    five.addCallback(lambda _: five.future)
    five.callback(None)

    for deferred in (one, two, five):
        assert "cycle" in outcomes(deferred)[0]
    assert outcomes(three, four) == [None, None]


# -- chainDeferred, pause ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, ValueError("x")], ids=["value", "error"])
def test_chain_deferred_fires_the_other(defer: ModuleType, error: Any) -> None:
    """``a.chainDeferred(b)`` fires b with a's outcome and leaves None in a."""
    first, second = defer.Deferred(), defer.Deferred()

    assert first.chainDeferred(second) is first
    first.callback(1) if error is None else first.errback(error)
    assert outcomes(first, second) == [None, 1 if error is None else "ValueError: x"]


def test_chain_deferred_cancels_one_way(defer: ModuleType) -> None:
    """Cancelling the second one leaves the first alone, whose one late result is ignored."""
    first, second = defer.Deferred(), defer.Deferred()
    first.chainDeferred(second)
    second.cancel()

    assert outcomes(second) == ["CancelledError"]
    assert not first.called
    first.callback(1)
    assert outcomes(first) == [None]


def test_pause_counts(defer: ModuleType) -> None:
    """Callbacks run when ``unpause`` has been called as often as ``pause``, and only once it is fired."""
    deferred, path = defer.Deferred(), []
    deferred.addCallback(path.append)
    deferred.pause()
    deferred.pause()
    deferred.callback(1)
    assert (deferred.paused, deferred.result) == (2, 1)
    deferred.unpause()
    assert path == []
    deferred.addCallback(lambda _: path.append("second"))
    deferred.unpause()
    assert path == [1, "second"]


def test_unpause_before_the_firing_runs_nothing(defer: ModuleType) -> None:
    """A Deferred that is paused and unpaused before it is fired behaves as if it had not been."""
    deferred = defer.Deferred()
    deferred.pause()
    deferred.unpause()
    found = outcomes(deferred)

    assert found == []
    deferred.callback(1)
    assert found == [1]


def test_a_callback_can_pause() -> None:
    """A pause by a callback holds up the ones after it."""
    deferred, path = ours.Deferred[None](), list[str]()
    deferred.addCallback(lambda _: deferred.pause()).addCallback(lambda _: path.append("after"))
    deferred.callback(None)

    assert path == []
    deferred.unpause()
    assert path == ["after"]


def test_a_failure_is_held_up_too(defer: ModuleType) -> None:
    """An errback waits while the Deferred is paused, and gets its arguments afterwards."""
    deferred = defer.fail(ValueError("x"))
    deferred.pause()
    deferred.addErrback(lambda failure, *args: (seen(failure), args), 1)
    deferred.unpause()

    assert outcomes(deferred) == [("ValueError: x", (1,))]


def test_an_unpause_too_many_has_no_effect() -> None:
    """There is nothing to take back."""
    deferred: ours.Deferred[int] = ours.Deferred()
    deferred.unpause()

    assert deferred.paused == 0


# -- cancel -----------------------------------------------------------------------------------------------------------


def test_cancel_without_a_canceller(defer: ModuleType) -> None:
    """It fails with CancelledError; one late result is ignored, the second raises AlreadyCalledError."""
    deferred = defer.Deferred()
    found = outcomes(deferred)
    deferred.cancel()
    deferred.cancel()

    assert found == ["CancelledError"]
    deferred.callback("late")
    with pytest.raises(defer.AlreadyCalledError):
        deferred.errback(ValueError())


def test_cancel_with_a_canceller(defer: ModuleType) -> None:
    """The canceller is called once, with the Deferred, which fails with CancelledError if it was not fired by that."""
    cancelled: list[Any] = []
    deferred = defer.Deferred(cancelled.append)
    found = outcomes(deferred)
    deferred.cancel()
    deferred.cancel()

    assert (cancelled, found) == ([deferred], ["CancelledError"])
    with pytest.raises(defer.AlreadyCalledError):
        deferred.callback("late")


def test_a_canceller_decides(defer: ModuleType) -> None:
    """A canceller may fire a success, or another error."""
    graceful = defer.Deferred(lambda deferred: deferred.callback("graceful"))
    other = defer.Deferred(lambda deferred: deferred.errback(OSError("other")))
    for deferred in (graceful, other):
        deferred.cancel()

    assert outcomes(graceful, other) == ["graceful", "OSError: other"]


def test_what_a_canceller_raises_comes_out_of_cancel(defer: ModuleType) -> None:
    """A broken canceller leaves the Deferred unfired, and is asked again by the next ``cancel()``."""
    calls: list[Any] = []
    deferred = defer.Deferred(lambda _: calls.append(1) or fails(OSError())())

    for _ in range(2):
        with pytest.raises(OSError):
            deferred.cancel()
    assert (len(calls), deferred.called) == (2, False)


def test_cancel_goes_to_the_inner_one(defer: ModuleType) -> None:
    """After the firing, cancelling cancels what is waited for, however deep; else it does nothing."""
    cancelled: list[Any] = []
    inner = defer.Deferred(cancelled.append)
    middle = defer.succeed(0).addCallback(lambda _: inner)
    outer = defer.succeed(0).addCallback(lambda _: middle)
    found = outcomes(outer)
    outer.cancel()
    outer.cancel()

    assert (cancelled, found, inner.result, middle.result) == ([inner], ["CancelledError"], None, None)
    settled = defer.succeed(1)
    settled.cancel()
    assert settled.result == 1


def test_the_inner_one_may_succeed_when_cancelled(defer: ModuleType) -> None:
    """A cancellation that reaches the inner one ends as its canceller says."""
    inner = defer.Deferred(lambda deferred: deferred.callback("graceful"))
    outer = defer.succeed(0).addCallback(lambda _: inner)
    outer.cancel()

    assert outcomes(outer) == ["graceful"]


def test_cancel_does_not_touch_a_paused_one(defer: ModuleType) -> None:
    """A Deferred that is fired and paused has its result."""
    deferred = defer.Deferred()
    deferred.pause()
    deferred.callback(1)
    deferred.cancel()
    deferred.unpause()

    assert outcomes(deferred) == [1]


def test_cancel_reaches_a_returned_future() -> None:
    """A future that is waited for is cancelled if nobody else consumes it."""
    alone, shared = futurechain.Future[int](), futurechain.Future[int]()
    other = shared.then(lambda n: n)
    for future in (alone, shared):
        deferred = ours.succeed(0).addCallback(lambda _, future=future: future)
        deferred.cancel()
        assert outcomes(deferred) == ["CancelledError"]

    assert alone.cancelled()
    assert not shared.done()
    shared.set_result(1)
    assert other.result() == 1


def test_cancel_goes_through_one_that_is_held_by_nobody(defer: ModuleType) -> None:
    """A Deferred that a callback made and returned passes a cancellation on, though nobody else has it."""
    innermost = defer.Deferred()
    outer = defer.succeed(0).addCallback(lambda _: defer.succeed(1).addCallback(lambda _: innermost))
    outer.cancel()

    assert (innermost.called, outcomes(outer)) == (True, ["CancelledError"])


def test_what_a_deferred_or_generator_waits_for_is_consumed() -> None:
    """A future is not cancelled for want of consumers while a Deferred or a generator waits for it."""
    @ours.inlineCallbacks
    def wait() -> Any:
        return (yield source)

    source: futurechain.Future[int] = futurechain.Future()
    found = outcomes(ours.Deferred.fromFuture(source), wait(), ours.succeed(0).addCallback(lambda _: source))
    source.then(str).cancel()
    assert not source.done()
    source.set_result(1)
    assert found == [1, 1, 1]


def test_a_future_that_is_cancelled_while_paused() -> None:
    """Cancelling the future of a Deferred that has been fired, and is paused, leaves the Deferred its result."""
    deferred = ours.succeed(1)
    deferred.pause()
    future = deferred.addCallback(str).future
    future.cancel()
    deferred.unpause()

    assert future.cancelled()
    assert outcomes(deferred) == ["1"]


def test_cancelling_the_future_runs_the_canceller() -> None:
    """A cancellation that comes up from the futures' side runs the canceller; late results are ignored."""
    cancelled: list[Any] = []
    deferred: ours.Deferred[Any] = ours.Deferred(cancelled.append)
    plain: ours.Deferred[Any] = ours.Deferred()
    outer = ours.succeed(0).addCallback(lambda _: plain)

    assert deferred.future.then(str).cancel()
    assert outer.future.cancel()
    assert cancelled == [deferred]
    assert (deferred.called, plain.called) == (True, True)
    plain.callback("late")
    assert outcomes(deferred, plain, outer) == ["CancelledError", None, "CancelledError"]


# -- addTimeout -------------------------------------------------------------------------------------------------------


def test_timeout(defer: ModuleType) -> None:
    """When the time is up, the Deferred is cancelled, and the cancellation becomes a TimeoutError."""
    clock, deferred = Clock(), defer.Deferred()

    assert deferred.addTimeout(5, clock) is deferred
    types = outcomes(deferred.addErrback(lambda failure: failure.type))
    clock.advance(4)
    assert types == []
    clock.advance(1)
    assert types == [defer.TimeoutError]


def test_timeout_in_time(defer: ModuleType) -> None:
    """The timer is withdrawn when the callbacks before it have ended."""
    clock, deferred = Clock(), defer.Deferred()
    deferred.addTimeout(timeout=5, clock=clock)
    assert clock.pending == 1
    deferred.callback(1)

    assert (clock.pending, outcomes(deferred)) == (0, [1])
    assert outcomes(defer.fail(ValueError("x")).addTimeout(5, clock)) == ["ValueError: x"]
    assert clock.pending == 0


def test_timeout_covers_what_was_added_before_it(defer: ModuleType) -> None:
    """A callback that was added after the timeout may take as long as it likes."""
    clock, inner = Clock(), defer.Deferred()
    before = defer.succeed(0).addCallback(lambda _: inner).addTimeout(5, clock)
    after = defer.Deferred()
    late = defer.succeed(0).addTimeout(5, clock).addCallback(lambda _: after)
    clock.advance(10)

    assert outcomes(before.addErrback(lambda failure: failure.type)) == [defer.TimeoutError]
    assert (inner.called, after.called) == (True, False)
    after.callback(1)
    assert outcomes(late) == [1]


def test_a_cancellation_by_somebody_else_is_no_timeout(defer: ModuleType) -> None:
    """The translation happens only if the time was up."""
    clock, deferred = Clock(), defer.Deferred()
    deferred.addTimeout(5, clock)
    deferred.cancel()

    assert (outcomes(deferred), clock.pending) == (["CancelledError"], 0)


def test_on_timeout_cancel(defer: ModuleType) -> None:
    """``onTimeoutCancel`` gets the outcome, even a success, and the seconds; what it returns goes on."""
    clock = Clock()
    deferred = defer.Deferred()
    graceful = defer.Deferred(lambda deferred: deferred.callback("graceful"))
    for one in (deferred, graceful):
        one.addTimeout(5, clock, onTimeoutCancel=lambda outcome, seconds: (seen(outcome), seconds))
    kept = defer.Deferred(lambda deferred: deferred.callback("graceful")).addTimeout(5, clock)
    other = defer.Deferred(lambda deferred: deferred.errback(OSError("x"))).addTimeout(5, clock)
    clock.advance(5)

    assert outcomes(deferred, graceful) == [("CancelledError", 5), ("graceful", 5)]
    assert outcomes(kept, other) == ["graceful", "OSError: x"]


def test_timeout_without_a_clock() -> None:
    """The library's own timers do; a timer that is not needed is withdrawn."""
    with ManualClock() as clock:
        late, early = ours.Deferred[int](), ours.Deferred[int]()
        late.addTimeout(5)
        early.addTimeout(5)
        early.callback(1)
        assert clock.pending == 1
        clock.advance(5)

    assert late.result.type is TimeoutError
    assert outcomes(late, early) == ["TimeoutError: the Deferred had no result within 5 seconds", 1]


def test_timeout_on_the_timer_thread() -> None:
    """With the real clock the callbacks run on a callback thread, not on the one that serves all timers."""
    deferred = ours.Deferred[int]().addTimeout(0.001)
    deferred.addBoth(lambda failure: (failure.type, threading.current_thread().name))
    kind, name = deferred.future.result(60)

    assert kind is TimeoutError
    assert name != "futurechain-clock"


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), (float("nan"), ValueError), ("5", TypeError)])
def test_what_is_no_timeout(seconds: Any, error: type[Exception]) -> None:
    """Seconds are a number, finite and not negative."""
    with pytest.raises(error):
        ours.Deferred().addTimeout(seconds)


def test_a_late_timeout_does_not_cancel_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the outcome comes between expiry and its ``cancel()``, the callbacks after the timeout are not cancelled."""
    clock, deferred, following = Clock(), ours.Deferred[Any](), ours.Deferred[Any]()
    deferred.addTimeout(5, clock, lambda outcome, _: outcome).addCallback(lambda _: following)
    cancel = deferred.cancel

    def overtaken() -> None:
        deferred.callback("in between")
        cancel()

    monkeypatch.setattr(deferred, "cancel", overtaken)
    clock.advance(5)

    assert not following.called
    following.callback("safe")
    assert outcomes(deferred) == ["safe"]


# -- making Deferreds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["maybeDeferred", "execute"])
def test_calling_a_function(defer: ModuleType, name: str) -> None:
    """A function's value or exception becomes a Deferred's; arguments are passed on."""
    call = getattr(defer, name)

    assert outcomes(call(lambda a, b: a + b, 1, b=2), call(fails(ValueError("x")))) == [3, "ValueError: x"]


def test_maybe_deferred_keeps_what_is_one(defer: ModuleType) -> None:
    """A Deferred that the function returns is returned as it is; a Failure is an error; a coroutine is run."""
    deferred = defer.Deferred()

    async def coroutine() -> int:
        return 3

    assert defer.maybeDeferred(lambda: deferred) is deferred
    assert outcomes(defer.maybeDeferred(failure_of, defer, ValueError("x"))) == ["ValueError: x"]
    assert outcomes(defer.maybeDeferred(coroutine)) == [3]


def test_ensure_deferred(defer: ModuleType) -> None:
    """A coroutine is run, and may await Deferreds; a Deferred stays; anything else is a TypeError."""
    gate, failing, deferred = defer.Deferred(), defer.Deferred(), defer.Deferred()

    async def coroutine() -> Any:
        value = await gate
        try:
            await failing
        except ValueError as error:
            return value, str(error)

    found = outcomes(defer.ensureDeferred(coroutine()))
    gate.callback(1)
    failing.errback(ValueError("x"))

    assert found == [(1, "x")]
    assert (gate.result, failing.result) == (None, None)
    assert defer.ensureDeferred(deferred) is deferred
    assert outcomes(defer.Deferred.fromCoroutine(coroutine())) == [None]
    for make in (defer.ensureDeferred, defer.Deferred.fromCoroutine):
        with pytest.raises(TypeError):
            make(3)


def test_from_future(pool: futurechain.ThreadPoolExecutor) -> None:
    """A future fires a Deferred; cancelling that cancels the future, if nobody else consumes it."""
    source: futurechain.Future[int] = futurechain.Future()
    deferred = ours.ensureDeferred(source)
    deferred.cancel()
    failed = futurechain.fail(ValueError("x"))

    assert source.cancelled()
    assert outcomes(deferred, ours.Deferred.fromFuture(failed)) == ["CancelledError", "ValueError: x"]
    assert ours.Deferred.fromFuture(pool.submit(int, "3")).addCallback(lambda n: n + 1).future.result() == 4
    with pytest.raises(TypeError):
        ours.Deferred.fromFuture(3)  # type: ignore[arg-type]


def test_from_a_future_that_others_use() -> None:
    """Cancelling a Deferred of a shared future leaves that alone."""
    source: futurechain.Future[int] = futurechain.Future()
    other = source.then(str)
    deferred = ours.Deferred.fromFuture(source)
    deferred.cancel()
    source.set_result(1)

    assert (other.result(), outcomes(deferred)) == ("1", ["CancelledError"])


def test_as_future() -> None:
    """Under asyncio a Deferred can be awaited, and made a future of the loop; cancelling that cancels it."""
    cancelled: list[Any] = []

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        awaited, made, given_up = ours.Deferred[int](), ours.Deferred[int](), ours.Deferred[int](cancelled.append)
        loop.call_soon(awaited.callback, 1)
        threading.Thread(target=made.callback, args=(2,)).start()
        future = given_up.asFuture(loop)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        return await awaited, await made.asFuture(loop), made.result

    assert asyncio.run(main()) == (1, 2, None)
    assert len(cancelled) == 1


# -- inlineCallbacks --------------------------------------------------------------------------------------------------


def test_inline_callbacks_walk(defer: ModuleType) -> None:
    """A plain yield comes right back, a Deferred's result when it is fired, its error as an exception."""
    later, failing, path = defer.Deferred(), defer.Deferred(), []

    @defer.inlineCallbacks
    def walk(start: int) -> Any:
        path.append((yield start))
        path.append((yield later))
        try:
            yield failing
        except ValueError as error:
            path.append(str(error))
        path.append((yield defer.succeed("at once")))
        return "end"

    found = outcomes(walk(1))
    assert path == [1]
    later.callback(2)
    assert (path, found) == ([1, 2], [])
    failing.errback(ValueError("x"))

    assert (path, found) == ([1, 2, "x", "at once"], ["end"])
    assert (later.result, failing.result) == (None, None)


@pytest.mark.parametrize("yielded", ["error", "failure", "raise"])
def test_inline_callbacks_errors(defer: ModuleType, yielded: str) -> None:
    """An error that the generator does not catch is the outcome; a yielded Failure is raised in it."""
    @defer.inlineCallbacks
    def fail() -> Any:
        if yielded == "raise":
            raise ValueError("x")
        yield defer.fail(ValueError("x")) if yielded == "error" else failure_of(defer, ValueError("x"))

    assert outcomes(fail()) == ["ValueError: x"]


@pytest.mark.filterwarnings("ignore:.*returnValue was deprecated")
def test_return_value(defer: ModuleType) -> None:
    """``returnValue(value)`` ends the generator, as ``return value`` does; a returned Failure is an error."""
    @defer.inlineCallbacks
    def returns(how: str) -> Any:
        value = yield defer.succeed(3)
        if how == "returnValue":
            defer.returnValue(value)
        return failure_of(defer, ValueError("x")) if how == "failure" else value

    assert outcomes(returns("returnValue"), returns("return"), returns("failure")) == [3, 3, "ValueError: x"]


@pytest.mark.parametrize("error", [SystemExit(1), BaseException("x")], ids=repr)
def test_inline_callbacks_and_odd_exceptions(defer: ModuleType, error: BaseException) -> None:
    """Whatever the generator raises is its outcome."""
    @defer.inlineCallbacks
    def fail() -> Any:
        yield None
        raise error

    assert fail().addErrback(lambda failure: [failure.value]).result == [error]


def test_inline_callbacks_want_a_generator(defer: ModuleType) -> None:
    """A function without ``yield`` is a TypeError when it is called."""
    with pytest.raises(TypeError, match="inlineCallbacks"):
        defer.inlineCallbacks(lambda: 3)()


def test_inline_callbacks_decorate_functions() -> None:
    """What is no function cannot be decorated; an ``async def`` function can."""
    with pytest.raises(TypeError, match="inlineCallbacks"):
        ours.inlineCallbacks(3)  # type: ignore[arg-type]

    @ours.inlineCallbacks
    async def double(number: int) -> int:
        return 2 * await ours.succeed(number)

    assert outcomes(double(4)) == [8]


def test_inline_callbacks_loop_without_stack(defer: ModuleType) -> None:
    """100,000 Deferreds that are fired already are a loop; so is a Deferred at a time that is fired later."""
    source: list[Any] = []

    @defer.inlineCallbacks
    def count(make: Callable[[], Any], times: int) -> Any:
        total = 0
        for _ in range(times):
            total += yield make()
        return total

    assert outcomes(count(lambda: defer.succeed(1), 100_000)) == [100_000]
    found = outcomes(count(lambda: source.append(defer.Deferred()) or source[-1], 10_000))
    while not found:
        source.pop().callback(2)
    assert found == [20_000]


def test_cancelling_goes_to_what_is_waited_for(defer: ModuleType) -> None:
    """The awaited Deferred is cancelled; without a handler that ends the generator with CancelledError."""
    cancelled: list[Any] = []
    awaited = defer.Deferred(cancelled.append)

    @defer.inlineCallbacks
    def wait() -> Any:
        yield awaited

    running = wait()
    found = outcomes(running)
    running.cancel()

    assert (cancelled, found) == ([awaited], ["CancelledError"])


def test_a_generator_may_catch_its_cancellation(defer: ModuleType) -> None:
    """What it returns then is the outcome, also if it waits for more before; that is cancelled by a second call."""
    @defer.inlineCallbacks
    def stubborn(*awaited: Any) -> Any:
        caught = 0
        for deferred in awaited:
            try:
                yield deferred
            except defer.CancelledError:
                caught += 1
        return caught

    once = stubborn(defer.Deferred(), defer.succeed(1))
    once.cancel()
    later = defer.Deferred()
    twice = stubborn(defer.Deferred(), defer.Deferred(), later)
    found = outcomes(twice)
    twice.cancel()
    twice.cancel()
    assert (outcomes(once), found) == ([1], [])
    later.callback(None)
    assert found == [2]


def test_a_coroutine_may_catch_its_cancellation(defer: ModuleType) -> None:
    """The same holds for ``await``: the Deferred that is awaited decides how its cancellation ends."""
    async def stubborn(deferred: Any) -> Any:
        try:
            return await deferred
        except defer.CancelledError:
            return "caught"

    caught = defer.ensureDeferred(stubborn(defer.Deferred()))
    graceful = defer.ensureDeferred(stubborn(defer.Deferred(lambda deferred: deferred.callback("graceful"))))
    for running in (caught, graceful):
        running.cancel()

    assert outcomes(caught, graceful) == ["caught", "graceful"]


def test_inner_generators_are_cancelled_first(defer: ModuleType) -> None:
    """A cancellation goes through generators that wait for generators, and comes back as an exception."""
    path, awaited = [], defer.Deferred()

    @defer.inlineCallbacks
    def nested(level: int) -> Any:
        try:
            yield nested(level - 1) if level else awaited
        except defer.CancelledError:
            path.append(level)
            raise

    running = nested(3)
    running.cancel()

    assert (outcomes(running), path) == (["CancelledError"], [0, 1, 2, 3])


def test_a_cancellation_from_within_reaches_the_next_wait() -> None:
    """A generator that cancels its own Deferred sees that at its next wait."""
    start: ours.Deferred[None] = ours.Deferred()

    @ours.inlineCallbacks
    def suicidal() -> Any:
        yield start
        running.cancel()
        yield ours.Deferred()

    running = suicidal()
    start.callback(None)

    assert outcomes(running) == ["CancelledError"]


def test_one_context_for_a_whole_run(defer: ModuleType) -> None:
    """Every step sees the context variables as they were at the call, with the changes of the steps before."""
    variable = contextvars.ContextVar("variable", default="outside")
    gate = defer.Deferred()

    @defer.inlineCallbacks
    def steps() -> Any:
        before = variable.get()
        variable.set("inside")
        yield gate
        return before, variable.get()

    running = steps()
    assert variable.get() == "outside"
    variable.set("elsewhere")
    gate.callback(None)

    assert outcomes(running) == [("outside", "inside")]


def test_a_generator_may_yield_and_return_futures(pool: futurechain.ThreadPoolExecutor) -> None:
    """Futures and coroutines can be yielded; a Deferred or future that is returned is waited for."""
    later: ours.Deferred[Any] = ours.Deferred()

    async def coroutine(value: int) -> int:
        return await pool.submit(int, value)

    @ours.inlineCallbacks
    def wait() -> Any:
        number = yield pool.submit(int, "3")
        number += yield coroutine(4)
        return later.addCallback(lambda value: number + value)

    running = wait()
    later.callback(5)
    assert running.future.result() == 12
    plain = ours.ensureDeferred(coroutine(1))
    assert plain.future.result() == 1


def test_a_returned_deferred_can_still_be_cancelled() -> None:
    """A generator that has returned a Deferred passes a cancellation on to it."""
    last: ours.Deferred[Any] = ours.Deferred()

    @ours.inlineCallbacks
    def wait() -> Any:
        yield None
        return last

    running = wait()
    running.cancel()

    assert last.called
    assert outcomes(running) == ["CancelledError"]


def test_what_a_coroutine_cannot_await() -> None:
    """Without an event loop only futures and Deferreds can be awaited; waiting for oneself is a TypeError."""
    class Odd:
        def __await__(self) -> Iterator[str]:
            yield "odd"

    async def odd() -> None:
        await Odd()

    @ours.inlineCallbacks
    def ring() -> Any:
        yield gate
        yield running

    @ours.inlineCallbacks
    def returned() -> Any:
        yield gate
        return late

    gate: ours.Deferred[None] = ours.Deferred()
    running, late = ring(), returned()
    gate.callback(None)

    assert "cannot be awaited" in outcomes(ours.ensureDeferred(odd()))[0]
    assert "cycle" in outcomes(running)[0]
    assert "cycle" in outcomes(late)[0]


def test_the_poetry_client(defer: ModuleType) -> None:
    """A client that downloads, transforms, keeps the original where the transformation fails, and counts."""
    downloads = {name: defer.Deferred() for name in ("ecstasy", "fascination", "science", "sonnet")}
    counts = {"done": 0, "failed": 0}
    poems: dict[str, str] = {}

    def transform(poem: str) -> Any:
        return defer.fail(ValueError("too modern")) if "?" in poem else defer.succeed(poem.upper())

    @defer.inlineCallbacks
    def get_poem(name: str) -> Any:
        try:
            poem = yield downloads[name]
        except OSError:
            counts["failed"] += 1
            return None
        try:
            poem = yield transform(poem)
        except ValueError:
            poem = f"{poem} (original)"
        poems[name] = poem
        counts["done"] += 1
        return poem

    everything = defer.gatherResults([get_poem(name) for name in downloads])
    downloads["science"].callback("tiger, tiger")
    downloads["sonnet"].callback("shall i compare thee?")
    downloads["fascination"].errback(OSError("refused"))
    assert counts == {"done": 2, "failed": 1}
    downloads["ecstasy"].callback("where, like a pillow")

    kept = "shall i compare thee? (original)"
    assert outcomes(everything) == [["WHERE, LIKE A PILLOW", None, "TIGER, TIGER", kept]]
    assert list(poems) == ["science", "sonnet", "ecstasy"]


# -- several Deferreds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["succeeds first", "fails first"])
@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=3)), ids=str)
def test_deferred_list_flags(defer: ModuleType, flags: tuple[bool, bool, bool], order: str) -> None:
    """All of the three flags: when it fires, with what, and what is left in the Deferreds."""
    one_callback, one_errback, consume = flags
    good, bad = defer.Deferred(), defer.Deferred()
    everything = defer.DeferredList([good, bad], *flags)
    steps = [lambda: good.callback(1), lambda: bad.errback(ValueError("x"))]
    found: list[Any] = []
    everything.addCallback(
        lambda results: [(ok, seen(result)) for ok, result in results] if isinstance(results, list) else results
    )
    everything.addErrback(
        lambda failure: (failure.type, failure.value.index, seen(failure.value.subFailure))
    ).addCallback(found.append)

    history = []
    for step in steps if order == "succeeds first" else reversed(steps):
        step()
        history.append(len(found))

    early = one_callback if order == "succeeds first" else one_errback
    assert history == ([1, 1] if early else [0, 1])
    first_error = (defer.FirstError, 1, "ValueError: x")
    everything_done = [(True, 1), (False, "ValueError: x")]
    if one_callback and (order == "succeeds first" or not one_errback):
        assert found == [(1, 0)]
    else:
        assert found == [first_error if one_errback else everything_done]
    assert outcomes(good, bad) == [1, None if consume else "ValueError: x"]


def test_a_deferred_list_of_nothing(defer: ModuleType) -> None:
    """It fires at once with an empty list, unless it was to fire with the first result."""
    assert outcomes(defer.DeferredList([]), defer.gatherResults([])) == [[], []]
    assert outcomes(defer.DeferredList([], fireOnOneCallback=True)) == []


def test_a_deferred_list_of_fired_ones(defer: ModuleType) -> None:
    """It is fired when it is made, and is a Deferred; what it counts is there to be read."""
    everything = defer.DeferredList([defer.succeed(1), defer.succeed(2)])

    assert isinstance(everything, defer.Deferred)
    assert everything.resultList == [(defer.SUCCESS, 1), (defer.SUCCESS, 2)]
    assert everything.finishedCount == 2
    assert outcomes(everything) == [[(True, 1), (True, 2)]]


def test_cancelling_a_deferred_list(defer: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """Everything in it is cancelled, also after a broken canceller; the results tell how."""
    broken = defer.Deferred(fails(OSError()))
    sources = [defer.Deferred(), broken, defer.Deferred(lambda deferred: deferred.callback("graceful"))]
    everything = defer.DeferredList(sources, consumeErrors=True)
    everything.cancel()
    broken.callback(2)

    assert outcomes(everything.addCallback(lambda results: [seen(result) for _, result in results])) == [
        ["CancelledError", 2, "graceful"]
    ]
    everything.cancel()


def test_gather_results(defer: ModuleType) -> None:
    """All results in order; or the first error, which cancels nothing."""
    first, second, third = defer.Deferred(), defer.Deferred(), defer.Deferred()
    good = defer.gatherResults([first, second])
    bad = defer.gatherResults([defer.fail(ValueError("x")), third], consumeErrors=True)
    second.callback(2)
    first.callback(1)

    assert outcomes(good) == [[1, 2]]
    assert bad.addErrback(lambda failure: seen(failure.value.subFailure)).result == "ValueError: x"
    assert not third.called


def test_race(defer: ModuleType) -> None:
    """The first success wins, with its index; the others are cancelled, and None is left in all of them."""
    cancelled: list[Any] = []
    slow, failing, fast = defer.Deferred(cancelled.append), defer.Deferred(), defer.Deferred()
    winner = defer.race([slow, failing, fast])
    found = outcomes(winner)
    failing.errback(ValueError("x"))
    assert found == []
    fast.callback("fast")

    assert (found, cancelled) == ([(2, "fast")], [slow])
    assert [slow.result, failing.result, fast.result] == [None, None, None]


def test_a_race_that_all_lose(defer: ModuleType) -> None:
    """The failures come in the order of the arguments, in one group; so do those of a cancelled race."""
    first, second = defer.Deferred(), defer.Deferred()
    lost, cancelled = defer.race([first, second]), defer.race([defer.Deferred(), defer.Deferred()])
    second.errback(ValueError("second"))
    first.errback(KeyError())
    cancelled.cancel()

    for deferred in (lost, cancelled):
        deferred.addErrback(lambda failure: (failure.type, [seen(one) for one in failure.value.failures]))
    assert outcomes(lost) == [(defer.FailureGroup, ["KeyError", "ValueError: second"])]
    assert outcomes(cancelled) == [(defer.FailureGroup, ["CancelledError", "CancelledError"])]


def test_a_race_of_nothing() -> None:
    """It fails at once with ValueError: nothing would ever come."""
    assert outcomes(ours.race([]))[0].startswith("ValueError")


def test_combinations_take_futures(pool: futurechain.ThreadPoolExecutor) -> None:
    """Futures and coroutines can be combined with Deferreds; anything else is a TypeError."""
    async def coroutine() -> int:
        return 3

    assert ours.gatherResults([pool.submit(int, "1"), ours.succeed(2), coroutine()]).future.result() == [1, 2, 3]
    assert ours.race([ours.Deferred(), pool.submit(int, "1")]).future.result() == (1, 1)
    for combine in (ours.DeferredList, ours.gatherResults, ours.race):
        with pytest.raises(TypeError):
            combine([3])


def test_errors_say_what_they_hold() -> None:
    """The messages of FirstError and FailureGroup show the failures in them."""
    failure = ours.Failure(ValueError("x"))

    assert str(ours.FirstError(failure, 3)) == "FirstError[#3, <Failure builtins.ValueError: x>]"
    assert repr(ours.FirstError(failure, 3)) == "FirstError[#3, ValueError('x')]"
    assert str(ours.FailureGroup([failure])) == "<Failure builtins.ValueError: x>"


# -- locks and queues -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2])
def test_a_semaphore_hands_out_in_order(defer: ModuleType, limit: int) -> None:
    """So many at the same time; the others wait in the order of asking."""
    semaphore = defer.DeferredLock() if limit == 1 else defer.DeferredSemaphore(limit)
    path: list[int] = []
    requests = [semaphore.acquire().addCallback(lambda it, n=n: path.append(n) or it) for n in range(4)]

    assert path == list(range(limit))
    assert list(semaphore.waiting) == requests[limit:]
    for _ in requests:
        semaphore.release()
    assert path == [0, 1, 2, 3]
    assert [request.result for request in requests] == [semaphore] * 4
    with pytest.raises(AssertionError):
        semaphore.release()


def test_lock_and_semaphore_tell_their_state(defer: ModuleType) -> None:
    """``locked``, ``tokens`` and ``limit`` say how it is; a semaphore of nothing is a ValueError."""
    lock, semaphore = defer.DeferredLock(), defer.DeferredSemaphore(2)
    states = [(lock.locked, semaphore.tokens, semaphore.limit)]
    lock.acquire()
    semaphore.acquire()
    states.append((lock.locked, semaphore.tokens, semaphore.limit))

    assert states == [(False, 2, 2), (True, 1, 2)]
    with pytest.raises(ValueError):
        defer.DeferredSemaphore(0)


def test_a_request_can_be_withdrawn(defer: ModuleType) -> None:
    """Cancelling a waiting request takes it out of the line; one that was granted is not changed by that."""
    lock = defer.DeferredLock()
    holder, second, third = lock.acquire(), lock.acquire(), lock.acquire()
    found = outcomes(second)
    second.cancel()
    holder.cancel()
    assert (found, list(lock.waiting), third.called) == (["CancelledError"], [third], False)
    lock.release()

    assert third.called
    assert lock.locked


def test_a_request_that_was_fired_by_somebody_else_is_passed_over() -> None:
    """A lock and a queue give to the next one what the first in line cannot take any more."""
    lock, queue = ours.DeferredLock(), ours.DeferredQueue()
    lock.acquire()
    requests = [lock.acquire(), lock.acquire(), queue.get(), queue.get()]
    requests[0].callback("taken")
    requests[2].callback("taken")
    lock.release()
    queue.put(1)

    assert outcomes(*requests) == ["taken", lock, "taken", 1]
    assert lock.locked


@pytest.mark.parametrize("end", ["value", "error", "deferred"])
def test_run_releases_in_the_end(defer: ModuleType, end: str) -> None:
    """``run`` calls the function with the lock held, until its Deferred has its result."""
    lock, later = defer.DeferredLock(), defer.Deferred()

    def work(value: int, *, name: str) -> Any:
        assert lock.locked
        if end == "error":
            raise ValueError(name)
        return later if end == "deferred" else value

    found = outcomes(lock.run(work, 1, name="x"))
    assert lock.locked == (end == "deferred")
    later.callback(2)

    assert found == [{"value": 1, "error": "ValueError: x", "deferred": 2}[end]]
    assert not lock.locked


def test_async_with_a_lock(defer: ModuleType) -> None:
    """``async with`` acquires and releases."""
    lock = defer.DeferredLock()

    async def work() -> bool:
        async with lock:
            return bool(lock.locked)

    assert outcomes(defer.ensureDeferred(work())) == [True]
    assert not lock.locked


def test_many_waiters_need_no_stack() -> None:
    """Thousands who wait for a lock get it one after the other, when each of them gives it back at once."""
    lock, path = ours.DeferredLock(), list[int]()
    lock.acquire()
    for number in range(3000):
        lock.run(path.append, number)
    lock.release()

    assert path == list(range(3000))
    assert not lock.locked


def test_a_queue_joins_putters_and_getters(defer: ModuleType) -> None:
    """Objects come out in the order in which they went in, to the getters in the order of asking."""
    queue = defer.DeferredQueue()
    early = outcomes(queue.get(), queue.get())
    for number in range(4):
        queue.put(number)

    assert early == [0, 1]
    assert (list(queue.pending), list(queue.waiting)) == ([2, 3], [])
    assert outcomes(queue.get(), queue.get()) == [2, 3]


def test_a_queue_has_limits(defer: ModuleType) -> None:
    """``size`` objects and ``backlog`` getters at most."""
    queue = defer.DeferredQueue(size=1, backlog=1)
    getter = queue.get()
    with pytest.raises(defer.QueueUnderflow):
        queue.get()
    queue.put(1)
    queue.put(2)
    with pytest.raises(defer.QueueOverflow):
        queue.put(3)

    assert outcomes(getter, queue.get()) == [1, 2]
    assert (queue.size, queue.backlog) == (1, 1)


def test_a_getter_can_give_up(defer: ModuleType) -> None:
    """Cancelling a getter takes it out of the line, and no object is lost."""
    queue = defer.DeferredQueue()
    first, second = queue.get(), queue.get()
    found = outcomes(first, second)
    first.cancel()
    queue.put(1)

    assert found == ["CancelledError", 1]


# -- errors that nobody saw, memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["errback", "callback", "inner", "generator", "future"])
def test_an_unhandled_error_is_reported_once(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """When the Deferred goes, an error that nobody handled is logged, once; no garbage collection is needed."""
    error = ValueError("x")

    @ours.inlineCallbacks
    def generator() -> Any:
        yield None
        raise error

    make: dict[str, Callable[[], Any]] = {
        "errback": lambda: ours.fail(error),
        "callback": lambda: ours.succeed(1).addCallback(fails(error)).addCallback(str),
        "inner": lambda: ours.succeed(1).addCallback(lambda _: ours.fail(error)),
        "generator": generator,
        "future": lambda: ours.succeed(1).addCallback(lambda _: futurechain.fail(error)),
    }
    gc.collect()
    gc.disable()
    try:
        with caplog.at_level(logging.ERROR, "futurechain"):
            deferred = make[how]()
            assert caplog.records == []
            error.__traceback__ = None  # its frames are this test's own
            del deferred
        assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]
    finally:
        gc.enable()


def test_a_handled_error_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    """An errback, whoever takes the result away, ``future.result()`` and ``consumeErrors`` handle an error."""
    gc.collect()  # what other tests have left
    with caplog.at_level(logging.ERROR, "futurechain"):
        ours.fail(ValueError()).addErrback(lambda _: None)
        inner = ours.fail(ValueError())
        ours.succeed(1).addCallback(lambda _, inner=inner: inner).addErrback(lambda _: None)
        failed = ours.fail(ValueError())
        assert failed.future.exception() is not None
        consumed = ours.fail(ValueError())
        ours.DeferredList([consumed], consumeErrors=True)
        ours.Deferred[Any]().cancel()
        del inner, failed, consumed
        gc.collect()

    assert caplog.records == []


def test_a_deferred_that_is_dropped_settles_what_waits_for_it() -> None:
    """Nobody waits for ever for a Deferred that can be fired no more."""
    deferred: ours.Deferred[Any] = ours.Deferred()
    future = deferred.addCallback(str).future
    del deferred
    gc.collect()

    assert isinstance(future.exception(10), LostFutureError)


def test_whatever_waits_holds_what_it_waits_for() -> None:
    """A returned or yielded Deferred that nobody else has is waited for until it is cancelled; its canceller runs."""
    cancelled: list[Any] = []

    @ours.inlineCallbacks
    def wait() -> Any:
        yield ours.Deferred(cancelled.append)

    outer = ours.succeed(0).addCallback(lambda _: ours.Deferred(cancelled.append))
    for deferred in (outer, wait()):
        gc.collect()
        assert deferred.future.running() or not deferred.future.done()
        deferred.cancel()
        assert outcomes(deferred) == ["CancelledError"]

    assert len(cancelled) == 2


def test_a_dropped_deferred_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """One that is never fired, with callbacks or a future that nobody kept, is nothing to report."""
    gc.collect()  # what other tests have left
    with caplog.at_level(logging.WARNING, "futurechain"):
        ours.Deferred[int]().addCallback(str).addErrback(print)
        assert not ours.Deferred[int]().addCallback(str).future.done()
        gc.collect()
        futurechain.delay(0).result(10)

    assert caplog.records == []


def test_results_in_the_middle_are_free_to_go() -> None:
    """A Deferred holds its present result only, not those of earlier callbacks."""
    class Big:
        pass

    first, second = Big(), Big()
    references = [weakref.ref(first), weakref.ref(second)]
    results = [second]
    deferred = ours.succeed(first).addCallback(lambda _: results.pop()).addCallback(lambda _: "small")
    del first, second
    gc.collect()

    assert [reference() for reference in references] == [None, None]
    assert outcomes(deferred) == ["small"]


# -- threads ----------------------------------------------------------------------------------------------------------


def at_once(*jobs: Callable[[], object]) -> list[Any]:
    """Run the jobs in threads that start together; what each returned or raised."""
    barrier = threading.Barrier(len(jobs))
    results: list[Any] = [None] * len(jobs)

    def work(number: int, job: Callable[[], object]) -> None:
        barrier.wait()
        try:
            results[number] = job()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=job) for job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


ROUNDS = range(150)


def test_one_of_many_threads_fires(eager: None) -> None:
    """However many call ``callback`` at the same time, one succeeds, and the others get AlreadyCalledError."""
    for _ in ROUNDS:
        deferred: ours.Deferred[int] = ours.Deferred()
        found = outcomes(deferred)
        errors = at_once(*(partial(deferred.callback, n) for n in range(4)))
        assert [type(error) for error in errors if error] == [ours.AlreadyCalledError] * 3
        assert found == [errors.index(None)]


def test_firing_against_cancelling(eager: None) -> None:
    """Either the result or CancelledError is the outcome, and one late result is no error in either case."""
    kinds = set()
    for _ in ROUNDS:
        deferred: ours.Deferred[str] = ours.Deferred()
        found = outcomes(deferred)
        assert at_once(partial(deferred.callback, "value"), deferred.cancel, deferred.cancel) == [None] * 3
        kinds.add(found[0])
        assert len(found) == 1
    assert kinds <= {"value", "CancelledError"}


def test_adding_against_firing(eager: None) -> None:
    """Every callback runs once, in the order of each thread, whether it came before or after the firing."""
    for _ in ROUNDS:
        deferred: ours.Deferred[list[Any]] = ours.Deferred()

        def add(name: str, deferred: ours.Deferred[list[Any]] = deferred) -> None:
            for number in range(5):
                deferred.addCallback(list.__add__, [(name, number)])

        at_once(partial(add, "a"), partial(deferred.callback, []), partial(add, "b"))
        path = deferred.future.result(10)
        assert sorted(path) == [(name, number) for name in "ab" for number in range(5)]
        assert [number for name, number in path if name == "a"] == [0, 1, 2, 3, 4]


def test_pausing_against_firing(eager: None) -> None:
    """What is paused and unpaused as often runs to its end, whoever fires it meanwhile."""
    for _ in ROUNDS:
        deferred: ours.Deferred[int] = ours.Deferred()
        for _ in range(3):
            deferred.addCallback(lambda n: n + 1)

        def blink(deferred: ours.Deferred[int] = deferred) -> None:
            for _ in range(5):
                deferred.pause()
                deferred.unpause()

        at_once(blink, partial(deferred.callback, 0), blink)
        assert deferred.future.result(10) == 3
        assert deferred.paused == 0


def test_an_inner_one_that_is_fired_meanwhile(eager: None) -> None:
    """The inner one fired by one thread, the outer one by another: the outer one gets the result, None is left."""
    for _ in ROUNDS:
        inner, outer = ours.Deferred[int](), ours.Deferred[Any]()
        outer.addCallback(lambda _, inner=inner: inner)
        at_once(partial(inner.callback, 3), partial(outer.callback, None))
        assert (outer.future.result(10), inner.future.result(10)) == (3, None)


def test_two_threads_that_close_a_ring(eager: None) -> None:
    """At least one of the two sees the ring, and both are settled."""
    for _ in ROUNDS:
        one, two = ours.Deferred[Any](), ours.Deferred[Any]()
        one.addCallback(lambda _, two=two: two)
        two.addCallback(lambda _, one=one: one)
        one_end, two_end = one.future, two.future
        at_once(partial(one.callback, None), partial(two.callback, None))
        errors = [one_end.exception(10), two_end.exception(10)]
        assert any("cycle" in str(error) for error in errors)
        gathered = outcomes(one, two)
        assert len(gathered) == 2


def test_cancelling_a_generator_meanwhile(eager: None) -> None:
    """A cancellation and a result of the awaited Deferred race; the generator goes on exactly once."""
    for _ in ROUNDS:
        gate, steps = ours.Deferred[str](), []

        @ours.inlineCallbacks
        def wait(gate: Any = gate, steps: Any = steps) -> Any:
            try:
                steps.append((yield gate))
            except ours.CancelledError:
                steps.append("cancelled")
            return len(steps)

        running = wait()
        at_once(partial(gate.callback, "value"), running.cancel)
        assert running.future.result(10) == 1
        assert steps[0] in ("value", "cancelled")


def test_a_timeout_against_the_result(eager: None) -> None:
    """Either the result passes or the timeout; what comes after the timeout is never cancelled by it."""
    for _ in ROUNDS:
        clock, deferred, following = Clock(), ours.Deferred[str](), ours.Deferred[str]()
        deferred.addTimeout(5, clock).addBoth(lambda outcome: [seen(outcome).split(":")[0]])
        deferred.addCallback(lambda found, following=following: following.addCallback(lambda more: [*found, more]))
        at_once(partial(deferred.callback, "value"), partial(clock.advance, 5))
        assert not following.called
        following.callback("after")
        assert deferred.future.result(10) in (["value", "after"], ["TimeoutError", "after"])


def test_many_threads_and_a_list(eager: None) -> None:
    """A DeferredList, a race and gatherResults fire once, whichever threads fire what they wait for."""
    for _ in ROUNDS:
        sources = [ours.Deferred[int]() for _ in range(4)]
        everything, copies = ours.DeferredList(sources), [ours.Deferred[int]() for _ in range(4)]
        for source, copy in zip(sources, copies, strict=True):
            source.chainDeferred(copy)
        winner = ours.race(copies)
        at_once(*(partial(source.callback, n) for n, source in enumerate(sources)))
        assert everything.future.result(10) == [(True, n) for n in range(4)]
        index, value = winner.future.result(10)
        assert index == value


def test_a_lock_between_threads(eager: None) -> None:
    """A lock that many threads acquire, release and cancel is held by one at a time, and free in the end."""
    lock, inside, most = ours.DeferredLock(), [], [0]

    def use(_: object = None) -> None:
        inside.append(None)
        most.append(len(inside))
        inside.pop()

    def work() -> None:
        for _ in range(20):
            lock.run(use)
            lock.acquire().addErrback(lambda _: None).addCallback(lambda held: held and lock.release())
            request = lock.acquire().addCallbacks(lambda held: held.release(), lambda _: None)
            request.cancel()

    assert at_once(*[work] * 4) == [None] * 4
    assert (max(most), lock.locked, len(lock.waiting)) == (1, False, 0)


def test_a_queue_between_threads(eager: None) -> None:
    """Every object that is put by some thread is got by one getter of another, none twice."""
    queue, got = ours.DeferredQueue(), []

    def put(name: int) -> None:
        for number in range(50):
            queue.put((name, number))

    def get() -> None:
        for _ in range(50):
            queue.get().addCallback(got.append)

    at_once(partial(put, 0), get, partial(put, 1), get)

    assert sorted(got) == [(name, number) for name in range(2) for number in range(50)]
    assert (len(queue.pending), len(queue.waiting)) == (0, 0)


@pytest.mark.parametrize("combine", [ours.gatherResults, ours.DeferredList, ours.race])
def test_a_deferred_instead_of_a_list_is_refused(combine: Any) -> None:
    """To iterate over it would wait for it."""
    with pytest.raises(TypeError, match="list of Deferreds"):
        combine(ours.Deferred())


def test_a_manual_clock_times_out() -> None:
    """`addTimeout` takes the library's clock as well as Twisted's."""
    clock = ManualClock()
    deferred: ours.Deferred[None] = ours.Deferred()
    deferred.addTimeout(5, clock).addErrback(lambda failure: failure.type)
    clock.advance(5)
    assert deferred.result is TimeoutError
