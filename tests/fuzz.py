"""Random programs over real pools: ``python -m tests.fuzz --seconds 60``.

A program makes futures, chains, combinations, coroutines and streams over pools of several kinds, from several threads
and from handlers; it cancels, drops, settles and times out, and closes its pools at some moment and in some way.
Whatever it does: in the end everything is settled, every thread and every shutdown has come to its end, no handler has
run twice, cleanups have run, and nothing is left in any list.

A program is data, made from its number and the mix of pools: lists of operations, each a name and what that takes. So
one that has gone wrong can be run again: ``--program NUMBER --times 100``.
"""

from __future__ import annotations

import argparse
import concurrent.futures as cf
import contextlib
import faulthandler
import gc
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings

from futurechain import (
    INLINE,
    Failure,
    Future,
    Pipeline,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    delay,
    ensure_future,
    first,
    gather,
    inlineCallbacks,
    limit,
    race,
    some,
    wrap_executor,
    wrap_future,
)
from futurechain.errors import CancelledError, InvalidStateError
from tests import inside

__all__ = ["MIXES", "run_many"]

LIMIT = 25.0
"""Seconds that a program may take; what is not over then hangs."""
MIXES = ("threads", "processes")

THREADS = {"one": 4, "two": 4, "three": 2, "wrapped": 2, "view": 2, "view_of_wrapped": 1, "inline": 1}
PROCESSES = ("process", "processes", "healing", "stopping")
BESIDE = ("one", "two", "view_of_processes", "view", "inline", "wrapped")
METHODS = (
    "then", "then", "then", "then_two", "catch", "finally_", "addCallback", "addCallback", "addErrback", "addBoth",
)  # fmt: skip
COMBINATIONS = {
    "gather": gather,
    "gather_all": lambda *fs: gather(*fs, return_exceptions=True),
    "race": race,
    "first": first,
    "some": lambda *fs: some(min(2, len(fs)), *fs),
}
CLOSINGS = ("with", "with", "error", "twice", "cancel", "cancel_twice")
OPERATIONS = {
    "bare": 3, "submit": 4, "attach": 8, "combine": 2, "cancel": 2, "settle": 3, "coroutine": 1, "generator": 1,
    "timeout": 1, "shield": 0.5, "wait": 0.5, "as_completed": 0.5, "result": 0.7, "delay": 0.5, "recur": 1,
    "collect": 0.1, "drop": 1, "done_callback": 0.5, "foreign": 0.7, "lose": 0.4, "nested": 0.7, "map": 0.3,
    "shut_down": 0.2, "stream": 0.2, "pause": 1,
}  # fmt: skip
"""What a program does, and how often."""


class Boom(Exception):
    """What handlers raise."""


class BaseBoom(BaseException):
    """What they raise that is no `Exception`."""


EXPECTED = (
    Boom, BaseBoom, InvalidStateError, CancelledError, TimeoutError, BaseExceptionGroup, cf.BrokenExecutor
)  # fmt: skip
"""What an operation may well raise."""


def work(_=None, end="value"):
    """What tasks and process stages do."""
    if end == "raise":
        raise Boom("work")
    if end == "sleep":
        time.sleep(0.002)
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return 1


class Travelling:
    """A handler that can be sent to a process: it does no more than to end."""

    def __init__(self, end):
        self.end = end

    def __call__(self, *_):
        return work(None, self.end)


# -- making programs --------------------------------------------------------------------------------------------------


