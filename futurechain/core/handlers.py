"""What a stage does with the outcome before it: one small class for each way to attach.

A handler chooses a `Call` for an outcome (None: the stage is skipped, and passes the outcome on unchanged), and may
have the last word on the outcome of that call. Nothing here knows futures or threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from futurechain.core.scheduler import Call
from futurechain.failure import Failure

__all__ = [
    "Callbacks",
    "Catch",
    "Expiry",
    "Finally",
    "Handler",
    "Held",
    "Named",
    "Task",
    "Then",
    "check_handler",
    "check_types",
    "label",
    "step_of",
    "while_waiting",
]

Function = Callable[..., Any]
_NOTHING: Any = object()


class Handler:
    """Choose what to do with an outcome."""

    __slots__ = ()
    step: Any = None
    """A stage that is queued, runs, or has run, for the one that this belongs to: a coroutine's last step."""

    def select(self, outcome: Any) -> Call | None:
        """Return the call to make for `outcome`, or None to pass it on."""
        return None

    def finish(self, outcome: Any) -> Any:
        """Return the outcome of the stage, given that of its call (or what was passed on)."""
        return outcome

    def cancelled(self, scheduler: Any) -> None:
        """Do what is left to do when the stage, on `scheduler`, was cancelled before its turn."""

    def handlers(self) -> tuple[Function, ...]:
        """Return the user's functions, for messages and pictures."""
        return ()

    def title(self) -> str:
        """Return the name of the stage."""
        return "/".join(label(one) for one in self.handlers()) or "pass"


class Named(Handler):
    """Passes everything on, and has a name: for the futures that the library itself makes."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name: str = name

    def title(self) -> str:
        return self.name


class Then(Handler):
    """``then(on_result, on_error)``: exactly one of the two runs."""

    __slots__ = ("on_error", "on_result")

    def __init__(self, on_result: Function | None, on_error: Function | None) -> None:
        self.on_result: Function | None = on_result
        self.on_error: Function | None = on_error

    def select(self, outcome: Any) -> Call | None:
        if type(outcome) is Failure:
            return None if self.on_error is None else (self.on_error, (outcome.value,), {})
        return None if self.on_result is None else (self.on_result, (outcome,), {})

    def handlers(self) -> tuple[Function, ...]:
        return tuple(fn for fn in (self.on_result, self.on_error) if fn is not None)


class Catch(Handler):
    """``catch(types, handler)``: for errors of these types only."""

    __slots__ = ("handler", "types")

    def __init__(self, types: Any, handler: Function) -> None:
        self.types: Any = types
        self.handler: Function = handler

    def select(self, outcome: Any) -> Call | None:
        if type(outcome) is Failure and isinstance(outcome.value, self.types):
            return self.handler, (outcome.value,), {}
        return None

    def handlers(self) -> tuple[Function, ...]:
        return (self.handler,)


class Finally(Handler):
    """``finally_(fn)``: keeps the outcome, unless `fn` fails."""

    __slots__ = ("fn", "kept", "turn")

    def __init__(self, fn: Function, turn: list[None] | None = None) -> None:
        self.fn: Function = fn
        self.kept: Any = _NOTHING
        self.turn: list[None] = [None] if turn is None else turn
        """Who pops this calls `fn`: a foreign worker that has it already, or who cleans up for a cancelled stage."""

    def select(self, outcome: Any) -> Call | None:
        self.kept = outcome
        return self.begin, (), {}

    def begin(self) -> Any:
        """Call the function, unless somebody has begun to."""
        try:
            self.turn.pop()
        except IndexError:
            return None
        return self.fn()

    def finish(self, outcome: Any) -> Any:
        return outcome if type(outcome) is Failure or self.kept is _NOTHING else self.kept

    def handlers(self) -> tuple[Function, ...]:
        return (self.fn,)


class Callbacks(Handler):
    """Twisted's pair: each with arguments of its own, the errback gets the `Failure`."""

    __slots__ = ("callback", "errback")

    def __init__(self, callback: Call | None, errback: Call | None) -> None:
        self.callback: Call | None = callback
        self.errback: Call | None = errback

    def select(self, outcome: Any) -> Call | None:
        call = self.errback if type(outcome) is Failure else self.callback
        return None if call is None else (call[0], (outcome, *call[1]), call[2])

    def handlers(self) -> tuple[Function, ...]:
        return tuple(call[0] for call in (self.callback, self.errback) if call is not None)


