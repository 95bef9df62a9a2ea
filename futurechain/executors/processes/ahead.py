"""Stages that are begun ahead of their turn, by the worker that has just made the call of their source.

Between two stages lie two ways between processes, and two threads that have to be woken: that takes longer than most
calls. So the function of a stage whose source is being made by a worker is sent after that. If the value is plain and
short, the worker sends it back as it would, says that it goes on, and calls the next function with it.

Until it is begun, the stage knows nothing of that: it waits for its source. Who cancels it notes that **first**
(`ProcessScheduler.keeps_back`) and asks for the gate **then**; who sends it ahead lets the gate be known **first** and
looks for that note **then**. So it is not sent, or the gate decides who has it, the worker or who cancels (see
`progress`). What was sent and is not begun is forgotten: it is started when its turn has come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from futurechain.core.delivery import take_ahead
from futurechain.core.observers import watch
from futurechain.core.state import begin
from futurechain.executors.processes.jobs import StageJob
from futurechain.executors.processes.progress import Progress
from futurechain.executors.processes.trips import Job

if TYPE_CHECKING:
    from futurechain.executors.processes.scheduler import ProcessScheduler

__all__ = ["AheadJob", "keep_back"]

KEPT_BACK = "_kept_back"
"""In a stage's dictionary: it is not to be sent ahead any more."""


class AheadJob(StageJob):
    """A stage that may be sent ahead."""

    __slots__ = ("_source",)

    def __init__(self, scheduler: ProcessScheduler, stage: Any, source: Any, fn: Callable[..., Any]) -> None:
        super().__init__(scheduler, stage, (fn, (), {}), begun=True)
        self._source = source

    def arm(self, progress: Progress, number: int) -> bool:
        """Say whether it may be sent ahead: under that number, to the worker with that page."""
        stage = self._stage
        self._gate = progress, number
        may_go = not (stage.done() or KEPT_BACK in stage.__dict__)
        if may_go and watch.on:
            watch.queued(stage)
        return may_go

    def stays(self) -> bool:
        """See to it that no worker begins it ahead of its turn; False if one has."""
        gate = self._gate
        return gate is None or gate[0].withdraw(gate[1])

    def follows(self, before: Job) -> None:
        """Take note that a worker has taken it, and calls it with the value of `before`, which is about to be told."""
        stage = self._stage
        # Its source is not to start it once more, which would be in vain. Else it is settled, or about to be.
        if take_ahead(self._source, stage) and begin(stage):
            self._owns = self.is_running = True
            stage._call, stage._source = self.call()[0], self
        if isinstance(before, StageJob):
            before.following = self
        self.left()

    def given(self, value: Any) -> None:
        """Take note with which value it was called: if its worker dies before it has begun, it is called again."""
        self._call = self.call()[0], (value,), {}

    def left(self) -> None:
        """Take note that nothing is to be decided any more."""
        if self._scheduler.ahead.get(id(self._stage)) is self:
            self._scheduler.ahead.pop(id(self._stage), None)
        self._gate = None


def keep_back(stage: Any) -> None:
    """Note that `stage` is not to be sent ahead any more."""
    stage.__dict__[KEPT_BACK] = True
