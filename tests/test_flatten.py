"""flatten: a handler that returned a future, and what comes in between."""

from __future__ import annotations

import concurrent.futures as cf
import sys

from futurechain import INLINE, Future, ThreadPoolExecutor, succeed


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
