"""How a stage ends: its outcome is published once, and an error is noted with the stage that raised it."""

from __future__ import annotations

import concurrent.futures as cf
from contextlib import suppress
from itertools import islice
from typing import Any

from futurechain.core import unobserved as report
from futurechain.core.scheduler import Place
from futurechain.errors import CancelledError
from futurechain.failure import Failure
from futurechain.core.state import consumers
from futurechain.core.handlers import Plan, label
from futurechain.core.thread_state import Run
from futurechain.core.stdlib import StandardFuture
from futurechain.core.observers import watch

__all__ = ["annotate", "failed", "outcome_of", "path_behind", "publish"]

MOST_COUNTED = 1000
"""How far a message looks ahead to tell how long a chain is."""
MOST_NAMED = 8
"""How many of these stages a report names."""


def publish(future: Any, outcome: Any) -> None:
    """Let everybody see `outcome`; the caller has claimed `future`, so this happens once."""
    plan = future._fn
    if issubclass(type(plan), Plan):
        outcome = plan.finish(outcome)
    future._outcome = outcome
    future._fn = future._parent = None
    if watch.on:
        watch.settled(future, outcome)
    if future._hops:
        future._call = future._context = None
        future._home.home.retire(future)


def outcome_of(future: cf.Future[Any]) -> Any:
    """Return the outcome of a foreign future that is done."""
    try:
        if future.cancelled():
            return Failure(CancelledError())
        error = future.exception()
        return future.result() if error is None else Failure(error)
    except BaseException as error:
        return Failure(error)


def path_behind(future: Any) -> tuple[str, ...]:
    """Return the names of the stages that follow `future`, for a report."""
    behind = _behind(future)
    names = [label(one._fn) for one in behind[:MOST_NAMED]]
    return (*names, "...") if behind[MOST_NAMED:] else tuple(names)


_traceback: Any = vars(BaseException)["__traceback__"]
_context: Any = vars(BaseException)["__context__"]
"""The attributes themselves: an exception's class may forbid to set them by name, as a frozen one does."""


def failed(stage: Any, error: BaseException, run: Run, before: Any = None) -> Failure:
    """Wrap what a handler raised; never raises.

    Args:
        stage: whose handler it was.
        error: what it raised.
        run: this thread's.
        before: the exception or `Failure` that it was to handle, if it was an error handler: the context, then.
    """
    try:
        trace = _traceback.__get__(error)
        if trace is not None:  # without our caller's frame: it holds the stage, which holds the error
            _traceback.__set__(error, trace.tb_next)
        cause = before.value if type(before) is Failure else before
        if issubclass(type(cause), BaseException) and cause is not error and _context.__get__(error) is None:
            _context.__set__(error, cause)
        run.catch(error)
        return Failure(error, path=annotate(error, stage))
    finally:
        trace = None


def annotate(error: BaseException, stage: Any) -> tuple[str, ...]:
    """Note on `error` that it was raised in `stage`; an exception that takes no notes goes without.

    Returns:
        The names of that stage and of those behind it, for a report.
    """
    place, call = stage._home, getattr(stage, "_call", None)
    fn = stage._fn if stage._fn is not None else call[0] if isinstance(call, tuple) else call
    number = place.depth if type(place) is Place else 0
    path: tuple[str, ...] = ()
    with suppress(Exception):
        name = label(fn)
        path = name, *path_behind(stage)
        report.annotate(error, name, number, number + len(_behind(stage)), place.home.name)
    return path


def _behind(stage: Any) -> list[Any]:
    """Return the stages that follow `stage`, up to the first branching."""
    found: list[Any] = []
    while len(found) < MOST_COUNTED:
        behind = [*islice(consumers(stage), 2)]
        if len(behind) != 1 or not isinstance(behind[0], StandardFuture):
            break
        stage = behind[0]
        found.append(stage)
    return found
