"""Many items through a function: futurechain's pipelines, and what else there is for that.

What is not installed is left out. Every contestant has two workers, which are running before the first sample, and is
given the chunk size that suits it best; a pipeline finds its own. ``python -m benchmarks.streams`` prints the peak
memory of a pipeline over a million items from a generator.
"""

from __future__ import annotations

import argparse
import concurrent.futures as cf
import importlib
import importlib.util
import multiprocessing
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import futurechain
from benchmarks.measure import Sample, Work, time_sample
from benchmarks.peers import BY_HAND, OURS
from benchmarks.pools import WORKERS, nothing, open_once, open_pool, pool_peers

__all__ = [
    "CHUNKS",
    "drifting",
    "main",
    "process_stream",
    "thread_stream",
    "trip_lengths",
    "uneven",
    "uneven_stream",
]

CHUNKS = {10: 500, 100: 50, 1000: 5}
"""The chunk size that suits ``Executor.map`` best, for items of so many microseconds; measured."""
WINDOW = 2000
HAND_WINDOW = 100


def busy(microseconds: int, value: Any) -> Any:
    """Be busy for so long. Importable, for other processes."""
    end = time.perf_counter() + microseconds * 1e-6
    while time.perf_counter() < end:
        pass
    return value


def drain(results: Iterable[Any]) -> None:
    """Read all results, and keep none."""
    deque(results, maxlen=0)


# -- one process step -------------------------------------------------------------------------------------------------


def _process_pool(name: str) -> Any:
    return open_pool(next(peer for peer in pool_peers() if peer.name == name), "process")


def ours(fn: Any, count: int, _chunk: int) -> None:
    """Stream through a pipeline, which is told nothing about the size of its batches."""
    drain(futurechain.Pipeline().then(fn, on=_process_pool(OURS)).map(range(count), window=WINDOW))


def executor_map(fn: Any, count: int, chunk: int) -> None:
    """Use the standard pool's map, which reads all of its input first."""
    drain(_standard_pool().map(fn, range(count), chunksize=chunk))


def _standard_pool() -> Any:
    pool = open_once(
        "map", lambda: cf.ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))
    )
    drain(pool.map(nothing, range(20)))
    return pool


def pool_imap(fn: Any, count: int, chunk: int) -> None:
    """Use `multiprocessing.Pool.imap`."""
    drain(_multiprocessing_pool().imap(fn, range(count), chunksize=chunk))


def _multiprocessing_pool() -> Any:
    return open_once("Pool.imap", lambda: multiprocessing.get_context("spawn").Pool(WORKERS))


def joblib(fn: Any, count: int, _chunk: int) -> None:
    """Use joblib, which finds the size of its batches itself."""
    module = importlib.import_module("joblib")
    drain(module.Parallel(n_jobs=WORKERS)(module.delayed(fn)(value) for value in range(count)))


def mpire(fn: Any, count: int, chunk: int) -> None:
    """Use mpire's `imap`."""
    drain(_mpire_pool().imap(fn, range(count), iterable_len=count, chunk_size=chunk))


def _mpire_pool() -> Any:
    make = importlib.import_module("mpire").WorkerPool
    return open_once("mpire", lambda: make(WORKERS, start_method="spawn", keep_alive=True))


def pqdm(fn: Any, count: int, _chunk: int) -> None:
    """Use pqdm, which starts a pool each time, and submits each item."""
    module = importlib.import_module("pqdm.processes")
    module.pqdm(range(count), fn, n_jobs=WORKERS, disable=True)


Contestant = Callable[[Any, int, int], None]
PROCESSES: dict[str, Contestant] = {
    OURS: ours,
    BY_HAND: executor_map,
    "Pool.imap": pool_imap,
    "joblib": joblib,
    "mpire": mpire,
    "pqdm": pqdm,
}

INSTALLED = {"joblib", "mpire", "pqdm"}
"""Those that may be missing."""


