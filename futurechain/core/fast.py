"""What pays in place of the plain form: each function here does what its docstring names, sooner.

The plain form stands where it belongs, and the tests run the same programs through both. Stages that are watched take
the plain form: `Scheduler.is_plain` and ``watch.on`` select it. The other fast block is the loop over inline stages,
`loop._run_straight`.

The classes of futures come from `futurechain.future`, by way of `use`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import ref

from futurechain.core.attaching import append_stage, attach_stage, connect, run_at_once, too_late
from futurechain.core.flatten import PLAIN_VALUES, break_ring
from futurechain.core.handlers import Callbacks, Then, check_handler
from futurechain.core.loop import HERE, break_off, run_dependents, settle
from futurechain.core.observers import watch
from futurechain.core.scheduler import Tail, begin_chain, find_predecessor, tidy
from futurechain.core.state import PENDING, TICKET, Group, Pending, attach, withdraw
from futurechain.core.stdlib import StandardFuture
from futurechain.core.thread_state import BROKEN_OFF, current
from futurechain.core.unobserved import note_unobserved
from futurechain.failure import Failure

__all__ = [
    "COUNTING_KINDS",
    "add_callback",
    "attach_to_all",
    "set_result",
    "succeed",
    "then_on_bare",
    "then_on_inline",
    "then_on_settled",
    "use",
]

COUNTING_KINDS: set[type] = set()
"""Kinds of dependents that run no user code when a value arrives: they ``count()`` it, and if nothing is ``left`` then,
``complete()`` returns the future that is settled by that, or None."""

_Bare: Any
_Guarded: Any
_InlineStage: Any
_SettledStage: Any
_TwistedStage: Any


def use(bare: Any, guarded: Any, inline: Any, settled: Any, twisted: Any) -> None:
    """Take note of the classes of futures."""
    global _Bare, _Guarded, _InlineStage, _SettledStage, _TwistedStage  # once, at import
    _Bare, _Guarded, _InlineStage, _SettledStage, _TwistedStage = bare, guarded, inline, settled, twisted


def then_on_bare(self: Any, on_result: Any = None, on_error: Any = None, *, on: Any = None) -> Any:
    """`Future.then`, in place."""
    scheduler, dependents = self._scheduler, self._dependents
    if on is not None or on_error is not None or not scheduler.is_plain or not callable(on_result):
        return _then(self, on_result, on_error, on)
    child = _InlineStage()
    child._scheduler = scheduler
    child._handler = on_result
    child._outcome = PENDING
    kind = type(self)
    if kind is _Guarded:
        child._source = ref(self)
    elif kind is _Bare:
        self.__class__ = _Guarded
        child._source = ref(self)
    else:
        child._source = self._as_source()
    own = child._dependents = [None]  # room for one dependent, which is the rule, in 16 bytes
    del own[0]
    if len(dependents) != 1:
        return _connect(self, child)
    dependents.append(child)
    return child if self._outcome is PENDING else too_late(self, child)


def then_on_inline(self: Any, on_result: Any = None, on_error: Any = None, *, on: Any = None) -> Any:
    """`Future.then` on an inline stage, in place: there is less to ask."""
    scheduler, dependents = self._scheduler, self._dependents
    if on is not None or on_error is not None or not scheduler.is_plain or not callable(on_result):
        return _then(self, on_result, on_error, on)
    child = _InlineStage()
    child._scheduler = scheduler
    child._handler = on_result
    child._outcome = PENDING
    child._source = self
    own = child._dependents = [None]
    del own[0]
    if dependents:
        return _connect(self, child)
    dependents.append(child)
    return child if self._outcome is PENDING else too_late(self, child)


def then_on_settled(self: Any, on_result: Any = None, on_error: Any = None, *, on: Any = None) -> Any:
    """`Future.then` on a future that was settled when it was made, in place: run the function here and now."""
    thread, scheduler = current.thread, self._scheduler
    if on is not None or on_error is not None or thread.depth or not scheduler.is_plain or not callable(on_result):
        return _then(self, on_result, on_error, on)
    value = self._outcome
    if type(value) is not Failure:
        thread.depth = 1
        try:
            value = on_result(value)
        except BaseException as error:
            return run_at_once(scheduler, on_result, thread, [error])
        finally:
            thread.depth = 0
        if type(value) not in PLAIN_VALUES or thread.later or thread.stack or thread.interrupt is not None:
            values = [value]
            del value  # no cycle: a traceback may keep this frame
            return run_at_once(scheduler, on_result, thread, None, values)
        child = _SettledStage()
    else:
        child = _SettledStage()
        self._observed()
        note_unobserved(child, value)
    child._scheduler = scheduler
    child._outcome = value
    return child


def succeed(value: Any) -> Any:
    """`futurechain.succeed`, in place."""
    future = _SettledStage()
    future._outcome = value
    future._scheduler = HERE
    if type(value) is Failure:
        note_unobserved(future, value)
    return future


def _connect(source: Any, child: Any) -> Any:
    """Attach an inline stage to a source that has dependents already, or is settled."""
    try:
        group = source._dependents[-1]
    except IndexError:  # it is settled
        group = None
    if type(group) is Group:  # what `attach` does, in place
        key = id(child)
        group[key] = child
        if source._outcome is PENDING:
            return child
        if group.pop(key, None) is None:
            return child  # whoever settles the source has it
    if type(source._outcome) is not Pending:  # nobody has seen the child yet: another one takes its place
        return then_on_settled(source, child._handler)
    return connect(source, child)


def _then(source: Any, on_result: Any, on_error: Any, on: Any) -> Any:
    check_handler(on_result, "then")
    if on_error is None and on_result is not None:
        return attach_stage(source, on_result, on)
    return attach_stage(source, Then(on_result, check_handler(on_error, "then")), on)


def add_callback(self: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
    """`Future.addCallback`, in place."""
    if args or kwargs or watch.on or not callable(callback):
        call = None if check_handler(callback, "addCallback") is None else (callback, args, kwargs)
        return append_stage(self, Callbacks(call, None))
    child = _TwistedStage()
    child._handler = callback
    child._outcome = PENDING
    child._scheduler = self._scheduler
    child._source = None
    own = child._dependents = [None]
    del own[0]
    try:
        chain = self._chain
    except AttributeError:
        chain = None
    if type(chain) is Tail:
        chain = chain()
    if chain is None:
        chain = begin_chain(self)
    child._chain = chain.tail
    ends = chain.ends
    ends.append(child)  # what `extend` does, in place
    if len(ends) == 2:
        end = ends[0]
        if type(end._chain) is Tail:
            end._chain = chain
        else:
            chain.has_begun = True
        try:
            ends.remove(end)
        except ValueError:  # another thread tidies, too
            pass
        if len(ends) > 1:
            tidy(ends)
    else:
        end = find_predecessor(chain, child)
    child._source = end._as_source() if end._held_weakly else end
    dependents = end._dependents
    if len(dependents) < 2 and end._outcome is PENDING:
        dependents.append(child)
        if end._outcome is not PENDING:
            return too_late(end, child)
        if own:  # another thread has seen it at the end of the chain before it was attached
            break_ring(child, end)
        return child
    return connect(end, child)


def set_result(self: Any, result: Any) -> None:
    """`StandardFuture.set_result` on a bare future, in place."""
    dependents = self._dependents
    try:
        dependents.remove(TICKET)
    except ValueError:
        return StandardFuture.set_result(self, result)
    except KeyboardInterrupt:  # CPython looks for it after the call: it has not happened
        dependents.insert(0, TICKET)
        raise
    if type(result) is Failure:
        settle(self, result)
        return None
    self._outcome = result
    settled = None
    if dependents:
        dependent = None
        try:
            dependent = dependents[0]
            if type(dependent) in COUNTING_KINDS:
                dependents.remove(dependent)
                dependent.count()
                if not dependent.left:
                    settled = dependent.complete()
        except (IndexError, ValueError):  # it was taken back just now
            pass
        except KeyboardInterrupt as error:
            return break_off(self, dependent, error)
        except BROKEN_OFF as error:
            current.thread.undone.append((self, dependent, error))
            current.thread.later.append(self)
            raise
        dependent = None  # no cycle: a traceback may keep this frame
    if dependents or dependents.copy():  # the copy takes the list's lock: a plain look may be older than our outcome
        try:
            run_dependents(self)
        except KeyboardInterrupt:  # if it came before anything was done; else nothing is left
            run_dependents(self)
            raise
        except BROKEN_OFF:
            current.thread.later.append(self)
            raise
    if settled is not None:
        run_dependents(settled)
    return None


def attach_to_all(sources: Sequence[Any], dependent: Any) -> list[Any]:
    """`state.attach` to each of `sources`, in place; those that are settled, for the caller to go on with."""
    settled = []
    for source in sources:
        dependents = source._dependents
        if len(dependents) == 1:
            dependents.append(dependent)
            if source._outcome is PENDING or not withdraw(dependents, dependent):
                continue
        if not attach(source, dependent, guarded=False):
            settled.append(source)
    return settled
