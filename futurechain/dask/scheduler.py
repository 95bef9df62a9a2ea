"""Starts the stages of chains on a Dask cluster.

Theory of operation
-------------------
A stage for values is sent to the cluster at once, with Dask's future of the stage before as its argument, whether that
is done or not: the scheduler there knows what depends on what, and no message has to come here in between. A stage is
sent when its turn comes (`start`), or early: when it is attached to one that was sent, or when the one that it is
attached to is sent; ``take_turn`` decides between the three. Errors come by themselves with Dask's messages. What
inherits one on the cluster is left alone here: the stage that raised it is told, too, and carries it on, as anywhere.

Nothing here blocks, and no user code runs on the thread of Dask's event loop: `Way` waits there for what comes, and
publishes it; the rest is for callback threads. If the loop ends before, a `Way` notices that it is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pickle import PicklingError
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from futurechain.core import callback_threads
from futurechain.core.attaching import attach_stage
from futurechain.core.delivery import tell_quietly, wake_waiting
from futurechain.core.handlers import label
from futurechain.core.loop import HERE, run_dependents
from futurechain.core.observers import watch
from futurechain.core.scheduler import Call, Scheduler
from futurechain.core.state import RUNNING, claim, consumers, source_of
from futurechain.core.unobserved import annotate
from futurechain.dask.errors import closed, explained, is_unwritable, lost, unsent
from futurechain.dask.listening import listen
from futurechain.dask.seen import Entry, seen
from futurechain.dask.stages import Remote, RemoteStage, Sent, value_function
from futurechain.dask.there import Call as CallThere
from futurechain.dask.there import as_tuple
from futurechain.dask.ways import Arrival, Fetching, Way
from futurechain.executors.out_of_process import Job, OutOfProcess
from futurechain.failure import Failure
from futurechain.flow.combinators import gather
from futurechain.future import ExecutorStage

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["DaskScheduler", "Place"]

MOMENT = 0.05
"""Seconds for which a value stays on the cluster that nobody needs any more."""


class DaskScheduler(OutOfProcess):
    """Between a client of Dask and the chains."""

    __slots__ = ("_is_left_behind", "_released", "_timers", "client", "options")
    is_awaited = False

    def __init__(self, name: str, client: Client, options: dict[str, Any]) -> None:
        super().__init__(name)
        self.client: Client = client
        self.options: dict[str, Any] = options
        self._is_left_behind = False
        """Whether this is a forked child, and what serves the client has stayed in its parent."""
        self._released: deque[Any] = deque()
        """Dask's futures that nobody needs any more."""
        self._timers: list[None] = [None]
        """Who pops this sees to it that they go."""

    @property
    def home(self) -> DaskScheduler:
        """The scheduler of the cluster: this one."""
        return self

    def is_moving(self) -> bool:
        return False

    def is_reachable(self) -> bool:
        """Tell whether the cluster can be asked for anything, or soon can."""
        return self.client.status in {"running", "connecting", "newly-created"} and not self._is_left_behind

    def forget(self) -> None:
        super().forget()
        self._is_left_behind = True

    def register(self, stage: Any, source: Any = None) -> None:
        if type(stage) is ExecutorStage:
            stage.__class__ = RemoteStage
        super().register(stage, source)

    def unregister(self, stage: Any) -> None:
        if type(stage) is RemoteStage:
            stage.let_go()
        super().unregister(stage)

    def show(self, stage: Any) -> Any:
        parent = source_of(stage)
        if type(parent) is RemoteStage:
            self._send_early(stage, parent)
        return seen(stage, stage._scheduler)

    def shut_down(self, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more outside work; wait for the chains, if asked to. The client is left alone."""
        self.close(cancel_futures=cancel_futures)
        if wait:
            self.wait()

    # -- sending ------------------------------------------------------------------------------------------------------

    def launch(self, stage: Any, call: Call, *, begun: bool) -> None:
        self._send(stage, call, None)
        todo = [stage]
        while todo:
            one = todo.pop()
            todo += [follower for follower in _followers(one) if self._send_early(follower, one)]

    def _send_early(self, stage: Any, parent: Any) -> bool:
        """Send `stage`, which waits for `parent`, if that was sent; True if it was."""
        sent, function = parent.sent, value_function(stage)
        place: Any = stage._scheduler
        if sent is None or function is None or getattr(place, "home", None) is not self:
            return False
        if stage.done() or not self.is_registered(stage) or not stage.take_turn(sent.remote):
            return False
        try:
            self._send(stage, (function, (sent.remote,), {}), parent)
        except BaseException as error:  # whatever it is, it comes again when the turn of the stage has come
            stage.give_back()
            outcome = parent._outcome
            if type(outcome) is Remote and stage.take_turn(outcome):  # which it has in between
                self.start(stage, (function, (outcome,), {}))
            if not isinstance(error, Exception):
                raise
            return False
        return True

    def _send(self, stage: Any, call: Call, parent: Any) -> None:
        fn, args, kwargs = call
        before = args[0] if parent is not None else None
        sent = Sent(self, Remote(self, self._submit(stage, fn, args, kwargs)), parent, before)
        stage.__dict__["_sent"] = sent  # first: who attaches to it from now on is sent early
        stage._call, stage._source = fn, sent
        self._await(Arrival(self, stage, sent))
        if stage.done():  # cancelled in between
            stage._call = stage._source = None
            stage.let_go()
            self.withdraw(sent.remote.engine)

    def _submit(self, stage: Any, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give a call to the client; return Dask's future."""
        if not self.is_reachable():
            raise closed(self.name)
        given = args[0] if fn is as_tuple else args
        engines = [one.engine if type(one) is Remote else one for one in given]
        key = f"{label(fn)}-{uuid4()}"
        if watch.on:
            listen(self.client, key, stage)
        call = CallThere(fn, key if watch.on else "")
        try:
            values = (engines,) if fn is as_tuple else engines
            sent = self.client.submit(call, kwargs, *values, key=key, pure=False, **_options_of(stage._scheduler))
            self._drop_released()
            return sent
        except Exception as error:
            if not self.is_reachable():  # any more
                raise closed(self.name) from error
            if isinstance(error, (TypeError, PicklingError, AttributeError)) and is_unwritable(error):
                raise unsent(stage, error) from error
            raise

    def withdraw(self, engine: Any) -> None:
        """Let the cluster forget a task."""
        if self.client.status == "running" and not self._is_left_behind:
            self._loop.add_callback(engine.cancel)

    def release(self, engine: Any) -> None:
        """Let go of Dask's future with the next submission, or some moments later.

        Dask's client sends a message every 10 ms at most. That a value is no longer needed would be told in one of its
        own, mostly when the next one has just come, and hold up what is submitted then.
        """
        if not self.is_reachable():
            return
        self._released.append(engine)  # first; then a look whether somebody sees to it
        try:
            self._timers.pop()  # decides who does
        except IndexError:
            return
        self._loop.add_callback(self._loop.call_later, MOMENT, self._forget_released)

    def _forget_released(self) -> None:
        self._timers.append(None)  # first: what comes from now on may be too late for this
        self._drop_released()

    def _drop_released(self) -> None:
        with suppress(IndexError):
            while True:
                self._released.popleft()

    def takes(self, stages: list[Any]) -> bool:
        """Tell whether it would run something that waits for `stages`."""
        return self.is_reachable() and (not self.closing or any(map(self._is_inside, stages)))

    def gather(self, stages: list[Any], *, return_exceptions: bool) -> Any:
        """Return what users see of one task that has the values of `stages`, as they have arrived on one worker."""
        everything = gather(*stages, return_exceptions=return_exceptions)
        whole = attach_stage(everything, as_tuple, SimpleNamespace(_scheduler=self))
        whole._scheduler = HERE
        return whole

    # -- coming back --------------------------------------------------------------------------------------------------

    @property
    def _loop(self) -> Any:
        """Dask's event loop, in a thread of its own."""
        return self.client.loop

    def _await(self, way: Way) -> None:
        self._loop.add_callback(way)

    def arrive(self, stage: Any, sent: Sent) -> None:
        """Take notice that the cluster is done with a stage; on the thread of the event loop."""
        engine = sent.remote.engine
        if engine.status == "finished":
            self.deliver(stage, sent.remote)
        elif not sent.is_inherited():
            failed = engine.status == "error"
            error = explained(engine, stage) if failed else lost(engine, self.client, self.name)
            self.deliver(stage, Failure(error))

    def deliver(self, stage: Any, outcome: Any) -> None:
        if not claim(stage):
            return
        if type(outcome) is Failure:
            annotate(outcome.value, stage)
        job = Job(self, partial(run_dependents, stage))  # before the stage is published: a shutdown waits for it, too
        self.publish(stage, outcome)
        wake_waiting(stage)
        if type(outcome) is Remote and tell_quietly(stage, partial(_is_quiet, outcome)):
            job.end()
        else:
            callback_threads.post(job)

    def fetch(self, future: Any, remote: Remote) -> None:
        """Bring the value of `future`, which is done, and settle it then."""
        job = Job(self, partial(run_dependents, future))
        way = Fetching(self, future, remote, job)
        if self.client.status == "running" and not self._is_left_behind:
            self._await(way)

    def settle(self, future: Any, outcome: Any, job: Job) -> None:
        """Settle a future whose value was fetched, or could not be; `job` is what is done then."""
        if not claim(future, RUNNING):
            job.end()
            return
        if type(outcome) is Failure:
            annotate(outcome.value, future)
        self.publish(future, outcome)
        if wake_waiting(future):
            job.end()
        else:
            callback_threads.post(job)


class Place(Scheduler):
    """The same cluster with other options."""

    __slots__ = ("home", "options")

    def __init__(self, home: DaskScheduler, options: dict[str, Any]) -> None:
        super().__init__(home.name)
        self.home: DaskScheduler = home
        self.options: dict[str, Any] = options

    @property
    def closing(self) -> bool:
        """Whether outside work is refused."""
        return self.home.closing

    def takes_closures(self) -> bool:
        return False

    def is_registered(self, stage: Any) -> bool:
        """Tell whether `stage` was taken, and is not settled."""
        return self.home.is_registered(stage)

    def register(self, stage: Any, source: Any = None) -> None:
        self.home.register(stage, source)

    def unregister(self, stage: Any) -> None:
        self.home.unregister(stage)

    def start(self, stage: Any, call: Call) -> None:
        self.home.start(stage, call)

    def show(self, stage: Any) -> Any:
        return self.home.show(stage)


def _options_of(scheduler: Any) -> dict[str, Any]:
    """Return the options for what runs on `scheduler`, which may be a view of the cluster's."""
    while not hasattr(scheduler, "options"):
        scheduler = scheduler._inner
    found: dict[str, Any] = scheduler.options
    return found


def _is_quiet(remote: Remote, dependent: Any) -> bool:
    """Tell whether `dependent` runs nothing when it is told of a value on the cluster."""
    if type(dependent) is RemoteStage:
        return dependent.was_sent(remote)
    return type(dependent) is Entry


def _followers(stage: Any) -> Iterator[Any]:
    """Iterate over the stages on a cluster that wait for `stage`."""
    return (one for one in consumers(stage) if type(one) is RemoteStage)
