"""What a finished recording becomes: a trace file for Perfetto, or one page that needs no network."""

from __future__ import annotations

import html
import importlib.resources
import json
import re
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from futurechain.viewing.perfetto import chrome_trace, microseconds
from futurechain.viewing.recording import Count, Mark, Span

__all__ = ["Count", "Mark", "Span", "chrome_trace", "page", "save"]


def page(spans: Iterable[Span], title: str, marks: Iterable[Mark] = (), counts: Iterable[Count] = ()) -> str:
    """Draw a recording as one HTML page with everything in it: an interactive timeline, and tables of what was slow."""
    parts = {"TITLE": _html_text(title), "SPANS": _script_text(_packed(spans, marks, counts))}
    template = importlib.resources.files("futurechain.viewing").joinpath("timeline.html").read_text("utf-8")
    # One pass: a title or a detail that looks like a placeholder stays what it is.
    return re.sub("__(TITLE|SPANS)__", lambda found: parts[found[1]], template)


def save(
    spans: Iterable[Span],
    path: str | PathLike[str],
    title: str,
    marks: Iterable[Mark] = (),
    counts: Iterable[Count] = (),
) -> None:
    """Write a recording to `path`, in the format that its suffix names.

    Args:
        spans: The stages of a recording.
        path: A file name ending in .json (for Perfetto) or .html (for any browser).
        title: The heading of the page; a trace for Perfetto has none.
        marks: What happened to workers.
        counts: How long queues were.

    Raises:
        ValueError: The suffix is another one. Nothing is written then.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        text = json.dumps(chrome_trace(spans, marks, counts), separators=(",", ":"))
    elif suffix == ".html":
        text = page(spans, title, marks, counts)
    else:
        raise ValueError(
            f"cannot tell the format from {str(path)!r}: end it in .json (Perfetto) or .html (a page)"
        )
    Path(path).write_text(text, encoding="utf-8")


def _packed(spans: Iterable[Span], marks: Iterable[Mark], counts: Iterable[Count]) -> dict[str, Any]:
    """The recording as rows of numbers; each string stands once in a table, since most of them come often."""
    strings: dict[str, int] = {}

    def index(text: str) -> int:
        return strings.setdefault(text, len(strings))

    rows = [
        [
            span.number,
            *(index(text) for text in (span.name, span.executor, span.track)),
            span.process,
            *(None if time is None else microseconds(time) for time in span.times),
            *(index(text) for text in (span.state, span.detail)),
            list(span.parents),
            None if span.returned is None else microseconds(span.returned),
            *([] if span.packing is None else map(microseconds, span.packing)),
        ]
        for span in spans
    ]
    moments = [
        [microseconds(mark.time), mark.process, *(index(text) for text in (mark.executor, mark.track, mark.text))]
        for mark in marks
    ]
    lengths = [[microseconds(count.time), index(count.queue), count.length] for count in counts]
    return {"strings": list(strings), "rows": rows, "marks": moments, "counts": lengths}


def _script_text(data: object) -> str:
    """JSON that may stand in a script element: plain ASCII, with nothing that ends the element or opens a comment."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _html_text(text: str) -> str:
    return html.escape(text).encode("ascii", "xmlcharrefreplace").decode("ascii")
