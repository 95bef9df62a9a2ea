"""What the schedulers of all pools share: whose work it is, who may still bring some, and when all is over.

Theory of operation
-------------------
``pending`` holds every task and stage that is still to be settled on this pool, submitted or not.
A shutdown waits for it, so whole chains end. Three flags, each of which goes up once:

* ``closing``: outside work is refused. Set by a shutdown, by the end of the interpreter, when the executor is
  collected.
* ``over``: nothing is left, and nobody may bring anything any more: the workers go.
* ``ended``: an event for those who wait for that.

*Brought, or too late?* Whoever brings work puts it into ``pending`` **first** and looks at the flags **then**; whoever
ends the pool raises ``over`` **first** and looks at ``pending`` **then**, and takes the flag back if something came
in. Each of the two is one operation on a dict or one store, so whatever the schedule, either the work is refused or the
pool goes on.

*Inside work* is taken until it is over: what is attached to an unsettled future of a chain that has begun here, and
what is submitted or attached in a thread that is ``within`` the pool: that runs a task, a handler or a coroutine's
step of such a chain. A worker always is; so is a callback thread that works for the pool; and any other thread that
settles a stage of a closing pool, until it has carried that on (`_stay`). The end of the interpreter is one shutdown
for all pools: then, within any of them is within all.

Chains hold the scheduler, never the executor; so a chain keeps no executor alive, but for one that is collected its
scheduler still ends what was begun.
"""

from __future__ import annotations

import concurrent.futures.thread as standard
import itertools
import os
import threading
import types
import weakref
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

from futurechain.core import callback_threads
from futurechain.core.delivery import is_owned
from futurechain.core.flatten import upstream
from futurechain.core.handlers import Catch, Finally, Handler, Then, label
from futurechain.core.loop import settle
from futurechain.core.scheduler import Call, Scheduler
from futurechain.core.state import claim, has_dependents, publish
from futurechain.core.thread_state import ThreadState, current
from futurechain.core.unobserved import annotate
from futurechain.errors import ExecutorShutdownError
from futurechain.failure import Failure
from futurechain.future import Future

__all__ = [
    "PoolScheduler",
    "all_pools",
    "check_stage_travels",
    "check_travels",
    "fail",
    "handled_by",
    "handles_failure",
    "new_name",
    "refusal",
    "refuse",
]

_HELD = 0
"""The key in ``pending`` under which the end of the interpreter keeps a pool from being over: no object's identity."""
_schedulers: weakref.WeakSet[PoolScheduler] = weakref.WeakSet()
_numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


