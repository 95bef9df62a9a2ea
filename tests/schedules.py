"""Every order of events: threads are stopped before each bytecode of the core while others act on the same futures.

``python -m tests.schedules --all`` takes worlds of all shapes with all sets of dependents, and pairs of operations (in
the central ones all pairs, see `cases`), and runs every schedule in which the first operation is interrupted once
by all of the second, at every bytecode where that can make a difference (see `stepping`; ``--every`` takes the others,
too); and of triples that matter (rings that are closed together, cancelling against forwarding against attaching) a
thousand random ones each, with two interruptions. ``--seconds N --seed S`` runs a random sample of all pairs in all
worlds, half of them with two interruptions. ``--case`` and ``--plan`` take what a report prints.

What a world is and what is checked: `worlds`. How threads are stopped: `stepping`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import itertools
import logging
import random
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests import inside
from tests.stepping import NEVER, Hang, Stepper
from tests.worlds import DEPENDENTS, OPERATIONS, RINGS, SHAPES, Pools, World, applies

__all__ = ["Case", "Runner", "cases", "sample"]

MOST_STEPS = 20_000
"""No operation makes so many; a schedule that goes on for longer runs in circles."""
SLICE = 40
"""So many pairs of a shape go to one process at a time."""
TRIPLES_EACH = 1000
MOST_REPORTED = 30
MOST_CHARACTERS = 600


class Case:
    """A world to be made, and the operations that meet in it."""

    def __init__(self, shape, dependents, operations):
        self.shape = shape
        self.dependents = dependents
        self.operations = operations

    def __repr__(self):
        return f"{self.shape}({', '.join(self.dependents)}): {' | '.join(self.operations)}"

    @classmethod
    def parse(cls, text):
        """The case that is written so."""
        world, operations = text.split("): ")
        shape, dependents = world.split("(")
        return cls(shape, tuple(filter(None, dependents.split(", "))), tuple(operations.split(" | ")))

    def make(self, runner):
        """The world, and its jobs."""
        world = World(self.shape, self.dependents, runner.stepper, runner.pools)
        return world, [lambda name=name: OPERATIONS[name](world) for name in self.operations]


def cases(shapes=tuple(SHAPES), *, every=False):
    """All pairs in the central worlds, without dependents and with two; elsewhere all pairs of what differs there.

    With `every`, all pairs in all worlds: too many for a day, and what random samples are taken from.
    """
    for number, dependents in enumerate(DEPENDENTS):
        for shape in shapes:
            names = [name for name in OPERATIONS if applies(name, shape)]
            if number >= 2 and not every:
                names = [name for name in names if name in DECIDING]
            elif shape not in CENTRAL and not every:
                names = [name for name in names if name in DECIDING or name in ATTACHING]
            for pair in itertools.product(names, repeat=2):
                yield Case(shape, dependents, pair)


CENTRAL = frozenset({"bare", "stage", "chain", "returns", "moves", "pool"})
"""Shapes that are each a way of its own through the core."""

ATTACHING = frozenset({"then", "add_callback", "adopt", "await", "gather", "result", "wait"})
"""Operations that are each a way of its own to wait for a future."""

DECIDING = frozenset({
    "set_result", "set_inner", "cancel_root", "cancel_source", "cancel_inner", "cancel_first", "cancel_last",
    "cancel_middle", "expire", "drop", "open_gate", "close_ring", "close_ring_too", "cancel_ring",
})  # fmt: skip
"""Operations that settle something."""

TRIPLES = [
    Case(shape, dependents, operations)
    for shapes, dependents, operations in (
        (RINGS, (), ("close_ring", "close_ring_too", "close_ring_as_well")),
        (RINGS, ("then",), ("close_ring_as_well", "close_ring", "close_ring_too")),
        (RINGS, ("adopt",), ("close_ring_too", "close_ring", "cancel_ring")),
        (("moves",), ("adopt",), ("set_result", "cancel_root", "adopt")),
        (("moves",), ("adopt",), ("set_result", "adopt_middle", "cancel_root")),
        (("moves",), (), ("set_result", "cancel_middle", "adopt")),
        (("returns", "moves_along"), ("adopt",), ("set_result", "cancel_first", "then")),
        (("returns", "moves_along"), ("adopt",), ("set_result", "set_inner", "cancel_root")),
        (("returns", "moves_along"), ("then",), ("set_inner", "set_result", "adopt")),
        (("bare", "stage", "waiting"), ("then", "adopt"), ("set_result", "cancel_root", "then")),
        (("bare", "stage", "waiting"), ("then", "adopt"), ("cancel_first", "cancel_last", "set_result")),
        (("chain",), (), ("add_callback", "add_callback", "set_result")),
        (("chain",), (), ("add_callback", "add_both", "add_callback")),
    )
    for shape in sorted(shapes)
]
"""Three threads: rings that are closed together, cancelling against forwarding against attaching."""


class Faults(logging.Handler):
    """Collects what is reported and should not be."""

    def __init__(self):
        super().__init__()
        self.found = []

    def emit(self, record):
        error = record.exc_info[1] if record.exc_info else ""
        self.found.append(f"logged: {record.getMessage()} {error!r}")

    def unraisable(self, report):
        self.found.append(f"unraisable: {report.exc_value!r} in {report.object!r}")

    def in_thread(self, report):
        self.found.append(f"in {report.thread}: {report.exc_value!r}")


class Stop(Exception):
    """A fault was found, and one is enough."""


class Runner:
    """Runs schedules, and remembers what was wrong; a context manager."""

    def __init__(self, *, every=False, few=False, stop=False):
        self.stepper = Stepper(inside.CORE_FILES, every=every, few=few, look=inside.left_in_this_thread)
        self.stop = stop
        self.faults = Faults()
        self.count = 0
        self.found = []
        """``(case, plan, faults)`` of each schedule that has gone wrong."""

    def __enter__(self):
        gc.collect()  # what others have left is not reported as ours
        self._stack = stack = contextlib.ExitStack()
        for name in ("futurechain", "concurrent.futures"):
            logger = logging.getLogger(name)
            logger.addHandler(self.faults)
            stack.callback(logger.removeHandler, self.faults)
            stack.callback(setattr, logger, "propagate", logger.propagate)
            logger.propagate = False
        for module, name, hook in (
            (sys, "unraisablehook", self.faults.unraisable),
            (threading, "excepthook", self.faults.in_thread),
        ):
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, hook)
        self.pools = Pools()
        stack.callback(self.pools.close)
        stack.enter_context(self.stepper)
        gc.freeze()  # what is there already is not looked at in each collection
        stack.callback(gc.unfreeze)
        gc.disable()  # a finalizer that comes by chance would make no two runs alike
        stack.callback(gc.enable)
        return self

    def __exit__(self, *what):
        gc.collect()
        self._stack.__exit__(*what)

    def run(self, case, plan):
        """Run one schedule; how many steps each thread has made."""
        self.count += 1
        if not self.count % 2000:
            gc.collect()
        world, jobs = case.make(self)
        steps = [0] * len(jobs)
        try:
            slots = self.stepper.run(jobs, plan, unblock=world.close)
            steps = [slot.steps for slot in slots]
            for slot in slots:
                if slot.error is not None:
                    world.faults.append(f"{case.operations[self.stepper.slots.index(slot)]} raised {slot.error!r}")
                if slot.left:
                    world.faults.append(f"thread {slot.name} has still to do: {', '.join(slot.left)}")
            world.pause()
            world.close()
            world.check()
        except Hang as hang:
            world.faults.append(f"hangs: {hang}")
        finally:
            world.end()
        if max(steps) > MOST_STEPS:
            world.faults.append(f"took {steps} steps")
        faults = [*world.faults, *self.faults.found]
        self.faults.found.clear()
        if faults:
            self.found.append((case, plan, faults))
            if self.stop:
                raise Stop
        return steps

    def exhaust(self, case):
        """Interrupt the first operation once, at each of its steps; of three, the second as well."""
        if len(case.operations) == 3:
            self.exhaust_triple(case)
            return
        for stop in range(MOST_STEPS):
            if self.run(case, [(0, stop), (1, NEVER)])[0] <= stop:
                return

    def exhaust_triple(self, case):
        """Interrupt the first operation by the second, and that by the third, wherever that can be.

        Once with the first to end before the second, and once the other way round.
        """
        for order in (0, 1), (1, 0):
            ending = [(number, NEVER) for number in order]
            for stop in range(MOST_STEPS):
                for second in range(MOST_STEPS):
                    steps = self.run(case, [(0, stop), (1, second), (2, NEVER), *ending])
                    if steps[1] <= second:
                        break
                if steps[0] <= stop:
                    break


def random_plan(steps, rng):
    """Interrupt the first thread at one step, and in most plans the second, too, before the others go on."""
    stop = rng.randrange(steps[0] + 1)
    if len(steps) == 3:
        ending = [(number, NEVER) for number in rng.sample((0, 1), 2)]
        return [(0, stop), (1, rng.randrange(steps[1] + 1)), (2, NEVER), *ending]
    if rng.random() < 0.5:
        return [(0, stop), (1, NEVER)]
    return [(0, stop), (1, rng.randrange(steps[1] + 1)), (0, rng.randrange(stop, steps[0] + 1) + 1), (1, NEVER)]


def sample(runner, rng, *, shapes=tuple(SHAPES), seconds=None, schedules=None):
    """Run random schedules of random cases, for so many seconds or until there are so many."""
    every = list(cases(shapes, every=True))
    triples = [case for case in TRIPLES if case.shape in shapes] or every
    end = None if seconds is None else time.monotonic() + seconds
    begun = runner.count
    while (end is None or time.monotonic() < end) and (schedules is None or runner.count - begun < schedules):
        case = rng.choice(every) if rng.random() < 0.9 else rng.choice(triples)
        steps = runner.run(case, [])
        for _ in range(8):
            runner.run(case, random_plan(steps, rng))


def _alike(case, faults):
    """What schedules have in common that have gone wrong in the same way."""
    return case.shape, re.sub(r"0x[0-9a-f]+|\d+", "", faults[0])[:200]


def run_some(runner, case, schedules):
    """Run random schedules of one case, the same in each run."""
    rng = random.Random(repr(case))
    steps = runner.run(case, [])
    for _ in range(schedules):
        runner.run(case, random_plan(steps, rng))


def report(runner, began):
    """Print what was run and what was wrong; the exit code."""
    seconds = time.monotonic() - began
    print(f"{runner.count} schedules in {seconds:.0f} s, {len(runner.found)} of them with faults")
    kinds = {}
    for case, plan, faults in runner.found:
        kinds.setdefault(_alike(case, faults), []).append((case, plan, faults))
    for alike in sorted(kinds.values(), key=len, reverse=True)[:MOST_REPORTED]:
        case, plan, faults = min(alike, key=lambda found: (len(found[1]), len(found[0].dependents)))
        cases_of = len({repr(found[0]) for found in alike})
        example = f"{'--few ' * runner.stepper.few}--case {str(case)!r} --plan {str(plan)!r}"
        print(f"  {len(alike)} schedules of {cases_of} cases, for example {example}:")
        for fault in faults[:5]:
            print(f"    {fault[:MOST_CHARACTERS]}")
    return 1 if runner.found else 0


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.schedules", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="run every schedule with one interruption that matters")
    parser.add_argument("--seconds", type=float, default=60, help="run a random sample for so long")
    parser.add_argument("--seed", type=int, default=None, help="of the sample; it is printed")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="with --all: only these")
    parser.add_argument("--every", action="store_true", help="stop before bytecodes of locals and jumps, too")
    parser.add_argument("--few", action="store_true", help="stop only where --all does")
    parser.add_argument("--case", type=Case.parse, action="append", help="run all of this case, as it is printed")
    parser.add_argument("--plan", type=ast.literal_eval, help="with --case: this schedule only")
    parser.add_argument("--some", type=int, default=0, help="with --case: of three operations so many schedules only")
    parser.add_argument("--stop", action="store_true", help="stop at the first fault")
    parser.add_argument("--slice", type=int, help=f"with --all: only the pairs from {SLICE} times this on")
    parser.add_argument("--jobs", type=int, default=1, help="with --all: how many processes share the work")
    given = parser.parse_args()
    if given.all and given.jobs > 1:
        return share_out(given.shapes.split(","), given.jobs)
    began = time.monotonic()
    with Runner(every=given.every, few=given.all or given.few, stop=given.stop) as runner, contextlib.suppress(Stop):
        if given.plan is not None:
            runner.run(given.case[0], given.plan)
        elif given.case is not None:
            for case in given.case:
                if given.some and len(case.operations) == 3:
                    run_some(runner, case, given.some)
                else:
                    runner.exhaust(case)
        elif given.all:
            for shape in given.shapes.split(","):
                exhaust_shape(runner, shape, given.slice)
        else:
            seed = random.randrange(1 << 32) if given.seed is None else given.seed
            print(f"seed {seed}", flush=True)
            sample(runner, random.Random(seed), seconds=given.seconds)
    return report(runner, began)


def share_out(shapes, jobs):
    """Run everything, a slice of a shape's pairs in a process of its own; the exit code."""
    began = time.monotonic()

    def run_slice(shape, number):
        command = [sys.executable, "-m", "tests.schedules", "--all", "--shapes", shape, "--slice", str(number)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        closing = re.search(r"^(\d+) schedules in", done.stdout, re.MULTILINE)
        print(done.stdout[: closing.start()] if closing and not done.returncode else done.stdout, end="", flush=True)
        return (int(closing[1]) if closing else 0), done.returncode

    slices = [(shape, number) for shape in shapes for number in range(-(-len(list(cases([shape]))) // SLICE))]
    with ThreadPoolExecutor(jobs) as pool:
        ended = list(pool.map(lambda one: run_slice(*one), slices))
    failed = sum(code != 0 for _, code in ended)
    total, seconds = sum(count for count, _ in ended), time.monotonic() - began
    print(f"all: {total} schedules in {seconds:.0f} s, {failed} of {len(slices)} slices with faults")
    return 1 if failed else 0


def exhaust_shape(runner, shape, number=None):
    """Run all pairs of a shape, or those of one slice, and random schedules of its triples; print how it went."""
    begun, count, wrong = time.monotonic(), runner.count, len(runner.found)
    pairs = list(cases([shape]))
    triples = [case for case in TRIPLES if case.shape == shape]
    if number is not None:
        pairs = pairs[number * SLICE : (number + 1) * SLICE]
        triples = triples if number == 0 else []
    for case in pairs:
        runner.exhaust(case)
    for case in triples:
        run_some(runner, case, TRIPLES_EACH)
    print(
        f"{shape} {'' if number is None else number}: {len(pairs)} pairs and {len(triples)} triples, "
        f"{runner.count - count} schedules, {len(runner.found) - wrong} with faults, {time.monotonic() - begun:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
