"""The one place where tests look inside: what schedules, mutations and the model have to know of the core.

Everything else in the tests holds for any library with this public behaviour.
"""

from __future__ import annotations

from pathlib import Path

import futurechain
from futurechain.core.state import FORWARDED, PENDING, PIN, Group, Token
from futurechain.core.thread_state import current

__all__ = [
    "CORE_FILES",
    "PACKAGE",
    "STARTING_FILES",
    "STREAM_FILES",
    "catch_up",
    "has_dependents",
    "has_idle_process",
    "idle_workers",
    "is_awaited",
    "is_end_of_chain_clean",
    "is_moving",
    "left_in",
    "left_in_this_thread",
    "sent_ahead",
    "state_of",
    "wrong_in",
]

PACKAGE = Path(futurechain.__file__).parent

CORE_FILES = frozenset(
    str(path)
    for path in (
        *sorted((PACKAGE / "core").glob("*.py")),
        PACKAGE / "future.py",
        PACKAGE / "flow" / "combinators.py",
        PACKAGE / "flow" / "coroutines.py",
        PACKAGE / "flow" / "driver.py",
        PACKAGE / "flow" / "timing.py",
        PACKAGE / "executors" / "inline.py",
        PACKAGE / "executors" / "threads.py",
        PACKAGE / "executors" / "wrapped_future.py",
    )
)
"""The files in which schedules stop threads."""

STARTING_FILES = frozenset(
    str(path)
    for folder in ("core", "executors", "executors/processes", "flow")
    for path in sorted((PACKAGE / folder).glob("*.py"))
)
"""The files in which threads are stopped when it is about how pools start, and end."""

STREAM_FILES = frozenset(str(path) for path in sorted((PACKAGE / "pipeline").glob("*.py")))
"""The files in which they are stopped when it is about streams."""


def state_of(future):
    """What is known of its outcome: "pending", "forwarded" or "settled"."""
    outcome = future._outcome
    return "pending" if outcome is PENDING else "forwarded" if outcome is FORWARDED else "settled"


def left_in(future):
    """What a settled future still holds and should not: entries in its list of dependents, its handler, its source."""
    left = [f"dependent {entry!r}" for entry in future._dependents]
    left += [f"{name} {value!r}" for name in ("_handler", "_source") if (value := getattr(future, name)) is not None]
    return left


def wrong_in(future):
    """What is wrong with how a pending future is held, and with what it holds, when nothing is under way."""
    entries = []
    for held in future._dependents:
        if isinstance(held, Group):
            entries += held.values()
        elif not isinstance(held, Token):
            entries.append(held)
    wrong = [f"it holds {entry!r}, which does not wait" for entry in entries if not entry._is_waiting()]
    if entries and state_of(future) == "forwarded" and PIN in future._dependents:
        wrong.append("it is forwarded, has dependents, and is held by a weak reference")
    return wrong


def is_awaited(future):
    """Whether a shutdown of its pool would wait for it."""
    return id(future) in getattr(future._scheduler, "pending", ())


def has_dependents(future):
    """Whether anything waits for it."""
    return any(not isinstance(held, Token) for held in future._dependents)


def is_end_of_chain_clean(future):
    """Whether the record of the chain of `future` holds one end, and not one that is about to cease to be it."""
    record = getattr(future, "_chain", None)
    ends = getattr(record() if callable(record) else record, "ends", (None,))
    return len(ends) == 1


def idle_workers(pool):
    """How many threads of a thread pool wait for work."""
    return len(pool._scheduler.idle)


def has_idle_process(pool):
    """Whether a worker of a process pool waits for whoever has something to do."""
    return bool(pool._scheduler.machine._watcher.roster.idle)


def catch_up(pool):
    """Wait until the machine of a process pool has done what it was asked for."""
    pool._scheduler.machine.catch_up()


def sent_ahead(pool):
    """How many calls the workers of a process pool were sent beside those that they make."""
    return sum(len(one.trip.ahead) for one in tuple(pool._scheduler.machine._watcher.roster.workers) if one.trip)


def lying_behind(pool):
    """How many calls of a process pool lie behind one that a worker makes."""
    return len(pool._scheduler.machine._watcher.behind)


def recall_what_lies_behind(pool):
    """Do what a thread does that is about to cancel it, and no more."""
    (worker,) = pool._scheduler.machine._watcher.roster.workers
    return worker.progress.recall(worker.announced)


def is_moving(pool):
    """Whether the end of the interpreter would wait for something on a pool."""
    return pool._scheduler.is_moving()


def left_in_this_thread():
    """What this thread has put off and not done; nothing, when it is in no handler."""
    record = current.thread
    names = "stack", "later", "carried", "interrupt"
    left = [f"{name} {value!r}" for name in names if (value := getattr(record, name))]
    return left + [f"{name} {value}" for name in ("depth", "drives") if (value := getattr(record, name))]
