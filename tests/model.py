"""A plain model of the rules of a chain, without any future: what `test_differential` compares the library with.

A `Chain` begins with an outcome, and each `Stage` has an action for values and one for errors. An outcome is a pair:
``("ok", number)`` or ``("error", number)``. Everything here runs at once and in order, which is the whole point: that
something is settled later, or was settled before, must make no difference to who sees what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Action", "Chain", "Fail", "Outcome", "Path", "Raise", "Return", "Stage", "Wait", "run"]

Outcome: TypeAlias = tuple[str, int]
Name: TypeAlias = tuple[int, ...]
Path: TypeAlias = list[tuple[Name, Outcome]]
"""Which handlers ran, in order, and what each was given."""


@dataclass(frozen=True)
class Return:
    """Return a number."""

    number: int


@dataclass(frozen=True)
class Raise:
    """Raise an exception."""

    number: int


@dataclass(frozen=True)
class Fail:
    """Return a `Failure`."""

    number: int


@dataclass(frozen=True)
class Wait:
    """Return the future of another chain."""

    chain: Chain


Action: TypeAlias = Return | Raise | Fail | Wait


@dataclass(frozen=True)
class Stage:
    """A pair of handlers; None passes the outcome on."""

    on_result: Action | None
    on_error: Action | None


@dataclass(frozen=True)
class Chain:
    """A beginning and its stages.

    Args:
        start: the outcome that it begins with.
        before: how many of the stages are attached before it is settled; None means that it is settled last of all,
            when everything else has come to a standstill.
    """

    start: Outcome
    before: int | None
    stages: tuple[Stage, ...]


def run(chain: Chain, path: Path, name: Name = ()) -> Outcome:
    """Return the outcome of `chain`; add what its handlers see to `path`."""
    outcome = chain.start
    for number, stage in enumerate(chain.stages):
        action = stage.on_result if outcome[0] == "ok" else stage.on_error
        if action is not None:
            path.append(((*name, number), outcome))
            outcome = _perform(action, path, (*name, number))
    return outcome


def _perform(action: Action, path: Path, name: Name) -> Outcome:
    match action:
        case Return(number):
            return "ok", number
        case Raise(number) | Fail(number):
            return "error", number
        case Wait(chain):
            return run(chain, path, name)
