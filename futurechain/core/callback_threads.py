"""The callback threads: where user code runs when the thread that settles a future must not run it.

The manager thread of a process pool, the thread of an event loop and the timer thread serve everybody; a slow
callback there would delay all the others. They publish the outcome themselves and `post` the rest.

Theory of operation
-------------------
There are at most `MOST` threads as a rule. When jobs wait, and none has been begun for a tenth of a second, all of
them are blocked; then one more is started, and so on, up to `MOST_BLOCKED`. A thread goes after a while without work.

*Sleeping, or waking?* A thread without work puts a lock of its own into ``idle`` **first** and looks for jobs
**then**; who posts puts the job into ``jobs`` **first** and looks into ``idle`` **then**: one of the two sees the
other. Who takes a lock out of ``idle`` decides: the poster, who wakes the thread, or the thread itself, which goes on
or ends. So no job is left to a thread that is about to go, and none is lost.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from futurechain import clock
from futurechain.interrupts import put_off

__all__ = ["begin_anew", "busy", "help_at_exit", "is_reserved", "post", "run", "thread_count"]

IDLE_SECONDS = 5.0
BLOCKED_SECONDS = 0.1
MOST = min(32, (os.cpu_count() or 1) + 4)
MOST_BLOCKED = 512

logger: logging.Logger = logging.getLogger("futurechain")
_numbers = itertools.count()


class _Threads:
    """The threads and their jobs; a forked child begins with new ones."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], object]] = deque()
        self.idle: list[Any] = []
        """A lock for each thread that waits for a job: whoever takes one releases it."""
        self.present: set[object] = set()
        """Those that have not gone."""
        self.begun = 0
        """How many jobs have been begun (nearly: two threads may count as one)."""
        self.is_helped = False
        """Whether the main thread, which ends the interpreter, runs what no thread can be started for."""
        self.is_refused = False
        """Whether a thread could not be started."""
        self.watching: list[None] = [None]
        """Who pops this starts the watch over blocked threads; it puts it back."""

    def post(self, job: Callable[[], object]) -> None:
        self.jobs.append(job)
        try:
            lock = self.idle.pop()
        except IndexError:
            self._reinforce()
        else:
            lock.release()

    def _reinforce(self) -> None:
        """Have a thread for a job that found none idle: now, or when all turn out to be blocked."""
        if len(self.present) < MOST:
            self._start()
        elif self.watching:
            with suppress(IndexError), put_off():
                self.watching.pop()  # decides who starts it
                if not _start_thread(self._watch, "watch"):
                    self.is_refused = True
                    self.watching.append(None)

    def _start(self) -> None:
        me = object()
        with put_off():
            self.present.add(me)
            if _start_thread(lambda: self._work(me), f"callback-{next(_numbers)}"):
                return
            self.is_refused = True
            self.present.discard(me)
        if not self.present and not self.is_helped:  # at the exit of the interpreter nobody would ever come
            self._run_all()

    def _watch(self) -> None:
        """Start one more thread whenever no job has been begun for a while; until nothing waits."""
        pause = threading.Lock()
        pause.acquire()
        while True:
            while self.jobs:
                before = self.begun
                pause.acquire(timeout=BLOCKED_SECONDS)
                if self.jobs and self.begun == before and len(self.present) < MOST_BLOCKED:
                    self._start()
            self.watching.append(None)  # first: who posts from now on starts another watch, unless we see the job
            if not self.jobs:
                return
            try:
                self.watching.pop()
            except IndexError:
                return

    def _work(self, me: object) -> None:
        lock = threading.Lock()
        lock.acquire()
        self._run_all()
        while self._wait(lock):
            self._run_all()
        self.present.discard(me)
        if self.jobs:  # it came while we still counted as present
            self._reinforce()

    def _wait(self, lock: Any) -> bool:
        """Block until there may be a job; False if none has come for a while."""
        self.idle.append(lock)
        if not self.jobs and lock.acquire(timeout=IDLE_SECONDS):
            return True
        came = bool(self.jobs)
        try:
            self.idle.remove(lock)  # decides against who would wake us
        except ValueError:
            lock.acquire()  # which is about to be released
            return True
        return came or bool(self.jobs)

    def _run_all(self) -> None:
        while self.jobs:
            try:
                job = self.jobs.popleft()  # decides who runs it
            except IndexError:
                return
            self.begun += 1
            _run(job)
            del job


def _start_thread(work: Callable[[], object], name: str) -> bool:
    thread = threading.Thread(target=work, name=f"futurechain-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


def _run(job: Callable[[], object]) -> None:
    try:
        job()
    except BaseException:
        with suppress(BaseException):  # a logging handler may raise, too
            logger.exception("exception in %r on a callback thread", job)


_threads = _Threads()


def post(job: Callable[[], object]) -> None:
    """Run `job` on a callback thread; in this one, if there is none and none can be started any more."""
    _threads.post(job)


def run(job: Callable[[], object]) -> None:
    """Run `job` here, or on a callback thread if this one is reserved."""
    if is_reserved():
        post(job)
    else:
        job()


def help_at_exit(*, go_on: bool) -> None:
    """Run in this thread, which ends the interpreter, what is queued and no thread can be started for.

    Args:
        go_on: whether this will be called again: until it is not, nothing is run in the thread that posts it.
    """
    _threads.is_helped = go_on
    if _threads.is_refused and not _threads.idle:
        _threads._run_all()


def busy() -> bool:
    """Tell whether a job is queued or being run."""
    return bool(_threads.jobs) or len(_threads.idle) < len(_threads.present)


def is_reserved() -> bool:
    """Tell whether this thread manages a pool or runs an event loop, so that user code must not hold it up.

    A thread of our own says so by an attribute ``serves_everybody``; the managers of the standard process pools, of
    loky and of Pebble are known by what they are called.
    """
    thread = threading.current_thread()
    if getattr(thread, "serves_everybody", False) or thread.name == clock.THREAD_NAME:
        return True
    if type(thread).__name__ == "_ExecutorManagerThread" or thread.name.endswith("_loop)"):
        return True
    running: Any = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    return running is not None and running() is not None  # None, too, while another thread imports it


def thread_count() -> int:
    """Return how many callback threads there are."""
    return len(_threads.present)


def begin_anew() -> None:
    """Leave the threads and their jobs alone and have new ones: for a forked child, which has none of them."""
    global _threads  # noqa: PLW0603  # one store, which decides whose a job is
    _threads = _Threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=begin_anew)
