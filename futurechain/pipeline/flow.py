"""The items of one stream, between "read" and "handed to the consumer".

Theory of operation
-------------------
An item is moved by whoever has brought it further, a worker, a callback thread or the consumer, in `proceed`: past the
steps that have nothing to do for its outcome, into the station of the next one. It is LIVE until it is DONE, with
its last outcome, or DROPPED, because nobody can want it any more. Whoever changes this state does so under the
lock, and is the only one to count the item.

The mutable state is here, in `items` and in `running`; ``lock`` guards it, that of the stations, and the state of the
items. Under the lock is decided; submitting, cancelling, waking and user code come after it.

Ctrl-C may come between any two instructions. No loop stands directly inside of a ``with`` for a lock, but in a function
that is called there: CPython 3.13 lets a KeyboardInterrupt at the jump back of some loops past the ``with``, and the
lock would stay taken.
"""

from __future__ import annotations

import concurrent.futures as cf
import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context, copy_context
from itertools import count, repeat
from time import perf_counter
from typing import Any

from futurechain.executors.inline import INLINE
from futurechain.failure import Failure
from futurechain.future import Future
from futurechain.pipeline import places
from futurechain.pipeline.attempts import Attempts, outcome_of
from futurechain.pipeline.items import DONE, DROPPED, LIVE, Item, Shelf
from futurechain.pipeline.runners import Runners
from futurechain.pipeline.running import Running, cancel_all, wake
from futurechain.pipeline.stations import LocalStation
from futurechain.pipeline.statistics import Counters, StepStatistics
from futurechain.pipeline.steps import Step, fused
from futurechain.pipeline.trip_stations import TripStation

__all__ = ["Flow"]

PENDING = object()
FEWEST = 16
"""Items in the default window at least."""


