"""The interface of ``concurrent.futures.Future`` on top of `links`: what the standard library and others call.

A subclass, so that ``isinstance`` holds, but with a state of its own (see `links`). The attributes that
``concurrent.futures.wait`` and ``as_completed`` read (``_state``, ``_condition``, ``_waiters``) are properties; a
condition is built only when one of them asks.
"""

from __future__ import annotations

import concurrent.futures as cf
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from futurechain.errors import CancelledError, InvalidStateError
from futurechain.failure import Failure
from futurechain.links import (
    PENDING,
    RUNNING,
    SILENT,
    UNCLAIMED,
    Bell,
    Callback,
    Waiter,
    attach,
    claim,
    detach,
    is_consumed,
)
from futurechain.report import HEARD
from futurechain.run import here

__all__ = ["StandardFuture", "is_cancelled"]

T = TypeVar("T")
logger = logging.getLogger("futurechain")


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
    """The list of dependents, or None; see `links`."""
    _outcome: Any
    """`PENDING`, or the value, or a `Failure`."""
    _parent: Any
    """What it waits for, until it is settled; then None."""
    _weakly_held = True
    """Whether what waits for it holds it by a weak reference: a bare future, which its producer keeps alive."""
    _hops = False
    """Whether it runs on an executor, and not in the thread that settles its parent."""
    _watched = False
    """Whether it is a stage with one function for values that was made while somebody watched."""
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

    def _start_after(self, parent: Any) -> None:
        raise NotImplementedError  # pragma: no cover  # futurechain.Future has it

    def _heard(self) -> None:
        """Note that somebody has seen how this future ended."""
        if type(self._outcome) is Failure:
            self.__dict__.setdefault("_unheard", HEARD).hear()  # whichever of the two comes second silences the report

    # -- asking ---------------------------------------------------------------------------------------------------

    def done(self) -> bool:
        """Return True if the future is settled: with a result, an error, or cancelled."""
        return self._outcome is not PENDING

    def cancelled(self) -> bool:
        """Return True if the future was cancelled."""
        return is_cancelled(self._outcome)

    def running(self) -> bool:
        """Return True while its function is being executed, here or elsewhere."""
        link = self._link
        if self._outcome is not PENDING or link is None:
            return False
        abroad = getattr(self._parent, "runs_abroad", None)
        return UNCLAIMED not in link or (abroad is not None and abroad())

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
        if outcome is PENDING:
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
        if outcome is PENDING:
            outcome = self._wait(timeout)
        if type(outcome) is not Failure:
            return None
        self._heard()
        if is_cancelled(outcome):
            raise outcome.value
        return outcome.value

    def _wait(self, timeout: float | None) -> Any:
        """Block until the future is settled; its outcome."""
        here.run.flush()  # what this very thread has put off would never come while it waits
        waiter = Waiter()
        while self._outcome is PENDING and (link := self._link) is not None:
            link.insert(0, waiter)
            if self._outcome is not PENDING:
                break
            if self._link is not link:  # forwarded in between: the old list is dead
                continue
            try:
                if not waiter.wait(timeout) and self._outcome is PENDING:
                    raise TimeoutError
            finally:
                detach(self, waiter)
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
            link.remove(UNCLAIMED)
        except (ValueError, AttributeError):
            if not claim(self, RUNNING):
                raise InvalidStateError(f"{self!r} cannot be given a result: {self._why_not()}") from None
        if type(result) is Failure:
            self._settle(result)
            return
        self._outcome = result
        settled = None
        if len(link) == 1:
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
        if not link:
            self._link = None
            if not link:
                if settled is not None:
                    settled._carry_on()
                return
            self._link = link  # somebody came in before the line above: open it again
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
        if not attach(self, callback):
            self._heard()
            run = here.run
            run.notify(self, callback)
            if not run.depth:
                run.leave()

    # -- what concurrent.futures.wait and as_completed reach for ----------------------------------------------------

    @property
    def _bell(self) -> Bell:
        bell: Bell | None = self.__dict__.get("_bell")
        if bell is None:
            fresh = Bell()
            bell = cast("Bell", self.__dict__.setdefault("_bell", fresh))  # the one step that decides whose it is
            if bell is fresh:
                self._hang(bell)
        return bell

    def _hang(self, bell: Bell) -> None:
        while self._outcome is PENDING and (link := self._link) is not None:
            link.insert(0, bell)
            if self._link is link:
                break
        if self._outcome is not PENDING:
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
            if self._outcome is PENDING or (bell is not None and not bell.rung):
                return "RUNNING" if self.running() else "PENDING"
            return "CANCELLED_AND_NOTIFIED" if self.cancelled() else "FINISHED"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled or copied: it belongs to this process; send its result instead")

    def _live(self) -> bool:
        """Tell, as a dependent, whether it still consumes its parent."""
        return self._outcome is PENDING

    def _is_consumed(self) -> bool:
        return is_consumed(self)
