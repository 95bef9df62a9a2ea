"""A plain model of the whole: what `test_world` compares the library with, rule by rule.

One thread, no races, no speed: a future is an object with an outcome, a list of dependents and the sources that it
waits for, and everything happens by recursion, at once and in order. Outcomes are pairs: ``("ok", value)`` or
``("error", name)``, where cancellation is ``("error", "cancelled")``.

What a handler does is an `Action`; the same actions are given to the real handlers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

__all__ = ["CANCELLED", "INLINE", "Action", "Executor", "Future", "World"]

CANCELLED = ("error", "cancelled")
INLINE = None


@dataclass(frozen=True)
class Action:
    """What a handler does: ``("return",)``, ``("raise",)``, ``("wait", future)`` or ``("attach", future)``.

    What is returned or raised is the name of the stage. ``attach`` makes a promise-family stage at the other future,
    whose name has a plus sign, and returns.
    """

    kind: str
    target: str | None = None


class Executor:
    """What is queued, and how submitting ends."""

    def __init__(self) -> None:
        self.queue: deque[Future] = deque()
        self.refuses = self.broken = self.closed = False

    def submit(self, stage: Future) -> None:
        """Queue a stage, or settle it with the error of a refused submission."""
        if self.broken:
            stage.world.settle(stage, ("error", "broken"))
        elif self.refuses:
            stage.world.settle(stage, ("error", "refused"))
        else:
            self.queue.append(stage)


class Future:
    """One future of the model."""

    def __init__(self, world: World, name: str, kind: str, *, executor: Executor | None = INLINE) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        self.outcome: Any = None
        self.dependents: list[Any] = []
        self.sources: list[Future] = []
        self.executor = executor
        """Where the promise-family stages attached here run."""
        self.runs_on: Executor | None = INLINE
        """Where its own handler runs."""
        self.is_late = False
        """Whether it was attached after the shutdown of that, to no chain that has begun there."""
        self.handlers: dict[str, Action] = {}
        self.parent: str | None = None
        """The name of what it was attached to, for the order of handlers."""
        self.given: Any = None
        self.kept: Any = None
        self.begun = False
        self.shielded = False
        self.running = False
        self.deadline: float | None = None
        self.chain: list[Future] | None = None
        """The chain of the Twisted family, shared by all its futures; the last one is its end."""
        self.group: Group | None = None

    @property
    def end(self) -> Future:
        return self if self.chain is None else self.chain[-1]

    def is_consumed(self) -> bool:
        return bool(self.dependents)

    def fire(self, source: Future) -> None:
        """As a dependent: go on with the outcome of `source`."""
        self.world.start(self, source.outcome)


class Adoption:
    """A dependent: a stage waits for the future that its handler returned."""

    def __init__(self, stage: Future) -> None:
        self.stage = stage

    def fire(self, source: Future) -> None:
        self.stage.world.settle(self.stage, source.outcome)


class Callback:
    """A dependent: a done callback."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name

    def fire(self, source: Future) -> None:
        self.world.log.append((source.name, self.name, source.outcome))


