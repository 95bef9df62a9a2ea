"""The libraries that are compared, each behind the same few functions; what is not installed is left out.

Each is used as its manual says, in its quickest way that does the same work.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future as StandardFuture
from dataclasses import dataclass, field, replace
from functools import cache
from operator import attrgetter
from typing import Any

import futurechain
from benchmarks import byhand

__all__ = ["ADD_CALLBACK", "BY_HAND", "OURS", "Limit", "Peer", "our_deferreds", "peers", "twisted"]

OURS = "futurechain"
ADD_CALLBACK = "addCallback"
BY_HAND = "by hand"
RECURSIVE = 1000
"""The longest chain of a peer that calls itself for each stage; with more, the stack could overflow."""


def _nothing() -> None:
    """Do nothing: the peer has no event loop."""


@dataclass(frozen=True)
class Limit:
    """The largest size of a scenario that a peer can do."""

    most: int
    reason: str


def recursive(name: str, most: int = RECURSIVE) -> dict[str, Limit]:
    """Return the limits of a peer that calls itself for each stage."""
    limit = Limit(most, f"{name} calls itself for each stage, and a longer chain would overflow the stack")
    return {"chain": limit, "error_through": limit}


def never(reason: str, *scenarios: str) -> dict[str, Limit]:
    """Return the limits of a peer that does not take part in some scenarios."""
    return dict.fromkeys(scenarios, Limit(0, reason))


def grow_by_then(last: Any, fn: Any, count: int) -> Any:
    """Attach a chain of stages, as one writes it where `then` is a method."""
    for _ in range(count):
        last = last.then(fn)
    return last


def grow_by_add_callback(last: Any, fn: Any, count: int) -> Any:
    """Do so where `addCallback` is a method."""
    for _ in range(count):
        last = last.addCallback(fn)
    return last


def grow_by(attach: Callable[[Any, Any], Any]) -> Callable[[Any, Any, int], Any]:
    """Do so where a function attaches."""

    def grow(last: Any, fn: Any, count: int) -> Any:
        for _ in range(count):
            last = attach(last, fn)
        return last

    return grow


@dataclass(frozen=True)
class Peer:
    """One library."""

    name: str
    pending: Callable[[], Any]
    settled: Callable[[Any], Any]
    attach: Callable[[Any, Any], Any]
    """Attach a function to a future; return what the next one is attached to."""
    grow: Callable[[Any, Any, int], Any]
    """Attach a function so many times, each to the stage before; return the last stage."""
    settle: Callable[[Any, Any], object]
    read: Callable[[Any], Any]
    """Return the result, after letting an event loop run until it is there."""
    fail: Callable[[Any, BaseException], object]
    error: Callable[[Any], Any]
    """Return the error that the end of a chain failed with."""
    branch: Callable[[Any, Any], Any]
    """Attach a function beside others that are attached to the same future."""
    flat: Callable[[Any, Any], Any]
    """Attach a function that returns a future, which is waited for."""
    gather: Callable[[Sequence[Any]], Any]
    flush: Callable[[], object] = _nothing
    """Let queued callbacks run."""
    limits: dict[str, Limit] = field(default_factory=dict)
    """By scenario: how far the peer can go in it."""


def ours() -> Peer:
    """Return futurechain, with `then`."""
    future = futurechain.Future
    return Peer(
        name=OURS,
        pending=future,
        settled=futurechain.succeed,
        attach=future.then,
        grow=grow_by_then,
        settle=future.set_result,
        read=future.result,
        fail=future.set_exception,
        error=future.exception,
        branch=future.then,
        flat=future.then,
        gather=lambda parts: futurechain.gather(*parts),
    )


def add_callback() -> Peer:
    """Return futurechain, with `addCallback`."""
    family = futurechain.Future.addCallback
    return replace(
        ours(),
        name=ADD_CALLBACK,
        attach=family,
        grow=grow_by_add_callback,
        flat=family,
        limits=never("addCallback: the same as futurechain", "create", "create_settle_read", "gather")
        | never("addCallback attaches to the end of the chain", "fan_out"),
    )


def by_hand() -> Peer:
    """Return the helpers over the standard library."""

    def settled(value: Any) -> Any:
        done: StandardFuture[Any] = StandardFuture()
        done.set_result(value)
        return done

    future = StandardFuture
    return Peer(
        name=BY_HAND,
        pending=future,
        settled=settled,
        attach=byhand.then,
        grow=grow_by(byhand.then),
        settle=future.set_result,
        read=future.result,
        fail=future.set_exception,
        error=future.exception,
        branch=byhand.then,
        flat=byhand.flat_then,
        gather=byhand.gather,
        limits=recursive(BY_HAND),
    )


def twisted() -> Peer:
    """Return Twisted, with all callbacks on one Deferred: its quickest way."""
    return deferreds("Twisted", importlib.import_module("twisted.internet.defer"))


def our_deferreds() -> Peer:
    """Return our Deferred, which is compared with Twisted's alone."""
    return deferreds(OURS, importlib.import_module("futurechain.defer"))


