"""Who ran what, for traces: the workers of a cluster tell, under a topic of Dask's, and a client listens to that."""

from __future__ import annotations

import weakref
from functools import partial
from time import perf_counter, time
from typing import Any, TypeAlias

from futurechain.core.observers import Elsewhere, watch
from futurechain.dask.there import TOPIC

__all__ = ["listen"]

_Stages: TypeAlias = "weakref.WeakValueDictionary[str, Any]"

_listening: weakref.WeakKeyDictionary[Any, _Stages] = weakref.WeakKeyDictionary()
"""The stages of which the workers will tell, by their keys; one table for each client, which has one listener only."""


def listen(client: Any, key: str, stage: Any) -> None:
    """Let traces know who runs `stage`, which has that key on the cluster, as soon as the worker tells."""
    stages = _listening.setdefault(client, weakref.WeakValueDictionary())
    if not stages:
        client.subscribe_topic(TOPIC, partial(_ran, stages))
    stages[key] = stage


def _ran(stages: _Stages, event: tuple[float, Any]) -> None:
    """Take notice of who ran a stage, and since when; the clocks of the machines are taken for equal."""
    key, worker, process, began = event[1]
    stage = stages.pop(key, None)
    if stage is not None:
        watch.ran(stage, Elsewhere(process, perf_counter() - (time() - began), worker=f"worker {worker}"))
