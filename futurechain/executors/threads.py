"""A thread pool whose futures chain: the standard one's interface over workers of its own.

Theory of operation
------------------- A task *is* the future that ``submit`` returns. There are two queues: ``begun`` for stages, and
for what the tasks, handlers and coroutines of begun chains submit; ``fresh`` for what comes from outside. A worker
takes from the first as long as there is anything; ``popleft`` decides who runs a task. It runs that, carries on with
the first stage of the chain that belongs to this pool, and comes back for the next.

*Sleeping, or waking?* A worker without work puts a lock of its own into ``idle`` **first** and looks at the queues
**then**; whoever brings work puts it into a queue **first** and looks at ``idle`` **then**. So one of the two sees
the other. Who takes a lock out of ``idle``, by ``pop`` or ``remove``, decides whether the worker is woken, or goes on
by itself. A lock that is not in ``idle`` belongs to a worker that is at work, or on its way to it: when all are in
there, and the queues are empty, the pool is at rest (`ThreadScheduler.is_working`). A worker that is being started
counts as working.

See `pool` for how it ends. No lock is held while anything else is done, so a signal handler, a finalizer or a fork may
come at any point. Locks and threads are taken from ``threading``, where gevent and eventlet put theirs.
"""

from __future__ import annotations

import concurrent.futures.thread as standard
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures.thread import BrokenThreadPool
from contextlib import suppress
from contextvars import copy_context
from operator import methodcaller
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from futurechain.core.attaching import MISSING, new_task
from futurechain.core.loop import execute, take_queued
from futurechain.core.observers import watch
from futurechain.core.scheduler import Call
from futurechain.core.state import claim
from futurechain.core.thread_state import current, wake_blocked
from futurechain.executors import exit as interpreter
from futurechain.executors.mapping import Mapping
from futurechain.executors.pool import PoolScheduler, fail, refuse
from futurechain.executors.work_queue import WorkQueue
from futurechain.future import ExecutorStage, Future
from futurechain.interrupts import put_off

__all__ = ["ThreadPoolExecutor"]

P = ParamSpec("P")
T = TypeVar("T")

logger: logging.Logger = logging.getLogger("concurrent.futures")
BROKEN = "A thread initializer failed, the thread pool is not usable anymore"


