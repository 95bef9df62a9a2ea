"""Threads whose start, when something breaks it off, has either taken place or not.

``Thread.start`` waits until the new thread has come to life. A Ctrl-C just then is raised in the one who starts it,
and does not tell whether there is a thread now; who counts one that is not there waits for it for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["SureThread"]


class SureThread(threading.Thread):
    """A thread that the one who starts it can still give up, as long as it has not begun."""

    def __init__(self, target: Callable[[], object], name: str) -> None:
        super().__init__(target=target, name=name)
        self._chances: list[None] = [None]

    def run(self) -> None:
        """Do what it is for, if nobody has given it up."""
        if self.give_up():
            super().run()

    def give_up(self) -> bool:
        """Tell, once, whether it has not begun; it never will, then."""
        try:
            self._chances.pop()  # decides between the thread and the one who has started it
        except IndexError:
            return False
        return True
