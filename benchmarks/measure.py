"""How things are timed: samples in turns, each with a clean heap and a garbage collector that keeps still.

Contestants take turns, sample by sample, so that a busy moment of the machine meets all of them; a ratio is the median
of the ratios of neighbouring samples. What a sample leaves behind is thrown away before the next one begins.
"""

from __future__ import annotations

import gc
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.peers import Peer
from benchmarks.pools import close_pools, nothing

__all__ = [
    "Sample",
    "Work",
    "duration",
    "import_sample",
    "machine",
    "medians",
    "memory_sample",
    "on_one_core",
    "ratio",
    "steady",
    "take_turns",
    "time_sample",
]

Sample = Callable[[], float]
"""Does some work once; returns nanoseconds (or bytes) per piece of it."""

DEEP = 25_000
"""How deep peers may recurse that call themselves for each stage."""


@dataclass(frozen=True)
class Work:
    """Work that is ready to be done, once."""

    run: Callable[[], object]
    pieces: int
    """How many stages, futures and so on that is."""


@contextmanager
def steady() -> Iterator[None]:
    """Take what exists now out of the collector's sight, and let peers recurse; close pools at the end."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(DEEP)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        close_pools()
        gc.unfreeze()
        sys.setrecursionlimit(limit)


def time_sample(prepare: Callable[[], Work]) -> Sample:
    """Return a sample that times the work that `prepare` makes ready."""

    def sample() -> float:
        work = prepare()
        gc.collect()
        gc.disable()
        try:
            start = time.perf_counter_ns()
            work.run()
            return (time.perf_counter_ns() - start) / work.pieces
        finally:
            gc.enable()

    return sample


def on_one_core(sample: Sample) -> Sample:
    """Return the same sample, taken with all threads of this process on one core, where that can be had.

    Who wakes whom across cores takes 20 or 60 µs, as it comes, and hides what is to be measured.
    """
    if not hasattr(os, "sched_setaffinity"):
        return sample

    def pinned() -> float:
        cores = os.sched_getaffinity(0)
        _move_to({max(cores)})
        try:
            return sample()
        finally:
            _move_to(cores)

    return pinned


def _move_to(cores: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), cores)


def memory_sample(peer: Peer, count: int) -> Sample:
    """Return a sample of the bytes that a pending stage of a long chain takes."""

    def sample() -> float:
        gc.collect()
        tracemalloc.start()
        try:
            root = last = peer.pending()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(count):
                last = peer.attach(last, nothing)
            used = (tracemalloc.get_traced_memory()[0] - before) / count
        finally:
            tracemalloc.stop()
        peer.settle(root, 1)
        peer.read(last)
        return used

    return sample


@cache
def _bytecode() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="benchmarks-")


def import_sample(statement: str) -> Sample:
    """Return a sample of what an import statement takes in a fresh interpreter with a warm bytecode cache."""
    program = f"import time; s = time.perf_counter_ns(); {statement}; print(time.perf_counter_ns() - s)"
    root = str(Path(__file__).resolve().parent.parent)
    env = {**os.environ, "PYTHONPYCACHEPREFIX": _bytecode().name, "PYTHONPATH": root}
    env.pop("PYTHONDONTWRITEBYTECODE", None)

    def sample() -> float:
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
        return float(run.stdout)

    @cache
    def warm_up() -> None:
        sample()

    def warm_sample() -> float:
        warm_up()
        return sample()

    return warm_sample


def take_turns(contestants: Mapping[str, Sample], rounds: int) -> dict[str, list[float]]:
    """Return `rounds` samples of each contestant, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, sample in contestants.items():
            taken[name].append(sample())
    return taken


def medians(taken: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each contestant's samples."""
    return {name: statistics.median(figures) for name, figures in taken.items()}


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios of samples taken one after the other."""
    return statistics.median(own / other for own, other in zip(ours, theirs, strict=True))


def duration(nanoseconds: float) -> str:
    """Return it with three digits, in the unit that suits."""
    for unit, size in (("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            number = nanoseconds / size
            return f"{number:.{max(0, 2 - int(math.log10(number)))}f} {unit}"
    return f"{nanoseconds:.0f} ns"


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, and when."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "date": datetime.now().astimezone().date().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
