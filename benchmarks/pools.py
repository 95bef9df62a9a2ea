"""The pools and the timers that are compared; what is not installed is left out.

A pool is opened when it is first needed and kept, so that no sample pays for starting workers.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures as cf
import importlib
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import futurechain
from benchmarks import byhand
from benchmarks.peers import BY_HAND, OURS
from futurechain import clock

__all__ = [
    "EACH_SUBMITTED",
    "PoolPeer",
    "TimerPeer",
    "close_pools",
    "nothing",
    "open_once",
    "open_pool",
    "our_timers",
    "pool_peers",
    "timer_peers",
]

Kind = Literal["thread", "process"]
WORKERS = 2
EACH_SUBMITTED = "by hand, each step submitted"


@dataclass(frozen=True)
class PoolPeer:
    """A library with pools."""

    name: str
    open: dict[Kind, Callable[..., Any]]
    """What makes a pool; a kind whose steps would not run in the pool is missing."""
    submit: Callable[..., Any]
    """Called with the pool, a function, and its arguments; returns a future."""
    chain: Callable[[Any, Sequence[Callable[[Any], Any]], Any], Any]
    """Run functions on a value, one after the other; return the future of the last result."""
    read: Callable[[Any], Any]


def ours() -> PoolPeer:
    """Return futurechain's pools."""

    def chain(pool: Any, steps: Sequence[Any], value: Any) -> Any:
        last = pool.submit(steps[0], value)
        for step in steps[1:]:
            last = last.then(step)
        return last

    kinds: dict[Kind, Any] = {
        "thread": futurechain.ThreadPoolExecutor,
        "process": futurechain.ProcessPoolExecutor,
    }
    return PoolPeer(OURS, kinds, lambda pool, *call: pool.submit(*call), chain, futurechain.Future.result)


def by_hand() -> PoolPeer:
    """Return the standard thread pool with the usual `then`, which runs a step where the one before it ended."""

    def chain(pool: Any, steps: Sequence[Any], value: Any) -> Any:
        last = pool.submit(steps[0], value)
        for step in steps[1:]:
            last = byhand.then(last, step)
        return last

    kinds: dict[Kind, Any] = {"thread": cf.ThreadPoolExecutor}
    return PoolPeer(BY_HAND, kinds, lambda pool, *call: pool.submit(*call), chain, cf.Future.result)


def each_submitted() -> PoolPeer:
    """Return the standard pools with a `then` that submits each step."""

    def chain(pool: Any, steps: Sequence[Any], value: Any) -> Any:
        last = pool.submit(steps[0], value)
        for step in steps[1:]:
            last = byhand.then_on(pool, last, step)
        return last

    kinds: dict[Kind, Any] = {"thread": cf.ThreadPoolExecutor, "process": cf.ProcessPoolExecutor}
    return PoolPeer(EACH_SUBMITTED, kinds, lambda pool, *call: pool.submit(*call), chain, cf.Future.result)


def run_in_executor() -> PoolPeer:
    """Return asyncio's way to the standard pools, a coroutine for each chain."""
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)

    async def run(pool: Any, steps: Sequence[Any], value: Any) -> Any:
        for step in steps:
            value = await loop.run_in_executor(pool, step, value)
        return value

    def chain(pool: Any, steps: Sequence[Any], value: Any) -> Any:
        return loop.create_task(run(pool, steps, value))

    kinds: dict[Kind, Any] = {"thread": cf.ThreadPoolExecutor, "process": cf.ProcessPoolExecutor}
    return PoolPeer("asyncio", kinds, loop.run_in_executor, chain, loop.run_until_complete)


def more_executors() -> PoolPeer:
    """Return more-executors, which runs a step where the one before it ended."""
    module = importlib.import_module("more_executors")

    def chain(pool: Any, steps: Sequence[Any], value: Any) -> Any:
        last = pool.submit(steps[0], value)
        for step in steps[1:]:
            last = module.f_map(last, step)
        return last

    kinds: dict[Kind, Any] = {"thread": module.Executors.thread_pool}
    return PoolPeer("more-executors", kinds, lambda pool, *call: pool.submit(*call), chain, cf.Future.result)


@cache
def pool_peers() -> tuple[PoolPeer, ...]:
    """Return those that are installed, ours first."""
    found = [ours(), by_hand(), each_submitted(), run_in_executor()]
    try:
        found.append(more_executors())
    except ImportError:
        pass
    return tuple(found)


_pools: dict[Any, Any] = {}
_open = ExitStack()


def nothing(value: Any = None) -> Any:
    """Return what it is given: what is measured is everything around it. Importable, for other processes."""
    return value


def open_pool(peer: PoolPeer, kind: Kind) -> Any:
    """Return the peer's pool of that kind, with all its workers running."""
    key = (peer.name, kind)
    if key not in _pools:
        options = {"mp_context": multiprocessing.get_context("spawn")} if kind == "process" else {}
        pool = _pools[key] = _open.enter_context(peer.open[kind](max_workers=WORKERS, **options))
        for future in [peer.submit(pool, nothing) for _ in range(20 * WORKERS)]:
            peer.read(future)
    return _pools[key]


def open_once(name: str, make: Callable[[], Any]) -> Any:
    """Return the pool of that name, which `make` opens the first time."""
    if name not in _pools:
        _pools[name] = _open.enter_context(make())
    return _pools[name]


@atexit.register
def close_pools() -> None:
    """Shut all pools down."""
    _pools.clear()
    _open.close()


@dataclass(frozen=True)
class TimerPeer:
    """A library with timers."""

    name: str
    set: Callable[[], Any]
    """Set a timer that is due in a minute; return what can be cancelled."""
    tidy: Callable[[], object]
    """Return when what was withdrawn has been thrown away: that is part of the work."""


def our_timers() -> TimerPeer:
    """Return futurechain's clock."""

    def tidy() -> None:
        idle = threading.Lock()
        idle.acquire()
        clock.call_later(0, idle.release)
        idle.acquire()

    return TimerPeer(OURS, partial(clock.call_later, 60, nothing), tidy)


def asyncio_timers() -> TimerPeer:
    """Return asyncio's `call_later`."""
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)

    def tidy() -> None:
        loop.call_soon(loop.stop)
        loop.run_forever()

    return TimerPeer("asyncio", partial(loop.call_later, 60, nothing), tidy)


def twisted_timers() -> TimerPeer:
    """Return the `callLater` of Twisted's reactor, which is not run."""
    reactor: Any = importlib.import_module("twisted.internet.reactor")
    return TimerPeer("Twisted", partial(reactor.callLater, 60, nothing), reactor.runUntilCurrent)


@cache
def timer_peers() -> tuple[TimerPeer, ...]:
    """Return those that are installed, ours first."""
    found = [our_timers(), asyncio_timers()]
    try:
        found.append(twisted_timers())
    except ImportError:
        pass
    return tuple(found)
