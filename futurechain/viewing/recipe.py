"""Pictures of recipes: the steps of a pipeline, where they run, within which bounds, and which make one trip."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

from futurechain.viewing.graph import Edge, Node, Picture, clean

__all__ = ["Drawable", "RecipeStep", "call_of_catch", "picture_of"]


class RecipeStep(Protocol):
    """What a picture shows of a step."""

    @property
    def name(self) -> str:
        """What the step is called."""
        ...

    @property
    def concurrency(self) -> int | None:
        """How many items may be in it at once."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that a run may take."""
        ...

    @property
    def retry(self) -> Any:
        """The policy by which it is tried again."""
        ...

    @property
    def batch(self) -> int | str:
        """How many items share a trip."""
        ...


class Drawable(Protocol):
    """What `render` can draw besides futures."""

    def _picture(self) -> Picture:
        """Return its picture."""
        ...


def picture_of(steps: Sequence[RecipeStep], places: Sequence[str], trips: Sequence[int | None]) -> Picture:
    """Return the picture of a recipe.

    Args:
        steps: the steps.
        places: the name of the executor of each.
        trips: the number of the trip that each is on; None for a step that makes no trip.
    """
    nodes = [
        Node(clean(step.name), clean(place), "pending", _bounds(step))
        for step, place in zip(steps, places, strict=True)
    ]
    together = [one is not None and one == following for one, following in pairwise(trips)]
    edges = [Edge(number, number + 1, "same trip" if same else "") for number, same in enumerate(together)]
    return Picture(nodes or [Node("a pipeline without steps")], edges)


def call_of_catch(types: type[BaseException] | tuple[Any, ...], handler: str) -> str:
    """Return what a step for errors of some types is called."""
    names = " | ".join(kind.__name__ for kind in (types if isinstance(types, tuple) else (types,)))
    return f"catch({names}, {handler})"


def _bounds(step: RecipeStep) -> str:
    """Return what bounds a step, in words."""
    found = []
    if step.concurrency is not None:
        found.append(f"at most {step.concurrency} at once")
    if step.timeout is not None:
        found.append(f"{step.timeout:g} s each")
    if step.retry is not None:
        found.append("tried again")
    if step.batch != "auto":
        found.append(f"trips of {step.batch}")
    return ", ".join(found)
