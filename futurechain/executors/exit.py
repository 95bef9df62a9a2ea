"""The end of the interpreter: one shutdown for all pools that still have chains, wherever these lead.

The hook runs when the main thread has ended, before the standard pools' own hooks (the last one registered runs
first). It lets no pool take outside work any more, and holds them all open for what comes from inside, since a chain
may lead from one pool to any other. Then it waits while something moves: while a pool has something queued or
running, or a stage of a pool rests on a timer, or on a handler that runs somewhere. What still is not settled then
rests on what cannot come any more (a bare future, somebody's daemon thread), and fails; its error handlers and
cleanups run, and may set things going again.

Python 3.12 starts no thread once the interpreter ends, and forks no process. There the main thread itself does what a
pool, the timers and the callbacks have no thread for, and process pools start with the first stage that is attached.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from futurechain import clock
from futurechain.core import callback_threads
from futurechain.core.delivery import is_owned
from futurechain.core.flatten import upstream
from futurechain.core.handlers import Expiry
from futurechain.core.state import consumers, source_of
from futurechain.errors import ExecutorShutdownError
from futurechain.executors.pool import PoolScheduler, all_pools, fail
from futurechain.future import Future

__all__ = ["arm"]

PAUSE = 0.01
"""Seconds between two looks."""
OVERDUE = 5.0
"""Seconds after which a timer that has not fired never will."""
MOST_ROUNDS = 100
"""How often what cannot come is failed: its handlers might attach more of that for ever."""


def arm() -> None:
    """Register the hook, to run before those of the standard pools that were imported until now."""
    threading._register_atexit(_end)  # type: ignore[attr-defined]


def _end() -> None:
    PoolScheduler.is_helped = True
    try:
        for _ in range(MOST_ROUNDS):
            _wait_for_movement()
            if not _fail_the_rest():
                break
    except KeyboardInterrupt:  # wait no longer; raised further, it would keep the hooks of others from being run
        pass
    finally:
        PoolScheduler.is_helped = False
        callback_threads.help_at_exit(go_on=False)
        for pool in all_pools():
            pool.stop()


def _wait_for_movement() -> None:
    """Block while something moves; close what is opened meanwhile, too."""
    while True:
        for pool in all_pools():
            pool.hold()
            pool.help()
        clock.help_at_exit()
        callback_threads.help_at_exit(go_on=True)
        if not (any(pool.is_moving() for pool in all_pools()) or _is_awaited()):
            return
        time.sleep(PAUSE)


def _is_awaited() -> bool:
    """Tell whether a stage of a pool rests on something that comes by itself."""
    return any(_will_come(one) for pool in all_pools() for stage in pool.unsettled() for one in upstream(stage))


def _will_come(future: Any) -> bool:
    """Tell whether a handler runs that settles `future`, or a timer is set for it."""
    source: Any = source_of(future)
    handler = future._handler
    if source is not None and not isinstance(source, Future):
        timer = getattr(source, "timer", None)
        return timer is not None and not _is_overdue(timer)
    if type(handler) is Expiry and handler.withdraw is not None:
        return not _is_overdue(handler.withdraw.__self__)  # type: ignore[attr-defined]  # the timer's own method
    return is_owned(future) or (source is not None and source.done())


def _is_overdue(timer: Any) -> bool:
    """Tell whether `timer` does not fire by itself: it belongs to a clock that stands still."""
    return bool(timer.is_pending()) and timer.deadline < time.monotonic() - OVERDUE


def _fail_the_rest() -> bool:
    """Fail what is still unsettled; True if there was anything."""
    stuck = [stage for pool in all_pools() for stage in pool.unsettled()]
    _expect_no_look(stuck)
    reason = "the interpreter ends, and nothing under way settles what this stage waits for"
    for stage in stuck:
        if stage._source is not None:  # else it was queued just now, because the one before it has failed
            fail(stage, ExecutorShutdownError(reason))
    return bool(stuck)


def _expect_no_look(todo: list[Any]) -> None:
    """Let the failure of these futures, and of those behind them, be nobody's loss: nobody is left who could look."""
    todo = todo.copy()
    while todo:
        one = todo.pop()
        if isinstance(one, Future) and "_unwanted" not in one.__dict__:
            one.__dict__["_unwanted"] = True
            todo += (getattr(entry, "target", entry) for entry in consumers(one))
