"""Where stages run: here, on threads, in processes, on anybody's executor."""

from __future__ import annotations

__all__: list[str] = []
