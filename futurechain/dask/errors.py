"""What goes wrong between here and a cluster, in the words of `futurechain.errors`."""

from __future__ import annotations

from typing import Any

from distributed import KilledWorker

from futurechain.core.handlers import label
from futurechain.dask.there import Envelope
from futurechain.errors import CancelledError, ClusterLostError, WorkerDiedError
from futurechain.executors.travel import cannot_travel

__all__ = ["ClusterWorkerDiedError", "closed", "explained", "is_unwritable", "lost", "unfetched", "unsent"]

_UNREADABLE = "Error during deserialization of the task graph"
_UNWRITABLE = "Could not serialize object"


class ClusterWorkerDiedError(WorkerDiedError, KilledWorker):
    """Raised in a task under which one worker after the other has died: Dask's error, and ours."""

    def __init__(self, task: Any, last_worker: Any, allowed_failures: int) -> None:
        KilledWorker.__init__(self, task, last_worker, allowed_failures)

    def __str__(self) -> str:
        return KilledWorker.__str__(self)


def explained(engine: Any, stage: Any) -> BaseException:
    """Return the error with which the task of `stage` has ended, as its future is to have it."""
    error, trace = engine._state.exception, engine._state.traceback
    if type(error) is Envelope:
        return error.failure.value
    if isinstance(error, KilledWorker):
        return ClusterWorkerDiedError(error.task, error.last_worker, error.allowed_failures)
    if type(error) is RuntimeError and str(error).startswith(_UNREADABLE):
        return unsent(stage, error, "it could not be unpickled there, where perhaps a module is missing")
    return error.with_traceback(trace) if isinstance(error, BaseException) else RuntimeError(str(error))


def unsent(stage: Any, error: BaseException, reason: str = "") -> BaseException:
    """Return the error of a stage that could not be sent."""
    fn = stage._call[0] if isinstance(stage._call, tuple) else stage._handler or stage._call
    cause = error if error.__cause__ is None else error.__cause__
    told = cannot_travel(label(fn), stage._scheduler.name, reason or str(cause))
    told.__cause__ = error
    return told


def unfetched(engine: Any, future: Any, home: Any, error: BaseException) -> BaseException:
    """Return the error of a future whose value could not be fetched."""
    if engine.status == "error":  # it was lost with its worker, and could not be computed again
        return explained(engine, future)
    if isinstance(error, CancelledError):
        return lost(engine, home.client, home.name)
    if not isinstance(error, Exception):
        return closed(home.name)
    told = cannot_travel(label(future._handler), "this process", str(error).split("\n", 1)[0])
    told.__cause__ = error
    return told


def is_unwritable(error: BaseException) -> bool:
    """Tell whether Dask says that it could not pickle something."""
    return _UNWRITABLE in str(error) or isinstance(error.__cause__, TypeError)


def lost(engine: Any, client: Any, name: str) -> BaseException:
    """Return the error of what Dask has cancelled, and not we."""
    reason = getattr(engine._state.exception, "reason", "unknown")
    if client.status in {"closed", "closing"}:
        return closed(name)
    if reason == "unknown":  # somebody has cancelled it by Dask's own means
        return CancelledError(f"cancelled on {name}, and not by this future")
    return ClusterLostError(f"{name} has lost what it had: {reason}. Submit it again")


def closed(name: str) -> ClusterLostError:
    """Return the error of what a client had that is closed."""
    return ClusterLostError(
        f"the client of {name} is closed, has lost its scheduler, or was left behind by a fork: make another one"
    )
