"""Where the engine works if that is a cluster: one of our own on this machine, or one that is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from importlib import import_module
from threading import Thread
from typing import Any

__all__ = ["NoClusterError", "open_cluster"]

PATIENCE = 5.0
"""How many seconds a scheduler may take to answer."""


class NoClusterError(Exception):
    """Raised if there is no cluster to be had; the message says why."""


@contextmanager
def open_cluster(address: str | None, workers: int) -> Iterator[Any]:
    """Have an executor on the cluster at `address`, or on one of our own with so many workers.

    Raises:
        NoClusterError: without Dask, and if no scheduler answers.
    """
    try:
        from futurechain.dask import DaskExecutor
    except ImportError as missing:
        raise NoClusterError(str(missing)) from missing
    with ExitStack() as stack:
        yield stack.enter_context(DaskExecutor(_client(stack, address, workers)))


def _client(stack: ExitStack, address: str | None, workers: int) -> Any:
    distributed: Any = import_module("distributed")  # its classes are not typed
    if address is None:
        own = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=60)
        return stack.enter_context(distributed.Client(stack.enter_context(own)))
    connected: Future[Any] = Future()
    Thread(target=_connect, args=(connected, distributed.Client, address), daemon=True).start()
    try:
        return stack.enter_context(connected.result(PATIENCE + 1))
    except Exception as error:  # there may be anything at an address
        raise NoClusterError(f"no scheduler answers at {address}: {str(error) or 'it says nothing'}") from error


def _connect(connected: Future[Any], client: Callable[..., Any], address: str) -> None:
    """Make a client, in a thread that nobody waits for: Dask may wait for ever for somebody who says nothing."""
    try:
        connected.set_result(client(address, timeout=PATIENCE))
    except Exception as error:
        connected.set_exception(error)
