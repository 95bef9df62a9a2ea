"""Attaching a stage: to a future, or to the end of its chain; and what becomes of one that comes too late.

These are the plain forms; `fast` has what pays in their place. The kinds of stages are public futures, so they are made
in `futurechain.future`, which puts them into `kinds`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, NoReturn

from futurechain.core.flatten import break_ring, pin, resolve
from futurechain.core.handlers import Callbacks, Finally, Handler
from futurechain.core.loop import leave_handlers, put_off, run_dependents, start_late
from futurechain.core.observers import watch
from futurechain.core.scheduler import Scheduler, begin_chain, extend, scheduler_of
from futurechain.core.state import (
    FORWARDED,
    PENDING,
    TICKET,
    Token,
    attach,
    claim,
    detach,
    new_pending,
    publish,
    settle_unowned,
    withdraw,
)
from futurechain.core.thread_state import DEEPEST, ThreadState, current
from futurechain.core.unobserved import failed
from futurechain.errors import CancelledError
from futurechain.failure import Failure

__all__ = [
    "MISSING",
    "append_stage",
    "attach_local",
    "attach_stage",
    "connect",
    "kinds",
    "new_task",
    "plan_clean_up",
    "refuse_task",
    "run_at_once",
    "too_late",
]

MISSING: Any = Token("MISSING")


class Kinds:
    """The classes of stages."""

    inline: type[Any]
    local: type[Any]
    queued: type[Any]
    twisted: type[Any]


kinds: Kinds = Kinds()


# -- the two families -------------------------------------------------------------------------------------------------


def attach_stage(source: Any, handler: Any, executor: Any = None) -> Any:
    """Attach a promise-family stage to `source`, on `executor` or on the chain's own.

    Its `handler` may be a function for values instead.
    """
    scheduler = source._scheduler if executor is None else scheduler_of(executor)
    if scheduler.is_local:
        return attach_local(kinds.local, source, handler, scheduler)
    stage = kinds.queued()
    stage._context = copy_context()
    stage._call = None
    _fill(stage, handler, scheduler)
    try:
        scheduler.register(stage, source)
        shown = scheduler.show(_attach(source, stage))
        if stage._source is not None and stage.done():  # a second look: a pool that cancels what it has knew it before
            stage._source = None
            detach(source, stage)
        return shown
    except BaseException:  # Ctrl-C: nobody gets the stage, and a shutdown must not wait for it
        if settle_unowned(stage, Failure(CancelledError())):
            detach(source, stage)
        raise


def attach_local(kind: type[Any], source: Any, handler: Any, scheduler: Scheduler) -> Any:
    """Attach a promise-family stage of that kind, which runs in the thread that settles `source`."""
    return _attach(source, _fill(kind(), handler, scheduler))


def append_stage(future: Any, handler: Any) -> Any:
    """Attach a Twisted-family stage to the end of the chain of `future`."""
    stage = _fill(kinds.local(), handler, future._scheduler)  # complete: other threads see the end of a chain at once
    end = extend(begin_chain(future), stage)
    if watch.on:
        watch.attached(stage, (end,))
    stage._source = end._as_source()
    return connect(end, stage)


def _fill(stage: Any, handler: Any, scheduler: Scheduler) -> Any:
    stage._handler = handler
    stage._scheduler = scheduler
    stage._source = None
    stage._outcome = PENDING
    own = stage._dependents = [TICKET, None] if stage._on_executor else [None]  # room for one, which is the rule,
    del own[-1]  # in 16 bytes
    return stage


def _attach(source: Any, stage: Any) -> Any:
    stage._source = source._as_source()
    if watch.on:
        watch.attached(stage, (source,))
    return connect(source, stage)


def connect(source: Any, stage: Any) -> Any:
    """Put a stage into the list of its source, or go on with it."""
    try:
        if not attach(source, stage, guarded=False):
            return _start(source, stage)
        if stage._dependents:  # another thread has seen it at the end of the chain before it was attached
            break_ring(stage, source)
        return stage
    finally:
        del source, stage  # no cycle: a traceback may keep this frame


# -- too late ---------------------------------------------------------------------------------------------------------


def too_late(source: Any, stage: Any) -> Any:
    """Go on with an inline stage whose source was no more pending after it was put into the list."""
    try:
        if source._outcome is FORWARDED:
            pin(source)
            return stage
        if not withdraw(source._dependents, stage):  # whoever settles the source has it
            return stage
        return _start(source, stage)
    finally:
        del source, stage  # no cycle: a traceback may keep this frame


def _start(source: Any, stage: Any) -> Any:
    """Start a stage whose source is settled, now or when this thread's handler has returned; the caller owns it."""
    source._observed()
    depth = current.thread.depth
    at_once = stage._on_executor or stage._twisted or type(stage._handler) is Callbacks
    if depth > DEEPEST or (depth and not at_once):
        put_off(stage, source)
    else:
        start_late(stage, source)
    return stage


def run_at_once(scheduler: Any, fn: Any, thread: ThreadState, errors: Any, values: Any = None) -> Any:
    """Return a stage whose function was called when it was attached, and raised, or returned what may be a future.

    Its error or its value comes in a list, which is emptied: our caller's frame may live on in a traceback.
    """
    stage = _fill(kinds.inline(), fn, scheduler)
    thread.depth = 1
    try:
        outcome = failed(stage, errors.pop(), thread) if errors else resolve(stage, values.pop())
        if outcome is not PENDING:
            publish(stage, outcome)
    finally:
        thread.depth = 0
        outcome = None
    try:
        if stage.done():
            run_dependents(stage)
        else:
            leave_handlers(thread)
        return stage
    finally:
        del stage


def plan_clean_up(stage: Any, handler: Handler) -> Callable[[], object] | None:
    """Return what is left to do once `stage`, which has `handler` and is cancelled before its turn, is settled.

    The executor of a ``finally_`` is told of its function now: as long as the stage is pending, its chain has begun
    there, and a pool that is shut down is not over.
    """
    if type(handler) is not Finally:
        return partial(handler.cancelled, stage._scheduler)
    if not handler.turn:
        return None
    before = new_pending(kinds.local, None, stage._scheduler, stage)
    if not stage._on_executor:
        return partial(_clean_up_here, before, handler)
    attach_stage(before, Finally(handler.fn, handler.turn))._context = stage._context
    return partial(_clean_up_there, before)


def _clean_up_here(before: Any, handler: Finally) -> None:
    _end_quietly(before)
    attach_stage(before, Finally(handler.fn, handler.turn))


def _clean_up_there(before: Any) -> None:
    _end_quietly(before)
    run_dependents(before)


def _end_quietly(before: Any) -> None:
    """Settle a future that nobody watches."""
    if claim(before):
        before._source = before._outcome = None


# -- tasks ------------------------------------------------------------------------------------------------------------


def new_task(kind: type[Any], fn: Any, scheduler: Scheduler) -> Any:
    """Return the future of a submitted function.

    Raises:
        TypeError: if `fn` is missing or not callable.
    """
    if not callable(fn):
        refuse_task(fn)
    task = new_pending(kind, None, scheduler)
    if watch.on:
        task._handler = fn  # for its name
        watch.attached(task, ())
        task._handler = None
    return task


def refuse_task(fn: Any) -> NoReturn:
    """Raise: `fn` cannot be submitted."""
    given = "nothing" if fn is MISSING else repr(fn)
    raise TypeError(f"submit() wants a function, as in submit(fn, *args, **kwargs), not {given}")
