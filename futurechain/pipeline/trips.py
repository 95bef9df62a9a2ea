"""What travels: several items through several steps, to an executor that does not share our memory, and back.

A trip is one call of a `Trip` there. It measures each item and step, ends itself with the item in which its time is
up, and returns a `Report` of what was done; what it has not begun is sent again. An item that fails, or whose error or
result cannot be pickled, fails alone: whatever could keep the report from travelling back is found out there.

How many items a trip takes is learnt from these measurements (`TripSize`): so many that the work takes 10 ms. Trips
of 2 to 3 ms reach 90 % of what can be had, 10 ms 95 %, and more buys nothing. A prediction cannot bound a trip when
the work changes, since what is on its way was sized before; so the worker looks at its clock after each item.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from time import perf_counter
from typing import Any, NamedTuple

from futurechain.errors import StagePicklingError
from futurechain.failure import Failure

__all__ = ["LONGEST", "TARGET", "Report", "Trip", "TripFailure", "TripSize", "protected", "unpacked"]

TARGET = 0.010
"""Seconds of work that a trip aims at."""
LONGEST = 0.040
"""Seconds after which a trip takes no further item."""
MOST = 1000
"""Items in a trip at most: what is sent is held in memory twice."""
Call = Callable[[Any], Any]


class TripFailure(NamedTuple):
    """How an item failed on a trip."""

    position: int
    step: int
    failure: Failure


class Report(NamedTuple):
    """What a trip brings back."""

    values: Any
    """The results of the items that were begun (None for the failed ones); packed, if there are several."""
    failures: list[TripFailure]
    succeeded: list[int]
    """How many items each step has let through."""
    seconds: list[float]
    """How long each step has run, all items together."""
    waited: float
    """How long the items have waited for the ones before them, all together."""
    begun: int


class Trip:
    """The steps of a trip; called in the worker."""

    __slots__ = ("__qualname__", "calls", "timeouts")

    def __init__(self, name: str, calls: tuple[Call | None, ...], timeouts: tuple[float | None, ...]) -> None:
        self.__qualname__ = name
        self.calls: tuple[Call | None, ...] = calls
        """The function of each step; None where a step has nothing to do there."""
        self.timeouts: tuple[float | None, ...] = timeouts
        """The seconds that each step may take."""

    def of(self, items: int) -> Trip:
        """Return the same trip for so many items, which its name tells: a trace shows it."""
        return self if items == 1 else Trip(f"{self.__qualname__} ×{items}", self.calls, self.timeouts)

    def __reduce__(self) -> tuple[Any, ...]:
        return Trip, (self.__qualname__, self.calls, self.timeouts)

    def __call__(self, values: Sequence[Any], starts: list[int] | None, seconds: float) -> Report:
        """Send `values` through the steps, each from its own of `starts` on; take no more after `seconds`."""
        if self.timeouts == (None,):
            report = _one_step(self.calls[0], values, seconds)
        else:
            report = self._all_steps(values, starts, seconds)
        report.failures[:] = map(_portable, report.failures)
        return _packed(report) if len(values) > 1 else report

    def _all_steps(self, values: Sequence[Any], starts: list[int] | None, seconds: float) -> Report:
        count = len(self.calls)
        results, failures, waited = [], [], 0.0
        succeeded, spent = [0] * count, [0.0] * count
        began = now = perf_counter()
        for position, value in enumerate(values):
            waited += now - began
            number = 0 if starts is None else starts[position]
            try:
                while number < count:
                    before = now
                    value = self._step(number, value)  # noqa: PLW2901  # the value is what travels
                    now = perf_counter()
                    spent[number] += now - before
                    succeeded[number] += 1
                    number += 1
            except BaseException as error:
                spent[number] -= now
                now = perf_counter()
                spent[number] += now
                failures.append(TripFailure(position, number, protected(error)))
                value = None  # noqa: PLW2901  # what was made of it may go
            results.append(value)
            if now - began > seconds:
                break
        return Report(results, failures, succeeded, spent, waited, len(results))

    def _step(self, number: int, value: Any) -> Any:
        call = self.calls[number]
        if call is None:
            return value
        limit = self.timeouts[number]
        value = call(value) if limit is None else _within(limit, call, value)
        if type(value) is Failure:
            raise value.value
        return value


def _one_step(call: Any, values: Sequence[Any], seconds: float) -> Report:
    """Do what `Trip._all_steps` does, where there is less to ask: small items are this loop's alone."""
    results: list[Any] = []
    failures: list[TripFailure] = []
    waited = 0.0
    began = now = perf_counter()
    end = began + seconds
    for value in values:
        waited += now
        try:
            result = call(value)
            if type(result) is Failure:
                raise result.value
        except BaseException as error:
            failures.append(TripFailure(len(results), 0, protected(error)))
            result = None
        results.append(result)
        now = perf_counter()
        if now > end:
            break
    begun = len(results)
    return Report(results, failures, [begun - len(failures)], [now - began], waited - began * begun, begun)


