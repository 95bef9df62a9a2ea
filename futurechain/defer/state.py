"""The state of a Deferred: who owns it, who waits for it, and the steps that decide every race.

Theory of operation
-------------------
A Deferred has a list of callbacks, to which any thread may append, and one *ticket*, which lies in a list of its
own. Whoever takes that out there (one operation on one built-in list) owns the Deferred: it alone writes ``result``
and runs callbacks (in `engine`).

=======  =========================================  ==========  =================================================
state    where the ticket is                        ``called``  leaves by
=======  =========================================  ==========  =================================================
unfired  UNFIRED, in ``_ticket``                    False       ``_ticket.remove(UNFIRED)``, by who fires
running  nowhere: a thread in `run` owns it         True        it is idle, or waits
waiting  in the callbacks of what it waits for, as  True        who pops that entry owns it
         the entry ``(None, None, deferred)``
idle     IDLE, in ``_ticket``                       True        ``_ticket.pop()``
=======  =========================================  ==========  =================================================

* *Added, or too late?* Who adds a callback appends it **first** and looks at ``called`` and at the ticket **then**;
  who fires stores ``called`` **first**, and who has run everything puts the ticket back **first**, and looks at the
  list **then**. One of the two sees the other, and the ticket decides which of them goes on.
* *Pausing* is the same with another list: who unpauses takes its token out first and looks at the ticket then.
* *Returned Deferreds.* The entry of the one that waits is appended to the callbacks of the other. Whoever pops it
  moves the result over, leaves None behind, and goes on with the one that waited, and after that with the rest of
  the other: in the same loop, on a stack that is a linked list, so no chain of Deferreds needs any of Python's.
* *Relays.* Anything else that takes a result away (`Relay`) stands in the list like that: a generator, a chained
  Deferred. It returns the Deferred that has been fired by that, for the loop to go on with.
* *Rings.* Both edges, up (``_awaited``) and down (the entry), are published first, and the ring is looked for then;
  so of several threads that close one together the last sees all of it. The search goes up and down in turns, and
  ends where either does. One that nothing waits for closes none: that is asked first.
* *A caller deep in the stack.* `engine.run` asks for room before it takes a ticket: where there is none,
  ``RecursionError`` is raised and nothing has changed.
"""

from __future__ import annotations

import concurrent.futures as cf
import sys
import types
from collections.abc import Iterator
from typing import Any, Protocol

from futurechain.defer.reports import Trail, Unhandled
from futurechain.failure import Failure

__all__ = [
    "ARGUMENTS",
    "IDLE",
    "PENDING",
    "SPECIAL",
    "UNFIRED",
    "Relay",
    "State",
    "fire",
    "handled",
    "is_failure",
    "reserve_room",
    "take",
    "take_now",
    "wait_for",
]  # fmt: skip

UNFIRED, IDLE = "unfired", "idle"
PENDING: Any = object()
"""Instead of an outcome: there is none yet."""
ARGUMENTS = frozenset({type(None), tuple})
"""What the third part of an entry is, if it is no relay."""


class State:
    """The state of a Deferred."""

    called = False
    """Whether it has been fired."""
    result: Any
    _callbacks: list[Any]
    """Entries ``(callback, errback, arguments)``, or ``(None, None, relay)``: added by anybody, taken by the owner."""
    _ticket: list[str]
    _todo: Any = ()
    """What the owner has taken from there, the next one last."""
    _pauses: Any = ()
    """One token for each `pause` that has not been taken back."""
    _awaited: Any = None
    """What it waits for: a Deferred, or a future."""
    _is_awaited = False
    """Whether another Deferred waits, or has waited, for this one."""
    _is_driving = False
    """Whether a relay waits for it, over however many others: to resume a coroutine needs room on the stack."""
    _unhandled: Unhandled | None = None
    """Reports its failure, if that is how it is when it goes."""
    _cancellers: Any = None
    """A list of its canceller, until somebody calls that."""
    _future_has: Any = None
    """The failure that one of its futures has got, and reports."""
    _trail: Trail | None = None
    """Who made and fired it, in debug mode."""

    def _adapt(self, value: Any) -> Any:
        """Return the outcome of a future, or the Deferred of a coroutine; PENDING if this waits for it now."""
        raise NotImplementedError  # pragma: no cover  # Deferred has it

    def _go_on(self) -> None:
        """Run what callbacks there are, if it is idle."""
        raise NotImplementedError  # pragma: no cover  # Deferred has it

    def _upstream(self) -> State | None:
        """Return the Deferred that this one waits for, if it does."""
        raise NotImplementedError  # pragma: no cover  # Deferred has it


