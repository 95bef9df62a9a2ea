"""A Dask cluster: chains and pipelines of ours beside Dask's own futures, on two worker processes of this machine."""

from __future__ import annotations

import atexit
import importlib.util
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import futurechain
from benchmarks.measure import Sample, Work, time_sample
from benchmarks.peers import OURS
from benchmarks.streams import WINDOW, busy, drain

__all__ = ["DASK", "cluster_stream", "heavy_chain", "is_there", "tiny_chain"]

DASK = "Dask's own futures"
BATCH = 250
"""The batch size that suits ``Client.map`` best; measured."""


def is_there() -> bool:
    """Tell whether Dask is installed."""
    return importlib.util.find_spec("distributed") is not None


@cache
def _client() -> Any:
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=60)
    client = Client(cluster)
    atexit.register(cluster.close)
    atexit.register(client.close)
    return client


@cache
def _executor() -> Any:
    from futurechain.dask import DaskExecutor

    return DaskExecutor(_client())


def plus_one(value: int) -> int:
    """Return the next number. Importable, for the workers."""
    return value + 1


def _ours(steps: list[Callable[[Any], Any]], value: Any) -> None:
    first, *rest = steps
    future = _executor().submit(first, value)
    for step in rest:
        future = future.then(step)
    future.result()


def _dasks(steps: list[Callable[[Any], Any]], value: Any) -> None:
    client = _client()
    for step in steps:
        value = client.submit(step, value, pure=False)
    value.result()


def _samples(steps: list[Callable[[Any], Any]], value: Any, count: int) -> dict[str, Sample]:
    def sample(run: Callable[[list[Callable[[Any], Any]], Any], None]) -> Sample:
        return time_sample(lambda: Work(lambda: [run(steps, value) for _ in range(count)], count * len(steps)))

    return {OURS: sample(_ours), DASK: sample(_dasks)}


def heavy_chain(size: int) -> dict[str, Sample]:
    """Return samples of two stages with so many bytes in between, which nobody asks for."""
    return _samples([bytes, len], size, 3)


def tiny_chain(length: int) -> dict[str, Sample]:
    """Return samples of chains of so many tiny stages."""
    return _samples([plus_one] * length, 0, 5)


def cluster_stream(count: int) -> dict[str, Sample]:
    """Return samples of `count` items of 1 ms: a pipeline, and ``Client.map`` with the best batch size."""
    fn = partial(busy, 1000)

    def ours() -> None:
        drain(futurechain.Pipeline().then(fn, on=_executor()).map(range(count), window=WINDOW))

    def dasks() -> None:
        client = _client()
        drain(client.gather(client.map(fn, range(count), batch_size=BATCH, pure=False)))

    return {OURS: time_sample(lambda: Work(ours, count)), DASK: time_sample(lambda: Work(dasks, count))}
