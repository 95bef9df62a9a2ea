"""A whole world of futures, whatever is done to it, is at each moment what a plain model says.

``python -m tests.test_world --examples N`` makes many worlds; the normal run of the tests makes some.
"""

from __future__ import annotations

import argparse
import concurrent.futures as cf
import logging
from collections import Counter, deque

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import futurechain
from futurechain.errors import BrokenExecutor, CancelledError, InvalidStateError
from futurechain.testing import ManualClock
from tests import inside
from tests import world_model as model
from tests.world_model import Action


class Boom(Exception):
    """What a handler raises; known by the name of its stage."""


class Lost(Exception):
    """What an executor says of what it had when it broke; a standard one's error is carried on by other threads."""


class Call(cf.Future):
    """A future that is no standard pool's: it may be cancelled."""


class Manual(cf.ThreadPoolExecutor):
    """An executor that does nothing by itself."""

    def __init__(self):
        super().__init__(1)
        self.calls = deque()
        self.refuses = self.broken = False

    def submit(self, fn, /, *args, **kwargs):
        if self.broken:
            raise BrokenExecutor("broken")
        if self.refuses:
            raise RuntimeError("refused")
        future = Call()
        self.calls.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run_next(self):
        while self.calls:
            future, call = self.calls.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
                return

    def break_down(self):
        self.broken = True
        while self.calls:
            future, _ = self.calls.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(Lost("broken"))

    def waiting(self):
        return sum(not future.cancelled() for future, _ in self.calls)


def told(error):
    """The name that the model has for an error."""
    match error:
        case Boom():
            return error.args[0]
        case CancelledError():
            return "cancelled"
        case TimeoutError():
            return "timeout"
        case BrokenExecutor() | Lost():
            return "broken"
        case BaseExceptionGroup():
            return ("group", *map(told, error.exceptions))
        case TypeError() if "cycle" in str(error):
            return "cycle"
        case RuntimeError():
            return "refused"
    return repr(error)


def told_outcome(value):
    """What a handler was given, as the model has it."""
    if isinstance(value, futurechain.Failure):
        value = value.value
    return ("error", told(value)) if isinstance(value, BaseException) else ("ok", told_value(value))


def told_value(value):
    if isinstance(value, (tuple, list)):
        return tuple(told(one) if isinstance(one, BaseException) else told_value(one) for one in value)
    return value


def outcome_of(future):
    """The outcome of a future, as the model has it."""
    if not future.done():
        return None
    try:
        error = future.exception(0)
    except CancelledError as cancelled:
        error = cancelled
    return ("ok", told_value(future.result(0))) if error is None else ("error", told(error))


INDEX = st.integers(0, 7)
"""One of the youngest futures: so that something happens to each."""
KIND_OF_ACTION = st.sampled_from(["return", "return", "raise", "wait", "wait", "attach"])
ACTION = st.tuples(KIND_OF_ACTION, INDEX)
SIDES = st.sampled_from([("ok",), ("ok",), ("error",), ("ok", "error"), ()])
PLACE = st.sampled_from(["same", "same", "inline", 0, 1])
SECONDS = st.integers(0, 5)
KIND_OF_GROUP = st.sampled_from(["gather", "settled", "race", "first", "some"])


def step(condition=lambda self: True, **arguments):
    """A rule that holds as long as the model knows what happens."""

    def decorate(method):
        known = precondition(lambda self: not self.model.is_open and condition(self))
        return known(rule(**arguments)(method))

    return decorate


