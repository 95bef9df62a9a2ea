"""Views of an executor with bounds: how many run at once, how many start in a second, how many wait.

Theory of operation
-------------------
A view has a queue of its own in front of the executor's. What it lets through is started there as if it had come
without the view; it is the view that is told when a stage is settled, gives back the slot, and passes the word on. All
that is pending in a view is registered with the executor as well, so its shutdown waits for it, or cancels it.

A lock guards the queue, the slots, the starts and those who wait for room; under it is decided and never started.
A stage has a slot from when it leaves the queue until it is settled, whichever way (so a coroutine has one until it
ends); one that is cancelled in the queue never has one. The queue is first come, first served, and so are the
callers that wait for room in it.

What a stage with a slot waits for, once it has returned a future, would wait for that very slot for ever if it came to
stand in the queue. So it is a *guest* there: it runs in the slot of the one that waits, one at a time; so does a step
of a coroutine. Who queues puts the entry into the queue first and looks at those who wait then; who begins to wait says
so first, and looks into the queue then. What they come to wait for by others' doing (a coroutine awaits, a future on
the way returns another) tells nobody: for that the view looks again now and then, as long as they hold up its queue.
"""

from __future__ import annotations

import concurrent.futures as cf
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar, cast

from futurechain import clock
from futurechain.core import callback_threads
from futurechain.core.attaching import MISSING, new_task
from futurechain.core.flatten import upstream
from futurechain.core.handlers import step_of
from futurechain.core.scheduler import Call, Scheduler, scheduler_of
from futurechain.core.state import claim
from futurechain.core.thread_state import current
from futurechain.errors import ExecutorShutdownError
from futurechain.executors.mapping import Mapping, check_count
from futurechain.executors.pool import check_stage_travels, check_travels, fail, refusal
from futurechain.future import ExecutorStage, Future

__all__ = ["LimitedExecutor", "limit"]

P = ParamSpec("P")
T = TypeVar("T")
LOOK_AGAIN = 0.05
"""Seconds until a look at what those wait for that hold up the queue."""
EARLY = 1e-9
"""Seconds by which a sum of floats may be wrong."""


