"""Chaining for ``concurrent.futures``: futures with ``then``, ``catch`` and ``addCallback``, on any executor.

A chain, many items, and the errors of both::

    from futurechain import Pipeline, ProcessPoolExecutor, ThreadPoolExecutor, gather

    with ThreadPoolExecutor() as threads, ProcessPoolExecutor() as processes:
        page = threads.submit(fetch, url).then(parse, on=processes).catch(OSError, default)
        print(page.result())                                    # a real concurrent.futures.Future

        print(gather(*[threads.submit(fetch, url) for url in urls]).timeout(10).result())

        pipeline = Pipeline().then(fetch, on=threads, concurrency=4).then(parse, on=processes)
        for page in pipeline.map(urls):                         # in order, in constant memory
            print(page)

What users need first:

* executors: `ThreadPoolExecutor` and `ProcessPoolExecutor`, which take what the standard ones take; `INLINE`;
  `wrap_executor` for any other executor, `limit` for how many at once and how many in a second
* futures: the methods of `Future`; `wrap_future` for anybody's future; `succeed` and `fail`
* several futures: `gather`, `race`, `first`, `some`, `reduce`; many items: `Pipeline` and `Stream`
* time: `delay`, `retry`, and ``timeout`` of a future
* coroutines: `ensure_future` and `inlineCallbacks`; ``await`` works under asyncio and trio
* to see what happens: `trace`, `render`, `debug`, and the logger ``futurechain`` for failures that nobody looked at

``futurechain.errors`` has what can go wrong, ``futurechain.defer`` Twisted's names, ``futurechain.testing`` a clock for
tests. The README shows how to do what, and what is promised.

Inside, each layer imports only from those before it: ``errors``, ``failure``, ``clock``; ``core``, how outcomes
travel; ``future``, the public class; ``executors``; ``flow`` (several futures, time, coroutines) and ``viewing``;
``pipeline``; ``defer`` and ``testing``; ``demo``. Each name is imported when it is first used: importing the package
itself costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = __name__ == ""  # never; `typing` would cost more than all the rest, and jedi believes a plain False
if TYPE_CHECKING:
    from futurechain.executors.inline import INLINE
    from futurechain.executors.limit import limit
    from futurechain.executors.processes.pool import ProcessPoolExecutor
    from futurechain.executors.threads import ThreadPoolExecutor
    from futurechain.executors.wrapped import wrap_executor
    from futurechain.executors.wrapped_future import wrap_future
    from futurechain.failure import Failure
    from futurechain.flow.combinators import first, gather, race, reduce, some
    from futurechain.flow.coroutines import ensure_future, inlineCallbacks, returnValue
    from futurechain.flow.timing import delay, retry
    from futurechain.future import Future, fail, succeed
    from futurechain.pipeline.pipeline import Pipeline
    from futurechain.pipeline.stream import Stream
    from futurechain.viewing.debug import debug
    from futurechain.viewing.render import render
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
    "executors.processes.pool": ("ProcessPoolExecutor",),
    "executors.threads": ("ThreadPoolExecutor",),
    "executors.wrapped": ("wrap_executor",),
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
