"""Locks, semaphores and queues that hand out Deferreds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import RLock, local
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from futurechain.defer.adding import Waited
from futurechain.defer.calls import maybeDeferred
from futurechain.defer.deferred import Deferred, succeed
from futurechain.defer.errors import QueueOverflow, QueueUnderflow

__all__ = ["DeferredLock", "DeferredQueue", "DeferredSemaphore"]

P = ParamSpec("P")

T = TypeVar("T")


DEEPEST = 20
"""How deep a callback that releases may be in callbacks that do; the outermost release goes on then."""


class _Here(local):
    """How deep a thread is in releases, and which are put off."""

    def __init__(self) -> None:
        self.depth = 0
        self.later: deque[_ConcurrencyPrimitive] = deque()


_here = _Here()


class _ConcurrencyPrimitive:
    """A number of tokens, handed out in the order of asking.

    The guard is held for a few stores, never while a Deferred is fired. It is re-entrant, because a signal handler or
    a finalizer may interrupt them.
    """

    def __init__(self, tokens: int) -> None:
        self.limit: int = tokens
        self.tokens: int = tokens
        self.waiting: deque[Deferred[Any]] = deque()
        self._guard = RLock()

    def acquire(self) -> Deferred[Self]:
        """Return a Deferred that fires with this object, in turn; cancelling it withdraws the request.

        Example:
            >>> lock = DeferredLock()
            >>> lock.acquire().result is lock
            True
        """
        deferred: Deferred[Self] = Deferred(partial(_withdraw, self.waiting))
        with self._guard:
            self.waiting.append(deferred)
        self._hand_out()
        return deferred

    def release(self) -> None:
        """Give a token back; whoever waits longest gets it, and its callbacks run in this thread.

        Raises:
            AssertionError: if there is nothing to release.

        Example:
            >>> lock = DeferredLock()
            >>> lock.acquire().addCallback(DeferredLock.release).result
        """
        with self._guard:
            if self.tokens >= self.limit:
                raise AssertionError(f"{type(self).__name__}.release() was called more often than it was acquired")
            self.tokens += 1
        self._hand_out()

    def _hand_out(self) -> None:
        if _here.depth >= DEEPEST:
            _here.later.append(self)
            return
        _here.depth += 1
        try:
            self._hand_each()
            while _here.later and _here.depth == 1:
                _here.later.popleft()._hand_each()
        finally:
            _here.depth -= 1

    def _hand_each(self) -> None:
        while True:
            with self._guard:
                if not (self.tokens and self.waiting):
                    return
                self.tokens -= 1
                deferred = self.waiting.popleft()
            if not deferred._fire(self):  # cancelled in between: on to the next one
                with self._guard:
                    self.tokens += 1

    @overload
    def run(self, f: Callable[P, Waited[T]], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
    @overload
    def run(self, f: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]: ...
    def run(self, f: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[Any]:
        """Acquire, call ``f(*args, **kwargs)``, release when what it returns has its result; a Deferred of that.

        Example:
            >>> DeferredLock().run(pow, 2, 5).result
            32
        """
        return self.acquire().addCallback(lambda _: maybeDeferred(f, *args, **kwargs).addBoth(self._release_after))

    def _release_after(self, outcome: Any) -> Any:
        self.release()
        return outcome

    def __aenter__(self) -> Deferred[Self]:
        return self.acquire()

    def __aexit__(self, *_: object) -> Deferred[bool]:
        self.release()
        return succeed(False)


def _withdraw(waiting: deque[Deferred[Any]], deferred: Deferred[Any]) -> None:
    with suppress(ValueError):  # its turn has come in between
        waiting.remove(deferred)


class DeferredLock(_ConcurrencyPrimitive):
    """A lock whose ``acquire()`` returns a Deferred.

    Example:
        >>> DeferredLock().run(pow, 2, 5).addCallback(hex).result
        '0x20'
    """

    def __init__(self) -> None:
        super().__init__(1)

    @property
    def locked(self) -> bool:
        """Whether somebody has it.

        Example:
            >>> lock = DeferredLock()
            >>> lock.acquire().result.locked
            True
        """
        return not self.tokens


class DeferredSemaphore(_ConcurrencyPrimitive):
    """A semaphore whose ``acquire()`` returns a Deferred.

    Args:
        tokens: how many may have it at the same time.

    Raises:
        ValueError: if `tokens` is less than 1.

    Example:
        >>> DeferredSemaphore(4).run(pow, 2, 5).addCallback(hex).result
        '0x20'
    """

    def __init__(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"DeferredSemaphore() wants at least one token, not {tokens!r}")
        super().__init__(tokens)


class DeferredQueue(Generic[T]):
    """A queue whose ``get()`` returns a Deferred.

    Args:
        size: how many objects it holds at most; None is without limit.
        backlog: how many getters may wait at most; None is without limit.

    Example:
        >>> queue = DeferredQueue()
        >>> following = queue.get().addCallback(print)
        >>> queue.put("rose")
        rose
    """

    def __init__(self, size: int | None = None, backlog: int | None = None) -> None:
        self.size = size
        self.backlog = backlog
        self.pending: deque[Any] = deque()
        self.waiting: deque[Deferred[Any]] = deque()
        self._guard = RLock()

    def put(self, obj: T) -> None:
        """Add an object; whoever waits longest gets it, and its callbacks run in this thread.

        Raises:
            QueueOverflow: if the queue is full.

        Example:
            >>> queue = DeferredQueue()
            >>> queue.put("rose"), queue.get().result
            (None, 'rose')
        """
        while (getter := self._store(obj)) is not None:
            if getter._fire(obj):
                return

    def _store(self, obj: Any) -> Deferred[Any] | None:
        """Return who is to get `obj`, or None after storing it."""
        with self._guard:
            if self.waiting:
                return self.waiting.popleft()
            if self.size is not None and len(self.pending) >= self.size:
                raise QueueOverflow(f"the queue holds {len(self.pending)} objects already")
            self.pending.append(obj)
            return None

    def get(self) -> Deferred[T]:
        """Return a Deferred of the next object; cancelling it withdraws the request.

        Raises:
            QueueUnderflow: if the queue is empty, and as many wait already as may.

        Example:
            >>> queue = DeferredQueue()
            >>> following = queue.get().addCallback(print)
            >>> queue.put("rose")
            rose
        """
        with self._guard:
            if not self.pending:
                if self.backlog is not None and len(self.waiting) >= self.backlog:
                    raise QueueUnderflow(f"{len(self.waiting)} getters wait already")
                getter: Deferred[Any] = Deferred(partial(_withdraw, self.waiting))
                self.waiting.append(getter)
                return getter
            obj = self.pending.popleft()
        return succeed(obj)

