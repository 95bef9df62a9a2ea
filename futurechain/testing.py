"""Tools for tests of code that uses the library: a clock that stands still until it is told to go on."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, Self

from futurechain import clock
from futurechain.clock import Timer, check_seconds

__all__ = ["ManualClock"]


class ManualClock:
    """A clock whose time passes only in `advance`; it is everybody's clock within its ``with`` block.

    Timers fire in the thread that calls `advance`, and so do the stages that depend on them.

    Example:
        >>> with ManualClock() as clock:
        ...     nap = delay(3600, "done")
        ...     clock.advance(3600)
        >>> nap.result()
        'done'
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = clock.replace(self)
        return self

    def __exit__(self, *_: object) -> None:
        clock.replace(self._before)

    def now(self) -> float:
        """Return the time, in seconds; it begins at 0.

        Example:
            >>> ManualClock().now()
            0.0
        """
        return self._now

    @property
    def pending(self) -> int:
        """How many timers are still to fire.

        Example:
            >>> with ManualClock() as clock:
            ...     nap = delay(3600)
            >>> clock.pending
            1
        """
        return sum(timer.is_pending() for _, _, timer in self._timers)

    def call_later(self, seconds: float, fn: Callable[..., object], *args: Any) -> Timer:
        """Call ``fn(*args)`` in the `advance` that reaches `seconds` seconds from now.

        Example:
            >>> clock = ManualClock()
            >>> timer = clock.call_later(60, print, "a minute")
            >>> clock.advance(60)
            a minute
        """
        timer = Timer()
        timer.deadline, timer._call = self._now + seconds, [(fn, args)]
        heapq.heappush(self._timers, (timer.deadline, next(self._numbers), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let `seconds` seconds pass, and fire what falls due, in order, timers set meanwhile included.

        Raises:
            TypeError, ValueError: if `seconds` is no finite number, or negative.

        Example:
            >>> with ManualClock() as clock:
            ...     nap = delay(3600, "done").then(print)
            ...     clock.advance(3600)
            done
        """
        until = self._now + check_seconds(seconds)
        while self._timers and self._timers[0][0] <= until:
            self._now, _, timer = heapq.heappop(self._timers)
            timer._fire()
        self._now = until
