"""The interface of ``concurrent.futures.Future`` on top of `state`: what the standard library and others call.

A subclass, so that ``isinstance`` holds, but with a state of its own. The attributes that ``concurrent.futures.wait``
and ``as_completed`` read (``_state``, ``_condition``, ``_waiters``) are properties; a condition is built only when one
of them asks.
"""

from __future__ import annotations

import concurrent.futures as cf
import sys
from _thread import LockType, allocate_lock
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import TIMEOUT_MAX, Condition, RLock
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from futurechain.core.loop import (
    HERE,
    WAITING_KINDS,
    is_queued_here,
    leave_handlers,
    run_dependents,
    settle,
    take_queued,
    work_off,
)
from futurechain.core.state import (
    PENDING,
    REPEATABLE,
    RUNNING,
    TICKET,
    Pending,
    State,
    attach,
    claim,
    is_unclaimed,
    withdraw,
)
from futurechain.core.thread_state import ThreadState, blocked, current
from futurechain.core.unobserved import OBSERVED, log_error
from futurechain.errors import CancelledError, InvalidStateError
from futurechain.failure import Failure

__all__ = ["DoneCallback", "StandardFuture", "WaitCondition", "Waiter", "is_cancelled", "outcome_of"]

T = TypeVar("T")


def is_cancelled(outcome: Any) -> bool:
    """Tell whether `outcome` is a cancellation; without asking the exception, which may raise."""
    return type(outcome) is Failure and issubclass(type(outcome.value), CancelledError)


def outcome_of(future: cf.Future[Any]) -> Any:
    """Return the outcome of a future that is done, ours or not."""
    try:
        if future.cancelled():
            return Failure(CancelledError())
        error = future.exception()
        return future.result() if error is None else Failure(error)
    except BaseException as error:
        return Failure(error)


# -- who waits, as the standard library knows it ----------------------------------------------------------------------


class Waiter:
    """A thread that is blocked in ``result()``: a bare lock of its own, and nothing that others contend for."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: LockType = allocate_lock()
        self._lock.acquire()

    def _is_waiting(self) -> bool:
        """Tell that it counts as a consumer."""
        return True

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> None:
        """Wake the thread; a second time has no effect."""
        self.wake()

    def wake(self) -> None:
        """Wake the thread, which looks around then, and may wait again."""
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        """Block for at most `timeout` seconds; True when woken."""
        return self._lock.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), TIMEOUT_MAX))


class DoneCallback:
    """A function given to ``add_done_callback``."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[Any], object]) -> None:
        self._function = function

    def _is_waiting(self) -> bool:
        """Tell that it counts as a consumer."""
        return True

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> None:
        """Call it with the future; nothing that it raises gets any further."""
        try:
            self._function(future)
        except BaseException as error:
            thread.note_interrupt(error)
            log_error("exception calling callback for %r", future, error=error)


