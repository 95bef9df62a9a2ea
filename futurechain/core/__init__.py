"""The core: how futures are settled and how that travels; it knows no pool, picture or Deferred."""

from __future__ import annotations

__all__: list[str] = []
