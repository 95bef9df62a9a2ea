"""Other people's executors, each with what it takes to have one; and the table of what they can do, measured.

``python -m tests.engines`` prints that table.
"""

from __future__ import annotations

import concurrent.futures as cf
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # as for the tests, and for the workers

import work
from futurechain import ProcessPoolExecutor, wrap_executor

SIZE = 32_000_000


class Absent(Exception):
    """Says why an engine cannot be had here."""


@contextmanager
def absent_if_missing() -> Iterator[None]:
    try:
        yield
    except (ImportError, RuntimeError) as missing:
        raise Absent(str(missing).split("\n", 1)[0]) from missing


def ours(_: ExitStack) -> Any:
    return ProcessPoolExecutor(1, heal=True, stop_cancelled=True)


def standard(_: ExitStack) -> Any:
    return wrap_executor(cf.ProcessPoolExecutor(1))


def loky(_: ExitStack) -> Any:
    with absent_if_missing():
        from loky import ProcessPoolExecutor as Loky
    return wrap_executor(Loky(1))


def joblib(_: ExitStack) -> Any:
    with absent_if_missing():
        from joblib.externals.loky import get_reusable_executor
    return wrap_executor(get_reusable_executor(1))


def pebble_processes(_: ExitStack) -> Any:
    with absent_if_missing():
        from pebble import ProcessPool
    return wrap_executor(ProcessPool(1))


def pebble_threads(_: ExitStack) -> Any:
    with absent_if_missing():
        from pebble import ThreadPool
    return wrap_executor(ThreadPool(1))


def mpi(_: ExitStack) -> Any:
    os.environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    os.environ["OMPI_MCA_rmaps_base_oversubscribe"] = "1"  # noqa: SIM112  # Open MPI's own name
    with absent_if_missing():
        from mpi4py.futures import MPIPoolExecutor
    return wrap_executor(MPIPoolExecutor(1, path=[str(Path(__file__).parent)]))


def parsl(stack: ExitStack) -> Any:
    with absent_if_missing():
        from parsl import DataFlowKernel
        from parsl.concurrent import ParslPoolExecutor
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    here = Path(__file__).parent
    programs = Path(sys.executable).parent
    found = f"export PATH={programs}:$PATH PYTHONPATH={here}:{here.parent}"
    workers = HighThroughputExecutor(
        max_workers_per_node=1,
        provider=LocalProvider(max_blocks=1, worker_init=found),
        address="127.0.0.1",
        encrypted=False,
        interchange_launch_cmd=[sys.executable, str(programs / "interchange.py")],
    )
    kernel = DataFlowKernel(Config([workers], run_dir=folder, initialize_logging=False))
    stack.callback(kernel.cleanup)
    return wrap_executor(ParslPoolExecutor(dfk=kernel))


def cluster(stack: ExitStack) -> Any:
    with absent_if_missing():
        from distributed import Client, LocalCluster
    local = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=60)
    return stack.enter_context(Client(stack.enter_context(local)))


def dask(stack: ExitStack) -> Any:
    client = cluster(stack)
    from futurechain.dask import DaskExecutor

    return DaskExecutor(client)


def dask_executor(stack: ExitStack) -> Any:
    return wrap_executor(cluster(stack).get_executor(pure=False))


def interpreters(_: ExitStack) -> Any:
    with absent_if_missing():
        from concurrent.futures import InterpreterPoolExecutor
    return wrap_executor(InterpreterPoolExecutor(1))


ENGINES: dict[str, Callable[[ExitStack], Any]] = {
    "`ProcessPoolExecutor(heal=True, stop_cancelled=True)`": ours,
    "`DaskExecutor`": dask,
    "the standard process pool": standard,
    "loky": loky,
    "joblib's loky": joblib,
    "Pebble's `ProcessPool`": pebble_processes,
    "Pebble's `ThreadPool`": pebble_threads,
    "mpi4py's `MPIPoolExecutor`": mpi,
    "Parsl's `ParslPoolExecutor`": parsl,
    "Dask's `get_executor()`": dask_executor,
    "`InterpreterPoolExecutor`": interpreters,
}
QUICK = {"`ProcessPoolExecutor(heal=True, stop_cancelled=True)`", "the standard process pool", "loky"} | {
    name for name in ENGINES if name.startswith("Pebble")
}
"""Those that are there in a moment."""


