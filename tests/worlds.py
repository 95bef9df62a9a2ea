"""Small worlds of futures for schedules: shapes, operations on them, and what must be true when all is done.

A `World` is one root future of some shape, with dependents. Operations act on it from several threads; they write down
what they attached and what they were told. `World.close` settles what is still open, and `World.check` returns every
broken promise, by what section of the design it belongs to:

* everything is settled, and nothing is left in any list or in any thread;
* every handler has run exactly once, with the outcome of what it was attached to, or not at all where that outcome
  passes it by or the stage was cancelled; ``finally_`` functions and done callbacks have run exactly once in any case;
* what was attached before the settling has run in order;
* of several that settle a future one has succeeded; ``cancel()`` has told the truth;
* a source whose consumers have all been cancelled is cancelled, and no other one.
"""

from __future__ import annotations

import concurrent.futures as cf
import itertools
import threading
import time
from _thread import allocate_lock
from contextlib import suppress

import futurechain
from futurechain import Failure, Future, clock, ensure_future, first, gather, race, some, succeed
from futurechain.errors import CancelledError, InvalidStateError, LostFutureError
from futurechain.testing import ManualClock
from tests import inside

__all__ = ["DEPENDENTS", "OPERATIONS", "SHAPES", "World", "applies"]

LONG = 5.0
"""How long to wait for other threads, in seconds; reached only when something is wrong."""


class Boom(Exception):
    """What fails here."""


class Token:
    """A result, known by its identity."""

    __slots__ = ("name",)

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<{self.name}>"


class Stage:
    """A future that somebody attached, and what is known of its handler."""

    def __init__(self, world, kind, parents):
        self.world = world
        self.kind = kind
        self.parents = parents
        """Names of futures in ``world.futures``; None where that is not known (the end of a chain)."""
        self.name = f"{kind}{next(world.numbers)}"
        self.calls = []
        self.returned = Token(self.name)
        self.early = world.is_being_made
        self.has_ended = False
        """Whether its coroutine has ended."""
        world.stages.append(self)

    def is_over(self):
        """Whether all has happened that has to happen in any case."""
        return self.has_ended if self.kind == "await" else self.calls or self.kind not in {"finally", "callback"}

    def handle(self, *args):
        """Be its handler."""
        self.world.runs += 1
        self.world.log.append(self)
        self.calls.append(args[0] if args else None)
        return self.returned

    @property
    def future(self):
        return self.world.futures.get(self.name)

    def is_kept(self, future):
        """Note the future of this stage; it."""
        self.world.futures[self.name] = future
        return future


