"""Waiting without a thread: `delay`, and `retry` by the policies of tenacity."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, cast, overload
from weakref import ref

from futurechain import clock
from futurechain.core import callback_threads
from futurechain.core.attaching import attach_stage
from futurechain.core.handlers import Named, Task
from futurechain.core.loop import HERE, WAITING_KINDS, settle
from futurechain.core.scheduler import Scheduler, scheduler_of
from futurechain.core.state import attach, claim, new_pending
from futurechain.core.thread_state import ThreadState
from futurechain.executors.inline import INLINE
from futurechain.executors.pool import check_travels
from futurechain.future import Future, LocalStage, Returned, Waited, succeed

__all__ = ["Policy", "check_policy", "delay", "retry"]

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

    Example:
        >>> delay(0.01, "late").result()
        'late'
    """
    seconds = clock.check_seconds(seconds, "delay()")
    timed = _Timed()
    future: Any = new_pending(LocalStage, Named("delay"), HERE, timed)
    timed.timer = clock.call_later(seconds, _ring, future, value)
    return cast("Future[Any]", future)


def _ring(future: Any, value: Any) -> None:
    if claim(future):
        callback_threads.run(partial(settle, future, value))


class Policy(Protocol):
    """What `retry` needs of a policy; tenacity's ``Retrying`` has it."""

    def copy(self) -> Any:
        """Return one of its own for each call of `retry`."""

    def begin(self) -> None:
        """Get ready for the first attempt."""

    def iter(self, retry_state: Any) -> object:
        """Return what to do next."""


@overload
def retry(
    fn: Callable[..., Waited[T]], *args: Any, policy: Policy, on: cf.Executor = INLINE, **kwargs: Any
) -> Future[T]: ...
@overload
def retry(
    fn: Callable[..., Returned[T]], *args: Any, policy: Policy, on: cf.Executor = INLINE, **kwargs: Any
) -> Future[T]: ...
def retry(
    fn: Callable[..., Any], *args: Any, policy: Policy, on: cf.Executor = INLINE, **kwargs: Any
) -> Future[Any]:
    """Call ``fn(*args, **kwargs)``, again and again as `policy` says; return the future of the result.

    No worker is held while it waits for the next attempt. Cancelling withdraws the attempt or the wait. When the policy
    gives up, the future fails with the last error; the chain of its causes ends in an ``ExceptionGroup`` of the earlier
    ones, wherever the attempts ran.

    Args:
        fn: what to call; may return a future.
        args: its arguments.
        policy: a ``tenacity.Retrying``, with its ``stop``, ``wait`` and ``retry``.
        on: the executor for the attempts.
        kwargs: further arguments of `fn`. (One that is called ``policy`` or ``on`` goes into a ``functools.partial``.)

    Raises:
        ImportError: without tenacity; the extra ``futurechain[retry]`` brings it.
        TypeError: if `fn` is not callable, or `policy` is no policy; or `fn` is an ``async def`` function, and `on`
            does not share our memory.

    Example:
        >>> policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.5))
        >>> retry(int, "101", base=2, policy=policy, on=pool).then(hex).result()
        '0x5'
    """
    if not callable(fn):
        raise TypeError(f"retry() wants a function first, not {fn!r}")
    scheduler = scheduler_of(on)
    check_travels(fn, scheduler, "retry()")
    tenacity = check_policy(policy, "policy= of retry()")
    attempts = _Attempts(fn, args, kwargs, policy, on, tenacity)
    whole = succeed(None).then(attempts.step)
    attempts.whole = ref(whole)
    try:
        scheduler.register(whole)
        if not attach(whole, _Registered(scheduler, attempts)):
            scheduler.unregister(whole)
    except BaseException:  # Ctrl-C: nobody gets it, and a shutdown must not wait for it
        scheduler.unregister(whole)
        raise
    return whole


