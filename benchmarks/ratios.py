"""``python -m benchmarks.ratios``: the promised numbers, as ratios of one interleaved run.

All contestants of a row take turns, sample by sample, as `measure` describes. Exit status 1 if a bound is missed. What
has no bound is shown for orientation. A bound against a peer that is not installed is not checked: the table says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import cluster, linear
from benchmarks.measure import (
    Sample,
    Work,
    duration,
    import_sample,
    machine,
    medians,
    memory_sample,
    on_one_core,
    ratio,
    steady,
    take_turns,
    time_sample,
)
from benchmarks.peers import ADD_CALLBACK, BY_HAND, OURS, add_callback, our_deferreds, ours, twisted
from benchmarks.pools import EACH_SUBMITTED, nothing, open_pool, pool_peers
from benchmarks.processes import array_echoes, composed, echo_peaks, first_and_last, round_trips, tasks
from benchmarks.scenarios import by_name, refusal
from benchmarks.streams import drifting, process_stream, thread_stream, uneven, uneven_stream
from futurechain import Future, Pipeline, trace

__all__ = ["Row", "main", "measure", "rows", "table"]

STANDARD = BY_HAND
"""The column of the standard library shares its place with what people write over it by hand."""
COLUMNS = {OURS: "ours", STANDARD: "by hand or standard"}
SECOND_WAYS = {ADD_CALLBACK, EACH_SUBMITTED, "Twisted DeferredList"}
"""Who has a column already, by its quickest way."""
MEGABYTE = 1_000_000
ARRAYS = (
    ("10 kB", 10_000, 1.10, 200),
    ("1 MB", MEGABYTE, 0.25, 30),
    ("8 MB", 8 * MEGABYTE, 0.15, 10),
    ("64 MB", 64 * MEGABYTE, 0.15, 3),
)
"""What they are called, how large they are, the bound, how many go in one sample."""


@dataclass
class Row:
    """One row of the table."""

    work: str
    samples: dict[str, Sample]
    """By contestant; ours first."""
    bounds: dict[str, float] = field(default_factory=dict)
    """By contestant: the most that our figure may be of theirs."""
    limit: float | None = None
    """The most that our figure may be."""
    unit: str = "ns"
    standard: str = "by hand"
    """What stands in the column of the standard library."""
    note: str = ""
    most_rounds: int = 1000
    """Of what takes long, fewer samples have to do."""
    figures: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def verdicts(self) -> list[tuple[str, str, bool | None]]:
        """Return each ratio with its bound, and whether that is met; None if it was not measured."""
        found: list[tuple[str, str, bool | None]] = []
        if self.limit is not None:
            found.append((f"{self.figures[OURS]:,.0f}", f"{self.limit:g}", round(self.figures[OURS]) <= self.limit))
        for name, bound in self.bounds.items():
            label = self.label(name)
            if name in self.ratios:
                found.append((f"{self.ratios[name]:.3f} of {label}", f"{bound:.2f}", self.ratios[name] <= bound))
            else:
                found.append((f"? of {label}", f"{bound:.2f}", None))
        return found

    def label(self, name: str) -> str:
        """Return what to call a contestant."""
        return self.standard if name == STANDARD else name

    def met(self) -> bool:
        """Tell whether no bound is missed."""
        return all(verdict is not False for _, _, verdict in self.verdicts())


def compared(work: str, name: str, size: int, bounds: dict[str, float], **options: Any) -> Row:
    """Return the row of a scenario with every peer that can do it, each in its quickest way."""
    scenario = by_name(name)
    samples = {
        peer.name: time_sample(partial(scenario.make, peer, size))
        for peer in scenario.peers()
        if peer.name not in SECOND_WAYS and not refusal(scenario, peer, size)
    }
    return Row(work, samples, bounds, **options)


def callbacks(work: str, length: int, bound: float) -> Row:
    """Return the row of a chain of `addCallback` beside Twisted's."""
    make = by_name("chain").make
    samples = {OURS: time_sample(partial(make, add_callback(), length))}
    if importlib.util.find_spec("twisted") is not None:
        samples["Twisted"] = time_sample(partial(make, twisted(), length))
    return Row(work, samples, {"Twisted": bound})


