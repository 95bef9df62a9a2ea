"""What is under way between here and a cluster: waited for on the thread of Dask's event loop.

No user code runs there: what has come is published, and the rest is for callback threads. When the loop ends before, a
`Way` notices that it is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from futurechain.core.unobserved import rescue
from futurechain.dask.errors import closed, unfetched
from futurechain.failure import Failure

if TYPE_CHECKING:
    from futurechain.dask.scheduler import DaskScheduler
    from futurechain.dask.stages import Remote, Sent
    from futurechain.executors.out_of_process import Job

__all__ = ["Arrival", "Fetching", "Way"]


class Way:
    """Waits on Dask's event loop for something, once; notices that it is dropped before, because the loop has ended."""

    __slots__ = ("_home", "_todo")

    def __init__(self, home: DaskScheduler) -> None:
        self._home = home
        self._todo = [None]

    async def __call__(self) -> None:
        """Wait, and settle what waits for that."""
        raise NotImplementedError  # pragma: no cover

    def lose(self) -> None:
        """Fail what waits: nothing comes any more."""
        raise NotImplementedError  # pragma: no cover

    def __del__(self) -> None:
        if self._todo:
            self._todo.clear()
            rescue(self.lose)


class Arrival(Way):
    """Until the cluster is done with a stage."""

    __slots__ = ("_sent", "_stage")

    def __init__(self, home: DaskScheduler, stage: Any, sent: Sent) -> None:
        super().__init__(home)
        self._stage = stage
        self._sent = sent

    async def __call__(self) -> None:
        state = self._sent.remote.engine._state  # there is no public way to wait for it here
        while state.status in {"pending", "lost"}:
            await state.wait()
        self._home.arrive(self._stage, self._sent)
        self._todo.clear()

    def lose(self) -> None:
        self._home.deliver(self._stage, Failure(closed(self._home.name)))


class Fetching(Way):
    """Until a value has come."""

    __slots__ = ("_future", "_job", "_remote")

    def __init__(self, home: DaskScheduler, future: Any, remote: Remote, job: Job) -> None:
        super().__init__(home)
        self._future = future
        self._remote = remote
        self._job = job

    async def __call__(self) -> None:
        try:
            outcome = await self._remote.engine._result()
        except BaseException as error:
            outcome = Failure(unfetched(self._remote.engine, self._future, self._home, error))
        self._home.settle(self._future, outcome, self._job)
        self._todo.clear()

    def lose(self) -> None:
        self._home.settle(self._future, Failure(closed(self._home.name)), self._job)
