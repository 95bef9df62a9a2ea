"""The loop that settles chains.

`settle` publishes an outcome and `carry_on` carries it on: it takes the dependents out of the list, runs the local
ones, starts the others on their executors, and goes on with what has been settled by that, in a loop and never by
recursion. The straight chain, where one stage waits for another, is a loop of its own (`_straight_on`); where it
branches, the future stands on ``run.stack`` until its last dependent has run (`_branch_out`). The branches come one
after the other, each with all that depends on it.

The traceback of an exception keeps the frames that were active when it was raised, with their variables. So that a
failed stage is no part of a reference cycle (stage, exception, frame, stage), no function here ends with a variable
that still holds one.
"""

from __future__ import annotations

from typing import Any

from futurechain.core import unobserved as report
from futurechain.core.flatten import PLAIN_VALUES, resolve
from futurechain.core.scheduler import Call
from futurechain.failure import Failure
from futurechain.core.state import PENDING, PLAIN, TICKET, Bell, Group, Pending, Waiter, claim, next_entry, parent_of
from futurechain.core.outcomes import failed, publish
from futurechain.core.handlers import Plan
from futurechain.core.thread_state import DEEPEST, Run, here
from futurechain.core.stdlib import StandardFuture
from futurechain.core.observers import watch

__all__ = ["carry_on", "execute", "flush", "leave", "put_off", "settle", "start", "take_queued"]

_NOTHING: Any = None


# -- where threads come in ------------------------------------------------------------------------------------------


def settle(future: Any, outcome: Any) -> None:
    """Publish the outcome of a future that the caller owns, and carry it on to its dependents."""
    publish(future, outcome)
    try:
        carry_on(future)
    finally:
        del future, outcome


def carry_on(future: Any) -> None:
    """Run, start or wake what depends on a settled future.

    If this thread is deep in handlers already, its outermost loop does it.
    """
    run = here.run
    depth = run.depth
    if depth >= DEEPEST:
        run.later.append(future)
        return
    run.depth = depth + 1
    floor = len(run.stack) if depth else 0
    try:
        _straight_on(future, run)
        if len(run.stack) > floor:
            _branch_out(run, floor)
    finally:
        run.depth = depth
        del future
    if not depth and (run.later or run.carried is not None or run.interrupt is not None):
        leave(run)


def execute(future: Any, call: Call, context: Any = None) -> None:
    """Run `call` in this thread, unless `future` was cancelled, and settle that with its outcome."""
    if not claim(future):
        return
    run = here.run
    depth = run.depth
    run.depth = depth + 1
    try:
        outcome = perform(future, call, run, context)
    finally:
        run.depth = depth
        call = context = _NOTHING
    try:
        if outcome is not PENDING:
            settle(future, outcome)
        elif not depth:
            leave(run)
    finally:
        del future, outcome  # no cycle: a traceback may keep this frame


def start(stage: Any, future: Any) -> None:
    """Fire a dependent that came when `future` was settled already; the caller owns it, or it is a hop."""
    run = here.run
    depth = run.depth
    run.depth = depth + 1
    floor = len(run.stack) if depth else 0
    try:
        settled = _fire(stage, future, run)
        if settled is not None:
            _straight_on(settled, run)
        if len(run.stack) > floor:
            _branch_out(run, floor)
    finally:
        run.depth = depth
        stage = future = settled = None
    if not depth and (run.later or run.carried is not None or run.interrupt is not None):
        leave(run)


def put_off(stage: Any, parent: Any) -> None:
    """Start `stage`, which the caller owns and whose parent is settled, when this thread's handler has returned."""
    stage._parent = parent
    if not stage._hops:
        stage._link.insert(0, TICKET)
    here.run.later.append(stage)


def flush(run: Run) -> None:
    """Do, or hand to others, whatever this thread has put off: it is about to block."""
    if run.stack or run.later:
        run.depth += 1
        try:
            _work_off(run)
        finally:
            run.depth -= 1
    if run.carried is not None:
        hop, run.carried = run.carried, None
        hop._home.home.start(hop, hop._call)


def take_queued(future: Any, run: Run) -> None:
    """Run here what `future` waits for, if it is still queued on the pool whose worker this thread is."""
    while run.pool is not None and not future.done():
        source = future
        while isinstance(parent := parent_of(source), StandardFuture):
            source = parent
        if not (source._hops and source._home.home is run.pool and source._call and TICKET in source._link):
            return
        execute(source, source._call, source._context)


def leave(run: Run) -> None:
    """Come out of the outermost handler: do what was put off, then raise an interrupt that was held back."""
    run.depth = 1
    try:
        _work_off(run)
        while run.carried is not None:
            hop, run.carried = run.carried, None
            if claim(hop):
                outcome = perform(hop, hop._call, run, hop._context)
                if outcome is not PENDING:
                    publish(hop, outcome)
                    _straight_on(hop, run)
                del outcome
            del hop
            _work_off(run)
    finally:
        run.depth = 0
    if run.interrupt is not None:
        interrupt, run.interrupt = run.interrupt, None
        raise interrupt


# -- the loop -------------------------------------------------------------------------------------------------------


