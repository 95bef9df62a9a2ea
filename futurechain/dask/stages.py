"""The futures of a chain on a cluster as the chain there has them, and what they wait for.

They are chained by the rules of the core. How users see them is in `futurechain.dask.seen`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from futurechain.core.cancel import release_all
from futurechain.core.handlers import Handler, Then
from futurechain.core.scheduler import Scheduler
from futurechain.core.state import Pending
from futurechain.core.thread_state import ThreadState
from futurechain.future import ExecutorStage

if TYPE_CHECKING:
    from futurechain.dask.scheduler import DaskScheduler

__all__ = ["Remote", "RemoteStage", "Sent", "home_of", "value_function"]

T = TypeVar("T")


def _nothing() -> None:
    """Return None, as a dead weak reference does."""


class Remote:
    """What is, or will be, on the cluster: there is one for each task, and as long as it lives, the value is kept."""

    __slots__ = ("_home", "engine")
    _whereabouts = "that is on the cluster"

    def __init__(self, home: DaskScheduler, engine: Any) -> None:
        self._home = home
        self.engine: Any = engine
        """Dask's future."""

    def __del__(self) -> None:
        self._home.release(self.engine)


class Sent:
    """What a stage waits for that the cluster has: its value to be, and perhaps the stage before, which is not done."""

    __slots__ = ("_home", "before", "parent", "remote")

    def __init__(self, home: DaskScheduler, remote: Remote, parent: Any, before: Any) -> None:
        self._home = home
        self.remote: Remote = remote
        self.parent: Any = parent
        self.before: Any = before
        """The value of that one, which it has as its argument."""

    def is_inherited(self) -> bool:
        """Tell whether it fails because the stage before does: then that will say so itself.

        Or has said so: and perhaps an error handler has put another value in its place, and the stage goes again.
        """
        if self.parent is None:
            return False
        if not self.parent.done():
            return self.before.engine.status in {"error", "cancelled"}
        outcome = self.parent._outcome
        return outcome is not self.before

    def sources(self) -> list[Any]:
        """Return the stage before, if the cluster knows of both."""
        return [] if self.parent is None else [self.parent]

    def runs_abroad(self) -> bool:
        """Say no: Dask does not tell whether it runs."""
        return False

    def stop(self) -> bool:
        """Say yes: Dask forgets what is cancelled, and lets a worker that runs it end that."""
        return True

    def cancel_for(self, child: Any) -> Iterable[Any]:
        """Withdraw it from the cluster; return the stage before, claimed, if nobody else consumes that."""
        self._home.withdraw(self.remote.engine)
        return release_all((self.parent,), child)


class RemoteStage(ExecutorStage[T]):
    """A stage, or a task, on the cluster, as the chain there has it."""

    __slots__ = ()

    @property
    def _seen_outcome(self) -> Any:
        """The outcome as users see it: a picture tells whether the value is here."""
        shown = self.__dict__.get("_shown", _nothing)()
        return self._outcome if shown is None or type(shown._outcome) is Pending else shown._outcome

    @property
    def sent(self) -> Sent | None:
        """What the cluster has of it."""
        return self.__dict__.get("_sent")

    def take_turn(self, remote: Remote) -> bool:
        """Take the right to send its function for that value; True for one caller."""
        mine = [remote]
        return self.__dict__.setdefault("_turn", mine) is mine

    def was_sent(self, remote: Remote) -> bool:
        """Tell whether the cluster has it, or gets it now, with just this value as its argument."""
        turn = self.__dict__.get("_turn")
        return turn is not None and turn[0] is remote

    def give_back(self) -> None:
        """Give that right back: it could not be used."""
        self.__dict__.pop("_turn", None)

    def let_go(self) -> None:
        """Hold nothing on the cluster any more, since it is settled: its outcome does, if it is a value there."""
        self.__dict__.pop("_turn", None)
        self.__dict__.pop("_sent", None)

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> Any:
        """Hand it over, unless the cluster has it already, with just this value as its argument."""
        if type(self._outcome) is not Pending:  # it was quicker to come here than the one before
            return None
        new = type(outcome) is not Remote or value_function(self) is None or self.take_turn(outcome)
        if not new and self.was_sent(outcome):
            return None
        return super()._fire(future, outcome, thread)


def home_of(scheduler: Scheduler) -> Any:
    """Return the cluster's own scheduler behind `scheduler`, which may be a view of it; None if it is none."""
    while (inner := getattr(scheduler, "_inner", None)) is not None:
        scheduler = inner
    return getattr(scheduler, "home", None)


def value_function(stage: Any) -> Any:
    """Return the function that `stage` has for a value, or None."""
    handler = stage._handler
    if type(handler) is Then:
        return handler.on_result
    return None if handler is None or issubclass(type(handler), Handler) else handler


RemoteStage.__name__ = RemoteStage.__qualname__ = "Future"  # what users see in messages
