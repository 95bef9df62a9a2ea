"""What a stage does with an outcome, and how it is called in messages."""

from __future__ import annotations

from functools import partial

import pytest

import work
from futurechain import INLINE, Future, succeed
from futurechain.core.handlers import Callbacks, Catch, Finally, Handler, Task, Then, label
from futurechain.core.scheduler import scheduler_of
from futurechain.failure import Failure


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (Handler(), "pass"),
        (Then(work.double, None), "double"),
        (Then(work.double, work.recover), "double/recover"),
        (Catch(KeyError, work.recover), "recover"),
        (Finally(work.pid), "pid"),
        (Callbacks((work.double, (), {}), (work.recover, (), {})), "double/recover"),
        (Task(work.add, (1, 2)), "add"),
        (partial(work.double), "double"),
        (object(), "object"),
    ],
)
def test_label_is_the_users_function(plan, expected):
    """A stage is called after what it runs."""
    assert label(plan) == expected


def test_a_plan_passes_on():
    """By default nothing is called, and nothing is left to do."""
    plan = Handler()
    failure = Failure(KeyError())

    assert plan.select(1) is None
    assert plan.finish(failure) is failure
    assert plan.cancelled(None) is None


def test_home_of_names_what_is_no_executor():
    """It is a TypeError that names argument and value; an executor's home has its name."""
    with pytest.raises(TypeError, match=r"somewhere= wants an executor.*not 3"):
        scheduler_of(3, "somewhere")
    assert repr(scheduler_of(INLINE)) == repr(INLINE) == "INLINE"
    assert INLINE.submit(work.double, 2).result(0) == 4


def test_promise_stages_on_a_twisted_chain():
    """`then` on a future in the middle and at the end of a Twisted chain makes branches of its own."""
    source = succeed(1)
    last = source.addCallback(work.double)

    assert source.then(work.double).result(0) == 2
    assert last.then(work.double).result(0) == 4
    assert source.final is last


def test_a_finally_on_a_pool_that_is_cancelled(pool):
    """Its clean-up runs on the pool."""
    source, seen = Future(), Future()
    source.finally_(lambda: seen.set_result("cleaned"), on=pool).cancel()

    assert seen.result(10) == "cleaned"


def test_a_callable_that_will_not_tell_its_name():
    """It is called by the name of its class."""

    class Sulking:
        def __call__(self, value):
            return value

        def __getattr__(self, name):
            raise RuntimeError(name)

    assert label(Sulking()) == "Sulking"