SPECIAL = (State, Failure, BaseException, cf.Future, types.CoroutineType)
"""What may be no result, if a callback returns it."""


class Relay(Protocol):
    """Something that takes the result of a Deferred away."""

    deferred: Any
    """The Deferred that waits for this, or is fired by it."""

    def take(self, outcome: Any) -> State | None:
        """Take `outcome`; return a Deferred that the caller owns now and goes on with, or None.

        An exception becomes the result of the one it was taken from.
        """


# -- the ticket -------------------------------------------------------------------------------------------------------


def take(deferred: Any) -> bool:
    """Take the ticket of a Deferred that has been fired, if it is idle."""
    if not deferred._ticket:
        return False
    try:
        deferred._ticket.pop()
    except IndexError:
        return False
    return True


def fire(deferred: Any, outcome: Any) -> Any:
    """Fire a Deferred, and leave it to the caller to run it; None if it has been fired before."""
    try:
        deferred._ticket.remove(UNFIRED)
    except ValueError:
        return None
    deferred._cancellers = None
    deferred.result = outcome
    deferred.called = True
    return deferred


def handled(current: Any) -> None:
    """Note that somebody has taken the failure over."""
    if current._unhandled is not None:
        current._unhandled.forget()
        current._unhandled = None


def is_failure(value: Any) -> bool:
    """Tell whether `value` is a `Failure`, ours or Twisted's own."""
    kind = type(value)
    if kind is Failure:
        return True
    if not issubclass(kind, BaseException):  # which Twisted's is
        return False
    twisteds = sys.modules.get("twisted.python.failure")
    return twisteds is not None and issubclass(kind, twisteds.Failure)


# -- one that waits for another ---------------------------------------------------------------------------------------


def take_now(inner: Any) -> Any:
    """Return the result of `inner`, and leave None there; PENDING if it has to be waited for."""
    if not inner.called or inner._callbacks or inner._todo or inner._pauses:
        return PENDING
    try:
        inner._ticket.pop()
    except IndexError:
        return PENDING
    outcome, inner.result = inner.result, None
    if inner._unhandled is not None:
        handled(inner)
    inner._ticket.append(IDLE)
    if inner._callbacks:  # another thread came in between
        inner._go_on()
    return outcome


def wait_for(waiter: Any, inner: Any, relay: Any) -> Any:
    """Let `relay` take the result of `inner`, for which `waiter` waits now.

    Returns:
        `inner`, if the caller owns it now and has to run it; or None.

    Raises:
        TypeError: if `inner` waits for `waiter`; then nothing has changed.
    """
    entry = (None, None, relay)
    if relay is not waiter or waiter._is_driving:
        reserve_room(inner)
    inner._is_awaited = True
    waiter._awaited = inner
    inner._callbacks.append(entry)
    if waiter._is_awaited and _is_ring(waiter, inner) and _withdraw(inner, entry):
        waiter._awaited = None
        raise TypeError(f"{inner!r} waits for the one that it was returned to: a cycle")
    return inner if inner.called and not inner._pauses and take(inner) else None


def reserve_room(inner: Any) -> None:
    """Tell `inner`, and what that waits for, that they have a relay, such as a coroutine, to go on with."""
    while inner is not None and not inner._is_driving:
        inner._is_driving = True
        inner = inner._awaited if isinstance(inner._awaited, State) else None


def _withdraw(inner: Any, entry: Any) -> bool:
    try:
        inner._callbacks.remove(entry)
    except ValueError:
        return False
    return True


def _is_ring(waiter: Any, inner: Any) -> bool:
    """Tell whether `inner`, for which `waiter` waits now, waits for `waiter`."""
    try:
        return any(up is waiter or down is inner for up, down in zip(_above(inner), _below(waiter), strict=False))
    except RecursionError:  # deep in the stack; by now the one that waits is not ours to fail
        return False


def _above(deferred: Any) -> Iterator[Any]:
    """Iterate over `deferred` and all that it waits for."""
    while deferred is not None:
        yield deferred
        deferred = deferred._upstream()


def _below(deferred: Any) -> Iterator[Any]:
    """Iterate over all that waits for `deferred`, and over callbacks: looking at one takes time, too."""
    todo = [deferred]
    while todo:
        one = todo.pop()
        for _, _, relay in (*one._todo, *one._callbacks):
            yield relay
            if type(relay) not in ARGUMENTS:
                todo.append(relay if isinstance(relay, State) else relay.deferred)
                yield todo[-1]
