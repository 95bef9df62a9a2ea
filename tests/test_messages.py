"""What Python itself says of our objects names the classes that users know."""

from __future__ import annotations

import pytest

from futurechain import INLINE, Future, delay, ensure_future, fail, gather, race, succeed, wrap_future
from futurechain.defer import Deferred

MAKERS = {
    "bare": lambda _: Future(),
    "waited for": lambda source: (source.then(str), source)[1],
    "then": lambda source: source.then(str),
    "catch": lambda source: source.catch(KeyError, str),
    "finally": lambda source: source.finally_(print),
    "addCallback": lambda source: source.addCallback(str),
    "addErrback": lambda source: source.addErrback(str),
    "shield": lambda source: source.shield(),
    "timeout": lambda source: source.timeout(1000),
    "succeed": lambda _: succeed(1),
    "settled then": lambda _: succeed(1).then(str),
    "fail": lambda _: fail(KeyError(1)).catch(print),
    "submit": lambda _: INLINE.submit(int),
    "gather": lambda source: gather(source, source),
    "race": race,
    "delay": lambda _: delay(1000),
    "wrap_future": wrap_future,
    "coroutine": lambda source: ensure_future(wait(source)),
    "Deferred": lambda _: Deferred().addErrback(print).future,
}


async def wait(future):
    return await future


def check(future):
    with pytest.raises(AttributeError, match=r"^'Future' object has no attribute 'value'"):
        future.value  # noqa: B018
    with pytest.raises(TypeError, match="'Future' object is not subscriptable"):
        future[0]
    assert repr(future).startswith("<Future ")


@pytest.mark.parametrize("kind", MAKERS)
def test_every_future_is_called_so(kind):
    """However it was made: the classes inside have no names for users."""
    source = Future()
    future = MAKERS[kind](source)
    check(future)
    future.cancel()
    if not future.cancelled():
        future.exception(0)


def test_what_runs_on_a_pool_is_called_so_too(executor):
    """Tasks, and stages behind them."""
    source = Future()
    with executor:
        task = executor.submit(int)
        for future in (task, task.then(str), source.then(str, on=executor)):
            check(future)
        source.cancel()
