"""Chaining for ``concurrent.futures``: `Future` with ``then``, ``catch``, ``addCallback``, on any executor.

General layout, each module importing only from those above it:

* `errors`, `failure`: how a call ends badly; `clock`: time; `run`: what a thread is doing for the library
* `crew`: callback threads; `report`: errors that nobody saw
* `links`: who waits for a future, and the atomic steps that decide every race; `dispatch`: where a stage runs
* `standard`, `plans`: the standard interface; what a stage does with an outcome
* `future`: the future, and the loop that settles chains
* `threads`, `remote`: the thread pool; the process pool, and anybody's executor
* `coroutines`, `interop`: coroutines without a loop, and with somebody else's
* `combinators`: several futures in one; `timing`: delays and retries; `testing`: a clock for tests
* `poetry`, `cli`: the example program, the command line
"""

from futurechain.combinators import first, gather, race, reduce, some
from futurechain.coroutines import ensure_future, inlineCallbacks, returnValue
from futurechain.failure import Failure
from futurechain.future import INLINE, Future, fail, succeed, wrap_future
from futurechain.remote import ProcessPoolExecutor, wrap_executor
from futurechain.threads import ThreadPoolExecutor
from futurechain.timing import delay, retry

__all__ = [
    "INLINE",
    "Failure",
    "Future",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
    "delay",
    "ensure_future",
    "fail",
    "first",
    "gather",
    "inlineCallbacks",
    "race",
    "reduce",
    "retry",
    "returnValue",
    "some",
    "succeed",
    "wrap_executor",
    "wrap_future",
]
