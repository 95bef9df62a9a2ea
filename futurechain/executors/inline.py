"""`INLINE`: the executor that runs everything at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from futurechain.core.attaching import MISSING, new_task
from futurechain.core.loop import HERE, execute
from futurechain.executors.mapping import Mapping
from futurechain.future import Future, LocalStage

__all__ = ["INLINE", "InlineExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class InlineExecutor(Mapping):
    """Run everything at once, in the thread that submits it or that settles the stage before.

    Example:
        >>> INLINE.submit(pow, 2, 5)
        <Future finished returned int on INLINE>
    """

    _scheduler = HERE

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` now; return its future, settled unless it returned a pending one.

        Raises:
            TypeError: if `fn` is missing or not callable.

        Example:
            >>> INLINE.submit(pow, 2, 5).result()
            32
        """
        task: Any = new_task(LocalStage, fn, HERE)
        try:
            execute(task, (fn, args, kwargs))
            return cast("Future[T]", task)
        finally:
            del task

    def __repr__(self) -> str:
        return "INLINE"

    def __reduce__(self) -> str:
        return "INLINE"


INLINE = InlineExecutor()
"""The executor that runs at once, in the thread that submits or that settles the stage before."""
