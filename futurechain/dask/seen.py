"""Two futures for each stage of a chain on a cluster: the one there, and the one that users see.

Theory of operation
-------------------
The future *there*, a `RemoteStage`, is settled as soon as the cluster has done the work; its value is a `Remote`, which
is a reference to the data. Chains on the cluster are chains of these, by the rules of the core, so that handlers,
cancellation and shutdown are as everywhere; no data moves for them.

The future that users see, a `ClusterFuture`, takes errors and what was computed here over at once. A `Remote` makes it
done, but not settled: for the core it is pending, until its value has come, and whoever depends on it waits for that.
So nobody here ever meets a `Remote`, whatever waits for the future, and in whatever way.

*Who asks?* Whatever comes into the list of its dependents; but for ``concurrent.futures.wait`` and ``as_completed``,
which want to know that it is done (see `futurechain.core.asked`). *Who fetches?* Who finds that the value is there and
somebody asks: both sides note their part first, and look for the other's then; ``tokens.pop()`` decides between them.

*Done, or cancelled?* ``set_running_or_notify_cancel`` decides, when the work is done: it takes the ticket that a
cancellation would need, or finds it gone.

References: what is pending there holds what users see, and is held by it. Once it is settled, only the latter is left:
so the data on the cluster lives as long as what the user holds, or what there still needs it.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from futurechain.core.asked import is_asked, new_asked
from futurechain.core.cancel import release_all
from futurechain.core.handlers import Named, label
from futurechain.core.scheduler import Scheduler, later, scheduler_of
from futurechain.core.state import KEYED, REPEATABLE, Pending, attach, claim, is_consumed, publish
from futurechain.core.thread_state import ThreadState, current
from futurechain.core.unobserved import OBSERVED
from futurechain.dask.stages import Remote, home_of
from futurechain.errors import InvalidStateError
from futurechain.future import Future, LocalStage

if TYPE_CHECKING:
    from futurechain.dask.scheduler import DaskScheduler

__all__ = ["ClusterFuture", "Entry", "seen"]

T = TypeVar("T")
LEAST = 10.0
"""Seconds that a value may be on its way at least, however short the timeout of who asks: the work is done."""


class _View:
    """What a `ClusterFuture` waits for: the stage there. And an entry in the list of that one."""

    __slots__ = ("__weakref__", "home", "key", "remote", "shown", "there", "tokens", "wanted")

    def __init__(self, home: DaskScheduler, there: Any) -> None:
        self.home: DaskScheduler = home
        self.there: Any = there
        self.remote: Remote | None = None
        """The value, once it is there."""
        self.shown: weakref.ref[Any]
        self.tokens: list[None] = [None]
        """Who pops this fetches the value."""
        self.wanted: bool = False

    def asked(self) -> None:
        """Fetch the value, if there is one, and nobody does so already."""
        future = None if self.remote is None else self.shown()
        if future is None:
            return
        try:
            self.tokens.pop()
        except IndexError:
            return
        self.home.fetch(future, cast("Remote", self.remote))

    def want(self) -> None:
        """Fetch the value as soon as there is one."""
        self.wanted = True  # first; then a look whether it is there
        self.asked()

    def finish(self, remote: Remote) -> None:
        """Let the future be done: its value is there."""
        future = self.shown()
        with suppress(InvalidStateError):  # a cancellation has claimed it, or this comes twice
            if future is None or not future.set_running_or_notify_cancel():
                return
            self._be_done(future, remote)

    def _be_done(self, future: Any, remote: Remote) -> None:
        self.remote = remote  # first; then a look at who came in before
        condition = future.__dict__.get("_waited")
        if condition is not None:
            condition._fire(future, remote, current.thread)
        if self.wanted or is_asked(future):
            self.asked()

    # -- as a source ----------------------------------------------------------------------------------------------

    def sources(self) -> list[Any]:
        """Return the stage there."""
        return [self.there]

    def runs_abroad(self) -> bool:
        """Say no: it is not known."""
        return False

    def stop(self) -> bool:
        """Tell whether the stage there can be cancelled, since nobody else consumes it."""
        return not self.there.done() and not is_consumed(self.there)

    def cancel_for(self, child: Any) -> Iterable[Any]:
        """Let the stage there go."""
        return release_all((self.there,), child)


class Entry:
    """In the list of the stage there: tells the future that users see."""

    __slots__ = ("key", "target", "view")

    def __init__(self, view: _View, target: Any) -> None:
        self.view: _View = view
        self.target: Any = target
        self.key: int = ~id(target)

    def _is_waiting(self) -> bool:
        """Tell whether somebody waits for the future that users see; that itself needs nothing."""
        return not self.target.done() and is_consumed(self.target)

    def _fire(self, future: Any, outcome: Any, thread: ThreadState) -> Any:
        """Take the outcome over; the future that users see, if it is settled now."""
        target = self.target
        if type(outcome) is Remote:
            self.view.finish(outcome)
        elif claim(target):
            if "_unwanted" in future.__dict__:  # how it ends is of no interest any more
                target.__dict__["_unwanted"] = True
            publish(target, outcome)
            return target
        return None


KEYED.add(Entry)
REPEATABLE.add(Entry)


class ClusterFuture(LocalStage[T]):
    """The future of a task or stage on a cluster: done when the work is, settled when its value is wanted here."""

    __slots__ = ()
    _view: _View

    @property
    def _stands_for(self) -> Any:
        """The stage there, for pictures."""
        return self._view.there

    @property
    def _record(self) -> Any:
        """What a trace knows of the stage there."""
        return self._view.there._record

    # -- asking -------------------------------------------------------------------------------------------------------

    @property
    def is_elsewhere(self) -> bool:
        """Whether it has a value, and that is on the cluster and not here."""
        return self._view.remote is not None and type(self._outcome) is Pending

    def done(self) -> bool:
        """Return True if the work is done, or cancelled; its value may still be on the cluster."""
        return self._view.remote is not None or super().done()

    def running(self) -> bool:
        """Return False: the cluster does not tell."""
        return False

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, or None; no value is fetched for that.

        Args:
            timeout: how many seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: if the work is not done in time.
            CancelledError: if it was cancelled.
        """
        self._handed_on()
        if type(self._outcome) is Pending and not self.done():
            return cast("BaseException | None", self._view.there.exception(timeout))
        return None if self.is_elsewhere else super().exception(timeout)

    def _wait(self, timeout: float | None) -> Any:
        try:
            return super()._wait(timeout)
        except TimeoutError:
            if not self.is_elsewhere:
                raise
        return super()._wait(LEAST)  # it is done, and cannot be late any more; only its value is on its way

    def __await__(self) -> Generator[Any, Any, T]:
        try:
            self._observed()
            if type(self._outcome) is Pending:
                yield from later("suspend")(self)
            return self.result()
        finally:
            del self  # no cycle: exception, traceback, this frame, exception

    def cancel(self) -> bool:
        """Cancel it: the cluster forgets it, but for what a worker is running, which ends by itself.

        Returns:
            True if it is cancelled now; False if it is done.
        """
        if not self.done():
            self._view.there.cancel()
        return self.cancelled()

    # -- going on -----------------------------------------------------------------------------------------------------

    def _handed_on(self) -> Any:
        """Return the stage there, for somebody to go on with: how it ends is no more to be reported for this one."""
        self.__dict__.setdefault("_unobserved", OBSERVED).observe()
        return self._view.there

    def _stays(self, on: Any) -> bool:
        """Tell whether what goes on with `on` goes on there."""
        home = home_of(self._scheduler if on is None else scheduler_of(on))
        return home is not None and home.client is self._view.home.client

    if not TYPE_CHECKING:  # for a type checker they stay those of the base class

        def then(self, on_result: Any = None, on_error: Any = None, *, on: Any = None) -> Any:
            one = self._handed_on() if self._stays(on) else super()
            return one.then(on_result, on_error, on=on)

        def catch(self, *args: Any, on: Any = None) -> Any:
            one = self._handed_on() if self._stays(on) else super()
            return one.catch(*args, on=on)

        def finally_(self, fn: Any, *, on: Any = None) -> Any:
            one = self._handed_on() if self._stays(on) else super()
            return one.finally_(fn, on=on)

        def shield(self) -> Any:
            return seen(self._handed_on().shield(), self._scheduler)

        def timeout(self, seconds: Any, exception: Any = None) -> Any:
            return seen(self._handed_on().timeout(seconds, exception), self._scheduler)

    @staticmethod
    def _gathered(futures: tuple[Any, ...], *, return_exceptions: bool) -> Any:
        """Return the future of one task on the cluster that has all their values; or None, if there cannot be one."""
        homes = [one._view.home for one in futures if type(one) is ClusterFuture]
        if len(homes) < len(futures) or any(home.client is not homes[0].client for home in homes):
            return None
        stages = [one._view.there for one in futures]
        home = next((home for home in homes if home.takes(stages)), None)
        if home is None:  # all of them are shut down, and the values may come here for that
            return None
        for one in futures:
            one._handed_on()
        return home.gather(stages, return_exceptions=return_exceptions)


ClusterFuture.__name__ = ClusterFuture.__qualname__ = "Future"  # what users see in messages


def seen(there: Any, scheduler: Scheduler) -> Future[Any]:
    """Return the future that users see for the stage `there`; promise-family stages after it run on `scheduler`."""
    view = _View(cast("Any", home_of(there._scheduler)), there)
    future = new_asked(ClusterFuture, Named(_name(there)), scheduler, view, view.asked)
    future.__dict__["_view"] = view
    view.shown = there.__dict__["_shown"] = weakref.ref(future)
    if (trail := there.__dict__.get("_trail")) is not None:  # debug mode
        future.__dict__["_trail"] = trail
    entry = Entry(view, future)
    if not attach(there, entry, guarded=False):
        there._observed()
        entry._fire(there, there._outcome, current.thread)
    return future


def _name(stage: Any) -> str:
    call = stage._call if stage._on_executor else None
    return label(stage._handler or (call[0] if isinstance(call, tuple) else call))