class _CountedLock:
    """A reentrant lock; its thread knows that it holds one such, and so must not run what may wait for others."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: Any = RLock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken = bool(self._lock.acquire(blocking, timeout))
        current.thread.holds += taken
        return taken

    def release(self) -> None:
        self._lock.release()
        thread = current.thread
        thread.holds -= 1
        if not thread.holds and thread.substitute is not None:
            thread.substitute.put(None)
            thread.substitute = None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return bool(self._lock._is_owned())


class WaitCondition:
    """The condition that ``concurrent.futures.wait`` and ``as_completed`` take hold of; built when they ask.

    They read the state of several futures while holding all their conditions, and count on it that none changes
    meanwhile. So a future that has one shows itself as finished only once it has told, under its lock.
    """

    __slots__ = ("condition", "has_told", "waiters")

    def __init__(self) -> None:
        self.condition: Condition = Condition(cast("Any", _CountedLock()))
        self.waiters: list[Any] = []
        self.has_told: bool = False

    def _is_waiting(self) -> bool:
        """Tell whether anybody waits."""
        return bool(self.waiters)

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> None:
        """Tell everybody who waits, once."""
        with self.condition:
            if self.has_told:
                return
            self.has_told = True
            failed = "add_cancelled" if is_cancelled(outcome) else "add_exception"
            for waiter in self.waiters:
                getattr(waiter, failed if type(outcome) is Failure else "add_result")(future)
            self.condition.notify_all()


WAITING_KINDS.add(WaitCondition)
REPEATABLE.update((Waiter, WaitCondition))


def _runs_loop() -> bool:
    """Tell whether asyncio runs in this thread; it is not imported for that."""
    running: Any = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    return running is not None and running() is not None  # None, too, while another thread imports it


# -- the future -------------------------------------------------------------------------------------------------------


class StandardFuture(State, cf.Future[T]):
    """The standard half of `futurechain.Future`; not for use by itself."""

    __slots__ = ()

    def __init__(self) -> None:
        self._dependents = [TICKET]
        self._outcome = PENDING
        self._handler = self._source = self._chain = None
        self._scheduler = HERE

    _run_dependents = run_dependents

    def _observed(self) -> None:
        """Note that somebody has seen how this future ended."""
        if type(self._outcome) is Failure:
            self.__dict__.setdefault("_unobserved", OBSERVED).observe()  # whichever comes second silences the report

    def _before_blocking(self) -> None:
        """Do what this thread has put off, and take what the future waits for, if that is queued on our own pool."""
        thread = current.thread
        if thread.has_put_off():
            work_off(thread)
        if thread.pool is not None:
            take_queued(self, thread)

    # -- asking ---------------------------------------------------------------------------------------------------

    def done(self) -> bool:
        """Return True if the future is settled: with a result, an error, or cancelled.

        Example:
            >>> succeed(5).done(), delay(3600).done()
            (True, False)
        """
        return type(self._outcome) is not Pending

    def cancelled(self) -> bool:
        """Return True if the future was cancelled.

        Example:
            >>> succeed(5).cancelled()
            False
        """
        return is_cancelled(self._outcome)

    def running(self) -> bool:
        """Return True while its function is being executed, here or elsewhere.

        Example:
            >>> delay(3600).running()
            False
        """
        abroad = getattr(self._source, "runs_abroad", None)
        return type(self._outcome) is Pending and (not is_unclaimed(self) or (abroad is not None and abroad()))

    def result(self, timeout: float | None = None) -> T:
        """Return this future's own value, waiting for it if needed.

        Args:
            timeout: how many seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: if the future is not settled in time.
            CancelledError: if it was cancelled.
            BaseException: the error with which it failed.

        Example:
            >>> pool.submit(pow, 2, 5).result(timeout=10)
            32
        """
        outcome = self._outcome
        if type(outcome) is Pending:
            outcome = self._wait(timeout)
        if type(outcome) is not Failure:
            return cast("T", outcome)
        self._observed()
        try:
            raise outcome.value
        finally:
            del self, outcome  # no cycle: exception, traceback, this frame, exception

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error with which this future failed, or None, waiting for it if needed.

        Args:
            timeout: how many seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: if the future is not settled in time.
            CancelledError: if it was cancelled.

        Example:
            >>> pool.submit(int, "five").exception(timeout=10)
            ValueError("invalid literal for int() with base 10: 'five'")
        """
        outcome = self._outcome
        if type(outcome) is Pending:
            outcome = self._wait(timeout)
        if type(outcome) is not Failure:
            return None
        self._observed()
        if is_cancelled(outcome):
            raise outcome.value
        return outcome.value

    def _wait(self, timeout: float | None) -> Any:
        """Block until the future is settled; its outcome."""
        self._before_blocking()
        waiter = Waiter()
        self._dependents.insert(0, waiter)
        try:
            if current.thread.pool is not None:
                self._wait_in_worker(waiter, timeout)
            elif type(self._outcome) is Pending and not waiter.wait(timeout) and type(self._outcome) is Pending:
                raise TimeoutError
        finally:
            withdraw(self._dependents, waiter)
        return self._outcome

    def _wait_in_worker(self, waiter: Waiter, timeout: float | None) -> None:
        """Block, and run what this future waits for when it comes to be queued on our own pool, which wakes us then.

        Who queues, or makes a future wait for what is queued, does that first and looks for those who are blocked
        then; we say that we are blocked first, and look around then.
        """
        thread = current.thread
        deadline = None if timeout is None else monotonic() + timeout
        while type(self._outcome) is Pending:
            blocked.append(waiter)
            try:
                take_queued(self, thread)
                left = None if deadline is None else deadline - monotonic()
                if type(self._outcome) is Pending and not waiter.wait(left) and type(self._outcome) is Pending:
                    raise TimeoutError
            finally:
                withdraw(blocked, waiter)

    # -- telling --------------------------------------------------------------------------------------------------

    def set_running_or_notify_cancel(self) -> bool:
        """Mark the future as running; for whoever produces its result, before the work begins.

        Returns:
            False if it was cancelled, and the work is not wanted any more.

        Raises:
            InvalidStateError: if it is running or settled already.

        Example:
            >>> Future().set_running_or_notify_cancel()
            True
        """
        if claim(self):
            self._dependents.insert(0, RUNNING)
            return True
        if self._is_being_settled() or self.cancelled():  # in this order: it may be published in between
            return False
        raise InvalidStateError(f"{self!r} cannot be set running: it is {str(self._state).lower()} already")

    def _is_being_settled(self) -> bool:
        """Tell whether another thread cancels this bare future just now: it has the ticket, and will publish that."""
        return self._handler is None and not self.done() and RUNNING not in self._dependents

    def set_result(self, result: T) -> None:
        """Settle the future with a value; runs local dependents in this thread.

        Raises:
            InvalidStateError: if it is settled, or is a stage that its chain settles.

        Example:
            >>> future = Future()
            >>> future.set_result(5), future.result()
            (None, 5)
        """
        if not (claim(self) or claim(self, RUNNING)):
            raise InvalidStateError(f"{self!r} cannot be given a result: {self._why_not()}")
        settle(self, result)

    def set_exception(self, exception: BaseException | None) -> None:
        """Settle the future with an error; runs local dependents in this thread.

        Raises:
            TypeError: if `exception` is not an exception.
            InvalidStateError: if it is settled, or is a stage that its chain settles.

        Example:
            >>> future = Future()
            >>> future.set_exception(KeyError("k")), future.exception()
            (None, KeyError('k'))
        """
        if isinstance(exception, type) and issubclass(exception, BaseException):
            exception = exception()
        if not isinstance(exception, BaseException):
            raise TypeError(f"set_exception() wants an exception such as ValueError('...'), not {exception!r}")
        if not (claim(self) or claim(self, RUNNING)):
            raise InvalidStateError(f"{self!r} cannot be given an error: {self._why_not()}")
        try:
            settle(self, Failure(exception))
        finally:
            del self, exception  # no cycle: its traceback may come to hold this frame, if a coroutine raises it again

    def _why_not(self) -> str:
        state = "cancelled" if self.cancelled() else str(self._state).lower()
        return f"it is {state} already" if self.done() else "the chain it belongs to is settling it"

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call ``fn(self)`` when the future is settled; at once, in this thread, if it is.

        An exception in `fn` is logged (logger ``futurechain``) and harms nobody, whatever its class.

        Raises:
            TypeError: if `fn` is not callable.

        Example:
            >>> succeed(5).add_done_callback(lambda future: print(future.result()))
            5
        """
        if not callable(fn):
            raise TypeError(f"add_done_callback() wants a function of one future, not {fn!r}")
        self._observed()
        callback = DoneCallback(fn)
        if attach(self, callback):
            self._before_waiting()
            return
        self._observed()
        thread = current.thread
        callback._fire(self, self._outcome, thread)
        if not thread.depth:
            leave_handlers(thread)

    def _before_waiting(self) -> None:
        """Work off what this thread has put off, if it is about to return to an event loop that a handler runs."""
        if current.thread.has_put_off() and _runs_loop():
            self._before_blocking()

    # -- what concurrent.futures.wait and as_completed reach for ----------------------------------------------------

    @property
    def _wait_condition(self) -> WaitCondition:
        thread = current.thread
        if not thread.holds:
            self._before_blocking()
        elif thread.pool is not None and is_queued_here(self, thread):
            if thread.substitute is None:
                thread.substitute = SimpleQueue()
                thread.pool.substitute(thread.substitute)
            thread.substitute.put(self)  # run here, it could wait for whoever waits for a condition that we hold
        known: WaitCondition | None = self.__dict__.get("_waited")
        if known is None:
            fresh = WaitCondition()
            known = cast("WaitCondition", self.__dict__.setdefault("_waited", fresh))  # decides whose it is
            if known is fresh:
                self._hang(known)
        return known

    def _hang(self, condition: WaitCondition) -> None:
        if not self.done():
            self._dependents.insert(0, condition)
            if not self.done():
                return
            withdraw(self._dependents, condition)  # a second look: whoever settled it may not have seen that
        condition._fire(self, self._outcome, current.thread)

    if not TYPE_CHECKING:  # for a type checker they stay the attributes of the standard class

        @property
        def _condition(self) -> Any:
            return self._wait_condition.condition

        @property
        def _waiters(self) -> list[Any]:
            return self._wait_condition.waiters

        @property
        def _state(self) -> str:
            known = self.__dict__.get("_waited")
            if not self.done() or (known is not None and not known.has_told):
                return "RUNNING" if self.running() else "PENDING"
            return "CANCELLED_AND_NOTIFIED" if self.cancelled() else "FINISHED"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled or copied: it belongs to this process; send its result instead")

    def _is_waiting(self) -> bool:
        """Tell, as a dependent, whether it still consumes its source."""
        return not self.done()
