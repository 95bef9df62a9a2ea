"""A handler that returned a future: its stage takes that future"s outcome when it comes, and no thread waits for it.

The stage leaves an `Adopt` in the returned future. If nothing but such entries waits for the stage itself, they move
on to the returned future, which then holds the stage by a weak reference only; so a recursion through returned futures
is a chain of constant length.
"""

from __future__ import annotations

import concurrent.futures as cf
import types
import weakref
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from futurechain.dispatch import later
from futurechain.failure import Failure
from futurechain.links import PENDING, UNCLAIMED, Bell, Forwarded, Waiter, attach, claim, detach, withdraw
from futurechain.outcomes import publish
from futurechain.plans import Callbacks
from futurechain.run import here
from futurechain.standard import StandardFuture
from futurechain.watching import watch

__all__ = ["PLAIN_VALUES", "Adopt", "parent_of", "resolve", "waits_for"]

PLAIN_VALUES = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, object, type}
)
"""Types whose instances are values for certain; asking this is a third of the price of `isinstance`."""
MOST_FORWARDED = 4
"""How many waiting stages move on to a returned future; with more, each step of a long nesting would move them all."""


def resolve(stage: Any, value: Any) -> Any:
    """Return the outcome that `value`, returned by a handler, stands for; PENDING if the stage now waits for it.

    Never raises. The link of the stage may be another one afterwards.
    """
    kind = type(value)  # not isinstance(value, ...): a proxy would run code of its own
    try:
        if issubclass(kind, cf.Future):
            return _adopt(stage, value if issubclass(kind, StandardFuture) else later("wrap_future")(value))
        if kind is types.CoroutineType:
            return _adopt(stage, later("ensure")(value, stage._home.home))
    except BaseException as error:  # somebody else's future may do anything
        return Failure(error)
    return value


def _adopt(stage: Any, inner: Any) -> Any:
    if stage._twisted or type(stage._fn) is Callbacks:
        inner = inner.final
    outcome = inner._outcome
    if watch.on:
        watch.adopted(stage, inner)
    if outcome is not PENDING:
        inner._heard()
        return outcome
    stage._parent = inner._anchor()
    if _is_ring(stage, inner):
        return _ring(stage, inner)
    entry: Any
    if not stage._link or _is_forwardable(stage._link):
        entry = _forward(stage, inner)
    else:
        entry = Adopt(stage)
        stage._link.insert(0, UNCLAIMED)
    if attach(inner, entry):
        # looked at again after attaching: of two threads that close a ring, the last one sees the other's entry
        if _is_ring(stage, inner) and claim(stage):
            detach(inner, entry)
            return _ring(stage, inner)
        return PENDING
    if not claim(stage):
        return PENDING
    inner._heard()
    return inner._outcome


def _is_ring(stage: Any, inner: Any) -> bool:
    """Tell whether `inner` waits for `stage`; without anything that depends on `stage`, it does not."""
    return inner is stage or (inner._parent is not None and _has_dependents(stage) and waits_for(inner, stage))


def _has_dependents(stage: Any) -> bool:
    return any(held is not UNCLAIMED and (held or not isinstance(held, dict)) for held in tuple(stage._link or ()))


def _ring(stage: Any, inner: Any) -> Failure:
    stage._parent = None
    return Failure(TypeError(f"{inner!r} was returned by a stage that it waits for itself: a cycle"))


def _is_forwardable(link: list[Any]) -> bool:
    """Tell whether only a few wait, and all of them for the outcome itself."""
    waiting = list(islice(_flat(tuple(link)), MOST_FORWARDED + 1))
    return len(waiting) <= MOST_FORWARDED and all(type(held) in (Adopt, WeakAdopt) for held in waiting)


def _forward(stage: Any, inner: Any) -> WeakAdopt:
    """Let those who wait for `stage` wait for `inner` instead, so that a long recursion stays short.

    Whoever else came in meanwhile goes to the new link.
    """
    old, stage._link = stage._link, [UNCLAIMED, Forwarded()]
    for entry in _drain(old):
        if isinstance(entry, (Adopt, WeakAdopt)):
            _move(entry, inner)
        elif isinstance(entry, (Waiter, Bell)):
            _wait_again(stage, entry)
        elif attach(stage, entry):
            continue
        elif isinstance(entry, StandardFuture):
            entry._start_after(stage)
        else:
            _fire(entry, stage)
    return _adopt_weakly(stage, inner)


