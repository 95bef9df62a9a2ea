"""``python -m benchmarks.growth``: does the cost of a piece stay the same when there are more pieces?

Prints the time per stage for chains of 1 to 100,000, and the time per piece of other work with 1,000 and with 100,000
pieces; draws the chains as an SVG chart. Peers take turns; of each the quickest sample counts, since a busy machine
only ever adds. more-executors would need minutes with 100,000 pieces, and is left out there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.chart import chart
from benchmarks.measure import duration, machine, steady, take_turns, time_sample
from benchmarks.scenarios import by_name, refusal

__all__ = ["LENGTHS", "best", "chains", "main", "pieces"]

LENGTHS = (1, 10, 100, 1000, 10_000, 100_000)
FEW, MANY = 1000, 100_000
LINEAR = ("gather", "fan_out", "timers")
TOO_SLOW = "more-executors"


def best(name: str, size: int, rounds: int, *, without: str = "", only: Sequence[str] = ()) -> dict[str, float]:
    """Return the best time per piece of each peer (or of some) that can do the scenario in that size."""
    scenario = by_name(name)
    samples = {
        peer.name: time_sample(partial(scenario.make, peer, size))
        for peer in scenario.peers()
        if peer.name != without and (not only or peer.name in only) and not refusal(scenario, peer, size)
    }
    return {peer: min(figures) for peer, figures in take_turns(samples, rounds).items()}


def chains(longest: int, rounds: int) -> dict[str, dict[int, float]]:
    """Return the nanoseconds per stage, by peer and length."""
    found: dict[str, dict[int, float]] = {}
    for length in (length for length in LENGTHS if length <= longest):
        for name, figure in best("chain", length, rounds).items():
            found.setdefault(name, {})[length] = figure
    return found


def pieces(name: str, few: int, many: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the nanoseconds per piece with few and with many, by peer that can do both."""
    with_few = best(name, few, rounds, without=TOO_SLOW)
    with_many = best(name, many, rounds, without=TOO_SLOW)
    return {peer: (with_few[peer], with_many[peer]) for peer in with_many}


def show_chains(found: dict[str, dict[int, float]]) -> None:
    """Print the time per stage."""
    lengths = list(next(iter(found.values())))
    print(f"{'a stage, in a chain of':24}" + "".join(f"{length:>10,}" for length in lengths))
    for name, line in found.items():
        cells = [duration(line[length]) if length in line else "-" for length in lengths]
        print(f"{name:24}" + "".join(f"{cell:>10}" for cell in cells))
    print("-: calls itself for each stage, and would overflow the stack")


def show_pieces(name: str, sizes: tuple[int, int], found: dict[str, tuple[float, float]]) -> None:
    """Print the time per piece with few and with many, and their ratio."""
    few, many = sizes
    print(f"\n{name.replace('_', '-') + ', per piece':24}{few:>10,}{many:>10,}     ratio")
    for peer, (with_few, with_many) in found.items():
        print(f"{peer:24}{duration(with_few):>10}{duration(with_many):>10}{with_many / with_few:>10.2f}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, draw; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).with_name("growth.svg")
    parser.add_argument("--svg", type=Path, metavar="FILE", default=default, help="the chart (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each contestant (%(default)s)")
    parser.add_argument("--longest", type=int, default=MANY, help="most stages or pieces (%(default)s)")
    options = parser.parse_args(argv)
    sizes = (min(FEW, options.longest), options.longest)
    with steady():
        found = chains(options.longest, options.rounds)
        show_chains(found)
        others = {name: pieces(name, *sizes, options.rounds) for name in LINEAR}
    for name, figures in others.items():
        show_pieces(name, sizes, figures)
    options.svg.write_text(chart(found, machine()), encoding="utf-8")
    print(f"\nwritten: {options.svg}")
    if options.json:
        written = {"machine": machine(), "chains": found, "sizes": sizes, "pieces": others}
        options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
