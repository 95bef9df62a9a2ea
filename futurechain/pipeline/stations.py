"""Where items wait for a step that runs in our memory, and are run, one by one.

A station belongs to one flow, whose lock guards what changes here. What is decided under it is done after it.
"""

from __future__ import annotations

import concurrent.futures as cf
import inspect
from collections import deque
from functools import partial
from threading import current_thread, get_ident, main_thread
from time import perf_counter
from typing import TYPE_CHECKING, Any

from futurechain.executors.inline import INLINE
from futurechain.executors.wrapped_future import wrap_future
from futurechain.failure import Failure
from futurechain.interrupts import put_off
from futurechain.pipeline import places
from futurechain.pipeline.attempts import Timeout, outcome_of
from futurechain.pipeline.bodies import Body
from futurechain.pipeline.items import LIVE, Item
from futurechain.pipeline.running import is_undone, takes
from futurechain.pipeline.statistics import Counters
from futurechain.pipeline.steps import Step
from futurechain.pipeline.trips import protected

if TYPE_CHECKING:
    from futurechain.pipeline.flow import Flow

__all__ = ["LocalStation"]

PLAIN_VALUES = frozenset((bool, bytes, dict, float, int, list, str, tuple, type(None)))
"""Classes of values that nobody waits for."""
WAITED_FOR = (cf.Future, Body)


