"""The callback threads: where user code runs when the thread that settles a future must not run it.

The manager thread of a process pool, the thread of an event loop and the timer thread serve everybody; a slow
callback there would delay all the others. They publish the outcome themselves and `post` the rest. A thread
is started when all others are busy, so that one slow callback delays no other, and goes after a while without work.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from futurechain import clock

__all__ = ["busy", "is_reserved", "post", "run"]

IDLE_SECONDS = 5.0

logger: logging.Logger = logging.getLogger("futurechain")
_jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
_idle: list[None] = []
"""One token for each thread that is about to look for work; whoever posts takes one, or starts a thread."""
_busy: dict[int, Callable[[], object]] = {}
_numbers = itertools.count()


def post(job: Callable[[], object]) -> None:
    """Run `job` on a callback thread; in this one, if no thread can be started any more."""
    _busy[id(job)] = job
    _jobs.put(job)
    try:
        _idle.pop()
    except IndexError:
        _start()


def run(job: Callable[[], object]) -> None:
    """Run `job` here, or on a callback thread if this one is reserved."""
    if is_reserved():
        post(job)
    else:
        job()


def busy() -> bool:
    """Tell whether a job is queued or being run."""
    return bool(_busy)


def is_reserved() -> bool:
    """Tell whether this thread manages a pool or runs an event loop, so that user code must not hold it up."""
    thread = threading.current_thread()
    if thread.name == clock.THREAD_NAME or type(thread).__name__ == "_ExecutorManagerThread":  # standard and loky's
        return True
    asyncio: Any = sys.modules.get("asyncio.events")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _start() -> None:
    thread = threading.Thread(target=_work, name=f"futurechain-callback-{next(_numbers)}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is about to exit
        with contextlib.suppress(Empty):
            _do(_jobs.get_nowait())


def _work() -> None:
    while True:
        try:
            job = _jobs.get(timeout=IDLE_SECONDS)
        except Empty:
            try:
                _idle.pop()
            except IndexError:  # somebody counts on this thread: its job is on the way
                continue
            return
        _do(job)
        del job
        _idle.append(None)


def _after_fork() -> None:
    """Begin anew in a forked child: it has none of the threads."""
    with contextlib.suppress(Empty):
        while True:
            _jobs.get_nowait()
    _idle.clear()
    _busy.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _do(job: Callable[[], object]) -> None:
    try:
        job()
    except BaseException:
        logger.exception("exception in %r on a callback thread", job)
    finally:
        _busy.pop(id(job), None)