class World:
    """One shape with dependents."""

    def __init__(self, shape, dependents=(), stepper=None, pools=None):
        self.shape = shape
        self.stepper = stepper
        self.pools = pools
        self.numbers = itertools.count()
        self.clock = ManualClock()
        self.clock_before = clock.replace(self.clock)
        self.futures = {}
        self.open = []
        self.stages = []
        self.log = []
        self.faults = []
        self.gates = []
        self.settled_by = {}
        self.cancels = []
        """Names of what operations have cancelled by name; "*" for all other ways to cancel."""
        self.is_being_made = True
        self.dropped = self.left_running = False
        self.runs = 0
        """How many handlers were begun."""
        self.came_late = False
        """Whether a cancellation came when what is waited for was settled already, and its outcome was on its way."""
        self.inner = self.source = self.gate = None
        self.source_name = "source"
        SHAPES[shape](self)
        for kind in dependents:
            OPERATIONS[kind](self)
        self.is_being_made = False

    @property
    def root(self):
        return self.futures["root"]

    @root.setter
    def root(self, future):
        self.futures["root"] = future

    def bare(self, name):
        """A future that somebody else has to settle."""
        future = self.futures[name] = Future()
        self.open.append(name)
        return future

    def attach(self, kind, method, parent="root", known=True):
        """Attach a stage with ``method(handler)``."""
        stage = Stage(self, kind, (parent,) if known else None)
        return stage.is_kept(method(stage.handle))

    def settle(self, name, method, value):
        """Settle a bare future by one of its methods, or be told that it is settled."""
        future = self.futures.get(name)
        if future is None:
            return
        try:
            getattr(future, method)(value)
        except InvalidStateError:
            if not future.done() and not future.running():
                self.faults.append(f"{name} refused {method}, and is open")
        else:
            self.settled_by.setdefault(name, []).append(value)

    def cancel(self, stage_or_name, name=None):
        """Cancel a future, and see whether it told the truth."""
        name = name or stage_or_name
        future = self.futures.get(name)
        if future is None:
            return
        self.cancels.append(name)
        ran, runs = self.root.running(), self.runs  # another thread may be in the middle of it, and end that before
        said = future.cancel()
        self.left_running = self.left_running or ran or self.runs != runs or self.root.running()
        if said and (inner := self.futures.get("inner")) is not None and inner.done():
            self.came_late = True
        if said and not future.cancelled():
            self.faults.append(f"cancel() of {name} said True, and it is not cancelled: {future!r}")

    def early(self):
        """The stages attached when the world was made."""
        return [stage for stage in self.stages if stage.early and stage.future is not None]

    # -- the end ------------------------------------------------------------------------------------------------------

    def pause(self):
        """Look, before anything else is settled, at what the operations have left behind."""
        if self.shape in RINGS or not (self.dropped or self.pools_used()):
            for name, future in self.futures.items():
                if not future.done() and (wrong := inside.wrong_in(future)):
                    self.faults.append(f"{name} is pending, and {'; '.join(wrong)}")
        self._check_consumers()

    def _check_consumers(self):
        root = self.root
        if root.done() or self.left_running or self.shape in RINGS or self.pools_used():
            return
        consumers = [stage for stage in self.stages if stage.parents is None or "root" in stage.parents]
        if any(stage.kind in {"callback", "shield", "wait", "result", "chain"} for stage in consumers):
            return
        futures = [stage.future for stage in consumers]
        if futures and all(future is not None and future.cancelled() for future in futures) and not root.running():
            self.faults.append(f"all {len(futures)} consumers of the root are cancelled, and it is not: {root!r}")

    def pools_used(self):
        return self.shape.startswith("pool")

    def close(self):
        """Settle what is still open, so that everything can end."""
        for name in self.open:
            future = self.futures.get(name)
            if future is not None and not future.done():
                with suppress(InvalidStateError):
                    future.set_result(value := Token(name))
                    self.settled_by.setdefault(name, []).append(value)
        future = None
        for gate in self.gates:
            gate.set()
        deadline = time.monotonic() + LONG * (self.pools_used() or self.dropped)
        while not all(future.done() for future in tuple(self.futures.values())) and time.monotonic() < deadline:
            time.sleep(0.0002)  # a timeout must not come before what another thread does
        if all(stage.future is None or stage.future.done() for stage in self.stages) and self.clock.pending:
            self.faults.append(f"{self.clock.pending} timers are left of futures that are settled")
        self.clock.advance(1000)

    def end(self):
        """Give the clock back, and look at how everything has ended, so that it is not reported."""
        clock.replace(self.clock_before)
        for name, future in self.futures.items():
            if future.done():
                self.outcome(name)

    def check(self):
        """Return the list of what is wrong."""
        with suppress(KeyError):
            self._wait_for_all()
        checks = (
            self._check_stages,
            self._check_lost,
            self._check_settlers,
            self._check_cancels,
            self._check_order,
            self._check_chain,
            self._check_lists,
        )
        for check in () if self.faults else checks:
            check()
        return self.faults

    def _wait_for_all(self):
        deadline = time.monotonic() + LONG
        for name, future in tuple(self.futures.items()):
            if not future.done():
                cf.wait([future], max(0.0, deadline - time.monotonic()))
            if not future.done():
                self.faults.append(f"{name} is never settled: {future!r}, {inside.state_of(future)}")
        if not self.faults:
            while not all(stage.is_over() for stage in self.stages):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.0005)
        if self.pools_used():
            self.pools.settle_down()

    def outcome(self, name):
        """``("value", v)`` or ``("error", e)`` of a settled future; None where it is not known any more."""
        future = self.futures.get(name)
        if future is None:
            return None
        try:
            error = future.exception(0)
        except CancelledError as cancelled:
            error = cancelled
        return ("value", future.result(0)) if error is None else ("error", error)

    def _check_stages(self):
        for stage in self.stages:
            if len(stage.calls) > 1:
                self.faults.append(f"the handler of {stage.name} ran {len(stage.calls)} times")
                continue
            own = self.outcome(stage.name)
            parents = None if stage.parents is None else [self.outcome(name) for name in stage.parents]
            if parents is not None and None in parents:
                continue
            if fault := _CHECKS[stage.kind](self, stage, own, parents):
                self.faults.append(f"{stage.name}: {fault} (it: {own}, before: {parents}, called with {stage.calls})")

    def _check_lost(self):
        for name in self.futures:
            outcome = self.outcome(name)
            if not self.dropped and isinstance(outcome[1], LostFutureError):
                self.faults.append(f"{name} is lost: {outcome[1]}")

    def _check_settlers(self):
        for name, values in self.settled_by.items():
            if len(values) > 1:
                self.faults.append(f"{name} was settled {len(values)} times")
            outcome = self.outcome(name)
            if outcome is not None and outcome != ("value", values[0]) and outcome != ("error", values[0]):
                self.faults.append(f"{name} was given {values[0]!r}, and has {outcome}")

    def _check_cancels(self):
        if not self.cancels:
            for name, future in self.futures.items():
                if future.cancelled():
                    self.faults.append(f"{name} is cancelled, and nobody has cancelled anything")
            return
        early = self.early()
        if any(stage.parents is None for stage in early):
            return
        consumers = {stage.name for stage in early if "root" in stage.parents}
        if set(self.cancels) < consumers and self.root.cancelled():
            self.faults.append(f"the root is cancelled, and only {self.cancels} of {sorted(consumers)} were")

    def _check_order(self):
        if self.cancels or self.pools_used():
            return
        ran = [stage for stage in self.log if stage.early and stage.kind in {"then", "finally", "callback", "catch"}]
        ran = [stage for stage in ran if stage.parents == ("root",)]
        places = [self.stages.index(stage) for stage in ran]
        if places != sorted(places):
            self.faults.append(f"handlers ran in the order {[stage.name for stage in ran]}")

    def _check_chain(self):
        """Each of a chain was given what the one before it returned, and nobody else was."""
        called = [stage for stage in self.stages if stage.kind.endswith("_of_chain") and stage.calls]
        given = [id(stage.calls[0]) for stage in called if not isinstance(stage.calls[0], Failure)]
        if len(set(given)) < len(given):
            self.faults.append(f"two of a chain were given the same: {[(one.name, one.calls) for one in called]}")

    def _check_lists(self):
        deadline = time.monotonic() + LONG
        while any(inside.is_awaited(future) for future in tuple(self.futures.values())):
            if time.monotonic() > deadline:
                self.faults.append("all is settled, and a pool would wait for it at its shutdown")
                return
            time.sleep(0.0005)  # a worker settles, and has not finished
        while faults := list(self._left_in_lists()):
            if not (self.dropped or self.pools_used()) or time.monotonic() > deadline:
                self.faults += faults
                return
            time.sleep(0.001)  # another thread settles, and has not finished

    def _left_in_lists(self):
        for name, future in self.futures.items():
            left = inside.left_in(future)
            if left:
                yield f"{name} is settled, and holds {', '.join(left)}"
            if not inside.is_end_of_chain_clean(future):
                yield f"the chain of {name} has several ends"