def _straight_on(future: Any, run: Run) -> None:
    """Carry on as long as one plain stage waits for another; the hot path: what `_plain` and `publish` do, in place."""
    link, outcome = future._link, future._outcome
    while link or link.copy():  # the copy takes the list's lock: a plain look might be older than our outcome
        try:
            child = link.pop(0)  # decides against a cancellation
        except IndexError:
            continue
        if link or type(child) not in PLAIN:
            future = _turn(future, child, run)
            if future is None:
                break
            link, outcome = future._link, future._outcome
            continue
        if type(outcome) is not Failure:
            try:
                outcome = child._fn(outcome)
                if type(outcome) not in PLAIN_VALUES:
                    outcome = resolve(child, outcome)
                    if outcome is PENDING:
                        break
            except BaseException as error:
                outcome = failed(child, error, run)
        child._outcome = outcome
        child._fn = child._parent = None
        future, link = child, child._link
    else:
        if type(outcome) is Failure:
            report.unheard(future, outcome)
    future = child = link = outcome = _NOTHING  # no cycle: a traceback may keep this frame


def _turn(future: Any, entry: Any, run: Run) -> Any:
    """Fire an entry that is no plain stage, or not the only one; the future to go on with, or None.

    If there are others behind it, `future` stands on the stack before anything is run.
    """
    try:
        if type(entry) is Bell:
            run.notify(future, entry)
            return future  # who only waits has not looked
        if type(entry) is Group:
            future._link.insert(0, entry)
        if future._link:
            run.stack.append(future)
        return None if type(entry) is Group else _fire(entry, future, run)
    finally:
        del future, entry


def _branch_out(run: Run, floor: int) -> None:
    """Fire the dependents of what stands on the stack above `floor`, the innermost first."""
    stack = run.stack
    while len(stack) > floor:
        future = stack[-1]
        entry = next_entry(future._link)
        if entry is None:
            stack.pop()
            continue
        settled = _plain(entry, future._outcome, run) if type(entry) in PLAIN else _fire(entry, future, run)
        if settled is not None:
            _straight_on(settled, run)
    future = entry = settled = _NOTHING


def _work_off(run: Run) -> None:
    """Do what this thread has put off, but for the stage that it carries on with."""
    _branch_out(run, 0)
    while run.later:
        future = run.later.popleft()
        if type(future._outcome) is Pending:
            parent = parent_of(future)
            future = _fire(future, parent, run) if future._hops or claim(future) else None
        if future is not None:
            _straight_on(future, run)
        _branch_out(run, 0)
    future = parent = _NOTHING


def _fire(entry: Any, future: Any, run: Run) -> Any:
    """Tell one dependent, which is taken out of the list, that `future` is settled; what is settled by that, or None."""
    try:
        kind = type(entry)
        if kind in PLAIN:
            return _plain(entry, future._outcome, run)
        if not issubclass(kind, StandardFuture):
            return run.notify(future, entry)
        return _hop(entry, future._outcome, run) if entry._hops else _local(entry, future._outcome, run)
    finally:
        del entry, future


def _plain(stage: Any, outcome: Any, run: Run) -> Any:
    """Run a stage with one function for values, which the caller owns; it, if that settled it, else None."""
    try:
        if type(outcome) is not Failure:
            try:
                outcome = stage._fn(outcome)
                if type(outcome) not in PLAIN_VALUES and (outcome := resolve(stage, outcome)) is PENDING:
                    return None
            except BaseException as error:
                outcome = failed(stage, error, run)
        stage._outcome = outcome
        stage._fn = stage._parent = None
        return stage
    finally:
        del stage, outcome


def _local(stage: Any, outcome: Any, run: Run) -> Any:
    """Run any local stage, which the caller owns; it, if that settled it, else None."""
    try:
        call = select(stage, outcome)
        outcome = outcome if call is None else call if type(call) is Failure else perform(stage, call, run)
        if outcome is PENDING:
            return None
        publish(stage, outcome)
        return stage
    finally:
        stage = outcome = call = _NOTHING


def _hop(hop: Any, outcome: Any, run: Run) -> Any:
    """Hand a stage to its executor, or carry on with it here later; it, if it has been settled without a hop."""
    try:
        call = select(hop, outcome)
        if type(call) is tuple:
            hop._call, hop._parent = call, None
            if hop._home.home is run.pool and run.depth == 1 and run.carried is None:
                run.carried = hop
                return None
            if watch.on:
                watch.queued(hop)
            hop._home.home.start(hop, call)
            return None
        if not claim(hop):
            return None
        publish(hop, outcome if call is None else call)
        return hop
    finally:
        hop = outcome = call = _NOTHING


def select(stage: Any, outcome: Any) -> Any:
    """Return the call that `stage` makes for `outcome`: a tuple; or None to pass that on; or the failure to choose."""
    fn = stage._fn
    try:
        if issubclass(type(fn), Plan):
            return fn.select(outcome)
        return None if type(outcome) is Failure else (fn, (outcome,), {})
    except BaseException as error:
        return failed(stage, error, here.run)
    finally:
        del stage, outcome, fn


def perform(stage: Any, call: Call, run: Run, context: Any = None) -> Any:
    """Call; the outcome, or PENDING if the stage waits for a future now."""
    fn, args, kwargs = call
    if watch.on:
        watch.started(stage, run)
    try:
        value = fn(*args, **kwargs) if context is None else context.run(fn, *args, **kwargs)
    except BaseException as error:
        if watch.on:
            watch.returned(stage)
        try:
            return failed(stage, error, run, args[0] if args else None)
        finally:
            stage = call = fn = args = kwargs = context = _NOTHING  # the traceback keeps this frame
    if watch.on:
        watch.returned(stage)
    return value if type(value) in PLAIN_VALUES else resolve(stage, value)
