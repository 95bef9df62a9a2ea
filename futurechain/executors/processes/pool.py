"""The process pool: the standard one's interface, and futures that chain, over the machine.

The standard class is the base for ``isinstance`` alone: none of its machinery is started. What it calls so and others
look at (``_processes``, ``_executor_manager_thread``, ...) is there, as properties.
"""

from __future__ import annotations

import concurrent.futures.process as standard
import multiprocessing
import os
import select
import signal
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from futurechain.core import callback_threads
from futurechain.core.attaching import MISSING
from futurechain.executors import exit as interpreter
from futurechain.executors.mapping import Mapping
from futurechain.executors.pool import new_name
from futurechain.executors.processes import ending  # noqa: F401  # its hook comes before ours
from futurechain.future import Future

__all__ = ["ProcessPoolExecutor"]

P = ParamSpec("P")
T = TypeVar("T")

MEGABYTE = 1_000_000


class ProcessPoolExecutor(Mapping, standard.ProcessPoolExecutor):
    """A drop-in ``concurrent.futures.ProcessPoolExecutor`` whose futures chain.

    Args:
        max_workers: how many processes at most; by default one for each processor.
        mp_context: where processes come from, as ``multiprocessing.get_context("spawn")``.
        initializer: called in each worker before its first task, with `initargs`.
        initargs: arguments for it.
        max_tasks_per_child: after how many tasks a worker is replaced; not with the start method fork.
        heal: what becomes of the pool when a worker is killed or ends by itself. False: it breaks, as the standard
            one does. True: the task that this worker ran fails with `WorkerDiedError`, and another takes its place.
        stop_cancelled: whether cancelling a task that runs, or its timeout, ends its worker (SIGTERM, and SIGKILL a
            second later), which is replaced then.
        share: from how many bytes on data travels through shared memory, with at most one copy on each side; None:
            never.
        cancel_on_error: whether leaving the ``with`` block by an exception, Ctrl-C included, cancels what has not
            begun.

    Promise-family stages run in a worker process, so their function, argument and result must pickle (a module-level
    function does); ``on=INLINE`` runs a stage here instead. Twisted-family callbacks run in this process, on a callback
    thread. Leaving the ``with`` block waits for whole chains. Workers end with this process, however that ends.

    Systems: Linux is tested. Where there is no ``memfd`` (macOS), data travels through the pipe, and where there is no
    pidfd, a worker's end is seen by its sentinel, later if it has forked.

    Raises:
        NotImplementedError: on a system without POSIX pipes, such as Windows.
        TypeError: if an argument is of a wrong type.
        ValueError: if a number is too small, or `max_tasks_per_child` is given with the start method fork.

    Example:
        >>> with ProcessPoolExecutor(2) as pool:
        ...     pool.submit(int, "42").then(hex).result()
        '0x2a'
    """

    _maps_in_chunks = True

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        heal: bool = False,
        stop_cancelled: bool = False,
        share: int | None = MEGABYTE,
        cancel_on_error: bool = False,
    ) -> None:
        # When the first pool is made: to import the machine costs as much as all the rest.
        from futurechain.executors.processes.machine import Machine
        from futurechain.executors.processes.scheduler import ProcessScheduler
        from futurechain.executors.processes.turnover import Options
        from futurechain.executors.processes.worker import Start

        _check_system()
        limit = _checked_workers(max_workers)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if not (mp_context is None or hasattr(mp_context, "get_start_method")):
            example = 'multiprocessing.get_context("spawn")'
            raise TypeError(f"ProcessPoolExecutor() wants a context, such as {example}, not {mp_context!r}")
        if mp_context is None:
            mp_context = multiprocessing.get_context("spawn" if max_tasks_per_child is not None else None)
        _check_tasks_per_child(max_tasks_per_child, mp_context)
        _check_share(share)
        self._max_workers = limit
        self._mp_context = mp_context
        self._cancel_on_error = cancel_on_error
        start = Start(initializer, initargs, share, _TIMED if stop_cancelled else ())
        options = partial(Options, max_tasks=max_tasks_per_child, heal=heal, elsewhere=callback_threads.post)
        self._scheduler = ProcessScheduler(
            new_name(type(self).__name__),
            lambda name: Machine(options(name), mp_context, limit, start),
            stop_cancelled=stop_cancelled,
        )
        weakref.finalize(self, self._scheduler.close).atexit = False

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` in a worker process; return its future.

        The arguments are pickled in this thread as a rule, and later if much is queued already.

        Raises:
            TypeError: if `fn` is missing, not callable, or an ``async def`` function.
            RuntimeError: after the shutdown.
            BrokenProcessPool: if the pool is broken.

        Example:
            >>> processes.submit(pow, 2, 5).result()
            32
        """
        return cast("Future[T]", self._scheduler.submit((fn, args, kwargs)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new outside work, and let what was begun end: whole chains.

        Args:
            wait: block until then (not on a callback thread of this pool, which would wait for itself).
            cancel_futures: cancel what has not begun, stages included.

        Example:
            >>> task = processes.submit(pow, 2, 5).then(hex)
            >>> processes.shutdown(), task.result()
            (None, '0x20')
        """
        self._scheduler.shut_down(wait=wait, cancel_futures=cancel_futures)

    def terminate_workers(self) -> None:
        """End all workers by SIGTERM, at once: what they run fails, and what has not begun is cancelled.

        Example:
            >>> nap = processes.submit(time.sleep, 3600)
            >>> processes.terminate_workers()
            >>> concurrent.futures.wait([nap]).not_done
            set()
        """
        self._scheduler.terminate(signal.SIGTERM)

    def kill_workers(self) -> None:
        """End all workers by SIGKILL, at once: what they run fails, and what has not begun is cancelled.

        Example:
            >>> nap = processes.submit(time.sleep, 3600)
            >>> processes.kill_workers()
            >>> concurrent.futures.wait([nap]).not_done
            set()
        """
        self._scheduler.terminate(signal.SIGKILL)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._scheduler.describe()}>"

    # What the standard class calls so, for those who look.

    if not TYPE_CHECKING:

        @property
        def _processes(self) -> dict[int, Any]:
            return self._scheduler.machine.staff.processes

        @property
        def _executor_manager_thread(self) -> Any:
            return self._scheduler.machine.thread

        @property
        def _broken(self) -> Any:
            return self._scheduler.machine.reason or False

        @property
        def _shutdown_thread(self) -> bool:
            return self._scheduler.closing

        @property
        def _call_queue(self) -> Any:
            return _NoQueue()


_TIMED = ("futurechain.pipeline.trips",)
"""What a pipeline's steps need in a worker: where they have a timeout that ends it, the import must not count."""


class _NoQueue:
    """What ``_call_queue`` is for those who look: there is no such queue, and no thread that feeds it."""

    def join_thread(self) -> None:
        """Return: there is none."""

    def close(self) -> None:
        """Do nothing: there is none."""


def _check_system() -> None:
    if not (hasattr(select, "poll") and hasattr(os, "readv")):
        raise NotImplementedError(
            "ProcessPoolExecutor needs POSIX pipes, which this system has not: "
            "use wrap_executor(concurrent.futures.ProcessPoolExecutor())"
        )


def _checked_workers(max_workers: int | None) -> int:
    if max_workers is None:
        return getattr(os, "process_cpu_count", os.cpu_count)() or 1
    if isinstance(max_workers, bool) or not isinstance(max_workers, int):
        raise TypeError(f"ProcessPoolExecutor() wants a whole number of workers, not {max_workers!r}")
    if max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    return max_workers


def _check_tasks_per_child(number: int | None, context: Any) -> None:
    if number is None:
        return
    if not isinstance(number, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if number <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
    if context.get_start_method(allow_none=False) == "fork":
        raise ValueError(
            "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; "
            "supply a different mp_context."
        )


def _check_share(share: int | None) -> None:
    if share is None:
        return
    if isinstance(share, bool) or not isinstance(share, int):
        raise TypeError(f"share= wants a number of bytes, or None, not {share!r}")
    if share < 1:
        raise ValueError(f"share= wants at least one byte, not {share!r}")


interpreter.arm()
