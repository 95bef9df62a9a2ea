"""What costs the square of its size if it is written carelessly: each piece of it is to cost the same among many.

`SHAPES` has them by name; `growth_samples` times a piece among many and among few. What an exception costs where it is
raised is here, too: messages that walk along a chain make it grow with the chain.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter_ns
from typing import Any

from benchmarks.measure import Sample, Work, time_sample
from benchmarks.peers import BY_HAND, OURS, ours
from benchmarks.pools import nothing
from benchmarks.scenarios import by_name
from futurechain import Future, ensure_future, some, succeed

__all__ = ["SHAPES", "growth_samples", "raising_samples"]

CHAINS = 20
"""How many are timed for one sample of a raise, which is one event in each."""


def awaiting_each_other(count: int) -> Work:
    """Have each coroutine await the one before."""

    def run() -> None:
        source = end = Future[Any]()
        for _ in range(count):
            end = ensure_future(_await(end))
        source.set_result(0)
        end.result(0)

    return Work(run, count)


def awaiting_one_tail(count: int) -> Work:
    """Have all coroutines await the end of one chain."""
    source = Future[Any]()
    tail = source.then(nothing).then(nothing)

    def run() -> None:
        ends = [ensure_future(_await(tail)) for _ in range(count)]
        source.set_result(0)
        ends[-1].result(0)

    return Work(run, count)


def returning_one_pending_tail(count: int) -> Work:
    """Have each handler return the end of what there is, which is pending, and go on behind it."""

    def run() -> None:
        source = tail = Future[Any]()
        for _ in range(count):
            tail = succeed(0).then(_returning(tail)).then(nothing)
        source.set_result(0)
        tail.result(0)

    return Work(run, count)


def cancelling_branches(count: int) -> Work:
    """Cancel all branches of a future, the oldest first."""
    source = Future[Any]()
    branches = [source.then(nothing) for _ in range(count)]
    return Work(partial(_cancel_all, branches, source), count)


def cancelling_who_waits_for_one(count: int) -> Work:
    """Cancel all stages that wait for one returned future."""
    inner = Future[Any]()
    stages = [succeed(0).then(_returning(inner)) for _ in range(count)]
    return Work(partial(_cancel_all, stages, inner), count)


def half_of_them(count: int) -> Work:
    """Wait for half of many futures."""
    futures = [Future[Any]() for _ in range(count)]

    def run() -> None:
        end = some(count // 2, *futures)
        for future in futures[: count // 2]:
            future.set_result(0)
        end.result(0)

    return Work(run, count)


SHAPES: dict[str, Callable[[int], Work]] = {
    "coroutines, each awaits the one before": awaiting_each_other,
    "coroutines that await one tail": awaiting_one_tail,
    "handlers that return one pending tail": returning_one_pending_tail,
    "branches cancelled, oldest first": cancelling_branches,
    "cancelled stages that wait for one future": cancelling_who_waits_for_one,
    "some(n/2, *n)": half_of_them,
}


def growth_samples(name: str, many: int, few: int) -> dict[str, Sample]:
    """Return what times a piece among many, and a piece among few: that as often as it takes to have as many."""
    shape = SHAPES[name]

    def again() -> Work:
        works = [shape(few) for _ in range(many // few)]
        return Work(lambda: [work.run() for work in works], many)

    return {OURS: time_sample(partial(shape, many)), BY_HAND: time_sample(again)}


def raising_samples(length: int) -> dict[str, Sample]:
    """Return what times the first stage of a chain, attached and run, if it raises; and any stage if all return."""

    def raising() -> float:
        gc.collect()
        gc.disable()
        try:
            return statistics.median(_time_a_raise(length) for _ in range(CHAINS))
        finally:
            gc.enable()

    return {OURS: raising, BY_HAND: time_sample(partial(by_name("chain").make, ours(), length))}


def _time_a_raise(length: int) -> float:
    marks: list[int] = []

    def bad(value: object) -> object:
        marks.append(perf_counter_ns())
        raise ValueError(value)

    source = Future[Any]()
    began = perf_counter_ns()
    end = source.then(bad)
    attached = perf_counter_ns() - began
    end = end.catch(lambda _: marks.append(perf_counter_ns()))
    for _ in range(length - 2):
        end = end.then(nothing)
    source.set_result(0)
    raised, caught = marks
    return attached + caught - raised


async def _await(future: Future[Any]) -> Any:
    return await future


def _returning(future: Future[Any]) -> Callable[[object], Future[Any]]:
    return lambda _: future


def _cancel_all(futures: Iterable[Future[Any]], shared: Future[Any]) -> None:
    for future in futures:
        future.cancel()
    assert shared.cancelled()  # since nobody waits for it any more
