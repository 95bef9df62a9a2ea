"""A handler that returned a future: its stage takes that future's outcome when it comes, and no thread waits for it.

The stage becomes a *produced* one (see `futurechain.core`): its ticket lies in its own list from now on, and a
`TakeOver` in the returned future's list tells it. So these may be moved from list to list, and a cancellation finds
the ticket at every moment.

*Forwarding.* If only such entries wait for the stage itself, they move on, one by one, to the returned future, which
then holds the stage by a weak reference only; so a recursion through returned futures has a constant length. Whoever
attaches to such a stage must pin it. That is decided like "attached, or too late?": the stage's outcome is FORWARDED
before its list is looked at, and the attacher looks at the outcome after it has put its entry in.

*Rings.* The two edges, up (``_source``) and down (the entry), are published first, and the ring is looked for
then; so of several threads that close one together, the last sees all of it. The search goes up from the returned
future and down from the stage in turns, and ends when either comes to an end: linear, from whichever end a chain grows.
"""

from __future__ import annotations

import concurrent.futures as cf
import types
import weakref
from collections.abc import Iterator
from itertools import islice
from typing import Any, Self

from futurechain.core import callback_threads
from futurechain.core.handlers import Callbacks, Finally, Held, while_waiting
from futurechain.core.observers import watch
from futurechain.core.scheduler import later
from futurechain.core.state import (
    BEGUN,
    FORWARDED,
    KEYED,
    PENDING,
    PIN,
    REPEATABLE,
    TICKET,
    Group,
    Pending,
    State,
    attach,
    claim,
    consumers,
    detach,
    has_dependents,
    is_unclaimed,
    moved_from,
    publish,
    settle_unowned,
    source_of,
    take,
    withdraw,
)
from futurechain.core.thread_state import BROKEN_OFF, ThreadState, blocked, current, wake_blocked
from futurechain.failure import Failure

__all__ = ["PLAIN_VALUES", "TakeOver", "break_ring", "downstream", "is_ring", "pin", "resolve", "upstream"]

PLAIN_VALUES = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, object, type}
)
"""Types whose instances are values for certain; asking this is a third of the price of `isinstance`."""
MOST_FORWARDED = 4
"""How many waiting stages move on to a returned future; with more, each step of a long nesting would move them all."""


def resolve(stage: Any, value: Any) -> Any:
    """Return the outcome that `value`, returned by a handler, stands for; PENDING if the stage now waits for it.

    The caller owns the stage, and owns it no more if this is PENDING. Never raises.
    """
    kind = type(value)  # not isinstance(value, ...): a proxy would run code of its own
    try:
        if issubclass(kind, cf.Future):
            return _wait_for(stage, value if issubclass(kind, State) else later("wrap_future")(value))
        if kind is types.CoroutineType:
            return _wait_for(stage, later("ensure")(value, stage._scheduler.steps_of(stage)))
    except BaseException as error:  # somebody else's future may do anything
        current.thread.note_interrupt(error)
        return _does_not_wait(stage, Failure(error))
    return value


def _wait_for(stage: Any, inner: Any) -> Any:
    if stage._twisted or type(stage._handler) is Callbacks:
        inner = inner.final
    if watch.on:
        watch.adopted(stage, inner)
    outcome = inner._outcome
    if type(outcome) is not Pending:
        inner._observed()
        return outcome
    if inner is stage:
        return _cycle(inner)
    waiting = _movable(stage)
    forwarded = waiting is not None
    if forwarded:
        stage._outcome = FORWARDED
    stage._handler = handler = while_waiting(stage)
    if type(handler) is Held:
        handler.hold()
    entry = WeakTakeOver(stage, inner) if forwarded else TakeOver(stage)
    stage._source = inner._as_source()
    ticket = BEGUN if stage._on_executor else TICKET  # a queue may still hold it: who finds it there must not run it
    stage._dependents[:0] = (ticket, PIN) if forwarded else (ticket,)  # from here on whoever claims it may settle it
    try:
        outcome = _let_wait(stage, inner, entry, waiting)
    except BROKEN_OFF as error:
        current.thread.note_interrupt(error)
        outcome = Failure(error) if claim(stage) else PENDING
    if outcome is not PENDING:
        return _does_not_wait(stage, outcome)
    if stage._on_executor:
        stage._scheduler.waits(stage)
    return PENDING


