"""adoption: a handler that returned a future, and what comes in between."""

from __future__ import annotations

import concurrent.futures as cf
import sys
import threading

import pytest

from futurechain import INLINE, Future, ThreadPoolExecutor, ensure_future, gather, succeed
from futurechain.core import flatten as adoption


@pytest.fixture
def at_the_swap(monkeypatch):
    """Stop a stage between its look at those who wait for it and the new list of these."""
    arrived, go_on = threading.Event(), threading.Event()
    forward = adoption._forward

    def held(stage, inner):
        arrived.set()
        assert go_on.wait(10)
        return forward(stage, inner)

    monkeypatch.setattr(adoption, "_forward", held)
    return arrived, go_on


def wait_in_a_thread(task, seen):
    thread = threading.Thread(target=lambda: seen.append(task.result(10)))
    thread.start()
    while not task._link:
        pass


def await_it(task, seen):
    async def reader():
        seen.append(await task)

    ensure_future(reader())


WAYS = {
    "result": wait_in_a_thread,
    "callback": lambda task, seen: task.add_done_callback(lambda done: seen.append(done.result())),
    "stage": lambda task, seen: task.then(seen.append, on=INLINE),
    "gather": lambda task, seen: gather(task).then(seen.extend),
    "await": await_it,
    "wait": lambda task, seen: threading.Thread(
        target=lambda: seen.append(next(iter(cf.wait([task], 10).done)).result())
    ).start(),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_who_comes_at_the_swap_is_not_lost(way, at_the_swap):
    """Whoever attaches between the look and the swap is told all the same, once."""
    arrived, go_on = at_the_swap
    inner, seen = Future(), []
    with ThreadPoolExecutor(2) as pool:
        task = pool.submit(lambda: inner)
        assert arrived.wait(10)
        WAYS[way](task, seen)
        go_on.set()
        while not inner._link or len(inner._link) < 2:
            pass
        inner.set_result(7)
        assert task.result(10) == 7
    deadline = threading.Event()
    while not seen and not deadline.wait(0.001):
        pass
    assert seen == [7]


@pytest.mark.parametrize("branches", [0, 2])
def test_a_future_that_is_settled_while_it_is_adopted(branches, monkeypatch):
    """What attached to the stage meanwhile is run: the stage's list of dependents is another one then."""
    root, inner, late = Future(), Future(), []
    stage = root.then(lambda _: inner)
    others = [root.then(int) for _ in range(branches)]
    attach = adoption.attach

    def slow(future, entry, **options):
        if future is inner:
            late.append(stage.then(str))
            inner.set_result(7)
        return attach(future, entry, **options)

    monkeypatch.setattr(adoption, "attach", slow)
    root.set_result(1)
    assert [stage.result(0), late[0].result(0), *(other.result(0) for other in others)] == [7, "7", *[1] * branches]


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
