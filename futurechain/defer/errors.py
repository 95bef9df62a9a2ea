"""The errors of Twisted's vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from futurechain.errors import InvalidStateError

__all__ = ["AlreadyCalledError", "FailureGroup", "FirstError", "NotACoroutineError", "QueueOverflow", "QueueUnderflow"]


class AlreadyCalledError(InvalidStateError):
    """Raised by ``callback`` and ``errback`` of a Deferred that has been fired before.

    Example:
        >>> succeed(5).callback(6)
        Traceback (most recent call last):
        futurechain.defer.errors.AlreadyCalledError: ...
    """


class NotACoroutineError(TypeError):
    """Raised by ``ensureDeferred`` and ``fromCoroutine`` for what is no coroutine.

    Example:
        >>> ensureDeferred(5)
        Traceback (most recent call last):
        futurechain.defer.errors.NotACoroutineError: 5 is not a coroutine, a generator, a future or a Deferred
    """


class QueueOverflow(Exception):  # noqa: N818  # Twisted's name
    """Raised by ``put`` when a `DeferredQueue` is full.

    Example:
        >>> DeferredQueue(size=0).put("rose")
        Traceback (most recent call last):
        futurechain.defer.errors.QueueOverflow: the queue holds 0 objects already
    """


class QueueUnderflow(Exception):  # noqa: N818  # Twisted's name
    """Raised by ``get`` when a `DeferredQueue` has as many waiting getters as it may have.

    Example:
        >>> DeferredQueue(backlog=0).get()
        Traceback (most recent call last):
        futurechain.defer.errors.QueueUnderflow: 0 getters wait already
    """


class FirstError(Exception):
    """The first error in a `DeferredList`; equal to another one with the same index and failure.

    Args:
        failure: how it failed.
        index: which one of the list failed.

    Example:
        >>> d = gatherResults([succeed(5), fail(KeyError("k"))], consumeErrors=True)
        >>> d.addErrback(lambda failure: (failure.value.index, failure.value.subFailure.value)).result
        (1, KeyError('k'))
    """

    def __init__(self, failure: Any, index: int) -> None:
        super().__init__(failure, index)
        self.subFailure = failure
        self.index = index

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FirstError):
            return NotImplemented
        return (self.index, self.subFailure) == (other.index, other.subFailure)

    def __hash__(self) -> int:
        return hash((self.index, self.subFailure))

    def __str__(self) -> str:
        return f"FirstError[#{self.index}, {self.subFailure}]"

    def __repr__(self) -> str:
        return f"FirstError[#{self.index}, {self.subFailure.value!r}]"


class FailureGroup(Exception):  # noqa: N818  # Twisted's name
    """How everything in a `race` failed.

    Args:
        failures: in the order of the race's arguments.

    Example:
        >>> race([fail(KeyError("k"))]).addErrback(lambda failure: failure.value.failures).result
        [<Failure builtins.KeyError: 'k'>]
    """

    def __init__(self, failures: Iterable[Any]) -> None:
        super().__init__()
        self.failures: list[Any] = list(failures)

    def __str__(self) -> str:
        return "; ".join(map(str, self.failures))
