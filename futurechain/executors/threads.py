"""A thread pool whose futures chain: the standard one's interface over a worker loop of its own.

Theory of operation
-------------------
A task *is* the future that ``submit`` returns; workers take it from one ``SimpleQueue`` and execute it, then carry on
with the first stage of the chain that belongs to this pool, and come back for the next.

``pending`` holds every task and stage that is still to be settled here, submitted or not. It is what a shutdown waits
for, so whole chains end. One order of steps makes that safe without a lock: whoever brings work puts it into
``pending`` **first** and looks at ``closing`` **then**; a worker leaves when it sees ``closing`` **first** and finds
``pending`` empty **then**. Whatever the schedule, either the work is refused, or the workers stay.

Chains hold the pool's `_Crew`, never the executor: an executor that is collected closes its callback_threads, which still ends
what was begun.
"""

from __future__ import annotations

import concurrent.futures.thread as standard
import logging
import os
import threading
import weakref
from _queue import SimpleQueue
from collections.abc import Callable
from concurrent.futures.thread import BrokenThreadPool
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from futurechain.core.scheduler import Call, Scheduler
from futurechain.errors import ExecutorShutdownError
from futurechain.failure import Failure
from futurechain.core.attaching import MISSING, new_task
from futurechain.future import ExecutorStage, Future
from futurechain.core.state import claim
from futurechain.core.thread_state import current
from futurechain.core.loop import execute, settle
from futurechain.core.observers import watch

