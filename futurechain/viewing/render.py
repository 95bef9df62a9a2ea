"""Pictures of real chains: who waits for whom, where, and how far it has come.

`render` starts at one future, goes up to the roots and down to all dependents, and draws what it finds as text,
Mermaid, Graphviz or SVG. Looking changes nothing: no link is taken, no failure counts as seen. It is a snapshot; a
chain that runs meanwhile may be drawn half before and half after a step.

A settled future has dropped its function, its parent and its links, so that memory is free. So of a settled stage
only the outcome is drawn, and it is in the picture only if it was asked for, or if something still names it.

General layout: *walking* is the one place that knows how futures are linked, and returns plain nodes and edges;
*arranging* puts those in order; one section for each format follows.
"""

from __future__ import annotations

import concurrent.futures as cf
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from futurechain.core.handlers import Catch, Handler, label
from futurechain.core.scheduler import chain_end
from futurechain.core.state import PENDING, Pending, consumers
from futurechain.core.stdlib import DoneCallback, StandardFuture, is_cancelled, outcome_of
from futurechain.executors.mapping import check_count
from futurechain.executors.wrapped_future import Foreign
from futurechain.failure import Failure
from futurechain.future import ExecutorStage
from futurechain.viewing.graph import FORMATS, Edge, Node, Picture, clean, reading
from futurechain.viewing.recipe import Drawable, call_of_catch
from futurechain.viewing.trace import duration

__all__ = ["mimebundle", "render"]
MOST_COUNTED = 100_000
"""How many futures beyond the limit are counted."""


Format: TypeAlias = Literal["text", "mermaid", "dot", "svg"]


def render(
    future: cf.Future[Any] | Drawable,
    format: Format = "text",  # noqa: A002  # the usual name
    *,
    limit: int = 200,
) -> str:
    """Draw the chain that `future` belongs to, what it waits for and what waits for it; or the recipe of a pipeline.

    Marked ``✔`` is what succeeded, ``✘`` what failed, ``⊘`` what was cancelled, ``▶`` what runs, ``○`` what is to come;
    ``◀`` is the future that was given. Nothing is changed by looking.

    Args:
        future: any future; one of ours knows more than a foreign one. Or a pipeline: its steps, where they run, within
            which bounds, and which of them make one trip.
        format: "text" for a terminal, "mermaid" for Markdown, "dot" for Graphviz, "svg" for a web page.
        limit: how many futures to draw, the nearest first; one node stands for the others, and counts them.

    Raises:
        TypeError: if `future` is no ``concurrent.futures.Future``, or `limit` no whole number.
        ValueError: if `format` is none of the four, or `limit` is not positive.

    Example:
        >>> print(render(delay(3600).then(str)))
        ○ #1 delay · INLINE · pending
        ⇣ ○ #2 str ◀ · INLINE · pending
    """
    recipe = getattr(future, "_picture", None)
    if not isinstance(future, cf.Future) and recipe is None:
        hint = ": give it its .future" if isinstance(getattr(future, "future", None), cf.Future) else ""
        raise TypeError(f"render() draws a concurrent.futures.Future, not {future!r}{hint}")
    if not isinstance(format, str) or format not in FORMATS:
        raise ValueError(f'render() wants format= to be "text", "mermaid", "dot" or "svg", not {format!r}')
    check_count(limit, "limit", "render()", optional=False)
    return FORMATS[format](_arrange(recipe() if recipe is not None else _snapshot(cast("Any", future), limit)))


def mimebundle(future: cf.Future[Any] | Drawable) -> dict[str, str]:
    """Return what a notebook shows for `future`: its ``repr``, and the picture of its chain as SVG.

    Args:
        future: any future.

    Raises:
        TypeError: if it is none.
    """
    return {"text/plain": repr(future), "image/svg+xml": render(future, "svg")}


