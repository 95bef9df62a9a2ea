"""Who waits for a future: the list of its dependents, and the atomic steps that decide every race.

Theory of operation
-------------------
A future has two words. ``_outcome`` is `PENDING` until the future is settled, and then its value or a `Failure`.
``_link`` is a list while somebody may still be waiting, and None when that is over. The list holds, in order: waiters
(threads to wake first), the token `UNCLAIMED`, and the dependents in the order in which they were attached.

Every race is decided by **one** operation on one built-in container, which is atomic by itself: on a build with a
GIL, and on a free-threaded one, where the container's own lock makes it so. Nothing here takes a lock, so a signal
handler or a finalizer may interrupt anything and use the same futures.

* *Who settles it?* Whoever removes the token: ``link.remove(UNCLAIMED)``. A result, an error, a cancellation, a
  timeout and the thread that runs the stage all begin with `claim`; the losers get False.
* *Attached, or too late?* The attacher appends, then looks whether the list is still the future's link. The settler
  publishes the outcome, empties the list with ``pop``, sets the link to None, and empties it **again**. Whatever the
  schedule, the entry is seen by one of the two, and ``pop``/``remove`` hands it to exactly one.
* *Many dependents.* The second and later ones go to a dict at the end of the list, keyed by identity: insertion
  keeps the order, and one that is cancelled leaves in constant time, so that a long-lived future holds no trace of
  those who stopped waiting for it. (Dependents that arrive in the same instant may each start a dict; all are read.)
* *Forwarding.* A stage that waits for a returned future gets a new list; an attacher that appended to the old one
  sees that the link has changed, and attaches again.

An *entry* is a stage (a future) or an object with ``fire(future, outcome)``, called once, and ``_live()``, which says
whether it still counts as a consumer.
"""

from __future__ import annotations

from _thread import LockType, allocate_lock
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import TIMEOUT_MAX, Condition
from typing import Any, final

from futurechain.failure import Failure

__all__ = [
    "PENDING",
    "PLAIN",
    "RUNNING",
    "SILENT",
    "UNCLAIMED",
    "Bell",
    "Callback",
    "Forwarded",
    "Token",
    "Waiter",
    "attach",
    "claim",
    "consumers",
    "detach",
    "entries",
    "is_consumed",
    "withdraw",
]


