"""Random chains through every way to build them: all must do what the model says, and Deferreds what Twisted's do."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import futurechain
import model
from futurechain import defer
from futurechain.failure import Failure


class Boom(Exception):
    """What fails here; known by its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def normal(outcome: Any) -> model.Outcome:
    """What a handler was given, as the model has it."""
    error = outcome.value if isinstance(outcome, Failure) else outcome
    return ("error", error.number) if isinstance(error, Boom) else ("ok", outcome)


# -- the ways to build a chain ----------------------------------------------------------------------------------------


class Builder:
    """Builds model chains out of real futures, and writes down what their handlers see."""

    def __init__(self) -> None:
        self.path: model.Path = []
        self.late: list[Callable[[], object]] = []

    def run(self, chain: model.Chain) -> model.Outcome:
        """Build the chain and settle everything; the outcome."""
        end = self.build(chain, ())
        while self.late:
            self.late.pop()()
        return self.outcome(end)

    def build(self, chain: model.Chain, name: tuple[int, ...]) -> Any:
        first = end = self.begin()
        for number, stage in enumerate(chain.stages):
            if number == chain.before:
                self.settle(first, chain.start)
            same = stage.on_result is stage.on_error
            on_result = self.handler(stage.on_result, (*name, number))
            end = self.attach(end, on_result, on_result if same else self.handler(stage.on_error, (*name, number)))
        if chain.before is None:
            self.late.append(lambda: self.settle(first, chain.start))
        elif chain.before >= len(chain.stages):
            self.settle(first, chain.start)
        return end

    def handler(self, action: model.Action | None, name: tuple[int, ...]) -> Any:
        if action is None:
            return None

        def handle(outcome: Any) -> Any:
            self.path.append((name, normal(outcome)))
            return self.perform(action, name)

        return handle

    def perform(self, action: model.Action, name: tuple[int, ...]) -> Any:
        match action:
            case model.Return(number):
                return number
            case model.Raise(number):
                raise Boom(number)
            case model.Fail(number):
                return Failure(Boom(number))
            case model.Wait(chain):
                return self.build(chain, name)

    def begin(self) -> Any:
        return futurechain.Future()

    def settle(self, first: Any, start: model.Outcome) -> None:
        first.set_result(start[1]) if start[0] == "ok" else first.set_exception(Boom(start[1]))

    def attach(self, end: Any, on_result: Any, on_error: Any) -> Any:
        raise NotImplementedError

    def outcome(self, end: Any) -> model.Outcome:
        error = end.exception(timeout=0)
        return normal(end.result() if error is None else error)


class Promises(Builder):
    """``then`` and ``catch``."""

    def attach(self, end: Any, on_result: Any, on_error: Any) -> Any:
        if on_result is None and on_error is not None:
            return end.catch(on_error)
        return end.then(on_result) if on_error is None else end.then(on_result, on_error)


class Callbacks(Builder):
    """The Twisted family of `Future`; each future finds the end of its chain."""

    def attach(self, end: Any, on_result: Any, on_error: Any) -> Any:
        if on_result is on_error and on_result is not None:
            return end.addBoth(on_result)
        if on_error is None:
            return end.addCallback(on_result)
        return end.addErrback(on_error) if on_result is None else end.addCallbacks(on_result, on_error)


class Deferreds(Callbacks):
    """`defer.Deferred`."""

    def begin(self) -> Any:
        return defer.Deferred()

    def settle(self, first: Any, start: model.Outcome) -> None:
        first.callback(start[1]) if start[0] == "ok" else first.errback(Boom(start[1]))

    def outcome(self, end: Any) -> model.Outcome:
        found: list[Any] = []
        assert end.addBoth(found.append) is end
        return normal(found[0])


numbers = st.integers(0, 9)
starts = st.tuples(st.sampled_from(["ok", "error"]), numbers)
plain_actions = st.one_of(
    st.builds(model.Return, numbers), st.builds(model.Raise, numbers), st.builds(model.Fail, numbers)
)


@st.composite
def chains(draw: st.DrawFn, depth: int = 2) -> model.Chain:
    """Chains of a few stages, whose handlers may return other chains."""
    actions = st.one_of(plain_actions, st.builds(model.Wait, chains(depth - 1))) if depth else plain_actions
    stages = []
    for _ in range(draw(st.integers(0, 4))):
        on_result = draw(st.none() | actions)
        on_error = draw(st.just(on_result) | st.none() | actions)
        stages.append(model.Stage(on_result, on_error))
    return model.Chain(draw(starts), draw(st.none() | st.integers(0, len(stages))), tuple(stages))


@settings(max_examples=4 * settings.default.max_examples)
@given(chain=chains())
def test_all_ways_do_what_the_model_says(chain: model.Chain) -> None:
    """Promises, callbacks and Deferreds call the same handlers with the same, in one order, to the same end."""
    path: model.Path = []
    outcome = model.run(chain, path)

    for builder in (Promises(), Callbacks(), Deferreds()):
        assert (builder.run(chain), builder.path) == (outcome, path), type(builder).__name__


