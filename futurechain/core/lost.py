"""A bare future that its producer drops without settling it: what depends on it fails, instead of waiting for ever.

What waits for a bare future holds it by a weak reference, so that it can go. Its finalizer then finds the dependents
in the list, which outlives it.
"""

from __future__ import annotations

import sys
from _thread import interrupt_main
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import ref

from futurechain.core.attaching import kinds
from futurechain.core.loop import HERE, run_dependents
from futurechain.core.state import PENDING, RUNNING, TICKET, Pending, State, consumers, withdraw
from futurechain.core.unobserved import rescue
from futurechain.errors import LostFutureError
from futurechain.failure import Failure

__all__ = ["Guard", "finalize"]


class Guard:
    """An object that dies with a future of the user's own class, which has to stay what it is."""

    __slots__ = ("dependents",)

    def __init__(self) -> None:
        self.dependents: list[Any] = []

    def watch_over(self, future: State) -> None:
        """Note whose dependents are to be saved."""
        self.dependents = future._dependents

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:  # modules may be gone then
        if self.dependents and not is_finalizing():
            abandon(self.dependents)


def finalize(self: Any, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
    """Be the ``__del__`` of a bare future that something waits for: notice that it goes before it is settled."""
    if self._dependents and not is_finalizing():
        abandon(self._dependents)


def abandon(dependents: list[Any]) -> None:
    """Let what depends on a lost future fail, on a callback thread; until then it can be cancelled."""
    if not (withdraw(dependents, TICKET) or withdraw(dependents, RUNNING)) or not dependents:
        return
    try:
        _abandon(dependents)
    except KeyboardInterrupt:  # out of a finalizer it would go nowhere
        _abandon(dependents)
        rescue(interrupt_main)


def _abandon(dependents: list[Any]) -> None:
    lost = kinds.local()  # not by `fail`, which would expect somebody to look at it
    lost._scheduler, lost._outcome, lost._handler, lost._source = HERE, PENDING, None, None
    lost._dependents = dependents
    lost.__dict__["_unwanted"] = True  # what depends on it tells of the failure
    for dependent in consumers(lost):
        for waiting in (dependent, getattr(dependent, "target", None)):
            if isinstance(waiting, State) and type(waiting._source) is ref:
                waiting._source = lost
                if type(waiting._outcome) is not Pending:  # a second look: cancelled before our store
                    waiting._source = None
    rescue(partial(_fail, lost))


def _fail(lost: Any) -> None:
    lost._outcome = Failure(
        LostFutureError("the future this stage waits for was dropped by its producer without being settled")
    )
    run_dependents(lost)
