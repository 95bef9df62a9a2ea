"""The types of `futurechain.defer`, as a type checker sees them.

Checked by mypy and pyright, and never run: each function shows what a user writes, and what it is worth.
"""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
from collections.abc import Generator
from typing import Any, assert_type

from futurechain import Failure, Future, defer, succeed
from futurechain.defer import Deferred


def parse(page: bytes) -> list[str]:
    return page.decode().split()


def parse_later(page: bytes) -> Deferred[list[str]]:
    return defer.succeed(page.decode().split())


def parse_elsewhere(page: bytes) -> Future[list[str]]:
    return succeed(page.decode().split())


def parse_perhaps_later(page: bytes) -> list[str] | Deferred[list[str]]:
    return parse_later(page) if page else []


async def parse_slowly(page: bytes) -> list[str]:
    return page.decode().split()


def parse_or_fail(page: bytes) -> list[str] | Failure:
    return parse(page) if page else Failure(ValueError("empty"))


def first(words: list[str], otherwise: str) -> str:
    return words[0] if words else otherwise


def zero(failure: Failure) -> int:
    failure.trap(ValueError)
    return 0


def again(failure: Failure) -> Failure:
    return failure


def either(outcome: bytes | Failure) -> int:
    return 0 if isinstance(outcome, Failure) else len(outcome)


def callbacks(page: Deferred[bytes]) -> None:
    """A callback changes the type of its Deferred, whatever way it returns."""
    assert_type(page.addCallback(parse), Deferred[list[str]])
    assert_type(page.addCallback(parse_later), Deferred[list[str]])
    assert_type(page.addCallback(parse_elsewhere), Deferred[list[str]])
    assert_type(page.addCallback(parse_perhaps_later), Deferred[list[str]])
    assert_type(page.addCallback(parse_slowly), Deferred[list[str]])
    assert_type(page.addCallback(parse_or_fail), Deferred[list[str]])
    assert_type(page.addCallback(parse).addCallback(first, "none"), Deferred[str])
    assert_type(page.addCallback(parse).addCallback(first, otherwise="none"), Deferred[str])
    assert_type(page.addCallback(None), Deferred[bytes])
    assert_type(page.addErrback(zero), Deferred[bytes | int])
    assert_type(page.addErrback(again), Deferred[bytes])
    assert_type(page.addBoth(either), Deferred[int])
    assert_type(page.addCallbacks(parse, zero), Deferred[list[str] | int])
    assert_type(page.addCallbacks(parse), Deferred[list[str]])
    assert_type(page.addTimeout(5), Deferred[bytes])


def wrong_callbacks(page: Deferred[bytes]) -> None:
    """What does not fit is told by the checker."""
    page.addCallback(first, "none")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    page.callback("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    page.errback("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def firing(page: Deferred[bytes]) -> None:
    """A Deferred is fired with a value of its type, or with an error."""
    page.callback(b"text")
    page.callback(Failure(ValueError()))
    page.errback(ValueError())
    page.errback()
    assert_type(page.chainDeferred(Deferred[bytes]()), Deferred[None])
    Deferred[int](lambda deferred: deferred.callback(0)).cancel()


@defer.inlineCallbacks
def generator(url: str) -> Generator[Deferred[Any], Any, int]:
    page = yield defer.succeed(url)
    return len(page)


@defer.inlineCallbacks
async def coroutine(url: str) -> int:
    return len(await defer.succeed(url))


def making(page: cf.Future[bytes], other: asyncio.Future[bytes]) -> None:
    """Whatever makes a Deferred knows its type."""
    assert_type(generator("url"), Deferred[int])
    assert_type(coroutine("url"), Deferred[int])
    assert_type(defer.succeed(1), Deferred[int])
    assert_type(defer.maybeDeferred(parse, b""), Deferred[list[str]])
    assert_type(defer.maybeDeferred(parse_later, b""), Deferred[list[str]])
    assert_type(defer.maybeDeferred(parse_slowly, b""), Deferred[list[str]])
    assert_type(defer.ensureDeferred(parse_slowly(b"")), Deferred[list[str]])
    assert_type(Deferred.fromFuture(page), Deferred[bytes])
    assert_type(Deferred.fromFuture(other), Deferred[bytes])
    assert_type(Deferred.fromCoroutine(parse_slowly(b"")), Deferred[list[str]])
    assert_type(defer.succeed(1).future, Future[int])


def several(numbers: list[Deferred[int]]) -> None:
    """Combinations know what they fire with."""
    assert_type(defer.gatherResults(numbers), Deferred[list[int]])
    assert_type(defer.race(numbers), Deferred[tuple[int, int]])
    assert_type(defer.DeferredList(numbers), defer.DeferredList[list[tuple[bool, int]]])
    assert_type(defer.DeferredList(numbers, fireOnOneCallback=True), defer.DeferredList[tuple[int, int]])


def locks(lock: defer.DeferredLock, queue: defer.DeferredQueue[int]) -> None:
    """Locks and queues do, too."""
    assert_type(lock.acquire(), Deferred[defer.DeferredLock])
    assert_type(lock.run(parse, b""), Deferred[list[str]])
    assert_type(lock.run(parse_elsewhere, b""), Deferred[list[str]])
    assert_type(queue.get(), Deferred[int])


async def awaiting(page: Deferred[bytes]) -> None:
    """`await` gives the result."""
    assert_type(await page, bytes)
