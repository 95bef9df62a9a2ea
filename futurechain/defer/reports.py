"""What a Deferred tells about itself: an error that nobody handled, and, in debug mode, who made and who fired it."""

from __future__ import annotations

import atexit
import logging
import os
import traceback
import weakref
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["Trail", "Unhandled", "logError"]

F = TypeVar("F")
_PACKAGE = str(Path(__file__).parents[1]) + os.sep
logger: logging.Logger = logging.getLogger("futurechain")
_all: weakref.WeakSet[Unhandled] = weakref.WeakSet()


class Trail:
    """Where a Deferred was made, and where it was fired."""

    __slots__ = ("creator", "invoker")

    def __init__(self) -> None:
        self.creator: list[str] = _stack()
        self.invoker: list[str] = []

    def fired(self) -> None:
        """Note who fires it."""
        self.invoker = _stack()

    def __str__(self) -> str:
        made = " C: Deferred was created:\n C:" + "".join(self.creator).rstrip().replace("\n", "\n C:") + "\n"
        fired = " I: First Invoker was:\n I:" + "".join(self.invoker).rstrip().replace("\n", "\n I:") + "\n"
        return made + (fired if self.invoker else "")


def _stack() -> list[str]:
    """Return the lines that led to the call of this package, which is being executed."""
    frames = traceback.extract_stack()
    while frames and frames[-1].filename.startswith(_PACKAGE):
        frames.pop()
    return frames.format()


class Unhandled:
    """Reports a failure when it is dropped, as long as nobody has handled it; it lives as long as its Deferred does."""

    __slots__ = ("__weakref__", "_failures", "_trail")

    def __init__(self, failure: Any, trail: Trail | None) -> None:
        self._failures = [failure]
        self._trail = trail
        _all.add(self)

    def tell(self) -> None:
        """Log the failure, once; a cancellation that nobody handles is no error."""
        failures, self._failures = self._failures, []
        for failure in failures:
            if type(failure.value).__name__ != "CancelledError":  # asyncio's, Twisted's, and the standard one
                debug = "" if self._trail is None else f"\n(debug: {self._trail})"
                _log(f"unhandled error in a Deferred{debug}", failure)

    def forget(self) -> None:
        """Note that somebody has handled it."""
        self._failures = []

    __del__ = tell


def _log(text: str, failure: Any) -> None:
    error = failure.value
    logger.error("%s", text, exc_info=(type(error), error, failure.getTracebackObject()))


def logError(err: F) -> F:
    """Log a `Failure`, to the logger ``futurechain``, and return it: as an errback that passes it on.

    Example:
        >>> fail(KeyError("k")).addErrback(logError).addErrback(lambda failure: "logged").result
        'logged'
    """
    _log("error in a Deferred", err)
    return err


@atexit.register
def _tell_all() -> None:
    for one in tuple(_all):
        one.tell()
