"""How callbacks are added to a Deferred, in exact types: most of this is overloads."""

from __future__ import annotations

import concurrent.futures as cf
import types
from collections.abc import Callable, Coroutine, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    overload,
)

from futurechain.core.handlers import check_handler
from futurechain.defer.engine import run
from futurechain.defer.state import State, fire, reserve_room
from futurechain.failure import Failure

if TYPE_CHECKING:
    from futurechain.defer.deferred import Deferred

__all__ = ["Adding", "Outcome", "Waited"]

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
Waited: TypeAlias = Union["Deferred[U]", cf.Future[U], Coroutine[Any, Any, U]]
"""What a callback may return to have its Deferred wait."""
Outcome: TypeAlias = Union[U, "Deferred[U]", cf.Future[U], Coroutine[Any, Any, U], Failure]
"""What a callback may return."""
_NO_KEYWORDS: Mapping[str, Any] = types.MappingProxyType({})


class Adding(State, Generic[T]):
    """The methods of a Deferred that add callbacks."""

    @overload
    def addCallbacks(
        self,
        callback: Callable[..., Outcome[U]],
        errback: None = None,
        callbackArgs: tuple[Any, ...] = ...,
        callbackKeywords: Mapping[str, Any] = ...,
        errbackArgs: tuple[Any, ...] = ...,
        errbackKeywords: Mapping[str, Any] = ...,
    ) -> Deferred[U]: ...
    @overload
    def addCallbacks(
        self,
        callback: None,
        errback: Callable[..., Outcome[U]] | None = None,
        callbackArgs: tuple[Any, ...] = ...,
        callbackKeywords: Mapping[str, Any] = ...,
        errbackArgs: tuple[Any, ...] = ...,
        errbackKeywords: Mapping[str, Any] = ...,
    ) -> Deferred[T | U]: ...
    @overload
    def addCallbacks(
        self,
        callback: Callable[..., Outcome[U]],
        errback: Callable[..., Outcome[V]],
        callbackArgs: tuple[Any, ...] = ...,
        callbackKeywords: Mapping[str, Any] = ...,
        errbackArgs: tuple[Any, ...] = ...,
        errbackKeywords: Mapping[str, Any] = ...,
    ) -> Deferred[U | V]: ...
    def addCallbacks(
        self,
        callback: Any,
        errback: Any = None,
        callbackArgs: tuple[Any, ...] = (),
        callbackKeywords: Mapping[str, Any] = _NO_KEYWORDS,
        errbackArgs: tuple[Any, ...] = (),
        errbackKeywords: Mapping[str, Any] = _NO_KEYWORDS,
    ) -> Deferred[Any]:
        """Add a pair, of which exactly one will run; return this Deferred.

        Args:
            callback: called as ``callback(result, *callbackArgs, **callbackKeywords)``.
            errback: called as ``errback(failure, *errbackArgs, **errbackKeywords)``.
            callbackArgs, callbackKeywords, errbackArgs, errbackKeywords: further arguments.

        Raises:
            TypeError: if one of the two is neither callable nor None.

        Example:
            >>> succeed("101").addCallbacks(int, lambda failure: 0, callbackArgs=(2,)).result
            5
        """
        check_handler(callback, "addCallbacks")
        check_handler(errback, "addCallbacks")
        first = tuple(callbackArgs or ()), dict(callbackKeywords or {})
        second = tuple(errbackArgs or ()), dict(errbackKeywords or {})
        return self._add((callback, errback, (first, second) if any((*first, *second)) else None))

    @overload
    def addCallback(self, callback: None) -> Deferred[T]: ...
    @overload
    def addCallback(
        self, callback: Callable[Concatenate[T, P], Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[Any]: ...
    @overload
    def addCallback(
        self, callback: Callable[Concatenate[T, P], Waited[U] | Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[U]: ...
    @overload
    def addCallback(
        self, callback: Callable[Concatenate[T, P], Outcome[U]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[U]: ...
    def addCallback(self, callback: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Add ``callback(result, *args, **kwargs)``; return this Deferred.

        Raises:
            TypeError: if `callback` is neither callable nor None.

        Example:
            >>> succeed("101").addCallback(int, base=2).result
            5
        """
        if not callable(callback):
            check_handler(callback, "addCallback")
        self._callbacks.append((callback, None, ((args, kwargs),) if args or kwargs else None))
        if not self.called:
            return cast("Deferred[Any]", self)
        try:  # as in `_add`
            run(self)
            return cast("Deferred[Any]", self)
        finally:
            del self

    @overload
    def addErrback(self, errback: None) -> Deferred[T]: ...
    @overload
    def addErrback(
        self, errback: Callable[Concatenate[Failure, P], Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...
    @overload
    def addErrback(
        self, errback: Callable[Concatenate[Failure, P], Waited[U] | Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T | U]: ...
    @overload
    def addErrback(
        self, errback: Callable[Concatenate[Failure, P], Outcome[U]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T | U]: ...
    def addErrback(self, errback: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Add ``errback(failure, *args, **kwargs)``; return this Deferred.

        Raises:
            TypeError: if `errback` is neither callable nor None.

        Example:
            >>> fail(KeyError("k")).addErrback(lambda failure: failure.getErrorMessage()).result
            "'k'"
        """
        check_handler(errback, "addErrback")
        return self._add((None, errback, ((), (args, kwargs)) if args or kwargs else None))

    @overload
    def addBoth(self, callback: None) -> Deferred[T]: ...
    @overload
    def addBoth(
        self, callback: Callable[Concatenate[T | Failure, P], Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[Any]: ...
    @overload
    def addBoth(
        self, callback: Callable[Concatenate[T | Failure, P], Waited[U] | Failure], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[U]: ...
    @overload
    def addBoth(
        self, callback: Callable[Concatenate[T | Failure, P], Outcome[U]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[U]: ...
    def addBoth(self, callback: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Add ``callback(result_or_failure, *args, **kwargs)``; return this Deferred.

        Raises:
            TypeError: if `callback` is neither callable nor None.

        Example:
            >>> succeed(5).addBoth(print, "pounds").result
            5 pounds
        """
        check_handler(callback, "addBoth")
        return self._add((callback, callback, ((args, kwargs),) * 2 if args or kwargs else None))

    def _add(self, entry: tuple[Any, Any, Any]) -> Deferred[Any]:
        self._callbacks.append(entry)  # before looking: see the engine
        try:
            if self.called:
                run(self)
            return cast("Deferred[Any]", self)
        finally:
            del self, entry  # no cycle: a traceback may keep this frame

    def chainDeferred(self, d: Deferred[T]) -> Deferred[None]:
        """Fire `d` with the outcome of this Deferred, whose own result is None from then on; return this Deferred.

        Example:
            >>> d = Deferred().addCallback(print)
            >>> succeed(5).chainDeferred(d).result
            5
        """
        reserve_room(self)
        return cast("Deferred[None]", self._add((None, None, _Chained(d))))


class _Chained:
    """A relay: fires the Deferred that `chainDeferred` was given."""

    __slots__ = ("deferred",)

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.deferred = deferred

    def take(self, outcome: Any) -> Any:
        """Fire it; the caller runs its callbacks."""
        fired = fire(self.deferred, outcome)
        if fired is None:
            self.deferred._forgive()
        return fired
