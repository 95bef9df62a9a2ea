"""What a pipeline wants to know of an executor. All that it asks of the core is asked here."""

from __future__ import annotations

import concurrent.futures as cf
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from futurechain.core import callback_threads
from futurechain.core.observers import watch
from futurechain.core.scheduler import scheduler_of
from futurechain.core.thread_state import blocked, current, wake_blocked
from futurechain.core.unobserved import rescue
from futurechain.errors import ExecutorShutdownError
from futurechain.executors.inline import INLINE
from futurechain.executors.limit import LimitedExecutor
from futurechain.executors.wrapped import wrap_executor
from futurechain.failure import Failure
from futurechain.future import Future

__all__ = [
    "check_open",
    "count_queue",
    "end_of",
    "executor_of",
    "has_begun",
    "is_limited",
    "is_watched",
    "later",
    "name_of",
    "noted",
    "rescue",
    "shares_memory",
    "starts_each",
    "stops_work",
    "submit",
    "wait",
    "wake_workers",
    "workers_of",
]


def executor_of(on: Any) -> cf.Executor:
    """Return the executor to submit to: `on` itself, or the wrapper of a foreign one.

    Raises:
        TypeError: if it is no executor.
        RuntimeError: if it is shut down.
    """
    scheduler_of(on)
    executor: cf.Executor = INLINE if on is INLINE else wrap_executor(on)
    check_open(executor)
    return executor


def check_open(executor: Any) -> None:
    """Raise RuntimeError if `executor`, or what it is a view of, is known to be shut down for who asks."""
    scheduler: Any = scheduler_of(executor)
    if getattr(scheduler, "closing", False):
        refused = not scheduler._is_inside(None)  # what belongs to a chain that has begun is still let in
    else:
        refused = any(getattr(_inner(executor), name, False) is True for name in ("_shutdown", "_shutdown_thread"))
    if refused:
        raise ExecutorShutdownError(f"{name_of(executor)} is shut down: give on= an executor that is still open")
    if isinstance(executor, LimitedExecutor):
        check_open(executor.executor)


def shares_memory(executor: Any) -> bool:
    """Tell whether what runs on `executor` sees our objects themselves."""
    return scheduler_of(executor).takes_closures()


def starts_each(executor: Any) -> bool:
    """Tell whether each step of each item counts on `executor`, so that nothing may be put together."""
    return isinstance(executor, LimitedExecutor) and executor.per_second is not None


def is_limited(executor: Any) -> bool:
    """Tell whether `executor` is a view with bounds, where each item counts for itself."""
    return isinstance(executor, LimitedExecutor)


def stops_work(executor: Any) -> bool:
    """Tell whether cancelling a future of `executor` stops what runs for it."""
    return getattr(scheduler_of(executor), "stop_cancelled", False) is True


def has_begun(future: Any) -> bool:
    """Tell whether what `future` stands for runs, or has run."""
    has_begun = getattr(getattr(future, "_source", None), "has_begun", None)
    return bool(future.done() or (future.running() if has_begun is None else has_begun()))


def end_of(future: Any) -> Callable[[Callable[[], object]], object]:
    """Return what calls a function when nothing runs for `future`, which was just submitted, and is done by then."""
    when_stopped: Callable[[Callable[[], object]], object] | None
    when_stopped = getattr(getattr(future, "_source", None), "when_stopped", None)
    return (lambda act: act()) if when_stopped is None else when_stopped


def workers_of(executor: Any) -> int:
    """Return how many workers `executor` has, as far as that can be known."""
    if executor is INLINE:
        return 1
    if isinstance(executor, LimitedExecutor):
        most = workers_of(executor.executor)
        return most if executor.concurrency is None else min(most, executor.concurrency)
    for one in (executor, _inner(executor)):
        count = getattr(one, "_max_workers", None)
        if isinstance(count, int) and count > 0:
            return count
    return os.cpu_count() or 1


def _inner(executor: Any) -> Any:
    return getattr(executor, "_executor", executor)


def name_of(executor: Any) -> str:
    """Return what messages and pictures call `executor`."""
    return scheduler_of(executor).name


def submit(executor: Any, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
    """Submit without ever waiting for room in the queue of a `limit` view."""
    if isinstance(executor, LimitedExecutor):
        return executor.submit_nowait(fn, *args)
    return executor.submit(fn, *args)  # type: ignore[no-any-return]


def later(job: Callable[..., object], /, *args: Any) -> None:
    """Run ``job(*args)`` on a callback thread."""
    callback_threads.post(partial(job, *args))


def is_watched() -> bool:
    """Tell whether anybody wants to know what happens: a trace is on."""
    return watch.on


def count_queue(stream: int, step: str, *lengths: int) -> None:
    """Tell who watches how many items have waited for a step of a stream, and how many do so now."""
    for length in lengths:
        watch.counted(f"items of stream {stream} that wait for {step}", length)


def wait(waiter: Future[None], whole: Any, seconds: float | None = None) -> None:
    """Block until `waiter` is settled; a pool's worker does what is queued on that pool of the ``whole.sources()``.

    Raises:
        TimeoutError: if it is not settled within so many seconds.
    """
    if current.thread.pool is not None:
        waiter._source = whole
    waiter.result(seconds)


def wake_workers() -> None:
    """Have the workers that block look around: there may be something that they can do."""
    if blocked:
        wake_blocked()


def noted(failure: Failure, stage: str, number: int, total: int, executor: Any) -> Failure:
    """Note on the exception which step has raised it; return `failure`."""
    with suppress(Exception):  # an exception that takes no notes goes without
        if not any(str(note).startswith(_NOTE) for note in getattr(failure.value, "__notes__", ())):
            failure.value.add_note(f"{_NOTE}{stage}, {number} of {total}, on {name_of(executor)}")
    return failure


_NOTE = "raised in stage "
"""How the notes begin, here and in chains; an exception gets one of them."""
