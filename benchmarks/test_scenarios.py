"""Every scenario for every peer that is installed, one table a scenario."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from benchmarks.measure import Sample, Work, import_sample, memory_sample
from benchmarks.peers import OURS, peers
from benchmarks.scenarios import SCENARIOS, Scenario, refusal

BUDGET = 0.4
"""Seconds for the samples of one peer in one scenario."""
FEWEST, MOST = 3, 30
"""How many samples that may be."""
IMPORTS = {
    OURS: "import futurechain",
    "futurechain's thread pool": "from futurechain import ThreadPoolExecutor",
    "the standard thread pool": "from concurrent.futures import ThreadPoolExecutor",
    "asyncio": "import asyncio",
    "Twisted": "import twisted.internet.defer",
    "promise": "import promise",
    "vine": "import vine",
    "more-executors": "import more_executors",
}


class Figures:
    """A clock that advances by what was measured: so that figures get into the table that are no wall time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the sum of all figures up to now."""
        return self.now

    def add(self, sample: Sample, scale: float) -> None:
        """Take a sample."""
        self.now += sample() * scale


figures = Figures()


def cases() -> Iterator[Any]:
    """Yield each scenario with each size and each peer, and the group it is shown in."""
    for scenario in SCENARIOS:
        for size in scenario.sizes:
            group = pytest.mark.benchmark(group=scenario.title.format(size))
            for peer in scenario.peers():
                name = f"{scenario.name}-{size}-{peer.name}"
                yield pytest.param(scenario, size, peer, id=name, marks=[group, *left_out(scenario, peer, size)])


def left_out(scenario: Scenario, peer: Any, size: int) -> list[pytest.MarkDecorator]:
    """Return the mark that skips what a peer cannot do."""
    reason = refusal(scenario, peer, size)
    return [pytest.mark.skip(reason=reason)] if reason else []


def rounds(prepare: Callable[[], Work]) -> int:
    """Return how many samples fit into the budget, judged by a first one that does not count."""
    work = prepare()
    start = time.perf_counter()
    work.run()
    return max(FEWEST, min(MOST, int(BUDGET / (time.perf_counter() - start))))


@pytest.mark.parametrize(("scenario", "size", "peer"), list(cases()))
def test_scenario(benchmark: Any, scenario: Scenario, size: int, peer: Any) -> None:
    """Take samples: the preparation is not timed, and the collector is off."""
    prepare = partial(scenario.make, peer, size)

    def setup() -> tuple[tuple[Work], dict[str, Any]]:
        work = prepare()
        gc.collect()
        gc.disable()
        return (work,), {}

    try:
        benchmark.pedantic(lambda work: work.run(), setup=setup, rounds=rounds(prepare))
    finally:
        gc.enable()


@pytest.mark.benchmark(group="memory of a pending stage", timer=figures)
@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
def test_memory(benchmark: Any, peer: Any) -> None:
    """Attach a chain, and say how many bytes each stage takes."""
    count = peer.limits["chain"].most if "chain" in peer.limits else 20_000
    benchmark.pedantic(figures.add, args=(memory_sample(peer, count), 1.0), rounds=3)


@pytest.mark.benchmark(group="import, in a fresh interpreter", timer=figures)
@pytest.mark.parametrize("name", IMPORTS)
def test_import(benchmark: Any, name: str) -> None:
    """Import a library, with a warm bytecode cache."""
    pytest.importorskip(IMPORTS[name].split()[1])
    benchmark.pedantic(figures.add, args=(import_sample(IMPORTS[name]), 1e-9), rounds=7, warmup_rounds=1)
