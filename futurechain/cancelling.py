"""Cancelling: at once downward, and upward to what nobody else consumes."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

from futurechain import crew
from futurechain.adoption import parent_of
from futurechain.errors import CancelledError
from futurechain.failure import Failure
from futurechain.links import PENDING, claim, detach
from futurechain.plans import Plan
from futurechain.settling import settle
from futurechain.standard import StandardFuture

__all__ = ["expire", "give_up", "release"]

def give_up(future: Any, failure: Failure) -> None:
    """Settle `future` (claimed) with `failure`, and cancel upward what nobody else consumes."""
    while True:
        parent, plan, shielded = parent_of(future), future._fn, future._shielded
        settle(future, failure)
        abandoned = release(parent, future, shielded=shielded)
        if issubclass(type(plan), Plan) and parent is not None:
            future._clean_up(plan)
        if abandoned is None:
            return
        future, failure = abandoned, Failure(CancelledError())


def release(parent: Any, child: Any, *, shielded: bool = False) -> Any:
    """Let `child` no longer wait for `parent`; the parent, claimed, if nobody consumes it any more, else None."""
    if parent is None:
        return None
    if not isinstance(parent, StandardFuture):
        parent.abandon(child)
        return None
    detach(parent, child)
    if shielded or parent._is_consumed():
        return None
    if _claim_waiting(parent):
        return parent
    if parent._outcome is PENDING:
        parent.__dict__["_unwanted"] = True  # left to end; how it ends is of no interest any more
    return None


def _claim_waiting(future: Any) -> bool:
    return not future.running() and claim(future)


def expire(target: weakref.ref[Any], failure: Failure) -> None:
    """Timer: fail the future if it is still pending."""
    future = target()
    if future is not None and claim(future):
        crew.run(partial(give_up, future, failure))

