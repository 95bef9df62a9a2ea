"""A recording as a trace file for Perfetto."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from futurechain.viewing.recording import Count, Mark, Span

__all__ = ["chrome_trace", "microseconds"]


def chrome_trace(spans: Iterable[Span], marks: Iterable[Mark] = (), counts: Iterable[Count] = ()) -> dict[str, Any]:
    """Describe a recording in the Chrome trace event format, which Perfetto and chrome://tracing open.

    Each worker thread or process is a track with what it ran, and with marks for what happened to it. The time a stage
    was queued, and a stage that never ran, is an asynchronous event named after the executor, in a process made up for
    these; what of that time it was being packed is another one inside of it. Lengths of queues are counters there.
    Arrows lead from stage to stage.
    """
    trace = _Trace(sorted(spans, key=_order), tuple(marks), tuple(counts))
    return {"traceEvents": trace.events(), "displayTimeUnit": "ms"}


class _Trace:
    """The events of one trace; `spans` are in the order in which they began to run."""

    def __init__(self, spans: Sequence[Span], marks: Sequence[Mark], counts: Sequence[Count]) -> None:
        self.spans = spans
        self.marks = marks
        self.counts = counts
        self.by_number = {span.number: span for span in spans}
        self.end = max((time for span in spans for time in span.times if time is not None), default=0.0)
        self.ran = [span for span in spans if span.started is not None]
        self.tracks: dict[tuple[int, str, int], int] = {}  # (process, track, lane): its tid
        self.lanes = dict(self._place())
        for mark in marks:
            self.tracks.setdefault((mark.process, mark.track, 0), len(self.tracks) + 1)
        # The queues belong to no process of the recording: give them a pid that none of those has.
        self.queues = max([0, *(span.process for span in spans), *(mark.process for mark in marks)]) + 1

    def events(self) -> list[dict[str, Any]]:
        """All events, what names the tracks first."""
        return [
            *self._processes(),
            *self._threads(),
            *(self._run(span) for span in self.ran),
            *(event for span in self.spans for event in (*self._wait(span), *self._packing(span))),
            *map(self._mark, self.marks),
            *map(self._count, self.counts),
            *self._arrows(),
        ]

    def _place(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Give each stage that ran its (pid, tid).

        The viewers want the events of a track to be nested or apart. A stage that waits for a future it returned
        overlaps what its thread does next; so what does not fit goes to a further lane of the same track.
        """
        all_lanes: dict[tuple[int, str], _Lanes] = {}
        for span in self.ran:
            key = span.process, span.track
            lane = all_lanes.setdefault(key, _Lanes()).place(self._start(span), self._finish(span))
            yield span.number, (span.process, self.tracks.setdefault((*key, lane), len(self.tracks) + 1))

    def _start(self, span: Span) -> float:
        assert span.started is not None, "only stages that ran are on a track"
        return span.started

    def _finish(self, span: Span) -> float:
        """When the stage was over; never before its start, though two processes' clocks may say so."""
        return max(self._start(span), self.end if span.over is None else span.over)

    def _processes(self) -> Iterator[dict[str, Any]]:
        names: dict[int, set[str]] = {}
        for process, track, _ in self.tracks:
            names.setdefault(process, set()).add(track)
        for process, tracks in names.items():
            yield _metadata("process_name", process, 0, name=tracks.pop() if len(tracks) == 1 else "process")
        if self.counts or any(event for span in self.spans for event in self._wait(span)):
            yield _metadata("process_name", self.queues, 0, name="queues")
            yield _metadata("process_sort_index", self.queues, 0, sort_index=-1)

    def _threads(self) -> Iterator[dict[str, Any]]:
        for (process, track, lane), tid in self.tracks.items():
            yield _metadata("thread_name", process, tid, name=f"{track} ({lane + 1})" if lane else track)
            yield _metadata("thread_sort_index", process, tid, sort_index=tid)

    def _run(self, span: Span) -> dict[str, Any]:
        start = microseconds(self._start(span))
        duration = round(microseconds(self._finish(span)) - start, 3)
        return self._on_track(span, "X", start) | {
            "name": span.name,
            "cat": span.state,
            "dur": duration,
            "args": _facts(span),
        }

    def _on_track(self, span: Span, phase: str, time: float) -> dict[str, Any]:
        pid, tid = self.lanes[span.number]
        return {"ph": phase, "ts": time, "pid": pid, "tid": tid}

    def _wait(self, span: Span) -> Iterator[dict[str, Any]]:
        """A pair of events for the time in the queue, or for the whole life of a stage that never ran."""
        if span.queued is not None:
            category, name, begin = "queued", f"queue of {span.executor}", span.queued
        elif span.started is None:
            category, name, begin = "not run", f"not run by {span.executor}", span.attached
        else:
            return
        ends = (time for time in (span.started, span.settled, self.end) if time is not None)
        common = {"name": name, "cat": category, "id": span.number, "pid": self.queues, "tid": 0}
        yield common | {"ph": "b", "ts": microseconds(begin), "args": _facts(span)}
        yield common | {"ph": "e", "ts": microseconds(max(begin, next(ends)))}

    def _packing(self, span: Span) -> Iterator[dict[str, Any]]:
        """A pair of events for the time in which the call was packed, within the one in the queue."""
        if span.packing is None:
            return
        begin, end = span.packing
        name = f"packing for {span.executor}"
        common = {"name": name, "cat": "queued", "id": span.number, "pid": self.queues, "tid": 0}
        yield common | {"ph": "b", "ts": microseconds(begin)}
        yield common | {"ph": "e", "ts": microseconds(max(begin, end))}

    def _mark(self, mark: Mark) -> dict[str, Any]:
        tid = self.tracks[mark.process, mark.track, 0]
        moment = {"ph": "i", "ts": microseconds(mark.time), "pid": mark.process, "tid": tid}
        return moment | {"name": mark.text, "cat": "worker", "s": "t"}

    def _count(self, count: Count) -> dict[str, Any]:
        moment = {"ph": "C", "ts": microseconds(count.time), "pid": self.queues, "tid": 0}
        return moment | {"name": count.queue, "args": {"waiting": count.length}}

    def _arrows(self) -> Iterator[dict[str, Any]]:
        arrows = ((source, span) for span in self.ran for source in self._sources(span))
        for number, (source, target) in enumerate(arrows, 1):
            common = {"name": "then", "cat": "chain", "id": number}
            yield common | self._on_track(source, "s", self._departure(source, target))
            yield common | self._on_track(target, "f", microseconds(self._start(target))) | {"bp": "e"}

    def _departure(self, source: Span, target: Span) -> float:
        """The last moment at which an arrow can leave: a nanosecond before the end it still belongs to `source`."""
        latest = min(microseconds(self._finish(source)) - 0.001, microseconds(self._start(target)))
        return round(max(microseconds(self._start(source)), latest), 3)

    def _sources(self, span: Span) -> Iterator[Span]:
        """The stages that ran and lead to `span`: its parents, or theirs where a parent was only passed through."""
        seen: set[int] = set()
        waiting = list(reversed(span.parents))
        while waiting:
            number = waiting.pop()
            parent = self.by_number.get(number)
            if parent is None or number in seen:
                continue
            seen.add(number)
            if parent.started is not None:
                yield parent
            else:
                waiting.extend(reversed(parent.parents))


