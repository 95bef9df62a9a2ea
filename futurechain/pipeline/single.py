"""One item through a recipe: a chain of futures, with everything that a future can do.

Every step is attached at once, so that the shutdown of an executor waits for the steps to come. Fused steps are
one stage on their executor; a second one opens its report here, and sends the item on a second trip if a handler
between these steps has had something to do.
"""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Sequence
from functools import partial
from typing import Any

from futurechain.executors.inline import INLINE
from futurechain.failure import Failure
from futurechain.flow.timing import retry
from futurechain.future import Future, fail, succeed
from futurechain.pipeline import places
from futurechain.pipeline.attempts import Deadline, Timeout, outcome_of
from futurechain.pipeline.steps import Step, fused, goes_alone, is_stopped
from futurechain.pipeline.trip_stations import trip_through
from futurechain.pipeline.trips import Report, Trip, protected, unpacked

__all__ = ["submit_one"]


def submit_one(steps: tuple[Step, ...], item: Any) -> Future[Any]:
    """Send `item` through `steps`; return the future of its last outcome."""
    return _through(steps, 0, len(steps), succeed(item))


def _through(steps: tuple[Step, ...], first: int, end: int, future: Future[Any]) -> Future[Any]:
    """Attach the steps from `first` until `end` to `future`."""
    number = first
    while number < end:
        step = steps[number]
        if step.shared or step.on_result is None or step.kind != "then":
            future = _attach(step, future)
            number += 1
        else:
            span = range(number, min(end, fused(steps, number)[-1] + 1))
            future = _travel(steps, span, future)
            number = span[-1] + 1
    return future


class _Call:
    """A step to a future: a function with the name of the step."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.__qualname__ = step.name

    def __call__(self, *given: Any) -> Any:
        handler = self.step.on_result if self.step.on_result is not None else self.step.on_error
        assert handler is not None
        try:
            return handler(*given)
        except (StopIteration, StopAsyncIteration) as error:
            raise protected(error).value from error


class _Caught(_Call):
    def __call__(self, *given: Any) -> Any:
        assert self.step.on_error is not None
        return self.step.on_error(*given)


def _attach(step: Step, future: Future[Any]) -> Future[Any]:
    """Attach a step that runs in our memory, or handles errors, or cleans up."""
    here = step.executor if step.shared else INLINE
    if step.kind == "finally_":
        return future.finally_(_Call(step), on=here).then(None, on=step.executor)
    if step.on_error is not None and step.kind == "catch":
        return future.catch(step.types, _Caught(step), on=here).then(None, on=step.executor)
    handler = None if step.on_error is None else _Caught(step)
    if step.on_result is None or (step.timeout is None and step.retry is None):
        handled = future.then(None if step.on_result is None else _Call(step), handler, on=here)
        return handled.then(None, on=step.executor)
    return _apart(step, partial(_run, step), handler, future)


def _apart(step: Step, run: Any, handler: Any, future: Future[Any]) -> Future[Any]:
    """Attach a step whose every run is a future of its own."""
    begin = run if step.retry is None else partial(retry, run, policy=step.retry)
    if handler is not None:
        handled = handler
        handler = lambda error: fail(error).then(None, handled, on=step.executor)  # noqa: E731  # one line says it
    waited = future.then(None, on=step.executor).then(begin, handler, on=INLINE)
    return waited.then(None, on=step.executor)


def _run(step: Step, value: Any) -> Future[Any]:
    """Run a step once, and give it up when it takes too long from its beginning."""
    if step.timeout is None:
        return succeed(value).then(_Call(step), on=step.executor)
    whole = Future[Any]()
    timeouts: list[Timeout] = []

    def begin(given: Any) -> Any:
        timeouts.append(Timeout(step.timeout or 0.0, lambda failure: places.later(_settle, whole, failure)))
        return _Call(step)(given)

    begin.__qualname__ = step.name
    task = succeed(value).then(begin, on=step.executor)

    def ended(task: cf.Future[Any]) -> None:
        if not timeouts or timeouts[0].ends_with_run():
            _settle(whole, outcome_of(task))

    task.add_done_callback(ended)
    whole.add_done_callback(lambda _: task.cancel())
    return whole


def _settle(future: Future[Any], outcome: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if type(outcome) is Failure:
        future.set_exception(outcome.value)
    else:
        future.set_result(outcome)


# -- trips ------------------------------------------------------------------------------------------------------------


class _Solo:
    """A trip of one item; called in the worker."""

    def __init__(self, trip: Trip) -> None:
        self.trip = trip
        self.__qualname__ = trip.__qualname__

    def __call__(self, value: Any) -> Report:
        return self.trip([value], None, float("inf"))


class _Before:
    """An error from before a trip, which is for the handlers of its steps."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _travel(steps: tuple[Step, ...], span: range, future: Future[Any]) -> Future[Any]:
    """Attach the trip through the steps of `span`."""
    first, solo = steps[span[0]], _Solo(trip_through(steps, span))
    open_it = partial(_open, steps, span)
    if goes_alone(first):

        def run(value: Any) -> Future[Any]:
            sent = succeed(value).then(solo, on=first.executor)
            deadline = Deadline(sent, first.timeout) if first.timeout is not None and is_stopped(first) else None
            return sent.then(open_it, lambda error: (deadline and deadline.failure) or Failure(error), on=INLINE)

        return _apart(first, run, None if first.on_error is None else _Caught(first), future)
    sent = future.then(solo, _Before, on=first.executor)
    opened = sent.then(open_it, lambda error: _handle(steps, span[0] + 1, span, Failure(error)), on=INLINE)
    return opened.then(None, on=first.executor)


def _open(steps: tuple[Step, ...], span: range, report: Any) -> Any:
    """Return the result of a trip, or what the handlers of its steps make of an error."""
    if type(report) is _Before:
        return _handle(steps, span[0], span, Failure(report.error))
    if not report.failures:
        return unpacked(report)[0]
    number, failure = span[0] + report.failures[0].step, report.failures[0].failure
    step = steps[number]
    places.noted(failure, step.name, number + 1, len(steps), step.executor)
    return _handle(steps, number + 1, span, failure)


def _handle(steps: tuple[Step, ...], number: int, span: Sequence[int], failure: Failure) -> Any:
    """Let the next handler of the span have the error, and the item travel on from there."""
    for one in range(number, span[-1] + 1):
        step = steps[one]
        if step.handles(failure):
            assert step.on_error is not None
            handled = fail(failure.value).then(None, _Caught(step), on=INLINE)
            return _through(steps, one + 1, span[-1] + 1, handled)
    return failure
