"""Errors that say where they came from, and failures that nobody looked at.

A future that fails while nothing depends on it gets an `Unheard`, which lives exactly as long as the future does and
reports the failure when it goes. Whoever looks at the outcome takes it away. So only failed futures pay for this,
and each failure is reported once, at the end of its chain.
"""

from __future__ import annotations

import atexit
import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any

from futurechain.core import callback_threads as crew
from futurechain.errors import CancelledError
from futurechain.failure import Failure
from futurechain.core.thread_state import here

__all__ = ["HEARD", "Unheard", "annotate", "rescue", "unheard"]

logger = logging.getLogger("futurechain")
MOST_LINES = 100
"""How many stages a report shows, counted from the end of the chain."""
_NOTE = "raised in stage "


class Unheard:
    """Reports a failure when it is dropped, unless somebody has heard of it before."""

    __slots__ = ("__weakref__", "_failure", "_told", "_trail")

    def __init__(self, failure: Failure, trail: Any) -> None:
        self._failure = failure
        self._trail = trail
        self._told = [False]
        _all.add(self)

    def tell(self) -> None:
        """Log the failure, once."""
        if self._told:
            self._told.clear()
            error = self._failure.value
            text = f"a future failed, and nobody looked at it{self._where()}"
            logger.error("%s", text, exc_info=(type(error), error, error.__traceback__))

    def _where(self) -> str:
        """Return the stages: in debug mode all, with the lines that attached them; else those that it went through."""
        lines: list[str] = []
        trail = self._trail
        while trail is not None and len(lines) < MOST_LINES:
            name, line, trail = trail
            lines.append(f"\n  stage {name}, attached at {line}")
        if lines:
            return ":" + "\n  ..." * (trail is not None) + "".join(reversed(lines))
        return f": stage {' > '.join(self._failure.path)}" if self._failure.path else ""

    def hear(self) -> None:
        """Note that somebody has looked."""
        self._told.clear()

    __del__ = tell


class Heard:
    """Stands where an `Unheard` would, in a future that somebody has looked at."""

    __slots__ = ()

    def hear(self) -> None:
        """Do nothing: it is known already."""


HEARD = Heard()
_all: weakref.WeakSet[Unheard] = weakref.WeakSet()


@atexit.register
def _tell_all() -> None:
    for one in tuple(_all):
        one.tell()


def unheard(future: Any, failure: Failure) -> None:
    """Remember that `future` failed, with `failure`, and nobody has looked at it yet.

    A cancellation is no such failure, nor how work ends that nobody wanted any more when it was running, nor a Ctrl-C
    that is about to be raised in the main thread as well.
    """
    if failure.value is here.run.interrupt:
        return
    if not isinstance(failure.value, CancelledError) and "_unwanted" not in future.__dict__:
        mine = Unheard(failure, future.__dict__.get("_trail"))
        if future.__dict__.setdefault("_unheard", mine) is not mine:  # somebody has heard of it already
            mine.hear()


def annotate(error: BaseException, stage: str, number: int, total: int, place: str) -> None:
    """Note on `error` which stage raised it, unless one is noted already."""
    if any(str(note).startswith(_NOTE) for note in getattr(error, "__notes__", ())):
        return
    position = f", {number} of {total}" if number else ""
    error.add_note(f"{_NOTE}{stage}{position}, on {place}")


def rescue(job: Callable[[], object]) -> None:
    """Run `job`, which a finalizer found necessary, outside of whatever the finalizer interrupted.

    At the end of the interpreter there is nobody left to be rescued.
    """
    if not sys.is_finalizing():
        crew.post(job)
