"""Chaining for ``concurrent.futures``."""

from futurechain.failure import Failure
from futurechain.future import INLINE, Future, fail, succeed, wrap_future

__all__ = ["INLINE", "Failure", "Future", "fail", "succeed", "wrap_future"]
