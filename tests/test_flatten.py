"""flatten: a handler that returned a future, and what comes in between."""

from __future__ import annotations

import concurrent.futures as cf
import sys

import pytest

from futurechain import INLINE, Future, ProcessPoolExecutor, ThreadPoolExecutor, succeed
from guard import share, within


def test_nesting_costs_the_same_at_any_depth():
    """A stage that nothing waits for is not looked for among those who wait."""

    def steps(depth):
        calls = 0

        def count(frame, event, arg):
            nonlocal calls
            calls += event == "call"

        root = last = Future()
        for _ in range(depth):
            last = succeed(0).then(lambda _, inner=last: inner)
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            last = succeed(0).then(lambda _, inner=last: inner)
        finally:
            sys.setprofile(before)
        root.set_result(5)
        assert last.result(0) == 5
        return calls

    assert steps(1000) == steps(10)


def test_somebody_elses_future_that_takes_no_callback():
    """The stage that returned it fails with that error."""

    class Broken(cf.Future):
        def add_done_callback(self, fn):
            raise RuntimeError("no callbacks")

    with ThreadPoolExecutor(1) as pool:
        stages = [
            succeed(1).then(lambda _: Broken()),
            pool.submit(Broken),
            pool.submit(int).then(lambda _: Broken()),
            INLINE.submit(Broken),
            succeed(1).then(lambda _: Broken(), lambda error: None),
        ]
        for stage in stages:
            assert isinstance(stage.exception(10), RuntimeError)


class AnswersWhenAsked:
    """A handler that returns a pending future, which is settled when somebody asks for the handler's name."""

    def __init__(self, outcome):
        self.inner = Future()
        self.outcome = outcome

    def __call__(self, value):
        return self.inner

    def __getattr__(self, name):
        if name == "__qualname__" and not self.inner.done():
            self.inner.set_result(self.outcome)
        raise AttributeError(name)


@pytest.mark.parametrize("kind", ["threads", "processes"])
@within(15)
def test_a_returned_future_that_is_settled_just_then_holds_up_no_shutdown(kind):
    """A stage that begins to wait for a future, which is settled at that moment, is not waited for any more."""
    with ThreadPoolExecutor(1) if kind == "threads" else ProcessPoolExecutor(1) as pool:
        ends = [pool.submit(int, "1").addCallback(AnswersWhenAsked(number)) for number in range(3)]
    assert [end.result(0) for end in ends] == [0, 1, 2]


@within(60)
def test_recursion_over_a_pool_that_is_shut_down():
    """However the threads of a pool take turns, a chain of returned futures that ends after the block ends that."""

    def step(value):
        return value if value > 100 else pool.submit(int, 2 * value).addCallback(step)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(share(900)):
            with ThreadPoolExecutor(2) as pool:
                end = pool.submit(int, "1").addCallback(step)
            assert end.result(0) == 128
    finally:
        sys.setswitchinterval(interval)