__all__ = ["ThreadPoolExecutor", "refusal"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("concurrent.futures")


def refusal(name: str) -> str:
    """Return the message of a refused stage, with the remedy."""
    return (
        f"cannot schedule new futures after shutdown of {name}; "
        "go on with on=INLINE, or on= an executor that is still open"
    )


class _Crew(Scheduler):
    """The workers of one pool, and what they have to do."""

    __slots__ = ("broken", "closing", "hired", "idle", "initializer", "most", "pending", "queue", "threads")

    def __init__(self, name: str, most: int, initializer: Callable[[], object] | None) -> None:
        super().__init__(name)
        self.most = most
        self.initializer = initializer
        self.queue: Any = SimpleQueue()
        self.pending: dict[int, Any] = {}
        self.threads: set[threading.Thread] = set()
        self.idle: list[None] = []
        """One token for each worker that waits for work."""
        self.closing = False
        self.broken: str | None = None
        self.hired = 0

    # -- taking work --------------------------------------------------------------------------------------------------

    def register(self, stage: Any) -> None:
        self.pending[id(stage)] = stage
        if self.closing and current.thread.within is not self:
            self.unregister(stage)  # it will be refused when its turn comes; an error before that still passes through

    def unregister(self, stage: Any) -> None:
        self.pending.pop(id(stage), None)
        if self.closing and not self.pending:
            self.queue.put(None)

    def submit(self, task: Any) -> None:
        """Queue a task; refuse it by raising."""
        self.pending[id(task)] = task
        if watch.on:
            watch.queued(task)
        if self.broken or self.closing or standard._shutdown:
            self.check(task)
        self.queue.put(task)
        if self.idle or len(self.threads) < self.most:
            self.staff()

    def check(self, task: Any) -> None:
        """Raise: no new work is taken any more."""
        self.unregister(task)
        if self.broken:
            raise BrokenThreadPool(self.broken)
        if standard._shutdown:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        raise RuntimeError(f"cannot schedule new futures after shutdown of {self.name}")

    def start(self, stage: Any, call: Call) -> None:
        stage._call = call
        if id(stage) not in self.pending:
            return _fail(stage, ExecutorShutdownError(refusal(self.name)))
        if self.broken:
            return _fail(stage, BrokenThreadPool(self.broken))
        self.queue.put(stage)
        try:
            self.staff()
        except RuntimeError as error:  # no thread can be started; with none at all, nobody would ever come
            if not self.threads:
                _fail(stage, error)
        return None

    def staff(self) -> None:
        """Have a worker for what was just queued: an idle one, or a new one up to the limit."""
        try:
            self.idle.pop()
        except IndexError:
            if len(self.threads) < self.most:
                self.hire()

    def hire(self) -> None:
        """Start one more worker."""
        number, self.hired = self.hired, self.hired + 1
        thread = threading.Thread(name=f"{self.name}_{number}", target=_work, args=(self,))
        self.threads.add(thread)
        standard._threads_queues[thread] = self.queue  # type: ignore[index]  # so that interpreter exit waits for it
        try:
            thread.start()
        except BaseException:
            self.threads.discard(thread)
            standard._threads_queues.pop(thread, None)  # type: ignore[attr-defined]
            raise

    # -- ending -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more outside work; let the workers go when the chains have ended."""
        self.closing = True
        if not self.pending:
            self.queue.put(None)
        elif not self.threads:
            self.hire()

    def cancel_pending(self) -> None:
        """Cancel what has not begun."""
        for stage in tuple(self.pending.values()):
            stage.cancel()

    def join(self) -> None:
        """Wait for the workers; not from one of them, which would wait for itself."""
        if current.thread.within is self:
            return
        for thread in iter(self._alive, None):
            thread.join()

    def _alive(self) -> Any:
        return next((thread for thread in tuple(self.threads) if thread.is_alive()), None)

    def fall_apart(self) -> None:
        """Fail everything: the initializer failed."""
        self.broken = "A thread initializer failed, the thread pool is not usable anymore"
        while self.pending:
            for stage in tuple(self.pending.values()):
                self.unregister(stage)
                _fail(stage, BrokenThreadPool(self.broken))


def _fail(stage: Any, error: BaseException) -> None:
    if claim(stage):
        settle(stage, Failure(error))


def _work(callback_threads: _Crew) -> None:
    """Execute what is queued until the pool ends: the body of a worker thread."""
    run = current.thread
    run.pool = run.within = callback_threads
    if callback_threads.initializer is not None:
        try:
            callback_threads.initializer()
        except BaseException:
            logger.critical("Exception in initializer:", exc_info=True)
            callback_threads.fall_apart()
            return
    queue, idle = callback_threads.queue, callback_threads.idle
    while True:
        if queue.empty():
            idle.append(None)
        task = queue.get()
        if task is None:
            if _may_leave(callback_threads):
                queue.put(None)  # for the next one
                return
            continue
        try:
            execute(task, task._call, task._context)
        except BaseException:
            logger.critical("Exception in worker", exc_info=True)
        del task


def _may_leave(callback_threads: _Crew) -> bool:
    if standard._shutdown:  # the interpreter exits: what waits for others now would wait for ever
        callback_threads.closing = True
        return bool(callback_threads.queue.empty())
    return callback_threads.closing and not callback_threads.pending


class ThreadPoolExecutor(standard.ThreadPoolExecutor):
    """A drop-in ``concurrent.futures.ThreadPoolExecutor`` whose futures chain.

    Args:
        max_workers: how many threads at most; by default as the standard pool.
        thread_name_prefix: what the threads are called.
        initializer: called in each thread before its first task, with `initargs`.
        initargs: arguments for it.

    A task or stage sees the context (``contextvars``) in which it was submitted or attached. A worker that settles a
    task carries on with the first stage of its chain; further ones are shared out. Leaving the ``with`` block
    waits for whole chains. An executor that is collected still ends the chains that were begun.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        cores = getattr(os, "process_cpu_count", os.cpu_count)() or 1
        most = min(32, cores + 4) if max_workers is None else max_workers
        if isinstance(most, bool) or not isinstance(most, int):
            raise TypeError(f"ThreadPoolExecutor() wants a whole number of workers, not {max_workers!r}")
        if most <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._max_workers = most
        self._thread_name_prefix = thread_name_prefix or f"ThreadPoolExecutor-{self._counter()}"  # type: ignore[attr-defined]
        prepare = None if initializer is None else lambda: initializer(*initargs)
        self._scheduler = _Crew(self._thread_name_prefix, most, prepare)
        self._first = self._scheduler
        weakref.finalize(self, self._scheduler.close).atexit = False

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)``; return its future.

        Raises:
            TypeError: if `fn` is missing or not callable.
            RuntimeError: after the shutdown.
            BrokenThreadPool: if the initializer failed.
        """
        task = new_task(ExecutorStage, fn, self._first)
        task._context = copy_context()
        task._call = fn, args, kwargs
        self._scheduler.submit(task)
        return cast("Future[T]", task)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new outside work, and let what was begun end: whole chains.

        Args:
            wait: block until then (not in a worker of this pool, which would wait for itself).
            cancel_futures: cancel what has not begun, stages included.
        """
        self._scheduler.closing = True
        if cancel_futures:
            self._scheduler.cancel_pending()
        self._scheduler.close()
        if wait:
            self._scheduler.join()

    # What the standard class calls so, for those who look.

    if not TYPE_CHECKING:

        @property
        def _threads(self) -> set[threading.Thread]:
            return self._scheduler.threads

        @property
        def _work_queue(self) -> Any:
            return self._scheduler.queue

        @property
        def _broken(self) -> Any:
            return self._scheduler.broken or False

        @property
        def _shutdown(self) -> bool:
            return self._scheduler.closing

    def __repr__(self) -> str:
        state = "shut down" if self._scheduler.closing else "open"
        return f"<{type(self).__name__} {self._scheduler.name} {state}, {len(self._scheduler.threads)} threads>"