def _does_not_wait(stage: Any, outcome: Any) -> Any:
    """Return the outcome of a stage that the caller owns (still, or again), and that was about to wait."""
    if type(stage._handler) is Held:
        stage._handler.let_go()
    return outcome


def _let_wait(stage: Any, inner: Any, entry: Any, waiting: list[Any] | None) -> Any:
    """Attach `entry` to `inner`, and those who were `waiting` for the stage if that is forwarded."""
    if not attach(inner, entry):  # before the others move: it is what `inner` is wanted for
        if not claim(stage):
            return PENDING
        inner._observed()
        return inner._outcome
    if blocked:
        wake_blocked()
    moved = [_move(one, stage, inner) for one in waiting or ()]
    if waiting is not None and has_dependents(stage):
        pin(stage)  # somebody came in before it was forwarded
    rings = (is_ring(one, inner) for one in (*moved, stage) if one is not None)
    if any(rings) and claim(stage):  # who closes it fails, and those who were moved with it
        detach(inner, stage)
        return _fail_ring(stage, inner)
    if type(stage._outcome) is not Pending:  # cancelled before it was attached
        detach(inner, stage)
        stage._source = None
    return PENDING


def _cycle(inner: Any) -> Failure:
    inner.__dict__["_unwanted"] = True  # how the others in the ring end is told by this failure
    return Failure(TypeError(f"{inner!r} was returned by a stage that it waits for itself: a cycle"))


def _fail_ring(stage: Any, inner: Any) -> Failure:
    """Return how `stage` fails, which waits for itself by way of `inner`; those who were moved from it fail so, too."""
    failure = _cycle(inner)
    for target in moved_from(stage):
        if claim(target):
            detach(inner, target)
            _settle_later(target, failure)
    return failure


# -- forwarding -------------------------------------------------------------------------------------------------------


def _movable(stage: Any) -> list[Any] | None:
    """Return the entries to move; None if others wait for `stage`, or too many, or not for the outcome that comes."""
    waiting: list[Any] = []
    if not stage._dependents:
        return None if type(stage._handler) is Finally else waiting
    for held in tuple(stage._dependents):
        waiting += islice(dict.copy(held).values(), MOST_FORWARDED + 1) if type(held) is Group else (held,)
    alike = all(type(entry) in (TakeOver, WeakTakeOver) for entry in waiting)
    return waiting if alike and len(waiting) <= MOST_FORWARDED and type(stage._handler) is not Finally else None


def _move(entry: Any, stage: Any, inner: Any) -> Any:
    """Let the one for whom `entry` stands wait for `inner` and no more for `stage`; return it, if it does.

    Both remember that: a cancellation of `stage` reaches it as before, and the other way round.
    """
    target = entry.target
    if target is None:
        return None
    remembered = weakref.ref(target)
    moved = stage.__dict__.setdefault("_moved", [])
    moved.append(remembered)  # before it is taken out: it is a consumer of `stage` at every moment
    if not take(stage._dependents, entry):
        moved.remove(remembered)
        return None
    before = [one for one in target.__dict__.get("_waited_for", ()) if one() is not None]
    target.__dict__["_waited_for"] = [*before, weakref.ref(stage)]
    target._source = inner._as_source()
    if type(entry) is WeakTakeOver:
        entry.inner = weakref.ref(inner)
    if not attach(inner, entry):
        inner._observed()
        _settle_later(entry._fire(inner, inner._outcome, current.thread))
    elif not is_unclaimed(target):  # a second look: who cancels it may have seen what it waited for before
        detach(inner, target)
    if type(target._outcome) is not Pending:  # a second look: whoever settled it may have come before our store
        target._source = None
    return target


