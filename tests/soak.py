"""Thousands of chains over threads, processes and timers, disturbed at random: ``python -m tests.soak --seconds 60``.

In each round a crowd of chains is grown, of all that the library has, over pools that live as long as they can. Some
of their functions fail, some futures are cancelled by another thread while they run; in some rounds a worker process is
killed, a pool is shut down, the process forks, or the main thread is hit by Ctrl-C while it grows and settles chains.
At the end of a round everything must be settled. At the end of all of them nothing may be left: no thread, no
process, no object. Exit code 1 says that something was lost or left.
"""

from __future__ import annotations

import argparse
import concurrent.futures as cf
import contextlib
import faulthandler
import gc
import inspect
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import futurechain
from futurechain import (
    INLINE,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    delay,
    ensure_future,
    first,
    gather,
    inlineCallbacks,
    race,
    some,
    succeed,
    wrap_executor,
    wrap_future,
)

LIBRARY = str(Path(futurechain.__file__).parent)
CROWD = 60
"""How many chains each round begins with."""
PATIENCE = 40.0
"""So many seconds a round may take; what is not settled then is lost."""
OBJECTS = 3_000
"""So many objects more than after the first rounds may be there at the end: caches and the like."""
TROUBLE = 0.05
"""The share of functions that fail, and of rounds hit by Ctrl-C that may lose something."""


def touch(_: object = None) -> int:
    """Do a little, or fail; runs anywhere."""
    dice = random.random()
    if dice < TROUBLE:
        raise KeyError("on purpose")
    if dice < 2 * TROUBLE:
        time.sleep(0.002)
    return 1


async def _walk(*futures: Any) -> int:
    for future in futures:
        with contextlib.suppress(KeyError):
            await future
    return touch()


@inlineCallbacks
def _stroll(*futures: Any) -> Any:
    for future in futures:  # noqa: UP028  # a list takes no values
        yield future
    return touch()