class _Lanes:
    """Rows of one track, filled from left to right. Only the first has stages inside of stages."""

    def __init__(self) -> None:
        self.open: list[float] = []  # the ends of what is not over in the first lane, outermost first
        self.others: list[tuple[float, int]] = []  # the end of each other lane, and its number, as a heap

    def place(self, start: float, finish: float) -> int:
        """Take a lane for a stage that starts no earlier than those before it; return the number of the lane."""
        while self.open and self.open[-1] <= start:
            self.open.pop()
        if not self.open or finish <= self.open[-1]:
            self.open.append(finish)
            return 0
        if self.others and self.others[0][0] <= start:
            lane = self.others[0][1]
            heapq.heapreplace(self.others, (finish, lane))
        else:
            lane = len(self.others) + 1
            heapq.heappush(self.others, (finish, lane))
        return lane


def _order(span: Span) -> tuple[float, float, int]:
    """By start, and of those that start together the longest first, as the one around the others."""
    start = span.attached if span.started is None else span.started
    finish = math.inf if span.over is None else span.over
    return start, -finish, span.number


def microseconds(seconds: float) -> float:
    """Microseconds, to the nanosecond: what the viewers can tell apart."""
    return round(seconds * 1e6, 3)


def _metadata(kind: str, pid: int, tid: int, **args: object) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "ts": 0, "pid": pid, "tid": tid, "args": args}


def _facts(span: Span) -> dict[str, Any]:
    """What the viewers show of a selected stage."""
    facts = {
        "number": span.number,
        "stage": span.name,
        "executor": span.executor,
        "state": span.state,
        "detail": span.detail,
        "attached (ms)": round(span.attached * 1e3, 6),
        "parents": list(span.parents),
    }
    if span.queued is not None and span.started is not None:
        facts["queued (ms)"] = round((span.started - span.queued) * 1e3, 6)
    if span.packing is not None:
        facts["packed (ms)"] = round((span.packing[1] - span.packing[0]) * 1e3, 6)
    if span.returned is not None and span.settled is not None:
        what = "waited for a returned future (ms)" if span.sent is None else "came back (ms)"
        facts[what] = round(max(0.0, span.settled - span.returned) * 1e3, 6)
    return facts
