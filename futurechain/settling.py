"""The loop that settles chains.

`settle` publishes an outcome and `carry_on` carries it on: it takes the dependents out of the link, runs the local
ones, starts the others on their executors, and goes on with what has been settled by that, in a loop and never by
recursion.

The traceback of an exception keeps the frames that were active when it was raised, with their variables. So that a
failed stage is no part of a reference cycle (stage, exception, frame, stage), no function here ends with a variable
that still holds one.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from futurechain import report
from futurechain.adoption import PLAIN_VALUES, resolve
from futurechain.dispatch import Call
from futurechain.failure import Failure
from futurechain.links import PENDING, PLAIN, UNCLAIMED, Bell, claim, entries
from futurechain.outcomes import failed, publish
from futurechain.plans import Plan
from futurechain.run import DEEPEST, Run, here
from futurechain.standard import StandardFuture
from futurechain.watching import watch

__all__ = ["carry_on", "execute", "follow", "perform", "settle", "start"]


_NOTHING: Any = None


def settle(future: Any, outcome: Any) -> None:
    """Publish the outcome of a future that the caller has claimed, and carry it on to its dependents."""
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
        run.queue.append(future._carry_on)
        return
    run.depth = depth + 1
    try:
        todo: list[Any] = []
        _straight_on(future, run, todo)
        if todo:
            _follow_all(todo, run)
    finally:
        run.depth = depth
        del future
    if not depth and (run.queue or run.interrupt is not None):
        run.leave()


def execute(future: Any, call: Call, context: Any = None) -> None:
    """Run `call` in this thread, unless `future` was cancelled, and settle that with its outcome."""
    if not claim(future):
        return
    run = here.run
    run.depth += 1
    try:
        outcome = perform(future, call, run, context)
        if outcome is not PENDING:
            publish(future, outcome)
            follow(future, run)
        del outcome  # no cycle: a traceback may keep this frame
    finally:
        run.depth -= 1
        del future, call
    if not run.depth:
        run.leave()


def follow(future: Any, run: Run) -> None:
    """Carry the outcome of `future` on, through everything that can run in this thread."""
    todo: list[Any] = []
    _straight_on(future, run, todo)
    future = None  # no cycle: a traceback may keep this frame
    if todo:
        _follow_all(todo, run)


def _follow_all(todo: list[Any], run: Run) -> None:
    """Do so for each of `todo`, and for what is settled by that."""
    waiting = deque(todo)
    run.settled.append(waiting)
    try:
        while waiting:
            todo.clear()
            _straight_on(waiting.popleft(), run, todo)
            waiting.extend(todo)
    finally:
        run.settled.pop()


def _straight_on(future: Any, run: Run, todo: list[Any]) -> None:
    """Carry on as long as one plain stage waits for another.

    What is settled besides goes to `todo`. This is the hot path: what `entries`, `_local` and `publish` do, in place.
    """
    link, outcome = future._link, future._outcome
    child = _NOTHING
    while link is not None:
        if len(link) == 1:
            try:
                child = link.pop(0)
            except IndexError:  # it was cancelled just now
                continue
            if type(child) not in PLAIN:
                future = _other(future, child, run, todo)
                if future is None:
                    break
                link, outcome = future._link, future._outcome
                continue
            own = child._link
            try:
                own.remove(UNCLAIMED)  # decides against a cancellation
            except (ValueError, AttributeError):
                outcome = PENDING
            else:
                if type(outcome) is not Failure:
                    try:
                        outcome = child._fn(outcome)  # pyright: ignore[reportOptionalCall]
                        if type(outcome) not in PLAIN_VALUES:
                            outcome = resolve(child, outcome)
                            own = child._link
                    except BaseException as error:
                        outcome = failed(child, error, run)
            future._link = None
            if link:  # somebody came in before that: open it again, and come back to it
                future._link = link
                todo.append(future)
            if outcome is PENDING:
                break
            child._outcome = outcome
            child._fn = child._parent = None
            future, link = child, own
        elif link:
            _branch(future, None, run, todo)
            break
        else:
            future._link = None
            if not link:
                if type(outcome) is Failure:
                    report.unheard(future, outcome)
                break
            future._link = link  # somebody came in between the two lines above: open it again
    future = child = link = own = outcome = _NOTHING  # no cycle: a traceback may keep this frame


def _other(future: Any, entry: Any, run: Run, todo: list[Any]) -> Any:
    """Fire the only dependent of `future`, which is no plain stage; the stage to go on with, or None."""
    link = future._link
    try:
        if not isinstance(entry, StandardFuture):
            if isinstance(entry, dict) or type(entry) is Bell:
                _branch(future, entry, run, todo)
                return None
            settled = run.notify(future, entry)
            if settled is not None:
                todo.append(settled)
            future._link = None
            if link:  # somebody came in before that: open it again
                future._link = link
                _branch(future, None, run, todo)
            return None
        if not _runs_here(entry, run):
            _branch(future, entry, run, todo)
            return None
        if entry._hops:
            settled = _hop(entry, future, run, carry=True)
        else:
            settled = (_watched if entry._watched else _local)(entry, future._outcome, run)
        future._link = None
        if link:
            future._link = link
            todo.append(future)
        return settled
    finally:
        future = entry = settled = _NOTHING


def _plain(stage: Any, outcome: Any, run: Run) -> Any:
    """Run a plain stage in this thread; itself if that settled it and something depends on it, else None."""
    link = stage._link
    try:
        link.remove(UNCLAIMED)
    except (ValueError, AttributeError):  # it was cancelled
        return None
    try:
        if type(outcome) is not Failure:
            try:
                outcome = stage._fn(outcome)
                if type(outcome) not in PLAIN_VALUES:
                    outcome, link = resolve(stage, outcome), stage._link
                    if outcome is PENDING:
                        return None
            except BaseException as error:
                outcome = failed(stage, error, run)
        stage._outcome = outcome
        stage._fn = stage._parent = None
        if link:
            return stage
        stage._link = None
        if link:  # somebody came in between: open it again
            stage._link = link
            return stage
        if type(outcome) is Failure:
            report.unheard(stage, outcome)
        return None
    finally:
        del stage, outcome


def _runs_here(stage: Any, run: Run) -> bool:
    """Tell whether this thread may run `stage`: if that is local, or is on the pool whose worker this is."""
    return not stage._hops or (run.depth == 1 and stage._home.home is run.pool)


def _branch(future: Any, first: Any, run: Run, todo: list[Any]) -> None:
    """Fire the dependents of `future`, `first` first; what is settled by that goes to `todo`.

    Of the stages on the pool whose worker this thread is, one is carried on with here, after the others have been
    handed to the pool.
    """
    carried, alone, outcome = None, True, future._outcome
    run.settled.append(todo)  # a handler that waits for one of these must find them
    for entry in entries(future, first):
        alone = alone and type(entry) is Bell
        if type(entry) in PLAIN:
            if (settled := _plain(entry, outcome, run)) is not None:
                todo.append(settled)
        elif carried is None and getattr(entry, "_hops", False) and _runs_here(entry, run):
            carried = entry
        elif (settled := _fire(entry, future, run)) is not None:
            todo.append(settled)
    if carried is not None and (settled := _hop(carried, future, run, carry=True)) is not None:
        todo.append(settled)
    run.settled.pop()
    if alone and type(future._outcome) is Failure:
        report.unheard(future, future._outcome)
    first = entry = carried = settled = future = outcome = None


def _fire(entry: Any, future: Any, run: Run) -> Any:
    """Tell one dependent that `future` is settled; the stage that is settled by that, or None."""
    try:
        if not issubclass(type(entry), StandardFuture):
            return run.notify(future, entry)
        return _hop(entry, future, run) if entry._hops else _local(entry, future._outcome, run)
    finally:
        del entry, future


def start(entry: Any, future: Any) -> None:
    """Fire a dependent that came when `future` was settled already."""
    run = here.run
    future._heard()
    run.depth += 1
    try:
        settled = _fire(entry, future, run)
        if settled is not None:
            follow(settled, run)
    finally:
        run.depth -= 1
        entry = future = settled = None
    if not run.depth and (run.queue or run.interrupt is not None):
        run.leave()


def _local(stage: Any, outcome: Any, run: Run) -> Any:
    """Run a stage in this thread; itself if that settled it, else None."""
    if not claim(stage):
        return None
    try:
        outcome = _call_locally(stage, outcome, run)
        if outcome is PENDING:
            return None
        publish(stage, outcome)
        return stage
    finally:
        del stage, outcome


def _call_locally(stage: Any, outcome: Any, run: Run) -> Any:
    try:
        plan = stage._fn
        call = plan.select(outcome) if issubclass(type(plan), Plan) else _plain_call(plan, outcome)
        return outcome if call is None else perform(stage, call, run)
    except BaseException as error:
        return failed(stage, error, run)
    finally:
        stage = outcome = call = None


def _watched(stage: Any, outcome: Any, run: Run) -> Any:
    """Do what `_straight_on` does with a plain stage, for one that is watched."""
    if not claim(stage):
        return None
    try:
        if type(outcome) is not Failure:
            watch.started(stage, run)
            try:
                outcome = stage._fn(outcome)
            except BaseException as error:
                outcome = failed(stage, error, run)
            watch.returned(stage)
            if type(outcome) not in PLAIN_VALUES and (outcome := resolve(stage, outcome)) is PENDING:
                return None
        stage._outcome = outcome
        stage._fn = stage._parent = None
        watch.settled(stage, outcome)
        return stage
    finally:
        del stage, outcome


def _plain_call(fn: Any, outcome: Any) -> Call | None:
    return None if type(outcome) is Failure else (fn, (outcome,), {})


def _hop(hop: Any, future: Any, run: Run, *, carry: bool = False) -> Any:
    """Hand a stage to its executor, or carry on with it here; itself if that settled it, else None."""
    outcome = future._outcome
    try:
        fn = hop._fn
        call = fn.select(outcome) if issubclass(type(fn), Plan) else _plain_call(fn, outcome)
    except BaseException as error:
        outcome, call = failed(hop, error, run), None
    if call is not None and not carry:
        hop._parent = None
        if watch.on:
            watch.queued(hop)
        hop._home.home.start(hop, call)
        return None
    if not claim(hop):
        return None
    try:
        if call is not None:
            outcome = perform(hop, call, run, hop._context)
        if outcome is PENDING:
            return None
        publish(hop, outcome)
        return hop
    finally:
        del hop, future, outcome, call


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