def deferred(work: str, name: str, size: int) -> Row:
    """Return the row of a scenario with our Deferred and Twisted's."""
    make = by_name(name).make
    samples = {OURS: time_sample(partial(make, our_deferreds(), size))}
    if importlib.util.find_spec("twisted") is not None:
        samples["Twisted"] = time_sample(partial(make, twisted(), size))
    return Row(work, samples, {"Twisted": 1.1})


def chains_on_a_pool(work: str, size: int, helper: str, bound: float) -> Row:
    """Return the row of chains on a thread pool against one of the two helpers, all on one core."""
    make = by_name("pool_chain").make
    columns = {OURS: OURS, helper: BY_HAND}
    peers = [peer for peer in pool_peers() if peer.name in columns]
    samples = {columns[peer.name]: on_one_core(time_sample(partial(make, peer, size))) for peer in peers}
    return Row(work, samples, {BY_HAND: bound})


def traced(size: int) -> list[Row]:
    """Return what a trace costs: nothing when it is over, and while it is on so much for each stage."""

    def once() -> float:
        root = last = Future[int]()
        start = perf_counter()
        for _ in range(size):
            last = last.then(nothing)
        root.set_result(1)
        return (perf_counter() - start) / size * 1e9

    def off() -> float:
        with trace():
            pass
        return once()

    def on() -> float:
        before = once()
        with trace():
            return once() - before

    return [
        Row("a stage, after a trace was on", {OURS: off, STANDARD: once}, {STANDARD: 1.1}, standard="before"),
        Row("what a trace adds to a stage", {OURS: on}, limit=1500),
    ]


def growing(sized: Callable[[int], int]) -> list[Row]:
    """Return the rows of what must not cost more for each if there are more of them, nor for a longer chain."""
    many, few = sized(32_000), sized(1_000)
    grown = partial(Row, bounds={STANDARD: 2.0}, standard=f"each of {few:,}")
    raised = partial(Row, bounds={STANDARD: 25.0}, standard="a stage that returns")
    return [
        *(grown(f"{work}: each of {many:,}", linear.growth_samples(work, many, few)) for work in linear.SHAPES),
        raised(f"the first of {few:,} stages, if it raises", linear.raising_samples(few)),
    ]


def imports(work: str, mine: str, standard: str, bounds: dict[str, float]) -> Row:
    """Return the row of two import statements."""
    return Row(work, {OURS: import_sample(mine), STANDARD: import_sample(standard)}, bounds, standard="standard")


def against(work: str, samples: dict[str, Sample], bounds: dict[str, float] | None = None) -> Row:
    """Return the row of a stream against the standard pool's map with the chunk size that suits that best."""
    return Row(work, samples, bounds or {STANDARD: 1.1}, standard="Executor.map, best chunk")


def streams(sized: Callable[[int], int]) -> list[Row]:
    """Return the rows of the pipelines."""
    peers = {"joblib": 1.0, "mpire": 1.0}
    long, few = sized(20_000), sized(5_000)
    return [
        against("Pipeline.map, process step of 10 µs", process_stream(10, long), {STANDARD: 1.3, **peers}),
        against("the same, 100 µs", process_stream(100, few)),
        against("the same, 1 ms", process_stream(1000, sized(1_000))),
        against("the same, 1 in 100 of 5 ms", uneven_stream(uneven, long, 50)),
        against("the same, from 10 µs to 1 ms", uneven_stream(drifting, sized(11_000), 200)),
        Row("three thread steps, window of 100", thread_stream(sized(100_000)), {STANDARD: 1.0}),
        fused(),
    ]