class Flow:
    """The items of one stream, and the stations that they go through."""

    def __init__(
        self, steps: tuple[Step, ...], *, window: int | None, ordered: bool, return_exceptions: bool
    ) -> None:
        self.number: int = next(_numbers)
        """What tells it from other streams, in traces."""
        self.steps = steps
        self.window = window
        self.return_exceptions = return_exceptions
        self.context: Context = copy_context()
        self.lock: threading.Lock = threading.Lock()
        self.counters: list[Counters] = [Counters(step.name) for step in steps]
        self.local: list[LocalStation] = [LocalStation(self, number) for number in range(len(steps))]
        self.trips: list[TripStation | None] = self._trip_stations()
        self.runners: dict[cf.Executor, Runners] = {
            step.executor: Runners(self, step.executor) for step in steps if step.shared
        }
        self._has_inline = any(step.executor is INLINE for step in steps)
        """Whether the consumer's thread may run steps; who closes the stream meanwhile waits for that."""
        self._has_fixed = any(station is not None and station.size.fixed is not None for station in self.trips)
        self.shelf: Shelf = Shelf(ordered=ordered, return_exceptions=return_exceptions)
        self.is_ready: Callable[[], bool] = self.shelf.is_ready
        self.live: int = 0
        self.finished: int = 0
        self.failed: int = 0
        self.closed: bool = False
        """Whether nothing may come in any more."""
        self.exhausted: bool = False
        """Whether nothing will come in any more."""
        self.running: Running = Running(self.lock)
        self.enter: Callable[[Any, Iterable[Item]], bool] = self.running.enter
        self.during: Callable[[Iterable[Item], Callable[[bool], object]], None] = self.running.during
        self.watch: Callable[[Any, Iterable[Item], Callable[[Any], object]], None] = self.running.watch
        self.leave: Callable[[Any], None] = self.running.leave
        self.inside: list[int] = []
        """The threads that are in a step."""
        self.post: Callable[..., None] = self.running.post
        self._consumer: Future[None] | None = None
        """What the consumer waits for, if it does."""

    def _trip_stations(self) -> list[TripStation | None]:
        """Return for each step the station where values wait for a trip through it."""
        found: list[TripStation | None] = [None] * len(self.steps)
        for number, step in enumerate(self.steps):
            if step.kind == "then" and step.on_result is not None and not step.shared and found[number] is None:
                span = fused(self.steps, number)
                station = TripStation(self, span)
                for one in span:
                    found[one] = station
        return found

    # -- the consumer's side ------------------------------------------------------------------------------------------

    def limit(self) -> int:
        """Return how many items may be inside."""
        if self.window is not None:
            return self.window
        distinct = {step.executor: 4 * places.workers_of(step.executor) for step in self.steps if step.shared}
        asked = sum(step.concurrency or 0 for step in self.steps)
        trips = sum(4 * station.workers * station.size.size for station in {*self.trips} if station is not None)
        return max(FEWEST, sum(distinct.values()) + trips, 2 * asked)

    def push(self, value: Any) -> None:
        """Let an item in."""
        item = Item(value, perf_counter())
        station = self.trips[0]
        with self.lock:
            if self.closed:
                return
            self.live += 1
            self.shelf.put(item)
            if station is not None:
                station.queue.append(item)
                # What `can_send` would say of most items; to ask it would cost more than all else here.
                if station.inside >= station.workers and len(station.queue) < station.wanted:
                    return
                if not station.can_send():
                    return
        if station is not None:
            station.fill()
        elif self._has_inline:
            self.during((item,), lambda _: self.proceed(item))
        else:
            self.proceed(item)

    def end_of_input(self) -> None:
        """Note that no item will follow."""
        with self.lock:
            self.exhausted = True
        self.flush()

    def flush(self) -> None:
        """Let the trips go that have waited for more items: none may come."""
        for station in {*self.trips}:
            if station is not None:
                station.fill()

    def take(self, most: int) -> list[Any]:
        """Return outcomes that are ready, in their order; a failure that ends the stream comes alone."""
        with self.lock:
            return self.shelf.take(most)

    def waiter(self) -> Future[None] | None:
        """Return what is settled when something is ready; None if that is so already, or nothing will be."""
        with self.lock:
            if self.is_ready() or not self.live:  # closed meanwhile
                return None
            consumer = self._consumer = Future()
        self.flush()
        return consumer

    def is_wanted(self, item: Item) -> bool:
        """Tell whether somebody may still want `item`."""
        return item.state is LIVE

    def is_waited_for(self) -> bool:
        """Tell whether the consumer waits. Under the lock."""
        return self._consumer is not None

    # -- moving items -------------------------------------------------------------------------------------------------

    def proceed(self, item: Item, at: cf.Executor = INLINE) -> None:
        """Bring `item` further, in a thread that works for `at`, until it has to wait, or is done."""
        steps, count = self.steps, len(self.steps)
        while True:
            outcome, number = item.outcome, item.step
            while number < count and not steps[number].handles(outcome):
                number += 1
            jumps, item.step = number > item.step, number
            if number == count:
                self.finish((item,))
                return
            if jumps and self._has_fixed:  # past a trip, perhaps, that was to be filled
                self.flush()
            step = steps[number]
            item.since = perf_counter()
            trips = self.trips[number]
            if trips is not None and step.travels(outcome):
                trips.put(item)
                return
            station = self.local[number]
            if station.most is not None and not station.enter(item):
                return
            if not station.belongs_to(at):
                station.start(item)
                return
            if not station.run(item):
                return

    def conclude(self, item: Item, outcome: Any) -> bool:
        """Take `outcome` for that of the step that `item` is in, or for one run of it; True if the item can go on."""
        step = self.steps[item.step]
        if step.retry is None or type(item.outcome) is Failure:  # a handler of errors is not tried again
            return self.settle(item, outcome)
        attempts = item.attempts
        if attempts is None:
            if not self.is_wanted(item):
                return False
            attempts = item.attempts = Attempts(
                step.retry,
                lambda: self._try_again(item),
                lambda last: self._tried(item, last),
                lambda: self.is_wanted(item),
            )
        attempts.offer(outcome)
        future = attempts.future  # None, if the thread of the first run is just asking the policy; it will enter it
        if future is not None and not future.done():
            self.enter(future, (item,))
            if future.done():
                self.leave(future)
        return False

    def _try_again(self, item: Item) -> None:
        self.post(self.proceed, item)

    def _tried(self, item: Item, last: cf.Future[Any]) -> None:
        try:
            is_asked = item.attempts is not None and item.attempts.future is last  # else the step was given up
            if is_asked and self.settle(item, outcome_of(last)):
                self.proceed(item)
        finally:
            self.leave(last)

    def refuse(self, item: Item, failure: Failure) -> None:
        """Let `item` fail without having run: its executor takes no more, and no policy can change that."""
        attempts = item.attempts
        if self.settle(item, failure):
            if attempts is not None:
                attempts.give_up()
            self.proceed(item)

    def settle(self, item: Item, outcome: Any) -> bool:
        """Make `outcome` that of the step that `item` is in; True if the item can go on."""
        step, counters = self.steps[item.step], self.counters[item.step]
        if type(outcome) is Failure:
            places.noted(outcome, step.name, item.step + 1, len(self.steps), step.executor)
        with self.lock:
            if item.state is not LIVE:
                return False
            item.outcome = step.finish(item.outcome, outcome)
            item.step += 1
            item.attempts = None
            if type(outcome) is Failure:
                counters.failed += 1
            else:
                counters.succeeded += 1
            return True

    def finish(self, items: Sequence[Item], values: Sequence[Any] | None = None) -> None:
        """Note that `items` are through all steps, with `values` if these are not theirs already."""
        with self.lock:
            futures = self._finish(items, values)
            consumer = self._consumer if self._consumer is not None and self.is_ready() else None
            if consumer is not None:
                self._consumer = None
        cancel_all(futures)
        if consumer is not None:
            wake(consumer)
        elif self._has_fixed:
            self.flush()

    def _finish(self, items: Sequence[Item], values: Sequence[Any] | None) -> list[Any]:
        """Do so under the lock; return the futures to cancel."""
        futures: list[Any] = []
        before, shelf = self.live, self.shelf
        for item, value in zip(items, values or repeat(PENDING)):  # noqa: B905  # one of the two has no end
            if item.state is not LIVE:
                continue
            if value is not PENDING:
                item.outcome = value
            item.state = DONE
            self.live -= 1
            if not shelf.ordered:
                shelf.is_done(item)
            if type(item.outcome) is Failure:
                self.failed += 1
                if not self.return_exceptions:
                    self.finished += before - self.live
                    self.closed = self.exhausted = True
                    futures += self._drop(shelf.cut_behind(item))
                    before = self.live
        self.finished += before - self.live
        return futures

    # -- ending -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Drop everything, cancel what can be cancelled; does not wait."""
        with self.lock:
            self.closed = self.exhausted = True
            futures = self._drop(self.shelf.rest())
            self.shelf.clear()
            consumer, self._consumer = self._consumer, None
        try:
            cancel_all(futures)
        finally:
            if consumer is not None:
                wake(consumer)

    def idle(self) -> Future[None] | None:
        """Return what is settled when nothing runs any more; None if that is so already."""
        with self.lock:
            idle = self.running.idle()
            if idle is None:
                self._rest()
            return idle

    def _rest(self) -> None:
        for counters in self.counters:
            counters.in_flight = 0  # it is, unless Ctrl-C came while the consumer's thread was counting

    def _drop(self, items: Sequence[Item]) -> list[Any]:
        dropped, reached = [item for item in items if item.state is LIVE], set[int]()
        for item in dropped:
            item.state = DROPPED
            self.live -= 1
            self.shelf.is_dropped(item)
            number = min(item.step, len(self.steps) - 1)
            self.counters[number].cancelled += 1
            reached.add(number)
        for station in {one for number in reached for one in (self.local[number], self.trips[number])}:
            if station is not None:
                station.prune()
        return self.running.unwanted(dropped)

    def statistics(self) -> tuple[StepStatistics, ...]:
        """Return the figures of each step."""
        with self.lock:
            return tuple(counters.frozen() for counters in self.counters)


_numbers = count(1)
