"""Seeing what happens: traces, debug mode, pictures."""

from __future__ import annotations

__all__: list[str] = []
