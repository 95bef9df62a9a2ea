"""Waiting without a thread: `delay`, and `retry` by the policies of tenacity."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast, overload

from futurechain import clock
from futurechain.core import callback_threads
from futurechain.core.scheduler import scheduler_of
from futurechain.core.attaching import attach_stage
from futurechain.executors.inline import INLINE
from futurechain.future import Future, LocalStage, succeed
from futurechain.core.state import claim, new_pending
from futurechain.core.handlers import Named, Task
from futurechain.core.loop import HERE, settle

__all__ = ["delay", "retry"]

P = ParamSpec("P")
T = TypeVar("T")


class _Timed:
    """The parent of a delayed future: its timer."""

    __slots__ = ("timer",)

    def __init__(self) -> None:
        self.timer: clock.Timer | None = None

    def sources(self) -> list[Any]:
        """Return the futures it waits for: none."""
        return []

    def cancel_for(self, child: Any) -> list[Any]:
        """Withdraw the timer."""
        if self.timer is not None:
            self.timer.cancel()
        return []


@overload
def delay(seconds: float, value: None = None) -> Future[None]: ...
@overload
def delay(seconds: float, value: T) -> Future[T]: ...
def delay(seconds: float, value: Any = None) -> Future[Any]:
    """Return a future that gets `value` after `seconds` seconds; no thread waits, and it can be cancelled.

    Args:
        seconds: how long from now; not negative.
        value: the result.

    Raises:
        TypeError: if `seconds` is no number.
        ValueError: if it is negative, NaN or infinite.
    """
    seconds = clock.check_seconds(seconds, "delay()")
    timed = _Timed()
    future: Any = new_pending(LocalStage, Named("delay"), HERE, timed)
    timed.timer = clock.call_later(seconds, _ring, future, value)
    return cast("Future[Any]", future)


def _ring(future: Any, value: Any) -> None:
    if claim(future):
        callback_threads.run(partial(settle, future, value))


def retry(fn: Callable[..., T], *args: Any, policy: Any, on: cf.Executor = INLINE) -> Future[T]:
    """Call ``fn(*args)``, again and again as `policy` says; return the future of the result.

    No worker is held while it waits for the next attempt. Cancelling withdraws the attempt or the wait. When the policy
    gives up, the future fails with the last error, whose ``__cause__`` is an ``ExceptionGroup`` of the earlier ones.

    Args:
        fn: what to call; may return a future.
        args: its arguments.
        policy: a ``tenacity.Retrying``, with its ``stop``, ``wait`` and ``retry``.
        on: the executor for the attempts.

    Raises:
        ImportError: without tenacity; the extra ``futurechain[retry]`` brings it.
        TypeError: if `fn` is not callable, or `policy` is no policy.
    """
    tenacity = _import_tenacity()
    if not callable(fn):
        raise TypeError(f"retry() wants a function first, not {fn!r}")
    scheduler_of(on)
    if not isinstance(policy, tenacity.Retrying):
        raise TypeError(f"retry() wants policy=tenacity.Retrying(...), not {policy!r}")
    attempts = _Attempts(fn, args, policy, on, tenacity)
    return cast("Future[T]", succeed(None).then(attempts.step))


def _import_tenacity() -> Any:
    try:
        import tenacity
    except ImportError:
        raise ImportError("retry() needs tenacity: install the extra futurechain[retry]") from None
    return tenacity


class _Attempts:
    """Drives a policy: each of its steps ends with a value, or with a future that goes on with the next."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], policy: Any, on: Any, tenacity: Any) -> None:
        self._task = Task(fn, args)
        self._policy = policy.copy()
        self._on = on
        self._tenacity = tenacity
        self._state = tenacity.RetryCallState(self._policy, fn, args, {})
        self._errors: list[BaseException] = []

    def step(self, _: object) -> Any:
        """Ask the policy what to do, and do it."""
        if not self._policy.statistics:  # tenacity keeps them for each thread
            self._policy.begin()
        try:
            do = self._policy.iter(retry_state=self._state)
        except self._tenacity.RetryError as error:
            return self._give_up(error.last_attempt)
        except BaseException as error:
            if self._errors and error is self._errors[-1]:
                return self._give_up(self._state.outcome)
            raise
        if isinstance(do, self._tenacity.DoAttempt):
            return attach_stage(succeed(None), self._task, self._on).then(self._succeeded, self._failed, on=INLINE)
        if isinstance(do, self._tenacity.DoSleep):
            self._state.prepare_for_next_attempt()
            return delay(float(do)).then(self.step)
        return do

    def _succeeded(self, value: Any) -> Any:
        self._state.set_result(value)
        return self.step(None)

    def _failed(self, error: BaseException) -> Any:
        self._errors.append(error)
        self._state.set_exception((type(error), error, error.__traceback__))
        return self.step(None)

    def _give_up(self, last: Any) -> Any:
        """Raise the last error with the earlier ones; or, where a *result* was not good enough, tenacity's own."""
        if not last.failed:
            raise self._tenacity.RetryError(last)
        *earlier, error = self._errors
        if earlier and error.__cause__ is None:
            error.__cause__ = BaseExceptionGroup(f"{len(earlier)} earlier attempts failed", earlier)
        raise error
