"""Where a stage runs; and the end of a Twisted-family chain.

A `Scheduler` stands for an executor inside the library: it starts calls and delivers their outcome. It is what
futures hold, so that a chain never keeps the user's executor object alive, nor the other way round.

In Twisted's family a chain has an end that moves. Its record, `Chain`, knows the end; every future of the chain holds
the record, but for the last one, which has a weak reference to it (`Tail`): no reference cycle, and the results in the
middle are free to go. No lock guards it:

* *Whose chain is it?* The first ``addCallback`` on a future begins one; `_beginnings.setdefault` decides.
* *Who comes after whom?* ``ends.append(child)`` decides: the predecessor of a child is the one before it in the list.
* *When does the predecessor go?* Once the child has found it, and has given it the record in the place of the weak
  reference: the sign, for whoever tidies the list from its front. So a child always finds its predecessor there. (The
  root has the record from the beginning, so nobody tidies before the first child has found it.)

The child may then be attached to its predecessor whatever state that is in: pending, settled, not yet attached itself.
"""

from __future__ import annotations

import concurrent.futures as cf
import weakref
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

__all__ = [
    "Call", "Chain", "Scheduler", "Tail", "begin_chain", "chain_end", "extend", "find_predecessor", "later",
    "scheduler_of", "tidy",
]  # fmt: skip

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""What a stage does when its turn has come: a function, its arguments, its keyword arguments."""


class Scheduler:
    """Start calls on one executor; the part of it that chains hold."""

    __slots__ = ("__weakref__", "is_local", "is_plain", "name")

    def __init__(self, name: str, *, is_local: bool = False) -> None:
        self.name: str = name
        self.is_local: bool = is_local
        """Whether stages run in the thread that settles their source."""
        self.is_plain: bool = is_local
        """Whether, besides, nobody watches, so that a stage may take the fast path."""

    def takes_closures(self) -> bool:
        """Tell whether what runs here shares memory with us."""
        return True

    def register(self, stage: Any, source: Any = None) -> None:
        """Note that `stage`, attached to `source`, will want to run here, so that a shutdown waits for it."""

    def keeps_back(self, stage: Any) -> bool:
        """Say whether `stage`, which waits for its source, can be cancelled: nobody has begun it ahead of its turn.

        From then on nobody will.
        """
        return True

    def unregister(self, stage: Any) -> None:
        """Note that `stage` is settled."""

    def show(self, stage: Any) -> Any:
        """Return what users get for `stage`, which was made to run here, and is attached."""
        return stage

    def start(self, stage: Any, call: Call) -> None:
        """Run `call`, somewhere, and settle `stage` with its outcome; never raises."""
        raise NotImplementedError  # pragma: no cover

    def steps_of(self, stage: Any) -> Scheduler:
        """Return where the steps of a coroutine run that `stage` has returned."""
        return self

    def waits(self, stage: Any) -> None:
        """Take note that `stage` has run here, and waits now for the future that it has returned."""

    def queue_of(self, stage: Any) -> Scheduler | None:
        """Return in whose queue `stage` stands, if in any: that of another one, if this is a view of it."""
        return self

    def __repr__(self) -> str:
        return self.name


class Chain:
    """The futures that ``addCallback`` strings together: it knows the last of them, by the rules above."""

    __slots__ = ("__weakref__", "ends", "has_begun", "tail")

    def __init__(self, end: Any) -> None:
        self.ends: list[Any] = [end]
        """The last one; for an instant also those that are about to cease to be it."""
        self.tail: Tail = Tail(self)
        self.has_begun: bool = False
        """Whether the first child has found the root."""


class Tail(weakref.ref[Chain]):
    """What the last future of a chain has in the place of the record."""

    __slots__ = ()


_beginnings: dict[int, Chain] = {}
"""Chains that are just being begun, by the identity of their first future."""


def begin_chain(future: Any) -> Chain:
    """Return the chain of `future`, which begins one if it is in none."""
    found = getattr(future, "_chain", None)
    chain: Chain | None = found() if type(found) is Tail else found
    if chain is not None:
        return chain
    key = id(future)
    chain = _beginnings.setdefault(key, Chain(future))  # of several threads that begin one, this decides whose it is
    found = getattr(future, "_chain", None)  # unless one of them was through already: a second look, after that
    if type(found) is Chain:
        chain = found
    else:
        future._chain = chain
    _beginnings.pop(key, None)
    return chain


def extend(chain: Chain, child: Any) -> Any:
    """Make `child`, which is complete but for its source, the end of `chain`; the end so far, to attach it to."""
    child._chain = chain.tail
    chain.ends.append(child)  # decides who comes after whom
    return find_predecessor(chain, child)


def find_predecessor(chain: Chain, child: Any) -> Any:
    """Return the one before `child`, which was appended to the ends; and tidy them."""
    known = chain.ends.copy()
    end = known[known.index(child) - 1]
    if type(end._chain) is Chain:  # from the beginning: it is the root
        chain.has_begun = True
    else:
        end._chain = chain
    if chain.has_begun:
        tidy(chain.ends)
    return end


def tidy(ends: list[Any]) -> None:
    """Take out, from the front, all that have been found by their successors."""
    while type((first := ends[0])._chain) is Chain:
        try:
            ends.remove(first)
        except ValueError:  # another thread tidies, too
            pass


def chain_end(future: Any) -> Any:
    """Return the present end of the chain of `future`."""
    found = getattr(future, "_chain", None)
    chain: Chain | None = found() if type(found) is Tail else found
    return future if chain is None else chain.ends[-1]


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


def scheduler_of(executor: Any, name: str = "on") -> Scheduler:
    """Return the scheduler of `executor`, wrapping a foreign one.

    Raises:
        TypeError: if it is no executor.
    """
    scheduler = getattr(executor, "_scheduler", None)
    if isinstance(scheduler, Scheduler):
        return scheduler
    if isinstance(executor, cf.Executor):
        wrapped: Scheduler = later("wrap_executor")(executor)._scheduler
        return wrapped
    raise TypeError(f"{name}= wants an executor (a concurrent.futures.Executor, or INLINE), not {executor!r}")