class Maker:
    """Makes the program of a number; each draws its own taste first, so that rare things meet."""

    def __init__(self, number, mix):
        self.random = chance = random.Random(f"{number} {mix}")
        self.number, self.mix = number, mix
        if mix == "processes":
            self.kinds = [chance.choice(PROCESSES), *chance.choices(BESIDE, k=chance.randint(0, 2))]
        else:
            self.kinds = chance.choices([*THREADS], weights=[*THREADS.values()], k=chance.randint(1, 3))
        self.kills = self.kinds[0] in {"healing", "stopping"} and chance.random() < 0.3
        self.raises_base = chance.random() < 0.15
        self.weights = {name: chance.choice([0, 1, 1, 3]) * weight for name, weight in OPERATIONS.items()}
        self.weights |= {name: OPERATIONS[name] * chance.choice([1, 3]) for name in ("bare", "submit", "attach")}
        if chance.random() < 0.7:
            self.weights["drop"] = 0

    def make(self):
        """Return the program."""
        chance, count = self.random, len(self.kinds)
        return {
            "number": self.number,
            "mix": self.mix,
            "kinds": self.kinds,
            "interval": chance.choice([1e-6, 1e-6, 1e-5, 5e-3]),
            "before": [self._one(1, ("bare", "submit", "attach")) for _ in range(chance.randint(1, 4))],
            "threads": [self._some(chance.choice([2, 4, 8, 12]), 2) for _ in range(chance.choice([1, 2, 2, 3, 4]))],
            "closings": [
                (pool, chance.choice(CLOSINGS), chance.random() < 0.5) for pool in chance.sample(range(count), count)
            ],
            "settles_first": chance.random() < 0.5,
        }

    def _some(self, count, depth):
        return [self._one(depth) for _ in range(count)]

    def _one(self, depth, names=None):
        """An operation; its handlers may hold others, `depth` deep."""
        name = self.random.choices([*self.weights], [*self.weights.values()])[0] if names is None else None
        name = name or self.random.choice(names)
        return (name, *getattr(self, f"_for_{name}", lambda _: ())(depth))

    def _future(self):
        return self.random.choice([-1, -1, -1, -2, -3, self.random.randrange(60), self.random.randrange(60)])

    def _futures(self, most):
        return [self._future() for _ in range(self.random.randint(1, most))]

    def _pool(self, none=0.0):
        return None if self.random.random() < none else self.random.randrange(len(self.kinds))

    def _handler(self, depth):
        """What a handler does before it ends, how it ends, and with which future if it returns one."""
        chance, inner = self.random, []
        if depth > 0:
            inner = self._some(chance.choice([0, 0, 1, 1, 2]), depth)
        elif depth == 0 and chance.random() < 0.3:
            inner = [self._one(0, ("cancel", "settle", "attach", "attach", "pause", "submit"))]
        ends = {
            "value": 4, "raise": 2, "last": 5 if inner else 0, "future": 4, "sleep": 1, "base": 0.7 * self.raises_base,
            "kill": 0.7 * self.kills, "failure": 0.5, "coroutine": 0.7,
        }  # fmt: skip
        return inner, chance.choices([*ends], [*ends.values()])[0], self._future()

    def _for_submit(self, depth):
        return self._pool(), self._handler(depth - 1)

    def _for_attach(self, depth):
        return self.random.choice(METHODS), self._future(), self._handler(depth - 1), self._pool(0.7)

    def _for_combine(self, _):
        return self.random.choice([*COMBINATIONS]), self._futures(4)

    def _for_cancel(self, _):
        return (self._future(),)

    _for_shield = _for_done_callback = _for_drop = _for_cancel

    def _for_settle(self, _):
        return self.random.randrange(20), self.random.random() < 0.7

    def _for_coroutine(self, depth):
        return self._pool(0.4), self._futures(3), self._handler(depth - 1)

    def _for_generator(self, depth):
        return self._futures(3), self._handler(depth - 1)

    def _for_timeout(self, _):
        return self._future(), self.random.choice([0, 0.001, 0.005, 0.01])

    def _for_wait(self, _):
        return self._futures(3), self.random.choice([0, 0.001, 0.004])

    _for_as_completed = _for_wait

    def _for_result(self, _):
        return self._future(), self.random.choice([0, 0.001, 0.004])

    def _for_delay(self, _):
        return (self.random.choice([0, 0.001, 0.002]),)

    def _for_recur(self, _):
        return self._pool(), self.random.choice(["addCallback", "then", "addBoth"]), self.random.randint(1, 7)

    def _for_lose(self, depth):
        return (self._handler(depth - 1),)

    def _for_nested(self, _):
        return (self._pool(),)

    def _for_map(self, _):
        return self._pool(), self.random.randint(1, 4)

    def _for_shut_down(self, _):
        return self._pool(), self.random.random() < 0.5

    def _for_stream(self, _):
        return self._pool(), self.random.randint(1, 5), self._pool(0.5)


# -- running them -----------------------------------------------------------------------------------------------------


class Handler:
    """A handler that counts its calls."""

    def __init__(self, program, given, kind):
        self.program, self.given, self.kind = program, given, kind
        self.calls, self.future, self.may_be_refused = 0, None, False
        program.handlers.append(self)

    def __call__(self, *_):
        self.calls += 1
        return self.program.handle(self.given)