def _settle_later(target: Any, outcome: Any = PENDING) -> None:
    """Leave it to this thread's outermost loop to go on with `target`, which is owned, or settled already."""
    if target is None:
        return
    if outcome is not PENDING:
        publish(target, outcome)
    if current.thread.depth:
        current.thread.later.append(target)
    else:
        callback_threads.run(target._run_dependents)


class TakeOver:
    """A dependent: when the returned future is settled, so is the stage that waits for it."""

    __slots__ = ("key", "target")

    def __init__(self, stage: Any) -> None:
        self.target: Any = stage
        self.key: int = ~id(stage)

    def _is_waiting(self) -> bool:
        """Tell whether the stage is not settled yet."""
        return not self.target.done()

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> Any:
        """Settle the stage, unless it was cancelled; it, for the caller to go on with."""
        return _take_over(self.target, outcome)


class WeakTakeOver(weakref.ref[Any]):
    """The same for a stage that nothing else waits for: it may die before, and takes its entry along."""

    __slots__ = ("inner", "key")
    key: int
    inner: weakref.ref[Any]

    def __new__(cls, stage: Any, inner: Any) -> Self:
        """Stand for `stage` in the list of `inner`."""
        self = super().__new__(cls, stage, _drop)
        self.key = ~id(stage)
        self.inner = weakref.ref(inner)
        return self

    def __init__(self, stage: Any, inner: Any) -> None:
        super().__init__(stage, _drop)  # type: ignore[call-arg]

    @property
    def target(self) -> Any:
        """The stage, or None."""
        return self()

    def _is_waiting(self) -> bool:
        """Tell whether the stage still exists, and is not settled yet."""
        target = self()
        return target is not None and not target.done()

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> Any:
        """Settle the stage, if it still exists; it, for the caller to go on with."""
        return _take_over(self(), outcome)


KEYED.update((TakeOver, WeakTakeOver))
REPEATABLE.update((TakeOver, WeakTakeOver))


def _drop(entry: Any) -> None:
    """Take the entry of a stage that has died out of the future that it waited for."""
    inner = entry.inner()
    if inner is not None:
        take(inner._dependents, entry)


def _take_over(stage: Any, outcome: Any) -> Any:
    return stage if stage is not None and settle_unowned(stage, outcome) else None


def pin(stage: Any) -> None:
    """Let what a forwarded stage waits for hold it strongly: it has dependents now."""
    inner = source_of(stage) if withdraw(stage._dependents, PIN) else None
    if inner is not None:
        entry = TakeOver(stage)  # beside the weak one: an edge once published stays in sight
        if not attach(inner, entry):
            _settle_later(entry._fire(inner, inner._outcome, current.thread))
        elif type(stage._outcome) is not Pending:  # a second look: who cancelled it may have come before our entry
            detach(inner, stage)


# -- rings ------------------------------------------------------------------------------------------------------------


def is_ring(stage: Any, inner: Any) -> bool:
    """Tell whether `inner`, for which `stage` waits now, waits for `stage`."""
    if inner._source is None or not has_dependents(stage):
        return False
    return any(up is stage or down is inner for down, up in zip(downstream(stage), upstream(inner), strict=False))


def break_ring(stage: Any, inner: Any) -> None:
    """Let `stage`, which waits for `inner` now, fail if `inner` waits for it."""
    if is_ring(stage, inner) and claim(stage):
        detach(inner, stage)
        _settle_later(stage, _fail_ring(stage, inner))


def upstream(future: Any) -> Iterator[Any]:
    """Iterate over `future` and all that it waits for."""
    todo, seen = [iter((future,))], set[int]()
    while todo:
        one = next(todo[-1], None)
        if one is None:
            todo.pop()
        while isinstance(one, State) and id(one) not in seen:
            seen.add(id(one))
            yield one
            one = source_of(one)
        if not (one is None or isinstance(one, State)):
            todo.append(iter(one.sources()))


def downstream(future: Any) -> Iterator[Any]:
    """Iterate over all that waits for `future`."""
    todo, seen = [consumers(future)], set[int]()
    while todo:
        entry = next(todo[-1], None)
        if entry is None:
            todo.pop()
            continue
        one = entry if isinstance(entry, State) else getattr(entry, "target", None)
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo.append(consumers(one))
