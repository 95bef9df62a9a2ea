"""Several futures in one, time, and coroutines."""

from __future__ import annotations

__all__: list[str] = []