class LocalStation:
    """Where items wait for a step that runs in our memory, and are run, one by one.

    That is a step on such an executor, and everything that handles errors or cleans up for a step elsewhere, which runs
    on a callback thread. A slot is taken when an item may run, and given back when the run has really
    ended: after a timeout the thread is still at it.
    """

    def __init__(self, flow: Flow, number: int) -> None:
        self.flow = flow
        self.step: Step = flow.steps[number]
        self.counters: Counters = flow.counters[number]
        self.most: int | None = self.step.concurrency
        self.limited: bool = places.is_limited(self.step.executor)
        self.plain: bool = self.step.kind == "then" and self.step.timeout is None and self.step.retry is None
        """Whether a run is one call and no more."""
        self.taken: int = 0
        self.waiting: deque[Item] = deque()

    def belongs_to(self, executor: cf.Executor) -> bool:
        """Tell whether the step runs in a thread that works for `executor`."""
        own = self.step.executor
        return own is INLINE or (own is executor and self.step.shared and not self.limited)

    def enter(self, item: Item) -> bool:
        """Take a slot for `item`; False if it has to wait, or is not wanted any more."""
        if self.most is None:
            return True
        with self.flow.lock:
            if item.state is not LIVE:
                return False
            if self.taken >= self.most:
                self.waiting.append(item)
                return False
            self.taken += 1
            return True

    def start(self, item: Item) -> None:
        """Have `item`, which has a slot, run on its executor."""
        step, flow = self.step, self.flow
        if step.executor is INLINE or not step.shared:
            flow.post(self.resume, item)
        elif self.limited:
            flow.during((item,), partial(self._submit, item))
        else:
            flow.runners[step.executor].put(item)

    def _submit(self, item: Item, _: bool) -> None:
        """Submit one item alone, where each one counts."""
        flow, token = self.flow, [None]
        try:
            task = flow.context.copy().run(places.submit, self.step.executor, self._resume_once, token, item)
        except Exception as error:
            flow.post(self.refuse, item, Failure(error))
            return
        flow.watch(task, (item,), partial(self._left, token))

    def _resume_once(self, token: list[None], item: Item) -> None:
        """Do so in a task, unless that was given up; it enters itself, as runners do."""
        if takes(token):
            self.flow.during((item,), lambda _: self.resume(item))

    def resume(self, item: Item) -> None:
        """Run the step for `item`, and those after it as far as this thread may."""
        if self.run(item):
            self.flow.proceed(item, at=self.step.executor)

    def _left(self, token: list[None], task: cf.Future[Any]) -> None:
        """Let the item of a task fail that was never run: its executor was shut down, or has broken."""
        try:
            if is_undone(task, token):
                for item in self.flow.running.items_of(task):
                    self.refuse(item, outcome_of(task))
        finally:
            self.flow.leave(task)

    def refuse(self, item: Item, failure: Failure) -> None:
        """Let `item`, which has a slot, fail without having run: for its own figures that is a run."""
        with self.flow.lock:
            if item.state is LIVE:
                self.counters.started += item.attempts is None
        self._release()
        self.flow.refuse(item, failure)

    def run(self, item: Item) -> bool:
        """Run the step for `item`, which has a slot, in this thread; True if the item can go on."""
        began, counters = perf_counter(), self.counters
        with self.flow.lock:
            wanted = item.state is LIVE
            if wanted:
                counters.started += item.attempts is None
                counters.in_flight += 1
                counters.seconds_queued += began - item.since
        if not wanted:
            self._release()
            return False
        if self.step.timeout is not None and type(item.outcome) is not Failure:  # else it is a handler's
            return self._run_in_time(item, began)
        outcome = self._call(item)
        if isinstance(outcome, WAITED_FOR):
            self._wait_for(outcome, item, began, None)
            return False
        if self.plain and self.most is None and type(outcome) is not Failure:
            return self._end_plainly(item, outcome, began)
        return self._end(item, outcome, began, None)

    def _run_in_time(self, item: Item, began: float) -> bool:
        """Do so in a step with a timeout; Ctrl-C leaves no timer."""
        timeout = None
        try:
            with put_off():
                timeout = Timeout(self.step.timeout or 0.0, partial(self._expired, item))
            outcome = self._call(item)
            if not isinstance(outcome, WAITED_FOR):
                return self._end(item, outcome, began, timeout)
            self._wait_for(outcome, item, began, timeout)
            return False
        except BaseException:
            if timeout is not None:
                timeout.ends_with_run()
            raise

    def _end_plainly(self, item: Item, value: Any, began: float) -> bool:
        """Do what `_end` does, where there is less to ask."""
        counters = self.counters
        seconds = perf_counter() - began
        with self.flow.lock:
            counters.in_flight -= 1
            counters.seconds_run += seconds
            if item.state is not LIVE:
                return False
            counters.succeeded += 1
            item.outcome = value
            item.step += 1
            return True

    def _call(self, item: Item) -> Any:
        me, inside = get_ident(), self.flow.inside
        try:
            inside.append(me)
            value = self.step.call(item.outcome)
            if type(value) in PLAIN_VALUES:
                return value
            if inspect.iscoroutine(value):
                return Body(value, self.step.executor if self.step.shared else INLINE, inside)
            # a stage of our own: the same future may be returned for several items, and cancelled for one
            return wrap_future(value).then(None, on=INLINE) if isinstance(value, cf.Future) else value
        except KeyboardInterrupt as error:
            if current_thread() is main_thread():  # it is the user's, for the program: the stream ends
                self._end(item, Failure(error), perf_counter(), None)
                raise
            return Failure(error)
        except BaseException as error:
            return protected(error)
        finally:
            inside.remove(me)

    def _wait_for(self, begun: cf.Future[Any] | Body, item: Item, began: float, timeout: Timeout | None) -> None:
        """Go on when what the step has returned is done; no thread waits for it."""
        inner = begun.future if isinstance(begun, Body) else begun
        if timeout is not None:
            timeout.watch(inner)
        try:
            if isinstance(begun, Body):
                self.flow.enter(begun, (item,))
            self.flow.watch(inner, (item,), partial(self._arrived, begun, item, began, timeout))
        except BaseException:
            self.flow.leave(begun)
            raise

    def _arrived(
        self, begun: cf.Future[Any] | Body, item: Item, began: float, timeout: Timeout | None, inner: cf.Future[Any]
    ) -> None:
        try:
            if isinstance(begun, Body):
                begun.when_over(partial(self._leave, begun, began))
                goes_on = self._offer(item, outcome_of(inner), timeout)
            else:
                goes_on = self._end(item, outcome_of(inner), began, timeout)
            if goes_on:
                self.flow.proceed(item)
        finally:
            self.flow.leave(inner)

    def _leave(self, body: Body, began: float) -> None:
        """Give the slot of a coroutine back, which has ended."""
        try:
            self._release(perf_counter() - began)
        finally:
            self.flow.leave(body)

    def _end(self, item: Item, outcome: Any, began: float, timeout: Timeout | None) -> bool:
        self._release(perf_counter() - began)
        return self._offer(item, outcome, timeout)

    def _offer(self, item: Item, outcome: Any, timeout: Timeout | None) -> bool:
        if timeout is not None and not timeout.ends_with_run():
            return False
        return self.flow.conclude(item, outcome)

    def _expired(self, item: Item, failure: Failure) -> None:
        """Let the item go on without its run; on the timer thread, which is everybody's."""
        self.flow.post(self._give_up, item, failure)

    def _give_up(self, item: Item, failure: Failure) -> None:
        if self.flow.conclude(item, failure):
            self.flow.proceed(item)

    def _release(self, seconds: float | None = None) -> None:
        """Give a slot back, or to the next item; `seconds` is how long the run has taken, if it has begun."""
        following = None
        with self.flow.lock:
            if seconds is not None:
                self.counters.in_flight -= 1
                self.counters.seconds_run += seconds
            if self.waiting:
                following = self.waiting.popleft()
            elif self.most is not None:
                self.taken -= 1
        if following is not None:
            self.start(following)

    def prune(self) -> None:
        """Forget the items that were dropped. Under the lock."""
        if self.waiting:
            self.waiting = deque(item for item in self.waiting if item.state is LIVE)