@contextmanager
def engine(name: str) -> Iterator[Any]:
    """One executor with one worker, wrapped; raises `Absent` if it cannot be had."""
    with ExitStack() as stack:
        executor = ENGINES[name](stack)
        try:
            yield executor
        finally:
            executor.shutdown()


# -- what they can do -------------------------------------------------------------------------------------------------


def beat(path: str, seconds: float) -> None:
    """Write into a file again and again, for so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with Path(path).open("a", encoding="ascii") as file:
            file.write(".")
        time.sleep(0.02)


def stops_running_work(executor: Any) -> str:
    """Cancel what runs: does it go on?"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "beats"
        future = executor.submit(beat, str(path), 6.0)
        while not path.exists():
            time.sleep(0.01)
        cancelled = future.cancel()
        time.sleep(1.0)
        before = path.stat().st_size
        time.sleep(1.0)
        goes_on = path.stat().st_size > before
        time.sleep(5.0 if goes_on else 0.0)
    return "yes" if not goes_on else "lets go of it" if cancelled else "no"


def survives(executor: Any) -> str:
    """Kill the worker in a task: does another task run after that?"""
    try:
        error = executor.submit(work.die).exception(60)
    except TimeoutError:
        return "no (it hangs)"
    try:
        after = executor.submit(work.double, 2).result(180)
    except BaseException as broken:
        return f"no ({type(error).__name__}; then {type(broken).__name__})"
    return f"yes ({type(error).__name__})" if after == 4 else "no"


def begins_first(executor: Any) -> str:
    """Queue several two-step chains behind one: does the second step come before other first ones?"""
    executor.submit(work.double, 1).result(60)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "order")
        chains = [executor.submit(note, path, "a").then(second(path)) for _ in range(8)]
        cf.wait([*chains], 60)
        order = Path(path).read_text("ascii")
    return "yes" if order.index("b") <= 3 else "no"


def zeros(count: int) -> bytes:
    """Return something heavy."""
    return bytes(count)


def size(value: bytes) -> int:
    """Return how heavy it is: as Python code, since Parsl takes no built-in functions."""
    return len(value)


def nap(seconds: float, value: Any = None) -> Any:
    """Return `value`, later."""
    time.sleep(seconds)
    return value


class second:  # noqa: N801  # called as a function
    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, _: object) -> None:
        note(self.path, "b")


def note(path: str, letter: str) -> None:
    time.sleep(0.02)
    with Path(path).open("a", encoding="ascii") as file:
        file.write(letter)


def seconds_for_heavy(executor: Any) -> float:
    """Two stages on 32 MB that are not asked for: the best of three, in seconds."""
    executor.submit(work.double, 1).result(60)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        executor.submit(zeros, SIZE).then(size).result(60)
        times.append(time.perf_counter() - began)
    return min(times)


def row(name: str) -> str:
    """One row of the table."""
    with engine(name) as executor:
        stops, begun = stops_running_work(executor), begins_first(executor)
        heavy = seconds_for_heavy(executor)
        shared = executor._scheduler.takes_closures()
        keeps = "on the cluster" if name == "`DaskExecutor`" else "in memory" if shared else "no"
    if keeps == "in memory":
        return f"| {name} | {stops} | has none | {keeps} | {begun} | {heavy * 1000:.0f} ms |"
    command = [sys.executable, "-m", "tests.engines", "--survives", name]  # for the program may die as well
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    lives = "no, nor does the program" if done.returncode else done.stdout.splitlines()[-1]
    return f"| {name} | {stops} | {lives} | {keeps} | {begun} | {heavy * 1000:.0f} ms |"


def tell_survival(name: str) -> None:
    """Print what happens when a worker is killed, and end, though the end of what is broken may take for ever."""
    with engine(name) as executor:
        print(survives(executor), flush=True)
        end = threading.Timer(20, os._exit, (0,))
        end.daemon = True
        end.start()


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--survives"]:
        tell_survival(sys.argv[2])
        return
    names = [name for name in ENGINES if not sys.argv[1:] or any(part in name for part in sys.argv[1:])]
    print("| engine | stops running work | survives a killed worker | keeps data there | begun first | 32 MB |")
    print("|---|---|---|---|---|---|")
    for name in names:
        try:
            print(row(name), flush=True)
        except Absent as why:
            print(f"| {name} | absent: {why} |", flush=True)


if __name__ == "__main__":
    import engines  # under the name by which workers know it

    engines.main()
