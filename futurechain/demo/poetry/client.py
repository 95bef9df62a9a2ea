"""The poetry client: downloads poems at once on a thread pool, improves each on a process pool, prints them.

A program to copy from. The chain is in `get_poem`; the rest is a program around it.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

from futurechain import INLINE, Future, Pipeline, ProcessPoolExecutor, ThreadPoolExecutor, trace
from futurechain.demo.interrupts import HeldInterrupts
from futurechain.demo.poetry.cluster import NoClusterError, open_cluster
from futurechain.demo.poetry.engine import GibberishError, byronify
from futurechain.demo.poetry.server import PoetryServer

__all__ = ["Poem", "download", "get_poem", "main"]

SORRY = "The poem download failed."
PATIENCE = 10.0
"""How many seconds a server may send nothing, beyond its usual delay."""
MOST = 200
"""How many poems are downloaded at once, if there are descriptors for so many."""


@dataclass(frozen=True)
class Poem:
    """A poem in hand."""

    text: str
    size: int
    """How many bytes were downloaded."""
    seconds: float
    """How long its own work took."""


def download(address: tuple[str, int], timeout: float = PATIENCE) -> Poem:
    """Read a poem from `address` until the server closes the connection; blocks the thread it runs in.

    Args:
        address: host and port.
        timeout: how many seconds may pass without a byte.

    Raises:
        OSError: if there is no poem to be had.
    """
    start = time.perf_counter()
    try:
        with socket.create_connection(address, timeout) as connection:
            data = b"".join(iter(partial(connection.recv, 1024), b""))
    except TimeoutError:
        raise TimeoutError(f"the server sent nothing for {timeout:g} seconds") from None
    if not data:
        raise ConnectionError("the server sent nothing")
    return Poem(data.decode("utf-8", "replace"), len(data), time.perf_counter() - start)


def improve(poem: Poem, trouble: float, seed: int) -> Poem:
    """Transform a poem; runs in a worker process."""
    start = time.perf_counter()
    text = byronify(poem.text, trouble, seed)
    return Poem(text, poem.size, poem.seconds + time.perf_counter() - start)


def get_poem(
    address: tuple[str, int],
    threads: ThreadPoolExecutor,
    processes: Executor,
    trouble: float,
    seed: int,
    say: Callable[[str], object],
    timeout: float = PATIENCE,
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

    return threads.submit(download, address, timeout).then(transform)


class Say:
    """Print a progress line, if somebody watches; above the progress bar, if there is one."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()

    def __call__(self, line: str) -> None:
        if self._watched:
            write = getattr(_bar(), "write", None)
            if write is None:
                print(line, file=sys.stderr, flush=True)
            else:
                write(line, file=sys.stderr)


def _bar() -> Any:
    """Return tqdm's progress bar, if that is installed."""
    try:
        return import_module("tqdm").tqdm
    except ImportError:
        return None


