"""Ctrl-C for programs with threads and processes: looked at where it does no harm, and nowhere else.

A `KeyboardInterrupt` may be raised between any two instructions, so that nothing is sure to be cleaned up; a second one
cuts the cleaning up short; and worker processes, which get the signal too, have a moment at their start where they do
not know yet that it is not for them. Here the signal is blocked instead, which threads and processes inherit, and the
program asks for it.
"""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import Any, Self

__all__ = ["HeldInterrupts"]


class HeldInterrupts:
    """Hold Ctrl-C back within a ``with`` block; `check` raises it. What comes too late for that is forgotten."""

    def __init__(self) -> None:
        self._came = False
        self._handler: Any = None
        self._mask: Any = None

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job: nobody means us
            return self
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._note)  # for systems and threads that cannot block it
        if hasattr(signal, "pthread_sigmask"):
            resource_tracker.ensure_running()  # when it is started later, it unblocks the signal
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        return self

    def _note(self, *_: object) -> None:
        self._came = True

    def check(self) -> None:
        """Go on, unless Ctrl-C came.

        Raises:
            KeyboardInterrupt: if it did.
        """
        if self._came or (self._mask is not None and signal.SIGINT in signal.sigpending()):
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        if self._mask is not None:
            while signal.SIGINT not in self._mask and signal.SIGINT in signal.sigpending():
                signal.sigwait({signal.SIGINT})  # it was for this block
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if self._handler is not None:
            with suppress(ValueError):
                signal.signal(signal.SIGINT, self._handler)
