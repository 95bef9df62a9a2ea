"""A storm of kills over a process pool: what is lost, what is wrong, what is left behind.

``python -m tests.storm --engine ours|standard|loky|pebble --runs N`` runs N storms for each start method, each in a
process of its own, so that one that hangs is contained. A storm is 2,000 tasks, small ones and such with megabytes of
data both ways, while workers are killed at random moments, whatever they do just then, tasks are cancelled, and some
(for ours) have a timeout. A task may fail because its worker was killed; nothing else may happen to it.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures as cf
import gc
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("fork", "spawn", "forkserver")
HEAVY = 1_200_000
COLUMNS = ("tasks", "kills", "failed", "cancelled", "lost", "wrong", "processes", "descriptors", "MB", "seconds")


# -- what runs in the workers -----------------------------------------------------------------------------------------


def nap(number, seconds):
    time.sleep(seconds)
    return number


def echo(number, data):
    """Change the data, which must be ours alone, and send it back."""
    data[0] = data[-1] = 255
    return data


def pattern(number):
    return bytearray([number % 251]) * HEAVY


def is_right(number, result):
    if isinstance(result, bytearray):
        expected = pattern(number)
        expected[0] = expected[-1] = 255
        return result == expected
    return result == number


# -- the pools --------------------------------------------------------------------------------------------------------


class Ours:
    def __init__(self, method, *, stop_cancelled=False):
        import futurechain

        context = multiprocessing.get_context(method)
        self.pool = futurechain.ProcessPoolExecutor(2, context, heal=True, stop_cancelled=stop_cancelled)

    def submit(self, *call):
        return self.pool.submit(*call)

    def pids(self):
        return list(self.pool._processes or ())

    def close(self):
        self.pool.shutdown()


class Standard(Ours):
    def __init__(self, method, **_):
        self.pool = cf.ProcessPoolExecutor(2, multiprocessing.get_context(method))


class Loky(Ours):
    def __init__(self, method, **_):
        import loky

        self.pool = loky.ProcessPoolExecutor(2)


class Pebble(Ours):
    def __init__(self, method, **_):
        import pebble

        self.pool = pebble.ProcessPool(2, context=multiprocessing.get_context(method))

    def submit(self, function, *args):
        return self.pool.schedule(function, args)

    def pids(self):
        return list(self.pool._pool_manager.worker_manager.workers)

    def close(self):
        self.pool.stop()
        self.pool.join()


ENGINES = {"ours": Ours, "standard": Standard, "loky": Loky, "pebble": Pebble}


# -- one storm --------------------------------------------------------------------------------------------------------


class Storm:
    """One pool, its tasks, and two threads that harm them."""

    def __init__(self, engine, method, seed, *, tasks, kills, limit, stop):
        self.random = random.Random(seed)
        self.engine = ENGINES[engine](method, stop_cancelled=stop)
        self.ours = engine == "ours"
        self.tasks, self.kills, self.limit = tasks, kills, limit
        self.killed = 0
        self.futures = []
        self.over = threading.Event()

    def kill(self):
        """Kill random workers at random moments."""
        for _ in range(self.kills):
            if self.over.wait(self.random.uniform(0.01, 0.2)):
                return
            with suppress(IndexError, ProcessLookupError, RuntimeError):
                os.kill(self.random.choice(self.engine.pids()), signal.SIGKILL)
                self.killed += 1

    def cancel(self):
        """Cancel random tasks, queued or running."""
        while not self.over.wait(0.01):
            with suppress(IndexError):
                self.random.choice(self.futures).cancel()

    def begin(self, number):
        """Submit one task."""
        if number % 20 == 7:
            return self.engine.submit(echo, number, pattern(number))
        future = self.engine.submit(nap, number, 0.002 if number % 50 else 0.02)
        return future.timeout(self.random.uniform(0.01, 5)) if self.ours and number % 100 == 50 else future

    def run(self):
        """Return how it went."""
        began = time.monotonic()
        self.engine.submit(nap, 0, 0).result(60)
        threads = [threading.Thread(target=one, daemon=True) for one in (self.kill, self.cancel)]
        for thread in threads:
            thread.start()
        with suppress(Exception):  # a pool that is broken takes nothing more
            for number in range(self.tasks):
                self.futures.append(self.begin(number))
        cf.wait(self.futures, self.limit)
        self.over.set()
        for thread in threads:
            thread.join()
        return self.count() | {"kills": self.killed, "seconds": round(time.monotonic() - began, 1)}

    def count(self):
        counts = collections.Counter(tasks=len(self.futures), refused=self.tasks - len(self.futures))
        for number, future in enumerate(self.futures):
            if not future.done():
                counts["lost"] += 1
            elif future.cancelled() or isinstance(future.exception(), (cf.CancelledError, TimeoutError)):
                counts["cancelled"] += 1
            elif future.exception() is not None:
                counts["failed"] += 1
            else:
                counts["wrong"] += not is_right(number, future.result())
        return dict(counts)


def descriptors():
    return len([*Path("/proc/self/fd").iterdir()])


def processes():
    """Return how many children this process has, but for the helpers of multiprocessing."""
    return sum(b"tracker" not in line and b"forkserver" not in line for line in map(command, children()))


def children():
    """Return the process ids of this process's children."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def command(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"tracker"


