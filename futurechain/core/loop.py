"""The loop that settles chains.

`settle` publishes an outcome and `run_dependents` carries it on: it takes the dependents out of the list, runs the
local ones, starts the others on their executors, and goes on with what has been settled by that, in a loop and never
by recursion. The straight chain, where one stage waits for another, is a loop of its own (`_run_straight`); where it
branches, the future stands on ``thread.stack`` until its last dependent has run (`_run_branches`). The branches come
one after the other, each with all that depends on it.

*Ctrl-C.* CPython looks for signals after calls, where functions begin, and at the ends of loops. So the loop looks at a
dependent first and removes that very one then: if the interrupt comes with the removal, it still knows which one. An
interrupt that comes anywhere else leaves what the loop has at hand in ``thread.undone``; that is taken up again at
once (a dependent is told again if that does no harm, else what it stands for fails with the interrupt), the thread
finishes all that it can name, and raises then. The end of the stack (`RecursionError`) is the same but for one thing:
there is no room to go on, so what is undone waits until a loop further out, or the thread's next use of the library,
comes to it. Whatever is done where it is raised calls no function of Python.

The traceback of an exception keeps the frames that were active when it was raised, with their variables. So that a
failed stage is no part of a reference cycle (stage, exception, frame, stage), no function here ends with a variable
that still holds one.
"""

from __future__ import annotations

from contextvars import Context
from types import SimpleNamespace
from typing import Any

from futurechain.core.flatten import PLAIN_VALUES, resolve, upstream
from futurechain.core.handlers import Handler, step_of
from futurechain.core.observers import watch
from futurechain.core.scheduler import Call, Scheduler
from futurechain.core.state import (
    PENDING,
    REPEATABLE,
    TICKET,
    Group,
    Pending,
    State,
    begin,
    claim,
    next_dependent,
    publish,
    source_of,
)
from futurechain.core.thread_state import BROKEN_OFF, DEEPEST, ThreadState, current
from futurechain.core.unobserved import failed, note_unobserved
from futurechain.failure import Failure

__all__ = [
    "HERE",
    "INLINE_KINDS",
    "WAITING_KINDS",
    "InlineDependent",
    "LocalDependent",
    "QueuedDependent",
    "break_off",
    "execute",
    "is_queued_here",
    "leave_handlers",
    "perform",
    "put_off",
    "run_dependents",
    "run_put_off",
    "settle",
    "start_late",
    "take_queued",
    "work_off",
]

INLINE_KINDS: set[type] = set()
"""Kinds of stages that have one function for values and run in the thread that settles their source."""
WAITING_KINDS: set[type] = set()
"""Kinds of dependents that wait for a future without looking how it ended."""
NOBODY: Any = SimpleNamespace(_dependents=[], _outcome=None)
"""In the place of a settled future: nothing depends on it."""
_NOTHING: Any = None


# -- the verbs --------------------------------------------------------------------------------------------------------


def settle(future: Any, outcome: Any) -> None:
    """Publish the outcome of a future that the caller owns, and carry it on to its dependents."""
    try:
        publish(future, outcome)
    except KeyboardInterrupt as interrupt:
        current.thread.note_interrupt(interrupt)
        publish(future, outcome)
    except BROKEN_OFF:  # the end of the stack: it has not happened
        if type(future._outcome) is Pending:
            future._dependents.insert(0, TICKET)
        raise
    try:
        dependents = future._dependents
        if dependents or type(outcome) is Failure or dependents.copy() or not _is_done(current.thread):
            run_dependents(future)
    except KeyboardInterrupt:  # if it came before anything was done; else nothing is left
        run_dependents(future)
        raise
    except BROKEN_OFF:
        current.thread.later.append(future)
        raise
    finally:
        del future, outcome


def _is_done(thread: ThreadState) -> bool:
    """Tell whether nothing is left that waits for the thread to leave its handlers."""
    return not (thread.later or thread.carried is not None or thread.interrupt is not None)