class Program:
    """One program, while it runs."""

    def __init__(self, plan):
        self.plan = plan
        self.futures, self.bare, self.handlers, self.done_calls, self.faults = [], [], [], [], []
        self.closers, self.beneath = [], []
        self.pools = [self._pool(kind) for kind in plan["kinds"]]
        self.is_abroad = [not pool._scheduler.takes_closures() for pool in self.pools]
        self.may_wait = [kind in {"one", "two", "three"} for kind in plan["kinds"]]

    def _pool(self, kind):
        context = multiprocessing.get_context("fork")
        threads = {"one": 1, "two": 2, "three": 3}
        if kind in threads:
            return ThreadPoolExecutor(threads[kind], cancel_on_error=True)
        if kind == "inline":
            return INLINE
        if kind == "wrapped":
            return wrap_executor(cf.ThreadPoolExecutor(2))
        if kind.startswith("view"):
            made = {"view": "two", "view_of_wrapped": "wrapped", "view_of_processes": "processes"}[kind]
            self.beneath.append(self._pool(made))
            return limit(self.beneath[-1], concurrency=500)
        workers, heals = 1 if kind == "process" else 2, kind in {"healing", "stopping"}
        return ProcessPoolExecutor(workers, context, heal=heals, stop_cancelled=kind == "stopping")

    # -- what handlers do --

    def handle(self, given):
        """Do what a handler was given to do; its outcome."""
        operations, end, number = given
        last = 1
        for operation in operations:
            last = self.do(operation)
        if end == "base":
            raise BaseBoom("handler")
        if end == "last":
            return last
        if end == "future":
            return self.pick(number)
        if end == "failure":
            return Failure(Boom("returned"))
        if end == "coroutine":
            return self._coroutine([number], None)
        return work(None, "value" if end == "kill" else end)

    async def _coroutine(self, numbers, given):
        for number in numbers:
            with contextlib.suppress(Boom):
                await wrap_future(self.pick(number))
        return 1 if given is None else self.handle(given)

    def _generator(self, numbers, given):
        for number in numbers:
            with contextlib.suppress(Boom):
                yield self.pick(number)
        return self.handle(given)

    # -- operations --

    def do(self, operation):
        """Do one operation; a future it has made, as a rule. What may go wrong in a program like this, may."""
        name, *given = operation
        try:
            return getattr(self, f"_do_{name}")(*given)
        except EXPECTED:
            return None
        except (RuntimeError, TypeError) as error:
            if not any(reason in str(error) for reason in ("schedule", "shut", "cycle")):
                self.faults.append(f"{operation}: {traceback.format_exc()}")
            return None

    def keep(self, future):
        """Remember a future, for others to use."""
        self.futures.append(future)
        return future

    def pick(self, number):
        """A future that was made before, or a new one."""
        futures = self.futures
        try:
            return futures[number] if number < 0 else futures[number % len(futures)]
        except (IndexError, ZeroDivisionError):
            return self._do_bare()

    def _handler(self, given, kind, *, abroad=False):
        if abroad:
            return Travelling(given[1] if given[1] in {"raise", "sleep", "kill"} else "value")
        return Handler(self, given, kind)

    def _note_future(self, handler, future):
        if isinstance(handler, Handler):
            handler.future = future
            closing = any(pool._scheduler.closing for pool in [*self.pools, *self.beneath] if pool is not INLINE)
            handler.may_be_refused = closing and future._on_executor
        return self.keep(future)

    def _do_bare(self):
        future = Future()
        self.bare.append(future)
        return self.keep(future)

    def _do_foreign(self):
        foreign = cf.Future()
        self.bare.append(foreign)
        return self.keep(wrap_future(foreign))

    def _do_pause(self):
        time.sleep(0)

    def _do_collect(self):
        gc.collect()

    def _do_submit(self, pool, given):
        handler = self._handler(given, "task", abroad=self.is_abroad[pool])
        return self._note_future(handler, self.pools[pool].submit(handler))

    def _do_attach(self, method, number, given, pool):
        source = wrap_future(self.pick(number))
        if method.startswith("add"):
            handler = self._handler(given, method)
            return self._note_future(handler, getattr(source, method)(handler))
        on = None if pool is None else self.pools[pool]
        home = source if on is None else on
        handler = self._handler(given, method, abroad=method[:4] == "then" and not home._scheduler.takes_closures())
        if method == "then_two":
            return self._note_future(handler, source.then(handler, Handler(self, given, "on_error"), on=on))
        return self._note_future(handler, getattr(source, method)(handler, on=on))

    def _do_combine(self, name, numbers):
        return self.keep(COMBINATIONS[name](*map(self.pick, numbers)))

    def _do_cancel(self, number):
        self.pick(number).cancel()

    def _do_shield(self, number):
        return self.keep(wrap_future(self.pick(number)).shield())

    def _do_timeout(self, number, seconds):
        return self.keep(wrap_future(self.pick(number)).timeout(seconds))

    def _do_done_callback(self, number):
        calls = []
        self.done_calls.append(calls)
        self.pick(number).add_done_callback(lambda _: calls.append(None))

    def _do_settle(self, number, well):
        if self.bare:
            future = self.bare[number % len(self.bare)]
            if well:
                future.set_result(1)
            else:
                future.set_exception(Boom("settled"))

    def _do_coroutine(self, pool, numbers, given):
        on = None if pool is None or self.is_abroad[pool] else self.pools[pool]
        return self.keep(ensure_future(self._coroutine(numbers, given), on=on))

    def _do_generator(self, numbers, given):
        return self.keep(inlineCallbacks(self._generator)(numbers, given))

    def _do_wait(self, numbers, seconds):
        cf.wait([*map(self.pick, numbers)], seconds)

    def _do_as_completed(self, numbers, seconds):
        for _ in cf.as_completed([*map(self.pick, numbers)], seconds):
            pass

    def _do_result(self, number, seconds):
        return self.pick(number).result(seconds)

    def _do_delay(self, seconds):
        return self.keep(delay(seconds, 1))

    def _do_recur(self, number, method, times):
        pool = self.pools[number]
        if self.is_abroad[number] and method == "then":
            return self.keep(pool.submit(work).then(work).then(work))

        def step(left):
            return 1 if left == 0 else getattr(pool.submit(work), method)(lambda _: step(left - 1))

        return self.keep(wrap_future(step(times)))

    def _do_drop(self, number):
        with contextlib.suppress(IndexError, ZeroDivisionError):
            self.futures.pop(number if number < 0 else number % len(self.futures))

    def _do_lose(self, given):
        handler = self._handler(given, "addBoth")
        return self._note_future(handler, Future().addBoth(handler))

    def _do_nested(self, pool):
        future = self.pools[pool].submit(work).then(work)
        return future.result(None if self.may_wait[pool] else 0.004)

    def _do_map(self, pool, count):
        return [*self.pools[pool].map(work, range(count), timeout=None if self.may_wait[pool] else 0.01)]

    def _do_shut_down(self, pool, cancels):
        if self.pools[pool] is not INLINE:
            self.pools[pool].shutdown(wait=False, cancel_futures=cancels)

    def _do_stream(self, pool, count, behind):
        pipeline = Pipeline().then(work, on=self.pools[pool])
        if behind is not None:
            pipeline = pipeline.then(work, on=self.pools[behind])
        if not threading.current_thread().name.startswith("outside"):
            return self.keep(pipeline.submit(1))
        with pipeline.map(range(count), window=2) as stream:
            return [*stream]

    # -- the whole --

    def run(self):
        """Run it; what was wrong."""
        plan, end = self.plan, time.monotonic() + LIMIT
        interval = sys.getswitchinterval()
        sys.setswitchinterval(plan["interval"])
        try:
            why = self._run(plan, end)
        finally:
            sys.setswitchinterval(interval)
        return [*self.faults, *([why] if why else []), *self._called_again()]

    def _run(self, plan, end):
        for operation in plan["before"]:
            self.do(operation)
        barrier = threading.Barrier(len(plan["threads"]) + 1)
        threads = [self._start("outside", self._outside, operations, barrier) for operations in plan["threads"]]
        barrier.wait()
        self._start_closing(early=True)
        for thread in threads:
            thread.join(max(0, end - time.monotonic()))
        for settles in (plan["settles_first"], not plan["settles_first"]):
            if settles:
                self._settle_all()
            else:
                self._start_closing(early=False)
        self.closers += [self._start("closer", self._close, pool, "with") for pool in self.beneath]
        while (why := self._wrong(threads)) and time.monotonic() < end:
            self._settle_all()
            time.sleep(0.0005)
        return why

    def _start(self, name, body, *given):
        thread = threading.Thread(target=body, args=given, name=name, daemon=True)
        thread.start()
        return thread

    def _outside(self, operations, barrier):
        barrier.wait()
        for operation in operations:
            self.do(operation)

    def _start_closing(self, *, early):
        for number, how, is_early in self.plan["closings"]:
            if is_early == early and self.pools[number] is not INLINE:
                self.closers.append(self._start(f"closer {how}", self._close, self.pools[number], how))

    def _close(self, pool, how):
        try:
            if how == "with":
                pool.__exit__(None, None, None)
            elif how == "error":
                error = KeyError("in the block")
                pool.__exit__(KeyError, error, None)
            else:
                cancels = how.startswith("cancel")
                if how.endswith("twice"):
                    pool.shutdown(wait=False, cancel_futures=cancels)
                pool.shutdown(cancel_futures=cancels)
        except BaseException:
            self.faults.append(f"closing, {how}: {traceback.format_exc()}")

    def _settle_all(self):
        for future in tuple(self.bare):
            with contextlib.suppress(InvalidStateError, BaseBoom):
                if not future.done():
                    future.set_result(1)

    # -- looking at the end --

    def _wrong(self, threads):
        """What is not as it has to be in the end, or None."""
        if pending := [future for future in tuple(self.futures) if not future.done()]:
            return f"not settled: {pending[:5]}"
        if alive := [thread.name for thread in (*threads, *self.closers) if thread.is_alive()]:
            return f"not ended: {alive}, {[*self.pools, *self.beneath]}"
        if any(len(calls) != 1 for calls in self.done_calls):
            return f"done callbacks were called {[len(calls) for calls in self.done_calls]} times"
        if self.plan["mix"] == "threads":
            for future in tuple(self.futures):
                if isinstance(future, Future) and (left := inside.left_in(future)):
                    return f"left in {future!r}: {left}"
        return next(filter(None, map(self._uncalled, self.handlers)), None)

    def _uncalled(self, handler):
        """Tell whether a handler that runs whatever happens has not."""
        future = handler.future
        if handler.calls or future is None or handler.kind not in {"finally_", "addBoth"}:
            return None
        if handler.may_be_refused or (handler.kind == "addBoth" and future.cancelled()):
            return None
        if not future.cancelled() and isinstance(future.exception(), (RuntimeError, TypeError)):
            return None  # its executor has ended, or it waited for itself
        return f"{handler.kind} was not called: {future!r}"

    def _called_again(self):
        return [f"{one.kind} was called {one.calls} times: {one.given}" for one in self.handlers if one.calls > 1]


