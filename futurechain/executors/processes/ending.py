"""The end of the interpreter, for machines: they are closed after all chains have ended, and waited for.

A module of its own, because the hook has to be registered before that of the pools is (the last one registered runs
first), and `machine` is imported when the first pool is made.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["Closable", "machines"]


class Closable(Protocol):
    """What is closed and waited for."""

    def close(self) -> None:
        """Take nothing more; end when all is done."""

    def wait(self) -> None:
        """Wait until it has ended."""


def _end() -> None:
    try:
        for machine in tuple(machines):
            machine.close()
            machine.wait()
    except KeyboardInterrupt:  # wait no longer; raised further, it would keep the hooks of others from being run
        for machine in tuple(machines):
            machine.close()


machines: weakref.WeakSet[Closable] = weakref.WeakSet()
"""Those that live."""
threading._register_atexit(_end)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=machines.clear)  # what these have to end are the parent's workers