def run_dependents(future: Any) -> None:
    """Run, start or wake what depends on a settled future.

    If this thread is deep in handlers already, its outermost loop does it.
    """
    thread = current.thread
    depth = thread.depth
    if depth >= DEEPEST:
        thread.later.append(future)
        return
    floor = len(thread.stack) if depth else 0
    thread.depth = depth + 1  # no call before `try`: a Ctrl-C after it would leave the depth as it is
    try:
        _run_straight(future, thread)
        if len(thread.stack) > floor:
            _run_branches(thread, floor)
    except BROKEN_OFF as error:
        _finish_interrupted(future, thread, floor, error)
    finally:
        thread.depth = depth
        del future
    if not depth and (thread.later or thread.carried is not None or thread.interrupt is not None):
        leave_handlers(thread)


def execute(future: Any, call: Call, context: Context | None = None) -> None:
    """Run `call` in this thread, unless `future` was cancelled or begun, and settle that with its outcome."""
    if not begin(future):
        return
    thread = current.thread
    depth = thread.depth
    thread.depth = depth + 1
    try:
        outcome = perform(future, call, thread, context)
    except BROKEN_OFF as error:
        outcome = Failure(error)
    finally:
        thread.depth = depth
        call = context = _NOTHING
    try:
        if outcome is not PENDING:
            settle(future, outcome)
        elif not depth:
            leave_handlers(thread)
    finally:
        del future, outcome  # no cycle: a traceback may keep this frame


def start_late(stage: Any, future: Any) -> None:
    """Fire a dependent that came when `future` was settled already; the caller owns it, or it runs on an executor."""
    thread = current.thread
    depth = thread.depth
    floor = len(thread.stack) if depth else 0
    settled = _NOTHING
    thread.depth = depth + 1  # no call before `try`: a Ctrl-C after it would leave the depth as it is
    try:
        settled = stage._fire(future, future._outcome, thread)
        if settled is not None:
            _run_straight(settled, thread)
        if len(thread.stack) > floor:
            _run_branches(thread, floor)
    except BROKEN_OFF as error:
        if settled is None:
            thread.undone.append((future, stage, error))
        _finish_interrupted(settled, thread, floor, error)
    finally:
        thread.depth = depth
        stage = future = settled = _NOTHING
    if not depth and (thread.later or thread.carried is not None or thread.interrupt is not None):
        leave_handlers(thread)


def break_off(future: Any, dependent: Any, error: BaseException) -> None:
    """Go on with a settled `future`: a Ctrl-C has come while `dependent` was told."""
    current.thread.undone.append((future, dependent, error))
    current.thread.note_interrupt(error)
    run_dependents(future)


def _finish_interrupted(settled: Any, thread: ThreadState, floor: int, error: BaseException) -> None:
    """Go on after what broke the library's own code off, until everything at hand is done.

    A Ctrl-C is raised after that. At the end of the stack there is no going on: what is at hand is put off, until the
    stack is shorter.
    """
    while issubclass(type(error), KeyboardInterrupt):
        thread.note_interrupt(error)
        _recover(error, thread)
        try:
            _take_up(thread)
            if settled is not None:
                _run_straight(settled, thread)
            settled = None
            _run_branches(thread, floor)
            return
        except BROKEN_OFF as another:
            error = another
    if settled is not None:
        thread.later.append(settled)
    thread.later.append(NOBODY)  # whoever leaves the handlers, or waits in one, sees that there is something to do
    raise error


def _recover(interrupt: BaseException, thread: ThreadState) -> None:
    """Note as undone what `_run_straight` had at hand when `interrupt` left it.

    A jump back in a loop is covered by no ``except`` from Python 3.12 on: the frame in the traceback still has it.
    """
    trace = interrupt.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is _run_straight.__code__:
            names = trace.tb_frame.f_locals
            if names.get("future") is not None:
                thread.undone.append((names["future"], names.get("child"), interrupt))
        trace = trace.tb_next


def _take_up(thread: ThreadState) -> None:
    """Bring to an end what was broken off; that, too, may be broken off, and is taken up again then."""
    undone = thread.undone
    while undone:
        future, dependent, error = undone[-1]
        if type(future._outcome) is not Pending:
            thread.stack.append(future)  # below what depends on it: the rest of its dependents comes after that
        settled = None if dependent is None else _tell_again(dependent, future, error, thread)
        if settled is not None:
            thread.stack.append(settled)
        undone.remove((future, dependent, error))