def _drain(link: list[Any]) -> Iterator[Any]:
    """Empty a link that nobody adds to any more; each entry comes out of it once, for us or for who takes it back."""
    while (held := _pop(link)) is not None:
        if isinstance(held, dict):
            for key in list(held):
                entry = held.pop(key, None)
                if entry is not None:
                    yield entry
        else:
            yield held


def _wait_again(stage: Any, waiter: Any) -> None:
    """Put a waiter to the front of the link of `stage`, or wake it if it is too late."""
    while (link := stage._link) is not None:
        link.insert(0, waiter)
        if stage._link is link or not withdraw(link, waiter):
            return
    waiter.fire(stage, stage._outcome)


def _flat(link: tuple[Any, ...]) -> Iterator[Any]:
    """Iterate over entries, those in groups included; a group that is out of its link takes no more in."""
    for held in link:
        if isinstance(held, dict):
            yield from tuple(held.values())
        else:
            yield held


def _move(entry: Any, inner: Any) -> None:
    target = entry.target if type(entry) is Adopt else entry()
    if target is None or target._outcome is not PENDING:
        return
    target._parent = inner._anchor()
    moved = entry if type(entry) is Adopt else _adopt_weakly(target, inner)
    if not attach(inner, moved):
        here.run.queue.append(partial(_fire, moved, inner))


def _fire(entry: Any, inner: Any) -> None:
    """Fire an entry that came too late for `inner`."""
    inner._heard()
    settled = entry.fire(inner, inner._outcome)
    if settled is not None:
        settled._carry_on()


def _pop(link: list[Any]) -> Any:
    try:
        return link.pop(0)
    except IndexError:
        return None


def parent_of(future: Any) -> Any:
    """Return what `future` waits for, or None."""
    parent = future._parent
    return parent() if type(parent) is weakref.ref else parent


def waits_for(future: Any, target: Any) -> bool:
    """Tell whether `future` waits for `target`, over however many steps."""
    todo, seen = [future], set[int]()
    while todo:
        one = todo.pop()
        if one is target:
            return True
        parent = parent_of(one)
        if isinstance(parent, StandardFuture):
            todo.append(parent)
        elif parent is not None and id(parent) not in seen:
            seen.add(id(parent))
            todo.extend(parent.sources())
    return False


class Adopt:
    """An entry: when the returned future is settled, so is the stage that waits for it."""

    __slots__ = ("target",)

    def __init__(self, target: Any) -> None:
        self.target = target

    def _live(self) -> bool:
        return bool(self.target._outcome is PENDING)

    def fire(self, future: Any, outcome: Any) -> Any:
        """Settle the stage, unless it was cancelled; it, for the caller to follow."""
        return _take_over(self.target, outcome)


class WeakAdopt(weakref.ref[Any]):
    """The same for a stage that nothing else waits for: it may die before, and takes its entry along."""

    __slots__ = ("inner",)
    inner: weakref.ref[Any]

    def _live(self) -> bool:
        target = self()
        return target is not None and target._outcome is PENDING

    def fire(self, future: Any, outcome: Any) -> Any:
        """Settle the stage, if it still exists; it, for the caller to follow."""
        return _take_over(self(), outcome)


def _adopt_weakly(stage: Any, inner: Any) -> WeakAdopt:
    entry = WeakAdopt(stage, _drop)
    entry.inner = weakref.ref(inner)
    return entry


def _drop(entry: Any) -> None:
    """Take the entry of a stage that has died out of the future that it waited for."""
    inner = entry.inner()
    if inner is not None:
        detach(inner, entry)


def _take_over(stage: Any, outcome: Any) -> Any:
    if stage is None or not claim(stage):
        return None
    publish(stage, outcome)
    return stage

