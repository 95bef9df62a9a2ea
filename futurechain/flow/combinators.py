"""Several futures in one: all of them, the first good one, the first at all, some of them, a fold over them.

Each takes any ``concurrent.futures.Future``, the same one more than once if need be, and leaves one entry in each: the
group, which counts as a consumer. When the outcome is decided, or the combination is cancelled, the entries are taken
back, and what nobody else consumes is cancelled; so a long-lived future that is raced again and again holds no trace
of it.

Who decides is settled by the one claim on the combination. A future is settled before its entry is fired, and an entry
pops a token from ``left``; so whoever finds that empty can read every result.
"""

from __future__ import annotations

import concurrent.futures as cf
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, cast, overload

from futurechain.core.cancel import let_go, release_all
from futurechain.core.fast import COUNTING_KINDS, attach_to_all
from futurechain.core.handlers import Named
from futurechain.core.loop import HERE, run_dependents, settle
from futurechain.core.observers import watch
from futurechain.core.state import PENDING, claim, new_pending, settle_unowned
from futurechain.core.thread_state import ThreadState, current
from futurechain.core.unobserved import rescue
from futurechain.errors import LostFutureError
from futurechain.executors.inline import INLINE
from futurechain.executors.wrapped_future import wrap_future
from futurechain.failure import Failure
from futurechain.future import Future, LocalStage, succeed

__all__ = ["first", "gather", "race", "reduce", "some"]

T = TypeVar("T")
V = TypeVar("V")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
T7 = TypeVar("T7")
T8 = TypeVar("T8")
OrError: TypeAlias = T | BaseException
"""What ``return_exceptions=True`` gives."""


class _Group:
    """What a combination waits for, and its entry in each of these; knows when it has enough."""

    __slots__ = ("distinct", "futures", "left", "whole")
    name = ""
    """Of the function that makes it."""

    def __init__(self, futures: Sequence[Future[Any]]) -> None:
        self.futures = futures
        repeated = len(set(futures)) < len(futures)  # a set is built in a quarter of the time of an ordered one
        self.distinct: Sequence[Any] = tuple(dict.fromkeys(futures)) if repeated else futures
        self.left = [None] * len(self.distinct)
        self.whole: Any = new_pending(LocalStage, Named(self.name), HERE, self)

    def start(self) -> Future[Any]:
        """Attach to everything; the combination."""
        whole, distinct = self.whole, self.distinct
        if watch.on:
            watch.attached(whole, tuple(distinct))
        for source in attach_to_all(distinct, self):
            source._observed()
            if whole._outcome is PENDING and self._fire(source, source._outcome, current.thread) is not None:
                run_dependents(whole)
        if whole._outcome is not PENDING:  # perhaps it was decided before everything was attached
            let_go(distinct, self)
        return cast("Future[Any]", whole)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:  # modules may be gone then
        whole = getattr(self, "whole", None)  # not there if a Ctrl-C came before
        if whole is not None and whole._outcome is PENDING and not is_finalizing() and claim(whole):
            error = LostFutureError("the futures this combination waits for were dropped without being settled")
            rescue(partial(settle, whole, Failure(error)))

    # -- as an entry --

    @property
    def target(self) -> Any:
        """The combination, which waits through this entry."""
        return self.whole

    def _is_waiting(self) -> bool:
        return bool(self.whole._outcome is PENDING)

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> Any:
        """Take in one outcome; the combination, if that settled it."""
        decided = self.arrive(outcome)
        return None if decided is PENDING else self._conclude(decided)

    def arrive(self, outcome: Any) -> Any:
        """Take in one outcome; that of the combination, or PENDING."""
        raise NotImplementedError  # pragma: no cover

    def _conclude(self, outcome: Any) -> Any:
        whole = self.whole
        if not settle_unowned(whole, outcome):
            return None
        self._leave()
        return whole

    def _leave(self) -> None:
        if self.left:
            let_go(self.distinct, self)
        self.futures, self.distinct = (), ()

    def _broken_off(self, error: BaseException) -> Any:
        settle_unowned(self.whole, Failure(error))
        if self.whole.done():
            self._leave()
            return self.whole
        return None

    # -- as a parent --

    def sources(self) -> Sequence[Any]:
        """Return what the combination waits for."""
        return self.distinct

    def cancel_for(self, child: Any) -> Iterator[Any]:
        """Take all entries back; what nobody else consumes, claimed."""
        return release_all(self.distinct, self)