def _tell_again(dependent: Any, future: Any, error: BaseException, thread: ThreadState) -> Any:
    """Go on with `dependent`, which was taken out of the list of `future`, and may have been told; it, if settled."""
    if type(dependent) in REPEATABLE:
        dependent._fire(future, future._outcome, thread)
        dependent = getattr(dependent, "target", None)
        return dependent if dependent is not None and dependent.done() else None
    if not issubclass(type(dependent), State):
        again = getattr(dependent, "_broken_off", None)
        return None if again is None else again(error)
    if dependent._on_executor:
        _hand_over(dependent, thread)
        if type(dependent._outcome) is not Pending:  # published, and perhaps not told to its executor; twice is no harm
            dependent._scheduler.unregister(dependent)
    elif dependent._outcome is PENDING and TICKET not in dependent._dependents:  # it is still ours
        publish(dependent, Failure(error))
    return dependent if type(dependent._outcome) is not Pending else None


def _hand_over(stage: Any, thread: ThreadState) -> None:
    """See to it that a stage which was taken out comes to its executor; a thread pool may be given it twice."""
    if TICKET not in stage._dependents or stage is thread.carried:
        return
    if isinstance(source_of(stage), State):
        thread.later.append(stage)
    elif stage._source is None and stage._call is not None:
        stage._scheduler.start(stage, stage._call)


# -- what a thread has put off ----------------------------------------------------------------------------------------


def put_off(stage: Any, source: Any) -> None:
    """Start `stage`, which the caller owns and whose source is settled, when this thread's handler has returned."""
    stage._source = source
    if not stage._on_executor:
        stage._dependents.insert(0, TICKET)
    current.thread.later.append(stage)


def work_off(thread: ThreadState) -> None:
    """Do, or hand to others, whatever this thread has put off: it is about to block."""
    has_more = True
    while has_more:
        if thread.stack or thread.later:
            thread.depth += 1
            try:
                run_put_off(thread)
            finally:
                thread.depth -= 1
        if thread.carried is not None:
            stage, thread.carried = thread.carried, None
            stage._scheduler.start(stage, stage._call)
        has_more = any(start_all() for start_all in tuple(thread.starting))


def take_queued(future: Any, thread: ThreadState) -> None:
    """Run here what `future` waits for, as far as it is still queued on the pool whose worker this thread is."""
    found = True
    while found and not future.done():
        found = False
        for origin in upstream(future):
            for queued in _queued_for(origin, thread):
                found = True
                execute(queued, queued._call, queued._context)
                if future.done():
                    return


def is_queued_here(future: Any, thread: ThreadState) -> bool:
    """Tell whether `future` waits for anything that is still queued on the pool whose worker this thread is."""
    return not future.done() and any(_queued_for(one, thread) for one in upstream(future))


def _queued_for(origin: Any, thread: ThreadState) -> list[Any]:
    """Return what is to be run for `origin`, if that is queued here: itself, or the next step of its coroutine."""
    return [one for one in (origin, step_of(origin)) if one is not None and _is_queued(one, thread)]


def _is_queued(stage: Any, thread: ThreadState) -> bool:
    """Tell whether nobody has begun `stage`; what waits for a future that it returned has a ticket of another kind."""
    on_this_pool = stage._on_executor and stage._scheduler.queue_of(stage) is thread.pool
    return on_this_pool and stage._call is not None and TICKET in stage._dependents


def leave_handlers(thread: ThreadState) -> None:
    """Come out of the outermost handler: do what was put off, then raise an interrupt that was held back."""
    thread.depth = 1
    try:
        _run_all(thread)
    except KeyboardInterrupt as error:
        thread.note_interrupt(error)
        _recover(error, thread)
        _run_all(thread)
    finally:
        thread.depth = 0
    if thread.interrupt is not None:
        interrupt, thread.interrupt = thread.interrupt, None
        raise interrupt


def _run_all(thread: ThreadState) -> None:
    run_put_off(thread)
    while thread.carried is not None:
        stage, thread.carried = thread.carried, None
        _carry_on_with(stage, thread)
        del stage
        run_put_off(thread)


def _carry_on_with(stage: Any, thread: ThreadState) -> None:
    """Run a stage that belongs to the pool whose worker this thread is."""
    if begin(stage):
        outcome = perform(stage, stage._call, thread, stage._context)
        if outcome is not PENDING:
            publish(stage, outcome)
            _run_straight(stage, thread)
    stage = outcome = _NOTHING


