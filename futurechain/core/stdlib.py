"""The interface of ``concurrent.futures.Future`` on top of `links`: what the standard library and others call.

A subclass, so that ``isinstance`` holds, but with a state of its own (see `links`). The attributes that
``concurrent.futures.wait`` and ``as_completed`` read (``_state``, ``_condition``, ``_waiters``) are properties; a
condition is built only when one of them asks.
"""

from __future__ import annotations

import concurrent.futures as cf
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from futurechain.errors import CancelledError, InvalidStateError
from futurechain.failure import Failure
from futurechain.core.state import (
    RUNNING,
    SILENT,
    TICKET,
    Bell,
    Callback,
    Pending,
    Waiter,
    attach,
    claim,
    is_consumed,
    is_waiting,
    withdraw,
)
from futurechain.core.unobserved import HEARD
from futurechain.core.thread_state import here

__all__ = ["StandardFuture", "is_cancelled"]

T = TypeVar("T")
logger = logging.getLogger("futurechain")


def runs_loop() -> bool:
    """Tell whether asyncio runs in this thread; it is not imported for that."""
    asyncio: Any = sys.modules.get("asyncio.events")
    return asyncio is not None and asyncio._get_running_loop() is not None


def is_cancelled(outcome: Any) -> bool:
    """Tell whether `outcome` is a cancellation."""
    return type(outcome) is Failure and isinstance(outcome.value, CancelledError)


