"""The loop that runs callbacks; `state` says who may do what, and why it needs no stack.

The traceback of an exception keeps the frames that were active when it was raised, with their variables. So that a
Deferred that has failed is no part of a reference cycle, no function below a callback ends with a variable that still
holds one.
"""

from __future__ import annotations

import threading
from typing import Any

from futurechain.core.flatten import PLAIN_VALUES
from futurechain.core.handlers import label
from futurechain.defer.reports import Unhandled
from futurechain.defer.state import (
    ARGUMENTS,
    IDLE,
    PENDING,
    SPECIAL,
    UNFIRED,
    State,
    handled,
    is_failure,
    take,
    take_now,
    wait_for,
)
from futurechain.failure import Failure
from futurechain.flow.driver import note

__all__ = ["GO", "OWNED", "run"]

GO: Any = object()
"""For `run`: take the ticket, if the Deferred is idle."""
OWNED: Any = object()
"""For `run`: the caller has the ticket."""
MUCH = 20
"""How many frames of Python's it may take to resume a coroutine, and to note what it raises."""
FEW = 8
"""With more callbacks than these, they are taken out together: to take out the first one is linear."""
_interrupts: list[BaseException] = []
"""A Ctrl-C that a callback raised in the main thread, to be raised again when the loop is done."""


def run(current: Any, outcome: Any = GO) -> bool:
    """Run the callbacks of `current`, and of those that go on by that.

    Args:
        current: the Deferred.
        outcome: fire it with this; or `GO`, or `OWNED`.

    Returns:
        Whether this thread got the ticket; if not, another one has it, or `current` has been fired before.

    Raises:
        RecursionError: if there is no room on the stack; then nothing has changed.
    """
    if current._is_driving:
        _have_room(MUCH)
    elif outcome is not GO:
        _have_some()
    try:
        if outcome is GO:
            if not current._ticket:
                return False
            current._ticket.pop()
        elif outcome is not OWNED:
            current._ticket.remove(UNFIRED)
            current.result = outcome
            current.called = True
            if current._cancellers is not None:
                current._cancellers = None
    except (IndexError, ValueError):
        return False
    below: Any = None
    outcome = None  # no cycle: a traceback may keep this frame
    while current is not None:
        try:
            current, rest = _advance(current)
        except RecursionError:  # a callback that was added here and now has found no room, and nor has its failure
            current._ticket.append(IDLE)
            raise
        if rest is not None:
            below = rest, below
        while current is None and below is not None:
            one, below = below
            current = one if (one._callbacks or one._todo) and not one._pauses and take(one) else None
    one = rest = None
    if _interrupts and threading.current_thread() is threading.main_thread():
        raise _interrupts.pop()
    return True


def _have_some() -> None:
    """Raise RecursionError, here and now, where there is no room for `_advance` and what it cannot do without."""
    _have_more()


def _have_more() -> None: ...


def _have_room(frames: int) -> None:
    """Do the same for what resumes a coroutine."""
    if frames:
        _have_room(frames - 1)


def _advance(current: Any) -> tuple[Any, Any]:
    """Run callbacks until there is none left, or `current` waits, or hands its result over.

    Returns:
        What to go on with, which is ours, and what after that, which has been let go.
    """
    fn: Any = None
    try:
        callbacks, todo, result = current._callbacks, current._todo, current.result
        failed = type(result) not in PLAIN_VALUES and is_failure(result)
        while (todo or callbacks) and not current._pauses:
            if not todo and len(callbacks) > FEW:
                todo = current._todo = callbacks[::-1]
                del callbacks[: len(todo)]
            entry = todo.pop() if todo else callbacks.pop(0)
            fn, more = entry[failed], entry[2]
            if fn is None:
                if type(more) in ARGUMENTS:
                    continue
                return _hand_over(current, more)
            result = fn(result) if more is None else fn(result, *more[failed][0], **more[failed][1])
            current.result = result
            failed = False
            if type(result) not in PLAIN_VALUES and issubclass(type(result), SPECIAL):
                if not isinstance(result, State):
                    result = _interpret(current, result)
                    if result is PENDING:  # then `current` is not ours any more
                        return None, None
                    current.result = result
                if isinstance(result, State):
                    outcome = take_now(result) if result.called else PENDING
                    if outcome is PENDING:
                        return wait_for(current, result, current), None
                    current.result = result = outcome
                failed = type(result) not in PLAIN_VALUES and is_failure(result)
        if failed or current._unhandled is not None:
            _tell(current, failed)
        current._ticket.append(IDLE)
        return None, current if todo or callbacks else None
    except BaseException as error:
        current.result = Failure(error)
        try:  # which needs room on the stack
            _note(error, fn)
        except RecursionError:
            pass
        return current, None
    finally:
        current = callbacks = todo = result = entry = fn = more = outcome = None  # no cycle: see above


def _tell(current: Any, failed: bool) -> None:
    """Report a failure when `current` goes, unless somebody else does."""
    handled(current)
    if failed and current.result is not current._future_has:
        current._unhandled = Unhandled(current.result, current._trail)


def _note(error: BaseException, fn: Any) -> None:
    """Note on `error` that `fn` raised it; remember it if it is Ctrl-C."""
    if issubclass(type(error), KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        _interrupts.append(error)
    note(error, "Deferred" if fn is None else label(fn), "INLINE")


def _hand_over(current: Any, relay: Any) -> tuple[Any, Any]:
    """Give the result of `current` to `relay`, and let it go; return as `_advance` does."""
    following: Any = None
    try:
        if isinstance(relay, State):
            relay._awaited, relay.result, following = None, current.result, relay
        else:
            following = relay.take(current.result)
        current.result = None
        if following is None:
            return current, None
        if current._unhandled is not None:
            handled(current)
        current._ticket.append(IDLE)  # meanwhile others may go on with it
        return following, current if current._callbacks or current._todo else None
    finally:
        current = relay = following = None


def _interpret(current: Any, value: Any) -> Any:
    """Return what `value` stands for: an outcome, a Deferred, or PENDING if `current` waits for a future now."""
    if isinstance(value, BaseException) or type(value) is Failure:
        return value
    return current._adapt(value)
