"""What a finished recording becomes: a trace file for Perfetto, or one page that needs no network.

A recording is a collection of `Span`s, one for each stage of the chains that were traced. This module only turns
them into files; it knows nothing of futures, so recordings can be stored, merged or made up for a test.
"""

from __future__ import annotations

import heapq
import html
import importlib.resources
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["Span", "chrome_trace", "page", "save"]


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

    @property
    def over(self) -> float | None:
        """When it ran no longer."""
        return self.settled if self.returned is None else self.returned


def chrome_trace(spans: Iterable[Span]) -> dict[str, Any]:
    """Describe `spans` in the Chrome trace event format, which Perfetto and chrome://tracing open.

    Each worker thread or process is a track with what it ran. The time a stage was queued, and a stage that never
    ran, is an asynchronous event named after the executor, in a process made up for these. Arrows lead from stage
    to stage.
    """
    return {"traceEvents": _Trace(sorted(spans, key=_order)).events(), "displayTimeUnit": "ms"}


def page(spans: Iterable[Span], title: str) -> str:
    """Draw `spans` as one HTML page with everything in it: an interactive timeline, and tables of what was slow."""
    parts = {"TITLE": _html_text(title), "SPANS": _script_text(_packed(spans))}
    template = importlib.resources.files("futurechain.viewing").joinpath("timeline.html").read_text("utf-8")
    # One pass: a title or a detail that looks like a placeholder stays what it is.
    return re.sub("__(TITLE|SPANS)__", lambda found: parts[found[1]], template)


def save(spans: Iterable[Span], path: str | PathLike[str], title: str) -> None:
    """Write `spans` to `path`, in the format that its suffix names.

    Args:
        spans: The stages of a recording.
        path: A file name ending in .json (for Perfetto) or .html (for any browser).
        title: The heading of the page; a trace for Perfetto has none.

    Raises:
        ValueError: The suffix is another one. Nothing is written then.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        text = json.dumps(chrome_trace(spans), separators=(",", ":"))
    elif suffix == ".html":
        text = page(spans, title)
    else:
        raise ValueError(
            f"cannot tell the format from {str(path)!r}: end it in .json (Perfetto) or .html (a page)"
        )
    Path(path).write_text(text, encoding="utf-8")


class _Trace:
    """The events of one trace; `spans` are in the order in which they began to run."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        self.by_number = {span.number: span for span in spans}
        self.end = max((time for span in spans for time in _times(span) if time is not None), default=0.0)
        self.ran = [span for span in spans if span.started is not None]
        self.tracks: dict[tuple[int, str, int], int] = {}  # (process, track, lane): its tid
        self.lanes = dict(self._place())
        # The queues belong to no process of the recording: give them a pid that none of those has.
        self.queues = max((span.process for span in spans), default=0) + 1

    def events(self) -> list[dict[str, Any]]:
        """All events, what names the tracks first."""
        return [
            *self._processes(),
            *self._threads(),
            *(self._run(span) for span in self.ran),
            *(event for span in self.spans for event in self._wait(span)),
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
        if any(event for span in self.spans for event in self._wait(span)):
            yield _metadata("process_name", self.queues, 0, name="queues")
            yield _metadata("process_sort_index", self.queues, 0, sort_index=-1)

    def _threads(self) -> Iterator[dict[str, Any]]:
        for (process, track, lane), tid in self.tracks.items():
            yield _metadata("thread_name", process, tid, name=f"{track} ({lane + 1})" if lane else track)
            yield _metadata("thread_sort_index", process, tid, sort_index=tid)

    def _run(self, span: Span) -> dict[str, Any]:
        start = _microseconds(self._start(span))
        duration = round(_microseconds(self._finish(span)) - start, 3)
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
        yield common | {"ph": "b", "ts": _microseconds(begin), "args": _facts(span)}
        yield common | {"ph": "e", "ts": _microseconds(max(begin, next(ends)))}

    def _arrows(self) -> Iterator[dict[str, Any]]:
        arrows = ((source, span) for span in self.ran for source in self._sources(span))
        for number, (source, target) in enumerate(arrows, 1):
            common = {"name": "then", "cat": "chain", "id": number}
            yield common | self._on_track(source, "s", self._departure(source, target))
            yield common | self._on_track(target, "f", _microseconds(self._start(target))) | {"bp": "e"}

    def _departure(self, source: Span, target: Span) -> float:
        """The last moment at which an arrow can leave: a nanosecond before the end it still belongs to `source`."""
        latest = min(_microseconds(self._finish(source)) - 0.001, _microseconds(self._start(target)))
        return round(max(_microseconds(self._start(source)), latest), 3)

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


def _times(span: Span) -> tuple[float | None, ...]:
    return span.attached, span.queued, span.started, span.settled


def _microseconds(seconds: float) -> float:
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
    if span.returned is not None and span.settled is not None:
        facts["waited for a returned future (ms)"] = round(max(0.0, span.settled - span.returned) * 1e3, 6)
    return facts


def _packed(spans: Iterable[Span]) -> dict[str, Any]:
    """The spans as rows of numbers; each string stands once in a table, since most of them come often."""
    strings: dict[str, int] = {}

    def index(text: str) -> int:
        return strings.setdefault(text, len(strings))

    rows = [
        [
            span.number,
            *(index(text) for text in (span.name, span.executor, span.track)),
            span.process,
            *(None if time is None else _microseconds(time) for time in _times(span)),
            *(index(text) for text in (span.state, span.detail)),
            list(span.parents),
            None if span.returned is None else _microseconds(span.returned),
        ]
        for span in spans
    ]
    return {"strings": list(strings), "rows": rows}


def _script_text(data: object) -> str:
    """JSON that may stand in a script element: plain ASCII, with nothing that ends the element or opens a comment."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _html_text(text: str) -> str:
    return html.escape(text).encode("ascii", "xmlcharrefreplace").decode("ascii")
