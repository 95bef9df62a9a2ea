"""What our executors have beside the standard ones': ``map`` as in Python 3.14, and what an exception cancels."""

from __future__ import annotations

import concurrent.futures as cf
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Mapping", "check_count"]

T = TypeVar("T")


class Mapping(cf.Executor):
    """`map` with a buffer, and a ``with`` block that can cancel."""

    _cancel_on_error = False
    _maps_in_chunks = False

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call `fn` with the items of `iterables`, side by side; return an iterator over the results, in order.

        Args:
            fn: what to call, with one item of each iterable.
            iterables: read at once, in this thread, but for `buffersize`.
            timeout: how many seconds after this call the last result may come; None waits for ever.
            chunksize: how many calls make one trip to a worker process; without effect on threads.
            buffersize: how many calls may be under way, or waiting to be handed out; None: all. With it, an item is
                read whenever a result is handed out.

        Raises:
            TypeError: if `buffersize` is neither a whole number nor None.
            ValueError: if it, or `chunksize`, is less than 1.
            TimeoutError: from the iterator, if a result does not come in time.

        Example:
            >>> list(pool.map(pow, [2, 3], [5, 2]))
            [32, 9]
        """
        check_count(buffersize, "buffersize", "map()")
        if self._maps_in_chunks:
            check_count(chunksize, "chunksize", "map()", optional=False)
        calls = zip(*iterables)  # noqa: B905  # as the standard one does
        if not self._maps_in_chunks or chunksize == 1:
            return self._map(fn, calls, timeout, buffersize)
        chunks = iter(lambda: (tuple(islice(calls, chunksize)),), ((),))
        return chain.from_iterable(self._map(partial(call_each, fn), chunks, timeout, buffersize))

    def _map(self, fn: Any, calls: Iterator[Any], timeout: float | None, buffersize: int | None) -> Iterator[Any]:
        until = None if timeout is None else time.monotonic() + timeout
        futures = deque(self._submit_wanted(fn, *call) for call in islice(calls, buffersize))
        more = partial(self._submit_wanted, fn) if buffersize else None
        return _results(futures, until, more, calls)

    def _submit_wanted(self, fn: Any, *call: Any) -> cf.Future[Any]:
        """Submit what the caller will ask for."""
        return self.submit(fn, *call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(wait=True, cancel_futures=self._cancel_on_error and kind is not None)


def check_count(value: Any, name: str, where: str, least: int = 1, *, optional: bool = True) -> int | None:
    """Return a whole number of at least `least`, or None if it is `optional`.

    Raises:
        TypeError: if it is something else.
        ValueError: if it is less.
    """
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where} wants a whole number for {name}=, such as {name}=8, not {value!r}")
    if value < least:
        raise ValueError(f"{where} wants {name}= to be at least {least}, not {value}")
    return value


def call_each(fn: Callable[..., T], calls: tuple[tuple[Any, ...], ...]) -> list[T]:
    """Make the calls of a chunk, in a worker process."""
    return [fn(*call) for call in calls]


def _results(
    futures: deque[cf.Future[Any]],
    until: float | None,
    more: Callable[..., cf.Future[Any]] | None,
    calls: Iterator[Any],
) -> Iterator[Any]:
    """Hand the results out, and keep as many calls under way if there are `more`: that holds the executor."""
    try:
        while futures:
            if more is not None and (call := next(calls, None)) is not None:
                futures.append(more(*call))
                del call
            yield _result(futures.popleft(), until)
    finally:
        for future in futures:
            future.cancel()


def _result(future: cf.Future[T], until: float | None) -> T:
    """Return the result; cancel if that fails."""
    try:
        return future.result(None if until is None else until - time.monotonic())
    finally:
        future.cancel()
        del future  # no cycle: a traceback may keep this frame