# -- the command ------------------------------------------------------------------------------------------------------


def _check(plan):
    """Run a program, and see what it leaves behind; what was wrong."""
    before = set(threading.enumerate())
    faults = Program(plan).run()
    end = time.monotonic() + 10
    while not faults and (left := _left(before)):
        if time.monotonic() > end:
            faults = [f"left: {left}"]
        time.sleep(0.001)
    return faults


def _left(before):
    threads = [one for one in threading.enumerate() if one not in before and not one.name.startswith("futurechain-")]
    return [*threads, *multiprocessing.active_children()]


def run_many(numbers, mix, *, seconds=float("inf"), times=1):
    """Run the programs of these numbers, for so long at most; how many there were, and the faults of a bad one."""
    end, count = time.monotonic() + seconds, 0
    logging.disable()
    warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that a cancelled handler returns is never awaited
    try:
        for number in numbers:
            for _ in range(times):
                if time.monotonic() > end:
                    return count, []
                plan = Maker(number, mix).make()
                faulthandler.dump_traceback_later(LIMIT + 20, exit=True)
                faults = _check(plan)
                faulthandler.cancel_dump_traceback_later()
                count += 1
                if faults:
                    return count, [f"program {number} of {mix}: {plan}", *faults]
    finally:
        logging.disable(logging.NOTSET)
    return count, []


def _quietly(report):
    if not issubclass(report.exc_type, BaseBoom):  # which a handler may raise in any thread
        threading.__excepthook__(report)


def main():
    """Run random programs; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="so long, half of it with each mix")
    parser.add_argument("--seed", type=int, default=None, help="the number of the first program; it is printed")
    parser.add_argument("--mix", choices=MIXES, action="append", help="of pools; both by default")
    parser.add_argument("--program", type=int, help="run this one only")
    parser.add_argument("--times", type=int, default=1, help="run each so often")
    given = parser.parse_args()
    threading.excepthook = _quietly
    mixes = given.mix or MIXES
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    numbers = range(seed, seed + 1_000_000) if given.program is None else [given.program]
    print(f"from program {numbers[0]}", flush=True)
    total, wrong = 0, False
    for mix in mixes:
        count, faults = run_many(numbers, mix, seconds=given.seconds / len(mixes), times=given.times)
        total, wrong = total + count, wrong or bool(faults)
        print(*faults, sep="\n  ", end="\n" if faults else "", flush=True)
    print(f"{total} programs, {'one of them with faults' if wrong else '0 of them with faults'}", flush=True)
    os._exit(wrong)  # what hangs must not keep it


if __name__ == "__main__":
    main()
