"""What the garbage collector finds: futures that were lost, and cycles that were left."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable

import futurechain

__all__ = ["collect_garbage", "leaves_no_cycle"]


def collect_garbage() -> None:
    """Collect garbage until no failed or lost future is found in it, which is reported then, by callback threads."""
    reports: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = reports.append  # type: ignore[method-assign]
    logger = logging.getLogger("futurechain")
    logger.addHandler(listener)
    try:
        while True:
            reports.clear()
            gc.collect()
            futurechain.Future().then(None, str).result(30)  # it is lost as well, and settled after the others
            if not reports:
                return
    finally:
        logger.removeHandler(listener)


def leaves_no_cycle(act: Callable[[], object]) -> bool:
    """Tell whether no garbage collection is needed to be rid of what `act` has made."""
    left = []
    gc.disable()
    try:
        for _ in range(4):  # the first time makes what is made once; and other threads may leave something
            act()
            left.append(gc.collect())
    finally:
        gc.enable()
    return 0 in left
