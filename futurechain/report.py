"""Errors that say where they came from, and failures that nobody looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from futurechain import crew

__all__ = ["annotate", "rescue", "unheard"]


def annotate(error: BaseException, stage: Any) -> None:
    """Note on `error` which stage raised it."""


def unheard(future: Any) -> None:
    """Remember that `future` failed, and nobody has looked at it yet."""


def rescue(job: Callable[[], object]) -> None:
    """Run `job`, which a finalizer found necessary, outside of whatever the finalizer interrupted."""
    crew.post(job)