@final
class Token:
    """A named constant; compared by identity alone."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


PENDING: Any = Token("PENDING")
"""The outcome of a future that has none yet."""
UNCLAIMED: Any = Token("UNCLAIMED")
"""In the link: nobody has begun to settle this future."""
RUNNING: Any = Token("RUNNING")
"""In the link: `set_running_or_notify_cancel` was called, `set_result` may still come."""


PLAIN: set[type] = set()
"""Kinds of stages with one function for values, for which the loop has a fast path."""
SILENT: set[type] = set()
"""Kinds of entries that run no user code when a value arrives: they ``count()`` it, and if nothing is ``left`` then,
``complete()`` returns the future that is settled by that, or None."""


def claim(future: Any, token: Any = UNCLAIMED) -> bool:
    """Take the right to settle `future`; True for exactly one caller."""
    try:
        future._link.remove(token)
    except (ValueError, AttributeError):  # taken, or the link is None: settled
        return False
    return True


def attach(future: Any, entry: Any, *, guarded: bool = True) -> bool:
    """Add `entry` to the dependents of `future`; False if it is settled, and the caller must go on by itself.

    With `guarded`, the entry is fired as well if the producer of `future` drops it.
    """
    if guarded and future._weakly_held:
        future._anchor()
    link = future._link
    if link is not None and len(link) == 1:  # nobody waits yet, or the one who does is about to be told: the short way
        link.append(entry)
        if future._link is link or not withdraw(link, entry):
            return True
    while (link := future._link) is not None:
        try:
            last = link[-1]
        except IndexError:
            last = UNCLAIMED
        if isinstance(last, dict):
            settled = not _join(future, link, last, entry)
        else:
            group = entry if type(last) is Token else {_key(entry): entry}
            link.append(group)
            settled = future._link is not link and withdraw(link, group)
        if not settled:
            return True
    return False


def _join(future: Any, link: list[Any], group: dict[int, Any], entry: Any) -> bool:
    """Put `entry` into the last group of `link`; False if it was too late and has been taken back."""
    group[_key(entry)] = entry
    if future._link is link and _ends_with(link, group):
        if type(group) is Forwarded:
            group.pin(future)
        return True
    return group.pop(_key(entry), None) is None


def _ends_with(link: list[Any], group: dict[int, Any]) -> bool:
    try:
        return link[-1] is group or any(held is group for held in tuple(link))
    except IndexError:
        return False


def withdraw(link: list[Any], held: Any) -> bool:
    """Take `held` out again; False if the settling thread has it already."""
    try:
        link.remove(held)
    except ValueError:
        return False
    return True


def _key(entry: Any) -> int:
    return id(getattr(entry, "target", entry))


def detach(future: Any, entry: Any) -> None:
    """Take `entry` (or the one whose ``target`` it is) out of the dependents, in constant time."""
    link = future._link
    for held in tuple(link or ()):
        if isinstance(held, dict):
            held.pop(id(entry), None)
        elif held is entry or getattr(held, "target", None) is entry:
            withdraw(link, held)


def entries(future: Any, held: Any = None) -> Iterator[Any]:
    """Empty the link of a settled future, in order, and close it; each entry comes out exactly once.

    `held` is what the caller has taken out of the link already.
    """
    link = future._link
    while link is not None:
        if isinstance(held, dict):
            while held:
                for key in list(held):
                    entry = held.pop(key, None)
                    if entry is not None:
                        yield entry
        elif held is not None:
            yield held
        try:
            held = link.pop(0)
        except IndexError:
            held = None
            if future._link is None:
                return
            future._link = None  # closed; whoever came in before this is found in one more round


def consumers(future: Any) -> Iterator[Any]:
    """Iterate over the dependents that still wait for `future`, without changing anything."""
    for held in tuple(future._link or ()):
        if type(held) is Token:
            continue
        for entry in tuple(held.values()) if isinstance(held, dict) else (held,):
            if entry._live():
                yield entry


def is_consumed(future: Any) -> bool:
    """Tell whether any dependent still waits for `future`; those who do not any more are gone from the groups."""
    for held in tuple(future._link or ()):
        if isinstance(held, dict):
            if _any_live(held):
                return True
        elif type(held) is not Token and held._live():
            return True
    return False


def _any_live(group: dict[int, Any]) -> bool:
    try:
        return any(entry._live() for entry in group.values())
    except RuntimeError:  # it changed meanwhile: look at a copy
        return any(entry._live() for entry in tuple(group.values()))


class Forwarded(dict[int, Any]):
    """The dependents of a stage that does nothing but wait for a returned future.

    That future holds the stage by a weak reference only, so that a recursion through returned futures needs constant
    memory. The first dependent pins it: from then on the reference is a strong one.
    """

    __slots__ = ()

    def pin(self, future: Any) -> None:
        """Make the future that `future` waits for hold it; the first time only."""
        if future.__dict__.setdefault("_pinned", token := object()) is token:
            future._pin()


class Waiter:
    """A thread that is blocked in ``result()``: a bare lock of its own, and nothing that others contend for."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: LockType = allocate_lock()
        self._lock.acquire()

    def _live(self) -> bool:
        return True

    def fire(self, future: Any, outcome: Any) -> None:
        """Wake the thread; a second time has no effect."""
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        """Block for at most `timeout` seconds; True when woken."""
        return self._lock.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), TIMEOUT_MAX))


class Callback:
    """A function given to ``add_done_callback``."""

    __slots__ = ("_fn",)

    def __init__(self, fn: Callable[[Any], object]) -> None:
        self._fn = fn

    def _live(self) -> bool:
        return True

    def fire(self, future: Any, outcome: Any) -> None:
        """Call it with the future."""
        self._fn(future)


class Bell:
    """The condition that ``concurrent.futures.wait`` and ``as_completed`` take hold of; built when they ask.

    They read the state of several futures while holding all their conditions, and count on it that none changes
    meanwhile. So a future that has a bell shows itself as finished only once the bell has rung, under its lock.
    """

    __slots__ = ("condition", "rung", "waiters")

    def __init__(self) -> None:
        self.condition = Condition()
        self.waiters: list[Any] = []
        self.rung = False

    def _live(self) -> bool:
        return bool(self.waiters)

    def fire(self, future: Any, outcome: Any) -> None:
        """Tell everybody who waits, once."""
        with self.condition:
            if self.rung:
                return
            self.rung = True
            failed = "add_cancelled" if future.cancelled() else "add_exception"
            for waiter in self.waiters:
                getattr(waiter, failed if type(outcome) is Failure else "add_result")(future)
            self.condition.notify_all()
