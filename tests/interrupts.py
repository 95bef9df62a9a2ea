"""What a Ctrl-C leaves behind that lands in the library's own code: ``python -m tests.interrupts``.

Each program builds futures in the main thread and settles them; somewhere in between it is interrupted, once. Then
whoever wrote the program would do what is left to do: settle what is not settled yet. After that every future that
the program has got hold of must be done. A run is *lost* if one is not, and *locked* if another thread cannot use
these futures any more, or this thread runs no more handlers. The same chain, made by hand of standard futures, is
there for comparison.

Two ways to interrupt:

* by the clock: a timer signal at a random moment. Its handler raises if the interrupted code is the library's.
* by place: at one given point of all those at which CPython looks for signals (after a call, at the end of a loop, at
  the beginning of a function), which can be counted and gone through one by one.
"""

from __future__ import annotations

import argparse
import concurrent.futures as cf
import contextlib
import dis
import functools
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple, Self

import futurechain
from futurechain import Future, ensure_future, gather, inlineCallbacks, race, succeed

LIBRARY = str(Path(futurechain.__file__).parent)
BY_HAND = (str(Path(cf.__file__).parent), __file__)
POOL = futurechain.ThreadPoolExecutor(2)
LENGTH = 20
"""How long the chains are: a run is to take about as long as a program spends between two handlers of its own."""


class World:
    """What a program has got hold of: futures that it settles, and futures that depend on these."""

    def __init__(self) -> None:
        self.sources: list[Any] = []
        self.ends: list[Any] = []
        self.patience = 0.0
        """How many seconds other threads may take to end what they have."""

    def source(self) -> Any:
        self.sources.append(source := Future())
        return source

    def settle(self) -> None:
        """Settle what is not settled; again, if this is interrupted."""
        for source in self.sources:
            try:
                if not source.done():
                    source.set_result(0)
            except cf.InvalidStateError:
                pass

    def is_whole(self) -> bool:
        cf.wait(self.ends, self.patience)
        return all(end.done() for end in (*self.sources, *self.ends))


PROGRAMS: dict[str, Callable[[World], object]] = {}


def program(function: Callable[[World], object]) -> Callable[[World], object]:
    PROGRAMS[function.__name__.replace("_", " ")] = function
    return function


def one_more(value: Any) -> Any:
    return value + 1


def passed_on(value: Any) -> Any:
    return value


@program
def inline_chain(world: World) -> None:
    end = world.source()
    for _ in range(LENGTH):
        world.ends.append(end := end.then(one_more))
    world.settle()


@program
def chain_of_callbacks(world: World) -> None:
    end = world.source()
    for _ in range(LENGTH):
        world.ends.append(end := end.addCallback(one_more))
    world.settle()


@program
def branches(world: World) -> None:
    source = world.source()
    for _ in range(LENGTH):
        world.ends.append(source.then(one_more))
    world.settle()


@program
def branches_of_branches(world: World) -> None:
    level = [world.source()]
    for _ in range(4):
        level = [parent.then(one_more) for parent in level for _ in range(2)]
        world.ends.extend(level)
    world.settle()


