"""One item of a stream, and the shelf from which the consumer takes those that are done.

All of it is guarded by the lock of the flow, but for `Shelf.is_ready`, which looks at one thing only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from futurechain.failure import Failure

if TYPE_CHECKING:
    from futurechain.pipeline.attempts import Attempts

__all__ = ["DONE", "DROPPED", "LIVE", "Item", "Shelf"]

LIVE, DONE, DROPPED = "live", "done", "dropped"


class Item:
    """One item on its way."""

    # No slots: most items keep these as they are, and what is not stored costs nothing.
    step: int = 0
    """The number of the step that it waits for, or is in."""
    state: str = LIVE
    attempts: Attempts | None = None
    """If it is in a step that may be tried again, and has been in there before."""
    held: tuple[Any, ...] = ()
    """What runs for it alone."""

    def __init__(self, outcome: Any, since: float) -> None:
        self.outcome: Any = outcome
        """What the step before it ended with; while a step runs, what that was given."""
        self.since: float = since
        """When it came there."""


class Shelf:
    """The items between "read" and "handed to the consumer".

    Args:
        ordered: whether they are handed out in the order in which they came.
        return_exceptions: whether failures are handed out as values are; otherwise the first one comes alone, and last.
    """

    def __init__(self, *, ordered: bool, return_exceptions: bool) -> None:
        self.ordered = ordered
        self._keeps_failures = return_exceptions
        self._order: deque[Item] = deque()
        """With order: the items from the first that is not handed out on."""
        self._ready: deque[Item] = deque()
        """Without: those that are done."""
        self._unfinished: set[Item] = set()
        """Without: those that are not."""

    def put(self, item: Item) -> None:
        """Take in an item that was read."""
        if self.ordered:
            self._order.append(item)
        else:
            self._unfinished.add(item)

    def is_done(self, item: Item) -> None:
        """Take note that `item` can be handed out."""
        if not self.ordered:
            self._unfinished.discard(item)
            self._ready.append(item)

    def is_dropped(self, item: Item) -> None:
        """Take note that nobody wants `item`."""
        self._unfinished.discard(item)

    def is_ready(self) -> bool:
        """Tell whether something can be handed out; it stays so if it is."""
        if not self.ordered:
            return bool(self._ready)
        try:
            return self._order[0].state is DONE
        except IndexError:
            return False

    def take(self, most: int) -> list[Any]:
        """Return outcomes that are ready, in their order; a failure that ends the stream comes alone."""
        source = self._order if self.ordered else self._ready
        taken: list[Any] = []
        for item in source:
            outcome = item.outcome
            if item.state is not DONE or len(taken) == most:
                break
            if type(outcome) is Failure and not self._keeps_failures:
                if taken:
                    break
                most = 1
            taken.append(outcome)
        for _ in taken:
            source.popleft()
        return taken

    def is_any_before(self, number: int) -> bool:
        """Tell whether an item has not come to the step `number` yet."""
        items = reversed(self._order) if self.ordered else self._unfinished
        return any(item.step < number and item.state is LIVE for item in items)

    def cut_behind(self, failed: Item) -> Sequence[Item]:
        """Return what nobody can want after `failed`."""
        if not self.ordered:
            return tuple(self._unfinished)
        behind = []
        while self._order[-1] is not failed:
            behind.append(self._order.pop())
        return behind

    def rest(self) -> Sequence[Item]:
        """Return what is not done, or may be."""
        return tuple(self._order) if self.ordered else tuple(self._unfinished)

    def clear(self) -> None:
        """Forget what is left."""
        self._order.clear()
        self._ready.clear()