class StandardFuture(cf.Future[T]):
    """The standard half of `futurechain.Future`; not for use by itself."""

    __slots__ = ("_fn", "_home", "_link", "_outcome", "_parent")

    _fn: Any
    """What the stage does, until it is settled; then None."""
    _home: Any
    """Where its dependents run, and its place in the chain: a `dispatch.Place`."""
    _link: Any
    """The list of its dependents; see `links`."""
    _outcome: Any
    """`PENDING`, or the value, or a `Failure`."""
    _parent: Any
    """What it waits for, until it is settled; then None."""
    _weakly_held = True
    """Whether what waits for it holds it by a weak reference: a bare future, which its producer keeps alive."""
    _hops = False
    """Whether it runs on an executor, and not in the thread that settles its parent."""
    _record: Any = None
    """What a trace knows of it."""
    _twisted = False
    """Whether it is of Twisted's family: then a returned future means the chain of that, and not that future alone."""
    _shielded = False
    """Whether its cancellation stops there."""

    def _settle(self, outcome: Any) -> None:
        raise NotImplementedError  # pragma: no cover  # futurechain.Future has it

    def _carry_on(self) -> None:
        raise NotImplementedError  # pragma: no cover  # futurechain.Future has it

    def _before_blocking(self) -> None:
        raise NotImplementedError  # pragma: no cover  # futurechain.Future has it

    def _leave(self) -> None:
        raise NotImplementedError  # pragma: no cover  # futurechain.Future has it

    def _heard(self) -> None:
        """Note that somebody has seen how this future ended."""
        if type(self._outcome) is Failure:
            self.__dict__.setdefault("_unheard", HEARD).hear()  # whichever of the two comes second silences the report

    # -- asking ---------------------------------------------------------------------------------------------------

    def done(self) -> bool:
        """Return True if the future is settled: with a result, an error, or cancelled."""
        return type(self._outcome) is not Pending

    def cancelled(self) -> bool:
        """Return True if the future was cancelled."""
        return is_cancelled(self._outcome)

    def running(self) -> bool:
        """Return True while its function is being executed, here or elsewhere."""
        abroad = getattr(self._parent, "runs_abroad", None)
        return type(self._outcome) is Pending and (not is_waiting(self) or (abroad is not None and abroad()))

    def result(self, timeout: float | None = None) -> T:
        """Return this future's own value, waiting for it if needed.

        Args:
            timeout: how many seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: if the future is not settled in time.
            CancelledError: if it was cancelled.
            BaseException: the error with which it failed.
        """
        outcome = self._outcome
        if type(outcome) is Pending:
            outcome = self._wait(timeout)
        if type(outcome) is not Failure:
            return cast("T", outcome)
        self._heard()
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
        """
        outcome = self._outcome
        if type(outcome) is Pending:
            outcome = self._wait(timeout)
        if type(outcome) is not Failure:
            return None
        self._heard()
        if is_cancelled(outcome):
            raise outcome.value
        return outcome.value

    def _wait(self, timeout: float | None) -> Any:
        """Block until the future is settled; its outcome."""
        self._before_blocking()
        waiter = Waiter()
        self._link.insert(0, waiter)
        try:
            if type(self._outcome) is Pending and not waiter.wait(timeout) and type(self._outcome) is Pending:
                raise TimeoutError
        finally:
            withdraw(self._link, waiter)
        return self._outcome

    # -- telling --------------------------------------------------------------------------------------------------

    def set_running_or_notify_cancel(self) -> bool:
        """Mark the future as running; for whoever produces its result, before the work begins.

        Returns:
            False if it was cancelled, and the work is not wanted any more.

        Raises:
            InvalidStateError: if it is running or settled already.
        """
        if claim(self):
            self._link.insert(0, RUNNING)
            return True
        if self.cancelled():
            return False
        raise InvalidStateError(f"{self!r} cannot be set running: it is {str(self._state).lower()} already")

    def set_result(self, result: T) -> None:
        """Settle the future with a value; runs local dependents in this thread.

        Raises:
            InvalidStateError: if it is settled, or is a stage that its chain settles.
        """
        link = self._link
        try:
            link.remove(TICKET)
        except ValueError:
            if not claim(self, RUNNING):
                raise InvalidStateError(f"{self!r} cannot be given a result: {self._why_not()}") from None
        if type(result) is Failure:
            self._settle(result)
            return
        self._outcome = result
        settled = None
        if link:
            try:
                entry = link[0]
                if type(entry) in SILENT:
                    link.remove(entry)
                    entry.count()
                    if not entry.left:
                        settled = entry.complete()
            except (IndexError, ValueError):  # it was taken back just now
                pass
            entry = None  # no cycle: a traceback may keep this frame
        if link or link.copy():  # the copy takes the list's lock: a plain look might be older than our outcome
            self._carry_on()
        if settled is not None:
            settled._carry_on()

    def _give_result(self, result: T) -> None:
        """Do what `set_result` does, for a stage, which may have a plan and a place on an executor."""
        if not (claim(self) or claim(self, RUNNING)):
            raise InvalidStateError(f"{self!r} cannot be given a result: {self._why_not()}")
        self._settle(result)

    def set_exception(self, exception: BaseException | None) -> None:
        """Settle the future with an error; runs local dependents in this thread.

        Raises:
            TypeError: if `exception` is not an exception.
            InvalidStateError: if it is settled, or is a stage that its chain settles.
        """
        if isinstance(exception, type) and issubclass(exception, BaseException):
            exception = exception()
        if not isinstance(exception, BaseException):
            raise TypeError(f"set_exception() wants an exception such as ValueError('...'), not {exception!r}")
        if not (claim(self) or claim(self, RUNNING)):
            raise InvalidStateError(f"{self!r} cannot be given an error: {self._why_not()}")
        self._settle(Failure(exception))

    def _why_not(self) -> str:
        state = "cancelled" if self.cancelled() else str(self._state).lower()
        return f"it is {state} already" if self.done() else "the chain it belongs to is settling it"

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call ``fn(self)`` when the future is settled; at once, in this thread, if it is.

        An exception in `fn` is logged (logger ``futurechain``) and harms nobody, whatever its class.

        Raises:
            TypeError: if `fn` is not callable.
        """
        if not callable(fn):
            raise TypeError(f"add_done_callback() wants a function of one future, not {fn!r}")
        self._heard()
        callback = Callback(fn)
        if attach(self, callback):
            self._before_waiting()
            return
        self._heard()
        here.run.notify(self, callback)
        self._leave()

    def _before_waiting(self) -> None:
        """Work off what this thread has put off, if it is about to return to an event loop that a handler runs."""
        run = here.run
        if (run.stack or run.later or run.carried) and runs_loop():
            self._before_blocking()

    # -- what concurrent.futures.wait and as_completed reach for ----------------------------------------------------

    @property
    def _bell(self) -> Bell:
        self._before_blocking()
        bell: Bell | None = self.__dict__.get("_bell")
        if bell is None:
            fresh = Bell()
            bell = cast("Bell", self.__dict__.setdefault("_bell", fresh))  # the one step that decides whose it is
            if bell is fresh:
                self._hang(bell)
        return bell

    def _hang(self, bell: Bell) -> None:
        if not self.done():
            self._link.insert(0, bell)
        if self.done():
            bell.fire(self, self._outcome)

    if not TYPE_CHECKING:  # for a type checker they stay the attributes of the standard class

        @property
        def _condition(self) -> Any:
            return self._bell.condition

        @property
        def _waiters(self) -> list[Any]:
            return self._bell.waiters

        @property
        def _state(self) -> str:
            bell = self.__dict__.get("_bell")
            if not self.done() or (bell is not None and not bell.rung):
                return "RUNNING" if self.running() else "PENDING"
            return "CANCELLED_AND_NOTIFIED" if self.cancelled() else "FINISHED"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled or copied: it belongs to this process; send its result instead")

    def _live(self) -> bool:
        """Tell, as a dependent, whether it still consumes its parent."""
        return not self.done()

    def _is_consumed(self) -> bool:
        return is_consumed(self)
