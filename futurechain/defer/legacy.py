"""What Twisted's module has besides, mostly for its own use: code that is ported may name it."""

from __future__ import annotations

from typing import Any, TypeVar

from futurechain.defer.deferred import Deferred
from futurechain.errors import TimeoutError  # noqa: A004
from futurechain.failure import Failure

__all__ = ["getDebugging", "passthru", "setDebugging", "timeout"]

T = TypeVar("T")


def setDebugging(on: bool) -> None:
    """Remember, from now on or no more, where each Deferred is made and fired; errors show it.

    Example:
        >>> setDebugging(True)
        >>> setDebugging(False)
    """
    Deferred.debug = bool(on)


def getDebugging() -> bool:
    """Return whether that is on.

    Example:
        >>> getDebugging()
        False
    """
    return Deferred.debug


def passthru(arg: T) -> T:
    """Return the argument: a callback that changes nothing.

    Example:
        >>> succeed(5).addCallbacks(passthru, logError).result
        5
    """
    return arg


def timeout(deferred: Deferred[Any]) -> None:
    """Fail `deferred` with a ``TimeoutError``; `Deferred.addTimeout` does more.

    Example:
        >>> d = Deferred().addErrback(lambda failure: print(failure.value))
        >>> timeout(d)
        Callback timed out
    """
    deferred.errback(Failure(TimeoutError("Callback timed out")))