class Task(Handler):
    """A call that does not depend on the outcome before it."""

    __slots__ = ("call",)

    def __init__(self, fn: Function, args: tuple[Any, ...]) -> None:
        self.call: Call = fn, args, {}

    def select(self, outcome: Any) -> Call | None:
        return self.call

    def handlers(self) -> tuple[Function, ...]:
        return (self.call[0],)


class Expiry(Handler):
    """``timeout(seconds)``: passes everything on, and withdraws its timer when that comes in time."""

    __slots__ = ("withdraw",)

    def title(self) -> str:
        return "timeout"

    def __init__(self) -> None:
        self.withdraw: Callable[[], object] | None = None

    def finish(self, outcome: Any) -> Any:
        if self.withdraw is not None:
            self.withdraw()
        return outcome


class Held(Named):
    """The same for a stage that its scheduler knows of while it waits."""

    __slots__ = ("stage",)

    def __init__(self, name: str, stage: Any) -> None:
        super().__init__(name)
        self.stage: Any = stage

    def hold(self) -> None:
        """Let the scheduler know of it."""
        self.stage._scheduler.register(self.stage)

    def let_go(self) -> None:
        """Undo that: the stage does not wait after all, and whoever settles it may not ask its handler."""
        self.stage._handler = Named(self.name)
        self.stage._scheduler.unregister(self.stage)

    def finish(self, outcome: Any) -> Any:
        self.stage._scheduler.unregister(self.stage)
        return outcome


def step_of(stage: Any) -> Any:
    """Return the last step of the coroutine of `stage`, if it has one."""
    handler = stage._handler
    return handler.step if issubclass(type(handler), Handler) else None


def while_waiting(stage: Any) -> Any:
    """Return what stands for the handler of `stage`, which was called, while that waits for the future it returned.

    What the handler holds is let go. A local stage in the chain of an executor is to be registered there, so that a
    shutdown waits for it.
    """
    handler = stage._handler
    if issubclass(type(handler), Handler) and type(handler) not in {Then, Catch, Callbacks}:
        return handler
    if stage._on_executor or stage._scheduler.is_local:
        return Named(label(handler))
    return Held(label(handler), stage)


def check_handler(fn: Any, method: str) -> Any:
    """Return `fn` if it is callable or None.

    Raises:
        TypeError: otherwise, naming `method` and what was given.
    """
    if fn is None or callable(fn):
        return fn
    raise TypeError(f"{method}() wants a function (or None, to pass everything through), not {fn!r}")


def check_types(types: Any) -> Any:
    """Return `types` if ``except types:`` would take them.

    Raises:
        TypeError: otherwise.
    """
    each = types if isinstance(types, tuple) else (types,)
    if each and all(isinstance(one, type) and issubclass(one, BaseException) for one in each):
        return types
    raise TypeError(f"catch() wants an exception class or a tuple of them before the handler, not {types!r}")


def label(fn: Any) -> str:
    """Return the name of the user's function in a stage: that of its `Handler`, or the function's own.

    A callable that raises when it is asked for its name is called by the name of its class.
    """
    if issubclass(type(fn), Handler):
        return str(fn.title())
    try:
        name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None)
        if name is None and hasattr(fn, "func"):
            return label(fn.func)
    except Exception:
        name = None
    return str(name or type(fn).__qualname__).replace("<locals>.", "").rsplit(".", 1)[-1]
