"""What the consumer of a pipeline holds: an iterator that reads its input, and hands out results."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from threading import get_ident
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar, cast

from futurechain.failure import Failure
from futurechain.flow.event_loops import shielded
from futurechain.pipeline import places
from futurechain.pipeline.flow import Flow
from futurechain.pipeline.progress import Progress
from futurechain.pipeline.statistics import StepStatistics

__all__ = ["Stream"]

B = TypeVar("B")
OUT, WAIT, END = 0, -1, -2
"""What `Stream._next_job` says besides how many items to read."""
REFRESH = 0.2
"""Seconds after which a progress bar is looked after while the consumer waits."""


class Stream(Generic[B]):
    """The results of a pipeline's steps for a series of items; made by ``Pipeline.map``.

    An iterator, an async iterator and a context manager. Nothing is started before the first ``next``. The input is
    read in the consumer's thread only, inside of ``next`` (an async input in its task): when that has to wait anyhow,
    or when less than half the window is under way; otherwise a result that is ready goes first.

    Errors: the first failure is raised at its place, after what nobody can want any more was cancelled and waited for.
    An error of the input comes after the results of what was read before it. Either ends the stream.
    Cancellation: `close`, the end of the ``with`` block and Ctrl-C cancel what has not begun, and wait for
    what runs; a stream that is dropped cancels, and does not wait. A future that a step has returned is cancelled, and
    nobody waits for what runs for it all the same.
    Memory: at most a window of items, from when they are read until they are handed out.

    Example:
        >>> for number in Pipeline().then(int, on=pool).map(["1", "2"]):
        ...     print(number)
        1
        2
    """

    def __init__(self, flow: Flow, items: Iterable[Any] | AsyncIterable[Any], progress: Any, total: int | None) -> None:
        self._flow = flow
        self._items: Any = items
        self._input: Any = None
        """The iterator over `items`; None before the first ``next``, and when it has come to its end."""
        self._inputs_error: BaseException | None = None
        self._state = "new"
        self._ready: deque[Any] = deque()
        """What can be handed out before there is anything else to do."""
        self._readers: dict[str, object] = {}
        """Whoever is in ``next`` beyond that; `setdefault` decides who it is."""
        self._held = 0
        """How many items were read and not handed out, without those in `_ready`."""
        self._low = 0
        """While the input is read: how many items may be held before one that is ready goes first."""
        self._progress = Progress(progress, total)
        self._finalizer = weakref.finalize(self, places.rescue, flow.close)
        self._finalizer.atexit = False

    # -- the iterator -------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[B]:
        """Return the stream itself.

        Raises:
            TypeError: if the input is async.
            RuntimeError: if the stream was consumed, or is closed.
        """
        self._check_sync()
        self._check_state("for")
        return self

    def __next__(self) -> B:
        """Return the next result.

        Raises:
            StopIteration: after the last one.
            TypeError: if the input is async.
            RuntimeError: if the stream is closed, or another thread is in ``next``.
        """
        try:
            return cast("B", self._ready.popleft())  # at once: another thread may do so, too
        except IndexError:
            pass
        self._enter("next()", get_ident())
        try:
            self._begin()
            return self._work()  # a loop in here would not be sure to meet the `except`: see `flow`
        except BaseException:
            self._end()
            raise
        finally:
            self._readers.clear()

    def _work(self) -> B:
        """Read and wait until something can be handed out."""
        while True:
            job = self._next_job()
            if job == OUT and self._ready:
                with suppress(IndexError):  # it was closed meanwhile
                    return cast("B", self._ready.popleft())
            elif job > 0:
                self._read(job)
            elif job == WAIT:
                self._wait()
            elif job == END:
                self._raise_end("next()", StopIteration)

    def _begin(self) -> None:
        if self._state == "open":
            return
        if self._state == "new":
            self._check_sync()
            self._open(iter(self._items))
        elif self._state == "closed":
            self._check_state("next()")
        else:
            raise StopIteration

    def _read(self, count: int) -> None:
        """Read so many items, and let each in before the next one is read; fewer, if something is ready meanwhile."""
        source, flow = self._input, self._flow
        push, is_ready, low = flow.push, flow.is_ready, self._low
        try:
            for _ in range(count):
                value = next(source)
                self._held += 1
                push(value)
                if flow.closed or (self._held > low and is_ready()):
                    break
            return
        except StopIteration:
            ended = None
        except Exception as error:
            ended = error
        try:
            self._end_input(ended)  # here, where no error is being handled: it may run steps, and fork workers
        finally:
            ended = None  # no cycle: its traceback may hold this frame

    def _wait(self) -> None:
        """Block until something is ready."""
        waiter = self._flow.waiter()
        while waiter is not None and not waiter.done():
            with suppress(TimeoutError):
                places.wait(waiter, self._flow.running, REFRESH if self._progress.visible else None)
            self._show()

    # -- the async iterator -------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[B]:
        """Return the stream itself.

        Raises:
            RuntimeError: if it was consumed, or is closed.
        """
        self._check_state("async for")
        return self

    async def __anext__(self) -> B:
        """Return the next result; the input may be async or not.

        Raises:
            StopAsyncIteration: after the last one.
            RuntimeError: if the stream is closed, or another task is in ``anext``.
        """
        try:
            return cast("B", self._ready.popleft())
        except IndexError:
            pass
        self._enter("anext()", object())
        try:
            self._begin_async()
            return await self._work_async()
        except BaseException:
            await self._end_async()
            raise
        finally:
            self._readers.clear()

    async def _work_async(self) -> B:
        while True:
            job = self._next_job()
            if job == OUT and self._ready:
                with suppress(IndexError):
                    return cast("B", self._ready.popleft())
            elif job > 0:
                await self._read_async(job)
            elif job == END:
                self._raise_end("anext()", StopAsyncIteration)
            elif job == WAIT and (waiter := self._flow.waiter()) is not None:
                await waiter
            self._show()

    def _begin_async(self) -> None:
        if self._state == "open":
            return
        if self._state == "new":
            items = self._items
            self._open(aiter(items) if isinstance(items, AsyncIterable) else iter(items))
        elif self._state == "closed":
            self._check_state("anext()")
        else:
            raise StopAsyncIteration

    async def _read_async(self, count: int) -> None:
        if not isinstance(self._input, AsyncIterator):
            self._read(count)
            return
        try:
            for _ in range(count):
                value = await anext(self._input)
                self._held += 1
                self._flow.push(value)
                if self._flow.closed or (self._held > self._low and self._flow.is_ready()):
                    break
            return
        except StopAsyncIteration:
            ended = None
        except Exception as error:
            ended = error
        try:
            self._end_input(ended)
        finally:
            ended = None  # as above

    # -- what both have in common -------------------------------------------------------------------------------------

    def _enter(self, what: str, reader: object) -> None:
        """Let one in at a time; a thread may come again, if Ctrl-C has kept it from leaving."""
        if self._readers.setdefault("in", reader) != reader:
            raise RuntimeError(f"{what} on {self!r} while another consumer is in it: a stream has one at a time")

    def _open(self, iterator: Any) -> None:
        for step in self._flow.steps:
            places.check_open(step.executor)
        self._check_state("next()")  # the input may have closed it when it was asked for an iterator
        self._input, self._state = iterator, "open"
        self._progress.begin()

    def _next_job(self) -> int:
        """Return what to do next: read so many items, or `OUT` (there is something to hand out), `WAIT` or `END`."""
        flow, held = self._flow, self._held
        limit = flow.window or flow.limit()
        reading = self._input is not None and not flow.closed
        half = (limit + 1) // 2
        low = half - limit // 16  # in a large window some at a time, which is cheaper
        if reading and (held < low or not held):
            self._low = half
            return half - held
        # as many as can go before the window has to be looked at again
        taken = flow.take(held - low + 1 if reading else held)
        if taken:
            self._hand_out(taken)
            return OUT
        self._show()
        if reading and held < limit:
            self._low = 0
            return limit - held
        return WAIT if held and not self._is_over() else END

    def _is_over(self) -> bool:
        with self._flow.lock:
            return not self._flow.live and not self._flow.is_ready()

    def _hand_out(self, taken: list[Any]) -> None:
        self._held -= len(taken)
        if self._flow.return_exceptions:
            self._ready.extend(one.value if type(one) is Failure else one for one in taken)
        elif type(taken[0]) is Failure:
            raise taken[0].value
        else:
            self._ready.extend(taken)
        self._show()

    def _end_input(self, error: Exception | None = None) -> None:
        self._input, self._inputs_error = None, error
        self._flow.end_of_input()

    def _raise_end(self, what: str, end: type[Exception]) -> NoReturn:
        self._check_state(what)  # closed meanwhile: this is not all
        error, self._inputs_error = self._inputs_error, None
        if error is None:
            raise end
        if issubclass(type(error), end):  # it would pass for the end of the stream
            raise RuntimeError(f"the input raised {end.__name__}") from error  # noqa: TRY004  # of its meaning here
        raise error

    def _show(self) -> None:
        if self._progress.visible:
            self._progress.show(self._flow.finished, self._flow.failed)

    # -- ending -------------------------------------------------------------------------------------------------------

    def statistics(self) -> tuple[StepStatistics, ...]:
        """Return a record for each step, in their order: what has happened in it so far.

        Example:
            >>> stream = Pipeline().then(int, on=pool).map("123")
            >>> sum(stream), stream.statistics()[0].succeeded
            (6, 3)
        """
        return self._flow.statistics()

    def close(self) -> None:
        """End the stream: cancel what has not begun, wait for what is running. Closing twice does no harm.

        Any thread may do so: a consumer that waits in ``next`` gets a RuntimeError; one that is in its input gets it
        after that, and is not waited for. A step of the stream itself does not wait.

        Example:
            >>> stream = Pipeline().then(int, on=pool).map(itertools.repeat("5"))
            >>> next(stream), stream.close()
            (5, None)
        """
        try:
            self._stop("closed")
        finally:
            self._settle_down()

    def _settle_down(self) -> None:
        """Wait until nothing runs any more; a step of this stream would wait for itself, and does not."""
        flow = self._flow
        while get_ident() not in flow.inside and (idle := flow.idle()) is not None:
            places.wait(idle, flow.running)

    async def aclose(self) -> None:
        """Do the same, and leave the event loop to others meanwhile.

        Example:
            >>> asyncio.run(Pipeline().then(int, on=pool).map("123").aclose())
        """
        try:
            self._stop("closed")
        finally:
            await self._settle_down_async()

    async def _settle_down_async(self) -> None:
        with shielded():
            while get_ident() not in self._flow.inside and (idle := self._flow.idle()) is not None:
                await idle

    def _stop(self, state: str) -> None:
        if self._state not in ("closed", "consumed"):
            self._state = state
        self._ready.clear()
        self._flow.close()
        self._finalizer.detach()
        self._input, self._items = None, ()
        try:
            self._show()
        finally:
            self._progress.close()

    def _end(self) -> None:
        if self._state == "open":
            self._state = "consumed"
        if self._state != "new":
            self.close()

    async def _end_async(self) -> None:
        if self._state == "open":
            self._state = "consumed"
        if self._state != "new":
            await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- mistakes -----------------------------------------------------------------------------------------------------

    def _check_sync(self) -> None:
        if isinstance(self._items, AsyncIterable) and not isinstance(self._items, Iterable):
            raise TypeError(f"the input {self._items!r} is async: read this stream with `async for`, not with `for`")

    def _check_state(self, what: str) -> None:
        if self._state in ("closed", "consumed"):
            raise RuntimeError(f"{what} on {self!r}: a stream is good for one pass; call pipeline.map() for another")

    def __repr__(self) -> str:
        names = " | ".join(step.name for step in self._flow.steps)
        return f"<Stream {names}, {self._state}, {self._flow.finished} finished>"