def process_stream(microseconds: int, count: int) -> dict[str, Sample]:
    """Return a sample of each contestant: `count` items of so many microseconds through one process step."""
    fn = partial(busy, microseconds)
    there = {name: do for name, do in PROCESSES.items() if name not in INSTALLED or importlib.util.find_spec(name)}
    return {name: _sample(partial(do, fn, count, CHUNKS[microseconds]), count) for name, do in there.items()}


def _sample(run: Callable[[], object], count: int) -> Sample:
    return time_sample(lambda: Work(run, count))


# -- three thread steps -----------------------------------------------------------------------------------------------


def thread_stream(count: int) -> dict[str, Sample]:
    """Return samples of `count` items through three steps on threads: a pipeline, and a window written by hand."""
    ours_pool, standard = (open_pool(peer, "thread") for peer in pool_peers()[:2])

    def pipeline() -> None:
        recipe = futurechain.Pipeline().then(nothing, on=ours_pool).then(nothing).then(nothing)
        drain(recipe.map(range(count), window=HAND_WINDOW))

    chain = pool_peers()[1].chain

    def by_hand() -> None:
        window: deque[Any] = deque()
        for value in range(count):
            if len(window) == HAND_WINDOW:
                window.popleft().result()
            window.append(chain(standard, [nothing] * 3, value))
        while window:
            window.popleft().result()

    return {OURS: _sample(pipeline, count), BY_HAND: _sample(by_hand, count)}


# -- uneven items -----------------------------------------------------------------------------------------------------


def uneven(value: int) -> int:
    """Be busy: one item in a hundred takes 500 times as long."""
    return int(busy(10 if value % 100 else 5000, value))


def drifting(value: int) -> int:
    """Be busy: items take 10 µs, and a hundred times as long from the ten-thousandth on."""
    return int(busy(10 if value < 10_000 else 1000, value))


def uneven_stream(fn: Callable[[int], int], count: int, chunk: int) -> dict[str, Sample]:
    """Return samples of a pipeline and of the standard map with a chunk size tuned by hand."""
    by_name: dict[str, Contestant] = {OURS: ours, BY_HAND: executor_map}
    return {name: _sample(partial(do, fn, count, chunk), count) for name, do in by_name.items()}


def trip_lengths(fn: Callable[[int], int], count: int) -> list[float]:
    """Return how long the trips of a stream were in their workers, in seconds."""
    from futurechain.pipeline.trips import TripSize

    seen: list[float] = []
    learn = TripSize.learn

    def note(self: TripSize, items: int, seconds: float) -> None:
        seen.append(seconds)
        learn(self, items, seconds)

    TripSize.learn = note  # type: ignore[method-assign]
    try:
        ours(fn, count, 0)
    finally:
        TripSize.learn = learn  # type: ignore[method-assign]
    return seen


# -- memory -----------------------------------------------------------------------------------------------------------


def peak(kind: str, count: int, parts: int = 10) -> list[int]:
    """Return the peak memory of this process in kilobytes, after each part of a stream over a generator."""
    found = []
    with futurechain.ThreadPoolExecutor(2) as threads, futurechain.ProcessPoolExecutor(2) as processes:
        on = {"threads": [threads, threads], "processes": [processes, processes], "mixed": [threads, processes]}[kind]
        recipe = futurechain.Pipeline().then(nothing, on=on[0]).then(nothing, on=on[1])
        with recipe.map((bytes(100) for _ in range(count)), window=1000) as results:
            for number, _ in enumerate(results, 1):
                if number % (count // parts) == 0:
                    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the peaks; exit status 1 if they grow by more than a tenth after the first part."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=about)
    parser.add_argument("--items", type=int, default=1_000_000, help="how many (%(default)s)")
    options = parser.parse_args(argv)
    grown = False
    for kind in ("threads", "processes", "mixed"):
        peaks = peak(kind, options.items)
        grown = grown or peaks[-1] > 1.1 * peaks[0]
        shown = " ".join(f"{one / 1024:.1f}" for one in peaks)
        print(f"{kind}: peak memory after each tenth of {options.items:,} items, in MB: {shown}", flush=True)
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