# -- what a stage of each kind must be in the end ---------------------------------------------------------------------


def _is_cancelled(world, outcome):
    return bool(world.cancels) and outcome[0] == "error" and isinstance(outcome[1], (CancelledError, TimeoutError))


def _same(one, other):
    return one[0] == other[0] and one[1] is other[1]


def _handler_for(wanted):
    """The check of a stage whose handler is for values, or for errors, or for both (None)."""

    def check(world, stage, own, parents):
        if parents is None:
            parent = None
        else:
            (parent,) = parents
        applies = wanted is None or parent is None or parent[0] == wanted
        if stage.calls:
            given = stage.calls[0]
            given = given.value if isinstance(given, Failure) else given
            if not applies:
                return "its handler ran, and the outcome was to pass it by"
            if parent is not None and given is not parent[1]:
                return "its handler was given something else"
            if own != ("value", stage.returned):
                return "its handler has returned something else"
        elif _is_cancelled(world, own) or (own[0] == "error" and isinstance(own[1], LostFutureError)):
            return None
        elif parent is None:
            return None if wanted == "value" and own[0] == "error" else "its handler did not run"
        elif applies:
            return "its handler did not run"
        elif not _same(own, parent):
            return "it has not passed the outcome on"
        return None

    return check


def _passes(world, stage, own, parents):
    if stage.calls:
        return "it has a handler"
    if _same(own, parents[0]) or _is_cancelled(world, own):
        return None
    if world.came_late and _is_cancelled(world, parents[0]) and _same(own, world.outcome("inner")):
        return None
    return "it has not passed the outcome on"