class _View(Scheduler):
    """What chains hold of a view."""

    __slots__ = (
        "_guests", "_inner", "_lock", "_look", "_quiet", "_rate", "_reserved", "_rooms", "_timer",
        "_waiting", "_wanted", "closing", "most", "pending", "queue", "queued", "running",
    )  # fmt: skip

    def __init__(self, inner: Scheduler, most: int | None, rate: _Rate | None, queued: int | None) -> None:
        super().__init__(f"limit({inner.name})")
        self._inner = inner
        self.most: float = math.inf if most is None else most
        self.queued = math.inf if queued is None else queued
        self._rate = rate
        self._lock = threading.Lock()
        self.queue: OrderedDict[int, tuple[Any, Call]] = OrderedDict()
        """What waits, by the identity of the stage; both ends of a plain dict are not within reach at once."""
        self.running: set[int] = set()
        """The stages that have a slot, by their identity."""
        self._waiting: dict[int, Any] = {}
        """Those of them that wait for a future."""
        self._wanted: dict[int, None] = {}
        """Those in the queue for which one of these waits."""
        self._guests: set[int] = set()
        """Those of the running ones that have the slot of one that waits for them."""
        self.pending: dict[int, Any] = {}
        self.closing = False
        self._rooms: deque[Future[None]] = deque()
        """Those who wait for room in the queue."""
        self._reserved = 0
        """How many have been told that there is room, and have not used it yet."""
        self._timer: clock.Timer | None = None
        self._look: clock.Timer | None = None
        self._quiet: list[Future[None]] = []

    def takes_closures(self) -> bool:
        return self._inner.takes_closures()

    def show(self, stage: Any) -> Any:
        return self._inner.show(stage)

    def steps_of(self, stage: Any) -> Scheduler:
        """Return where they need no slot, if `stage` has one."""
        return self._inner.steps_of(stage) if id(stage) in self.running else self

    def waits(self, stage: Any) -> None:
        with self._lock:
            if id(stage) in self.running:
                self._waiting[id(stage)] = stage
        self._inner.waits(stage)
        self._let_in([stage])

    def _let_in(self, waiting: list[Any]) -> None:
        """Let what these stages wait for run in their slots, as far as it is queued here."""
        ids = [id(one) for stage in waiting for origin in upstream(stage) for one in (origin, step_of(origin))]
        with self._lock:
            self._wanted.update((number, None) for number in ids if number in self.queue)
        self.pump()

    def _look_again(self) -> None:
        with self._lock:
            waiting = [*self._waiting.values()]
        self._let_in(waiting)

    def queue_of(self, stage: Any) -> Scheduler | None:
        return self._inner.queue_of(stage) if id(stage) in self.running else None

    def register(self, stage: Any, source: Any = None) -> None:
        if self.closing and not self._is_inside(source):
            return None  # it will be refused when its turn comes; an error before that still passes through
        check_stage_travels(stage, self)
        self.pending[id(stage)] = stage
        if self.closing and not self._is_inside(source):  # a look after that: it was closed in between
            return self._forget(stage)
        self._inner.register(stage, source)
        if stage.done():  # a look after that: a shutdown of this view has cancelled it, before it was known there
            self._inner.unregister(stage)
        return None

    def _forget(self, stage: Any) -> None:
        with self._lock:
            self.pending.pop(id(stage), None)
            quiet = self._take_quiet()
        _tell(quiet)

    def _take_quiet(self) -> list[Future[None]]:
        """Return what those wait for who wait until nothing is pending, if that is so. Under the lock."""
        if self.pending:
            return []
        quiet, self._quiet = self._quiet, []
        return quiet

    def is_registered(self, stage: Any) -> bool:
        """Tell whether `stage` was taken, and is not settled."""
        return id(stage) in self.pending and _is_registered(self._inner, stage)

    def admit(self, task: Any) -> None:
        """Register a task that is submitted.

        Raises:
            RuntimeError: if it is refused, here or by the executor.
        """
        self.register(task)
        if not self.is_registered(task):
            closed = self._inner if id(task) in self.pending else self
            self._expel(task)
            raise RuntimeError(f"cannot schedule new futures after shutdown of {closed.name}")

    def _expel(self, task: Any) -> None:
        """Forget a task that was refused, here and in the views beneath, which may have taken it."""
        self._forget(task)
        if isinstance(self._inner, _View):
            self._inner._expel(task)

    def unregister(self, stage: Any) -> None:
        self._inner.unregister(stage)
        with self._lock:
            self.pending.pop(id(stage), None)
            if id(stage) in self.running:
                self.running.remove(id(stage))
                self._waiting.pop(id(stage), None)
                self._guests.discard(id(stage))
            else:
                self.queue.pop(id(stage), None)
                self._wanted.pop(id(stage), None)
            rooms = self._rooms_to_give()
            quiet = self._take_quiet()
        _tell(rooms)
        _tell(quiet)
        self.pump()

    def start(self, stage: Any, call: Call) -> None:
        with self._lock:
            known = id(stage) in self.pending
            if known:
                self.queue[id(stage)] = stage, call
        if not known:
            fail(stage, ExecutorShutdownError(refusal(self.name)), call)
            return
        self.pump()
        with self._lock:  # to look for who waits for it costs a walk for each: only if it does not come by itself
            stuck = self._waiting and id(stage) in self.queue and self._next() is None
            waiting = [*self._waiting.values()] if stuck else []
        if waiting:
            self._let_in(waiting)

    def pump(self) -> None:
        """Start what may be started; in the loop that this thread is in already, if it is.

        What runs at once in `start` must not nest; but if it blocks, that loop goes on in there (see `work_off`).
        """
        starting = current.thread.starting
        if self._start_all in starting:
            return
        try:
            starting.append(self._start_all)
            self._start_all()  # a loop in here would not be sure to meet the `finally`: see `pipeline.flow`
        finally:
            with suppress(ValueError):  # a Ctrl-C has come before it was there
                starting.remove(self._start_all)

    def _start_all(self) -> bool:
        """Start what may be started; True if that was anything."""
        has_started = False
        while self._start_next():
            has_started = True
        return has_started

    def _start_next(self) -> bool:
        with self._lock:
            number = self._next()
            if number is None and self.queue and self._waiting and not (self._look and self._look.is_pending()):
                self._look = clock.call_later(LOOK_AGAIN, callback_threads.run, self._look_again)
            if number is None or not self._in_time():
                return False
            entry = self.queue[number]
            try:
                del self.queue[number]
                self.running.add(number)
                if number in self._wanted:
                    del self._wanted[number]
                    self._guests.add(number)
                rooms = self._rooms_to_give()
            except BaseException:
                self._put_back(entry, number)
                raise
        try:
            _tell(rooms)
            self._inner.start(*entry)
        except BaseException:  # Ctrl-C; should it have been started, it is settled but once
            with self._lock:
                self._put_back(entry, number)
            raise
        return True

    def _next(self) -> int | None:
        """Return which one may start next, if any. Under the lock."""
        if len(self.running) - len(self._waiting) >= self.most:
            return None
        has_room = len(self.running) - len(self._guests) < self.most
        numbers: dict[int, Any] = self.queue if has_room else self._wanted
        return next(iter(numbers), None)

    def _put_back(self, entry: tuple[Any, Call], number: int) -> None:
        """Let an entry wait again that was to be started, unless it is settled. Under the lock."""
        if number in self.running:
            self.running.discard(number)
            if number in self._guests:
                self._guests.discard(number)
                self._wanted[number] = None
            self.queue[number] = entry
            self.queue.move_to_end(number, last=False)

    def _in_time(self) -> bool:
        """Tell whether one more may start now; if not, come back when it may. Under the lock."""
        if self._rate is None:
            return True
        seconds = self._rate.take()
        if seconds and (self._timer is None or not self._timer.is_pending()):
            self._timer = clock.call_later(seconds, callback_threads.run, self.pump)
        return not seconds

    def _is_inside(self, source: Any) -> bool:
        """Tell whether what is attached to `source` here and now belongs to a chain that has begun."""
        within = current.thread.within
        if within is not None and within in (self, self._inner):
            return True
        return source is not None and any(id(one) in self.pending for one in upstream(source))

    # -- room in the queue --------------------------------------------------------------------------------------------

    def wait_for_room(self, held: list[None]) -> None:
        """Block until the caller may queue one more; a thread that works for the library never waits.

        Args:
            held: gets an entry if a place is held, for which `leave_room` is to be called then, whatever happens.

        Raises:
            RuntimeError: if the view is shut down meanwhile.
        """
        with self._lock:
            full = bool(self._rooms) or len(self.queue) + self._reserved >= self.queued
            if self.closing or not full or _is_ours():
                self._reserved += 1
                held.append(None)
                return
            room: Future[None] = Future()
            self._rooms.append(room)
        try:
            room.result()
            held.append(None)
        except BaseException:
            if not held and not room.cancel() and room.exception() is None:
                held.append(None)
            with self._lock:
                self._rooms = deque(one for one in self._rooms if one is not room)
            raise

    def leave_room(self, held: list[None]) -> None:
        """Note that the place that is held, if one is, is used, or not needed."""
        with self._lock:
            if not held:
                return
            self._reserved -= 1
            held.clear()
            rooms = self._rooms_to_give()
        _tell(rooms)

    def _rooms_to_give(self) -> list[Future[None]]:
        """Take out those who may go on, in the order in which they came. Under the lock."""
        rooms = []
        while self._rooms and len(self.queue) + self._reserved < self.queued:
            rooms.append(self._rooms.popleft())
            self._reserved += 1
        return rooms

    # -- ending -------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise RuntimeError if the executor takes no new work any more, or what that is a view of."""
        if getattr(self._inner, "closing", False) and not self._is_inside(None):
            raise RuntimeError(f"cannot schedule new futures after shutdown of {self._inner.name}")
        if isinstance(self._inner, _View):
            self._inner.check()

    def close(self, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more outside work; cancel what is pending, or wait for it, if asked to."""
        self.closing = True
        with self._lock:
            rooms, self._rooms = [*self._rooms], deque()
        for room in rooms:
            room.set_exception(RuntimeError(f"cannot schedule new futures after shutdown of {self.name}"))
        if cancel_futures:
            for stage in tuple(self.pending.values()):
                stage.cancel()
        with self._lock:
            quiet: Future[None] | None = Future() if wait and self.pending and not self._is_inside(None) else None
            if quiet is not None:
                self._quiet.append(quiet)
        if quiet is not None:
            quiet.result()


class _Rate:
    """At most so many starts in any second, kept by the times of the last ones."""

    __slots__ = ("_last", "_period")

    def __init__(self, per_second: float) -> None:
        most = max(1, math.floor(per_second))
        self._period = most / per_second
        self._last: deque[float] = deque(maxlen=most)

    def take(self) -> float:
        """Take a start now, and return 0; or return the seconds until there is one."""
        now, last = clock.now(), self._last
        if len(last) == last.maxlen and (wait := last[0] + self._period - now) > EARLY:
            return wait
        last.append(now)
        return 0.0


def _is_registered(scheduler: Any, stage: Any) -> bool:
    asked = getattr(scheduler, "is_registered", None)
    return asked is None or bool(asked(stage))


def _tell(waiting: list[Future[None]]) -> None:
    for one in waiting:
        if one.set_running_or_notify_cancel():
            one.set_result(None)


def _is_ours() -> bool:
    """Tell whether this thread works for the library, so that holding it up would hold up others."""
    thread = current.thread
    return thread.within is not None or thread.depth > 0 or callback_threads.is_reserved()


class LimitedExecutor(Mapping):
    """A view of an executor that lets only so much through; made by `limit`.

    Example:
        >>> limit(pool, concurrency=4).concurrency
        4
    """

    def __init__(
        self, executor: cf.Executor, concurrency: int | None, per_second: float | None, queued: int | None
    ) -> None:
        self.executor = executor
        """What it is a view of."""
        self.concurrency = concurrency
        self.per_second = per_second
        self.queued = queued
        rate = None if per_second is None else _Rate(per_second)
        self._scheduler = _View(scheduler_of(executor), concurrency, rate, queued)
        self._maps_in_chunks = not self._scheduler.takes_closures()

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)``; return its future.

        Waits while as many are queued as may be, unless this thread works for the library.

        Raises:
            TypeError: if `fn` is missing or not callable.
            RuntimeError: after the shutdown of the view, or of the executor.

        Example:
            >>> limit(pool, concurrency=4).submit(pow, 2, 5).result()
            32
        """
        held: list[None] = []
        try:
            self._scheduler.wait_for_room(held)
            return self.submit_nowait(fn, *args, **kwargs)
        finally:
            try:
                self._scheduler.leave_room(held)
            except BaseException:  # Ctrl-C
                self._scheduler.leave_room(held)
                raise

    def submit_nowait(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do what `submit` does, and never wait.

        Example:
            >>> limit(pool, queued=1).submit_nowait(pow, 2, 5).result()
            32
        """
        view = self._scheduler
        check_travels(fn, view, "submit()")
        task = new_task(ExecutorStage, fn, view)
        task._call = None
        task._context = copy_context()
        try:
            view.admit(task)
            view.start(task, (fn, args, kwargs))
        except BaseException:  # Ctrl-C, or it is refused: nobody will see this future
            if id(task) in view.pending and claim(task):
                view.unregister(task)
            elif task.done():
                task._observed()  # what it has failed with is raised here
            raise
        return cast("Future[T]", view.show(task))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new outside work, and let what was begun here end; the executor itself goes on.

        Args:
            wait: block until then.
            cancel_futures: cancel what has not begun, stages included.

        Example:
            >>> limit(pool, concurrency=4).shutdown()
            >>> pool.submit(pow, 2, 5).result()
            32
        """
        self._scheduler.close(wait=wait, cancel_futures=cancel_futures)

    def __repr__(self) -> str:
        bounds = {"concurrency": self.concurrency, "per_second": self.per_second, "queued": self.queued}
        given = "".join(f", {name}={value}" for name, value in bounds.items() if value is not None)
        return f"limit({self.executor!r}{given})"


def limit(
    executor: cf.Executor,
    *,
    concurrency: int | None = None,
    per_second: float | None = None,
    queued: int | None = None,
) -> LimitedExecutor:
    """Return a view of `executor` that lets only so much through; several views share it.

    ``on=limit(pool, concurrency=4)`` bounds what chains do on the pool through this view, and holds up no thread. What
    returns a future, and a coroutine, counts until that is settled; what it waits for does not count beside it.

    Args:
        executor: what runs things in the end.
        concurrency: how many may run at once.
        per_second: how many may start in any second; need not be a whole number.
        queued: how many may wait; a ``submit`` from outside blocks until there is room, one from a stage does not.

    Raises:
        TypeError: if `executor` is none, or a number is none.
        ValueError: if a number is below 1, or `per_second` is not positive.
        RuntimeError: if `executor` is shut down.

    Example:
        >>> polite = limit(pool, concurrency=4, per_second=100)
        >>> polite.submit(pow, 2, 5).then(hex).result()
        '0x20'
    """
    scheduler_of(executor, "executor")
    check_count(concurrency, "concurrency", "limit()")
    check_count(queued, "queued", "limit()")
    if per_second is not None:
        if isinstance(per_second, bool) or not isinstance(per_second, (int, float)):
            raise TypeError(f"limit() wants a number for per_second=, such as per_second=10, not {per_second!r}")
        if not 0 < per_second < math.inf:
            raise ValueError(f"limit() wants per_second= to be positive and finite, not {per_second!r}")
    view = LimitedExecutor(executor, concurrency, per_second, queued)
    view._scheduler.check()
    return view
