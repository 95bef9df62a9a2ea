"""Time for everybody: one daemon thread that fires timers, and the clock that tests put in its place.

Theory of operation
-------------------
Setting a timer appends it to an inbox, a deque; only the timer thread has the heap. It is woken when the new deadline
is earlier than the one it sleeps for. A timer holds its callback in a list of one element: who pops it has
decided between firing and withdrawing. Withdrawn timers are dead weight in inbox and heap; they are thrown out when
they could be the larger part, so that setting and withdrawing for ever needs constant memory.

No lock is held while a callback runs, and the waking lock is only ever released by setters, so a signal handler or a
finalizer may set and withdraw timers at any point.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from sys import unraisablehook
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

from futurechain.interrupts import put_off

__all__ = ["THREAD_NAME", "Clock", "Timer", "call_later", "check_seconds", "now", "replace"]

THREAD_NAME = "futurechain-clock"
FEW = 1000
"""Up to this many timers, dead ones are not worth a look."""
FOREVER = math.inf


class Timer:
    """A pending call; clocks make it, and fill it in."""

    __slots__ = ("_call", "deadline")

    deadline: float
    """When it is due, in seconds of its clock."""
    _call: list[tuple[Callable[..., object], tuple[Any, ...]]]

    def cancel(self) -> bool:
        """Withdraw the timer; True if it will not fire any more because of this call."""
        try:
            self._call.pop()  # decides between withdrawing and firing
        except IndexError:
            return False
        return True

    def is_pending(self) -> bool:
        """Tell whether it is still to fire."""
        return bool(self._call)

    def _fire(self) -> None:
        """Make the call, unless withdrawn; what it raises is reported and goes no further."""
        try:
            fn, args = self._call.pop()
        except IndexError:
            return
        try:
            fn(*args)
        except BaseException as error:
            report = SimpleNamespace(
                exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__, err_msg=None, object=fn
            )
            unraisablehook(cast("Any", report))


class Clock:
    """The real clock: a daemon thread, started by the first timer."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._inbox: deque[Timer] = deque()
        self._wake = allocate_lock()
        self._wake.acquire()
        self._started: list[None] = [None]
        """Whoever pops this is the timer thread, or starts it."""
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._is_refused = False
        self._until = FOREVER
        self._limit: float = FEW
        """How long the inbox may grow until somebody nudges."""
        self._most = FEW
        """How long the heap may grow until the withdrawn timers are thrown out."""

    def now(self) -> float:
        """Return the present time, in seconds of a clock that never goes back."""
        return monotonic()

    def call_later(self, seconds: float, fn: Callable[..., object], *args: Any) -> Timer:
        """Call ``fn(*args)`` on the timer thread, after `seconds` seconds.

        Returns:
            The timer, which can be withdrawn.
        """
        timer = Timer()
        timer.deadline = deadline = monotonic() + seconds
        timer._call = [(fn, args)]
        inbox = self._inbox
        inbox.append(timer)
        if deadline < self._until or len(inbox) > self._limit:
            self._nudge()
        return timer

    def _nudge(self) -> None:
        self._limit = FOREVER  # once is enough, until the thread has taken in
        if self._started:
            self._start()
        with suppress(RuntimeError):  # awake already
            self._wake.release()

    def _start(self) -> None:
        with put_off():
            try:
                self._started.pop()  # decides who starts the thread
                threading.Thread(target=self._work, name=THREAD_NAME, daemon=True).start()
            except IndexError:
                pass
            except RuntimeError:  # the interpreter is about to exit: nothing will ever be due, unless the exit helps
                self._is_refused = True
                self._started.append(None)

    def help(self) -> None:
        """Fire in this thread what is due, if no thread could be started for it: the interpreter ends."""
        if not self._is_refused:
            return
        with suppress(IndexError):
            self._started.pop()
            try:
                self._fire_due()
            finally:
                self._started.append(None)

    def _work(self) -> None:
        while True:
            heap = self._fire_due()
            self._until = heap[0][0] if heap else FOREVER
            if self._inbox and (not heap or any(timer.deadline < self._until for timer in tuple(self._inbox))):
                continue  # came in while we were busy, and saw an old `_until`
            pause = min(max(0.0, self._until - monotonic()), threading.TIMEOUT_MAX) if heap else -1
            self._wake.acquire(timeout=pause)
            self._until = -FOREVER  # awake: nobody needs to nudge

    def _fire_due(self) -> list[tuple[float, int, Timer]]:
        """Take in what was set, and fire what is due; return what is left."""
        self._take_in()
        heap = self._heap
        while heap and heap[0][0] <= monotonic():
            heapq.heappop(heap)[2]._fire()
        return heap

    def _take_in(self) -> None:
        heap = self._heap
        with suppress(IndexError):
            while True:
                timer = self._inbox.popleft()
                if timer._call:
                    heapq.heappush(heap, (timer.deadline, next(self._numbers), timer))
        if len(heap) > self._most:
            heap[:] = [entry for entry in heap if entry[2]._call]
            heapq.heapify(heap)
            self._most = max(FEW, 2 * len(heap))  # only now: else it would grow with every look
        self._limit = max(FEW, len(heap))


_real: Clock = Clock()
_clock: Any = _real
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_real._begin)


def help_at_exit() -> None:
    """Fire in this thread what is due, if the real clock could not start its own: the interpreter ends."""
    _real.help()


def now() -> float:
    """Return the time of the present clock, in seconds."""
    return float(_clock.now())


def call_later(seconds: float, fn: Callable[..., object], *args: Any) -> Timer:
    """Call ``fn(*args)`` after `seconds` seconds of the present clock; return the timer."""
    return _clock.call_later(seconds, fn, *args)  # type: ignore[no-any-return]


def replace(clock: Any) -> Any:
    """Make `clock` the present one; return the one before. For tests."""
    global _clock
    before, _clock = _clock, clock
    return before


def check_seconds(seconds: Any, name: str = "seconds") -> float:
    """Return `seconds` as a float.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is negative, NaN or infinite.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} wants a number of seconds, not {seconds!r}")
    if not 0 <= seconds < FOREVER:
        raise ValueError(f"{name} wants a finite number of seconds that is not negative, not {seconds!r}")
    return float(seconds)
