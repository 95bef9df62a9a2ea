"""Where values wait for a trip to an executor that does not share our memory, and from where the trips are sent.

A station belongs to one flow, whose lock guards what changes here. What is decided under it is done after it.
"""

from __future__ import annotations

import concurrent.futures as cf
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from futurechain.failure import Failure
from futurechain.interrupts import put_off
from futurechain.pipeline import places
from futurechain.pipeline.attempts import Deadline
from futurechain.pipeline.items import LIVE, Item
from futurechain.pipeline.steps import is_stopped
from futurechain.pipeline.trips import TARGET, Report, Trip, TripSize, unpacked

if TYPE_CHECKING:
    from futurechain.pipeline.flow import Flow

    End = Callable[[Callable[[], object]], object]

__all__ = ["TripStation", "trip_through"]


class TripStation:
    """Where items wait for a trip through some steps, and from where the trips are sent.

    Two trips for each worker are inside, so that none waits for us. One that is not full is sent only if a worker has
    nothing to do. What a trip has not begun goes to the front of the queue. When one fails as a whole, because its
    worker died or because something does not pickle, nobody knows whose fault it is: its items travel alone then.
    """

    def __init__(self, flow: Flow, span: range) -> None:
        self.flow = flow
        self.span = span
        steps = [flow.steps[number] for number in span]
        self.executor: cf.Executor = steps[0].executor
        self.workers: int = places.workers_of(self.executor)
        self.most: int = self._most_inside([step.concurrency for step in steps if step.concurrency is not None])
        batch = steps[0].batch
        self.stopped_after: float | None = steps[0].timeout if is_stopped(steps[0]) else None
        alone = self.stopped_after is not None or places.starts_each(self.executor)
        self.size: TripSize = TripSize(
            1 if alone else None if batch == "auto" else int(batch), getattr(self.executor, "trip_seconds", TARGET)
        )
        self.largest: int | None = None if flow.window is None else max(1, flow.window // (2 * self.workers))
        self.trip: Trip = trip_through(flow.steps, span)
        self.queue: deque[Item] = deque()
        self.alone: deque[Item] = deque()
        self.inside: int = 0
        self.wanted: int = self.size.size
        """How many items the next trip takes, if there are as many."""

    def _most_inside(self, bounds: list[int]) -> int:
        """Return how many trips may be inside; a worker runs one item at a time, so the workers are a bound as well."""
        fewest = min(bounds, default=self.workers)
        return 2 * self.workers if fewest >= self.workers else fewest

    # -- sending ------------------------------------------------------------------------------------------------------

    def put(self, item: Item) -> None:
        """Let `item` wait for a trip."""
        with self.flow.lock:
            if item.state is not LIVE:
                return
            if item.step > self.span[0] or item.attempts is not None:  # begun work goes first
                self.queue.appendleft(item)
            else:
                self.queue.append(item)
            if not self.can_send():
                return
        self.fill()

    def fill(self) -> None:
        """Send what can be sent."""
        while True:
            with self.flow.lock:
                items, left = self._choose(), len(self.queue)
            if not items:
                return
            if places.is_watched():
                places.count_queue(self.flow.number, self.trip.__qualname__, left + len(items), left)
            self._send(items)

    def can_send(self) -> bool:
        """Tell whether a trip should be sent. Under the lock."""
        if self.inside >= self.most:
            return False
        length = len(self.queue)
        return bool(self.alone) or length >= self.wanted or (length > 0 and self._may_be_short(length))

    def _may_be_short(self, length: int) -> bool:
        """Tell whether a trip may be sent that is not full: a worker has nothing to do, and not much comes at once."""
        if self.inside >= self.workers:
            return False
        flow = self.flow
        if self.size.fixed is None:
            return not self.inside or flow.exhausted or flow.is_waited_for() or 8 * length >= self.wanted
        # a size that was asked for is kept while another item may still come
        last = flow.exhausted or (flow.is_waited_for() and not self.inside)
        return last and not flow.shelf.is_any_before(self.span[0])

    def _choose(self) -> list[Item]:
        """Take out the items of the next trip; none, if there should be none. Under the lock."""
        if not self.can_send():
            return []
        if self.alone:
            items = [self.alone.popleft()]
        else:
            length, wanted = len(self.queue), self.wanted
            if self.size.fixed is None and length < wanted:  # what there is, for all that have nothing to do
                idle = self.workers - self.inside
                wanted = -(-length // idle)
            items = [self.queue.popleft() for _ in range(min(length, wanted))]
        self.inside += 1
        return items

    def _send(self, items: list[Item]) -> None:
        self.flow.during(items, partial(self._submit, items))

    def _submit(self, items: list[Item], wanted: bool) -> None:
        if not wanted:
            with self.flow.lock:
                self.inside -= 1
            return
        first, flow = self.span[0], self.flow
        values = [item.outcome for item in items]
        starts = None if _all_in(first, items) else [item.step - first for item in items]
        sent = self._count_sent(items, starts)
        with put_off():  # or a Ctrl-C could leave a trip under way of which nobody knows
            try:
                trip = self.trip.of(len(items))
                future = flow.context.copy().run(places.submit, self.executor, trip, values, starts, self.size.seconds)
            except BaseException as error:
                for item in self._withdraw(items):
                    flow.post(flow.refuse, item, Failure(error))
                if not issubclass(type(error), Exception):
                    raise
                return
            deadline = None if self.stopped_after is None else Deadline(future, self.stopped_after)
            flow.watch(future, items, partial(self._back, items, sent, deadline, places.end_of(future)))

    def _count_sent(self, items: Sequence[Item], starts: list[int] | None) -> float:
        now, first = perf_counter(), self.flow.counters[self.span[0]]
        waited = now * len(items) - sum([item.since for item in items])
        with self.flow.lock:
            if starts is None:
                first.in_flight += len(items)
                first.seconds_queued += waited
            else:
                self._count_each(items, now)
        return now

    def _count_each(self, items: Sequence[Item], now: float) -> None:
        counters = self.flow.counters
        for item in items:
            counters[item.step].in_flight += 1
            counters[item.step].seconds_queued += now - item.since

    # -- coming back --------------------------------------------------------------------------------------------------

    def _back(
        self, items: list[Item], sent: float, deadline: Deadline | None, end: End, future: cf.Future[Any]
    ) -> None:
        """Take what a trip has brought back; on a callback thread."""
        try:
            report: Report = future.result()
            values = unpacked(report)
        except BaseException as error:
            overdue = None if deadline is None else deadline.failure
            self._lost(items, overdue or Failure(error), cancelled=future.cancelled())
        else:
            self._arrived(items, report, values, sent)
        finally:
            end(partial(self.flow.leave, future))

    def _arrived(self, items: list[Item], report: Report, values: list[Any], sent: float) -> None:
        flow, end = self.flow, self.span[-1] + 1
        rest = items[report.begun :]
        del items[report.begun :]
        failed = {one.position: one for one in report.failures}
        alone = flow.steps[self.span[0]].retry is not None
        with flow.lock:
            self._learn(report.begun, sum(report.seconds))
            self.inside -= 1
            self._count(items, rest, report, perf_counter() - sent)
            self._return(rest)
        if self.size.fixed is None:
            self.fill()
        if failed or alone:
            for position, (item, value) in enumerate(zip(items, values, strict=True)):
                self._go_on(item, value, failed.get(position), end)
        else:
            self._pass_on(items, values, end)
        if self.size.fixed is not None:  # only now it is known whether more can come to fill the next trip
            self.fill()

    def _learn(self, items: int, seconds: float) -> None:
        """Have the next trips take as many items as suits what this one has taken. Under the lock."""
        self.size.learn(items, seconds)
        if self.size.fixed is None:
            size = self.size.size
            self.wanted = size if self.largest is None else min(size, self.largest)

    def _pass_on(self, items: list[Item], values: list[Any], end: int) -> None:
        if end == len(self.flow.steps):
            self.flow.finish(items, values)
            return
        for item, value in zip(items, values, strict=True):
            item.outcome, item.step = value, end
            self.flow.proceed(item)

    def _go_on(self, item: Item, value: Any, failed: Any, end: int) -> None:
        flow = self.flow
        if failed is not None:
            item.step = self.span[0] + failed.step
            self._fail(item, failed.failure)
        elif flow.steps[item.step].retry is not None:
            if flow.conclude(item, value):
                flow.proceed(item)
        else:
            item.outcome, item.step = value, end
            flow.proceed(item)

    def _fail(self, item: Item, failure: Failure) -> None:
        if self.flow.conclude(item, failure):
            self.flow.proceed(item)

    def _lost(self, items: list[Item], failure: Failure, *, cancelled: bool) -> None:
        """Have the items of a trip that was not made travel alone; a single one fails with the error of the trip."""
        for item in self._withdraw(items, alone=len(items) > 1 and not cancelled):
            self._fail(item, failure)
        self.fill()

    def _withdraw(self, items: list[Item], *, alone: bool = False) -> list[Item]:
        """Note that `items` were not on a trip after all; return those that do not go again, alone."""
        with self.flow.lock:
            self.inside -= 1
            self._uncount(items, alone=alone)
        return [] if alone else items

    def _uncount(self, items: list[Item], *, alone: bool) -> None:
        counters = self.flow.counters
        for item in items:
            counters[item.step].in_flight -= 1
            if alone and item.state is LIVE:
                self.alone.append(item)
            elif item.attempts is None:
                counters[item.step].started += 1

    def _return(self, rest: list[Item]) -> None:
        """Put what the trip has not begun to the front. Under the lock."""
        if rest:
            now = perf_counter()
            for item in rest:
                item.since = now
            self.queue.extendleft(item for item in reversed(rest) if item.state is LIVE)

    def _count(self, begun: list[Item], rest: list[Item], report: Report, away: float) -> None:
        """Count what the trip has done. Under the lock."""
        counters, first = self.flow.counters, self.span[0]
        items = (*begun, *rest)
        if _all_in(first, items):
            counters[first].in_flight -= len(items)
        else:
            for item in items:
                counters[item.step].in_flight -= 1
        on_the_way = max(0.0, away - sum(report.seconds))
        counters[first].seconds_queued += report.waited + on_the_way * len(begun) / 2
        dropped = sum(item.state is not LIVE for item in begun) if self.flow.closed else 0
        for number, (succeeded, seconds) in enumerate(zip(report.succeeded, report.seconds, strict=True), first):
            counters[number].seconds_run += seconds
            if self.flow.steps[number].retry is not None:  # which makes a trip of its own; the policy counts the ends
                counters[number].started += sum(item.attempts is None for item in begun)
            elif self.flow.steps[number].on_result is not None:
                counters[number].succeeded += max(0, succeeded - dropped)
                arrived = succeeded if number == first else max(0, succeeded - dropped)  # those count where it began
                counters[number].started += arrived + sum(one.step == number - first for one in report.failures)

    def prune(self) -> None:
        """Forget the items that were dropped. Under the lock."""
        self.queue = deque(item for item in self.queue if item.state is LIVE)
        self.alone = deque(item for item in self.alone if item.state is LIVE)


def _all_in(number: int, items: Iterable[Item]) -> bool:
    """Tell whether all of `items` are in the step of that number; at once, since there may be a thousand."""
    return {item.step for item in items} == {number}


def trip_through(steps: Sequence[Any], span: range) -> Trip:
    """Return what is called for a trip through `span`; it is called as the steps are."""
    taken = [steps[number] for number in span]
    name = "+".join(step.name for step in taken if step.on_result is not None)
    timeouts = tuple(None if is_stopped(step) else step.timeout for step in taken)
    return Trip(name, tuple(step.on_result for step in taken), timeouts)
