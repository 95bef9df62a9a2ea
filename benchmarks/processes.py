"""Process pools side by side: futurechain's, the standard one, loky's and Pebble's.

What is not installed is left out. Every pool has two workers, which are running before the first sample. Memory is that
of a fresh program and its children, pages they share counted once, looked at from outside while an echo runs.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import futurechain
from benchmarks.measure import Sample, Work, time_sample
from benchmarks.peers import BY_HAND, OURS
from benchmarks.pools import WORKERS, nothing
from benchmarks.streams import busy

__all__ = ["array_echoes", "composed", "echo_in_turns", "echo_peaks", "first_and_last", "round_trips", "tasks"]

SPAWN = multiprocessing.get_context("spawn")


class Engine(NamedTuple):
    """A process pool: how it is opened, and how it is given something to do."""

    open: Callable[[], Any]
    submit: Callable[..., Any]


def _submit(pool: Any, fn: Any, *args: Any) -> Any:
    return pool.submit(fn, *args)


def _standard() -> Any:
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(WORKERS, SPAWN)


def _loky() -> Any:
    return importlib.import_module("loky").ProcessPoolExecutor(WORKERS, context=_lokys_context())


def _lokys_context() -> Any:
    return importlib.import_module("loky.backend").get_context("loky")


def _pebble() -> Any:
    pool = importlib.import_module("pebble").ProcessPool(WORKERS, context=SPAWN)
    atexit.register(pool.stop)
    return pool


ENGINES = {
    OURS: Engine(lambda: futurechain.ProcessPoolExecutor(WORKERS, SPAWN), _submit),
    BY_HAND: Engine(_standard, _submit),
    "loky": Engine(_loky, _submit),
    "Pebble": Engine(_pebble, lambda pool, fn, *args: pool.schedule(fn, args)),
}
INSTALLED = {"loky": "loky", "Pebble": "pebble"}
"""The modules of those that may be missing."""


def engines() -> list[str]:
    """Return which are installed, ours first."""
    return [name for name in ENGINES if name not in INSTALLED or importlib.util.find_spec(INSTALLED[name])]


@cache
def opened(name: str) -> Callable[..., Any]:
    """Return what submits to the pool of that name, whose workers are running."""
    pool = ENGINES[name].open()
    submit = partial(ENGINES[name].submit, pool)
    for future in [submit(nothing) for _ in range(20 * WORKERS)]:
        future.result()
    return submit


def _samples(make: Callable[[Callable[..., Any]], Work], names: list[str] | None = None) -> dict[str, Sample]:
    return {name: time_sample(lambda name=name: make(opened(name))) for name in names or engines()}


# -- many small ones --------------------------------------------------------------------------------------------------


def tasks(count: int, microseconds: int) -> dict[str, Sample]:
    """Return samples of so many tasks, all submitted and then read; each takes so many microseconds."""
    fn = partial(busy, microseconds) if microseconds else nothing

    def make(submit: Callable[..., Any]) -> Work:
        def run() -> None:
            for future in [submit(fn, number) for number in range(count)]:
                future.result()

        return Work(run, count)

    return _samples(make)


def round_trips(count: int) -> dict[str, Sample]:
    """Return samples of so many tasks, one after the other."""
    return _samples(lambda submit: Work(lambda: [submit(nothing, 1).result() for _ in range(count)], count))


def first_and_last(count: int) -> dict[str, Sample]:
    """Return samples of the time to the first result, and to the last, of so many chains of two 1 ms steps, by ours."""
    step = partial(busy, 1000)

    def sample(position: int) -> Sample:
        def take() -> float:
            submit = opened(OURS)
            start = time.perf_counter_ns()
            chains = [submit(step, number).then(step) for number in range(count)]
            chains[position].result()
            took = time.perf_counter_ns() - start
            for chain in chains:
                chain.result()
            return took

        return take

    return {OURS: sample(0), BY_HAND: sample(-1)}


# -- heavy ones -------------------------------------------------------------------------------------------------------


def touch(array: Any) -> Any:
    """Change one number of each page, and return the array."""
    array[::512] += 1
    return array


def array_echoes(size: int, count: int) -> dict[str, Sample]:
    """Return samples of numpy arrays of so many bytes that go there and back, one after the other, and are changed."""
    numpy = importlib.import_module("numpy")
    array = numpy.zeros(size // 8)

    def make(submit: Callable[..., Any]) -> Work:
        def run() -> None:
            for _ in range(count):
                touch(submit(touch, array).result())

        return Work(run, count)

    return _samples(make)


def capitalize(text: bytes) -> bytes:
    """Do a step: a table lookup for each byte."""
    return text.upper()


def three(text: bytes) -> bytes:
    """Do three steps in one call."""
    return capitalize(capitalize(capitalize(text)))


def composed(size: int, count: int) -> dict[str, Sample]:
    """Return samples of three chained steps on so many bytes, and of one function that does all three, by ours."""
    text = bytes(size)

    def chained(submit: Callable[..., Any]) -> Work:
        def run() -> None:
            for _ in range(count):
                submit(capitalize, text).then(capitalize).then(capitalize).result()

        return Work(run, count)

    def at_once(submit: Callable[..., Any]) -> Work:
        return Work(lambda: [submit(three, text).result() for _ in range(count)], count)

    return {OURS: time_sample(lambda: chained(opened(OURS))), BY_HAND: time_sample(lambda: at_once(opened(OURS)))}


# -- memory -----------------------------------------------------------------------------------------------------------

ECHO = """
import sys, time
from benchmarks.processes import echo_in_turns
if __name__ == "__main__":
    echo_in_turns(sys.argv[1], int(sys.argv[2]))
"""


def echo_in_turns(name: str, size: int) -> None:
    """Send so many bytes there and back, after a word on stdout that the pool is open; the body of a fresh program."""
    array = importlib.import_module("numpy").ones(size // 8)
    submit = opened(name)
    print("ready", flush=True)
    sys.stdin.readline()
    touch(submit(touch, array).result())
    print("done", flush=True)
    sys.stdin.readline()


def echo_peaks(size: int) -> dict[str, Sample]:
    """Return samples of the most memory that an echo of so many bytes takes, beyond what was taken before."""
    return {name: partial(_peak, name, size) for name in engines()}


def _peak(name: str, size: int) -> float:
    root = Path(__file__).resolve().parent.parent
    run = subprocess.Popen(
        [sys.executable, "-c", ECHO, name, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert run.stdin is not None
    assert run.stdout is not None
    with run:
        run.stdout.readline()
        before = memory_of(run.pid)
        run.stdin.write("go\n")
        run.stdin.flush()
        peak = before
        os.set_blocking(run.stdout.fileno(), False)
        while not os_read(run.stdout.fileno()):
            peak = max(peak, memory_of(run.pid))
        run.stdin.write("end\n")
    return peak - before


def os_read(fd: int) -> bytes:
    """Return what can be read at once; nothing if there is nothing."""
    try:
        return os.read(fd, 100) or b"ended"
    except BlockingIOError:
        return b""


def memory_of(pid: int) -> int:
    """Return the bytes that a process and its descendants take; what they share counts once."""
    return sum(map(_share_of, _family(pid)))


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
            yield from _family(int(child))


def _share_of(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