def _chooses(world, stage, own, parents):
    source, inner = parents
    return _passes(world, stage, own, [source if source[0] == "error" else inner])


def _cleans_up(world, stage, own, parents):
    if len(stage.calls) != 1:
        return "its function did not run"
    return None if _same(own, parents[0]) or _is_cancelled(world, own) else "it has not kept the outcome"


def _is_told(world, stage, own, parents):
    if len(stage.calls) != 1:
        return "it was not called"
    return None if stage.calls[0] is world.futures.get(stage.parents[0]) else "it was called with something else"


def _gathers(world, stage, own, parents):
    if own[0] == "value":
        good = len(own[1]) == len(parents) and all(
            parent[0] == "value" and one is parent[1] for one, parent in zip(own[1], parents, strict=True)
        )
        return None if good else "it has gathered something else"
    good = any(_same(own, parent) for parent in parents) or _is_cancelled(world, own)
    return None if good else "it has an error of nobody"


def _races(world, stage, own, parents):
    good = any(_same(own, parent) for parent in parents) or _is_cancelled(world, own)
    if own[0] == "error" and isinstance(own[1], BaseExceptionGroup):
        good = all(parent[0] == "error" for parent in parents)
    if own[0] == "value" and isinstance(own[1], list):
        good = any(parent[0] == "value" and own[1] == [parent[1]] for parent in parents)
    return None if good else "it has an outcome of nobody"


def _sees(world, stage, own, parents):
    """A thread that waited: it has seen how it ended."""
    return None if stage.calls and stage.calls[0] is parents[0][1] else "it has seen something else"


def _awaits(world, stage, own, parents):
    if not stage.has_ended:
        return "the coroutine has never ended"
    if stage.calls and parents[0][1] is not stage.calls[0]:
        return "it has seen something else"
    if stage.calls:
        return None if own == ("value", stage.returned) or _is_cancelled(world, own) else "it returned something else"
    return None if _same(own, parents[0]) or _is_cancelled(world, own) else "it never went on"


def _is_broken(world, stage, own, parents):
    if world.shape == "ring_of_chains" and any(one.kind == "both_of_chain" for one in world.stages):
        return None  # it ends in what the last of the chain has made of the error
    return None if isinstance(own[1], (TypeError, CancelledError)) else "it is in a ring, and has an outcome"


