"""The run of an ``async def`` step: it is over when its coroutine has ended.

The future of a coroutine that is cancelled is settled at once; the coroutine may just be in a thread, and what it does
to clean up comes after that. Until then it holds its slot, and whoever closes the stream waits for it.
"""

from __future__ import annotations

import concurrent.futures as cf
import inspect
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from threading import get_ident
from typing import Any

from futurechain.flow.coroutines import ensure_future
from futurechain.future import Future

__all__ = ["Body"]

ENDED = frozenset((inspect.CORO_CREATED, inspect.CORO_CLOSED))
"""States of a coroutine that was cancelled: it never begins, or is closed, perhaps before it has begun."""


class Body:
    """A coroutine that is run, and the future of its result.

    Args:
        coroutine: not begun.
        on: where its steps run.
        inside: the threads that are in a step of the stream; such a one does not wait for itself.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], on: cf.Executor, inside: list[int]) -> None:
        self._coroutine = coroutine
        self._inside = inside
        self._left = [True, False]
        """One for the coroutine, one for who waits for its future: who pops the last one, True, calls `_over`."""
        self._over: Callable[[], object] | None = None
        self._steps = self._run()
        try:
            self.future: Future[Any] = ensure_future(self._steps, on=on)
        except BaseException:
            coroutine.close()
            raise

    async def _run(self) -> Any:
        try:
            return await self
        finally:
            self._ends()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Run the coroutine, and note in which thread."""
        resume: Callable[[Any], Any] = self._coroutine.send
        given: Any = None
        while True:
            try:
                awaited = self._step(resume, given)
            except StopIteration as ended:
                return ended.value
            try:
                given = yield awaited
                resume = self._coroutine.send
            except BaseException as error:
                resume, given = self._coroutine.throw, error

    def _step(self, resume: Callable[[Any], Any], given: Any) -> Any:
        me = get_ident()
        try:
            self._inside.append(me)
            return resume(given)
        finally:
            self._inside.remove(me)

    def when_over(self, over: Callable[[], object]) -> None:
        """Have `over` called once, when the future is done, which is so now, and the coroutine has ended."""
        self._over = over
        self._ends()
        if inspect.getcoroutinestate(self._steps) in ENDED:
            with suppress(ValueError):  # it is just being begun, after all
                self._coroutine.close()
                self._ends()

    def _ends(self) -> None:
        try:
            is_last = self._left.pop()  # decides
        except IndexError:
            return
        if is_last and self._over is not None:
            self._over()
