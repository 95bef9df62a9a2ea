"""Settling on a thread that serves everybody: what may be done there, and what is left to a callback thread.

The thread on which a process pool's results arrive must not run user code. It publishes the outcome, wakes the threads
that wait, and may hand over the next stage if that runs elsewhere and to choose its call takes no user code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from futurechain.core.handlers import Handler
from futurechain.core.scheduler import Scheduler
from futurechain.core.state import RUNNING, Group, State, Token, has_dependents, source_of, take, withdraw
from futurechain.core.stdlib import WaitCondition, Waiter
from futurechain.core.thread_state import current
from futurechain.core.unobserved import note_unobserved
from futurechain.failure import Failure

__all__ = [
    "first_dependent", "is_followed", "is_owned", "take_ahead", "take_next_stage", "tell_quietly", "wake_waiting",
]  # fmt: skip


def is_followed(future: Any) -> bool:
    """Tell whether anything depends on `future` but threads that wait for it."""
    for held in tuple(future._dependents):  # noqa: SIM110  # a generator costs more, and each short task asks
        if not isinstance(held, (Token, Waiter, WaitCondition)):
            return True
    return False


def first_dependent(future: Any) -> Any:
    """Return the first of those that depend on `future`, but for threads that wait for it; or None."""
    for held in tuple(future._dependents):
        if not isinstance(held, (Token, Waiter, WaitCondition)):
            return next(iter(dict.copy(held).values()), None) if type(held) is Group else held
    return None


def take_ahead(future: Any, stage: Any) -> bool:
    """Take `stage` out of the list of `future`, which is about to be settled: its executor has gone on with it.

    False if somebody else has taken it out.
    """
    return take(future._dependents, stage)


def wake_waiting(future: Any) -> bool:
    """Wake the threads that wait for `future`, which is settled; True if nothing else depends on it."""
    woken = False
    for dependent in tuple(future._dependents):
        if isinstance(dependent, (Waiter, WaitCondition)) and withdraw(future._dependents, dependent):
            dependent._fire(future, future._outcome, current.thread)
            woken = woken or isinstance(dependent, Waiter)
    if has_dependents(future):
        return False
    if not woken and type(future._outcome) is Failure:
        note_unobserved(future, future._outcome)
    return True


def tell_quietly(future: Any, is_quiet: Callable[[Any], bool]) -> bool:
    """Tell those dependents of `future`, which is settled, that run no user code; True if nobody else is left."""
    dependents: list[Any] = future._dependents
    for held in tuple(dependents):
        for dependent in tuple(dict.copy(held).values()) if type(held) is Group else (held,):
            if is_quiet(dependent) and take(dependents, dependent):
                dependent._fire(future, future._outcome, current.thread)
    return not any(dependents)  # an empty group is nobody


def take_next_stage(future: Any, suits: Callable[[Scheduler], bool]) -> Any:
    """Take out the only stage that waits for `future`, with its call, if its executor suits; or None.

    The outcome must be a value, and the stage have a function for values: to choose a handler may run user code.
    """
    dependents: list[Any] = future._dependents
    outcome = future._outcome
    only: Any = dependents[0] if len(dependents) == 1 else None
    if type(outcome) is Failure or not getattr(only, "_on_executor", False) or isinstance(only._handler, Handler):
        return None
    if not suits(only._scheduler) or not withdraw(dependents, only):  # decides against a cancellation
        return None
    only._call, only._source = (only._handler, (outcome,), {}), None
    return only


def is_owned(future: Any) -> bool:
    """Tell whether somebody runs the handler of `future`, or settles it just now."""
    source = source_of(future)
    if source is not None and not isinstance(source, State):
        return False
    return bool(future.running()) and RUNNING not in future._dependents
