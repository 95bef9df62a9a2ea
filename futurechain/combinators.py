"""Several futures in one: all of them, the first good one, the first at all, some of them, a fold over them.

Each takes any ``concurrent.futures.Future``, the same one more than once if need be, and leaves one link in each. A
link counts as a consumer. When the outcome is decided, or the combination is cancelled, all links are taken back, and
what nobody else consumes is cancelled; so a long-lived future that is raced again and again holds no trace of it. Who
decides is settled by the one claim on the combination; results are stored before a token is popped from ``left``, so
that whoever finds it empty finds all of them.
"""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, TypeVar, cast, overload

from futurechain.errors import CancelledError
from futurechain.failure import Failure
from futurechain.future import INLINE, Future, Local, carry_on, give_up, release, succeed, wrap_future
from futurechain.links import PENDING, UNCLAIMED, attach, claim
from futurechain.plans import Plan

__all__ = ["first", "gather", "race", "reduce", "some"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")


class _Group:
    """What a combination waits for; knows when it has enough."""

    __slots__ = ("left", "links", "target", "values")

    def __init__(self, futures: Iterable[cf.Future[Any]]) -> None:
        self.links = [_Link(self, number, wrap_future(future)) for number, future in enumerate(futures)]
        self.values: list[Any] = [PENDING] * len(self.links)
        self.left = [None] * len(self.links)
        self.target: Any = Local()
        self.target._fn = Plan()
        self.target._home = INLINE._home.at(1)
        self.target._link, self.target._outcome, self.target._parent = [UNCLAIMED], PENDING, self

    def start(self) -> Future[Any]:
        """Attach to everything; the combination."""
        links = tuple(self.links)
        for link in links:
            link.source._heard()
            if not attach(link.source, link) and link.fire(link.source, link.source._outcome) is not None:
                carry_on(self.target)
            if self.target._outcome is not PENDING:
                _take_back(links)  # decided already, and not all were attached then
                break
        return cast("Future[Any]", self.target)

    def arrive(self, number: int, outcome: Any) -> Any:
        """Take in one outcome; that of the combination, or PENDING."""
        raise NotImplementedError  # pragma: no cover

    def is_last(self) -> bool:
        """Count one arrival; True if everything has arrived (perhaps for more than one: the claim decides)."""
        self.left.pop()
        return not self.left

    def sources(self) -> list[Any]:
        """Return what the combination waits for."""
        return [link.source for link in self.links]

    def abandon(self, child: Any) -> None:
        """Take all links back, and cancel what nobody else consumes."""
        _take_back(tuple(self.links))


def _take_back(links: Iterable[_Link]) -> None:
    for link in links:
        parent = release(link.source, link)
        if parent is not None:
            give_up(parent, Failure(CancelledError()))


class _Link:
    """The entry of a combination in one of its futures."""

    __slots__ = ("group", "number", "source")

    def __init__(self, group: _Group, number: int, source: Any) -> None:
        self.group = group
        self.number = number
        self.source = source

    def _live(self) -> bool:
        return self.group.target._outcome is PENDING

    def fire(self, future: Any, outcome: Any) -> Any:
        """Tell the group; the combination, if that settled it."""
        group = self.group
        decided = group.arrive(self.number, outcome)
        if decided is PENDING or not claim(group.target):
            return None
        return _conclude(group, decided)


def _conclude(group: _Group, outcome: Any) -> Any:
    target = group.target
    target._outcome, target._fn, target._parent = outcome, None, None
    if group.left:
        group.abandon(target)
    group.links.clear()
    return target


class _All(_Group):
    """Everything, in order; or the first failure."""

    __slots__ = ()

    def arrive(self, number: int, outcome: Any) -> Any:
        if type(outcome) is Failure:
            return outcome
        self.values[number] = outcome
        return tuple(self.values) if self.is_last() else PENDING


class _Settled(_Group):
    """Everything, in order, with exceptions in the place of results that are none."""

    __slots__ = ()

    def arrive(self, number: int, outcome: Any) -> Any:
        self.values[number] = outcome.value if type(outcome) is Failure else outcome
        return tuple(self.values) if self.is_last() else PENDING


class _Race(_Group):
    """The first to settle."""

    __slots__ = ()

    def arrive(self, number: int, outcome: Any) -> Any:
        return outcome


class _Some(_Group):
    """The first `wanted` successes, as they come; or all failures, in order, once that cannot be any more."""

    __slots__ = ("errors", "found", "single", "wanted")

    def __init__(self, futures: Iterable[cf.Future[Any]], wanted: int, *, single: bool = False) -> None:
        super().__init__(futures)
        self.wanted = wanted
        self.single = single
        self.found: list[Any] = []
        self.errors: dict[int, BaseException] = {}

    def arrive(self, number: int, outcome: Any) -> Any:
        if type(outcome) is not Failure:
            self.found.append(outcome)
            found = self.found[: self.wanted]
            return PENDING if len(found) < self.wanted else found[0] if self.single else found
        self.errors[number] = outcome.value
        errors = dict(self.errors)
        if len(self.values) - len(errors) >= self.wanted:
            return PENDING
        return Failure(BaseExceptionGroup(self.complaint(), [errors[key] for key in sorted(errors)]))

    def complaint(self) -> str:
        """Return the message for too many failures."""
        return f"{self.wanted} of {len(self.values)} futures were to succeed, and cannot any more"


@overload
def gather(f1: cf.Future[T1], /, *, return_exceptions: Literal[False] = False) -> Future[tuple[T1]]: ...
@overload
def gather(
    f1: cf.Future[T1], f2: cf.Future[T2], /, *, return_exceptions: Literal[False] = False
) -> Future[tuple[T1, T2]]: ...
@overload
def gather(
    f1: cf.Future[T1], f2: cf.Future[T2], f3: cf.Future[T3], /, *, return_exceptions: Literal[False] = False
) -> Future[tuple[T1, T2, T3]]: ...
@overload
def gather(
    f1: cf.Future[T1],
    f2: cf.Future[T2],
    f3: cf.Future[T3],
    f4: cf.Future[T4],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Future[tuple[T1, T2, T3, T4]]: ...
@overload
def gather(*futures: cf.Future[T], return_exceptions: Literal[False] = False) -> Future[tuple[T, ...]]: ...
@overload
def gather(*futures: cf.Future[T], return_exceptions: bool) -> Future[tuple[T | BaseException, ...]]: ...
def gather(*futures: cf.Future[Any], return_exceptions: bool = False) -> Future[Any]:
    """Return a future of all results, in order, as a tuple.

    Fails with the first error; what nobody else consumes is cancelled then. Linear in the number of futures.

    Args:
        futures: any futures.
        return_exceptions: put an exception where a result would be, and fail never.

    Raises:
        TypeError: if something is no future.
    """
    if not futures:
        return succeed(())
    return (_Settled if return_exceptions else _All)(futures).start()


def race(*futures: cf.Future[T]) -> Future[T]:
    """Return a future of whatever settles first, result or error; the others are cancelled if nobody else uses them.

    Raises:
        ValueError: without futures: nothing would ever come.
        TypeError: if something is no future.
    """
    _refuse_nothing("race", futures)
    return cast("Future[T]", _Race(futures).start())


def first(*futures: cf.Future[T]) -> Future[T]:
    """Return a future of the first success; fails with an ``ExceptionGroup`` of all errors, in order, if there is none.

    Raises:
        ValueError: without futures.
        TypeError: if something is no future.
    """
    _refuse_nothing("first", futures)
    return cast("Future[T]", _Some(futures, 1, single=True).start())


def some(n: int, *futures: cf.Future[T]) -> Future[list[T]]:
    """Return a future of the first `n` results, as they come.

    Fails with an ``ExceptionGroup`` of the errors, in order, as soon as there cannot be so many any more.

    Raises:
        ValueError: if `n` is negative, or larger than the number of futures.
        TypeError: if `n` is no whole number, or something is no future.
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"some() wants a whole number before the futures, not {n!r}")
    if not 0 <= n <= len(futures):
        raise ValueError(f"some({n}) of {len(futures)} futures can never be")
    return succeed([]) if n == 0 else cast("Future[list[T]]", _Some(futures, n).start())


def reduce(fn: Callable[[Any, Any], Any], futures: Iterable[cf.Future[Any]], initial: Any) -> Future[Any]:
    """Return a future of the fold over the results: ``fn(fn(initial, first), second)`` and so on, in order.

    Args:
        fn: called with the value so far and the next result, in the thread that settles; may return a future.
        futures: any futures.
        initial: the value to begin with.

    Raises:
        TypeError: if `fn` is not callable, or something is no future.
    """
    if not callable(fn):
        raise TypeError(f"reduce() wants a function of two arguments first, not {fn!r}")
    return gather(*futures).then(lambda values: _fold(fn, iter(values), initial))


def _fold(fn: Callable[[Any, Any], Any], values: Any, total: Any) -> Any:
    for value in values:
        total = fn(total, value)
        if isinstance(total, cf.Future):
            return wrap_future(total).then(partial(_fold, fn, values), on=INLINE)
    return total


def _refuse_nothing(name: str, futures: tuple[Any, ...]) -> None:
    if not futures:
        raise ValueError(f"{name}() of nothing would never settle: give it one future at least")