_CHECKS = {
    "then": _handler_for("value"),
    "catch": _handler_for("error"),
    "callback_of_chain": _handler_for("value"),
    "both_of_chain": _handler_for(None),
    "pass": _passes,
    "choice": _chooses,
    "shield": _passes,
    "timeout": _passes,
    "finally": _cleans_up,
    "callback": _is_told,
    "gather": _gathers,
    "race": _races,
    "result": _sees,
    "wait": _sees,
    "await": _awaits,
    "chain": lambda *_: None,
    "ring": _is_broken,
}


# -- shapes -----------------------------------------------------------------------------------------------------------

SHAPES = {}


def shape(function):
    SHAPES[function.__name__.rstrip("_")] = function
    return function


def _returning(future):
    """A stage that has returned `future`, and waits for it; its handler does not hold on to that."""
    box = [future]
    del future
    return succeed(None).then(lambda _: box.pop())


def _chosen(world, name, source, inner):
    """A stage whose handler will return `inner` when `source` is settled."""
    stage = Stage(world, "choice", (source, inner))
    stage.name = name
    future = world.futures[inner]
    return stage.is_kept(world.futures[source].then(lambda _: future))


def _passing(world, name, parent):
    stage = Stage(world, "pass", (parent,))
    stage.name = name
    return stage.is_kept(_returning(world.futures[parent]))


@shape
def bare(world):
    world.bare("root")
    world.source_name = "root"


@shape
def stage(world):
    source = world.bare("source")
    world.root = world.attach("then", source.then, "source")


@shape
def chain(world):
    source = world.bare("source")
    world.root = world.attach("callback_of_chain", source.addCallback, "source")


@shape
def waiting(world):
    """It waits for a returned future."""
    world.bare("source")
    _passing(world, "root", "source")


@shape
def nested(world):
    """A chain of those."""
    world.bare("source")
    _passing(world, "lower", "source")
    _passing(world, "middle", "lower")
    _passing(world, "root", "middle")


@shape
def returns(world):
    """When the source is settled, it will wait for another one."""
    world.bare("source")
    world.bare("inner")
    _chosen(world, "root", "source", "inner")


@shape
def moves(world):
    """One that waits for one that will wait for another one: its entry moves."""
    world.bare("source")
    world.bare("inner")
    _chosen(world, "middle", "source", "inner")
    _passing(world, "root", "middle")


@shape
def moves_along(world):
    """The same, when the other one forwards as well."""
    world.bare("source")
    world.bare("inner")
    _passing(world, "lower", "inner")
    _chosen(world, "middle", "source", "lower")
    _passing(world, "root", "middle")


@shape
def cleanup(world):
    """A ``finally_`` stage that will wait for its clean-up."""
    source, inner = world.bare("source"), world.bare("inner")
    passing = Stage(world, "pass", ("source",))
    passing.name = "root"

    def clean_up():
        world.runs += 1
        return inner.catch(lambda _: None).shield()

    passing.is_kept(source.finally_(clean_up))


@shape
def gathered(world):
    world.bare("source")
    world.bare("inner")
    world.cancels.append("*")
    together = Stage(world, "gather", ("source", "inner"))
    together.name = "root"
    together.is_kept(gather(world.futures["source"], world.futures["inner"]))


@shape
def raced(world):
    world.bare("source")
    world.bare("inner")
    world.cancels.append("*")
    together = Stage(world, "race", ("source", "inner"))
    together.name = "root"
    together.is_kept(race(world.futures["source"], world.futures["inner"]))


@shape
def coroutine(world):
    source = world.bare("source")
    stage = Stage(world, "await", ("source",))
    stage.name = "root"
    stage.is_kept(ensure_future(_awaiting(stage, source)))