class Soak:
    """The pools, the helpers, and the counts."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []
        self.futures: list[Any] = []
        self.running = True
        self.to_settle: deque[Any] = deque()
        self.to_cancel: deque[Any] = deque()
        self.pools: dict[str, Any] = {}
        self.makers: dict[str, Callable[[], Any]] = {
            "threads": lambda: ThreadPoolExecutor(3),
            "one thread": lambda: ThreadPoolExecutor(1),
            "processes": lambda: ProcessPoolExecutor(2, **_healing(self.chance)),
            "wrapped": lambda: wrap_executor(cf.ThreadPoolExecutor(2)),
        }
        self.helpers = [
            threading.Thread(target=one, daemon=True) for one in (self._settle_all, self._cancel_all)
        ]

    # -- helpers in threads of their own --

    def _settle_all(self) -> None:
        while self.running:
            if not self.to_settle:
                time.sleep(0.001)
                continue
            future = self.to_settle.popleft()
            with contextlib.suppress(cf.InvalidStateError):
                future.set_exception(KeyError()) if random.random() < TROUBLE else future.set_result(1)

    def _cancel_all(self) -> None:
        while self.running:
            if not self.to_cancel:
                time.sleep(0.001)
                continue
            self.to_cancel.popleft().cancel()
            self.counts["cancellations"] += 1

    # -- growing --

    def pool(self, name: str = "") -> Any:
        name = name or self.chance.choice(list(self.makers))
        if name not in self.pools:
            self.pools[name] = self.makers[name]()
        return self.pools[name]

    def keep(self, future: Any) -> Any:
        self.futures.append(future)
        self.counts["tasks"] += 1
        return future

    def root(self) -> Any:
        dice = self.chance.random()
        if dice < 0.5:
            return self.keep(self.pool().submit(touch))
        if dice < 0.7:
            self.to_settle.append(self.keep(future := Future()))
            return future
        if dice < 0.8:
            return self.keep(delay(self.chance.uniform(0, 0.01), 1))
        if dice < 0.9:
            return self.keep(succeed(1))
        future = cf.Future()
        self.to_settle.append(future)
        return self.keep(wrap_future(future))

    def grow(self, future: Any, other: Any) -> Any:
        """Attach one thing more, of any kind."""
        way = self.chance.randrange(16)
        pool = self.pool()
        if way == 0:
            return future.then(touch)
        if way == 1:
            return future.then(touch, on=pool)
        if way == 2:
            return future.then(touch, on=INLINE)
        if way == 3:
            return future.addCallback(touch)
        if way == 4:
            return future.addBoth(touch)
        if way == 5:
            return future.catch(touch)
        if way == 6:
            return future.finally_(touch)
        if way == 7:
            return future.timeout(self.chance.choice((0.001, 0.01, 60)))
        if way == 8:
            return future.shield()
        if way == 9:
            return future.then(lambda _: other, on=INLINE)
        if way == 10:
            return future.then(lambda _: pool.submit(touch).then(touch), on=INLINE)
        if way == 11:
            return gather(future, other, return_exceptions=self.chance.random() < 0.5)
        if way == 12:
            return self.chance.choice((race, first))(future, other)
        if way == 13:
            return some(1, future, other, succeed(1))
        if way == 14:
            return ensure_future(_walk(future, other), on=self.chance.choice((INLINE, self.pool("threads"))))
        return _stroll(future, other)

    def crowd(self) -> None:
        """Begin some chains, let them grow and branch, and have some of it cancelled."""
        for _ in range(CROWD):
            try:
                future = self.root()
                for _ in range(self.chance.randrange(6)):
                    other = self.chance.choice(self.futures[-50:])
                    future = self.keep(self.grow(future, other))
            except (RuntimeError, cf.BrokenExecutor):
                self.counts["refusals"] += 1  # a pool was shut down, or has broken
            if self.chance.random() < 0.1:
                self.to_cancel.append(self.chance.choice(self.futures[-20:] or [Future()]))

    # -- disturbing --

    def kill_a_worker(self) -> None:
        """SIGKILL one of the worker processes."""
        self.crowd()
        children = multiprocessing.active_children()
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(children).pid or 0, signal.SIGKILL)
            self.counts["killed workers"] += 1
        self.crowd()
        self._replace("processes")

    def shut_a_pool_down(self) -> None:
        """Shut a pool down in the middle of a round."""
        self.crowd()
        self._replace(self.chance.choice(list(self.makers)))
        self.crowd()

    def _replace(self, name: str) -> None:
        if (pool := self.pools.pop(name, None)) is not None:
            pool.shutdown(wait=False, cancel_futures=self.chance.random() < 0.5)
            self.counts["shutdowns"] += 1

    def fork(self) -> None:
        """Fork while everybody is busy; the child must be able to work, and to end."""
        self.crowd()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
        if not child:
            _be_a_child()
        self.counts["forks"] += 1
        end = time.monotonic() + PATIENCE
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
            time.sleep(0.001)
        if ended == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if ended[1] or ended == (0, 0):
            self.lost.append(f"a forked child {'failed' if ended[1] else 'hung'}")

    def interrupt(self) -> None:
        """Hit the main thread by Ctrl-C while it grows and settles chains; what is lost then is counted apart."""
        futures, pools, hit = self.futures, self.pools, False
        self.futures, self.pools = (
            [succeed(1)],
            {},
        )  # pools of its own: what is lost may hold up their shutdown
        try:
            signal.setitimer(signal.ITIMER_REAL, self.chance.uniform(0.0005, 0.02))
            self.crowd()
            while self.to_settle:
                with contextlib.suppress(cf.InvalidStateError, IndexError):
                    self.to_settle.popleft().set_result(1)
            gather(*self.futures).cancel()
        except KeyboardInterrupt:
            hit = True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        unsettled = self._unsettled(self.futures, 3 if hit else PATIENCE)
        spoilt = bool(unsettled) + self._hangs()
        if hit:
            self.counts["interrupted runs"] += 1
            self.counts["interrupted runs with a loss"] += bool(spoilt)
        elif spoilt:
            self.lost += [repr(future) for future in unsettled] or ["a shutdown hung"]
        self.futures, self.pools = futures, pools

    def _hangs(self) -> bool:
        """Shut the present pools down, and tell whether that hangs."""
        closers = [threading.Thread(target=pool.shutdown, daemon=True) for pool in self.pools.values()]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(5)
        return any(closer.is_alive() for closer in closers)

    # -- rounds --

    def round(self) -> None:
        """Grow a crowd, perhaps disturb it, and expect everything to be settled."""
        self.futures = [succeed(1)]
        chances = (
            self.kill_a_worker,
            self.shut_a_pool_down,
            self.fork,
            self.interrupt,
            self.crowd,
            self.crowd,
        )
        self.chance.choice(chances)()
        pending = self._unsettled(self.futures, PATIENCE)
        self.lost += [repr(future) for future in pending]
        self.counts["faults"] += sum(_failed(future) for future in self.futures if future.done())
        self.counts["rounds"] += 1
        self.futures = []

    def _unsettled(self, futures: list[Any], seconds: float) -> set[Any]:
        """Wait for all; what the two helpers have dropped when they were interrupted is settled here."""
        return cf.wait([one for one in futures if not one.done()], seconds).not_done

    def end(self) -> None:
        """Shut all pools down, and wait for the helpers."""
        for pool in self.pools.values():
            pool.shutdown()
        self.pools.clear()
        self.running = False
        for helper in self.helpers:
            helper.join()


def _failed(future: Any) -> bool:
    return future.cancelled() or future.exception() is not None


def _healing(chance: random.Random) -> dict[str, bool]:
    known = "heal" in inspect.signature(ProcessPoolExecutor.__init__).parameters
    return {"heal": chance.random() < 0.5} if known else {}


def _interrupt(_: int, frame: Any) -> None:
    """Raise in the library's code, wait a little elsewhere: what it interrupts there is not ours."""
    if frame is not None and frame.f_code.co_filename.startswith(LIBRARY):
        raise KeyboardInterrupt
    signal.setitimer(signal.ITIMER_REAL, 0.0001)