class Group:
    """A dependent of several futures: a combination."""

    def __init__(self, whole: Future, kind: str, parts: list[Future], wanted: int = 1) -> None:
        self.whole = whole
        self.kind = kind
        self.parts = parts
        self.wanted = wanted
        self.found: list[Any] = []

    def attach(self) -> None:
        for part in dict.fromkeys(self.parts):
            if self.whole.outcome is not None:
                break
            self.whole.sources.append(part)
            if part.outcome is None:
                part.dependents.append(self)
            else:
                self.fire(part)

    def fire(self, source: Future) -> None:
        if self.whole.outcome is not None:
            return
        decided = self.decide(source)
        if decided is not None:
            sources, self.whole.sources = self.whole.sources, []
            self.whole.world.settle_quietly(self.whole, decided)
            for part in sources:
                self.whole.world.release(part, self)
            self.whole.world.tell(self.whole)

    def decide(self, source: Future) -> Any:
        """Return the outcome, if it is decided by that of `source`."""
        outcomes = [part.outcome for part in self.parts]
        failed = source.outcome[0] == "error"
        if self.kind == "race":
            return source.outcome
        if self.kind == "gather" and failed:
            return source.outcome
        if self.kind == "gather" and any(outcome is not None and outcome[0] == "error" for outcome in outcomes):
            return None  # that one has still to tell
        if self.kind in {"gather", "settled"}:
            return None if None in outcomes else ("ok", tuple(value for _, value in outcomes))
        if not failed:
            self.found += [source.outcome[1]] * self.parts.count(source)
            enough = len(self.found) >= self.wanted
            value = self.found[0] if self.kind == "first" else tuple(self.found[: self.wanted])
            return ("ok", value) if enough else None
        errors = [one[1] for one in outcomes if one is not None and one[0] == "error"]
        return None if len(self.parts) - len(errors) >= self.wanted else ("error", ("group", *errors))