def deferreds(name: str, defer: Any) -> Peer:
    """Return a module of Deferreds."""
    deferred = defer.Deferred

    def error(end: Any) -> Any:
        seen: list[Any] = []
        end.addErrback(seen.append)
        return seen[0].value

    def branch(parent: Any, fn: Any) -> Any:
        child = deferred().addCallback(fn)

        def hand_on(value: Any) -> Any:
            child.callback(value)
            return value

        parent.addCallback(hand_on)
        return child

    return Peer(
        name=name,
        pending=deferred,
        settled=defer.succeed,
        attach=deferred.addCallback,
        grow=grow_by_add_callback,
        settle=deferred.callback,
        read=attrgetter("result"),
        fail=deferred.errback,
        error=error,
        branch=branch,
        flat=deferred.addCallback,
        gather=defer.gatherResults,
    )


def deferred_list() -> Peer:
    """Return Twisted's other way to wait for many."""
    defer = importlib.import_module("twisted.internet.defer")
    return replace(twisted(), name="Twisted DeferredList", gather=defer.DeferredList)


def asyncio_callbacks() -> Peer:
    """Return asyncio's futures, chained by callbacks, on a loop of their own."""
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    create = loop.create_future

    def attach(parent: Any, fn: Any) -> Any:
        child = create()

        def settle(done: Any) -> None:
            error = done.exception()
            if error is not None:
                child.set_exception(error)
            else:
                child.set_result(fn(done.result()))

        parent.add_done_callback(settle)
        return child

    def flat(parent: Any, fn: Any) -> Any:
        child = create()
        attach(parent, fn).add_done_callback(lambda outer: outer.result().add_done_callback(copy))

        def copy(inner: Any) -> None:
            child.set_result(inner.result())

        return child

    def settled(value: Any) -> Any:
        done = create()
        done.set_result(value)
        return done

    def flush() -> None:
        loop.call_soon(loop.stop)
        loop.run_forever()

    def wait(end: Any) -> Any:
        while not end.done():
            flush()
        return end

    return Peer(
        name="asyncio",
        pending=create,
        settled=settled,
        attach=attach,
        grow=grow_by(attach),
        settle=asyncio.Future.set_result,
        read=lambda end: wait(end).result(),
        fail=asyncio.Future.set_exception,
        error=lambda end: wait(end).exception(),
        branch=attach,
        flat=flat,
        gather=lambda parts: asyncio.gather(*parts),
        flush=flush,
    )


def promise() -> Peer:
    """Return the package promise."""
    cls = importlib.import_module("promise").Promise

    def error(end: Any) -> Any:
        try:
            end.get()
        except ValueError as raised:
            return raised
        raise AssertionError("the error did not arrive")

    return Peer(
        name="promise",
        pending=cls,
        settled=cls.resolve,
        attach=cls.then,
        grow=grow_by_then,
        settle=cls.do_resolve,
        read=cls.get,
        fail=cls.do_reject,
        error=error,
        branch=cls.then,
        flat=cls.then,
        gather=cls.all,
        limits={"fan_out": Limit(0xFFFF, "promise numbers the functions on one promise with 16 bits")},
    )


def vine() -> Peer:
    """Return the package vine."""
    module = importlib.import_module("vine")
    cls = module.promise

    def settled(value: Any) -> Any:
        done = cls()
        done(value)
        return done

    def read(end: Any) -> Any:
        return end.value[0][0] if isinstance(end, cls) else end.ready  # a barrier keeps no values

    return Peer(
        name="vine",
        pending=cls,
        settled=settled,
        attach=cls.then,
        grow=grow_by_then,
        settle=cls.__call__,
        read=read,
        fail=cls.throw,
        error=attrgetter("reason"),
        branch=cls.then,
        flat=cls.then,
        gather=module.barrier,
        limits=recursive("vine", 100 if sys.version_info[:2] == (3, 12) else RECURSIVE)  # 3.12 has a limit of its own
        | never("vine hands an error to the next stage only", "error_through")
        | never("vine does not wait for a returned promise", "flatten_settled", "flatten_pending"),
    )


def more_executors() -> Peer:
    """Return more-executors."""
    module = importlib.import_module("more_executors")
    return replace(
        by_hand(),
        name="more-executors",
        attach=module.f_map,
        grow=grow_by(module.f_map),
        branch=module.f_map,
        flat=module.f_flat_map,
        gather=module.f_sequence,
        limits=recursive("more-executors")
        | never("more-executors: the same as by hand", "create", "create_settle_read"),
    )


@cache
def peers() -> tuple[Peer, ...]:
    """Return those that are installed, ours first."""
    found = []
    for make in (ours, add_callback, by_hand, twisted, asyncio_callbacks, promise, vine, more_executors):
        try:
            found.append(make())
        except ImportError:
            continue
    return tuple(found)