def processes(sized: Callable[[int], int]) -> list[Row]:
    """Return the rows of the process pools."""
    many = sized(5_000)
    beside = partial(Row, standard="the standard pool")
    found = [
        beside("submit and read 5,000 tasks, process pool", tasks(many, 0), {STANDARD: 0.55}),
        beside("the same, 100 µs each", tasks(many, 100), {STANDARD: 0.68}),
        beside("one task to a process and back", round_trips(sized(300)), {STANDARD: 0.62}),
        Row("first of 100 two-step chains", first_and_last(sized(100)), {STANDARD: 0.2}, standard="the last one"),
        Row("then, then on 100 kB", composed(100_000, sized(50)), {STANDARD: 1.5}, standard="one composed function"),
    ]
    if importlib.util.find_spec("numpy") is not None:
        for name, size, bound, count in ARRAYS:
            work = f"a numpy array of {name} to a process and back"
            found.append(beside(work, array_echoes(sized(size), min(count, sized(count))), {STANDARD: bound}))
        if sized(1000) > 100:  # it takes its time, however small
            peaks = echo_peaks(sized(256 * MEGABYTE))
            found.append(beside("memory peak of a 256 MB echo", peaks, {STANDARD: 0.6}, unit="bytes", most_rounds=3))
    return found


def on_a_cluster(sized: Callable[[int], int]) -> list[Row]:
    """Return the rows of Dask, if that is installed."""
    if not cluster.is_there():
        return []
    return [
        Row("two Dask stages on 50 MB", cluster.heavy_chain(sized(50 * MEGABYTE)), {cluster.DASK: 1.2}),
        Row("a Dask stage, chain of 10 tiny ones", cluster.tiny_chain(10), {cluster.DASK: 1.1}),
        Row("Pipeline.map, Dask step of 1 ms", cluster.cluster_stream(sized(5_000)), {cluster.DASK: 1.3}),
    ]


def fused() -> Row:
    """Return the row of the fused process steps."""
    work = "three 1 MB steps on a process pool, fused"
    by_peer = {peer.name: peer for peer in pool_peers()}
    chained = partial(by_name("process_steps").make, by_peer[EACH_SUBMITTED], MEGABYTE)

    def fuse() -> Work:
        pool = open_pool(by_peer[OURS], "process")
        recipe: Any = Pipeline()
        for _ in range(3):
            recipe = recipe.then(nothing, on=pool)
        payload, count = bytes(MEGABYTE), 3
        return Work(lambda: [recipe.submit(payload).result() for _ in range(count)], count)

    return Row(work, {OURS: time_sample(fuse), STANDARD: time_sample(chained)}, {STANDARD: 0.40})


def rows(scale: float = 1.0) -> list[Row]:
    """Return the rows: what is promised, and some more for orientation."""

    def sized(count: int) -> int:
        return max(10, int(count * scale))

    return [
        compared("a stage attached and run, chain of 10, INLINE", "chain", 10, {BY_HAND: 0.10, "Twisted": 0.78}),
        compared("the same, chain of 1,000", "chain", sized(1000), {"Twisted": 0.62}),
        callbacks("an addCallback stage, chain of 10", 10, 1.10),
        callbacks("the same, chain of 1,000", sized(1000), 0.85),
        compared("a stage attached to a settled future", "on_settled", sized(1000), {BY_HAND: 0.10, "Twisted": 0.40}),
        compared("an error through 1,000 value stages", "error_through", sized(1000), {BY_HAND: 0.08, "Twisted": 0.58}),
        compared("a branch of a fan-out of 1,000", "fan_out", sized(1000), {BY_HAND: 0.30, "vine": 1.0}),
        deferred("a callback of a Deferred, chain of 10", "chain", 10),
        deferred("a callback of a Deferred that was fired", "on_settled", sized(1000)),
        deferred("a Deferred that a callback returns, fired before", "flatten_settled", sized(1000)),
        deferred("a Deferred that a callback returns, fired later", "flatten_pending", sized(1000)),
        compared("gather of 10,000 pending, per future", "gather", sized(10_000), {"asyncio": 0.25}),
        *growing(sized),
        Row("memory of a pending stage", {OURS: memory_sample(ours(), sized(20_000))}, limit=160, unit="bytes"),
        compared(
            "submit and read 20,000 tasks, thread pool",
            "pool_throughput",
            sized(20_000),
            {BY_HAND: 0.32},
            standard="standard",
        ),
        chains_on_a_pool("submit().then().then().result(), each step on the pool", sized(300), EACH_SUBMITTED, 0.30),
        chains_on_a_pool("the same; by hand, it runs where the one before ended", sized(300), BY_HAND, 0.75),
        *processes(sized),
        *streams(sized),
        *on_a_cluster(sized),
        compared("set and withdraw 10,000 timeouts, each", "timers", sized(10_000), {"asyncio": 0.60}),
        *traced(sized(1000)),
        imports("import futurechain", "import futurechain", "import concurrent.futures.thread", {STANDARD: 1.3}),
        imports(
            "from ... import both pools",
            "from futurechain import ProcessPoolExecutor, ThreadPoolExecutor",
            "from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor",
            {STANDARD: 1.3},
        ),
    ]