def _waited_for(future: Any) -> list[Any]:
    """Return the futures that `future` waits for."""
    parent = getattr(future, "_source", None)
    if isinstance(parent, weakref.ref):
        parent = parent()
    if isinstance(parent, cf.Future):
        return [_drawn(parent)]
    if type(parent) is Foreign:
        foreign = parent._future()
        its_own = isinstance(future, ExecutorStage)  # which is at work elsewhere
        return [] if foreign is None or its_own else [foreign]
    return [] if parent is None else list(map(_drawn, parent.sources()))


def _drawn(future: Any) -> Any:
    """Return what is drawn for `future`: on a cluster there are two for each stage, and one is drawn."""
    return getattr(future, "_stands_for", future)


def _dependents(future: Any) -> list[tuple[Any, str]]:
    """Return the futures that wait for `future`, each with what to write along the arrow."""
    if not isinstance(future, StandardFuture):
        relays = [getattr(held, "_ours", ()) for held in tuple(getattr(future, "_done_callbacks", ()))]
        return [(ours, "") for relay in relays for ours in tuple(relay)]
    if future.done():
        end = chain_end(future)
        return [] if end is future or end is None else [(end, "later")]
    found: list[tuple[Any, str]] = []
    for target, text in map(_target, consumers(future)):
        if target is not future and _drawn(target) is future:
            found += _dependents(target)
        elif target is not None:
            found.append((_drawn(target), text))
    return found


def _target(entry: Any) -> tuple[Any, str]:
    """Return the future on whose behalf `entry` waits, or None, and what to write along the arrow."""
    if isinstance(entry, cf.Future):
        return entry, ""
    if isinstance(entry, weakref.ref):
        return entry(), "returned by"
    if hasattr(entry, "whole"):  # a combination
        return entry.whole, ""
    return getattr(entry, "target", None), "awaited by" if isinstance(entry, Handler) else "returned by"


def _name_of(future: Any) -> str:
    """Return what the user would call this stage: the function, the combinator, the coroutine."""
    plan, parent = future._handler, future._source
    call = getattr(future, "_call", None)
    if plan is None:
        plan = call[0] if isinstance(call, tuple) else call
    if callable(getattr(parent, "cancel_for", None)):  # no stage, but a combination, a timer, somebody else's future
        kind = type(parent).__name__
        return _WORDS.get(kind, kind.strip("_").lower()) if not isinstance(future, ExecutorStage) else label(plan)
    kind = type(plan).__name__
    if plan is not None and issubclass(type(plan), Handler):
        word = _WORDS.get(kind, "")
        name = getattr(plan, "name", "") or (label(plan) if plan.handlers() else "")
        name = name.rsplit(".", 1)[-1]
        if type(plan) is Catch:
            return call_of_catch(plan.types, name)
        return f"{word} {name}".strip() or ("shield" if future._shielded else "pass")
    return "future" if plan is None or not callable(plan) else label(plan)


_WORDS = {
    "Source": "Deferred",
    "_All": "gather",
    "_Settled": "gather",
    "_Race": "race",
    "_Some": "some",
    "_Timed": "delay",
    "Foreign": "wrap_future",
    "Finally": "finally",
    "Expiry": "timeout",
    "_Runner": "coroutine",
}
"""What the public calls are called, by the names of the classes behind them."""


def _look(future: Any, *, asked: bool) -> Node:
    """Return the node of a future, as it is now."""
    if not isinstance(future, StandardFuture):
        status, state = _state(outcome_of(future) if future.done() else PENDING, running=future.running())
        kind = type(future)
        return Node(clean(f"{kind.__module__.split('.')[0]} {kind.__name__}"), "", status, state, None, 0, True, asked)
    try:
        name = _name_of(future)
    except Exception:  # a user's callable may raise at any question; it is drawn all the same
        name = type(future._handler).__name__
    status, state = _state(getattr(future, "_seen_outcome", future._outcome), running=future.running())
    callbacks = sum(type(entry) is DoneCallback for entry in consumers(future))
    place = clean(str(future._scheduler.name))
    return Node(clean(name), place, status, state, duration(future), callbacks, asked=asked)


