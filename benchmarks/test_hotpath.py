"""The hot path under pytest-benchmark: one group a scenario, so that its table shows the peers side by side."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks import scenarios
from benchmarks.peers import peers
from futurechain import Future, ThreadPoolExecutor, clock, gather

ALL = pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
SLOW = {"more-executors"}


@ALL
@pytest.mark.benchmark(group="create, settle, read")
def test_create(benchmark, peer):
    """Make a future, settle it, read it."""
    benchmark(scenarios.create_settle_read, peer)


@ALL
@pytest.mark.parametrize("length", [1, 10, 1000, 100_000])
def test_chain(benchmark, peer, length):
    """Attach a chain and run it."""
    benchmark.group = f"chain of {length}"
    if length >= 1000 and peer.name in {"by hand", "more-executors"}:
        pytest.skip("recursive: deeper than the stack")
    benchmark(scenarios.chain, peer, length)


@ALL
@pytest.mark.benchmark(group="1,000 stages on a settled future")
def test_settled(benchmark, peer):
    """Attach stages to a settled future."""
    benchmark(scenarios.on_settled, peer, 1000)


@ALL
@pytest.mark.benchmark(group="error through 1,000 stages")
def test_error(benchmark, peer):
    """Let an error pass through."""
    if peer.name in {"by hand", "more-executors"}:
        pytest.skip("recursive: deeper than the stack")
    benchmark(scenarios.error_through, peer, 1000)


@ALL
@pytest.mark.benchmark(group="fan-out of 1,000")
def test_fan_out(benchmark, peer):
    """Attach many stages to one future."""
    if peer.name == "Twisted":
        pytest.skip("a Deferred has no branches")
    benchmark(scenarios.fan_out, peer, 1000)


@pytest.mark.benchmark(group="gather of 10,000 pending")
def test_gather(benchmark):
    """Gather pending futures, then settle them."""

    def run():
        parts = [Future() for _ in range(10_000)]
        whole = gather(*parts)
        for part in parts:
            part.set_result(1)
        whole.result()

    benchmark(run)


@pytest.mark.benchmark(group="thread pool")
@pytest.mark.parametrize("stages", [0, 2])
def test_round_trip(benchmark, stages):
    """Submit, chain, and read."""
    with ThreadPoolExecutor(2) as pool:

        def run():
            future = pool.submit(int)
            for _ in range(stages):
                future = future.then(scenarios.identity)
            future.result()

        benchmark(run)


@pytest.mark.benchmark(group="timers")
def test_timers(benchmark):
    """Set and withdraw a timer."""
    benchmark(lambda: clock.call_later(60, int).cancel())


@pytest.mark.benchmark(group="flatten")
@pytest.mark.parametrize("late", [False, True], ids=["settled", "pending"])
def test_flatten(benchmark, late):
    """Return a future from a handler."""

    def run():
        inner = Future()
        stage = Future.succeed(0).then(partial(lambda inner, _: inner, inner)) if late else None
        inner.set_result(1)
        (stage or Future.succeed(0).then(lambda _: inner)).result()

    benchmark(run)