class World:
    """All futures, and what has happened to them."""

    def __init__(self) -> None:
        self.futures: dict[str, Future] = {}
        self.log: list[Any] = []
        """Which handlers ran, and with what: ``(future, what, outcome)``."""
        self.now = 0.0
        self.depth = 0
        self.later: deque[tuple[Future, Any]] = deque()
        self.groups: list[Group] = []
        self.is_open = False
        """Whether something depends on what nobody has promised: which of several parts of a combination that hang on
        the same future is settled first; or whether what a handler attaches after a shutdown is inside work."""

    def add(self, name: str, kind: str, *, executor: Executor | None = INLINE) -> Future:
        """Make a future and know it by its name."""
        future = self.futures[name] = Future(self, name, kind, executor=executor)
        return future

    # -- settling -----------------------------------------------------------------------------------------------------

    def settle(self, future: Future, outcome: Any) -> None:
        """Give `future` its outcome, unless it has one, and tell its dependents in order."""
        if future.outcome is None:
            self.settle_quietly(future, outcome)
            self.tell(future)

    def settle_quietly(self, future: Future, outcome: Any) -> None:
        if future.kept is not None and outcome[0] == "ok":
            outcome = future.kept
        future.outcome = outcome
        future.sources = []
        future.deadline = None
        if future.runs_on is not None and future in future.runs_on.queue:
            future.runs_on.queue.remove(future)

    def tell(self, future: Future) -> None:
        while future.dependents:
            future.dependents.pop(0).fire(future)

    def start(self, stage: Future, outcome: Any) -> None:
        """Run the handler of a stage for `outcome`, here or on its executor; or pass that on."""
        if self.choose(stage, outcome) is None:
            self.settle(stage, outcome)
            return
        stage.given = outcome
        if stage.runs_on is INLINE:
            self.run(stage)
        elif stage.is_late:
            self.settle(stage, ("error", "refused"))
        else:
            stage.sources = []
            stage.runs_on.submit(stage)

    def choose(self, stage: Future, outcome: Any) -> Action | None:
        if "finally" in stage.handlers:
            return stage.handlers["finally"]
        return stage.handlers.get(outcome[0])

    def run(self, stage: Future) -> None:
        """Call the handler of `stage`."""
        action, outcome = self.choose(stage, stage.given), stage.given
        stage.sources, stage.begun = [], True
        cleans_up = "finally" in stage.handlers
        self.log.append((stage.name, "finally" if cleans_up else outcome[0], None if cleans_up else outcome))
        if cleans_up:
            stage.kept = outcome
        stage.running = True
        self.depth += 1
        result = self.perform(stage.name, action)
        self.depth -= 1
        stage.running = False
        if isinstance(result, Future):
            self.adopt(stage, result)
        else:
            self.settle(stage, result)

    def perform(self, name: str, action: Action) -> Any:
        """Do what a handler does; its outcome, or the future that it returned."""
        if action.kind == "wait":
            return self.futures[action.target]
        if action.kind == "attach":
            self.then(f"{name}+", self.futures[action.target], {"ok": Action("return")})
        return ("error", name) if action.kind == "raise" else ("ok", name)

    def adopt(self, stage: Future, inner: Future) -> None:
        inner = inner.end if stage.kind == "twisted" else inner
        if inner.outcome is not None:
            self.settle(stage, inner.outcome)
        elif self.waits_for(inner, stage):
            self.settle(stage, ("error", "cycle"))
        else:
            stage.sources = [inner]
            inner.dependents.append(Adoption(stage))
            self.look_for_ties()

    def waits_for(self, future: Future, other: Future) -> bool:
        """Tell whether `future` is `other`, or waits for it."""
        return other in self.above(future)

    def above(self, future: Future) -> list[Future]:
        """Return `future` and all that it waits for."""
        found = {future: None}
        todo = [future]
        while todo:
            fresh = [source for source in todo.pop().sources if source not in found]
            found.update(dict.fromkeys(fresh))
            todo += fresh
        return list(found)

    def look_for_ties(self) -> None:
        """Note whether two parts of a combination that is undecided wait for the same future."""
        self.groups = [group for group in self.groups if group.whole.outcome is None]
        for group in self.groups:
            seen: set[str] = set()
            for part in dict.fromkeys(group.parts):
                above = {one.name for one in self.above(part) if one.outcome is None}
                self.is_open = self.is_open or (group.kind != "settled" and not seen.isdisjoint(above))
                seen |= above

    # -- cancelling ---------------------------------------------------------------------------------------------------

    def cancel(self, future: Future) -> bool:
        """Cancel, down and up; whether it is cancelled now."""
        if future.outcome is not None or future.running:
            return future.outcome == CANCELLED
        self.give_up(future, CANCELLED)
        return True

    def give_up(self, future: Future, outcome: Any) -> None:
        sources = future.sources
        cleans_up = "finally" in future.handlers and not future.begun
        self.settle(future, outcome)
        for source in sources:
            self.withdraw(source, future.group or future)
        unwanted = [] if future.shielded else [source for source in sources if not source.is_consumed()]
        if cleans_up:
            self.clean_up(future)
        for source in unwanted:
            self.cancel(source)

    def withdraw(self, source: Future, dependent: Any) -> None:
        source.dependents = [
            one
            for one in source.dependents
            if one is not dependent and not (isinstance(one, Adoption) and one.stage is dependent)
        ]

    def release(self, source: Future, dependent: Any) -> None:
        """Let `dependent` wait for `source` no more; cancel that if nobody else consumes it."""
        self.withdraw(source, dependent)
        if not source.is_consumed():
            self.cancel(source)

    def clean_up(self, future: Future) -> None:
        """Run the function of a ``finally_`` that was cancelled before its turn, where it would have run."""
        stage = Future(self, future.name, "cleanup")
        stage.handlers = future.handlers
        stage.runs_on = future.runs_on
        before = Future(self, "", "settled")
        before.outcome = ("ok", None)
        if stage.runs_on is INLINE:
            self.later.append((stage, before))
        else:
            self.start(stage, before.outcome)

    # -- time ---------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let time pass; what falls due is settled in the order of the deadlines."""
        until = self.now + seconds
        while due := [one for one in self.futures.values() if one.deadline is not None and one.deadline <= until]:
            future = min(due, key=lambda one: one.deadline)  # of equals the first
            self.now = future.deadline
            if future.kind == "delay":
                self.settle(future, ("ok", future.given))
            else:
                self.give_up(future, ("error", "timeout"))
        self.now = until

    # -- making futures -----------------------------------------------------------------------------------------------

    def then(self, name: str, parent: Future, handlers: dict[str, Action], executor: Any = "same") -> Future:
        """Attach a promise-family stage."""
        stage = self.add(name, "promise", executor=parent.executor if executor == "same" else executor)
        stage.runs_on = stage.executor
        if stage.runs_on is not INLINE and stage.runs_on.closed:
            has_begun = any(one.outcome is None and one.runs_on is stage.runs_on for one in self.above(parent))
            stage.is_late = not has_begun
            self.is_open = self.is_open or (stage.is_late and self.depth > 0)
        return self.connect(parent, stage, handlers)

    def add_callbacks(self, name: str, future: Future, handlers: dict[str, Action]) -> Future:
        """Attach a Twisted-family stage to the end of the chain."""
        stage = self.add(name, "twisted", executor=future.executor)
        if future.chain is None:
            future.chain = [future]
        parent = future.end
        stage.chain = future.chain
        stage.chain.append(stage)
        return self.connect(parent, stage, handlers)

    def connect(self, parent: Future, stage: Future, handlers: dict[str, Action]) -> Future:
        stage.handlers = handlers
        if parent.outcome is None:
            stage.parent = parent.name
            stage.sources = [parent]
            parent.dependents.append(stage)
        elif self.depth and stage.kind == "promise" and stage.runs_on is INLINE:
            self.later.append((stage, parent))
        else:
            self.start(stage, parent.outcome)
        return stage

    def in_order(self, log: list[Any]) -> dict[str | None, list[str]]:
        """Return, for each future, whose handlers ran of what was attached to it before it was settled, in order."""
        order: dict[str | None, list[str]] = {}
        for name, what, _ in log:
            if what != "callback" and self.futures[name].parent is not None and self.futures[name].runs_on is INLINE:
                order.setdefault(self.futures[name].parent, []).append(name)
        return order

    def work_off(self) -> None:
        """Do what handlers have put off: called after each step from outside."""
        while self.later:
            stage, parent = self.later.popleft()
            if stage.outcome is None:
                self.start(stage, parent.outcome)

    def shield(self, name: str, parent: Future) -> Future:
        stage = self.add(name, "promise", executor=parent.executor)
        stage.shielded = True
        return self.connect(parent, stage, {})

    def timeout(self, name: str, parent: Future, seconds: float) -> Future:
        stage = self.add(name, "promise", executor=parent.executor)
        self.connect(parent, stage, {})
        if stage.outcome is None:
            stage.deadline = self.now + seconds
        return stage

    def delay(self, name: str, seconds: float, value: Any) -> Future:
        future = self.add(name, "delay")
        future.given = value
        future.deadline = self.now + seconds
        return future

    def combine(self, name: str, kind: str, parts: list[Future], wanted: int = 1) -> Future:
        whole = self.add(name, "group")
        whole.group = Group(whole, kind, parts, wanted)
        self.groups.append(whole.group)
        self.look_for_ties()
        whole.group.attach()
        if whole.outcome is not None:
            for part in dict.fromkeys(parts):
                self.release(part, whole.group)
        return whole

    def submit(self, name: str, executor: Executor, action: Action) -> Future:
        """Submit a task; what refuses it has to be seen by the caller."""
        task = self.add(name, "task", executor=executor)
        task.runs_on = executor
        task.handlers = {"ok": action}
        task.given = ("ok", None)
        executor.submit(task)
        return task

    def run_queued(self, executor: Executor, name: str) -> None:
        """Let the executor run the stage `name`, which it has queued.

        Which comes first is said only for the dependents of one future, and not for branches of different lengths.
        """
        stage = next(one for one in executor.queue if one.name == name)
        executor.queue.remove(stage)
        self.run(stage)

    def break_down(self, executor: Executor) -> None:
        """Let the executor break: what it has queued fails, and so does what is submitted later."""
        executor.broken = True
        while executor.queue:
            self.settle(executor.queue.popleft(), ("error", "broken"))
