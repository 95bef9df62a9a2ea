"""Chaining for ``concurrent.futures``: `Future` with ``then``, ``catch``, ``addCallback``, on any executor.

General layout, each module importing only from those above it:

* `errors`, `failure`: how a call ends badly; `clock`: time; `run`: what a thread is doing for the library
* `callback_threads`: callback threads; `report`: errors that nobody saw
* `links`: who waits for a future, and the atomic steps that decide every race; `dispatch`: where a stage runs
* `standard`, `plans`: the standard interface; what a stage does with an outcome
* `outcomes`, `adoption`, `settling`, `cancelling`: how a stage ends, and how that travels
* `future`: the future that can be chained; `foreign`: somebody else's
* `threads`, `remote`: the thread pool; the process pool, and anybody's executor
* `coroutines`, `interop`: coroutines without a loop, and with somebody else's
* `combinators`: several futures in one; `timing`: delays and retries; `testing`: a clock for tests
* `defer`: Twisted's vocabulary
* `watching`, `tracing`, `timeline`, `debugging`, `drawing`, `picture`, `simulator`, `diagram`: seeing what happens
* `poetry`, `cli`: the example program, the command line

Each name is imported when it is first used: importing the package itself costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from futurechain.flow.combinators import first, gather, race, reduce, some
    from futurechain.flow.coroutines import ensure_future, inlineCallbacks, returnValue
    from futurechain.viewing.debug import debug
    from futurechain.viewing.render import render
    from futurechain.failure import Failure
    from futurechain.executors.wrapped_future import wrap_future
    from futurechain.executors.inline import INLINE
    from futurechain.executors.limit import limit
    from futurechain.future import Future, fail, succeed
    from futurechain.pipeline.pipeline import Pipeline
    from futurechain.pipeline.stream import Stream
    from futurechain.executors.remote import ProcessPoolExecutor, wrap_executor
    from futurechain.executors.threads import ThreadPoolExecutor
    from futurechain.flow.timing import delay, retry
    from futurechain.viewing.trace import trace

__all__ = [
    "INLINE",
    "Failure",
    "Future",
    "Pipeline",
    "ProcessPoolExecutor",
    "Stream",
    "ThreadPoolExecutor",
    "debug",
    "delay",
    "ensure_future",
    "fail",
    "first",
    "gather",
    "inlineCallbacks",
    "limit",
    "race",
    "reduce",
    "render",
    "retry",
    "returnValue",
    "some",
    "succeed",
    "trace",
    "wrap_executor",
    "wrap_future",
]

_NAMES = {
    "executors.limit": ("limit",),
    "executors.remote": ("ProcessPoolExecutor", "wrap_executor"),
    "executors.threads": ("ThreadPoolExecutor",),
    "executors.wrapped_future": ("wrap_future",),
    "failure": ("Failure",),
    "flow.combinators": ("first", "gather", "race", "reduce", "some"),
    "flow.coroutines": ("ensure_future", "inlineCallbacks", "returnValue"),
    "flow.timing": ("delay", "retry"),
    "executors.inline": ("INLINE",),
    "future": ("Future", "fail", "succeed"),
    "pipeline.pipeline": ("Pipeline",),
    "pipeline.stream": ("Stream",),
    "viewing.debug": ("debug",),
    "viewing.render": ("render",),
    "viewing.trace": ("trace",),
}
_MODULES = frozenset({"defer", "errors", "testing"})
"""Modules of the public interface, which ``futurechain.errors`` and so on reach without an import of their own."""
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))})
