"""The Deferred simulator and the example program."""

from __future__ import annotations

__all__: list[str] = []