async def _awaiting(stage, future):
    try:
        value = await future
        return stage.handle(value)
    finally:
        stage.has_ended = True


def _ring(world, attach):
    """Futures that will wait for each other in a ring: three sources close it."""
    world.cancels.append("*")
    world.dropped = True  # what is in the ring may fail with any of its errors
    for number in range(3):
        world.bare(f"source{number}")
    for number in range(3):
        following = "root" if number == 2 else f"ring{number + 1}"
        name = f"ring{number}" if number else "root"
        stage = Stage(world, "ring", (name,))
        stage.name = name
        stage.is_kept(attach(world.futures[f"source{number}"], lambda _, name=following: world.futures[name]))


@shape
def ring(world):
    _ring(world, Future.then)


@shape
def ring_of_chains(world):
    _ring(world, Future.addCallback)


@shape
def ring_of_groups(world):
    def attach(source, handler):
        def group(value):
            together = world.futures[f"group{next(world.numbers)}"] = gather(handler(value))
            return together

        return source.then(group)

    _ring(world, attach)


@shape
def ring_of_coroutines(world):
    async def wait(source, handler):
        await handler(await source)

    _ring(world, lambda source, handler: ensure_future(wait(source, handler)))


@shape
def expiring(world):
    source = world.bare("source")
    stage = Stage(world, "timeout", ("source",))
    stage.name = "root"
    stage.is_kept(source.timeout(10))


@shape
def pool(world):
    """A task on a thread pool."""
    world.root = _task(world)
    world.source_name = None


@shape
def pool_stage(world):
    """A stage on a thread pool."""
    world.futures["source"] = task = _task(world)
    world.root = world.attach("then", task.then, "source")
    world.source_name = None


@shape
def pool_hop(world):
    """A stage on a thread pool, behind a future from elsewhere."""
    source = world.bare("source")
    pool = world.pools.one
    world.root = world.attach("then", lambda handler: source.then(handler, on=pool), "source")


@shape
def pool_returns(world):
    """A callback in the chain of a pool, which will wait for another future."""
    inner = world.bare("inner")
    world.futures["source"] = task = _task(world)
    stage = Stage(world, "choice", ("source", "inner"))
    stage.name = "root"
    stage.is_kept(task.addCallback(lambda _: inner))
    world.source_name = None


def _task(world):
    gate = world.gate = threading.Event()
    world.gates.append(gate)
    at_work = allocate_lock()
    at_work.acquire()
    slot = [None]
    world.worker_slot = slot

    def work():
        at_work.release()
        gate.wait()
        if slot[0] is not None:
            world.stepper.join(slot[0])
        return Token("task")

    task = world.pools.one.submit(work)
    at_work.acquire()
    return task


class Pools:
    """The thread pools of all worlds."""

    def __init__(self):
        self.one = futurechain.ThreadPoolExecutor(1)
        self.other = futurechain.ThreadPoolExecutor(1)

    def settle_down(self):
        """Wait until the workers have nothing to do."""
        for pool in (self.one, self.other):
            pool.submit(int).result(LONG)

    def close(self):
        self.one.shutdown()
        self.other.shutdown()


# -- operations -------------------------------------------------------------------------------------------------------

OPERATIONS = {}
_NEEDS = {}


def operation(function=None, *, needs=lambda shape: True):
    if function is None:
        return lambda function: operation(function, needs=needs)
    name = function.__name__.rstrip("_")
    OPERATIONS[name] = function
    _NEEDS[name] = needs
    return function


def applies(name, shape):
    """Whether an operation has something to act on."""
    return _NEEDS[name](shape)


RINGS = {"ring", "ring_of_chains", "ring_of_groups", "ring_of_coroutines"}
HAS_INNER = {"returns", "pool_returns", "moves", "moves_along", "cleanup", "gathered", "raced"}
HAS_MIDDLE = {"nested", "moves", "moves_along"}
POOLS = {"pool", "pool_stage", "pool_returns", "pool_hop"}


