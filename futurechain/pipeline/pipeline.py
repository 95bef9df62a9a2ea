"""`Pipeline`: an immutable recipe of steps, for one item or for a stream of them."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, Unpack, cast, overload

from futurechain.core.handlers import check_handler
from futurechain.core.scheduler import later
from futurechain.executors.inline import INLINE
from futurechain.executors.mapping import check_count
from futurechain.flow.timing import Policy
from futurechain.future import Future, Returned, Waited
from futurechain.pipeline import places
from futurechain.pipeline.flow import Flow
from futurechain.pipeline.progress import Bar, check_progress
from futurechain.pipeline.single import submit_one
from futurechain.pipeline.steps import (
    Step,
    catch_arguments,
    check_callable,
    check_function,
    check_step,
    describe,
    fused,
)
from futurechain.pipeline.stream import Stream
from futurechain.viewing.graph import Picture
from futurechain.viewing.recipe import picture_of

__all__ = ["Pipeline"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
X = TypeVar("X")
E = TypeVar("E", bound=BaseException)
Batch: TypeAlias = int | Literal["auto"]
Types: TypeAlias = type[E] | tuple[type[E], ...]


class Bounds(TypedDict, total=False):
    """What `Pipeline.then` takes besides its functions."""

    on: cf.Executor | None
    name: str | None
    concurrency: int | None
    timeout: float | None
    retry: Policy | None
    batch: Batch


class _Anything:
    """The type of what goes into a pipeline without steps, and comes out of it: whatever the first step takes."""


_New: TypeAlias = "Pipeline[_Anything, _Anything]"


def _length_of(items: Any) -> int | None:
    """Return how many items there are, if that can be told: a range may have too many, or a data set refuse."""
    try:
        return len(items)
    except Exception:
        return None


class Pipeline(Generic[A, B]):
    """A recipe of steps; each method returns a new one, with one step more.

    A step without ``on=`` goes where the one before it went, before the first ``on=`` to `INLINE`. A pipeline can be
    used by several threads, and several times.

    Threads: value steps run on their executor. What handles errors or cleans up runs in this process, on a
    callback thread if the executor is elsewhere.
    Trips: adjacent steps on one executor that does not share our memory are one trip there, and small items share
    trips. A handler between such steps runs here; only an item that failed makes a second trip. A step with ``retry=``
    makes a trip of its own.

    Example:
        >>> list(Pipeline().then(str.split, on=threads).then(len, on=processes).map(["O Rose", "thou art sick"]))
        [2, 3]
    """

    __slots__ = ("_steps",)

    def __init__(self: _New) -> None:
        self._steps: tuple[Step, ...] = ()

    # -- steps --------------------------------------------------------------------------------------------------------

    @overload
    def then(
        self: _New, fn: Callable[[X], Waited[C]], on_error: None = None, **bounds: Unpack[Bounds]
    ) -> Pipeline[X, C]: ...
    @overload
    def then(
        self: _New, fn: Callable[[X], Returned[C]], on_error: None = None, **bounds: Unpack[Bounds]
    ) -> Pipeline[X, C]: ...
    @overload
    def then(
        self: _New, fn: Callable[[X], Waited[C]], on_error: Callable[[Any], Waited[D]], **bounds: Unpack[Bounds]
    ) -> Pipeline[X, C | D]: ...
    @overload
    def then(
        self: _New, fn: Callable[[X], Waited[C]], on_error: Callable[[Any], Returned[D]], **bounds: Unpack[Bounds]
    ) -> Pipeline[X, C | D]: ...
    @overload
    def then(
        self: _New, fn: Callable[[X], Returned[C]], on_error: Callable[[Any], Waited[D]], **bounds: Unpack[Bounds]
    ) -> Pipeline[X, C | D]: ...
    @overload
    def then(
        self: _New, fn: Callable[[X], Returned[C]], on_error: Callable[[Any], Returned[D]], **bounds: Unpack[Bounds]
    ) -> Pipeline[X, C | D]: ...
    @overload
    def then(
        self, fn: Callable[[B], Waited[C]], on_error: None = None, **bounds: Unpack[Bounds]
    ) -> Pipeline[A, C]: ...
    @overload
    def then(
        self, fn: Callable[[B], Returned[C]], on_error: None = None, **bounds: Unpack[Bounds]
    ) -> Pipeline[A, C]: ...
    @overload
    def then(
        self, fn: Callable[[B], Waited[C]], on_error: Callable[[Any], Waited[D]], **bounds: Unpack[Bounds]
    ) -> Pipeline[A, C | D]: ...
    @overload
    def then(
        self, fn: Callable[[B], Waited[C]], on_error: Callable[[Any], Returned[D]], **bounds: Unpack[Bounds]
    ) -> Pipeline[A, C | D]: ...
    @overload
    def then(
        self, fn: Callable[[B], Returned[C]], on_error: Callable[[Any], Waited[D]], **bounds: Unpack[Bounds]
    ) -> Pipeline[A, C | D]: ...
    @overload
    def then(
        self, fn: Callable[[B], Returned[C]], on_error: Callable[[Any], Returned[D]], **bounds: Unpack[Bounds]
    ) -> Pipeline[A, C | D]: ...
    @overload
    def then(self, fn: None, on_error: None = None, **bounds: Unpack[Bounds]) -> Pipeline[A, B]: ...
    @overload
    def then(
        self, fn: None, on_error: Callable[[Any], Waited[D]], **bounds: Unpack[Bounds]
    ) -> Pipeline[A, B | D]: ...
    @overload
    def then(
        self, fn: None, on_error: Callable[[Any], Returned[D]], **bounds: Unpack[Bounds]
    ) -> Pipeline[A, B | D]: ...
    def then(
        self,
        fn: Any,
        on_error: Any = None,
        *,
        on: cf.Executor | None = None,
        name: str | None = None,
        concurrency: int | None = None,
        timeout: float | None = None,
        retry: Any = None,
        batch: Batch = "auto",
    ) -> Pipeline[Any, Any]:
        """Return this pipeline with a step more: ``fn(value)`` for values, ``on_error(error)`` for errors.

        Args:
            fn: called with the value before. A future or coroutine that it returns is waited for.
            on_error: called with the error before; never with one of `fn`.
            on: the executor of this step and those after it.
            name: what statistics, notes and pictures call the step; by default the function's name.
            concurrency: how many items of a stream may run in this step at once.
            timeout: seconds that one run of `fn` may take, from its beginning; it fails with TimeoutError then.
            retry: a policy of tenacity's, which decides whether a run that failed is followed by another.
            batch: how many items share a trip to an executor that does not share our memory; "auto" learns how many
                take 10 ms. The first of fused steps decides.

        Raises:
            TypeError: if a function is neither callable nor None, `on` no executor, a bound no number, or `fn` an
                ``async def`` function on an executor that does not share our memory.
            ValueError: if a number is below 1, or `timeout` is negative or not finite.
            RuntimeError: if `on` is shut down.
            ImportError: if `retry` is given and tenacity is missing.

        Example:
            >>> list(Pipeline().then(int, on=pool, concurrency=2).then(hex).map(["10", "11"]))
            ['0xa', '0xb']
        """
        executor = self._executor(on)
        check_callable(fn, "then", executor)
        check_handler(on_error, "then")
        given = check_step("then()", name=name, concurrency=concurrency, timeout=timeout, retry=retry, batch=batch)
        given["name"] = describe("then", fn, on_error) if name is None else name
        return self._with(Step("then", executor, fn, on_error, **given))

    @overload
    def catch(
        self, handler: Callable[[Any], Waited[D]], /, *, on: cf.Executor | None = None, name: str | None = None
    ) -> Pipeline[A, B | D]: ...
    @overload
    def catch(
        self, handler: Callable[[Any], Returned[D]], /, *, on: cf.Executor | None = None, name: str | None = None
    ) -> Pipeline[A, B | D]: ...
    @overload
    def catch(
        self,
        types: Types[E],
        handler: Callable[[E], Waited[D]],
        /,
        *,
        on: cf.Executor | None = None,
        name: str | None = None,
    ) -> Pipeline[A, B | D]: ...
    @overload
    def catch(
        self,
        types: Types[E],
        handler: Callable[[E], Returned[D]],
        /,
        *,
        on: cf.Executor | None = None,
        name: str | None = None,
    ) -> Pipeline[A, B | D]: ...
    def catch(self, *args: Any, on: cf.Executor | None = None, name: str | None = None) -> Pipeline[Any, Any]:
        """Return this pipeline with a step for errors: ``catch(handler)`` or ``catch(types, handler)``.

        Args:
            types: an exception class or a tuple of them; other errors pass by.
            handler: called with the error; what it returns is the value from there on.
            on: the executor of this step and those after it.
            name: what statistics, notes and pictures call the step.

        Raises:
            TypeError: if the arguments are not of that form.
            RuntimeError: if `on` is shut down.

        Example:
            >>> list(Pipeline().then(int, on=pool).catch(ValueError, lambda error: 0).map("12x"))
            [1, 2, 0]
        """
        types, handler = catch_arguments(args)
        check_step("catch()", name=name, concurrency=None, timeout=None, retry=None, batch="auto")
        title = describe("catch", handler, types=types) if name is None else name
        return self._with(Step("catch", self._executor(on), None, handler, types, title))

    def finally_(
        self, fn: Callable[[], object], *, on: cf.Executor | None = None, name: str | None = None
    ) -> Pipeline[A, B]:
        """Return this pipeline with a step that calls ``fn()`` however an item has fared, and keeps its outcome.

        Args:
            fn: called without arguments; if it fails, its error replaces the outcome.
            on: the executor of this step and those after it.
            name: what statistics, notes and pictures call the step.

        Raises:
            TypeError: if `fn` is not callable.
            RuntimeError: if `on` is shut down.

        Example:
            >>> list(Pipeline().then(int).finally_(lambda: print("looked at it")).map("5"))
            looked at it
            [5]
        """
        check_function(fn, "finally_")
        check_step("finally_()", name=name, concurrency=None, timeout=None, retry=None, batch="auto")
        title = describe("finally_", fn) if name is None else name
        return self._with(Step("finally_", self._executor(on), fn, fn, BaseException, title))

    # -- running it ---------------------------------------------------------------------------------------------------

    def submit(self, item: A) -> Future[B]:
        """Send one item through all steps; return its future.

        ``window`` and ``concurrency`` are a stream's; a `limit` view bounds what is submitted.

        Raises:
            ValueError: if the pipeline has no steps.
            RuntimeError: if an executor is shut down.

        Example:
            >>> Pipeline().then(int, on=pool).then(hex).submit("42").result()
            '0x2a'
        """
        self._check_ready("submit()")
        return cast("Future[B]", submit_one(self._steps, item))

    def map(
        self,
        items: Iterable[A] | AsyncIterable[A],
        *,
        window: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: bool | Callable[..., Bar] | None = None,
        total: int | None = None,
    ) -> Stream[B]:
        """Return the stream of the results for `items`; nothing is started before its first ``next``.

        Args:
            items: read lazily in the consumer's thread; an async iterable is for ``async for`` only.
            window: how many items may be anywhere between "read" and "handed to the consumer". By default enough to
                keep every worker busy: four for each worker of an executor that shares our memory, and four trips,
                as long as they are by then, for each worker of another; at least 16, and twice each ``concurrency``.
            ordered: whether results come in the order of `items`, or as they are ready.
            return_exceptions: whether failures are handed out as results; otherwise the first one is raised.
            progress: ``tqdm.tqdm``, or what can be called so: ``progress(total=...)``, with ``update``, ``set_postfix``
                and ``close``. Shown only if stderr is a terminal. True takes tqdm's own choice.
            total: how many items there are, if `items` has no length.

        Raises:
            ValueError: if the pipeline has no steps, or a number is below 1.
            TypeError: if something is of a wrong type.
            RuntimeError: if an executor is shut down.
            ImportError: if `progress` is True and tqdm is missing.

        Example:
            >>> with Pipeline().then(int, on=pool).map("123", window=2) as results:
            ...     print(sum(results))
            6
        """
        self._check_ready("map()")
        if not isinstance(items, (Iterable, AsyncIterable)) and not hasattr(items, "__getitem__"):
            raise TypeError(f"map() wants an iterable or an async iterable, not {items!r}")
        for name, flag in (("ordered", ordered), ("return_exceptions", return_exceptions)):
            if not isinstance(flag, bool):
                raise TypeError(f"map() wants True or False for {name}=, not {flag!r}")
        make = check_progress(progress)
        check_count(total, "total", "map()", least=0)
        known = _length_of(items) if total is None else total
        flow = Flow(
            self._steps,
            window=check_count(window, "window", "map()"),
            ordered=ordered,
            return_exceptions=return_exceptions,
        )
        return Stream(flow, items, make, known)

    # -- others -------------------------------------------------------------------------------------------------------

    def _executor(self, on: cf.Executor | None) -> cf.Executor:
        if on is not None:
            return places.executor_of(on)
        return self._steps[-1].executor if self._steps else INLINE

    def _with(self, step: Step) -> Pipeline[Any, Any]:
        longer: Any = object.__new__(Pipeline)
        longer._steps = (*self._steps, step)
        return cast("Pipeline[Any, Any]", longer)

    def _check_ready(self, where: str) -> None:
        if not self._steps:
            raise ValueError(f"{where} on a pipeline without steps: add one, as in Pipeline().then(fn)")
        for step in self._steps:
            places.check_open(step.executor)

    def __repr__(self) -> str:
        return f"<Pipeline {' | '.join(step.name for step in self._steps) or 'without steps'}>"

    def _picture(self) -> Picture:
        """Return what `render` draws."""
        trips: list[int | None] = []
        for number, step in enumerate(self._steps):
            if len(trips) <= number:
                alone = step.shared or not step.travels(None) or step.on_result is None
                trips += [None] if alone else [number] * len(fused(self._steps, number))
        return picture_of(self._steps, [places.name_of(step.executor) for step in self._steps], trips)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the pictures of the recipe that a notebook shows."""
        return cast("dict[str, str]", later("mimebundle")(self))
