"""The scenarios: each makes one sample of work ready for one peer.

Most do a thousand pieces of work, whatever their size: so the milliseconds of a sample are the microseconds of a piece.
What a scenario prepares, before it returns its `run`, is not timed; what `run` throws away is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import Work
from benchmarks.peers import Peer, deferred_list, peers
from benchmarks.pools import (
    Kind,
    PoolPeer,
    TimerPeer,
    nothing,
    open_pool,
    pool_peers,
    timer_peers,
)

__all__ = ["SCENARIOS", "Scenario", "by_name", "refusal"]

PIECES = 1000


def create(peer: Peer, count: int) -> Work:
    """Make futures."""

    def run() -> None:
        pending = peer.pending
        for _ in range(count):
            pending()

    return Work(run, count)


def create_settle_read(peer: Peer, count: int) -> Work:
    """Make futures; settle and read each."""

    def run() -> None:
        pending, settle, read = peer.pending, peer.settle, peer.read
        for _ in range(count):
            future = pending()
            settle(future, 1)
            read(future)

    return Work(run, count)


def chain(peer: Peer, length: int) -> Work:
    """Attach a chain of stages to a pending future, settle it, read the end; short chains, many times."""
    chains = max(1, PIECES // length)

    def run() -> None:
        pending, grow, settle, read = peer.pending, peer.grow, peer.settle, peer.read
        for _ in range(chains):
            root = pending()
            last = grow(root, nothing, length)
            settle(root, 1)
            read(last)

    return Work(run, chains * length)


def on_settled(peer: Peer, count: int) -> Work:
    """Attach stages, one after the other, to a settled future, and read the last."""

    def run() -> None:
        peer.read(peer.grow(peer.settled(1), nothing, count))

    return Work(run, count)


def error_through(peer: Peer, length: int) -> Work:
    """Let an error pass through a chain of stages that take values only, and look at it."""

    def run() -> None:
        root = peer.pending()
        last = peer.grow(root, nothing, length)
        peer.fail(root, ValueError("passes"))
        peer.error(last)

    return Work(run, length)


def fan_out(peer: Peer, count: int) -> Work:
    """Attach many stages to one pending future, settle it, read the last."""

    def run() -> None:
        branch = peer.branch
        root = last = peer.pending()
        for _ in range(count):
            last = branch(root, nothing)
        peer.settle(root, 1)
        peer.read(last)

    return Work(run, count)


def gather(peer: Peer, count: int) -> Work:
    """Gather pending futures, settle them all, read the results; making the futures is not timed."""
    parts = [peer.pending() for _ in range(count)]

    def run() -> None:
        settle = peer.settle
        whole = peer.gather(parts)
        for part in parts:
            settle(part, 1)
        peer.read(whole)

    return Work(run, count)


def flatten_settled(peer: Peer, count: int) -> Work:
    """Return settled futures from handlers, and read the stages; making those futures is not timed."""
    return _flatten(peer, [peer.settled(1) for _ in range(count)], late=False)


def flatten_pending(peer: Peer, count: int) -> Work:
    """Return pending futures from handlers, settle them, read the stages; making those futures is not timed."""
    return _flatten(peer, [peer.pending() for _ in range(count)], late=True)


def _flatten(peer: Peer, inners: list[Any], *, late: bool) -> Work:
    roots = [peer.settled(0) for _ in inners]
    handlers = [_returning(inner) for inner in inners]

    def run() -> None:
        flat, settle, read = peer.flat, peer.settle, peer.read
        stages = [flat(root, handler) for root, handler in zip(roots, handlers, strict=True)]
        peer.flush()
        if late:
            for inner in inners:
                settle(inner, 1)
        for stage in stages:
            read(stage)

    return Work(run, len(inners))


def _returning(inner: Any) -> Callable[[Any], Any]:
    return lambda _: inner


def pool_round_trip(peer: PoolPeer, count: int) -> Work:
    """Submit a task to a thread pool and read its result, one after the other."""
    pool = open_pool(peer, "thread")

    def run() -> None:
        submit, read = peer.submit, peer.read
        for _ in range(count):
            read(submit(pool, nothing))

    return Work(run, count)


def pool_throughput(peer: PoolPeer, count: int) -> Work:
    """Submit many tasks to a thread pool, then read them all."""
    pool = open_pool(peer, "thread")

    def run() -> None:
        submit, read = peer.submit, peer.read
        for future in [submit(pool, nothing) for _ in range(count)]:
            read(future)

    return Work(run, count)


def pool_chain(peer: PoolPeer, count: int) -> Work:
    """Do submit, then, then, result on a thread pool, one after the other."""
    pool = open_pool(peer, "thread")
    steps = [nothing, nothing, nothing]

    def run() -> None:
        for _ in range(count):
            peer.read(peer.chain(pool, steps, 1))

    return Work(run, count)


def chains_in_flight(peer: PoolPeer, count: int) -> Work:
    """Start many chains of three steps on a thread pool, then read them all."""
    pool = open_pool(peer, "thread")
    steps = [nothing, nothing, nothing]

    def run() -> None:
        for last in [peer.chain(pool, steps, 1) for _ in range(count)]:
            peer.read(last)

    return Work(run, count)


def process_steps(peer: PoolPeer, size: int) -> Work:
    """Hand a payload through three steps of a process pool, which return it as it came, a few times."""
    pool = open_pool(peer, "process")
    payload = bytes(size)
    steps = [nothing, nothing, nothing]
    count = 20 if size < PIECES else 3

    def run() -> None:
        for _ in range(count):
            peer.read(peer.chain(pool, steps, payload))

    return Work(run, count)


def timers(peer: TimerPeer, count: int) -> Work:
    """Set timers, withdraw them all, and wait until they are thrown away."""

    def run() -> None:
        set_timer = peer.set
        for timer in [set_timer() for _ in range(count)]:
            timer.cancel()
        peer.tidy()

    return Work(run, count)


@dataclass(frozen=True)
class Scenario:
    """A scenario with its sizes, and who takes part."""

    make: Callable[[Any, int], Work]
    title: str
    """With the size to be filled in."""
    sizes: tuple[int, ...]
    peers: Callable[[], Sequence[Any]]

    @property
    def name(self) -> str:
        """Return the name of the function."""
        return self.make.__name__


def gatherers() -> tuple[Peer, ...]:
    """Return the peers, and Twisted's second way."""
    try:
        return (*peers(), deferred_list())
    except ImportError:
        return peers()