def check_policy(policy: Any, name: str) -> Any:
    """Refuse what is no policy, and say what it should be; return the module that policies come from.

    Args:
        policy: what was given.
        name: as what it was given.

    Raises:
        ImportError: without tenacity.
        TypeError: if it is none.
    """
    try:
        import tenacity
    except ImportError:
        raise ImportError(f"{name} needs tenacity: install the extra futurechain[retry]") from None
    if isinstance(policy, tenacity.Retrying):
        return tenacity
    parts = {"stop": tenacity.stop.stop_base, "wait": tenacity.wait.wait_base, "retry": tenacity.retry_base}
    hint = "".join(f": write Retrying({name}=...)" for name, kind in parts.items() if isinstance(policy, kind))
    if isinstance(policy, type) and issubclass(policy, tenacity.Retrying):
        hint = ": call it"
    elif isinstance(policy, tenacity.AsyncRetrying):
        hint = ": an event loop's policy is not needed, the waiting is done here"
    raise TypeError(f"{name} wants a tenacity.Retrying(stop=..., wait=..., retry=...), not {policy!r}{hint}")


class _Registered:
    """A dependent that tells the executor and the attempts when all of it is over; it is no consumer."""

    __slots__ = ("_attempts", "_scheduler")

    def __init__(self, scheduler: Scheduler, attempts: _Attempts) -> None:
        self._scheduler = scheduler
        self._attempts = attempts

    def _is_waiting(self) -> bool:
        return False

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> None:
        self._scheduler.unregister(future)
        self._attempts.stop()


WAITING_KINDS.add(_Registered)


class _Attempts:
    """Drives a policy: each of its steps ends with a value, or with a future that goes on with the next.

    Who cancels the whole while the policy is asked finds nothing to cancel yet. So what goes on is noted before the
    whole is looked at, and whoever ends the whole looks for it after that: one of them sees the other.
    """

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], policy: Any, on: Any, tenacity: Any
    ) -> None:
        self._task = Task(fn, args)
        self._task.call = fn, args, kwargs
        self._policy = policy.copy()
        self._on = on
        self._tenacity = tenacity
        self._state = tenacity.RetryCallState(self._policy, fn, args, kwargs)
        self._errors: list[BaseException] = []
        self._following: Future[Any] | None = None
        self.whole: Callable[[], Future[Any] | None] = lambda: None

    def step(self, _: object) -> Any:
        """Ask the policy what to do, and do it."""
        if not self._policy.statistics:  # tenacity keeps them for each thread
            self._policy.begin()
        try:
            do = self._policy.iter(retry_state=self._state)
        except BaseException as error:
            last = self._final_error(error)
            _attach_earlier(last, self._errors)
            raise last  # noqa: B904  # whose causes tell all
        if isinstance(do, self._tenacity.DoAttempt):
            attempt = attach_stage(succeed(None), self._task, self._on)
            return self._go_on(attempt.then(self._succeeded, self._failed, on=INLINE))
        if isinstance(do, self._tenacity.DoSleep):
            self._state.prepare_for_next_attempt()
            return self._go_on(delay(float(do)).then(self.step))
        return do

    def _go_on(self, following: Future[Any]) -> Future[Any]:
        """Go on with `following`, unless nobody wants that any more."""
        self._following = following
        whole = self.whole()
        if whole is not None and whole.done():
            following.cancel()
        return following

    def stop(self) -> None:
        """Withdraw what was to follow: all of it is over."""
        if self._following is not None:
            self._following.cancel()

    def _succeeded(self, value: Any) -> Any:
        self._state.set_result(value)
        return self.step(None)

    def _failed(self, error: BaseException) -> Any:
        self._errors.append(error)
        self._state.set_exception((type(error), error, error.__traceback__))
        return self.step(None)

    def _final_error(self, error: Any) -> BaseException:
        """Return what to fail with: of tenacity's own error only what it stands for, which was raised last."""
        if type(error) is self._tenacity.RetryError and error.last_attempt.failed:
            return self._errors[-1]
        return cast("BaseException", error)


def _attach_earlier(last: BaseException, errors: Sequence[BaseException]) -> None:
    """Let the causes of `last` end in a group of the `errors` that are not among them.

    It is attached here, not where `fn` was called: causes get lost when an exception is pickled.
    """
    causes = {id(last): last}  # by identity: errors may be equal
    tail = last
    while tail.__cause__ is not None and id(tail.__cause__) not in causes:
        tail = tail.__cause__
        causes[id(tail)] = tail
    earlier = [error for error in errors if id(error) not in causes]
    if not earlier or tail.__cause__ is not None:  # a ring of causes has no end
        return
    group = BaseExceptionGroup(f"{len(earlier)} earlier attempt{'s' * (len(earlier) > 1)} failed", earlier)
    if not tail.__suppress_context__:
        group.__context__ = tail.__context__  # which is not shown any more once there is a cause
    tail.__cause__ = group
