"""The poetry program: an example of everything, small enough to copy from.

`client` has the chain, `server` the slow servers that it reads from, `engine` what transforms the poems.
"""

from __future__ import annotations

from futurechain.demo.poetry.client import main

__all__ = ["main"]