def on(kind: Kind) -> Callable[[], Sequence[PoolPeer]]:
    """Return what lists the pools of that kind."""
    return lambda: [peer for peer in pool_peers() if kind in peer.open]


SCENARIOS = (
    Scenario(create, "create {:,} futures", (1000,), peers),
    Scenario(create_settle_read, "create, settle and read {:,} futures", (1000,), peers),
    Scenario(chain, "chains of {:,}, at least 1,000 stages in all", (1, 10, 1000, 100_000), peers),
    Scenario(on_settled, "{:,} stages on a settled future", (1000,), peers),
    Scenario(error_through, "an error through {:,} value stages", (1000,), peers),
    Scenario(fan_out, "fan-out of {:,}", (1000,), peers),
    Scenario(gather, "gather of {:,} pending", (10_000,), gatherers),
    Scenario(flatten_settled, "flatten {:,} settled futures", (1000,), peers),
    Scenario(flatten_pending, "flatten {:,} pending futures", (1000,), peers),
    Scenario(pool_round_trip, "{:,} round trips to a thread pool", (100,), on("thread")),
    Scenario(pool_throughput, "{:,} submits to a thread pool", (20_000,), on("thread")),
    Scenario(pool_chain, "submit.then.then.result on a thread pool, {:,} times", (100,), on("thread")),
    Scenario(chains_in_flight, "{:,} chains in flight on a thread pool", (2000,), on("thread")),
    Scenario(process_steps, "three steps of {:,} bytes on a process pool", (100, 1_000_000), on("process")),
    Scenario(timers, "set and withdraw {:,} timers", (10_000,), timer_peers),
)


def by_name(name: str) -> Scenario:
    """Return the scenario with that function."""
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


def refusal(scenario: Scenario, peer: Any, size: int) -> str | None:
    """Return why the peer cannot take part, if it cannot."""
    limit = peer.limits.get(scenario.name) if isinstance(peer, Peer) else None
    return limit.reason if limit is not None and size > limit.most else None
