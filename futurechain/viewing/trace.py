"""Recording what happens to each stage, for a timeline.

While a `trace` is on, every stage that is attached gets a record, and the core tells when it is queued, started and
settled. The records hold names, times and types: no result and no exception lives longer for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from os import PathLike
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeAlias

from futurechain.core.handlers import Handler, label
from futurechain.core.observers import Elsewhere, Observer, watch
from futurechain.errors import CancelledError
from futurechain.failure import Failure
from futurechain.viewing import trace_export as timeline
from futurechain.viewing.recording import Count, Mark, Span

__all__ = ["duration", "trace"]


FN, PLACE, PARENTS, ATTACHED, QUEUED, STARTED, SETTLED, TRACK, ELSEWHERE, KIND, RETURNED = range(11)
"""The fields of a record, which is a list because that costs a third of an object."""

Record: TypeAlias = list[Any]


class _Recorder(Observer):
    """Keeps one record for each stage, for all traces that are on."""

    __slots__ = ("counts", "marks", "records", "traces")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.marks: list[tuple[float, str, int, str]] = []
        self.counts: list[tuple[float, str, int]] = []
        self.traces: list[trace] = []

    def attached(self, stage: Any, parents: tuple[Any, ...]) -> None:
        before = [parent._record for parent in parents]
        begun: Record = [stage._handler, stage._scheduler, before, perf_counter()]
        record = stage._record = [*begun, None, None, None, "", None, None, None]
        self.records.append(record)

    def adopted(self, stage: Any, inner: Any) -> None:
        if stage._record is not None:
            stage._record[PARENTS].append(inner._record)
            stage._record[RETURNED] = perf_counter()

    def queued(self, stage: Any) -> None:
        if stage._record is not None:
            stage._record[QUEUED] = perf_counter()

    def started(self, stage: Any, run: Any) -> None:
        record = stage._record
        if record is not None:
            record[TRACK] = run.track or _name_track(run)
            record[STARTED] = perf_counter()

    def ran(self, stage: Any, run: Elsewhere) -> None:
        if stage._record is not None:
            stage._record[ELSEWHERE], stage._record[STARTED], stage._record[RETURNED] = run, run.began, run.ended

    def settled(self, stage: Any, outcome: Any) -> None:
        record = stage._record
        if record is not None and record[SETTLED] is None:  # else its value has only come here from somewhere else
            record[SETTLED] = perf_counter()
            record[KIND] = type(outcome) if type(outcome) is not Failure else _text(outcome)

    def marked(self, place: str, process: int, what: str) -> None:
        self.marks.append((perf_counter(), place, process, what))

    def counted(self, queue: str, length: int) -> None:
        self.counts.append((perf_counter(), queue, length))


_recorder = _Recorder()


def _name_track(run: Any) -> str:
    run.track = threading.current_thread().name
    return str(run.track)


class trace:  # noqa: N801  # used as a function: `with trace() as t`
    """Record every stage that is attached inside of the ``with`` block, whatever thread attaches it.

    What is settled after the block is not recorded any more. Several may be on at the same time.

    Example:
        >>> with trace() as recording:
        ...     pool.submit(pow, 2, 5).then(hex).result()
        '0x20'
        >>> [span.name for span in recording.spans()]
        ['pow', 'hex']
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._ended = float("inf")
        self._first = 0
        self._records: list[Record] = []
        self._marks: list[tuple[float, str, int, str]] = []
        self._counts: list[tuple[float, str, int]] = []

    def __enter__(self) -> Self:
        with _entering:
            if not _recorder.traces:
                _recorder.records, _recorder.marks, _recorder.counts = [], [], []
                watch.add(_recorder)
            _recorder.traces.append(self)
            self._records, self._first = _recorder.records, len(_recorder.records)
            self._marks, self._counts = _recorder.marks, _recorder.counts
        self._began, self._ended = perf_counter(), float("inf")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _entering:
            _recorder.traces.remove(self)
            if not _recorder.traces:
                watch.remove(_recorder)
        self._ended = perf_counter()
        self._records = self._records[self._first :]
        self._first = 0
        self._marks, self._counts = self._marks[:], self._counts[:]
        for record in self._records:
            record[FN] = _Name(record[FN])  # the function itself may go

    def spans(self) -> Sequence[Span]:
        """Return what was recorded so far, in the order in which the stages were attached.

        Example:
            >>> with trace() as recording:
            ...     succeed("42").then(int).result()
            42
            >>> [(span.name, span.state, span.executor) for span in recording.spans()]
            [('int', 'returned', 'INLINE')]
        """
        records = self._records[self._first :]
        numbers = {id(record): number for number, record in enumerate(records)}
        return [self._span(record, numbers) for record in records]

    def marks(self) -> Sequence[Mark]:
        """Return what has happened to worker processes so far: which were started, ended, replaced.

        Example:
            >>> with trace() as recording, ProcessPoolExecutor(1) as processes:
            ...     processes.submit(abs, -5).result()
            5
            >>> recording.marks()[0].text
            'started'
        """
        return [
            Mark(time - self._began, place, _track_of(place, process), process, text)
            for time, place, process, text in tuple(self._marks)
            if self._began <= time <= self._ended
        ]

    def counts(self) -> Sequence[Count]:
        """Return how many items have waited in the queues of streams, at the moments when that changed for a trip.

        Example:
            >>> with trace() as recording:
            ...     list(Pipeline().then(abs, on=pool).map([-1, 2]))
            [1, 2]
            >>> all(count.length >= 0 for count in recording.counts())
            True
        """
        return [
            Count(time - self._began, queue, length)
            for time, queue, length in tuple(self._counts)
            if self._began <= time <= self._ended
        ]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the recording to a file, whose suffix says what for.

        Args:
            path: ``.json`` is a trace for Perfetto; ``.html`` a page of its own, which needs no network.

        Raises:
            RuntimeError: if nothing was to be recorded, because there was no ``with`` block.
            ValueError: if the suffix is another one.
            OSError: if the file cannot be written.

        Example:
            >>> with trace() as recording:
            ...     pool.submit(pow, 2, 5).then(hex).result()
            '0x20'
            >>> recording.save("chains.html")
        """
        if not self._began:
            raise RuntimeError("this trace was never on: record with `with trace() as t:`, and save that")
        timeline.save(self.spans(), path, "futurechain trace", self.marks(), self.counts())

    # -- what comes of it ---------------------------------------------------------------------------------------------

    def _span(self, record: Record, numbers: dict[int, int]) -> Span:
        executor, started, track, state = record[PLACE].name, record[STARTED], record[TRACK], _state(record)
        elsewhere: Elsewhere | None = record[ELSEWHERE]
        if elsewhere is not None:
            track = f"{executor}, {elsewhere.worker}" if elsewhere.worker else _track_of(executor, elsewhere.process)
        elif started is None and record[QUEUED] is not None and state in {"returned", "failed"}:
            started, track = record[QUEUED], executor  # somebody else's executor does not say when it began
        queued = record[QUEUED]
        if queued is not None and started is not None:  # a worker may be quicker than who hands over
            queued = min(queued, started)
        return Span(
            number=numbers[id(record)],
            name=_Name(record[FN]).text,
            executor=executor,
            track=track,
            process=os.getpid() if elsewhere is None else elsewhere.process,
            attached=record[ATTACHED] - self._began,
            queued=self._since(queued),
            started=self._since(started),
            settled=self._since(record[SETTLED]),
            state=state,
            detail=_detail(record[KIND]),
            parents=tuple(dict.fromkeys(numbers[id(parent)] for parent in record[PARENTS] if id(parent) in numbers)),
            returned=self._since(record[RETURNED]),
            packing=None if elsewhere is None else self._packing(elsewhere),
            sent=None if elsewhere is None else self._since(elsewhere.sent),
        )

    def _packing(self, elsewhere: Elsewhere) -> tuple[float, float] | None:
        if elsewhere.packing is None:
            return None
        begin, end = elsewhere.packing
        return begin - self._began, end - self._began

    def _since(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self._began


def _track_of(place: str, process: int) -> str:
    return f"{place}, process {process}"


_entering = threading.Lock()


class _Name:
    """What is left of a stage's function when the trace is over."""

    __slots__ = ("may_be_skipped", "text")

    def __init__(self, fn: Any) -> None:
        if type(fn) is _Name:
            self.text: str = fn.text
            self.may_be_skipped: bool = fn.may_be_skipped
        else:
            self.text = label(fn)
            self.may_be_skipped = not issubclass(type(fn), Handler) or bool(fn.handlers())


def _text(failure: Failure) -> tuple[str, str]:
    """Return the state and the detail of a failed stage."""
    if issubclass(type(failure.value), CancelledError):
        return "cancelled", ""
    return "failed", f"{type(failure.value).__name__}: {failure.getErrorMessage()}"[:200]


def _state(record: Record) -> str:
    kind = record[KIND]
    if kind is None:
        return "pending"
    state = "returned" if isinstance(kind, type) else str(kind[0])
    never_ran = record[STARTED] is None and record[QUEUED] is None and record[PARENTS]
    return "passed" if never_ran and state != "cancelled" and _Name(record[FN]).may_be_skipped else state


def _detail(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else kind[1] if kind else ""


def duration(future: Any) -> float | None:
    """Return how many seconds the stage took, if a trace has recorded that."""
    record = getattr(future, "_record", None)
    if record is None or record[STARTED] is None or record[SETTLED] is None:
        return None
    return float((record[RETURNED] or record[SETTLED]) - record[STARTED])