class _All(_Group):
    """Everything, in order; or the first failure."""

    __slots__ = ("count",)
    name = "gather"

    def __init__(self, futures: Sequence[Future[Any]]) -> None:
        super().__init__(futures)
        self.count = self.left.pop

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> Any:
        """Count a success, or fail with the failure; the combination, if that settled it."""
        if type(outcome) is Failure:
            return super()._fire(future, outcome, thread)
        self.count()
        return None if self.left else self.complete()

    def complete(self) -> Any:
        """Settle the combination: everything has arrived."""
        return self._conclude(tuple([future._outcome for future in self.futures]))

    def arrive(self, outcome: Any) -> Any:
        return outcome


class _Settled(_Group):
    """Everything, in order, with exceptions in the place of results that are none."""

    __slots__ = ()
    name = "gather"

    def arrive(self, outcome: Any) -> Any:
        self.left.pop()
        if self.left:
            return PENDING
        outcomes = [future._outcome for future in self.futures]
        return tuple([one.value if type(one) is Failure else one for one in outcomes])


class _Race(_Group):
    """The first to settle."""

    __slots__ = ()
    name = "race"

    def arrive(self, outcome: Any) -> Any:
        return outcome


class _Some(_Group):
    """The first `wanted` successes, as they come; or all failures, in order, once that cannot be any more."""

    __slots__ = ("counts", "failed", "found", "single", "wanted")
    name = "some"

    def __init__(self, futures: Sequence[Future[Any]], wanted: int, *, single: bool = False) -> None:
        super().__init__(futures)
        self.counts = Counter(futures)
        self.wanted = wanted
        self.single = single
        self.found: list[Any] = []
        self.failed: list[Any] = []
        if single:
            self.whole._handler = Named("first")

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> Any:
        """Take in one outcome, as often as the future was given."""
        arrived = self.failed if type(outcome) is Failure else self.found
        arrived.extend([outcome] * self.counts[future])
        return super()._fire(future, outcome, thread)

    def arrive(self, outcome: Any) -> Any:
        if self.whole._outcome is not PENDING:
            return PENDING
        if type(outcome) is not Failure:
            if len(self.found) < self.wanted:
                return PENDING
            return self.found[0] if self.single else self.found[: self.wanted]
        futures = self.futures
        if not futures or len(futures) - len(self.failed) >= self.wanted:
            return PENDING
        errors = [future._outcome.value for future in futures if type(future._outcome) is Failure]
        text = f"{self.wanted} of {len(futures)} futures were to succeed, and cannot any more"
        return Failure(BaseExceptionGroup(text, errors))


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
def gather(
    f1: cf.Future[T1],
    f2: cf.Future[T2],
    f3: cf.Future[T3],
    f4: cf.Future[T4],
    f5: cf.Future[T5],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Future[tuple[T1, T2, T3, T4, T5]]: ...
@overload
def gather(
    f1: cf.Future[T1],
    f2: cf.Future[T2],
    f3: cf.Future[T3],
    f4: cf.Future[T4],
    f5: cf.Future[T5],
    f6: cf.Future[T6],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Future[tuple[T1, T2, T3, T4, T5, T6]]: ...
@overload
def gather(
    f1: cf.Future[T1],
    f2: cf.Future[T2],
    f3: cf.Future[T3],
    f4: cf.Future[T4],
    f5: cf.Future[T5],
    f6: cf.Future[T6],
    f7: cf.Future[T7],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Future[tuple[T1, T2, T3, T4, T5, T6, T7]]: ...
@overload
def gather(
    f1: cf.Future[T1],
    f2: cf.Future[T2],
    f3: cf.Future[T3],
    f4: cf.Future[T4],
    f5: cf.Future[T5],
    f6: cf.Future[T6],
    f7: cf.Future[T7],
    f8: cf.Future[T8],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> Future[tuple[T1, T2, T3, T4, T5, T6, T7, T8]]: ...
@overload
def gather(f1: cf.Future[T1], /, *, return_exceptions: bool) -> Future[tuple[OrError[T1]]]: ...
@overload
def gather(
    f1: cf.Future[T1], f2: cf.Future[T2], /, *, return_exceptions: bool
) -> Future[tuple[OrError[T1], OrError[T2]]]: ...
@overload
def gather(
    f1: cf.Future[T1], f2: cf.Future[T2], f3: cf.Future[T3], /, *, return_exceptions: bool
) -> Future[tuple[OrError[T1], OrError[T2], OrError[T3]]]: ...
@overload
def gather(
    f1: cf.Future[T1], f2: cf.Future[T2], f3: cf.Future[T3], f4: cf.Future[T4], /, *, return_exceptions: bool
) -> Future[tuple[OrError[T1], OrError[T2], OrError[T3], OrError[T4]]]: ...
@overload
def gather(
    f1: cf.Future[T1],
    f2: cf.Future[T2],
    f3: cf.Future[T3],
    f4: cf.Future[T4],
    f5: cf.Future[T5],
    /,
    *,
    return_exceptions: bool,
) -> Future[tuple[OrError[T1], OrError[T2], OrError[T3], OrError[T4], OrError[T5]]]: ...
@overload
def gather(
    f1: cf.Future[T1],
    f2: cf.Future[T2],
    f3: cf.Future[T3],
    f4: cf.Future[T4],
    f5: cf.Future[T5],
    f6: cf.Future[T6],
    /,
    *,
    return_exceptions: bool,
) -> Future[tuple[OrError[T1], OrError[T2], OrError[T3], OrError[T4], OrError[T5], OrError[T6]]]: ...
@overload
def gather(
    f1: cf.Future[T1],
    f2: cf.Future[T2],
    f3: cf.Future[T3],
    f4: cf.Future[T4],
    f5: cf.Future[T5],
    f6: cf.Future[T6],
    f7: cf.Future[T7],
    /,
    *,
    return_exceptions: bool,
) -> Future[tuple[OrError[T1], OrError[T2], OrError[T3], OrError[T4], OrError[T5], OrError[T6], OrError[T7]]]: ...
@overload
def gather(
    f1: cf.Future[T1],
    f2: cf.Future[T2],
    f3: cf.Future[T3],
    f4: cf.Future[T4],
    f5: cf.Future[T5],
    f6: cf.Future[T6],
    f7: cf.Future[T7],
    f8: cf.Future[T8],
    /,
    *,
    return_exceptions: bool,
) -> Future[
    tuple[OrError[T1], OrError[T2], OrError[T3], OrError[T4], OrError[T5], OrError[T6], OrError[T7], OrError[T8]]
]: ...
@overload
def gather(*futures: cf.Future[T], return_exceptions: Literal[False] = False) -> Future[tuple[T, ...]]: ...
@overload
def gather(*futures: cf.Future[T], return_exceptions: bool) -> Future[tuple[T | BaseException, ...]]: ...
def gather(*futures: cf.Future[Any], return_exceptions: bool = False) -> Future[Any]:
    """Return a future of all results, in order, as a tuple.

    Fails with the first error; what nobody else consumes is cancelled then. Linear in the number of futures. It keeps
    them alive meanwhile, a bare one too that its producer has dropped: give that a `timeout` if this can happen.

    Args:
        futures: any futures.
        return_exceptions: put an exception where a result would be, and fail never.

    Raises:
        TypeError: if something is no future.

    Example:
        >>> gather(succeed(1), pool.submit(pow, 2, 5)).result()
        (1, 32)
    """
    if not futures:
        return succeed(())
    elsewhere = getattr(type(futures[0]), "_gathered", None)  # values that are not here can be gathered where they are
    whole = None if elsewhere is None else elsewhere(futures, return_exceptions=return_exceptions)
    if whole is not None:
        return cast("Future[Any]", whole)
    return (_Settled if return_exceptions else _All)(_adopt("gather", futures)).start()


@overload
def race(f1: cf.Future[T1], f2: cf.Future[T2], /) -> Future[T1 | T2]: ...
@overload
def race(f1: cf.Future[T1], f2: cf.Future[T2], f3: cf.Future[T3], /) -> Future[T1 | T2 | T3]: ...
@overload
def race(*futures: cf.Future[T]) -> Future[T]: ...
def race(*futures: cf.Future[Any]) -> Future[Any]:
    """Return a future of whatever settles first, result or error; the others are cancelled if nobody else uses them.

    Raises:
        ValueError: without futures: nothing would ever come.
        TypeError: if something is no future.

    Example:
        >>> race(delay(3600, "late"), pool.submit(str, "soon")).result()
        'soon'
    """
    _refuse_nothing("race", futures)
    return _Race(_adopt("race", futures)).start()


@overload
def first(f1: cf.Future[T1], f2: cf.Future[T2], /) -> Future[T1 | T2]: ...
@overload
def first(f1: cf.Future[T1], f2: cf.Future[T2], f3: cf.Future[T3], /) -> Future[T1 | T2 | T3]: ...
@overload
def first(*futures: cf.Future[T]) -> Future[T]: ...
def first(*futures: cf.Future[Any]) -> Future[Any]:
    """Return a future of the first success; fails with an ``ExceptionGroup`` of all errors, in order, if there is none.

    Raises:
        ValueError: without futures.
        TypeError: if something is no future.

    Example:
        >>> first(fail(KeyError("k")), pool.submit(str, "found")).result()
        'found'
    """
    _refuse_nothing("first", futures)
    return _Some(_adopt("first", futures), 1, single=True).start()


@overload
def some(n: int, f1: cf.Future[T1], f2: cf.Future[T2], /) -> Future[list[T1 | T2]]: ...
@overload
def some(n: int, f1: cf.Future[T1], f2: cf.Future[T2], f3: cf.Future[T3], /) -> Future[list[T1 | T2 | T3]]: ...
@overload
def some(n: int, *futures: cf.Future[T]) -> Future[list[T]]: ...
def some(n: int, *futures: cf.Future[Any]) -> Future[list[Any]]:
    """Return a future of the first `n` results, as they come.

    Fails with an ``ExceptionGroup`` of the errors, in order, as soon as there cannot be so many any more.

    Raises:
        ValueError: if `n` is negative, or larger than the number of futures.
        TypeError: if `n` is no whole number, or something is no future.

    Example:
        >>> some(2, delay(3600), succeed(1), succeed(2)).result()
        [1, 2]
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"some() wants a whole number before the futures, not {n!r}")
    if not 0 <= n <= len(futures):
        raise ValueError(f"some({n}) of {len(futures)} futures can never be")
    return succeed([]) if n == 0 else cast("Future[list[Any]]", _Some(_adopt("some", futures), n).start())


@overload
def reduce(fn: Callable[[V, T], cf.Future[V]], futures: Iterable[cf.Future[T]], initial: V) -> Future[V]: ...
@overload
def reduce(fn: Callable[[V, T], V | cf.Future[V]], futures: Iterable[cf.Future[T]], initial: V) -> Future[V]: ...
def reduce(fn: Callable[[Any, Any], Any], futures: Iterable[cf.Future[Any]], initial: Any) -> Future[Any]:
    """Return a future of the fold over the results: ``fn(fn(initial, first), second)`` and so on, in order.

    Args:
        fn: called with the value so far and the next result, in the thread that settles; may return a future.
        futures: any futures.
        initial: the value to begin with.

    Raises:
        TypeError: if `fn` is not callable, or something is no future.

    Example:
        >>> reduce(max, [pool.submit(pow, 2, 5), succeed(7)], 0).result()
        32
    """
    if not callable(fn):
        raise TypeError(f"reduce() wants a function of two arguments first, not {fn!r}")
    if isinstance(futures, cf.Future) or not isinstance(futures, Iterable):
        raise TypeError(f"reduce() wants a list of futures second, not {futures!r}")
    return gather(*futures).then(lambda values: _fold(fn, iter(values), initial))


def _fold(fn: Callable[[Any, Any], Any], values: Any, total: Any) -> Any:
    for value in values:
        total = fn(total, value)
        if isinstance(total, cf.Future):
            return wrap_future(total).then(partial(_fold, fn, values), on=INLINE)
    return total


def _adopt(name: str, futures: tuple[cf.Future[Any], ...]) -> tuple[Future[Any], ...]:
    if all(issubclass(kind, Future) for kind in set(map(type, futures))):  # cheaper than to ask each
        return cast("tuple[Future[Any], ...]", futures)
    for future in futures:
        if not isinstance(future, cf.Future):
            remedy = ": give it the Deferred's .future" if hasattr(future, "addCallbacks") else ""
            raise TypeError(f"{name}() wants futures, as in {name}(*futures), not {future!r}{remedy}")
    return tuple(map(wrap_future, futures))


def _refuse_nothing(name: str, futures: tuple[Any, ...]) -> None:
    if not futures:
        raise ValueError(f"{name}() of nothing would never settle: give it one future at least")


COUNTING_KINDS.add(_All)
