"""Errors that say where they came from, and failures that nobody looked at.

A future that fails while nothing depends on it gets an `Unobserved`, which lives exactly as long as the future does and
reports the failure when it goes. Whoever looks at the outcome takes it away. So only failed futures pay for this,
and each failure is reported once, at the end of its chain.

Whatever is done here with somebody else's exception or logging handler may raise anything; nothing of that gets any
further, since it would keep the outcome from others.
"""

from __future__ import annotations

import atexit
import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any

from futurechain.core import callback_threads
from futurechain.core.handlers import label
from futurechain.core.thread_state import ThreadState, current
from futurechain.errors import CancelledError
from futurechain.failure import Failure

__all__ = ["OBSERVED", "Unobserved", "annotate", "failed", "log_error", "note_stage", "note_unobserved", "rescue"]

logger: logging.Logger = logging.getLogger("futurechain")
MOST_LINES = 100
"""How many stages a report shows, counted from the end of the chain."""
_NOTE = "raised in stage "


# -- what a handler raised --------------------------------------------------------------------------------------------

_traceback: Any = vars(BaseException)["__traceback__"]
_context: Any = vars(BaseException)["__context__"]
"""The attributes themselves: an exception's class may forbid to set them by name, as a frozen one does."""


def failed(stage: Any, error: BaseException, thread: ThreadState, before: Any = None) -> Failure:
    """Wrap what a handler raised; never raises.

    Args:
        stage: whose handler it was.
        error: what it raised.
        thread: this thread's state.
        before: the exception or `Failure` that it was to handle, if it was an error handler: the context, then.
    """
    try:
        trace = _traceback.__get__(error)
        if trace is not None:  # without our caller's frame: it holds the stage, which holds the error
            _traceback.__set__(error, trace.tb_next)
        cause = before.value if type(before) is Failure else before
        if issubclass(type(cause), BaseException) and cause is not error and _context.__get__(error) is None:
            _context.__set__(error, cause)
        thread.note_interrupt(error)
        annotate(error, stage)
        return Failure(error)
    finally:
        trace = None


def annotate(error: BaseException, stage: Any) -> None:
    """Note on `error` that it was raised in `stage`."""
    try:
        call, fn = getattr(stage, "_call", None), stage._handler
        if fn is None:
            fn = call[0] if isinstance(call, tuple) else call
        note_stage(error, label(fn), stage._scheduler.name)
    except BaseException as another:  # of a callable that is asked for its name
        current.thread.note_interrupt(another)
    finally:
        error = stage = None  # type: ignore[assignment]  # no cycle: a traceback may keep this frame


def note_stage(error: BaseException, name: str, executor: str) -> None:
    """Note on `error` which stage raised it, and where, unless a stage is noted already.

    An exception that takes no notes, or raises when it is asked for them, goes without.
    """
    try:
        if not any(str(note).startswith(_NOTE) for note in getattr(error, "__notes__", ())):
            error.add_note(f"{_NOTE}{name}, on {executor}")
    except BaseException as another:
        current.thread.note_interrupt(another)
    finally:
        del error


def log_error(text: str, *args: object, error: BaseException) -> None:
    """Log `text` with the traceback of `error`; a logging handler or a ``__repr__`` that raises stops nobody."""
    try:
        logger.error(text, *args, exc_info=(type(error), error, _traceback.__get__(error)))
    except BaseException as another:
        current.thread.note_interrupt(another)


# -- what nobody has looked at ----------------------------------------------------------------------------------------


class Unobserved:
    """Reports a failure when it is dropped, unless somebody has observed it before."""

    __slots__ = ("__weakref__", "_failure", "_told", "_trail")

    def __init__(self, failure: Failure, trail: Any) -> None:
        self._failure = failure
        self._trail = trail
        self._told = [False]
        _all.add(self)

    def tell(self) -> None:
        """Log the failure, once."""
        try:
            self._told.pop()  # decides who tells it, or that it is told no more
        except IndexError:
            return
        log_error("%s", f"a future failed, and nobody looked at it{self._where()}", error=self._failure.value)

    def _where(self) -> str:
        """Return the stages with the lines that attached them, in debug mode."""
        lines: list[str] = []
        trail = self._trail
        while trail is not None and len(lines) < MOST_LINES:
            name, line, trail = trail
            lines.append(f"\n  stage {name}, attached at {line}")
        return ":" + "\n  ..." * (trail is not None) + "".join(reversed(lines)) if lines else ""

    def observe(self) -> None:
        """Note that somebody has looked."""
        self._told.clear()

    __del__ = tell


class Observed:
    """Stands where an `Unobserved` would, in a future that somebody has looked at."""

    __slots__ = ()

    def observe(self) -> None:
        """Do nothing: it is known already."""


OBSERVED = Observed()
_all: weakref.WeakSet[Unobserved] = weakref.WeakSet()


@atexit.register
def _tell_all() -> None:
    for one in tuple(_all):
        one.tell()


def note_unobserved(future: Any, failure: Failure) -> None:
    """Remember that `future` failed, with `failure`, and nobody has looked at it yet.

    A cancellation is no such failure, nor how work ends that nobody wanted any more when it was running, nor a Ctrl-C
    that is about to be raised in the main thread as well.
    """
    if failure.value is current.thread.interrupt:
        return
    if not issubclass(type(failure.value), CancelledError) and "_unwanted" not in future.__dict__:
        mine = Unobserved(failure, future.__dict__.get("_trail"))
        if future.__dict__.setdefault("_unobserved", mine) is not mine:  # somebody has observed it already
            mine.observe()


def rescue(job: Callable[[], object]) -> None:
    """Run `job`, which a finalizer found necessary, outside of whatever the finalizer interrupted.

    At the end of the interpreter there is nobody left to be rescued.
    """
    if not sys.is_finalizing():
        callback_threads.post(job)
