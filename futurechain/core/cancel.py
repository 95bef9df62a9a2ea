"""Cancelling: at once downward, and upward to what nobody else consumes."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

from futurechain.core import callback_threads
from futurechain.core.handlers import Handler
from futurechain.core.loop import leave_handlers, settle
from futurechain.core.state import State, claim, detach, is_consumed, moved_from, source_of
from futurechain.core.thread_state import current
from futurechain.errors import CancelledError
from futurechain.failure import Failure

__all__ = ["cancel_owned", "claim_to_cancel", "expire", "let_go", "release"]


def cancel_owned(future: Any, failure: Failure) -> None:
    """Settle `future`, which the caller owns, with `failure`, and cancel upward what nobody else consumes."""
    thread = current.thread
    owned = [future]
    thread.depth += 1  # so that an interrupt, or what is put off, waits until all of it is done
    try:
        _cancel_all(owned, failure)
    except KeyboardInterrupt as interrupt:
        thread.note_interrupt(interrupt)
        _cancel_all(owned, failure)
    finally:
        thread.depth -= 1
        del future
    if not thread.depth:
        leave_handlers(thread)


def _cancel_all(owned: list[Any], failure: Failure) -> None:
    """Settle all that is `owned`, the last one first, with what is claimed by that; one that is settled is left out."""
    while owned:
        one = owned[-1]
        owned[-1:] = [] if one.done() else _cancel_one(one, failure)
        failure = Failure(CancelledError())


def _cancel_one(future: Any, failure: Failure) -> list[Any]:
    """Settle one, and clean up; what it waited for and nobody else consumes, claimed."""
    handler = future._handler
    clean_up = future._plan_clean_up(handler) if issubclass(type(handler), Handler) else None
    try:
        return _settle_and_release(future, failure)
    finally:
        if clean_up is not None:
            clean_up()


def _settle_and_release(future: Any, failure: Failure) -> list[Any]:
    source, shielded = source_of(future), future._shielded
    settle(future, failure)
    claimed = release(source, future, shielded=shielded)
    for target in moved_from(future):  # who waited for it, and was forwarded
        waited_for = source_of(target)
        if claim(target):
            settle(target, failure)
            claimed += release(waited_for, target)
        elif isinstance(source, State):
            detach(source, target)  # it has been told by an entry of its own here
    for forwarded in future.__dict__.get("_waited_for", ()):
        if (before := forwarded()) is not None:
            claimed += release(before, future)
    return claimed


def let_go(source: Any, child: Any) -> None:
    """Let the dependent `child` no longer wait for `source`; cancel that if nobody else consumes it."""
    for claimed in release(source, child):
        cancel_owned(claimed, Failure(CancelledError()))


def release(source: Any, child: Any, *, shielded: bool = False) -> list[Any]:
    """Let `child` no longer wait for `source`; what nobody consumes any more, claimed: the caller cancels it."""
    if source is None:
        return []
    if not isinstance(source, State):
        return list(source.cancel_for(child) or ())
    detach(source, child)
    if shielded or is_consumed(source):
        return []
    if claim_to_cancel(source):
        return [source]
    if not source.done():  # type: ignore[attr-defined]  # every State is a future
        source.__dict__["_unwanted"] = True  # left to end; how it ends is of no interest any more
    return []


def claim_to_cancel(future: Any) -> bool:
    """Claim `future`, unless it runs, and whoever runs it does not stop when asked."""
    stop = getattr(source_of(future), "stop", None)
    return (not future.running() if stop is None else bool(stop())) and claim(future)


def expire(target: weakref.ref[Any], failure: Failure) -> None:
    """Timer: fail the future if it is still pending."""
    future = target()
    if future is not None and claim(future):
        callback_threads.run(partial(cancel_owned, future, failure))