def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 1_000_000


def storm(engine, method, seed, **options):
    """Run one storm; what happened, and what is left."""
    before = descriptors()
    one = Storm(engine, method, seed, **options)
    result = one.run()
    result["MB"] = megabytes()
    one.futures.clear()
    closer = threading.Thread(target=one.engine.close, daemon=True)
    closer.start()
    closer.join(75)
    result["closed"] = not closer.is_alive()
    del one, closer
    gc.collect()
    result["processes"], result["descriptors"] = processes(), descriptors() - before
    return result


def in_a_process(engine, method, seed, arguments):
    """Run one storm in a process of its own; a storm that hangs is one that loses everything."""
    own = [f"--engine={engine}", f"--method={method}", f"--seed={seed}", "--one", *arguments]
    try:
        command = [sys.executable, "-m", "tests.storm", *own]
        run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT)
        return json.loads(run.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, json.JSONDecodeError):
        return {"hangs": 1}


def main(arguments=None):
    """Run storms and print what came of them; the exit status is 1 if ours has lost or failed what it need not."""
    parser = argparse.ArgumentParser(prog="python -m tests.storm")
    parser.add_argument("--engine", choices=ENGINES, default="ours")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--limit", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", action="store_true", help="let cancelling stop what runs")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    options = {"tasks": given.tasks, "kills": given.kills, "limit": given.limit, "stop": given.stop}
    if given.one:
        print(json.dumps(storm(given.engine, given.method, given.seed, **options)), flush=True)
        for pid in children():  # some engines would leave theirs behind
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os._exit(0)
    passed = [f"--tasks={given.tasks}", f"--kills={given.kills}", f"--limit={given.limit}", *(["--stop"] * given.stop)]
    print(f"{'':24}", *(f"{name:>11}" for name in COLUMNS))
    good = True
    for method in (given.method,) if given.method else METHODS:
        for seed in range(given.seed, given.seed + given.runs):
            result = in_a_process(given.engine, method, seed, passed)
            print(f"{given.engine:9}{method:11}{seed:4}", *(f"{result.get(name, 0):>11}" for name in COLUMNS), end="")
            print("".join(f"  {name}={result[name]}" for name in ("hangs", "refused") if result.get(name)), flush=True)
            good &= is_good(result)
    return 0 if good or given.engine != "ours" else 1


def is_good(result):
    """Tell whether only killed tasks have failed, and nothing is left."""
    failed, kills = result.get("failed", 0), result.get("kills", 0)
    harmless = failed <= kills and result.get("processes") == 0 and result.get("descriptors", 99) <= 2
    return harmless and not any(result.get(name) for name in ("lost", "wrong", "hangs", "refused"))


if __name__ == "__main__":
    sys.exit(main())