def _be_a_child() -> None:
    """Use the library in a forked child, and leave without its parent's pools."""
    code = 1
    try:
        source = Future()
        ends = [
            source.addCallback(abs),
            source.then(abs),
            delay(0.001, 1),
            gather(source.then(abs), source.final),
        ]
        source.set_result(-1)
        with ThreadPoolExecutor(2) as pool:
            ends += [
                pool.submit(abs, -1).then(abs),
                ensure_future(_walk(source, pool.submit(abs, -1)), on=pool),
            ]
        code = 1 if cf.wait(ends, PATIENCE / 2).not_done else 0
    finally:
        os._exit(code)


class State:
    """What there is in the process at one moment."""

    def __init__(self, seconds: float = 8) -> None:
        end = time.monotonic() + seconds
        while (multiprocessing.active_children() or _own_threads()) and time.monotonic() < end:
            time.sleep(0.05)
        for _ in range(3):
            gc.collect()
        self.threads = _own_threads()
        self.processes = len(multiprocessing.active_children())
        self.objects = len(gc.get_objects())
        self.kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def __str__(self) -> str:
        return (
            f"{len(self.threads)} threads, {self.processes} processes, {self.objects} objects, "
            f"{self.kilobytes // 1024} MB at most"
        )


def _own_threads() -> list[str]:
    """Return the names of the threads that should go: not the main one, nor that of the timers."""
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return [name for name in names if "clock" not in name and "timer" not in name]


def soak(seconds: float, seed: int) -> tuple[int, bool]:
    """Do rounds for so long, print what has happened; the exit code, and whether nothing at all was lost."""
    logging.disable(logging.CRITICAL)
    random.seed(seed)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = lambda args: None  # an interrupted finalizer
    warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that was refused is never awaited
    warm = Soak(seed)
    _run(warm, min(seconds / 4, 5))
    start = State()
    long = Soak(seed + 1)
    _run(long, seconds)
    end = State()
    counts, lost = warm.counts + long.counts, warm.lost + long.lost
    hit, spoilt = counts["interrupted runs"], counts["interrupted runs with a loss"]
    print(", ".join(f"{name} {number}" for name, number in sorted(counts.items())))
    print(f"futures lost: {len(lost)}; runs hit by Ctrl-C: {hit}, with a loss: {spoilt}")
    print(f"at the start: {start}\nat the end:   {end}")
    print(*lost[:10], sep="\n")
    leaks = _leaks(start, end, excused=spoilt > 0)
    print(*leaks, sep="\n")
    code = int(bool(lost or leaks or spoilt > max(1, TROUBLE * hit)))
    return code, not (code or spoilt)


def _run(soak: Soak, seconds: float) -> None:
    for helper in soak.helpers:
        helper.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not soak.lost:
        soak.round()
    if not soak.lost:
        soak.end()


def _leaks(start: State, end: State, *, excused: bool) -> list[str]:
    """Name what is left; a pool whose shutdown hangs after an interrupt, counted apart, keeps its threads."""
    if excused:
        return []
    leaks = [f"left: thread {name}" for name in end.threads]
    if end.processes:
        leaks.append(f"left: {end.processes} processes")
    if end.objects > start.objects + OBJECTS:
        leaks.append(f"left: {end.objects - start.objects} objects")
    return leaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(
        f"seed {options.seed}, {options.seconds} s, futurechain in {LIBRARY}",
        flush=True,
    )
    faulthandler.dump_traceback_later(3 * options.seconds + 4 * PATIENCE, exit=True)  # it hangs
    code, whole = soak(options.seconds, options.seed)
    sys.stdout.flush()
    if not whole:
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(code)  # what is lost, to Ctrl-C too, may hold up the end
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)  # the end hangs
    sys.exit(code)


if __name__ == "__main__":
    main()