@operation
def then(world):
    world.attach("then", world.root.then)


@operation
def then_two(world):
    """A stage and one behind it."""
    before = Stage(world, "then", ("root",))
    behind = Stage(world, "then", (before.name,))
    before.is_kept(world.root.then(before.handle))
    behind.is_kept(before.future.then(behind.handle))


@operation
def then_elsewhere(world):
    pool = world.pools.other
    world.attach("then", lambda handler: world.root.then(handler, on=pool))


@operation
def catch(world):
    world.attach("catch", world.root.catch)


@operation
def finally_(world):
    world.attach("finally", world.root.finally_)


@operation
def add_callback(world):
    world.attach("callback_of_chain", world.root.addCallback, known=False)


@operation
def add_both(world):
    world.attach("both_of_chain", world.root.addBoth, known=False)


@operation
def final(world):
    Stage(world, "chain", None).is_kept(world.root.final)


@operation
def add_done_callback(world):
    stage = Stage(world, "callback", ("root",))
    root = stage.is_kept(world.root)
    root.add_done_callback(stage.handle)


@operation
def shield(world):
    Stage(world, "shield", ("root",)).is_kept(world.root.shield())


@operation
def timeout(world):
    Stage(world, "timeout", ("root",)).is_kept(world.root.timeout(10))


@operation
def adopt(world):
    Stage(world, "pass", ("root",)).is_kept(_returning(world.root))


@operation
def adopt_chain(world):
    """A Twisted-family callback returns it."""
    stage = Stage(world, "chain", None)
    stage.is_kept(succeed(None).addCallback(lambda _: world.futures["root"]))


@operation(needs=lambda shape: shape in HAS_MIDDLE)
def adopt_middle(world):
    Stage(world, "pass", ("middle",)).is_kept(_returning(world.futures["middle"]))


@operation(needs=lambda shape: shape in HAS_INNER)
def then_inner(world):
    """Somebody else uses what will be returned."""
    world.attach("then", world.futures["inner"].then, "inner")


@operation(needs=lambda shape: shape in HAS_MIDDLE)
def then_middle(world):
    world.attach("then", world.futures["middle"].then, "middle")


@operation(needs=lambda shape: shape in HAS_MIDDLE)
def cancel_middle(world):
    world.cancels.append("*")
    world.cancel("middle")


@operation
def gather_(world):
    other = f"other{next(world.numbers)}"
    world.bare(other)
    world.cancels.append("*")
    Stage(world, "gather", ("root", other)).is_kept(gather(world.root, world.futures[other]))


@operation
def race_(world):
    other = f"other{next(world.numbers)}"
    world.bare(other)
    world.cancels.append("*")
    world.attach("then", world.futures[other].then, other)  # somebody else uses it: it is not cancelled
    Stage(world, "race", ("root", other)).is_kept(race(world.root, world.futures[other]))


@operation
def first_(world):
    other = f"other{next(world.numbers)}"
    world.bare(other)
    world.cancels.append("*")
    Stage(world, "race", ("root", other)).is_kept(first(world.root, world.futures[other]))


@operation
def some_(world):
    other = f"other{next(world.numbers)}"
    world.bare(other)
    world.cancels.append("*")
    Stage(world, "race", ("root", other)).is_kept(some(1, world.root, world.futures[other]))


@operation
def await_(world):
    stage = Stage(world, "await", ("root",))
    stage.is_kept(ensure_future(_awaiting(stage, world.root)))


@operation
def await_on_pool(world):
    stage = Stage(world, "await", ("root",))
    stage.is_kept(ensure_future(_awaiting(stage, world.root), on=world.pools.other))


@operation
def result(world):
    _blocking(world, "result", lambda root: root.result(LONG))


@operation
def wait(world):
    def wait_for(root):
        cf.wait([root], LONG)
        return root.result(0)

    _blocking(world, "wait", wait_for)


