"""Cancelling: at once downward, and upward to what nobody else consumes."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

from futurechain.core import callback_threads as crew
from futurechain.errors import CancelledError
from futurechain.failure import Failure
from futurechain.core.state import claim, detach, parent_of
from futurechain.core.handlers import Plan
from futurechain.core.thread_state import here
from futurechain.core.loop import leave, settle
from futurechain.core.stdlib import StandardFuture

__all__ = ["claim_to_cancel", "expire", "give_up", "let_go", "release"]

def give_up(future: Any, failure: Failure) -> None:
    """Settle `future` (claimed) with `failure`, and cancel upward what nobody else consumes."""
    run = here.run
    run.depth += 1  # so that an interrupt, or what is put off, waits until all of it is done
    try:
        claimed = _give_up_one(future, failure)
        while claimed:
            claimed += _give_up_one(claimed.pop(), Failure(CancelledError()))
    finally:
        run.depth -= 1
        future = None
    if not run.depth:
        leave(run)


def _give_up_one(future: Any, failure: Failure) -> list[Any]:
    """Settle one; what it waited for and nobody else consumes, claimed."""
    parent, plan, shielded = parent_of(future), future._fn, future._shielded
    settle(future, failure)
    claimed = release(parent, future, shielded=shielded)
    if issubclass(type(plan), Plan):
        future._clean_up(plan)
    return claimed


def let_go(parent: Any, child: Any) -> None:
    """Let the entry or stage `child` no longer wait for `parent`; cancel that if nobody else consumes it."""
    for claimed in release(parent, child):
        give_up(claimed, Failure(CancelledError()))


def release(parent: Any, child: Any, *, shielded: bool = False) -> list[Any]:
    """Let `child` no longer wait for `parent`; what nobody consumes any more, claimed: to be given up by the caller."""
    if parent is None:
        return []
    if not isinstance(parent, StandardFuture):
        return parent.abandon(child) or []
    detach(parent, child)
    if shielded or parent._is_consumed():
        return []
    if claim_to_cancel(parent):
        return [parent]
    if not parent.done():
        parent.__dict__["_unwanted"] = True  # left to end; how it ends is of no interest any more
    return []


def claim_to_cancel(future: Any) -> bool:
    """Claim `future` unless it runs, and whoever runs it does not stop when asked."""
    stop = getattr(parent_of(future), "stop", None)
    return (not future.running() if stop is None else stop()) and claim(future)


def expire(target: weakref.ref[Any], failure: Failure) -> None:
    """Timer: fail the future if it is still pending."""
    future = target()
    if future is not None and claim(future):
        crew.run(partial(give_up, future, failure))