class World(RuleBasedStateMachine):
    """The library and the model, side by side."""

    @initialize(beginning=st.sampled_from(["bare", "forward", "forward", "nested", "pool", "group", "clean"]))
    def begin(self, beginning):
        self.clock = ManualClock().__enter__()
        self.real = {}
        self.log = []
        self.model = model.World()
        self.manuals = [Manual(), Manual()]
        self.executors = [futurechain.wrap_executor(manual) for manual in self.manuals]
        self.models = [model.Executor(), model.Executor()]
        self.bare("f0")
        getattr(self, f"begin_{beginning}")()

    def begin_bare(self):
        pass

    def begin_forward(self):
        """A stage that is waited for, and that will wait for another one."""
        self.bare("f1")
        self.then(1, ("ok",), ("wait", 0), ("return", 0), "same")
        self.adopt(0)

    def begin_nested(self):
        for _ in range(3):
            self.adopt(0)

    def begin_pool(self):
        self.submit(0, ("return", 0))
        self.then(0, ("ok",), ("wait", 1), ("return", 0), "same")
        self.then(0, ("ok",), ("return", 0), ("return", 0), "inline")

    def begin_group(self):
        self.bare("f1")
        self.combine("gather", [0, 1])
        self.then(0, ("ok",), ("return", 0), ("return", 0), "same")

    def begin_clean(self):
        self.bare("f1")
        self.finally_(1, ("wait", 0), "same")

    def teardown(self):
        if hasattr(self, "real"):
            try:
                self.settle_all()
            finally:
                self.clock.__exit__()
            assert [name for name, one in self.real.items() if not one.done()] == []
            assert {name: left for name, one in self.real.items() if (left := inside.left_in(one))} == {}
            assert inside.left_in_this_thread() == []

    def settle_all(self):
        """Let everything come to its end."""
        for number, manual in enumerate(self.manuals):
            manual.refuses = self.models[number].refuses = False
        for name in [name for name, one in self.model.futures.items() if one.kind == "bare"]:
            self.settle(name, "set_result")
        self.advance(100)
        while any(manual.calls for manual in self.manuals):
            for number in range(2):
                self.run_next(number)
        self.model_is_right()

    @invariant()
    def model_is_right(self):
        """Each future has the outcome, each handler what it was given, each executor the queue that the model says."""
        if not hasattr(self, "real") or self.model.is_open:
            return
        expected = {name: one.outcome for name, one in self.model.futures.items()}
        assert {name: outcome_of(one) for name, one in self.real.items()} == expected
        ends = {name: one.end.name for name, one in self.model.futures.items()}
        assert [name for name, end in ends.items() if self.real[name].final is not self.real[end]] == []
        assert Counter(self.log) == Counter(self.model.log)
        assert self.model.in_order(self.log) == self.model.in_order(self.model.log)
        assert [manual.waiting() for manual in self.manuals] == [len(one.queue) for one in self.models]

    # -- what is chosen -----------------------------------------------------------------------------------------------

    def name(self, index):
        """The name of one of the futures that there are."""
        names = list(self.model.futures)[::-1]
        return names[index % len(names)]

    def action(self, action):
        kind, index = action
        return Action(kind, self.name(index) if kind in {"wait", "attach"} else None)

    def fresh(self):
        return f"f{len(self.model.futures)}"

    def place(self, place):
        """An executor: the argument for the library, and that for the model."""
        if place == "same":
            return {}, "same"
        if place == "inline":
            return {"on": futurechain.INLINE}, model.INLINE
        return {"on": self.executors[place]}, self.models[place]

    def handler(self, name, action, what=None):
        """The real handler that does `action`."""

        def handle(*args):
            if what == "finally":
                self.log.append((name, what, None))
            else:
                outcome = told_outcome(args[0]) if args else ("ok", None)
                self.log.append((name, outcome[0], outcome))
            return self.perform(name, action)

        return handle

    def perform(self, name, action):
        if action.kind == "wait":
            return self.real[action.target]
        if action.kind == "raise":
            raise Boom(name)
        if action.kind == "attach":
            added = f"{name}+"
            self.real[added] = self.real[action.target].then(self.handler(added, Action("return")))
        return name

    def may_attach(self, parent, place):
        """Whether it is said what happens: what is attached late, to what is still open, may be inside or outside."""
        executor = self.model.futures[parent].executor if place == "same" else place
        return executor is model.INLINE or not executor.closed or self.model.futures[parent].outcome is not None

    # -- futures that somebody else settles ---------------------------------------------------------------------------

    @rule()
    def make_bare(self):
        self.bare(self.fresh())

    def bare(self, name):
        self.real[name] = futurechain.Future()
        self.model.add(name, "bare")

    @step(index=INDEX, method=st.sampled_from(["set_result", "set_exception"]))
    def settle_one(self, index, method):
        name = self.name(index)
        if self.model.futures[name].kind == "bare":
            self.settle(name, method)

    def settle(self, name, method):
        expected = self.model.futures[name]
        refused = expected.outcome is not None
        try:
            getattr(self.real[name], method)(name if method == "set_result" else Boom(name))
        except InvalidStateError:
            assert refused or self.model.is_open
            return
        assert not refused or self.model.is_open
        self.model.settle(expected, ("ok" if method == "set_result" else "error", name))
        self.model.work_off()

    # -- stages -------------------------------------------------------------------------------------------------------

    @step(index=INDEX, sides=SIDES, first=ACTION, second=ACTION, place=PLACE)
    def then(self, index, sides, first, second, place):
        parent, name = self.name(index), self.fresh()
        keywords, executor = self.place(place)
        if not self.may_attach(parent, executor):
            return
        actions = {side: self.action(action) for side, action in zip(sides, (first, second), strict=False)}
        handlers = [self.handler(name, actions[side]) if side in actions else None for side in ("ok", "error")]
        self.real[name] = self.real[parent].then(*handlers, **keywords)
        self.model.then(name, self.model.futures[parent], actions, executor)
        self.model.work_off()

    @step(index=INDEX, action=ACTION, place=PLACE)
    def finally_(self, index, action, place):
        parent, name, action = self.name(index), self.fresh(), self.action(action)
        keywords, executor = self.place(place)
        if not self.may_attach(parent, executor):
            return
        self.real[name] = self.real[parent].finally_(self.handler(name, action, "finally"), **keywords)
        self.model.then(name, self.model.futures[parent], {"finally": action}, executor)
        self.model.work_off()

    @step(index=INDEX, sides=SIDES, first=ACTION, second=ACTION)
    def add_callbacks(self, index, sides, first, second):
        future, name = self.name(index), self.fresh()
        actions = {side: self.action(action) for side, action in zip(sides, (first, second), strict=False)}
        handlers = [self.handler(name, actions[side]) if side in actions else None for side in ("ok", "error")]
        self.real[name] = self.real[future].addCallbacks(*handlers)
        self.model.add_callbacks(name, self.model.futures[future], actions)
        self.model.work_off()

    @step(index=INDEX, action=ACTION)
    def add_callback(self, index, action):
        future, name, action = self.name(index), self.fresh(), self.action(action)
        self.real[name] = self.real[future].addCallback(self.handler(name, action))
        self.model.add_callbacks(name, self.model.futures[future], {"ok": action})
        self.model.work_off()

    @step(index=INDEX)
    def add_done_callback(self, index):
        name = self.name(index)
        callback = model.Callback(self.model, "callback")
        self.real[name].add_done_callback(lambda future: self.log.append((name, "callback", outcome_of(future))))
        future = self.model.futures[name]
        future.dependents.append(callback) if future.outcome is None else callback.fire(future)

    @step(index=INDEX)
    def adopt(self, index):
        """A stage that waits for a returned future at once."""
        name, action = self.fresh(), Action("wait", self.name(index))
        parent = f"{name} before"
        self.real[parent] = futurechain.succeed(parent)
        self.model.add(parent, "settled").outcome = ("ok", parent)
        self.real[name] = self.real[parent].then(self.handler(name, action))
        self.model.then(name, self.model.futures[parent], {"ok": action})

    @step(index=INDEX)
    def shield(self, index):
        parent, name = self.name(index), self.fresh()
        self.real[name] = self.real[parent].shield()
        self.model.shield(name, self.model.futures[parent])

    # -- time ---------------------------------------------------------------------------------------------------------

    @step(index=INDEX, seconds=SECONDS)
    def timeout(self, index, seconds):
        parent, name = self.name(index), self.fresh()
        self.real[name] = self.real[parent].timeout(seconds)
        self.model.timeout(name, self.model.futures[parent], seconds)

    @step(seconds=SECONDS)
    def delay(self, seconds):
        name = self.fresh()
        self.real[name] = futurechain.delay(seconds, name)
        self.model.delay(name, seconds, name)

    @step(seconds=SECONDS)
    def advance(self, seconds):
        self.clock.advance(seconds)
        self.model.advance(seconds)
        self.model.work_off()

    # -- several ------------------------------------------------------------------------------------------------------

    @step(kind=KIND_OF_GROUP, parts=st.lists(INDEX, min_size=1, max_size=4))
    def combine(self, kind, parts):
        names, name = [self.name(index) for index in parts], self.fresh()
        wanted = 1 + parts[0] % len(parts) if kind == "some" else 1
        futures = [self.real[one] for one in names]
        if kind == "settled":
            self.real[name] = futurechain.gather(*futures, return_exceptions=True)
        else:
            self.real[name] = getattr(futurechain, kind)(*([wanted] if kind == "some" else []), *futures)
        self.model.combine(name, kind, [self.model.futures[one] for one in names], wanted)
        self.model.work_off()

    # -- cancelling ---------------------------------------------------------------------------------------------------

    @step(index=INDEX)
    def cancel(self, index):
        name = self.name(index)
        assert self.real[name].cancel() is self.model.cancel(self.model.futures[name])
        self.model.work_off()

    # -- executors ----------------------------------------------------------------------------------------------------

    @step(number=st.integers(0, 1), action=ACTION)
    def submit(self, number, action):
        executor, name, action = self.models[number], self.fresh(), self.action(action)
        if executor.broken or executor.refuses or executor.closed:
            with pytest.raises(RuntimeError):
                self.executors[number].submit(self.handler(name, action))
            return
        self.real[name] = self.executors[number].submit(self.handler(name, action))
        self.model.submit(name, executor, action)

    @step(number=st.integers(0, 1))
    def run_next(self, number):
        before = len(self.log)
        self.manuals[number].run_next()
        ran = self.log[before:]
        if ran and not self.model.is_open:
            self.model.run_queued(self.models[number], ran[0][0])  # what was queued is the first to be logged
        self.model.work_off()

    @step(number=st.integers(0, 1), trouble=st.sampled_from(["refuse", "refuse", "break_down", "shut_down"]))
    def make_trouble(self, number, trouble):
        manual, expected = self.manuals[number], self.models[number]
        if trouble == "refuse":
            manual.refuses = expected.refuses = not manual.refuses
        elif trouble == "shut_down":
            self.executors[number].shutdown(wait=False)
            expected.closed = True
        else:
            manual.break_down()
            self.model.break_down(expected)
            self.model.work_off()


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=300, stateful_step_count=25)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.test_world", description=__doc__)
    parser.add_argument("--examples", type=int, default=3000, help="how many worlds to make")
    parser.add_argument("--steps", type=int, default=40, help="how much is done to each")
    given = parser.parse_args()
    logging.getLogger("futurechain").setLevel(logging.CRITICAL)  # failures that nobody looks at are a part of it
    run_state_machine_as_test(
        World,
        settings=settings(
            max_examples=given.examples,
            stateful_step_count=given.steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    print(f"{given.examples} worlds, and the model was right about each")


if __name__ == "__main__":
    main()
