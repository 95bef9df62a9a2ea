"""Debug mode: where each stage was attached, and which callbacks hold their thread up.

While it is on, each stage keeps its trail: its name, the line of the program that attached it, and the trail of the
stage before. Reports of failures that nobody looked at show the whole trail.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

from futurechain.clock import check_seconds
from futurechain.core.handlers import label
from futurechain.core.observers import Observer, watch

__all__ = ["debug"]

logger: logging.Logger = logging.getLogger("futurechain")
_PACKAGE = str(Path(__file__).parents[1]) + os.sep


class _Debugger(Observer):
    """Notes trails, and times local callbacks."""

    __slots__ = ("slow",)

    def __init__(self) -> None:
        self.slow = 0.1

    def attached(self, stage: Any, parents: tuple[Any, ...]) -> None:
        trail = parents[0].__dict__.get("_trail") if parents else None
        stage.__dict__["_trail"] = label(stage._handler), _line(), trail

    def started(self, stage: Any, run: Any) -> None:
        stage.__dict__["_began"] = perf_counter()

    def returned(self, stage: Any) -> None:
        began = stage.__dict__.pop("_began", None)
        if began is None or stage._on_executor:
            return
        seconds = perf_counter() - began
        if seconds > self.slow:
            name, line, _ = stage.__dict__.get("_trail") or ("", "", None)
            logger.warning("stage %s, attached at %s, held its thread for %.3f seconds", name, line, seconds)


def _line() -> str:
    """Return the place in the program, outside of this package, that is attaching something."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if frame is None:
        return "an unknown line"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


_debugger = _Debugger()


def debug(on: bool = True, *, slow: float = 0.1) -> None:
    """Turn debug mode on or off; the environment variable ``FUTURECHAIN_DEBUG=1`` turns it on from the start.

    Stages that are attached from then on know the line that attached them, and the report of a failure that nobody
    looked at (logger ``futurechain``) shows the lines of the whole chain. A local callback that holds its thread for
    longer than `slow` is warned about, once it has returned, through the same logger.

    Args:
        on: False turns it off.
        slow: how long a local callback may take, in seconds.

    Raises:
        TypeError: if `slow` is no number.
        ValueError: if it is negative, NaN or infinite.

    Example:
        >>> debug(slow=0.5)
        >>> debug(False)
    """
    _debugger.slow = check_seconds(slow, "debug(slow=...)")
    watch.remove(_debugger)
    if on:
        watch.add(_debugger)
