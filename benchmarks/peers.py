"""The libraries that are compared, each behind the same few functions; what is not installed is left out.

An adapter makes a pending or settled root, attaches a function to it, settles it and reads the end.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from concurrent.futures import Future as StandardFuture
from dataclasses import dataclass
from typing import Any

import futurechain
from benchmarks import byhand


@dataclass(frozen=True)
class Peer:
    """One library."""

    name: str
    pending: Callable[[], Any]
    settled: Callable[[Any], Any]
    attach: Callable[[Any, Any], Any]
    """Attach a function; what the next one is attached to."""
    settle: Callable[[Any, Any], object]
    read: Callable[[Any], Any]
    fail: Callable[[Any, BaseException], object]
    flush: Callable[[], object] = lambda: None
    """Let queued callbacks run."""


def ours(name: str = "futurechain", attach: Any = futurechain.Future.then) -> Peer:
    """Return futurechain, with `then` or `addCallback`."""
    future = futurechain.Future
    return Peer(name, future, futurechain.succeed, attach, future.set_result, future.result, future.set_exception)


def by_hand() -> Peer:
    """Return the helper over the standard library."""

    def settled(value: Any) -> Any:
        future: StandardFuture[Any] = StandardFuture()
        future.set_result(value)
        return future

    future = StandardFuture
    return Peer("by hand", future, settled, byhand.then, future.set_result, future.result, future.set_exception)


def twisted() -> Peer:
    """Return Twisted, with all callbacks on one Deferred: its fastest way."""
    defer = importlib.import_module("twisted.internet.defer")
    deferred = defer.Deferred

    def fail(d: Any, error: BaseException) -> None:
        d.errback(error)
        d.addErrback(lambda _: None)

    return Peer(
        "Twisted", deferred, defer.succeed, deferred.addCallback, deferred.callback, lambda d: d.result, fail
    )


def asyncio_callbacks() -> Peer:
    """Return asyncio's futures, chained by callbacks."""
    loop = asyncio.new_event_loop()

    def attach(parent: Any, fn: Any) -> Any:
        child = loop.create_future()

        def settle(done: Any) -> None:
            error = done.exception()
            if error is not None:
                child.set_exception(error)
            else:
                child.set_result(fn(done.result()))

        parent.add_done_callback(settle)
        return child

    def settled(value: Any) -> Any:
        future = loop.create_future()
        future.set_result(value)
        return future

    def read(future: Any) -> Any:
        while not future.done():
            flush()
        return future.exception() or future.result()

    def flush() -> None:
        loop.call_soon(loop.stop)
        loop.run_forever()

    future = asyncio.Future
    return Peer("asyncio", loop.create_future, settled, attach, future.set_result, read, future.set_exception, flush)


def promise() -> Peer:
    """Return the package promise."""
    cls = importlib.import_module("promise").Promise
    return Peer("promise", cls, cls.resolve, cls.then, cls.do_resolve, cls.get, cls.do_reject)


def more_executors() -> Peer:
    """Return more-executors."""
    f_map = importlib.import_module("more_executors").f_map
    base = by_hand()
    return Peer("more-executors", base.pending, base.settled, f_map, base.settle, base.read, base.fail)


def peers() -> list[Peer]:
    """Return those that are installed, ours first."""
    found = [ours(), ours("addCallback", futurechain.Future.addCallback), by_hand()]
    for make in (twisted, asyncio_callbacks, promise, more_executors):
        try:
            found.append(make())
        except ImportError:
            continue
    return found
