"""One step of a recipe: what to call, where, and within which bounds. Frozen, and checked when it is made."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from futurechain.clock import check_seconds
from futurechain.core.handlers import check_handler, check_types, label
from futurechain.core.scheduler import scheduler_of
from futurechain.executors.mapping import check_count
from futurechain.executors.pool import check_travels
from futurechain.failure import Failure
from futurechain.flow.timing import check_policy
from futurechain.pipeline.places import shares_memory, starts_each, stops_work
from futurechain.viewing.recipe import call_of_catch

__all__ = [
    "Step",
    "catch_arguments",
    "check_callable",
    "check_function",
    "check_step",
    "describe",
    "fused",
    "goes_alone",
    "is_stopped",
]

Handler = Callable[..., Any]


@dataclass(frozen=True)
class Step:
    """What one method of a pipeline has added to it."""

    kind: Literal["then", "catch", "finally_"]
    executor: cf.Executor
    on_result: Handler | None = None
    on_error: Handler | None = None
    types: Any = BaseException
    """The errors that `on_error` is for."""
    name: str = ""
    concurrency: int | None = None
    timeout: float | None = None
    retry: Any = None
    batch: int | Literal["auto"] = "auto"
    shared: bool = field(init=False)
    """Whether it runs on an executor that shares our memory."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared", shares_memory(self.executor))

    def handles(self, outcome: Any) -> bool:
        """Tell whether it has something to call for `outcome`; otherwise that passes by unchanged."""
        if type(outcome) is Failure:
            return self.on_error is not None and isinstance(outcome.value, self.types)
        return self.on_result is not None

    def call(self, outcome: Any) -> Any:
        """Call what there is to call, and return what that returns; what it raises goes through."""
        if self.kind == "finally_":
            assert self.on_result is not None
            return self.on_result()
        if type(outcome) is not Failure:
            return self.on_result(outcome)  # type: ignore[misc]
        return self.on_error(outcome.value)  # type: ignore[misc]

    def finish(self, given: Any, outcome: Any) -> Any:
        """Return the outcome of the step, given the one before it and that of the call."""
        return given if self.kind == "finally_" and type(outcome) is not Failure else outcome

    def travels(self, outcome: Any) -> bool:
        """Tell whether `outcome` goes elsewhere for this: handlers of errors and cleanup run here."""
        return not self.shared and self.kind == "then" and type(outcome) is not Failure


def describe(kind: str, *handlers: Handler | None, types: Any = BaseException) -> str:
    """Return the name of a step that was given none."""
    names = "/".join(label(one) for one in handlers if one is not None) or "pass"
    if types is not BaseException:
        return call_of_catch(types, names)
    return names if kind == "then" else f"{kind.rstrip('_')} {names}"


def fused(steps: tuple[Step, ...], first: int) -> range:
    """Return which steps make one trip with the step `first`, a value step on an executor without our memory.

    A handler in between is on the trip, but does nothing there. What has to look at every item here ends it: a
    `finally_`, and what makes a step go alone (see `goes_alone`).
    """
    head, last = steps[first], first
    alone = goes_alone(head) or starts_each(head.executor)
    for number in range(first + 1, first + 1 if alone else len(steps)):
        step = steps[number]
        if step.executor is not head.executor or step.kind == "finally_" or goes_alone(step):
            break
        if step.on_result is not None:
            last = number
    return range(first, last + 1)


def goes_alone(step: Step) -> bool:
    """Tell whether a step elsewhere makes a trip of its own: a policy wants to see its end, or we look at the time."""
    return step.retry is not None or is_stopped(step)


def is_stopped(step: Step) -> bool:
    """Tell whether the runs of a step elsewhere are stopped from here when they take too long, one item at a time."""
    return step.timeout is not None and stops_work(step.executor)


def check_step(where: str, **given: Any) -> dict[str, Any]:
    """Check the bounds of a step; return them.

    Raises:
        TypeError, ValueError, ImportError: as `Pipeline.then` says.
    """
    name, batch, timeout = given["name"], given["batch"], given["timeout"]
    if not (name is None or isinstance(name, str)):
        raise TypeError(f"{where} wants a string for name=, not {name!r}")
    if batch != "auto" or not isinstance(batch, str):
        given["batch"] = check_count(batch, "batch", where)
        if given["batch"] is None:
            raise TypeError(f'{where} wants batch="auto" or a whole number, not None')
    check_count(given["concurrency"], "concurrency", where)
    if timeout is not None:
        given["timeout"] = check_seconds(timeout, f"timeout= of {where}")
    if given["retry"] is not None:
        check_policy(given["retry"], f"retry= of {where}")
    return given


def check_callable(fn: Any, where: str, executor: cf.Executor) -> None:
    """Raise TypeError if `fn` is no function for `executor`, or none at all."""
    check_travels(check_handler(fn, where), scheduler_of(executor), f"{where}()")


def check_function(fn: Any, where: str) -> Any:
    """Return `fn`, or raise TypeError if it is no function: nothing stands for passing everything through here."""
    if not callable(fn):
        raise TypeError(f"{where}() wants a function, not {fn!r}")
    return fn


def catch_arguments(args: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return types and handler of ``catch(handler)`` or ``catch(types, handler)``.

    Raises:
        TypeError: if the arguments are not of that form.
    """
    if len(args) == 1 and not (isinstance(args[0], type) and issubclass(args[0], BaseException)):
        return BaseException, check_function(args[0], "catch")
    if len(args) != 2:
        given = f"{args[0].__name__} and no handler" if len(args) == 1 else f"{len(args)} arguments"
        raise TypeError(f"catch() takes catch(handler) or catch(types, handler), not {given}")
    return check_types(args[0]), check_function(args[1], "catch")