class ThreadScheduler(PoolScheduler):
    """The workers of one pool, and what they have to do."""

    starts_anywhere = True
    __slots__ = ("begun", "broken", "fresh", "hired", "idle", "initializer", "most", "present", "threads", "wake")

    def __init__(self, name: str, most: int, initializer: Callable[[], object] | None) -> None:
        super().__init__(name)
        self.most: int = most
        self.initializer: Callable[[], object] | None = initializer
        self.broken: bool = False
        self._begin()

    def _begin(self) -> None:
        self.begun: deque[Any] = deque()
        self.fresh: deque[Any] = deque()
        self.threads: set[threading.Thread] = set()
        self.present: set[threading.Thread] = set()
        """Those that have not left."""
        self.idle: list[Any] = []
        """A lock for each worker that waits for work: whoever takes one releases it."""
        self.wake: Callable[[], object] = map(methodcaller("release"), iter(self.idle.pop, None)).__next__
        """Do both, or raise IndexError: at once, since a Ctrl-C in between would leave that worker asleep for ever."""
        self.hired: int = 0

    def forget(self) -> None:
        super().forget()
        self._begin()

    # -- taking work ----------------------------------------------------------------------------------------------

    def submit(self, task: Any) -> None:
        """Queue a task; refuse it by raising."""
        try:
            self.pending[id(task)] = task
            if self.closing or self.broken:
                self._check(task)
            if watch.on:
                watch.queued(task)
            (self.fresh if current.thread.within is None else self.begun).append(task)
            if self.idle:
                try:
                    self.wake()  # what `staff` does, in place
                except IndexError:
                    self._staff_if_possible()
            elif len(self.present) < self.most:
                self._staff_if_possible()
        except BaseException:
            if claim(task):  # else a worker has it, and goes on
                self.pending.pop(id(task), None)  # nobody will see this future, and perhaps nobody would come for it
                self.end_if_over()
            raise

    def _staff_if_possible(self) -> None:
        """Have a worker for what was just queued; raise only if no thread can be started, and there is none."""
        try:
            self.staff()
        except RuntimeError:
            if not self.present and not self.is_helped:
                raise

    def _check(self, task: Any) -> None:
        """Refuse a task that was just noted, if it comes from outside, or to a broken pool."""
        if self.broken:
            self.pending.pop(id(task), None)
            raise BrokenThreadPool(BROKEN)
        if self.closing and not self.let_in(task):
            raise self.too_late()

    def start(self, stage: Any, call: Call) -> None:
        stage._call = call
        if not self.is_registered(stage):
            return refuse(stage, self, call)
        if self.broken:
            return fail(stage, BrokenThreadPool(BROKEN), call)
        self.begun.append(stage)
        try:
            self.staff()
        except RuntimeError as error:
            if not self.present and not self.is_helped:  # with no thread at all, nobody would ever come
                fail(stage, error, call)
        return None

    def take(self) -> Any:
        """Take the next task or stage; None if there is none."""
        while queue := self.begun or self.fresh:
            try:
                return queue.popleft()  # decides who has it
            except IndexError:
                pass
        return None

    # -- workers --------------------------------------------------------------------------------------------------

    def is_working(self) -> bool:
        return len(self.idle) < len(self.present)  # and what is queued is pending

    def is_moving(self) -> bool:
        return self.is_working() or bool(self.begun or self.fresh)

    def help(self) -> None:
        if not self.present:
            thread = current.thread
            before, thread.pool, thread.within = thread.within, self, self
            try:
                while (task := self.take()) is not None:
                    execute(task, task._call, task._context)
            finally:
                thread.pool, thread.within = None, before
                self.end_if_over()

    def staff(self) -> None:
        """Have a worker for what was just queued: an idle one, or a new one up to the limit."""
        try:
            self.wake()
        except IndexError:
            if len(self.present) < self.most:
                self._hire()
            else:
                wake_blocked()

    def substitute(self, futures: SimpleQueue[Any]) -> None:
        """Run what `futures` wait for and is queued here, until None comes: for a worker that cannot do it itself.

        The thread is counted as that worker.
        """
        thread = threading.Thread(name=f"{self.name}_substitute", target=_substitute, args=(self, futures))
        self.threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had: it waits for its turn
            self.threads.discard(thread)

    def _hire(self) -> None:
        """Start one more worker."""
        number, self.hired = self.hired, self.hired + 1
        thread = threading.Thread(name=f"{self.name}_{number}", target=_work, args=(self,))
        with put_off():
            self.present.add(thread)  # first: the pool is not over before it leaves
            self.threads.add(thread)
            try:
                thread.start()
            except BaseException:
                self.threads.discard(thread)
                self.leave(thread)
                raise

    def rest(self, lock: Any) -> bool:
        """Block until there may be work, with `lock`, which the worker has acquired; True if it is to leave."""
        self.idle.append(lock)
        if self.begun or self.fresh:
            try:
                self.idle.remove(lock)  # decides against those who would wake it
            except ValueError:
                lock.acquire()  # which is about to be released
            return False
        if self.closing:
            self.end_if_over()
        lock.acquire()
        return self.over and not (self.begun or self.fresh)

    def leave(self, thread: threading.Thread) -> None:
        """Note that a worker ends, or has not begun."""
        self.present.discard(thread)
        self.end_if_over()

    # -- ending ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        while self.idle:
            try:
                self.wake()
            except IndexError:
                return

    def join(self) -> None:
        """Wait until it is over and the workers have ended; not in one of them, which would wait for itself."""
        if current.thread.within is not self:
            if (self.begun or self.fresh) and not self.present:
                self.staff()  # an interrupt may have kept what was queued from being given a worker
            self.wait()
            for thread in tuple(self.threads):
                with suppress(RuntimeError):  # it is just being started, for nothing
                    thread.join()

    def break_down(self) -> None:
        """Fail everything: the initializer failed."""
        self.broken = True
        while stages := self.unsettled():
            for stage in stages:
                fail(stage, BrokenThreadPool(BROKEN))
                self.unregister(stage)


