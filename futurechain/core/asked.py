"""A future whose value is somewhere else, and comes when somebody asks for it: who does comes into its list.

What produces such a future wants to know of each consumer, whatever kind that is, and of those that it does not know
as well. All of them come in by ``append`` or ``insert``. The entry is in the list **first**, and the producer is told
**then**; who makes the value available notes that **first**, and looks into the list **then**: one of the two sees the
other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex, TypeVar

from futurechain.core.scheduler import Scheduler
from futurechain.core.state import State, Token, consumers, new_pending
from futurechain.core.stdlib import WaitCondition

__all__ = ["is_asked", "new_asked"]

AnyState = TypeVar("AnyState", bound=State)


class _Door(list[Any]):
    """The list of dependents; tells who comes in."""

    __slots__ = ("_asked",)

    def __init__(self, entries: list[Any], asked: Callable[[], object]) -> None:
        super().__init__(entries)
        self._asked = asked

    def append(self, dependent: Any) -> None:
        super().append(dependent)
        self._tell(dependent)

    def insert(self, index: SupportsIndex, dependent: Any) -> None:
        super().insert(index, dependent)
        self._tell(dependent)

    def _tell(self, dependent: Any) -> None:
        if _wants_value(dependent):
            self._asked()


def _wants_value(dependent: Any) -> bool:
    """Tell whether it is no token, and nobody who only waits until the future is done."""
    return type(dependent) is not Token and type(dependent) is not WaitCondition


def new_asked(
    kind: type[AnyState], handler: Any, scheduler: Scheduler, source: Any, asked: Callable[[], object]
) -> AnyState:
    """Return a pending future of that kind, a produced one; ``asked()`` is called whenever it gets a consumer."""
    future = new_pending(kind, handler, scheduler, source)
    future._dependents = _Door(future._dependents, asked)
    return future


def is_asked(future: State) -> bool:
    """Tell whether anybody waits for the value of `future`."""
    return any(map(_wants_value, consumers(future)))
