"""Unpickling that runs nobody's code, for the thread that must not: plain values, arrays, everyday errors.

What names any other class or function has to be loaded elsewhere.
"""

from __future__ import annotations

import builtins
import io
import pickle
import sys
from typing import Any

from futurechain.executors.processes.messages import Opened

__all__ = ["NotLight", "load_light"]

MOST = 1 << 17
"""How many bytes may be loaded at once: more take their time, whatever they are."""
((STACK_GLOBAL,), (EXT1,), (EXT2,), (EXT4,)) = pickle.STACK_GLOBAL, pickle.EXT1, pickle.EXT2, pickle.EXT4
"""The opcodes by which a class or function is named, all that protocol 5 has for it; numbers are found soonest."""
QUIET = frozenset({"collections", "datetime", "decimal", "fractions", "uuid"})
"""Modules whose classes run no code but their own."""
OF_NUMPY = frozenset({"_frombuffer", "_reconstruct", "dtype", "ndarray", "scalar"})


class NotLight(Exception):  # noqa: N818  # a condition that is dealt with, not an error
    """Raised for what has to be loaded elsewhere."""


class _LightUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = getattr(sys.modules.get(module), name, None)
        if module == builtins.__name__ or module in QUIET:
            is_light = isinstance(found, type) and found is not type
        else:
            is_light = module.startswith("numpy") and name in OF_NUMPY and found is not None
        if not is_light:
            raise NotLight
        return found


def _names(data: bytes) -> bool:
    """Tell whether an opcode may be there that names something: each is looked for by the processor's own means."""
    return STACK_GLOBAL in data or EXT1 in data or EXT2 in data or EXT4 in data


def load_light(opened: Opened) -> Any:
    """Load a parcel that holds nothing but what runs no code.

    Raises:
        NotLight: if it holds anything else.
    """
    stream = opened.stream
    if len(stream) > MOST:
        raise NotLight
    data = bytes(stream)
    try:
        if not opened.buffers and not _names(data):
            return pickle.loads(data)  # noqa: S301  # from our own processes
        return _LightUnpickler(io.BytesIO(data), buffers=opened.buffers).load()
    except Exception as error:  # elsewhere it is told, too, what is wrong with it
        raise NotLight from error
