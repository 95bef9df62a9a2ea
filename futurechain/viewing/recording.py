"""What a recording consists of: stages, what happened to workers, how long queues were.

Plain data, which knows nothing of futures, so recordings can be stored, merged or made up for a test. Times are seconds
since the recording began.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Count", "Mark", "Span"]


@dataclass(frozen=True, slots=True)
class Span:
    """One stage of a recording. Times are seconds since the recording began; None means it never came to that.

    Attributes:
        number: Identifies the stage within its recording.
        name: The name of the stage's function.
        executor: Where the stage was to run, such as "ThreadPoolExecutor-0" or "INLINE".
        track: The thread or process that ran it, or "" if it never ran.
        process: The process id of that.
        attached: When the stage was made.
        queued: When it was handed to its executor.
        started: When its function was called.
        settled: When its outcome was known.
        state: "returned", "failed", "cancelled", "passed" (skipped, outcome passed on) or "pending".
        detail: The error, such as "ValueError: nope", or the type name of the result.
        parents: The numbers of the stages whose outcomes it took.
        returned: When its function returned, if that is known; it may have been settled later, by a returned future.
        packing: From when to when its call was packed for another process.
        sent: When it was sent there.
    """

    number: int
    name: str
    executor: str
    track: str
    process: int
    attached: float
    queued: float | None
    started: float | None
    settled: float | None
    state: str
    detail: str
    parents: tuple[int, ...]
    returned: float | None = None
    packing: tuple[float, float] | None = None
    sent: float | None = None

    @property
    def over(self) -> float | None:
        """When it ran no longer."""
        return self.settled if self.returned is None else self.returned

    @property
    def times(self) -> tuple[float | None, ...]:
        """When what happened to it, in this order: attached, queued, started, settled."""
        return self.attached, self.queued, self.started, self.settled


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to a worker process at one moment: it was started, was killed, replaced another.

    Attributes:
        time: When.
        executor: The pool that it works for.
        track: The track of the worker.
        process: Its process id.
        text: What happened.
    """

    time: float
    executor: str
    track: str
    process: int
    text: str


@dataclass(frozen=True, slots=True)
class Count:
    """How long a queue was from one moment on.

    Attributes:
        time: When.
        queue: What the queue is called.
        length: How many were in it.
    """

    time: float
    queue: str
    length: int