def _work(pool: ThreadScheduler) -> None:
    """Execute what is queued until the pool ends: the body of a worker thread."""
    thread = current.thread
    thread.pool = thread.within = pool
    try:
        if _prepare(pool):
            _execute_all(pool)
    finally:
        pool.leave(threading.current_thread())


def _prepare(pool: ThreadScheduler) -> bool:
    try:
        if pool.initializer is not None:
            pool.initializer()
    except BaseException:
        logger.critical("Exception in initializer:", exc_info=True)
        pool.break_down()
        return False
    return True


def _execute_all(pool: ThreadScheduler) -> None:
    begun, fresh = pool.begun, pool.fresh
    lock = threading.Lock()
    lock.acquire()
    while True:
        queue = begun or fresh
        if not queue:
            if pool.rest(lock):
                return
            continue
        try:
            task = queue.popleft()  # decides which worker runs it
        except IndexError:
            continue
        try:
            execute(task, task._call, task._context)
        except BaseException:
            logger.critical("Exception in worker", exc_info=True)
        del task


def _substitute(pool: ThreadScheduler, futures: SimpleQueue[Any]) -> None:
    """Do for a worker what it would do itself if it did not hold conditions of futures."""
    thread = current.thread
    thread.pool = thread.within = pool
    if _prepare(pool):
        for future in iter(futures.get, None):
            take_queued(future, thread)
    pool.threads.discard(threading.current_thread())
    pool.end_if_over()


class ThreadPoolExecutor(Mapping, standard.ThreadPoolExecutor):
    """A drop-in ``concurrent.futures.ThreadPoolExecutor`` whose futures chain.

    Args:
        max_workers: how many threads at most; by default as the standard pool.
        thread_name_prefix: what the threads are called.
        initializer: called in each thread before its first task, with `initargs`.
        initargs: arguments for it.
        cancel_on_error: whether leaving the ``with`` block by an exception, Ctrl-C included, cancels what has not
            begun.

    A task or stage sees the context (``contextvars``) in which it was submitted or attached. What belongs to a chain
    that has begun comes before tasks that have not. A worker that settles a task carries on with the first stage of
    its chain; further ones are shared out. One that waits for work still queued here runs that very work itself.
    Leaving the ``with`` block waits for whole chains. An executor that is collected still ends the chains that were
    begun.

    Example:
        >>> with ThreadPoolExecutor() as pool:
        ...     pool.submit(int, "42").then(hex).result()
        '0x2a'
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        cancel_on_error: bool = False,
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
        self._cancel_on_error = cancel_on_error
        prepare = None if initializer is None else lambda: initializer(*initargs)
        self._scheduler = ThreadScheduler(self._thread_name_prefix, most, prepare)
        weakref.finalize(self, self._scheduler.close).atexit = False

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)``; return its future.

        Raises:
            TypeError: if `fn` is missing or not callable.
            RuntimeError: after the shutdown.
            BrokenThreadPool: if the initializer failed.

        Example:
            >>> pool.submit(pow, 2, 5).result()
            32
        """
        task = new_task(ExecutorStage, fn, self._scheduler)
        task._context = copy_context()
        task._call = fn, args, kwargs
        self._scheduler.submit(task)
        return cast("Future[T]", task)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new outside work, and let what was begun end: whole chains.

        Args:
            wait: block until then (not in a worker of this pool, which would wait for itself).
            cancel_futures: cancel what has not begun, stages included.

        Example:
            >>> task = pool.submit(pow, 2, 5).then(hex)
            >>> pool.shutdown(), task.result()
            (None, '0x20')
        """
        self._scheduler.close(cancel_futures=cancel_futures)
        if wait:
            self._scheduler.join()

    # What the standard class calls so, for those who look.

    if not TYPE_CHECKING:

        @property
        def _threads(self) -> set[threading.Thread]:
            return self._scheduler.threads

        @property
        def _work_queue(self) -> WorkQueue:
            return WorkQueue(self._scheduler)

        @property
        def _broken(self) -> Any:
            return self._scheduler.broken and BROKEN

        @property
        def _shutdown(self) -> bool:
            return self._scheduler.closing

    def __repr__(self) -> str:
        state = "shut down" if self._scheduler.closing else "open"
        return f"<{type(self).__name__} {self._scheduler.name} {state}, {len(self._scheduler.threads)} threads>"


interpreter.arm()