def measure(row: Row, rounds: int) -> None:
    """Take the samples in turns, after one that does not count, and fill in the row."""
    take_turns(row.samples, 1)
    taken = take_turns(row.samples, min(rounds, row.most_rounds))
    row.figures = medians(taken)
    row.ratios = {name: ratio(taken[OURS], theirs) for name, theirs in taken.items() if name != OURS}


def table(measured: Sequence[Row]) -> str:
    """Return the table, in Markdown; a row with two bounds takes two lines."""
    names = list(dict.fromkeys([OURS, STANDARD, *(name for row in measured for name in row.figures)]))
    lines = [["work", *(COLUMNS.get(name, name) for name in names), "ratio", "bound", "met?"]]
    for row in measured:
        lines += _lines(row, names)
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _lines(row: Row, names: list[str]) -> list[list[str]]:
    shown = [_shown(row, row.figures[name]) if name in row.figures else "" for name in names]
    said = {True: "met", False: "NOT MET", None: "not installed"}
    ends = [[ratio, bound, said[verdict]] for ratio, bound, verdict in row.verdicts()]
    if not ends:
        told = [f"{ratio:.3f} of {row.label(name)}" for name, ratio in row.ratios.items()]
        ends = [[told[0] if told else "", "", row.note or "no bound"]]
    first, *more = ends
    return [[row.work, *shown, *first], *(["", *([""] * len(names)), *end] for end in more)]


def _shown(row: Row, figure: float) -> str:
    return duration(figure) if row.unit == "ns" else f"{figure:,.0f} {row.unit}"


def as_json(measured: Sequence[Row]) -> dict[str, Any]:
    """Return what `--json` writes."""
    return {
        "machine": machine(),
        "rows": [
            {
                "work": row.work,
                "unit": row.unit,
                "figures": row.figures,
                "ratios": row.ratios,
                "bounds": row.bounds,
                "limit": row.limit,
                "note": row.note,
                "met": row.met(),
            }
            for row in measured
        ],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratios", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=21, help="samples of each contestant (%(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the rows whose name has TEXT in it")
    parser.add_argument("--quick", action="store_true", help="five samples")
    parser.add_argument("--scale", type=float, default=1.0, help="shrink the work: to try the command itself")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(argv)
    measured = [row for row in rows(options.scale) if options.only in row.work]
    with steady():
        for row in measured:
            print(f"{row.work} ...", file=sys.stderr, flush=True)
            measure(row, 5 if options.quick else options.rounds)
            print(table([row]), file=sys.stderr, flush=True)  # who ends a long run early has what was measured so far
    print(table(measured))
    if options.json:
        options.json.write_text(json.dumps(as_json(measured), indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.met() for row in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