class PoolScheduler(Scheduler):
    """Starts calls on one pool, and knows what is still to be settled there.

    A pool's own scheduler defines `start`, `is_working` and `finish`, and calls `end_if_over` when a worker, or
    whatever else `is_working` speaks of, has come to rest.
    """

    __slots__ = ("closing", "ended", "over", "pending", "shut")
    starts_anywhere = False
    """Whether `start` may be called on a thread that serves everybody, since it does nothing but queue."""
    is_helped = False
    """Whether the main thread runs what is queued if no thread can be started: while the interpreter ends."""
    is_awaited = True
    """Whether the end of the interpreter waits for what is under way here."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.pending: dict[int, Any] = {}
        self.closing: bool = standard._shutdown
        self.over: bool = standard._shutdown
        self.shut: bool = False
        """Whether somebody has shut it down, and not just the end of the interpreter."""
        self.ended: threading.Event = threading.Event()
        _schedulers.add(self)

    # -- what a pool defines --------------------------------------------------------------------------------------

    def is_working(self) -> bool:
        """Tell whether something is queued or being run here, or has been run and is still being carried on."""
        raise NotImplementedError  # pragma: no cover

    def is_moving(self) -> bool:
        """Tell whether something is under way that the end of the interpreter waits for."""
        return self.is_working()

    def help(self) -> None:
        """Run in this thread, the main one, what is queued, if nobody else can: the interpreter ends."""

    def finish(self) -> None:
        """Let the workers go: it is over."""

    # -- whose work it is -----------------------------------------------------------------------------------------

    def register(self, stage: Any, source: Any = None) -> None:
        """Note that `stage`, attached to `source`, will want to run here; outside work is refused when its turn comes.

        (Not before: an error that comes first passes through without being run anywhere.)
        """
        self.pending[id(stage)] = stage
        if self.closing:
            self.let_in(stage, source)

    def let_in(self, stage: Any, source: Any = None) -> bool:
        """Take back that `stage` was noted, after the closing, if it comes from outside; whether it may stay."""
        if self._is_inside(source):
            return True
        self.pending.pop(id(stage), None)
        self.end_if_over()
        return False

    def unregister(self, stage: Any) -> None:
        """Note that `stage` is settled."""
        if self.closing:
            try:
                self._stay_for(stage)
            finally:
                self.pending.pop(id(stage), None)
                self.end_if_over()
        else:
            self.pending.pop(id(stage), None)
            if self.closing:  # it was closed in between, and perhaps by somebody who has seen the stage
                self.end_if_over()

    def _stay_for(self, stage: Any) -> None:
        """Let this thread be within the pool until it has carried `stage` on, which it has settled.

        What was refused is not of the pool; and where nothing is to be carried on, nobody might look at the stay.
        """
        thread = current.thread
        known = id(stage) in self.pending and has_dependents(stage)
        if known and thread.within is None and not callback_threads.is_reserved():
            self._stay(thread)

    def _stay(self, thread: ThreadState) -> None:
        stay = Future[None]()
        stay.add_done_callback(partial(self._leave, thread))
        if claim(stay):
            try:
                self.pending[id(stay)] = None
                thread.within = self
                publish(stay, None)
                thread.later.append(stay)
            except BaseException:  # Ctrl-C: nobody will hear of it
                self.pending.pop(id(stay), None)
                thread.within = None
                raise

    def _leave(self, thread: ThreadState, stay: Any) -> None:
        try:
            thread.within = None
            if thread.later:  # what was put off meanwhile may be of the same chain
                self._stay(thread)
        finally:
            self.pending.pop(id(stay), None)
            self.end_if_over()

    def is_registered(self, stage: Any) -> bool:
        """Tell whether `stage` was taken, and is not settled."""
        return id(stage) in self.pending

    def admit(self, task: Any) -> None:
        """Note a task that is submitted.

        Raises:
            RuntimeError: if it is refused.
        """
        self.register(task)
        if id(task) not in self.pending:
            raise self.too_late()

    def too_late(self) -> RuntimeError:
        """Return the error of a task that comes too late."""
        return RuntimeError(f"cannot schedule new futures after {self._closed_by()}")

    def _closed_by(self) -> str:
        return f"shutdown of {self.name}" if self.shut else "interpreter shutdown"

    def _is_inside(self, source: Any) -> bool:
        thread = current.thread
        if self.over:
            return False
        if thread.within is self or (not self.shut and (thread.within is not None or thread.depth)):
            return True
        if source is not None and any(id(one) in self.pending for one in upstream(source)):
            return True
        return bool(thread.depth) and self._awaits_a_handler()

    def _awaits_a_handler(self) -> bool:
        """Tell whether a handler is running somewhere for which a stage here waits: that of a retry, for example."""
        return any(is_owned(one) for stage in self.unsettled() for one in upstream(stage) if one is not stage)

    # -- ending ---------------------------------------------------------------------------------------------------

    def close(self, *, cancel_futures: bool = False) -> None:
        """Take no more outside work; with `cancel_futures`, cancel what has not begun.

        It may well be over at once.
        """
        self.shut = self.closing = True
        if cancel_futures:
            self.cancel_pending()
        self.pending.pop(_HELD, None)
        self.end_if_over()

    def cancel_pending(self) -> None:
        """Cancel what has not begun."""
        for stage in self.unsettled():
            stage.cancel()

    def unsettled(self) -> list[Any]:
        """Return the tasks and stages that are still to be settled here."""
        return [stage for stage in tuple(self.pending.values()) if stage is not None]

    def wait(self) -> None:
        """Block until it is over; not in a thread that works for it, which would wait for itself."""
        if current.thread.within is not self:
            self.ended.wait()

    def end_if_over(self) -> None:
        """Let the workers go if nothing is left, and nobody can bring anything any more."""
        if not self.closing or self.pending or self.is_working():
            return
        self.over = True
        if self.pending or self.is_working():  # brought between the two looks: the bringer may have been told to go on
            self.over = False
            return
        self.finish()
        self.ended.set()

    def hold(self) -> None:
        """Take no more outside work, but be not over yet, since chains elsewhere may still lead here."""
        if not self.closing:
            self.pending[_HELD] = None
            self.closing = True
            if self.shut:  # by somebody, just now
                self.pending.pop(_HELD, None)
                self.end_if_over()

    def stop(self) -> None:
        """Be over, whatever is left: the interpreter ends."""
        self.pending.pop(_HELD, None)
        self.closing = self.over = True
        self.finish()
        self.ended.set()

    def forget(self) -> None:
        """Begin anew, in a forked child, which has none of the threads that could bring anything to an end."""
        self.pending.clear()
        self.closing = self.shut
        self.over = False
        self.ended = threading.Event()


def new_name(kind: str) -> str:
    """Return the name of another pool of that kind, ours or not: no two have the same."""
    return f"{kind}-{next(_numbers[kind])}"


def all_pools() -> tuple[PoolScheduler, ...]:
    """Return the schedulers of all pools that are in use."""
    return tuple(_schedulers)


# -- what cannot run on a pool ------------------------------------------------------------------------------------

_COROUTINE = 0x80
"""The flag of an ``async def`` function's code; `inspect`, which says so, costs more to import than this package."""


