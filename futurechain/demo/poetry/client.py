"""The poetry client: downloads poems at once on a thread pool, improves each on a process pool, prints them.

A program to copy from. The chain is in `get_poem`; the rest is a program around it.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from futurechain import INLINE, Future, ProcessPoolExecutor, ThreadPoolExecutor, trace
from futurechain.demo.poetry.engine import GibberishError, byronify
from futurechain.demo.poetry.server import PoetryServer

__all__ = ["Poem", "download", "get_poem", "main"]

SORRY = "The poem download failed."


@dataclass(frozen=True)
class Poem:
    """A poem in hand."""

    text: str
    size: int
    """How many bytes were downloaded."""
    seconds: float
    """How long its own work took."""


def download(address: tuple[str, int], timeout: float = 10.0) -> Poem:
    """Read a poem from `address` until the server closes the connection; blocks the thread it runs in."""
    start = time.perf_counter()
    with socket.create_connection(address, timeout) as connection:
        data = b"".join(iter(partial(connection.recv, 1024), b""))
    if not data:
        raise ConnectionError("the server sent nothing")
    return Poem(data.decode("utf-8", "replace"), len(data), time.perf_counter() - start)


def improve(poem: Poem, trouble: float, seed: int) -> Poem:
    """Transform a poem; runs in a worker process."""
    start = time.perf_counter()
    text = byronify(poem.text, trouble, seed)
    return Poem(text, poem.size, poem.seconds + time.perf_counter() - start)


def get_poem(
    address: tuple[str, int], threads: ThreadPoolExecutor, processes: Executor, trouble: float, seed: int, say: Say
) -> Future[Poem]:
    """Download and transform one poem; the future of it, which fails if there is none to print.

    An engine that fails costs only the improvement: the original is kept. What is no poem at all is no download.
    """

    def transform(poem: Poem) -> Future[Poem]:
        say(f"{address[1]}: {poem.size} bytes in {poem.seconds:.1f} s")
        better = Future.succeed(poem).then(partial(improve, trouble=trouble, seed=seed), on=processes)
        return better.catch(partial(keep, poem), on=INLINE)

    def keep(poem: Poem, error: Exception) -> Poem:
        if isinstance(error, GibberishError):
            raise error
        say(f"{address[1]}: kept the original: {error}")
        return poem

    return threads.submit(download, address).then(transform)


class Say:
    """Print a progress line, if somebody watches."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()

    def __call__(self, line: str) -> None:
        if self._watched:
            print(line, file=sys.stderr, flush=True)


def print_poems(poems: Sequence[Future[Poem]], say: Say) -> list[Poem]:
    """Print each poem as soon as it is there, and an apology for each that is not; those printed."""
    printed = []
    for future in as_they_come(poems):
        error = future.exception()
        if error is None:
            poem = future.result()
            printed.append(poem)
            print(poem.text.strip(), end="\n\n", flush=True)
        else:
            say(f"failed: {error}")
            print(SORRY, end="\n\n", flush=True)
    return printed


def as_they_come(futures: Sequence[Future[Poem]]) -> Iterator[Future[Poem]]:
    """Iterate over the futures as they are settled.

    Like ``as_completed``, but safe for Ctrl-C: that holds the futures' own locks for a moment, and an interrupt then
    would leave them locked; and it looks up now and then, because an interrupt in the instant before a thread falls
    asleep for good would not wake it.
    """
    settled: SimpleQueue[Any] = SimpleQueue()
    for future in futures:
        future.add_done_callback(settled.put)
    left = len(futures)
    while left:
        with suppress(Empty):
            yield settled.get(timeout=0.2)
            left -= 1


def read_poems(names: Sequence[str]) -> list[bytes | None]:
    """Read the files, or the poems that come with the package; None for one that cannot be read."""
    if not names:
        shelf = files("futurechain.demo.poetry") / "poems"
        return [path.read_bytes() for path in sorted(shelf.iterdir(), key=lambda path: path.name)]
    poems: list[bytes | None] = []
    for name in names:
        try:
            poems.append(Path(name).read_bytes())
        except OSError as error:
            print(f"poetry: cannot read {name}: {error.strerror}", file=sys.stderr)
            poems.append(None)
        else:
            if not poems[-1]:
                print(f"poetry: {name} is empty", file=sys.stderr)
    return poems


