"""What a stream knows about each of its steps."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters", "StepStatistics"]


@dataclass(frozen=True)
class StepStatistics:
    """What has happened in one step of a stream so far."""

    name: str
    """Of the step."""
    started: int
    """How many items have begun to run in it; an item that is tried again has begun once."""
    succeeded: int
    """How many of them ended with a value."""
    failed: int
    """How many of them ended with an error."""
    cancelled: int
    """How many items were waiting for it, or running in it, when nobody wanted them any more."""
    in_flight: int
    """How many are running in it, or are on a trip that begins with it."""
    seconds_queued: float
    """How long items have waited until it began, all together."""
    seconds_run: float
    """How long it has run, all items and attempts together."""


class Counters:
    """The same while it changes; guarded by the lock of the stream."""

    __slots__ = ("cancelled", "failed", "in_flight", "name", "seconds_queued", "seconds_run", "started", "succeeded")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.started: int = 0
        self.succeeded: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self.in_flight: int = 0
        self.seconds_queued: float = 0.0
        self.seconds_run: float = 0.0

    def frozen(self) -> StepStatistics:
        """Return the present figures."""
        return StepStatistics(**{name: getattr(self, name) for name in StepStatistics.__dataclass_fields__})
