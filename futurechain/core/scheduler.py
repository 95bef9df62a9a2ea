"""Where a stage runs, and its place in the chain.

A `Home` stands for an executor inside the library: it starts calls and delivers their outcome. It is what chains hold,
so that a chain never keeps the user's executor object alive, nor the other way round. A `Place` says "in this
chain, at this depth, on this home"; places are shared by all chains of an executor, so a stage pays one word for them.

In Twisted's family a chain also has an end that moves. The chain record knows it (`Chain.tail`); every future of the
chain holds the record, except the tail, which holds it weakly (`Tail`): no reference cycle, and the results in the
middle are free to go.
"""

from __future__ import annotations

import concurrent.futures as cf
import weakref
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

__all__ = ["Call", "Chain", "Home", "Place", "Tail", "chain_end", "chain_of", "extend", "home_of", "later"]

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""What a stage does when its turn has come: a function, its arguments, its keyword arguments."""

DEEPEST_NUMBERED = 1000
"""Stages are numbered up to here, for messages; the later ones share the last number."""


class Home:
    """Start calls on one executor; the part of it that chains hold."""

    __slots__ = ("__weakref__", "local", "name", "root")

    def __init__(self, name: str, *, local: bool = False) -> None:
        self.name = name
        self.local = local
        self.root = Place(self, 0)

    def at(self, depth: int) -> Place:
        """Return the place at `depth` of the chains here."""
        place = self.root
        for _ in range(min(depth, DEEPEST_NUMBERED)):
            place = place.next or place.grow()
        return place

    def takes_closures(self) -> bool:
        """Tell whether what runs here shares memory with us."""
        return True

    def enlist(self, stage: Any, source: Any = None) -> None:
        """Note that `stage`, attached to `source`, will want to run here, so that a shutdown waits for it."""

    def retire(self, stage: Any) -> None:
        """Note that `stage` is settled."""

    def start(self, stage: Any, call: Call) -> None:
        """Run `call`, somewhere, and settle `stage` with its outcome; never raises."""
        raise NotImplementedError  # pragma: no cover

    def __repr__(self) -> str:
        return self.name


class Place:
    """A depth in the chains of one home; immutable but for the lazily made ``next``."""

    __slots__ = ("depth", "home", "local", "next")

    def __init__(self, home: Home, depth: int) -> None:
        self.home = home
        self.local = home.local
        self.depth = depth
        self.next: Place | None = self if depth >= DEEPEST_NUMBERED else None

    def grow(self) -> Place:
        """Return the place one stage further (two threads may make two: they are alike)."""
        following = self.next = self.next or Place(self.home, self.depth + 1)
        return following


class Chain:
    """The futures that ``addCallback`` strings together: it knows the last of them.

    ``ends`` holds the last one; for an instant also those that are about to cease to be it. The order in which futures
    are appended is their order in the chain. Each takes its predecessor out, and nobody else does.
    """

    __slots__ = ("__weakref__", "ends", "place", "tail")
    next = None

    def __init__(self, place: Any, end: Any) -> None:
        self.place = place
        self.ends = [end]
        tail = self.tail = Tail(self)
        tail.place = place

    home = property(lambda self: self.place.home)
    local = property(lambda self: self.place.local)
    depth = property(lambda self: self.place.depth)

    def grow(self) -> Place:
        """Return the place of a promise-family stage that is attached here."""
        return self.place.next or self.place.grow()  # type: ignore[no-any-return]


class Tail(weakref.ref[Chain]):
    """The place of a chain's last future: a weak reference to the chain, which holds that."""

    __slots__ = ("place",)
    place: Any
    next = None
    home, local, depth, grow = Chain.home, Chain.local, Chain.depth, Chain.grow


def chain_of(future: Any) -> Chain:
    """Return the chain of `future`, which begins one if it is in none."""
    place = future._home
    chain = place if type(place) is Chain else place() if type(place) is Tail else None
    # of several threads that begin one, this step decides whose it is
    return chain or future.__dict__.setdefault("_chain", Chain(place, future))  # type: ignore[no-any-return]


def extend(chain: Chain, child: Any) -> Any:
    """Make `child`, which is complete but for its parent, the end of `chain`; the end so far, to attach it to."""
    child._home = chain.tail
    ends = chain.ends
    ends.append(child)  # decides who comes after whom
    if len(ends) == 2:
        end = ends[0]
        end._home = chain
        del ends[0]
    else:
        known = ends.copy()
        end = known[known.index(child) - 1]
        end._home = chain
        ends.remove(end)
    return end


def chain_end(future: Any) -> Any:
    """Return the present end of the chain of `future`."""
    place = future._home
    chain = place() if type(place) is Tail else place
    return chain.ends[-1] if type(chain) is Chain else future


_LATER = {
    "debug": "viewing.debug",
    "ensure": "flow.coroutines",
    "mimebundle": "viewing.render",
    "suspend": "flow.coroutines",
    "wrap_executor": "executors.wrapped",
    "wrap_future": "executors.wrapped_future",
}


@cache
def later(name: str) -> Callable[..., Any]:
    """Return a function of a layer above, which is imported when it is first needed.

    Foreign executors and futures, coroutines, pictures: these are the only references upward. Most programs need none
    of them, and their modules cost more to import than all the others.
    """
    function: Callable[..., Any] = getattr(import_module(f"futurechain.{_LATER[name]}"), name)
    return function


def home_of(executor: Any, name: str = "on") -> Home:
    """Return the home of `executor`, wrapping a foreign one.

    Raises:
        TypeError: if it is no executor.
    """
    home = getattr(executor, "_home", None)
    if isinstance(home, Home):
        return home
    if isinstance(executor, cf.Executor):
        wrapped: Home = later("wrap_executor")(executor)._home
        return wrapped
    raise TypeError(f"{name}= wants an executor (a concurrent.futures.Executor, or INLINE), not {executor!r}")