def _blocking(world, kind, ask):
    stage = Stage(world, kind, ("root",))
    root = stage.is_kept(world.root)
    try:
        stage.calls.append(ask(root))
    except (CancelledError, TimeoutError, Boom, LostFutureError, TypeError, BaseExceptionGroup) as error:
        stage.calls.append(error)


@operation
def look(world):
    root = world.root
    root.running(), root.done(), root.cancelled(), repr(root), root._state


@operation(needs=lambda shape: shape in RINGS)
def close_ring(world):
    world.settle("source0", "set_result", None)


@operation(needs=lambda shape: shape in RINGS)
def close_ring_too(world):
    world.settle("source1", "set_result", None)


@operation(needs=lambda shape: shape in RINGS)
def close_ring_as_well(world):
    world.settle("source2", "set_result", None)


@operation(needs=lambda shape: shape in RINGS)
def cancel_ring(world):
    world.cancel("ring1")


@operation(needs=lambda shape: shape not in {"pool", "pool_stage", "pool_returns", *RINGS})
def set_result(world):
    world.settle(world.source_name, "set_result", Token("set_result"))


@operation(needs=lambda shape: shape not in {"pool", "pool_stage", "pool_returns", *RINGS})
def set_exception(world):
    world.settle(world.source_name, "set_exception", Boom("set_exception"))


@operation(needs=lambda shape: shape in HAS_INNER)
def set_inner(world):
    world.settle("inner", "set_result", Token("set_inner"))


@operation(needs=lambda shape: shape in HAS_INNER)
def fail_inner(world):
    world.settle("inner", "set_exception", Boom("fail_inner"))


@operation(needs=lambda shape: shape == "bare")
def set_running(world):
    with suppress(InvalidStateError):
        world.root.set_running_or_notify_cancel()


@operation
def cancel_root(world):
    world.cancels.append("*")
    world.cancel("root")


@operation(needs=lambda shape: shape not in {"bare", "pool", "pool_stage", "pool_returns", *RINGS})
def cancel_source(world):
    world.cancels.append("*")
    world.cancel("source")


@operation(needs=lambda shape: shape in HAS_INNER)
def cancel_inner(world):
    world.cancels.append("*")
    world.cancel("inner")


@operation
def cancel_first(world):
    for stage in world.early()[:64]:
        if stage.parents is not None and stage.parents[0] == "root" and stage.kind != "callback":
            world.cancel(stage.name)
            return


@operation
def cancel_last(world):
    for stage in reversed(world.early()):
        if stage.parents is not None and stage.kind not in {"callback", "chain"} and stage.parents[0] == "root":
            world.cancel(stage.name)
            return


@operation(needs=lambda shape: shape in {"stage", "chain", "expiring", "waiting", "nested"})
def drop(world):
    """Its producer drops the source."""
    world.dropped = True
    world.open[:] = [name for name in world.open if name != "source"]
    world.futures.pop("source", None)


@operation
def expire(world):
    world.cancels.append("*")
    world.clock.advance(20)


@operation(needs=lambda shape: shape in {"pool", "pool_stage", "pool_returns"})
def open_gate(world):
    """Let the worker end its task; it is the one that is stopped at its bytecodes meanwhile."""
    stepper = world.stepper
    slot = world.worker_slot[0] = stepper.by_thread.get(threading.get_ident())
    stepper.leave(slot)
    idle = world.pools.one.submit(stepper.leave, slot)
    world.gate.set()
    idle.result(LONG)


DEPENDENTS = (
    (),
    ("then", "adopt"),
    ("then",),
    ("adopt",),
    ("then_two", "then"),
    ("adopt", "adopt"),
    ("finally", "add_done_callback", "then"),
    ("adopt", "then", "timeout"),
    ("add_callback", "then"),
    ("gather", "shield", "catch"),
)
"""What hangs on the root before the operations."""