def _state(outcome: Any, *, running: bool) -> tuple[str, str]:
    """Return the status and the words for an outcome."""
    if type(outcome) is Pending:
        return ("running", "running") if running else ("pending", "pending")
    if is_cancelled(outcome):
        return "cancelled", "cancelled"
    if type(outcome) is Failure:
        return "failed", f"raised {clean(outcome.type.__name__)}"
    where = getattr(outcome, "_whereabouts", "")
    return "ok", f"returned a value {where}" if where else f"returned {clean(type(outcome).__name__)}"


class _Found(NamedTuple):
    """A future that was reached, with its neighbours; it holds them, so that identities last."""

    future: Any
    up: list[Any]
    down: list[tuple[Any, str]]
    below: bool
    """It was reached by going down from what is drawn; of interest only for what is not."""


def _snapshot(start: cf.Future[Any], limit: int) -> Picture:
    """Walk over everything that hangs together with `start`, the nearest first."""
    start = _drawn(start)
    found = _walk(start, limit)
    shown = dict(zip(found, range(limit), strict=False))
    nodes = [_look(found[key].future, asked=found[key].future is start) for key in shown]
    edges: dict[tuple[int, int], str] = {}
    for source, target, text in _arrows(found):
        if source in shown and target in shown:
            edges.setdefault((shown[source], shown[target]), text)
    for below in (False, True):
        hidden = {key for key in found if key not in shown and found[key].below is below}
        if hidden:
            edges |= dict.fromkeys(_to_hidden(found, shown, hidden, len(nodes), below=below), "")
            more = "+" if len(found) == limit + MOST_COUNTED else ""
            nodes.append(Node(f"{len(hidden)}{more} more"))
    return Picture(nodes, [Edge(*ends, text) for ends, text in edges.items()])


def _to_hidden(
    found: dict[int, _Found], shown: dict[int, int], hidden: set[int], stand_in: int, *, below: bool
) -> Iterator[tuple[int, int]]:
    """Iterate over the arrows between what is drawn and the node that stands for the others on one side."""
    for source, target, _ in _arrows(found):
        if below and source in shown and target in hidden:
            yield shown[source], stand_in
        elif not below and source in hidden and target in shown:
            yield stand_in, shown[target]


def _walk(start: Any, limit: int) -> dict[int, _Found]:
    """Return what hangs together with `start`, by identity, the nearest first."""
    found: dict[int, _Found] = {}
    todo = deque([(start, False)])
    while todo and len(found) < limit + MOST_COUNTED:
        future, below = todo.popleft()
        if id(future) in found:
            continue
        hidden = len(found) >= limit  # what is reached from there only stands on the same side
        one = found[id(future)] = _Found(future, _waited_for(future), _dependents(future), below)
        todo.extend((child, below if hidden else True) for child, _ in one.down)
        todo.extend((parent, below if hidden else False) for parent in one.up)
    return found


def _arrows(found: dict[int, _Found]) -> Iterator[tuple[int, int, str]]:
    """Iterate over all arrows, those seen from above first: these know more, and the order of attaching."""
    for key, one in found.items():
        for child, text in one.down:
            yield key, id(child), text
    for key, one in found.items():
        for parent in one.up:
            yield id(parent), key, ""


def _arrange(picture: Picture) -> Picture:
    """Number the nodes in the order in which the text names them."""
    order = [step.node for step in reading(picture) if not step.again]
    position = {old: new for new, old in enumerate(order)}
    nodes, number = [], 0
    for old in order:
        node = picture.nodes[old]
        number += node.status != "more"
        nodes.append(node if node.status == "more" else replace(node, number=number))
    edges = [Edge(position[edge.source], position[edge.target], edge.label) for edge in picture.edges]
    return Picture(nodes, sorted(edges, key=lambda edge: edge.source))