def test_the_model_knows_the_rules() -> None:
    """The model itself: exactly one of a pair runs, what has no handler passes, a returned chain is followed."""
    inner = model.Chain(("error", 1), None, (model.Stage(model.Return(2), None), model.Stage(None, model.Return(3))))
    chain = model.Chain(
        ("ok", 0),
        None,
        (
            model.Stage(model.Raise(4), model.Return(5)),
            model.Stage(model.Return(6), None),
            model.Stage(None, model.Wait(inner)),
            model.Stage(model.Fail(7), model.Return(8)),
        ),
    )
    path: model.Path = []

    assert model.run(chain, path) == ("error", 7)
    assert path == [((0,), ("ok", 0)), ((2,), ("error", 4)), ((2, 1), ("error", 1)), ((3,), ("ok", 3))]


# -- against Twisted --------------------------------------------------------------------------------------------------


class Play:
    """Three Deferreds of a module, on which operations are performed one after the other."""

    def __init__(self, module: ModuleType, cancellers: tuple[str, ...]) -> None:
        self.module = module
        self.trace: list[Any] = []
        self.acting: int | None = None
        self.returned: set[int] = set()
        self.deferreds = [module.Deferred(self.canceller(kind)) for kind in cancellers]

    def canceller(self, kind: str) -> Any:
        def cancel(deferred: Any) -> None:
            self.trace.append("canceller")
            if kind == "succeeds":
                deferred.callback("graceful")
            elif kind == "fails":
                deferred.errback(Boom(0))

        return None if kind == "none" else cancel

    def perform(self, operation: tuple[Any, ...]) -> None:
        """Perform one operation; write down how it went, and how everything is then."""
        name, index, *rest = operation
        self.acting = None if name == "cancel" else index
        deferred = self.deferreds[index]
        try:
            getattr(self, name)(deferred, index, *rest)
        except self.module.AlreadyCalledError:
            self.trace.append("called already")
        self.trace.append([self.state(one) for one in self.deferreds])

    def end(self) -> None:
        """Settle everything, so that nothing is reported."""
        for index, deferred in reversed(list(enumerate(self.deferreds))):
            for _ in range(deferred.paused):
                self.unpause(deferred, index)
            deferred.cancel()
            deferred.addErrback(lambda _: None)

    def state(self, deferred: Any) -> Any:
        if not deferred.called:
            return "pending", deferred.paused
        return deferred.paused, self.shown(deferred.result)

    def shown(self, outcome: Any) -> Any:
        if outcome in self.deferreds:
            return "deferred", self.deferreds.index(outcome)
        if not hasattr(outcome, "getErrorMessage"):
            return outcome
        return outcome.type.__name__, getattr(outcome.value, "number", None)

    def fire(self, deferred: Any, index: int, number: int) -> None:
        deferred.callback(number)

    def fail(self, deferred: Any, index: int, number: int) -> None:
        deferred.errback(Boom(number))

    def cancel(self, deferred: Any, index: int) -> None:
        deferred.cancel()

    def pause(self, deferred: Any, index: int) -> None:
        if not self.waits(deferred):  # Twisted would forget the callbacks of the one that it waits for
            deferred.pause()

    def unpause(self, deferred: Any, index: int) -> None:
        if deferred.paused > self.waits(deferred):  # what waits for another one is not ours to unpause
            deferred.unpause()

    def waits(self, deferred: Any) -> bool:
        return isinstance(getattr(deferred, "result", None), self.module.Deferred)

    def add(self, deferred: Any, index: int, method: str, action: str, number: int) -> None:
        def handler(outcome: Any) -> Any:
            self.trace.append((index, method, action, self.shown(outcome)))
            if action == "raise":
                raise Boom(number)
            if action == "pass":
                return outcome
            if action == "defer" and self.may_return(index):
                return self.deferreds[index + 1]
            above = self.deferreds[min(index + number % 2, 2)]  # Twisted empties one whose callback is running
            if action == "fire":
                above.callback(number)
            if action == "add":
                self.add(deferred, index, "addBoth", "pass", number)
            if action == "cancel":
                above.cancel()
            return number

        getattr(deferred, method)(handler)


    def may_return(self, index: int) -> bool:
        """Whether a callback may return the next one: not in a ring, and not while that may be running callbacks."""
        if index + 1 == len(self.deferreds) or (index in self.returned and index != self.acting):
            return False
        self.returned.add(index)
        return True


indices = st.integers(0, 2)
operations = st.one_of(
    st.tuples(st.sampled_from(["fire", "fail"]), indices, numbers),
    st.tuples(st.sampled_from(["cancel", "pause", "unpause"]), indices),
    st.tuples(
        st.just("add"),
        indices,
        st.sampled_from(["addCallback", "addErrback", "addBoth"]),
        st.sampled_from(["pass", "return", "raise", "defer", "fire", "add", "cancel"]),
        numbers,
    ),
)
canceller_kinds = st.tuples(*[st.sampled_from(["none", "nothing", "succeeds", "fails"])] * 3)


@settings(max_examples=4 * settings.default.max_examples)
@given(cancellers=canceller_kinds, program=st.lists(operations, max_size=12))
def test_deferreds_do_what_twisteds_do(cancellers: tuple[str, ...], program: list[tuple[Any, ...]]) -> None:
    """Any operations on three Deferreds that may wait for each other leave ours and Twisted's in the same state."""
    twisted = pytest.importorskip("twisted.internet.defer")
    plays = [Play(module, cancellers) for module in (defer, twisted)]
    for operation in program:
        for play in plays:
            play.perform(operation)
        assert plays[0].trace == plays[1].trace
    for play in plays:
        play.end()
