"""`Pipeline`: recipes of steps, one item through them, and what is wrong with some."""

from __future__ import annotations

import concurrent.futures as cf
import contextvars
import os
import threading

import pytest
import tenacity

import futurechain
from futurechain import INLINE, Pipeline
from futurechain.errors import CancelledError
from steps import fail_on_threes, increment, note_run, stop, times_ten, with_pid

NO_WAIT = {"sleep": lambda seconds: None}


def policy(attempts, **options):
    return tenacity.Retrying(stop=tenacity.stop_after_attempt(attempts), **options)


# -- the recipe -------------------------------------------------------------------------------------------------------


def test_each_method_returns_a_new_recipe():
    """A pipeline does not change: each method returns a longer one."""
    short = Pipeline().then(increment)
    long = short.then(times_ten).catch(lambda e: 0).finally_(lambda: None)

    assert short.submit(1).result() == 2
    assert long.submit(1).result() == 20


def test_a_step_goes_where_the_one_before_went(pool):
    """A step without ``on=`` runs where the step before it did; before the first ``on=`` it runs INLINE."""
    here = threading.current_thread
    names = Pipeline().then(lambda v: [here().name]).then(lambda v: [*v, here().name], on=pool)
    names = names.then(lambda v: [*v, here().name])

    first, second, third = names.submit(0).result()

    assert first == here().name
    assert second.startswith("ThreadPoolExecutor")
    assert third.startswith("ThreadPoolExecutor")


def test_one_recipe_serves_several_threads(pool):
    """A pipeline can be used by several threads, and several times."""
    recipe = Pipeline().then(increment, on=pool).then(times_ten)
    with cf.ThreadPoolExecutor(4) as users:
        found = list(users.map(lambda start: list(recipe.map(range(start, start + 50))), range(8)))

    assert found == [[(value + 1) * 10 for value in range(start, start + 50)] for start in range(8)]


def test_handlers_move_the_chain_as_well(pool):
    """``on=`` of ``catch`` and ``finally_`` holds for them and for the steps after them, whether they run or not."""
    where = lambda *_: threading.current_thread().name
    for recipe in (
        Pipeline().then(fail_on_threes).catch(where, on=pool).then(lambda name: (name, where())),
        Pipeline().then(fail_on_threes).catch(KeyError, where, on=pool).catch(where).then(lambda name: (name, where())),
        Pipeline().then(fail_on_threes).finally_(where, on=pool).catch(where).then(lambda name: (name, where())),
    ):
        for first, second in (recipe.submit(3).result(), *recipe.map([3])):
            assert first.startswith("ThreadPoolExecutor")
            assert second.startswith("ThreadPoolExecutor")


@pytest.mark.parametrize(
    "last",
    [
        lambda recipe, on: recipe.catch(ValueError, lambda error: 0, on=on),
        lambda recipe, on: recipe.catch(ValueError, lambda error: 0).finally_(lambda: None, on=on),
        lambda recipe, on: recipe.then(None, lambda error: 0, on=on),
    ],
)
def test_chains_go_on_where_a_handler_has_moved_them(processes, last):
    """A handler runs here, but with ``on=`` the chain of an item moves: what is attached to it runs there."""
    recipe = last(Pipeline().then(fail_on_threes), processes)

    for value in (3, 4):
        found, pid = recipe.submit(value).then(with_pid).result()
        assert found == value % 3 * 4
        assert pid != os.getpid()


def test_names_in_its_repr():
    """The repr of a pipeline names its steps; ``name=`` overrules the function's name."""
    recipe = Pipeline().then(increment).then(times_ten, name="ten").catch(ValueError, str).finally_(print)

    assert repr(recipe) == "<Pipeline increment | ten | catch(ValueError, str) | finally print>"


# -- one item ---------------------------------------------------------------------------------------------------------


def test_submit_gives_a_future(executor):
    """``submit`` sends one item through all steps, wherever they run."""
    future = Pipeline().then(increment, on=executor).then(times_ten).submit(4)

    assert isinstance(future, futurechain.Future)
    assert future.result() == 50


def test_errors_go_past_value_steps(executor):
    """An error skips value steps up to the next handler, and is handled there."""
    recipe = Pipeline().then(fail_on_threes, on=executor).then(increment)
    recipe = recipe.catch(KeyError, lambda e: "not this one").catch(ValueError, lambda e: -1).then(times_ten)

    assert recipe.submit(3).result() == -10
    assert recipe.submit(4).result() == 50


