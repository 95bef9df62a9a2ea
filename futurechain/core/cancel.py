"""Cancelling: at once downward, and upward to what nobody else consumes.

*Ctrl-C.* What has been claimed stands in ``owned`` from the moment of its claim: a generator yields it, and the list
takes it, with nothing between at which CPython looks for signals. Each step may be interrupted, and is taken again
then: what is settled is not settled twice, what is claimed is not claimed twice.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from futurechain.core import callback_threads
from futurechain.core.handlers import Handler
from futurechain.core.loop import leave_handlers, settle
from futurechain.core.state import State, claim, detach, is_consumed, moved_from, source_of
from futurechain.core.thread_state import current
from futurechain.errors import CancelledError
from futurechain.failure import Failure

__all__ = ["cancel", "cancel_owned", "expire", "let_go", "release_all"]


class _Cancellation:
    """One future that is owned: what it is settled with, and what is to be told of that."""

    __slots__ = ("clean_ups", "failure", "future", "is_over", "shielded", "source")

    def __init__(self, future: Any, failure: Failure) -> None:
        handler = future._handler
        clean_up = future._plan_clean_up(handler) if issubclass(type(handler), Handler) else None
        self.future, self.failure = future, failure
        self.source, self.shielded = source_of(future), future._shielded
        self.clean_ups = [] if clean_up is None else [clean_up]
        self.is_over = False

    def carry_out(self, owned: list[Any]) -> None:
        """Settle it, and add what it waited for and nobody else consumes to `owned`; may be called again."""
        if not self.future.done():
            settle(self.future, self.failure)
        owned.extend(release(self.source, self.future, shielded=self.shielded))
        owned.extend(self._forwarded())
        for before in self.future.__dict__.get("_waited_for", ()):
            owned.extend(release(before(), self.future))
        self.is_over = True
        if self.clean_ups:
            self.clean_ups.pop()()

    def _forwarded(self) -> Iterator[Any]:
        """Yield those who waited for it and were forwarded: they end as it does."""
        for target in moved_from(self.future):
            if claim(target):
                yield target, self.failure
            elif isinstance(self.source, State):
                detach(self.source, target)  # it has been told by an entry of its own here


def cancel(future: Any) -> None:
    """Cancel `future`, if that can be, and upward what nobody else consumes."""
    _cancel_all(partial(_claim_one, future))


def cancel_owned(future: Any, failure: Failure) -> None:
    """Settle `future`, which the caller owns, with `failure`, and cancel upward what nobody else consumes."""
    _cancel_all(partial(iter, [(future, failure)]))


def let_go(sources: Iterable[Any], child: Any) -> None:
    """Let the dependent `child` no longer wait for `sources`; cancel what nobody else consumes."""
    _cancel_all(partial(release_all, sources, child))


def _claim_one(future: Any) -> Iterator[Any]:
    if _claim_to_cancel(future):
        yield future


def _cancel_all(find: Callable[[], Iterator[Any]]) -> None:
    """Cancel what `find` yields, claimed, and upward what nobody else consumes."""
    thread, owned = current.thread, list[Any]()
    thread.depth += 1  # so that an interrupt, or what is put off, waits until all of it is done
    try:
        owned.extend(find())
        _carry_out(owned)
    except KeyboardInterrupt as interrupt:
        thread.note_interrupt(interrupt)
        owned.extend(find())
        _carry_out(owned)
    finally:
        thread.depth -= 1
        del owned, find
    if not thread.depth and (thread.later or thread.carried is not None or thread.interrupt is not None):
        leave_handlers(thread)


def _carry_out(owned: list[Any]) -> None:
    """Settle all that is `owned`, the last one first, with what is claimed by that."""
    while owned:
        one = owned[-1]
        if type(one) is _Cancellation:
            if one.is_over:
                del owned[-1]
            else:
                one.carry_out(owned)
        elif type(one) is tuple:
            owned[-1] = _Cancellation(*one)
        else:
            owned[-1] = _Cancellation(one, Failure(CancelledError()))


def release(source: Any, child: Any, *, shielded: bool = False) -> Iterator[Any]:
    """Let `child` no longer wait for `source`; yield what nobody consumes any more, claimed: the caller cancels it."""
    if source is None:
        return
    if not isinstance(source, State):
        yield from source.cancel_for(child) or ()
        return
    detach(source, child)
    if shielded or is_consumed(source):
        return
    if _claim_to_cancel(source):
        yield source
    elif not source.done():  # type: ignore[attr-defined]  # every State is a future
        source.__dict__["_unwanted"] = True  # left to end; how it ends is of no interest any more


def release_all(sources: Iterable[Any], child: Any) -> Iterator[Any]:
    """Do that for each of `sources`."""
    for source in sources:
        yield from release(source, child)


def _claim_to_cancel(future: Any) -> bool:
    """Claim `future`, unless it runs, and whoever runs it does not stop when asked, or was begun ahead of its turn.

    Whether it runs, and whose it is, is told by two lists, one after the other. Should its handler run between these
    looks, and return a future, it waits again, and is found by a second look. A handler runs but once.
    """
    stop = getattr(source_of(future), "stop", None)
    if stop is not None:
        return bool(stop()) and (claim(future) or claim(future))
    if future._on_executor and not future._scheduler.keeps_back(future):
        return False
    return (not future.running() and claim(future)) or (not future.running() and claim(future))


def expire(target: weakref.ref[Any], failure: Failure) -> None:
    """Timer: fail the future if it is still pending."""
    future = target()
    if future is not None and claim(future):
        callback_threads.run(partial(cancel_owned, future, failure))
