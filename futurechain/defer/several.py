"""Several Deferreds in one."""

from __future__ import annotations

import concurrent.futures as cf
import logging
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, cast, overload

from futurechain.defer.adding import Waited
from futurechain.defer.calls import ensureDeferred
from futurechain.defer.deferred import Deferred, fail
from futurechain.defer.errors import FailureGroup, FirstError
from futurechain.failure import Failure

__all__ = ["FAILURE", "SUCCESS", "DeferredList", "gatherResults", "race"]

SUCCESS = True
"""In a `DeferredList`'s results: this one succeeded."""
FAILURE = False
"""In a `DeferredList`'s results: this one failed."""
R = TypeVar("R")
T = TypeVar("T")
logger: logging.Logger = logging.getLogger("futurechain")


class DeferredList(Deferred[R]):
    """Fires when all of the given Deferreds have, with the list of their ``(success, result)``, in order.

    Args:
        deferredList: Deferreds; futures and coroutines too.
        fireOnOneCallback: fire with ``(result, index)`` as soon as one succeeds.
        fireOnOneErrback: fail with `FirstError` as soon as one fails.
        consumeErrors: leave None in those that fail, so that their errors are not reported.

    Raises:
        TypeError: if something in the list is none of these.

    Example:
        >>> DeferredList([succeed(5), succeed(6)]).result
        [(True, 5), (True, 6)]
    """

    @overload
    def __init__(
        self: DeferredList[list[tuple[bool, T]]],
        deferredList: Iterable[Waited[T]],
        fireOnOneCallback: Literal[False] = False,
        fireOnOneErrback: bool = False,
        consumeErrors: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: DeferredList[tuple[T, int]],
        deferredList: Iterable[Waited[T]],
        fireOnOneCallback: Literal[True],
        fireOnOneErrback: bool = False,
        consumeErrors: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: DeferredList[Any],
        deferredList: Iterable[Waited[Any]],
        fireOnOneCallback: bool = False,
        fireOnOneErrback: bool = False,
        consumeErrors: bool = False,
    ) -> None: ...
    def __init__(
        self,
        deferredList: Iterable[Any],
        fireOnOneCallback: bool = False,
        fireOnOneErrback: bool = False,
        consumeErrors: bool = False,
    ) -> None:
        super().__init__()
        self._sources = _each("DeferredList()", deferredList)
        self.resultList: list[Any] = [None] * len(self._sources)
        self.fireOnOneCallback = fireOnOneCallback
        self.fireOnOneErrback = fireOnOneErrback
        self.consumeErrors = consumeErrors
        self._left: list[None] = [None] * len(self._sources)
        if not self._sources and not fireOnOneCallback:
            self._fire(self.resultList)
        for index, one in enumerate(self._sources):
            one.addCallbacks(
                self._arrive, self._arrive, callbackArgs=(index, SUCCESS), errbackArgs=(index, FAILURE)
            )

    @property
    def finishedCount(self) -> int:
        """How many have a result.

        Example:
            >>> DeferredList([succeed(5), Deferred()]).finishedCount
            1
        """
        return len(self.resultList) - len(self._left)

    def _arrive(self, result: Any, index: int, success: bool) -> Any:
        self.resultList[index] = (success, result)
        self._left.pop()  # after storing: who finds it empty finds all results
        if success and self.fireOnOneCallback:
            self._fire((result, index))
        elif not success and self.fireOnOneErrback:
            self._fire(Failure(FirstError(result, index)))
        elif not self._left:
            self._fire(self.resultList)
        return None if self.consumeErrors and not success else result

    def cancel(self) -> None:
        """Cancel everything in the list; the results tell how that went.

        Example:
            >>> everything = DeferredList([Deferred(lambda d: d.callback("cancelled"))])
            >>> everything.cancel()
            >>> everything.result
            [(True, 'cancelled')]
        """
        if self.called:
            super().cancel()
        else:
            _cancel_each(self._sources)


def _each(name: str, deferreds: Any) -> list[Deferred[Any]]:
    """Return the Deferreds of a list of anything that can be waited for."""
    if isinstance(deferreds, (Deferred, cf.Future)) or not isinstance(deferreds, Iterable):
        raise TypeError(f"{name} wants a list of Deferreds, not {deferreds!r}")
    return [ensureDeferred(one) for one in deferreds]


def _cancel_each(deferreds: Iterable[Deferred[Any]]) -> None:
    for one in deferreds:
        try:
            one.cancel()
        except Exception:
            logger.exception("exception in the canceller of %r", one)


def gatherResults(deferredList: Iterable[Waited[T]], consumeErrors: bool = False) -> Deferred[list[T]]:
    """Return a Deferred of all results, in order; fails with `FirstError` as soon as one fails, and cancels nothing.

    Args:
        deferredList: Deferreds; futures and coroutines too.
        consumeErrors: leave None in those that fail, so that their errors are not reported.

    Raises:
        TypeError: if something in the list is none of these.

    Example:
        >>> gatherResults([succeed(5), succeed(6)]).result
        [5, 6]
    """
    everything = DeferredList(deferredList, fireOnOneErrback=True, consumeErrors=consumeErrors)
    return everything.addCallback(_results)


def _results(pairs: list[tuple[bool, T]]) -> list[T]:
    return [result for _, result in pairs]


def race(ds: Iterable[Waited[T]]) -> Deferred[tuple[int, T]]:
    """Return a Deferred of ``(index, result)`` of the first that succeeds; the others are cancelled.

    Fails with a `FailureGroup` if all fail, and with ``ValueError`` if there are none. Takes the results away: None is
    left in each.

    Args:
        ds: Deferreds; futures and coroutines too.

    Raises:
        TypeError: if something in the list is none of these.

    Example:
        >>> race([Deferred(), succeed("soon")]).result
        (1, 'soon')
    """
    sources = _each("race()", ds)
    if not sources:
        return fail(ValueError("race() of nothing would never have a result: give it one Deferred at least"))
    runners = _Race(sources)
    for index, one in enumerate(sources):
        one.addCallbacks(runners.succeeded, runners.failed, callbackArgs=(index,), errbackArgs=(index,))
    return cast("Deferred[tuple[int, T]]", runners.winner)


class _Race:
    """The state of one race."""

    def __init__(self, sources: list[Deferred[Any]]) -> None:
        self.winner: Deferred[tuple[int, Any]] = Deferred(lambda _: _cancel_each(sources))
        self._sources = sources
        self._failures: dict[int, Failure] = {}

    def succeeded(self, result: Any, index: int) -> None:
        """Win, if nobody has won before, and cancel the others."""
        if self.winner._fire((index, result)):
            _cancel_each(one for number, one in enumerate(self._sources) if number != index)

    def failed(self, failure: Failure, index: int) -> None:
        """Lose; the last one to do so ends the race."""
        self._failures[index] = failure
        failures = dict(self._failures)
        if len(failures) == len(self._sources):
            self.winner._fire(Failure(FailureGroup(failures[number] for number in sorted(failures))))

