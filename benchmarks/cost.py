"""``python -m benchmarks.cost``: what things cost, counted in calls of a Python function that does nothing.

The count is what carries over to other machines; the time is this machine's. All things take turns; of each the
quickest sample counts, since a busy machine only ever adds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Sample, Work, duration, machine, steady, take_turns, time_sample
from benchmarks.peers import ADD_CALLBACK, OURS, peers
from benchmarks.pools import nothing, our_timers
from benchmarks.scenarios import by_name
from futurechain import Future

__all__ = ["main", "samples", "table"]

CALL = "a function call"
THINGS = (
    ("a future, created", "create", OURS, 1000),
    ("a future, created, settled and read", "create_settle_read", OURS, 1000),
    ("a `then` stage, attached and run, in a chain of 10", "chain", OURS, 10),
    ("a `then` stage in a chain of 1,000", "chain", OURS, 1000),
    ("an `addCallback` stage in a chain of 1,000", "chain", ADD_CALLBACK, 1000),
    ("a `then` stage on a settled future", "on_settled", OURS, 1000),
    ("a stage that an error passes by", "error_through", OURS, 1000),
    ("a branch of a fan-out of 1,000", "fan_out", OURS, 1000),
    ("a future in a `gather`", "gather", OURS, 1000),
    ("a stage whose handler returns a settled future", "flatten_settled", OURS, 1000),
    ("a stage whose handler returns a pending future", "flatten_pending", OURS, 1000),
    ("a timer, set and withdrawn", "timers", OURS, 10_000),
    ("a task of many on a thread pool", "pool_throughput", OURS, 5000),
    ("a chain of three steps on a thread pool, of many", "chains_in_flight", OURS, 1000),
    ("a hop: a task on a thread pool, waited for", "pool_round_trip", OURS, 300),
    ("three steps of 100 B on a process pool", "process_steps", OURS, 100),
    ("three steps of 1 MB on a process pool", "process_steps", OURS, 1_000_000),
)
"""Thing, scenario, contestant, size."""


def calls(count: int) -> Work:
    """Call a function that does nothing: the unit."""

    def run() -> None:
        fn = nothing
        for _ in range(count):
            fn(1)

    return Work(run, count)


def timeouts(count: int) -> Work:
    """Give futures a timeout, and settle them; making the futures is not timed."""
    pending: list[Any] = [Future() for _ in range(count)]
    tidy = our_timers().tidy

    def run() -> None:
        for future in pending:
            future.timeout(60)
            future.set_result(1)
        tidy()

    return Work(run, count)


def samples(scale: float = 1.0) -> dict[str, Sample]:
    """Return what is measured, by thing."""
    found = {CALL: time_sample(partial(calls, 10_000))}
    for thing, name, contestant, size in THINGS:
        scenario = by_name(name)
        peer = next(peer for peer in (*scenario.peers(), *peers()) if peer.name == contestant)
        found[thing] = time_sample(partial(scenario.make, peer, max(10, int(size * scale))))
    found["a timeout on a future, which settles before"] = time_sample(partial(timeouts, max(10, int(1000 * scale))))
    return found


def table(figures: dict[str, float]) -> str:
    """Return the table, in Markdown."""
    unit = figures[CALL]
    lines = [["thing", "function calls, about", "here"], ["---", "---:", "---:"]]
    lines += [[thing, f"{_rounded(figure / unit):,}", duration(figure)] for thing, figure in figures.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rounded(number: float) -> int:
    """Return two digits of it: more would not be the same the next time."""
    return int(float(f"{number:.2g}"))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="samples of each thing (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="shrink the work: to try the command itself")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(argv)
    things = samples(options.scale)
    with steady():
        take_turns(things, 1)
        figures = {thing: min(taken) for thing, taken in take_turns(things, options.rounds).items()}
    where = machine()
    print(table(figures))
    print(f"\n{where['processor']}, {where['cores']} cores, {where['python']}, {where['date']}")
    if options.json:
        written = json.dumps({"machine": where, "nanoseconds": figures}, indent=2)
        options.json.write_text(written + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
