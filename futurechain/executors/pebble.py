"""Pebble's pools as executors: they are none, and may break without a word.

They end a worker that runs what is cancelled, but forget what they have queued when they break. So they get at most
one task for each worker here, and the queue is ours: begun work first. While something is inside, a timer looks
whether the pool is still alive; if it is not, whatever is inside or queued fails. The pool is the user's, and is never
built anew.
"""

from __future__ import annotations

import concurrent.futures as cf
import sys
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from futurechain import clock
from futurechain.core import callback_threads
from futurechain.core.stdlib import outcome_of
from futurechain.errors import BrokenExecutor
from futurechain.failure import Failure

__all__ = ["PebblePool", "as_executor", "shares_memory"]

PAUSE = 0.5
"""Seconds between two looks at the pool."""


class _Kept(cf.Future[Any]):
    """A task in our queue, or in the pool."""

    def __init__(self, call: tuple[Any, Any, Any]) -> None:
        super().__init__()
        self.call: Any = call
        self.inner: Any = None

    def cancel(self) -> bool:
        """Withdraw it, or have its worker ended, where the pool does that."""
        return super().cancel() or (self.inner is not None and bool(self.inner.cancel()))

    def take(self, inner: cf.Future[Any]) -> None:
        """Take over how it has ended in the pool."""
        self.fail_or_finish(outcome_of(inner))

    def fail_or_finish(self, outcome: Any) -> None:
        """Settle it, unless it is settled."""
        with suppress(cf.InvalidStateError):
            if type(outcome) is Failure:
                self.set_exception(outcome.value)
            else:
                self.set_result(outcome)


class PebblePool(cf.Executor):
    """Between one pool of Pebble's and its wrapper."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self._max_workers: int = pool._context.workers
        self._queues: tuple[deque[_Kept], deque[_Kept]] = deque(), deque()
        """What has begun, and what has not."""
        self._rooms: list[None] = [None] * self._max_workers
        """Who pops one may hand a task to the pool."""
        self._inside: dict[int, _Kept] = {}
        self._timer: Any = None

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
        """Queue a call that has not begun."""
        return self.put((fn, args, kwargs), begun=False)

    def put(self, call: tuple[Any, Any, Any], *, begun: bool) -> cf.Future[Any]:
        """Queue a call; return its future."""
        kept = _Kept(call)
        self._queues[0 if begun else 1].append(kept)
        self._pump()
        return kept

    def _pump(self) -> None:
        """Hand over what the pool has room for."""
        while any(self._queues):
            try:
                self._rooms.pop()
            except IndexError:
                return
            kept = self._next()
            if kept is None or not self._hand_over(kept):
                self._rooms.append(None)

    def _next(self) -> _Kept | None:
        """Take out the next one that is still wanted."""
        for queue in self._queues:
            while queue:
                try:
                    kept = queue.popleft()
                except IndexError:
                    break
                if kept.set_running_or_notify_cancel():
                    return kept
        return None

    def _hand_over(self, kept: _Kept) -> bool:
        fn, args, kwargs = kept.call
        kept.call = None
        self._inside[id(kept)] = kept
        try:
            kept.inner = self.pool.schedule(fn, args=list(args), kwargs=kwargs)
        except BaseException as error:
            self._inside.pop(id(kept), None)
            kept.fail_or_finish(Failure(error if not isinstance(error, RuntimeError) else _broken(error)))
            return False
        kept.inner.add_done_callback(partial(self._arrive, kept))
        if self._timer is None or not self._timer.is_pending():
            self._timer = clock.call_later(PAUSE, callback_threads.run, self._look)
        return True

    def _arrive(self, kept: _Kept, inner: cf.Future[Any]) -> None:
        if self._inside.pop(id(kept), None) is None:
            return
        self._rooms.append(None)
        kept.take(inner)
        self._pump()

    def _look(self) -> None:
        """See whether the pool is alive, as long as something is inside."""
        if not self._inside:
            return
        if self.pool.active:
            self._timer = clock.call_later(PAUSE, callback_threads.run, self._look)
            return
        for key in tuple(self._inside):
            kept = self._inside.pop(key, None)
            if kept is not None:
                kept.fail_or_finish(Failure(_broken(None)))
                self._rooms.append(None)
        self._pump()  # what is queued fails when the pool is asked

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the pool; the wrapper does that when everything has ended."""
        if cancel_futures:
            for queue in self._queues:
                for kept in tuple(queue):
                    kept.cancel()
        self.pool.close()
        if wait:
            with suppress(RuntimeError):
                self.pool.join()

    def __repr__(self) -> str:
        return repr(self.pool)


def _broken(cause: BaseException | None) -> BaseException:
    error = BrokenExecutor("the pool of Pebble's has stopped, or is broken: it forgets what it has then")
    error.__cause__ = cause
    return error


def as_executor(pool: Any) -> Any:
    """Return an executor for one of Pebble's pools, the same for the same pool; anything else as it is."""
    pebble: Any = sys.modules.get("pebble")
    if pebble is None or not isinstance(pool, (pebble.ProcessPool, pebble.ThreadPool)):
        return pool
    return pool.__dict__.setdefault("_as_executor", PebblePool(pool))


def shares_memory(executor: Any) -> bool:
    """Tell whether that is a pool of threads."""
    pebble: Any = sys.modules.get("pebble")
    return pebble is not None and isinstance(executor.pool, pebble.ThreadPool)