class Readings:
    """Serves, downloads and transforms poems, as many at once as there are descriptors for; closes what it opens.

    Args:
        poems: the poems, by name; each is served once it is its turn.
        options: of the command line.
        cluster: the executor of a cluster, if the engine works there.
    """

    def __init__(
        self, poems: Sequence[tuple[str, bytes]], options: argparse.Namespace, cluster: Executor | None = None
    ) -> None:
        self._poems = poems
        self._options = options
        self._most = min(options.window, _affordable(options.processes))
        self._say = Say()
        self._open: dict[str, PoetryServer] = {}
        self._settled: SimpleQueue[Any] = SimpleQueue()
        self._reader = ThreadPoolExecutor(1, "reader")
        self._is_over = False
        self._threads = ThreadPoolExecutor(max(1, min(self._most, len(poems))), "download")
        self._processes = ProcessPoolExecutor(
            # spawn: a forked child would inherit the sockets, and locks of the threads that run already
            options.processes, get_context("spawn"), initializer=ignore_interrupt
        )
        places = {"processes": self._processes, "threads": self._threads}
        self._engines: Executor = places.get(options.on, self._threads) if cluster is None else cluster

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what is left, and wait for that; nothing is left unless something went wrong."""
        self._is_over = True
        for server in tuple(self._open.values()):
            server.close()  # which ends the downloads that are running
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._processes.shutdown(cancel_futures=True)
        self._engines.shutdown(cancel_futures=True)
        self._threads.shutdown()
        self._reader.shutdown()

    def each(self, interrupts: HeldInterrupts) -> Iterator[tuple[str, Future[Poem]]]:
        """Iterate over the poems' names and settled futures, as they come.

        A stream of them is read on a thread of its own, so that Ctrl-C can be looked at now and then.
        """
        reading, settled = self._reader.submit(self._read), 0
        while settled < len(self._poems):
            interrupts.check()
            try:
                pair = self._settled.get(timeout=0.2)
            except Empty:
                if reading.done():
                    reading.result()  # raises, since a poem is missing
            else:
                settled += 1
                yield pair
        reading.result()

    def _read(self) -> None:
        """Send the poems through a pipeline, as many at once as the window holds."""
        recipe = Pipeline().then(self._begin, name="poem")
        numbered = itertools.takewhile(lambda _: not self._is_over, enumerate(self._poems))
        total = len(self._poems)
        try:
            with recipe.map(numbered, window=self._most, ordered=False, total=total, progress=_bar()) as stream:
                for name, future in stream:
                    self._open.pop(name).close()
                    self._settled.put((name.partition(" ")[2], future))
        except RuntimeError:  # the pools were shut down, perhaps between two looks at that
            if not self._is_over:
                raise

    def _begin(self, numbered: tuple[int, tuple[str, bytes]]) -> Future[tuple[str, Future[Poem]]]:
        """Serve one poem, and have it downloaded and transformed; done when it is, for good or bad."""
        options, (number, (name, text)) = self._options, numbered
        server = PoetryServer(text, chunk=options.chunk, delay=options.delay, down=number < options.down)
        patience = PATIENCE + options.delay
        engines = self._engines
        future = get_poem(server.address, self._threads, engines, options.trouble, options.seed, self._say, patience)
        key = f"{number} {name}"
        self._open[key] = server
        return future.then(None, lambda _: None, on=INLINE).then(lambda _: (key, future))


def _affordable(processes: int) -> int:
    """Return for how many downloads at once there are descriptors: each takes three, and the rest some."""
    try:
        from resource import RLIMIT_NOFILE, getrlimit
    except ImportError:  # another system, another limit
        return MOST
    limit, _ = getrlimit(RLIMIT_NOFILE)
    return max(1, min(MOST, (limit - 24 - 6 * processes) // 3))


def print_poems(poems: Iterable[tuple[str, Future[Poem]]]) -> list[Poem]:
    """Print each poem as soon as it is there, and an apology for each that is not, with the reason on stderr.

    Returns:
        Those that were printed.
    """
    printed = []
    for name, future in poems:
        error = future.exception()
        if error is None:
            poem = future.result()
            printed.append(poem)
            print(poem.text.strip(), end="\n\n", flush=True)
        else:
            _complain(f"{name}: {error}")
            print(SORRY, end="\n\n", flush=True)
    return printed


def _complain(line: str) -> None:
    print(f"poetry: {line}", file=sys.stderr, flush=True)


def read_poems(names: Sequence[str]) -> list[tuple[str, bytes]]:
    """Read the files, or the poems that come with the package; say which cannot be read."""
    if not names:
        shelf = files("futurechain.demo.poetry") / "poems"
        return [(path.name, path.read_bytes()) for path in sorted(shelf.iterdir(), key=lambda path: path.name)]
    poems = []
    for name in names:
        try:
            poems.append((name, Path(name).read_bytes()))
        except OSError as error:
            _complain(f"cannot read {name}: {error.strerror}")
    return poems


def work(poems: Sequence[tuple[str, bytes]], options: argparse.Namespace, interrupts: HeldInterrupts) -> int:
    """Serve, download, transform and print; the exit status."""
    start = time.perf_counter()
    with ExitStack() as stack:
        on_cluster = options.on == "dask"
        opened = open_cluster(options.scheduler, options.processes) if on_cluster else nullcontext()
        cluster: Any = stack.enter_context(opened)
        readings = stack.enter_context(Readings(poems, options, cluster))
        printed = print_poems(readings.each(interrupts))
    wanted = len(options.files or poems)
    summarise(printed, wanted, time.perf_counter() - start)
    return 0 if len(printed) == wanted else 1


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
    parser.add_argument(
        "--window", type=_positive(int), default=MOST, metavar="N", help="poems under way at once (%(default)s)"
    )
    parser.add_argument(
        "--on",
        choices=("threads", "processes", "dask"),
        default="processes",
        help="where the engine works (%(default)s)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="with --on dask: a cluster that is there already; by default one of our own",
    )
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
    parser = _parser(prog)
    options = parser.parse_args(argv)
    if options.scheduler is not None and options.on != "dask":
        parser.error("--scheduler goes with --on dask")
    try:
        poems = read_poems(options.files)  # which may take as long as somebody types; nothing to clean up meanwhile
        with HeldInterrupts() as interrupts, _traced(options.trace):
            return work(poems, options, interrupts)
    except NoClusterError as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        print("\n" * sys.stderr.isatty() + "poetry: interrupted", file=sys.stderr)
        return 130


@contextmanager
def _traced(path: Path | None) -> Iterator[None]:
    """Write the timeline of what is done within the block, also after Ctrl-C."""
    if path is None:
        yield
        return
    with trace() as timeline:
        try:
            yield
        finally:
            timeline.save(path)
