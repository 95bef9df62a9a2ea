"""``python -m benchmarks.ratios``: the promised numbers, as ratios of one interleaved run.

Ours and the others take turns, sample by sample, with the garbage collector off during each; a ratio is the median of
the ratios of neighbouring samples. Exit status 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures as cf
import gc
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import futurechain
from benchmarks import byhand, scenarios
from benchmarks.peers import asyncio_callbacks, by_hand, ours, twisted
from futurechain import Future, clock, gather

Sample = Callable[[], float]
"""Does the work once; seconds per piece of it (or bytes)."""


@dataclass
class Row:
    """One line of the table."""

    work: str
    ours: Sample
    others: dict[str, tuple[Sample, float]]
    """By name: the other's sample, and the bound on ours divided by it."""
    unit: str = "ns"
    figures: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def met(self) -> bool:
        """Tell whether every bound holds."""
        return all(self.ratios[name] <= bound for name, (_, bound) in self.others.items())


def timed(work: Callable[[], int], repeat: int = 1) -> Sample:
    """Return a sample that times `work`, which says how many pieces it did."""

    def sample() -> float:
        gc.collect()
        gc.disable()
        try:
            start = time.perf_counter()
            pieces = sum(work() for _ in range(repeat))
            return (time.perf_counter() - start) / pieces * 1e9
        finally:
            gc.enable()

    return sample


