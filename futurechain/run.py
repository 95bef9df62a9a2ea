"""What a thread is doing for the library right now: the trampoline that turns recursion into a loop.

Each thread has one `Run`. While it runs handlers, ``depth`` is not zero, and a stage that could start at once is put
into ``queue`` instead; the outermost loop takes it from there when the handler has returned. So a recursion through
futures costs no stack. Nobody but its own thread touches a `Run`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

__all__ = ["DEEPEST", "Run", "here"]

DEEPEST = 40
"""How deep ``set_result`` inside a handler inside ``set_result`` ... may nest before its dependents are put off."""

logger = logging.getLogger("futurechain")


class Run:
    """One thread's share: how deep it is in handlers, what it has put off, whose worker it is."""

    __slots__ = ("depth", "drives", "interrupt", "pool", "queue", "settled", "track", "within")

    def __init__(self) -> None:
        self.depth = 0
        self.drives = 0
        """How many steps of coroutines this thread is in."""
        self.queue: deque[Any] = deque()
        """Stages to start, as zero-argument callables; emptied by the outermost loop of this thread."""
        self.settled: list[Any] = []
        """Lists of settled futures that this thread's loops have still to carry on."""
        self.pool: Any = None
        """The home whose worker this thread is, or None: it may carry on with the stages there."""
        self.within: Any = None
        """The home for whose chains this thread works, or None: what it attaches there is no outside work."""
        self.track = ""
        """What the thread is called in a trace, once somebody has asked."""
        self.interrupt: BaseException | None = None
        """A KeyboardInterrupt that a handler raised in the main thread, to be raised again when the loop is done."""

    def flush(self) -> None:
        """Start everything that was put off."""
        queue = self.queue
        if queue or self.settled:
            self.depth += 1
            try:
                for waiting in tuple(self.settled):
                    while waiting:
                        waiting.pop()._carry_on()
                while queue:
                    queue.popleft()()
            finally:
                self.depth -= 1

    def leave(self) -> None:
        """Come out of the outermost handler: do what was put off, then raise an interrupt that was held back."""
        self.flush()
        if self.interrupt is not None:
            interrupt, self.interrupt = self.interrupt, None
            raise interrupt

    def catch(self, error: BaseException) -> None:
        """Remember `error`, which a handler raised, if it is Ctrl-C in the main thread."""
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            self.interrupt = error

    def notify(self, future: Any, entry: Any) -> Any:
        """Fire a done callback or another entry; nothing that it raises gets any further.

        Returns:
            The future that has been settled by that, for the caller to follow, or None.
        """
        try:
            return entry.fire(future, future._outcome)
        except BaseException as error:
            self.catch(error)
            logger.exception("exception calling callback for %r", future)
            return None


class _Here(threading.local):
    def __init__(self) -> None:
        self.run = Run()


here = _Here()
"""``here.run`` is the present thread's `Run`."""
