"""Who watches the stages: nobody, as a rule, and then it costs nothing.

The core tells `watch` what happens to each stage that has no fast path. While somebody watches, no stage has one: the
methods with fast paths are exchanged for plain ones (see ``switches``). Traces and debug mode are the observers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Elsewhere", "Observer", "Watch", "watch"]


class Elsewhere:
    """How a call went that another process has made. Times are by a clock that all processes share."""

    __slots__ = ("began", "ended", "packing", "process", "sent", "worker")

    def __init__(  # by hand: the first `NamedTuple` of a program costs a tenth of what it takes to import all of this
        self,
        process: int,
        began: float,
        ended: float | None = None,
        packing: tuple[float, float] | None = None,
        sent: float | None = None,
        worker: str = "",
    ) -> None:
        self.process: int = process
        self.began: float = began
        self.ended: float | None = ended
        """When the function had returned or raised, if that is told."""
        self.packing: tuple[float, float] | None = packing
        """From when to when it was packed here, if that is known."""
        self.sent: float | None = sent
        """When it was sent there."""
        self.worker: str = worker
        """What the process is called, if it has a name."""


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

    def ran(self, stage: Any, run: Elsewhere) -> None:
        """That function has run in another process."""

    def settled(self, stage: Any, outcome: Any) -> None:
        """`stage` is settled, with `outcome`."""

    def marked(self, place: str, process: int, what: str) -> None:
        """Something has happened to a worker process of the executor that is called `place`."""

    def counted(self, queue: str, length: int) -> None:
        """The queue that is called so has that length now."""


class Watch:
    """Passes on what it is told to all observers; to a single one without any detour."""

    __slots__ = (
        "adopted", "attached", "counted", "marked", "observers", "on", "queued", "ran", "returned", "settled",
        "started", "switches",
    )  # fmt: skip
    adopted: Callable[[Any, Any], object]
    attached: Callable[[Any, tuple[Any, ...]], object]
    counted: Callable[[str, int], object]
    marked: Callable[[str, int, str], object]
    queued: Callable[[Any], object]
    ran: Callable[[Any, Elsewhere], object]
    returned: Callable[[Any], object]
    settled: Callable[[Any, Any], object]
    started: Callable[[Any, Any], object]

    def __init__(self) -> None:
        self.switches: list[Callable[[bool], object]] = []
        """Functions to call with True when the first observer comes, with False when the last one goes."""
        self._set(())

    def add(self, observer: Observer) -> None:
        """Let `observer` watch from now on."""
        self._set((*self.observers, observer))

    def remove(self, observer: Observer) -> None:
        """Let `observer` watch no more."""
        self._set(tuple(one for one in self.observers if one is not observer))

    def _set(self, observers: tuple[Observer, ...]) -> None:
        self.observers: tuple[Observer, ...] = observers
        for name in _EVENTS:
            setattr(self, name, _tell(tuple(getattr(observer, name) for observer in observers)))
        self.on: bool = bool(observers)
        """Whether anybody watches: whoever has something to tell looks here first."""
        for switch in self.switches:
            switch(self.on)


_EVENTS = tuple(name for name in vars(Observer) if not name.startswith("_"))


def _tell(listeners: tuple[Callable[..., object], ...]) -> Callable[..., object]:
    """Return the function that calls all of `listeners`."""
    if len(listeners) == 1:
        return listeners[0]

    def tell(*args: Any) -> None:
        for listener in listeners:
            listener(*args)

    return tell


watch: Watch = Watch()
"""The one that the core talks to."""
