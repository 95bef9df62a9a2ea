"""What Python itself says of our objects names the classes that users know."""

from __future__ import annotations

import pytest

from futurechain import INLINE, Future, delay, ensure_future, fail, gather, race, succeed, wrap_future
from futurechain.defer import Deferred

MAKERS = {
    "bare": Future,
    "guarded": lambda: next(future for future in [Future()] if future.then(str)),
    "then": lambda: succeed(Future()).then(str),
    "pending then": lambda: PARENT.then(str),
    "then with two": lambda: PARENT.then(str, str),
    "catch": lambda: PARENT.catch(KeyError, str),
    "finally": lambda: PARENT.finally_(print),
    "addCallback": lambda: PARENT.addCallback(str),
    "addErrback": lambda: PARENT.addErrback(str),
    "shield": lambda: PARENT.shield(),
    "timeout": lambda: PARENT.timeout(1000),
    "succeed": lambda: succeed(1),
    "fail": lambda: fail(KeyError(1)).catch(print),
    "submit": lambda: INLINE.submit(int),
    "gather": lambda: gather(PARENT, PARENT),
    "race": lambda: race(PARENT),
    "delay": lambda: delay(1000),
    "wrap_future": lambda: wrap_future(PARENT),
    "coroutine": lambda: ensure_future(wait()),
    "Deferred": lambda: Deferred().addErrback(print).future,
}
PARENT = Future()


async def wait():
    return await PARENT


@pytest.mark.parametrize("kind", MAKERS)
def test_every_future_is_called_so(kind):
    """However it was made: the classes inside have no names for users."""
    future = MAKERS[kind]()
    future.exception() if future.done() else None
    with pytest.raises(AttributeError, match=r"^'Future' object has no attribute 'value'"):
        future.value  # noqa: B018
    with pytest.raises(TypeError, match="'Future' object is not subscriptable"):
        future[0]
    assert repr(future).startswith("<Future ")


def test_what_runs_on_a_pool_is_called_so_too(executor):
    """Tasks, and stages behind them."""
    with executor:
        task = executor.submit(int)
        for future in (task, task.then(str), PARENT.then(str, on=executor)):
            with pytest.raises(AttributeError, match=r"^'Future' object"):
                future.value  # noqa: B018
        future.cancel()
