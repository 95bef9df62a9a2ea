"""`DaskExecutor`: an executor whose workers are those of a Dask cluster."""

from __future__ import annotations

import concurrent.futures as cf
import itertools
import weakref
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from distributed import Client

from futurechain.core.attaching import MISSING
from futurechain.dask.scheduler import DaskScheduler, Place
from futurechain.executors import exit as interpreter
from futurechain.executors.mapping import Mapping
from futurechain.future import Future

__all__ = ["DaskExecutor"]

P = ParamSpec("P")
T = TypeVar("T")
_numbers = itertools.count()
_OPTIONS = ("workers", "resources", "retries", "priority", "allow_other_workers", "fifo_timeout")


class DaskExecutor(Mapping):
    """Runs tasks and chains on a Dask cluster.

    Each next stage is sent to the cluster at once; results stay there, and go from worker to worker, until somebody
    here asks for one: ``result()``, a done callback, a stage on another executor. ``exception()``, ``wait`` and what
    handles errors ask for none. What handles errors and cleans up runs here, as with processes. The workers need
    futurechain as well, and the modules of what they run.

    A worker that dies loses nothing: what was only there is computed again. So a function may run more than once.
    """

    trip_seconds: float = 0.050
    """Seconds of work at which a trip of a pipeline aims here: each costs some milliseconds, and a long way there."""
    _maps_in_chunks = True
    _scheduler: DaskScheduler | Place

    def __init__(self, client: Client, **options: Any) -> None:
        """Run on the cluster of `client`, which stays the caller's own: it is never closed here.

        Args:
            client: a client with a thread of its own.
            options: those of `with_options`, for all that is run.

        Raises:
            TypeError: if it is no such client, or an option is unknown.
            RuntimeError: if the client is closed.
        """
        if not isinstance(client, Client):
            hint = f": DaskExecutor(Client({client!r}))" if isinstance(client, str) else ""
            raise TypeError(f"DaskExecutor() wants a client of dask.distributed, not {client!r}{hint}")
        if client.asynchronous:
            raise TypeError(
                f"DaskExecutor() wants a client with a thread of its own, not {client!r}: make it by Client(address), "
                "without asynchronous=True"
            )
        if client.status != "running":
            raise RuntimeError(f"DaskExecutor() wants a client that is connected, but {client!r} is {client.status}")
        self._scheduler = DaskScheduler(f"{type(self).__name__}-{next(_numbers)}", client, _checked(options))
        weakref.finalize(self, self._scheduler.close).atexit = False

    @property
    def client(self) -> Client:
        """The client, which is the caller's."""
        return self._scheduler.home.client

    def with_options(self, **options: Any) -> Self:
        """Return this executor with options: for ``on=`` of a stage and those after it, or to submit to.

        It is the same executor: to shut it down is to shut this one down.

        Args:
            options: as of ``Client.submit``: ``resources``, ``workers`` and ``allow_other_workers``, ``priority``,
                ``retries``, ``fifo_timeout``.

        Raises:
            TypeError: if an option is unknown.
        """
        changed = object.__new__(type(self))
        place = self._scheduler
        changed._scheduler = Place(place.home, {**place.options, **_checked(options)})
        changed.__dict__["_whole"] = self  # which ends the chains when it is collected
        return changed

    def submit(self, fn: Callable[P, T] = MISSING, /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Send ``fn(*args, **kwargs)`` to the cluster; return its future. Does not wait for the cluster.

        Raises:
            TypeError: if `fn` is missing or not callable, or if something cannot be pickled.
            RuntimeError: after the shutdown, or if the client is closed.
        """
        place = self._scheduler
        task = place.home.submit((fn, args, kwargs), copy_context(), place)
        return cast("Future[T]", place.show(task))

    def _submit_wanted(self, fn: Any, *call: Any) -> cf.Future[Any]:
        future = self.submit(fn, *call)
        future._view.want()  # type: ignore[attr-defined]
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new outside work, and let what was begun end: whole chains. The client stays open.

        Args:
            wait: block until then.
            cancel_futures: cancel what is not done: Dask does not tell what has begun, and a worker ends what it runs.
        """
        self._scheduler.home.shut_down(wait=wait, cancel_futures=cancel_futures)

    if not TYPE_CHECKING:

        @property
        def _max_workers(self) -> int:
            """How many tasks the cluster runs at once, for those who look (pipelines do)."""
            threads = self.client.nthreads()
            return max(1, sum(threads.values())) if isinstance(threads, dict) else 1

    def __repr__(self) -> str:
        home = self._scheduler.home
        state = "shut down" if home.closing else "open"
        options = "".join(f", {name}={value!r}" for name, value in self._scheduler.options.items())
        about = f"{home.name} {state}, {len(home.unsettled())} pending, of {home.client!r}{options}"
        return f"<{type(self).__name__} {about}>"


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(f"a DaskExecutor knows the options {', '.join(_OPTIONS)}, and no {name}=")
    return options


interpreter.arm()