@program
def errors(world: World) -> None:
    end = world.source()
    for _ in range(LENGTH // 2):
        world.ends.append(end := end.then(_fail))
        world.ends.append(end := end.catch(_recover))
    world.settle()


def _fail(_: object) -> None:
    raise KeyError


def _recover(_: object) -> int:
    return 0


@program
def gathered(world: World) -> None:
    stages = [world.source().then(one_more) for _ in range(LENGTH)]
    world.ends.extend(stages)
    world.ends.append(gather(*stages))
    world.ends.append(gather(*stages, return_exceptions=True))
    world.settle()


@program
def raced(world: World) -> None:
    for _ in range(LENGTH // 4):
        pair = [world.source().then(one_more), world.source().then(one_more)]
        world.ends.extend(pair)
        world.ends.append(race(*pair))
    world.settle()


@program
def cancelled(world: World) -> None:
    end = world.source()
    for _ in range(LENGTH):
        world.ends.append(end := end.then(one_more))
        world.ends.append(end.then(one_more))
    end.cancel()
    for branch in world.ends:
        branch.cancel()


@program
def cancelled_branches(world: World) -> None:
    source = world.source()
    for _ in range(LENGTH):
        world.ends.append(source.then(one_more).then(one_more))
    for branch in world.ends:
        branch.cancel()


@program
def returned_futures(world: World) -> None:
    for _ in range(LENGTH // 4):
        inner = world.source()
        world.ends.append(world.source().then(partial(_give, inner)))
        world.ends.append(world.ends[-1].then(one_more))
    world.settle()


def _give(future: Any, _: object) -> Any:
    return future


@program
def settled_returned_futures(world: World) -> None:
    end = world.source()
    for _ in range(LENGTH):
        world.ends.append(end := end.then(succeed))
    world.settle()


@program
def coroutines(world: World) -> None:
    for _ in range(LENGTH // 4):
        source = world.source()
        world.ends.append(ensure_future(_await_twice(source)))
        world.ends.append(_yield_twice(world.ends[-1]))
    world.settle()


async def _await_twice(future: Any) -> Any:
    await future
    return await future


@inlineCallbacks
def _yield_twice(future: Any) -> Any:
    yield future
    return (yield future)


@program
def finallies_and_timeouts(world: World) -> None:
    end = world.source()
    for _ in range(LENGTH // 4):
        world.ends.append(end := end.finally_(_nothing))
        world.ends.append(end := end.timeout(3600))
        world.ends.append(end := end.shield())
    world.settle()


def _nothing() -> None:
    pass


@program
def stages_on_settled_futures(world: World) -> None:
    end = succeed(0)
    for _ in range(LENGTH):
        world.ends.append(end := end.then(one_more))


@program
def handlers_that_wait(world: World) -> None:
    source = world.source()
    world.ends.append(source.then(lambda _: [end.result(5) for end in world.ends[1:]]))
    for _ in range(LENGTH // 2):
        world.ends.append(source.then(one_more))
    world.settle()


@program
def stages_on_a_pool(world: World) -> None:
    source, world.patience = world.source(), 1.0
    for _ in range(LENGTH // 2):
        world.ends.append(source.then(one_more, on=POOL))
        world.ends.append(world.ends[-1].then(one_more))
    world.settle()


@program
def handlers_that_settle(world: World) -> None:
    for _ in range(LENGTH // 2):
        world.source()
    for this, following in zip(world.sources, world.sources[1:], strict=False):
        world.ends.append(this.then(partial(_settle, following)))
        world.ends.append(following.then(one_more))
    world.settle()


def _settle(future: Any, _: object) -> None:
    if not future.done():
        future.set_result(0)


@program
def by_hand(world: World) -> None:
    world.sources.append(end := cf.Future())
    for _ in range(LENGTH):
        world.ends.append(end := then_by_hand(end, one_more))
    world.settle()


def then_by_hand(future: cf.Future[Any], fn: Callable[[Any], Any]) -> cf.Future[Any]:
    """The usual helper."""
    following: cf.Future[Any] = cf.Future()

    def run(done: cf.Future[Any]) -> None:
        try:
            following.set_result(fn(done.result()))
        except BaseException as error:
            following.set_exception(error)

    future.add_done_callback(run)
    return following


# -- one run  ----------------------------------


class Verdict(NamedTuple):
    """What one run has come to."""

    interrupted: bool
    lost: bool = False
    locked: bool = False
    raised: bool = False
    """Whether the KeyboardInterrupt has come out of the program, as it should."""
    noise: tuple[str, ...] = ()
    """What was raised where nobody could catch it, but for that KeyboardInterrupt itself."""


class ByTheClock:
    """Interrupt after so many seconds, if that is in the code of interest."""

    def __init__(self, seconds: float, folders: tuple[str, ...]) -> None:
        self._seconds, self._folders, self.hit, self.place = seconds, folders, False, ""

    def _arrive(self, _: int, frame: Any) -> None:
        name = frame.f_code.co_filename
        if name.startswith(self._folders) and frame.f_code.co_name not in NOT_OURS:
            self.hit, self.place = True, _place(frame)
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        signal.signal(signal.SIGALRM, self._arrive)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


NOT_OURS = {"__enter__", "__exit__", "one_more", "settle", "source", "by_hand", "is_whole"}
"""Functions of this file that are no part of the helper."""

LOOKS = frozenset(
    number
    for name, number in dis.opmap.items()
    if name.startswith("CALL") or name in {"RESUME", "RETURN_GENERATOR"}
)
"""Instructions after which CPython looks for signals; a few more than there are, in one version or the other."""
JUMPS = frozenset(number for name, number in dis.opmap.items() if name == "JUMP_BACKWARD")
"""Instructions in which it does so; of these the compiler believes that they raise nothing, and no `try` holds them."""


@functools.cache
def _places(code: CodeType) -> dict[int, bool]:
    """Return the offsets at which an interrupt may come; whether only if the call before was none of Python's own.

    CPython does not look for signals when one of its own functions returns to another.
    """
    instructions = list(dis.get_instructions(code))
    after = {two.offset: one.opname.startswith("CALL") for one, two in pairwise(instructions) if one.opcode in LOOKS}
    return after | {one.offset: False for one in instructions if one.opcode in JUMPS}


class ByPlace:
    """Interrupt at the `number`-th place of those where CPython looks for signals in the code of interest."""

    def __init__(self, number: int, folders: tuple[str, ...]) -> None:
        self._number, self._folders, self.seen, self.hit, self.place = number, folders, 0, False, ""
        self._last: Any = None

    def is_ours(self, code: CodeType) -> bool:
        """Tell whether `code` is of interest; what a finalizer raises goes nowhere anyhow."""
        return code.co_filename.startswith(self._folders) and code.co_name not in NOT_OURS | {"__del__"}

    def arrive(self, code: CodeType, offset: int, frame: Any) -> None:
        """Note that an instruction is about to be executed, and raise if this is the place."""
        came_back, self._last = self._last is not frame, frame
        after_call = _places(code).get(offset)
        if self.hit or after_call is None or (after_call and came_back):
            return
        self.seen += 1
        if self.seen == self._number:
            self.hit, self.place = True, _place(frame)
            signal.raise_signal(signal.SIGINT)  # raises here, unless it is put off

    def __enter__(self) -> Self:
        self._main = os.getpid(), threading.get_ident()
        if MONITORING is None:
            sys.settrace(self._trace)
        else:
            MONITORING.use_tool_id(TOOL, "interrupts")
            MONITORING.register_callback(TOOL, MONITORING.events.INSTRUCTION, self._monitor)
            MONITORING.restart_events()
            MONITORING.set_events(TOOL, MONITORING.events.INSTRUCTION)
        return self

    def __exit__(self, *_: object) -> None:
        if MONITORING is None:
            sys.settrace(None)
        else:
            MONITORING.set_events(TOOL, 0)
            MONITORING.register_callback(TOOL, MONITORING.events.INSTRUCTION, None)
            MONITORING.free_tool_id(TOOL)
        self._last = None

    def _monitor(self, code: CodeType, offset: int) -> Any:
        if not self.is_ours(code):
            return MONITORING.DISABLE
        is_here = (os.getpid(), threading.get_ident()) == self._main
        return self.arrive(code, offset, sys._getframe(1)) if is_here else None

    def _trace(self, frame: Any, event: str, _: object) -> Any:
        """Trace one frame, where there is no ``sys.monitoring``."""
        if not self.is_ours(frame.f_code):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and os.getpid() == self._main[0]:
            self.arrive(frame.f_code, frame.f_lasti, frame)
        return self._trace


MONITORING: Any = getattr(sys, "monitoring", None)
TOOL = 4


def _place(frame: Any) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"


def run_once(body: Callable[[World], object], interruption: ByTheClock | ByPlace) -> Verdict:
    """Run a program with one interruption, and see what it has left behind."""
    world, raised, noise = World(), False, []
    with _listening(noise):
        try:
            with interruption:
                body(world)
        except KeyboardInterrupt:
            raised = True
        if not interruption.hit:
            return Verdict(interrupted=False)
        world.settle()
        gc.collect(0)
        locked = not _can_be_used(world) or not succeed(0).then(one_more).done()
    return Verdict(True, locked or not world.is_whole(), locked, raised, tuple(noise))


@contextlib.contextmanager
def _listening(noise: list[str]) -> Iterator[None]:
    """Note what finalizers raise, instead of printing it."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda args: (
        None if args.exc_type is KeyboardInterrupt else noise.append(repr(args.exc_value))
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a coroutine that was interrupted before its first step
            yield
    finally:
        sys.unraisablehook = before


def _can_be_used(world: World, seconds: float = 3) -> bool:
    """Tell whether another thread can use the futures, and new ones, without being held up."""
    probe = threading.Thread(target=_use, args=(world,), daemon=True)
    probe.start()
    probe.join(seconds)
    return not probe.is_alive()


def _use(world: World) -> None:
    for future in (*world.sources, *world.ends[-5:]):
        future.add_done_callback(_see)
        if isinstance(future, Future):
            future.addCallback(one_more)
            _ = future.final
            future.then(one_more)
    fresh = Future()
    gather(fresh.then(one_more), fresh.addCallback(one_more))
    fresh.set_result(0)


def _see(future: cf.Future[Any]) -> None:
    """Look at a future, as a done callback."""


# -- all of them  ----------------------------------


class Row(NamedTuple):
    name: str
    runs: int
    lost: int
    locked: int
    swallowed: int
    noise: tuple[str, ...]

    @property
    def rate(self) -> float:
        return self.lost / max(self.runs, 1)


def folders(name: str) -> tuple[str, ...]:
    return BY_HAND if name == "by hand" else (LIBRARY,)


def measure(name: str, wanted: int, chance: random.Random, report: Callable[[str], object] = str) -> Row:
    """Interrupt a program by the clock until it was interrupted so often."""
    body = PROGRAMS[name]
    duration = max(_duration(body), 50e-6)
    verdicts: list[Verdict] = []
    for _ in range(wanted * 20):
        interruption = ByTheClock(chance.uniform(1e-6, duration * 1.2), folders(name))
        verdict = run_once(body, interruption)
        if verdict.interrupted:
            verdicts.append(verdict)
        if verdict.lost:
            report(interruption.place)
        if len(verdicts) == wanted:
            break
    return _row(name, verdicts)


def _duration(body: Callable[[World], object]) -> float:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        body(World())
        times.append(time.perf_counter() - began)
    return sorted(times)[10]


def count_places(name: str) -> int:
    """Return how many places there are in a program."""
    with ByPlace(sys.maxsize, folders(name)) as counter:
        PROGRAMS[name](World())
    return counter.seen


def go_through(
    name: str, stride: int = 1, report: Callable[[str], object] = str, chance: random.Random | None = None
) -> Row:
    """Interrupt a program at every place, or every so many; on average, if there is a `chance`."""
    body, verdicts, number = PROGRAMS[name], [], 1
    while True:
        interruption = ByPlace(number, folders(name))
        verdict = run_once(body, interruption)
        if not verdict.interrupted:
            return _row(name, verdicts)
        verdicts.append(verdict)
        if verdict.lost:
            report(interruption.place)
        number += stride if chance is None else chance.randint(1, 2 * stride - 1)


def _row(name: str, verdicts: list[Verdict]) -> Row:
    lost, locked = sum(one.lost for one in verdicts), sum(one.locked for one in verdicts)
    swallowed = sum(not one.raised for one in verdicts)
    return Row(
        name, len(verdicts), lost, locked, swallowed, tuple({text for one in verdicts for text in one.noise})
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400, help="how many interrupted runs of each program")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--places", action="store_true", help="interrupt at every place instead")
    parser.add_argument("--stride", type=int, default=1, help="with --places: at every so many")
    parser.add_argument("--where", action="store_true", help="name the lines at which something was lost")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help="by default all of them")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print("every place" if options.places else f"seed {options.seed}")
    print(f"{'program':28}{'interrupted':>12}{'lost':>8}{'':>8}{'locked':>8}{'swallowed':>11}")
    chance = random.Random(options.seed)
    for name in options.programs or PROGRAMS:
        places: Counter[str] = Counter()
        note = lambda place, places=places: places.update([place])
        row = go_through(name, options.stride, note) if options.places else measure(name, options.runs, chance, note)
        print(
            f"{row.name:28}{row.runs:12}{row.lost:8}{row.rate:8.1%}{row.locked:8}{row.swallowed:11}",
            flush=True,
        )
        for place, count in places.most_common() if options.where else ():
            print(f"    {place}: {count}")
        for text in row.noise:
            print(f"    a finalizer raised {text}")


if __name__ == "__main__":
    main()