def work(options: argparse.Namespace) -> int:
    """Serve, download, transform and print; the exit status."""
    poems, say = read_poems(options.files), Say()
    start = time.perf_counter()
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                PoetryServer(poem, chunk=options.chunk, delay=options.delay, down=number < options.down)
            )
            for number, poem in enumerate(poem for poem in poems if poem is not None)
        ]
        threads = stack.enter_context(ThreadPoolExecutor(max(1, len(servers)), "download"))
        processes = stack.enter_context(
            # spawn: a forked child would inherit the sockets, and locks of the threads that run already
            ProcessPoolExecutor(options.processes, get_context("spawn"), initializer=ignore_interrupt)
        )
        try:
            futures = [
                get_poem(server.address, threads, processes, options.trouble, options.seed, say) for server in servers
            ]
            printed = print_poems(futures, say)
        except KeyboardInterrupt:
            for server in servers:
                server.close()  # which ends the downloads that are running
            threads.shutdown(wait=False, cancel_futures=True)
            processes.shutdown(wait=False, cancel_futures=True)
            raise
    summarise(printed, len(poems), time.perf_counter() - start)
    return 0 if len(printed) == len(poems) else 1


def work_traced(options: argparse.Namespace) -> int:
    """Do so, and write the timeline of it, also after Ctrl-C; the exit status."""
    with trace() as timeline:
        try:
            return work(options)
        finally:
            timeline.save(options.trace)


def ignore_interrupt() -> None:
    """Let Ctrl-C, which the whole process group gets, be the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def summarise(printed: Sequence[Poem], wanted: int, seconds: float) -> None:
    """Print what was done, and what it would have taken one after another."""
    size = sum(poem.size for poem in printed)
    alone = sum(poem.seconds for poem in printed)
    print(f"{len(printed)} of {wanted} poems, {size} bytes, in {seconds:.1f} s; one after another: {alone:.1f} s")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(
            "Start a slow poetry server for each poem, download all of them at once on a thread pool, transform each "
            "on a process pool with the Byronification engine, and print them."
        ),
        epilog="Exit status: 0 if every poem was printed, 1 if one was not, 2 for bad usage, 130 after Ctrl-C.",
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="poems to serve; by default some that come along")
    parser.add_argument(
        "--chunk", type=_positive(int), default=10, help="bytes that a server sends at a time (%(default)s)"
    )
    parser.add_argument("--delay", type=_positive(float), default=0.03, help="seconds between them (%(default)s)")
    parser.add_argument("--processes", type=_positive(int), default=2, help="worker processes (%(default)s)")
    parser.add_argument(
        "--trouble", type=_share, default=0.25, help="how often the engine fails, 0 to 1 (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed fails on the same poems (%(default)s)")
    parser.add_argument(
        "--trace",
        type=_trace_file,
        metavar="FILE",
        help="write a timeline: a page (.html), or for Perfetto (.json)",
    )
    parser.add_argument(
        "--down", type=_count, default=0, metavar="N", help="the first N servers are down (%(default)s)"
    )
    return parser


def _positive(kind: type[int | float]) -> type[int | float]:
    def convert(text: str) -> float:
        number = kind(text)
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"wants a positive number, not {text}")
        return number

    convert.__name__ = kind.__name__
    return convert  # type: ignore[return-value]


def _trace_file(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in {".html", ".json"}:
        raise argparse.ArgumentTypeError(f"wants a name that ends in .html or .json, not {text}")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"wants a name in a folder that exists, not {text}")
    return path


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"wants a number that is not negative, not {text}")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"wants a number from 0 to 1, not {text}")
    return number


def main(argv: Sequence[str] | None = None, prog: str = "python -m futurechain poetry") -> int:
    """Run the program; the exit status."""
    options = _parser(prog).parse_args(argv)
    try:
        return work(options) if options.trace is None else work_traced(options)
    except KeyboardInterrupt:
        print("\npoetry: interrupted", file=sys.stderr)
        return 130