def test_exactly_one_of_a_pair_runs(executor):
    """In ``then(fn, on_error)`` exactly one of the two runs; ``on_error`` never sees an error of ``fn``."""
    recipe = Pipeline().then(fail_on_threes, on=executor).then(fail_on_threes, lambda e: 13)

    assert recipe.submit(3).result() == 13
    failing = Pipeline().then(increment, on=executor).then(fail_on_threes, lambda e: 13)
    with pytest.raises(ValueError, match="no threes"):
        failing.submit(2).result()


def test_finally_keeps_the_outcome(executor):
    """``finally_`` calls its function however the item fares, and keeps the outcome."""
    calls = []
    recipe = Pipeline().then(fail_on_threes, on=executor).finally_(lambda: calls.append(1)).then(increment)

    assert recipe.submit(1).result() == 2
    assert isinstance(recipe.submit(3).exception(), ValueError)
    assert calls == [1, 1]


def test_the_notes_name_the_step(executor):
    """An error carries a note that names the step which raised it, by its ``name=`` if it has one."""
    recipe = Pipeline().then(increment, on=executor).then(fail_on_threes, name="picky").then(times_ten)

    error = recipe.submit(2).exception()

    assert "raised in stage picky" in error.__notes__[0]


def test_a_step_that_raises_stop_iteration(executor):
    """A step that raises StopIteration fails with a RuntimeError from it."""
    error = Pipeline().then(stop, on=executor).submit("enough").exception()

    assert isinstance(error, RuntimeError)
    assert not isinstance(error, StopIteration)


def test_a_submitted_item_can_be_cancelled(pool):
    """Cancelling the future of an item withdraws what has not begun."""
    gate, ran = threading.Event(), []
    recipe = Pipeline().then(lambda v: gate.wait(), on=pool).then(ran.append)
    blockers = [pool.submit(gate.wait) for _ in range(2)]
    future = recipe.submit(1)

    assert future.cancel()
    gate.set()
    with pytest.raises(CancelledError):
        future.result()
    cf.wait(blockers)
    assert ran == []


def test_chains_go_on_from_an_item(pool):
    """What ``submit`` returns chains as every future does, on the executor of the last step."""
    future = Pipeline().then(increment, on=pool).submit(1).then(lambda v: threading.current_thread().name)

    assert future.result().startswith("ThreadPoolExecutor")


def test_a_shutdown_waits_for_the_steps_to_come():
    """The shutdown of an executor waits for items whose steps there are still to come."""
    gate = threading.Event()
    with futurechain.ThreadPoolExecutor(1) as first:
        with futurechain.ThreadPoolExecutor(1) as second:
            future = Pipeline().then(lambda v: gate.wait() and v, on=first).then(increment, on=second).submit(1)
            threading.Timer(0.01, gate.set).start()

    assert future.result() == 2


def test_steps_see_the_context_of_the_caller(pool):
    """A step sees the context in which the item was submitted, or the stream was made."""
    variable = contextvars.ContextVar("variable", default="none")
    recipe = Pipeline().then(lambda v: variable.get(), on=pool).then(lambda v: (v, variable.get()))
    variable.set("mine")
    stream = recipe.map([1, 2])
    future = recipe.submit(1)
    variable.set("later")

    assert future.result() == ("mine", "mine")
    assert list(stream) == [("mine", "mine")] * 2


def test_futures_and_coroutines_are_waited_for(pool):
    """What a step returns is flattened if it is a future or a coroutine, on what shares our memory."""

    async def later(value):
        return await pool.submit(times_ten, value)

    recipe = Pipeline().then(later, on=pool).then(lambda v: pool.submit(increment, v)).then(later, on=INLINE)

    assert recipe.submit(1).result() == 110
    assert list(recipe.map(range(3))) == [10, 110, 210]


# -- timeouts and retries ---------------------------------------------------------------------------------------------


def test_a_timeout_of_one_item(pool):
    """``timeout`` fails the item when its run takes too long, though the thread is still at it."""
    gate = threading.Event()
    recipe = Pipeline().then(lambda v: gate.wait(10), on=pool, timeout=0.01).catch(TimeoutError, lambda e: "late")

    assert recipe.submit(1).result(5) == "late"
    gate.set()


def test_a_timeout_counts_from_the_beginning():
    """The time that an item waits for a worker does not count."""
    with futurechain.ThreadPoolExecutor(1) as pool:
        gate = threading.Event()
        pool.submit(gate.wait)
        future = Pipeline().then(increment, on=pool, timeout=0.05).submit(1)
        assert not cf.wait([future], timeout=0.2).done
        gate.set()
        assert future.result() == 2


def test_a_retry_of_one_item(executor, tmp_path):
    """``retry`` tries again as the policy says, wherever the step runs."""
    recipe = Pipeline().then(note_run, on=executor, retry=policy(5)).then(times_ten)

    assert recipe.submit((str(tmp_path / "runs"), 4)).result() == 40


