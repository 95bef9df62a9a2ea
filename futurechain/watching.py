"""Who watches the stages: nobody, as a rule, and then it costs nothing.

The core tells `watch` what happens to each stage that has no fast path. While somebody watches, no stage has one: the
methods with fast paths are exchanged for plain ones (see ``switches``). Traces and debug mode are the observers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Observer", "Watch", "watch"]


class Observer:
    """Is told what happens to stages, in the thread where it happens, at once; must be quick, and not raise."""

    __slots__ = ()

    def attached(self, stage: Any, parents: tuple[Any, ...]) -> None:
        """`stage` was made, and waits for `parents`."""

    def adopted(self, stage: Any, inner: Any) -> None:
        """The function of `stage` returned the future `inner`, and the stage waits for that now."""

    def queued(self, stage: Any) -> None:
        """`stage` was handed to its executor."""

    def started(self, stage: Any, run: Any) -> None:
        """The function of `stage` is about to be called, in the thread of `run`."""

    def returned(self, stage: Any) -> None:
        """That function has returned, or raised."""

    def settled(self, stage: Any, outcome: Any) -> None:
        """`stage` is settled, with `outcome`."""


class Watch(Observer):
    """Passes on what it is told to all observers."""

    __slots__ = ("observers", "on", "switches")

    def __init__(self) -> None:
        self.on = False
        """Whether anybody watches: whoever has something to tell looks here first."""
        self.observers: tuple[Observer, ...] = ()
        self.switches: list[Callable[[bool], object]] = []
        """Functions to call with True when the first observer comes, with False when the last one goes."""

    def add(self, observer: Observer) -> None:
        """Let `observer` watch from now on."""
        self._set((*self.observers, observer))

    def remove(self, observer: Observer) -> None:
        """Let `observer` watch no more."""
        self._set(tuple(one for one in self.observers if one is not observer))

    def _set(self, observers: tuple[Observer, ...]) -> None:
        self.observers = observers
        self.on = bool(observers)
        for switch in self.switches:
            switch(self.on)

    def attached(self, stage: Any, parents: tuple[Any, ...]) -> None:
        for observer in self.observers:
            observer.attached(stage, parents)

    def adopted(self, stage: Any, inner: Any) -> None:
        for observer in self.observers:
            observer.adopted(stage, inner)

    def queued(self, stage: Any) -> None:
        for observer in self.observers:
            observer.queued(stage)

    def started(self, stage: Any, run: Any) -> None:
        for observer in self.observers:
            observer.started(stage, run)

    def returned(self, stage: Any) -> None:
        for observer in self.observers:
            observer.returned(stage)

    def settled(self, stage: Any, outcome: Any) -> None:
        for observer in self.observers:
            observer.settled(stage, outcome)


watch = Watch()
"""The one that the core talks to."""