def run_put_off(thread: ThreadState) -> None:
    """Do what this thread has put off, but for the stage that it carries on with."""
    future = _NOTHING
    while True:
        try:
            if thread.undone:
                _take_up(thread)
            _run_branches(thread, 0)
            if not thread.later:
                return
            future = thread.later[0]
            thread.later.popleft()
            if type(future._outcome) is Pending:
                future = _fire_late(future, thread)
            if future is not None:
                _run_straight(future, thread)
        except BROKEN_OFF as error:
            if future is not None and type(future._outcome) is not Pending:
                thread.stack.append(future)
            elif future is not None and TICKET in future._dependents and future not in thread.later:
                thread.later.append(future)  # it was not begun
            if not issubclass(type(error), KeyboardInterrupt):
                thread.later.append(NOBODY)
                raise
            thread.note_interrupt(error)
        finally:
            future = _NOTHING


def _fire_late(stage: Any, thread: ThreadState) -> Any:
    """Fire a stage that was put off, unless it was cancelled; it, if that settled it."""
    owned = stage._on_executor
    source = _NOTHING
    try:
        source = source_of(stage)
        owned = owned or claim(stage)
        return stage._fire(source, source._outcome, thread) if owned else None
    except BROKEN_OFF as error:
        if owned and source is not None:
            thread.undone.append((source, stage, error))
        raise
    finally:
        del stage, source


# -- the loop ---------------------------------------------------------------------------------------------------------


def _run_straight(future: Any, thread: ThreadState) -> None:
    """Carry on as long as one inline stage waits for another.

    The fast block: what `InlineDependent.fire` and `publish` do, in place.
    """
    dependents, outcome = future._dependents, future._outcome
    child = _NOTHING
    try:
        while dependents or dependents.copy():  # the copy takes its lock: a look may be older than `outcome`
            try:
                first = dependents[0]
            except IndexError:  # withdrawn just now
                continue
            if type(first) not in INLINE_KINDS or len(dependents) != 1:
                future = _turn(future, thread)
                if future is None:
                    break
                dependents, outcome = future._dependents, future._outcome
                continue
            try:
                dependents.remove(first)  # decides against a cancellation
            except ValueError:
                continue
            except KeyboardInterrupt as interrupt:  # CPython looks for it after the call: `first` is ours
                thread.note_interrupt(interrupt)
            child = first
            if type(outcome) is not Failure:
                try:
                    outcome = child._handler(outcome)
                    if type(outcome) not in PLAIN_VALUES:
                        outcome = resolve(child, outcome)
                        if outcome is PENDING:
                            break
                except BaseException as error:
                    outcome = failed(child, error, thread)
            child._outcome = outcome
            child._handler = child._source = None
            future, dependents = child, child._dependents
        else:
            if type(outcome) is Failure:
                note_unobserved(future, outcome)
    except BROKEN_OFF as error:
        thread.undone.append((future, child, error))  # no call into Python: the stack may be at its end
        raise
    finally:
        future = first = child = dependents = outcome = _NOTHING  # no cycle: a traceback may keep this frame


def _turn(future: Any, thread: ThreadState) -> Any:
    """Fire the first dependent, which is no inline stage, or not the only one; the future to go on with, or None.

    If there are others behind it, `future` stands on the stack before anything is run.
    """
    only = _NOTHING
    try:
        dependents = future._dependents
        if len(dependents) != 1 or type(dependents[0]) is Group:
            thread.stack.append(future)
            return None
        only = next_dependent(dependents, thread)
        if only is None:
            return future
        if dependents:
            thread.stack.append(future)
        settled = only._fire(future, future._outcome, thread)
        return future if type(only) in WAITING_KINDS else settled  # who only waits has not looked
    except IndexError:  # withdrawn just now
        return future
    except BROKEN_OFF as error:
        thread.undone.append((future, only, error))
        raise
    finally:
        future = only = settled = _NOTHING


