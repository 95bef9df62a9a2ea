"""The one driver of generators and coroutines: to resume one, and to tell what it yielded from how it ended.

What is waited for, and how, is for those who use it: `coroutines` waits for futures, and `defer.calls` for Deferreds.
A `Driver` is used by one thread at a time; its owner sees to that.

The traceback of an exception keeps the frames through which it went. What is thrown into a coroutine, or comes out of
it, gets rid of ours here, so that a coroutine that has ended is no part of a reference cycle, however it ended.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, NoReturn, ParamSpec, TypeAlias, TypeVar

from futurechain.core.thread_state import current
from futurechain.core.unobserved import note_stage
from futurechain.failure import Failure

__all__ = [
    "NO_LOOP",
    "Driver",
    "Steps",
    "asyncio_loop",
    "decorate",
    "is_driving",
    "is_steps",
    "note",
    "returnValue",
    "trio_task",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Steps: TypeAlias = Generator[Any, Any, T] | Coroutine[Any, Any, T]
"""What can be driven."""
NO_LOOP = "cannot be awaited without an event loop"
_LOOPLESS = "no running event loop", "attached to a different loop", "bound to a different event loop", NO_LOOP
_traceback: Any = vars(BaseException)["__traceback__"]
"""The attribute itself: an exception's class may forbid to set it by name, as a frozen one does."""


class _Returned(BaseException):  # it is no error
    """Carries the value of `returnValue` out of a generator."""

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = value


def returnValue(value: object) -> NoReturn:
    """End the surrounding `inlineCallbacks` generator with `value`; ``return value`` does the same.

    Raises:
        TypeError: outside of such a generator.

    Example:
        >>> @inlineCallbacks
        ... def double(future):
        ...     returnValue(2 * (yield future))
        >>> double(succeed(5)).result()
        10
    """
    if not is_driving():
        raise TypeError("returnValue() ends a generator that is decorated with @inlineCallbacks: there is none here")
    raise _Returned(value)


def is_driving() -> bool:
    """Tell whether this thread is in a step of ours, and in no event loop that the step has started."""
    thread = current.thread
    return thread.drives > 0 and running_loop() is thread.loop


def running_loop() -> Any:
    """Return what stands for the event loop that runs in this thread, asyncio's or trio's, or None."""
    loop = asyncio_loop()
    return trio_task() if loop is None else loop


def asyncio_loop() -> Any:
    """Return the loop of asyncio that runs in this thread, or None; a module that is being imported has none yet."""
    running: Any = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    return None if running is None else running()


def trio_task() -> Any:
    """Return the task of trio that this thread is in, or None."""
    present: Any = getattr(getattr(sys.modules.get("trio"), "lowlevel", None), "current_task", None)
    if present is not None:
        with suppress(RuntimeError):
            return present()
    return None


def is_steps(value: object) -> bool:
    """Tell whether `value` is a coroutine or a generator."""
    return isinstance(value, (types.CoroutineType, types.GeneratorType))


class Driver:
    """Resumes one generator or coroutine, always in the one context in which its run began.

    Args:
        steps: the generator or coroutine.
    """

    __slots__ = ("context", "is_generator", "name", "steps")

    def __init__(self, steps: Steps[Any]) -> None:
        self.steps: Steps[Any] = steps
        self.is_generator: bool = isinstance(steps, types.GeneratorType)
        self.context: Context = copy_context()
        self.name: str = getattr(steps, "__qualname__", "coroutine").replace("<locals>.", "").rsplit(".", 1)[-1]

    def resume(self, outcome: Any, place: str) -> tuple[Any, bool]:
        """Send a value in, or throw a `Failure`; return what is yielded and False, or the outcome and True.

        Args:
            outcome: what was waited for.
            place: the name of the executor, for the note on an error.
        """
        run, steps = current.thread, self.steps
        outer, run.loop = run.loop, running_loop()
        run.drives += 1
        try:
            if type(outcome) is Failure:
                return self.context.run(steps.throw, outcome.value), False
            return self.context.run(steps.send, outcome), False
        except StopIteration as stop:
            return stop.value, True
        except _Returned as returned:
            steps.close()
            return returned.value, True
        except BaseException as error:
            if type(outcome) is Failure and _was_closed(error):
                return outcome, True
            run.note_interrupt(error)
            note(error, self.name, place)
            return Failure(error), True
        finally:
            run.drives -= 1
            run.loop = outer
            del self, steps, outcome  # no cycle: a traceback may keep this frame


def _was_closed(error: BaseException) -> bool:
    """Tell whether a coroutine refused to go on: the garbage collector has closed it, before what it waited for."""
    trace = _traceback.__get__(error)
    return type(error) is RuntimeError and trace is not None and trace.tb_next is None


def note(error: BaseException, name: str, place: str) -> None:
    """Take our caller's frame off the traceback of `error`, and note where it was raised; never raises."""
    trace = _traceback.__get__(error)
    if trace is not None:
        _traceback.__set__(error, trace.tb_next)
    del trace
    with suppress(Exception):  # of an error of the user's class; `note_stage` itself never raises
        note_stage(error, name, place)
        if issubclass(type(error), (RuntimeError, TypeError)) and any(text in str(error) for text in _LOOPLESS):
            error.add_note(
                f"stage {name} runs on {place}, where there is no event loop: await futures there, or run what needs "
                "a loop by asyncio.run_coroutine_threadsafe(coroutine, loop), whose future can be awaited"
            )


def decorate(fn: Callable[P, Steps[T]], start: Callable[[Steps[T]], R]) -> Callable[P, R]:
    """Return a function that calls `fn`, and starts the generator or coroutine that it returns.

    Raises:
        TypeError: if `fn` is not callable; and, at a call, if it returned neither a generator nor a coroutine.
    """
    if not callable(fn):
        raise TypeError(f"inlineCallbacks() decorates a generator function or an async function, not {fn!r}")

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            steps: Any = fn(*args, **kwargs)
        except _Returned:
            raise TypeError(_wrong(fn, "called returnValue()")) from None
        if not is_steps(steps):
            raise TypeError(_wrong(fn, f"returned {steps!r}"))
        return start(steps)

    return call


def _wrong(fn: Any, did: str) -> str:
    name = getattr(fn, "__qualname__", fn)
    return (
        f"{name} {did}, and is no generator function: @inlineCallbacks wants one (with `yield future`), or an async "
        "function (with `await future`)"
    )