def check_travels(fn: Any, scheduler: Scheduler, where: str) -> None:
    """Refuse an ``async def`` function on an executor that does not share our memory: its coroutine cannot come back.

    Raises:
        TypeError: if it is one.
    """
    if _is_async(fn) and not scheduler.takes_closures():
        raise TypeError(
            f"{where} cannot run the async def function {label(fn)} on {scheduler.name}, which does not share our "
            "memory: give it on=INLINE or a thread pool"
        )


def _is_async(fn: Any) -> bool:
    while type(fn) in (partial, types.MethodType):
        fn = getattr(fn, "func", None) or fn.__func__
    return type(fn) is types.FunctionType and bool(fn.__code__.co_flags & _COROUTINE)


def check_stage_travels(stage: Any, scheduler: Scheduler) -> None:
    """Do the same for the function of `stage` that would run on the executor."""
    handler = stage._handler
    if type(handler) is Then:
        check_travels(handler.on_result, scheduler, "then()")
    elif handler is not None and not issubclass(type(handler), Handler):
        check_travels(handler, scheduler, "then()")


# -- stages that a pool fails, and those that handle a failure ----------------------------------------------------


def refusal(name: str) -> str:
    """Return the message of a refused stage, with the remedy."""
    return (
        f"cannot schedule new futures after shutdown of {name}; "
        "go on with on=INLINE, or on= an executor that is still open"
    )


def handles_failure(stage: Any, call: Call) -> bool:
    """Tell whether `call` handles an error of the stage before, or cleans up."""
    handler = stage._handler
    if type(handler) is Then:
        return handler.on_error is call[0] and issubclass(type(call[1][0]), BaseException)
    return type(handler) in (Catch, Finally)


def handled_by(stage: Any, call: Call) -> BaseException | None:
    """Return the exception that `call` was to handle, if there is one."""
    handler = stage._handler
    if type(handler) is Finally:
        return handler.kept.value if type(handler.kept) is Failure else None
    return call[1][0] if handles_failure(stage, call) else None


def fail(stage: Any, error: BaseException, call: Call | None = None) -> None:
    """Fail `stage`, unless it is settled: with a note of its name, and what `call` was to handle as the context.

    Its dependents run in this thread, or on a callback thread if this one serves everybody.
    """
    if not claim(stage):
        return
    before = None if call is None else handled_by(stage, call)
    if before is not None and before is not error and error.__context__ is None:
        error.__context__ = before
    annotate(error, stage)
    callback_threads.run(partial(settle, stage, Failure(error)))


def refuse(stage: Any, scheduler: PoolScheduler, call: Call | None = None) -> None:
    """Fail `stage`: its executor takes no more."""
    fail(stage, ExecutorShutdownError(refusal(scheduler.name)), call)


def _after_fork() -> None:
    for scheduler in all_pools():
        scheduler.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