def _run_branches(thread: ThreadState, floor: int) -> None:
    """Fire the dependents of what stands on the stack above `floor`, the innermost first."""
    stack = thread.stack
    future = held = dependent = settled = dependents = _NOTHING
    try:
        while len(stack) > floor:
            future = stack[-1]
            held = future._dependents[:1]
            dependent = held[0].first() if held and type(held[0]) is Group else None
            if dependent is None and (dependent := next_dependent(future._dependents, thread)) is None:
                stack.pop()
                continue
            settled = dependent._fire(future, future._outcome, thread)
            dependent = None
            if settled is None:
                continue
            dependents = settled._dependents
            if dependents or type(settled._outcome) is Failure or dependents.copy():  # else the branch ends with it
                _run_straight(settled, thread)
    except BROKEN_OFF as error:
        if settled is not None:
            thread.undone.append((settled, None, error))
        if future is not None:
            thread.undone.append((future, dependent, error))
        raise
    finally:
        future = held = dependent = settled = dependents = _NOTHING


# -- the kinds of stages: what `futurechain.future` puts together with the public class -------------------------------


class InlineDependent(State):
    """A stage with one function for values, which runs in the thread that settles its source."""

    __slots__ = ()

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> Any:
        """Run the function for a value; the stage, if that settled it, else None. The caller owns it."""
        stage: Any = self
        try:
            if type(outcome) is not Failure:
                try:
                    outcome = stage._handler(outcome)
                    if type(outcome) not in PLAIN_VALUES and (outcome := resolve(stage, outcome)) is PENDING:
                        return None
                except BaseException as error:
                    outcome = failed(stage, error, thread)
            stage._outcome = outcome
            stage._handler = stage._source = None
            return stage
        finally:
            del self, stage, future, outcome


class LocalDependent(State):
    """Any other stage that runs in the thread that settles its source."""

    __slots__ = ()

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> Any:
        """Do what the handler chooses; the stage, if that settled it, else None. The caller owns it."""
        stage: Any = self
        try:
            call = _select(stage, outcome, thread)
            outcome = outcome if call is None else call if type(call) is Failure else perform(stage, call, thread)
            if outcome is PENDING:
                return None
            publish(stage, outcome)
            return stage
        finally:
            call = _NOTHING
            del self, stage, future, outcome


class QueuedDependent(State):
    """A stage that runs on an executor."""

    __slots__ = ()
    _call: Any
    _context: Any

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> Any:
        """Hand it to its executor, or keep it to be carried on with here; it, if it was settled without that."""
        stage: Any = self
        try:
            call = _select(stage, outcome, thread)
            if type(call) is tuple:
                stage._call, stage._source = call, None
                if stage._scheduler is thread.pool and thread.depth == 1 and thread.carried is None:
                    thread.carried = stage
                    return None
                if watch.on:
                    watch.queued(stage)
                stage._scheduler.start(stage, call)
                return None
            if not claim(stage):
                return None
            publish(stage, outcome if call is None else call)
            return stage
        finally:
            call = _NOTHING
            del self, stage, future, outcome


class InlineScheduler(Scheduler):
    """Runs everything at once, in the thread that asks for it."""

    __slots__ = ()

    def start(self, stage: Any, call: Call) -> None:
        execute(stage, call)


HERE = InlineScheduler("INLINE", is_local=True)
"""The scheduler of chains that no executor began."""


def _watching(anybody: bool) -> None:
    HERE.is_plain = not anybody


watch.switches.append(_watching)
_watching(watch.on)


def _select(stage: Any, outcome: Any, thread: ThreadState) -> Any:
    """Return the call that `stage` makes for `outcome`: a tuple; or None to pass that on; or the failure to choose."""
    handler = stage._handler
    try:
        if issubclass(type(handler), Handler):
            return handler.select(outcome)
        return None if type(outcome) is Failure else (handler, (outcome,), {})
    except BaseException as error:
        return failed(stage, error, thread)
    finally:
        del stage, outcome, handler


def perform(stage: Any, call: Call, thread: ThreadState, context: Context | None = None) -> Any:
    """Call; the outcome, or PENDING if the stage waits for a future now."""
    fn, args, kwargs = call
    if watch.on:
        watch.started(stage, thread)
    try:
        value = fn(*args, **kwargs) if context is None else context.run(fn, *args, **kwargs)
    except BaseException as error:
        if watch.on:
            watch.returned(stage)
        try:
            return failed(stage, error, thread, args[0] if args else None)
        finally:
            stage = call = fn = args = kwargs = context = _NOTHING  # the traceback keeps this frame
    if watch.on:
        watch.returned(stage)
    return value if type(value) in PLAIN_VALUES else resolve(stage, value)
