"""The timeout of a Deferred's callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from futurechain.clock import call_later, check_seconds
from futurechain.core import callback_threads
from futurechain.defer.engine import run
from futurechain.defer.state import is_failure
from futurechain.errors import CancelledError, TimeoutError  # noqa: A004

__all__ = ["Expiry"]


class Expiry:
    """A timeout of the callbacks before it; the clock and the outcome race for the one token in ``undecided``.

    Args:
        deferred: whose callbacks.
        cancelled: a Deferred of the same kind, which is fired when the timeout has cancelled that one.
        seconds: until then.
        convert: called with the outcome and the seconds, if the time was up; None makes it a ``TimeoutError``.
    """

    __slots__ = ("cancelled", "convert", "deferred", "seconds", "undecided", "withdraw")

    def __init__(self, deferred: Any, cancelled: Any, seconds: float, convert: Callable[..., Any] | None) -> None:
        self.deferred: Any = deferred
        self.cancelled: Any = cancelled
        self.seconds: float = check_seconds(seconds, "timeout")
        self.convert: Callable[..., Any] = convert or _to_timeout_error
        self.undecided: list[None] = [None]
        self.withdraw: Callable[[], object] | None = None

    def start(self, clock: Any) -> None:
        """Set the timer."""
        if clock is None:
            self.withdraw = call_later(self.seconds, callback_threads.run, self.expire).cancel
        elif not hasattr(clock, "callLater"):  # a clock of this library
            self.withdraw = clock.call_later(self.seconds, self.expire).cancel
        else:
            call = clock.callLater(self.seconds, self.expire)
            self.withdraw = lambda: call.active() and call.cancel()

    def expire(self) -> None:
        """Cancel the Deferred, if its callbacks up to here have not ended before."""
        try:
            self.undecided.pop()
        except IndexError:
            return
        try:
            self.deferred.cancel()
        finally:
            run(self.cancelled, None)

    def arrive(self, outcome: Any) -> Any:
        """Let `outcome` pass; or convert it, if the time was up.

        The conversion waits until ``cancel()`` has returned in the clock's thread: what comes after the timeout must
        not be cancelled by it.
        """
        try:
            self.undecided.pop()
        except IndexError:
            return self.cancelled.addCallback(lambda _: self.convert(outcome, self.seconds))
        if self.withdraw is not None:
            self.withdraw()
        return outcome


def _to_timeout_error(outcome: Any, seconds: float) -> Any:
    if is_failure(outcome):
        outcome.trap(CancelledError)
        raise TimeoutError(f"the Deferred had no result within {seconds:g} seconds")
    return outcome