def chains(length: int, repeat: int, scenario: Callable[..., int]) -> tuple[Sample, Sample, Sample]:
    """Return the samples of one scenario for us, by hand (in chains short enough for it) and Twisted."""
    short = min(length, 100)
    return (
        timed(lambda: scenario(ours(), length), repeat),
        timed(lambda: scenario(by_hand(), short), max(1, repeat // 5)),
        timed(lambda: scenario(twisted(), length), repeat),
    )


def compared(work: str, length: int, repeat: int, scenario: Callable[..., int], bounds: tuple[float, float]) -> Row:
    """Return a row against by hand and Twisted."""
    mine, hand, deferred = chains(length, repeat, scenario)
    return Row(work, mine, {"by hand": (hand, bounds[0]), "Twisted": (deferred, bounds[1])})


def gather_ours() -> int:
    """Gather 10,000 pending futures."""
    parts = [Future() for _ in range(10_000)]
    whole = gather(*parts)
    for part in parts:
        part.set_result(1)
    whole.result()
    return len(parts)


def gather_asyncio() -> int:
    """Gather as many with asyncio."""
    peer = asyncio_callbacks()
    parts = [peer.pending() for _ in range(10_000)]
    loop = parts[0].get_loop()

    async def main() -> None:
        whole = asyncio.gather(*parts)
        for part in parts:
            part.set_result(1)
        await whole

    loop.run_until_complete(main())
    loop.close()
    return len(parts)


def pending_stage_bytes() -> float:
    """Return what a pending stage of a long chain takes."""
    count = 20_000
    tracemalloc.start()
    try:
        root = last = Future()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            last = last.then(scenarios.identity)
        used = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    root.set_result(0)
    return used


def submits(pool_type: type[cf.Executor]) -> Callable[[], int]:
    """Return the work of submitting and reading 20,000 tasks."""

    def work() -> int:
        with pool_type(2) as pool:  # type: ignore[call-arg]
            for future in [pool.submit(int) for _ in range(20_000)]:
                future.result()
        return 20_000

    return work


def round_trips_ours() -> int:
    """Submit, then, then, result."""
    with futurechain.ThreadPoolExecutor(2) as pool:
        for _ in range(300):
            pool.submit(int).then(scenarios.identity).then(scenarios.identity).result()
    return 300


def on_pool(pool: cf.Executor, parent: cf.Future[int]) -> cf.Future[int]:
    """Run one more step on the pool when `parent` is done: the usual helper, with a submit."""
    child: cf.Future[int] = cf.Future()
    submitted = byhand.then(parent, lambda value: pool.submit(scenarios.identity, value))
    submitted.add_done_callback(
        lambda done: done.result().add_done_callback(lambda inner: child.set_result(inner.result()))
    )
    return child


def round_trips_by_hand() -> int:
    """Do the same by hand: each step is submitted to the pool."""
    with cf.ThreadPoolExecutor(2) as pool:
        for _ in range(300):
            on_pool(pool, on_pool(pool, pool.submit(int))).result()
    return 300


def timers_ours() -> int:
    """Set and withdraw 10,000 timers."""
    for _ in range(10_000):
        clock.call_later(60, int).cancel()
    return 10_000


def timers_asyncio() -> int:
    """Do so with asyncio."""
    loop = asyncio.new_event_loop()
    for _ in range(10_000):
        loop.call_later(60, int).cancel()
    loop.close()
    return 10_000


def import_time(module: str) -> Sample:
    """Return a sample of the time that a fresh interpreter needs to import `module`."""
    program = f"import time; s = time.perf_counter(); import {module}; print((time.perf_counter() - s) * 1e9)"

    def sample() -> float:
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return float(run.stdout)

    return sample


def rows() -> list[Row]:
    """Return the table of what is promised."""
    return [
        compared("a stage attached and run, chain of 10, INLINE", 10, 300, scenarios.chain, (0.10, 0.65)),
        compared("a stage attached to a settled future", 1000, 3, scenarios.on_settled, (0.10, 0.40)),
        compared("an error through 1,000 value stages", 1000, 3, scenarios.error_through, (0.08, 0.40)),
        Row("gather of 10,000 pending, per future", timed(gather_ours), {"asyncio": (timed(gather_asyncio), 0.25)}),
        Row("memory of a pending stage", pending_stage_bytes, {"160 bytes": (lambda: 160.0, 1.0)}, "bytes"),
        Row(
            "submit and read 20,000 tasks, thread pool",
            timed(submits(futurechain.ThreadPoolExecutor)),
            {"standard pool": (timed(submits(cf.ThreadPoolExecutor)), 0.40)},
        ),
        Row(
            "submit().then().then().result() on a thread pool",
            timed(round_trips_ours),
            {"by hand": (timed(round_trips_by_hand), 0.45)},
        ),
        Row("set and withdraw 10,000 timeouts, each", timed(timers_ours), {"asyncio": (timed(timers_asyncio), 0.60)}),
        Row(
            "import futurechain",
            import_time("futurechain"),
            {"concurrent.futures.thread": (import_time("concurrent.futures.thread"), 1.3)},
        ),
    ]


def measure(row: Row, rounds: int) -> None:
    """Take the samples in turns, and fill in the row."""
    mine: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in row.others}
    for _ in range(rounds):
        mine.append(row.ours())
        for name, (sample, _) in row.others.items():
            theirs[name].append(sample())
    row.figures = {"ours": statistics.median(mine)} | {name: statistics.median(them) for name, them in theirs.items()}
    row.ratios = {
        name: statistics.median(own / other for own, other in zip(mine, them, strict=True))
        for name, them in theirs.items()
    }


def show(row: Row) -> str:
    """Return the lines of one row."""
    lines = [f"{row.work}: {row.figures['ours']:,.0f} {row.unit}"]
    for name, (_, bound) in row.others.items():
        verdict = "met" if row.ratios[name] <= bound else "NOT MET"
        lines.append(f"    {row.ratios[name]:6.3f} of {name} ({row.figures[name]:,.0f}), bound {bound}: {verdict}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratios", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="samples a row (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="three samples a row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(argv)
    table = rows()
    for row in table:
        measure(row, 3 if options.quick else options.rounds)
        print(show(row), flush=True)
    print("three 1 MB steps on a process pool, fused: not built")
    if options.json:
        named = [{"work": row.work, "unit": row.unit, "figures": row.figures, "ratios": row.ratios} for row in table]
        options.json.write_text(json.dumps({"python": sys.version, "rows": named}, indent=2))
    return 0 if all(row.met() for row in table) else 1


if __name__ == "__main__":
    sys.exit(main())