def protected(error: BaseException) -> Failure:
    """Return the failure of a step that raised `error`; a StopIteration would end the loops of others."""
    if issubclass(type(error), (StopIteration, StopAsyncIteration)):
        wrong = RuntimeError(f"a step raised {type(error).__name__}")
        wrong.__cause__ = error
        return Failure(wrong)
    return Failure(error)


# -- there and back ---------------------------------------------------------------------------------------------------


def _packed(report: Report) -> Report:
    """Pickle the values here, where one that cannot be pickled can still fail alone; large buffers stay aside."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        stream = pickle.dumps(report.values, 5, buffer_callback=buffers.append)
    except Exception:
        for position, value in enumerate(report.values):
            _check_value(report, position, value)
        buffers.clear()
        stream = pickle.dumps(report.values, 5, buffer_callback=buffers.append)
    return report._replace(values=(stream, buffers))


def _check_value(report: Report, position: int, value: Any) -> None:
    try:
        pickle.dumps(value, 5)
    except Exception as reason:
        report.values[position] = None
        report.succeeded[-1] -= 1
        error = StagePicklingError(f"a result cannot travel back: {reason}. Return what pickles, or use on=INLINE")
        report.failures.append(TripFailure(position, len(report.succeeded) - 1, Failure(error)))


def _portable(failed: TripFailure) -> TripFailure:
    """Return `failed` with an error that can be built anew in the other process."""
    try:
        pickle.loads(pickle.dumps(failed))  # noqa: S301  # our own bytes
    except Exception as reason:
        error = failed.failure
        text = f"{error.type.__qualname__}: {error.getErrorMessage()}"
        told = StagePicklingError(f"a step raised {text}, which cannot travel back from the worker: {reason}")
        return TripFailure(failed.position, failed.step, Failure(told))
    return failed


def unpacked(report: Report) -> list[Any]:
    """Return the results of a report that has arrived."""
    if type(report.values) is not tuple:
        return report.values  # type: ignore[no-any-return]
    stream, buffers = report.values
    return pickle.loads(stream, buffers=buffers)  # type: ignore[no-any-return]  # noqa: S301  # our own bytes


# -- timeouts, there --------------------------------------------------------------------------------------------------


class _Helper(threading.Thread):
    """A thread that calls what may take too long, while the worker's own looks at the clock."""

    def __init__(self) -> None:
        super().__init__(name="futurechain-step", daemon=True)
        self.calls: SimpleQueue[Any] = SimpleQueue()
        self.start()

    def run(self) -> None:
        """Make one call after the other."""
        while True:
            call, value, answer = self.calls.get()
            try:
                answer.put((call(value), None))
            except BaseException as error:
                answer.put((None, error))
            del call, value, answer


_helpers: list[_Helper] = []
"""Those that have nothing to do. One that is stuck never comes back."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.clear)  # a fork takes no threads along


def _within(seconds: float, call: Call, value: Any) -> Any:
    """Return ``call(value)``; after so many seconds, leave it to itself and raise TimeoutError."""
    try:
        helper = _helpers.pop()
    except IndexError:
        helper = _Helper()
    answer: SimpleQueue[Any] = SimpleQueue()
    helper.calls.put((call, value, answer))
    try:
        result, error = answer.get(timeout=seconds)
    except Exception:
        raise TimeoutError(f"not done within {seconds:g} seconds") from None
    _helpers.append(helper)
    if error is not None:
        raise error
    return result


# -- how large --------------------------------------------------------------------------------------------------------


class TripSize:
    """How many items a trip takes: a number that was given, or what the last trips have taught."""

    __slots__ = ("cost", "fixed", "size", "target")

    def __init__(self, fixed: int | None, target: float = TARGET) -> None:
        self.fixed: int | None = fixed
        self.target: float = target
        self.size: int = fixed or 1
        self.cost: float | None = None
        """Seconds that an item takes."""

    @property
    def seconds(self) -> float:
        """After how many seconds a trip takes no further item."""
        return self.target * (LONGEST / TARGET) if self.fixed is None else float("inf")

    def learn(self, items: int, seconds: float) -> None:
        """Learn from a trip: quickly that items take long, slowly that they do not."""
        if self.fixed is not None or not items:
            return
        seen = seconds / items
        if self.cost is None:
            self.cost = seen
        else:
            self.cost += (seen - self.cost) * (0.5 if seen > self.cost else 0.25)
        wanted = max(1, int(self.target / max(self.cost, 1e-7)))
        self.size = min(wanted, 4 * self.size, MOST)
