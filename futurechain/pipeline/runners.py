"""Tasks on a pool that shares our memory, each of which runs the steps of one item after the other.

A task for each item would cost more than the steps do. So a flow has at most one runner for each worker of the pool.
A runner ends when nothing is queued, and goes to the end of the pool's queue after its turn, so that others get
theirs. An item holds a worker just as long as it would without.
"""

from __future__ import annotations

import concurrent.futures as cf
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING, Any

from futurechain.failure import Failure
from futurechain.pipeline import places
from futurechain.pipeline.running import is_undone, takes

if TYPE_CHECKING:
    from futurechain.pipeline.flow import Flow
    from futurechain.pipeline.items import Item

__all__ = ["Runners"]

TURN = 0.010
"""Seconds after which a runner lets others come first."""


class Runners:
    """The runners of a flow on one pool, and the items that wait for them; iterates over these."""

    def __init__(self, flow: Flow, executor: cf.Executor) -> None:
        self.flow = flow
        self.executor = executor
        self.most: int = places.workers_of(executor)
        self.active: int = 0
        """How many are queued or running."""
        self.name: str = "+".join(step.name for step in flow.steps if step.executor is executor)
        self._turn = _Turn(self, self.name)
        self.begun: deque[Item] = deque()
        self.fresh: deque[Item] = deque()

    def __iter__(self) -> Iterator[Item]:
        return chain(self.begun, self.fresh)

    def put(self, item: Item) -> None:
        """Have `item` run in its step; begun work goes first."""
        with self.flow.lock:
            (self.begun if item.step else self.fresh).append(item)
            if self.active >= self.most:
                return
            self.active += 1
        self._hire()

    def _hire(self) -> None:
        self.flow.during(self, self._submit)

    def _submit(self, _: bool) -> None:
        token = [None]
        try:
            task = self.flow.context.copy().run(places.submit, self.executor, self._turn, token)
        except BaseException as error:
            self._refused(Failure(error))
            if not issubclass(type(error), Exception):
                raise
            return
        self.flow.watch(task, self, partial(self._left, token))

    def work(self) -> None:
        """Run items until there are none, or the turn is over; the body of a task.

        It enters itself: a Ctrl-C may have kept who submitted it from doing so.
        """
        self.flow.during(self, self._work)

    def _work(self, _: bool) -> None:
        flow, until = self.flow, perf_counter() + TURN
        self._count()
        while (item := self._next()) is not None:
            flow.context.copy().run(flow.local[item.step].resume, item)
            del item
            if perf_counter() > until:
                self._count()
                self._hire()
                return
        self._count()

    def _count(self) -> None:
        if places.is_watched():
            places.count_queue(self.flow.number, self.name, len(self.begun) + len(self.fresh))

    def _next(self) -> Item | None:
        with self.flow.lock:
            if self.begun:
                return self.begun.popleft()
            if self.fresh:
                return self.fresh.popleft()
            self.active -= 1
            return None

    def _left(self, token: list[None], task: cf.Future[Any]) -> None:
        """Replace a runner that never ran: it was cancelled, or the pool has ended or broken."""
        if is_undone(task, token):
            with self.flow.lock:
                unwanted = self._take_unwanted()
            if unwanted is None:
                self._hire()
            else:
                for item in unwanted:
                    self.flow.local[item.step].resume(item)  # which gives its slot back
        self.flow.leave(task)

    def _take_unwanted(self) -> list[Item] | None:
        """Take out what waits, for a runner that ends; None if something of it is wanted. Under the lock."""
        if any(self.flow.is_wanted(item) for item in self):
            return None
        unwanted = [*self]
        self.begun.clear()
        self.fresh.clear()
        self.active -= 1
        return unwanted

    def _refused(self, failure: Failure) -> None:
        """Let what waits fail; on callback threads, since this may be the consumer's."""
        while (item := self._next()) is not None:
            self.flow.post(self.flow.local[item.step].refuse, item, failure)


class _Turn:
    """The work of a runner, with a name that a trace can show."""

    __slots__ = ("__qualname__", "_runners")

    def __init__(self, runners: Runners, name: str) -> None:
        self._runners = runners
        self.__qualname__ = name

    def __call__(self, token: list[None]) -> None:
        if takes(token):
            self._runners.work()