def test_a_retry_that_gives_up(executor):
    """When the policy gives up, the last error goes on, with the earlier ones as its causes."""
    quick = policy(3, reraise=True)
    error = Pipeline().then(fail_on_threes, on=executor, retry=quick).submit(3).exception()

    assert isinstance(error, ValueError)


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["concurrency", "batch"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bounds_of_a_step(name, value, error):
    """A number below 1 is a ValueError that names it, another type a TypeError, at ``then``."""
    with pytest.raises(error, match=f"{name}="):
        Pipeline().then(increment, **{name: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.then(3), "then"),
        (lambda p: p.then(increment, 3), "then"),
        (lambda p: p.catch(3), "catch"),
        (lambda p: p.catch(ValueError), "handler"),
        (lambda p: p.catch(3, increment), "catch"),
        (lambda p: p.catch(None), "wants a function"),
        (lambda p: p.catch(ValueError, None), "wants a function"),
        (lambda p: p.finally_(3), "finally_"),
        (lambda p: p.finally_(None), "wants a function"),
        (lambda p: p.then(increment, on=3), "executor"),
        (lambda p: p.then(increment, name=3), "name="),
        (lambda p: p.then(increment, timeout="long"), "timeout="),
        (lambda p: p.then(increment, retry=3), "retry="),
        (lambda p: p.then(increment, retry=tenacity.Retrying), "call it"),
        (lambda p: p.then(increment, batch="large"), "batch="),
        (lambda p: p.then(increment).map(3), "iterable"),
        (lambda p: p.then(increment).map([], ordered=1), "ordered="),
        (lambda p: p.then(increment).map([], window="x"), "window="),
        (lambda p: p.then(increment).map([], progress=3), "progress="),
        (lambda p: p.then(increment).map([], total="x"), "total="),
    ],
)
def test_wrong_types(make, message):
    """What is of a wrong type is a TypeError at the call that gives it, which says what is wanted."""
    with pytest.raises(TypeError, match=message):
        make(Pipeline())


@pytest.mark.parametrize("options", [{"window": 0}, {"window": -3}, {"total": -1}])
def test_wrong_numbers_of_a_stream(options):
    """A window below 1 is a ValueError, and so is a negative total."""
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        Pipeline().then(increment).map([], **options)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
def test_wrong_timeouts(timeout):
    """A timeout that is negative or not finite is a ValueError."""
    with pytest.raises(ValueError, match="timeout="):
        Pipeline().then(increment, timeout=timeout)


def test_an_empty_pipeline():
    """A pipeline without steps is a ValueError at ``map`` and ``submit``."""
    with pytest.raises(ValueError, match="without steps"):
        Pipeline().map([1])
    with pytest.raises(ValueError, match="without steps"):
        Pipeline().submit(1)


def test_an_async_function_in_another_process(processes):
    """An ``async def`` step on an executor that does not share our memory is a TypeError at ``then``."""

    async def step(value): ...

    with pytest.raises(TypeError, match="async def function step"):
        Pipeline().then(step, on=processes)


@pytest.mark.parametrize(
    "make",
    [
        futurechain.ThreadPoolExecutor,
        cf.ThreadPoolExecutor,
        futurechain.ProcessPoolExecutor,
        cf.ProcessPoolExecutor,
    ],
)
@pytest.mark.parametrize("view", [False, True])
def test_an_executor_that_is_shut_down(make, view):
    """An executor that is shut down is a RuntimeError at the call that first can know, also through a view of it."""
    pool = make(1)
    on = futurechain.limit(futurechain.wrap_executor(pool), concurrency=1) if view else pool
    recipe = Pipeline().then(increment, on=on)
    stream = recipe.map([1])
    pool.shutdown()

    for call in (
        lambda: Pipeline().then(increment, on=on),
        lambda: recipe.map([1]),
        lambda: recipe.submit(1),
        lambda: next(stream),
    ):
        with pytest.raises(RuntimeError, match=r"shut ?down"):
            call()


class Data:
    """A data set that does not know how much it has."""

    def __len__(self):
        raise NotImplementedError

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize("items", [range(10**30), Data()])
def test_an_input_whose_length_cannot_be_told(items):
    """An input that has no length to tell is read all the same."""
    with Pipeline().then(increment).map(items) as stream:
        assert [next(stream) for _ in range(3)] == [1, 2, 3]


def test_with_pid_runs_in_another_process(processes):
    """Two steps on one process pool are one trip: the same worker runs them."""
    value, first, second = Pipeline().then(with_pid, on=processes).then(with_pid).submit(1).result()

    assert value == 1
    assert first == second
