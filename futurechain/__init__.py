"""Chaining for ``concurrent.futures``."""

from futurechain.failure import Failure
from futurechain.future import INLINE, Future, fail, succeed, wrap_future
from futurechain.remote import ProcessPoolExecutor, wrap_executor
from futurechain.threads import ThreadPoolExecutor

__all__ = ["INLINE", "Failure", "Future", "ProcessPoolExecutor", "ThreadPoolExecutor", "fail", "succeed", "wrap_executor", "wrap_future"]
