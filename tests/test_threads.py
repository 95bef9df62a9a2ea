"""`ThreadPoolExecutor`: whole chains on a pool of threads."""

from __future__ import annotations

import concurrent.futures as cf
import contextvars
import gc
import importlib.util
import itertools
import queue
import sys
import threading
import weakref

import pytest

import work
from futurechain import INLINE, Future, ThreadPoolExecutor, succeed
from futurechain.errors import BrokenExecutor, ExecutorShutdownError
from guard import within
from programs import run_program

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


def name(*_):
    return threading.current_thread().name


def test_fetch_parse_save_gives_the_last_value(pool):
    """`submit(fetch).then(parse).then(save).result()` is what the last step returns."""
    assert pool.submit(work.fetch, "url").then(work.parse).then(work.save).result(10) == "Save successful"


def test_fetch_parse_save_with_callbacks(pool):
    """The same in statement form through `final`, and in fluent form through what the call returns."""
    future = pool.submit(work.fetch, "url")
    future.addCallback(work.parse)
    future.addCallback(work.save)

    assert future.final.result(10) == "Save successful"
    assert pool.submit(work.fetch, "url").addCallback(work.parse).addCallback(work.save).result(10) == "Save successful"
    assert future.result() == "page of url"


def test_is_a_standard_pool(pool):
    """Who asks for a standard thread pool gets one."""
    assert isinstance(pool, cf.ThreadPoolExecutor)
    assert isinstance(pool.submit(int), Future)
    assert list(pool.map(work.double, range(5))) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(("arguments", "named"), [((), "nothing"), ((3,), "3")])
def test_submit_wants_a_function(pool, arguments, named):
    """`submit` without a function is a TypeError that names what was given, at the call."""
    with pytest.raises(TypeError, match=f"not {named}"):
        pool.submit(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"max_workers": 0}, ValueError), ({"initializer": 3}, TypeError)],
)
def test_bad_arguments(arguments, error):
    """The constructor refuses what the standard one refuses."""
    with pytest.raises(error):
        ThreadPoolExecutor(**arguments)


def test_stages_run_in_the_pool(pool):
    """A stage runs in a worker, attached before or after its parent is settled; never in the attaching thread."""
    done = pool.submit(int)
    done.result(10)
    prefix = pool._thread_name_prefix

    assert done.then(name).result(10).startswith(prefix)
    assert done.catch(name).then(name).then(name).result(10).startswith(prefix)
    assert done.then(name, on=INLINE).result(10) == name()


def test_the_worker_carries_on():
    """The worker that settled the parent runs the first stage itself."""
    gate = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: gate.wait(10) and threading.get_ident())
        second = first.then(lambda ident: (ident, threading.get_ident()))
        gate.set()
        before, after = second.result(10)

    assert before == after


def test_a_fan_out_uses_all_workers():
    """Further stages of one future are shared out: three that wait for each other all run."""
    barrier = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        gate = threading.Event()
        source = pool.submit(gate.wait, 10)
        stages = [source.then(lambda _: barrier.wait(10)) for _ in range(3)]
        gate.set()

        assert sorted(stage.result(10) for stage in stages) == [0, 1, 2]


def test_callbacks_run_in_the_settling_thread(pool):
    """A Twisted-family callback runs in the worker that settles the stage before."""
    gate = threading.Event()
    future = pool.submit(gate.wait, 10)
    future.addCallback(name)
    gate.set()

    assert future.final.result(10).startswith(pool._thread_name_prefix)


def test_pass_through_needs_no_worker():
    """What is skipped needs no worker: it goes through while all are busy."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        failed = pool.submit(work.boom)
        failed.exception(10)
        pool.submit(gate.wait, 10)
        passed = failed.then(work.double).then(work.double)
        assert isinstance(passed.exception(5), ValueError)
        gate.set()


def test_context_is_that_of_the_attaching():
    """A task and a stage see the context in which they were submitted or attached."""
    with ThreadPoolExecutor(1) as pool:
        VARIABLE.set("submitted")
        gate = threading.Event()
        task = pool.submit(lambda: gate.wait(10) and VARIABLE.get())
        VARIABLE.set("attached")
        stage = task.then(lambda before: (before, VARIABLE.get()))
        local = task.addCallback(lambda _: VARIABLE.get())
        VARIABLE.set("later")
        gate.set()

        assert stage.result(10) == ("submitted", "attached")
        assert local.result(10) == "unset"


def test_returned_tasks_are_flattened(pool):
    """A task, too, may return a future or be followed by one."""
    assert pool.submit(pool.submit, work.double, 4).result(10) == 8
    assert pool.submit(work.double, 2).then(lambda value: pool.submit(work.double, value)).result(10) == 8


# -- ending ---------------------------------------------------------------------------------------------------------


def test_shutdown_waits_for_whole_chains():
    """Leaving the with block waits for stages that were not submitted yet."""
    seen, gate = [], threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(gate.wait, 10).then(seen.append).then(lambda _: seen.append("last"))
        gate.set()

    assert seen == [True, "last"]


def test_shutdown_without_waiting_lets_chains_end():
    """After shutdown(wait=False) what was begun still ends; new work is refused."""
    gate = threading.Event()
    pool = ThreadPoolExecutor(1)
    stage = pool.submit(gate.wait, 10).then(str).then(str)
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    gate.set()

    assert stage.result(10) == "True"


def test_stages_attached_in_time_run_although_the_pool_has_no_thread_yet():
    """A pending stage of a pool that never had a task is waited for, too."""
    pool, source = ThreadPoolExecutor(1), Future()
    stage = source.then(work.double, on=pool)
    pool.shutdown(wait=False)
    source.set_result(2)

    assert stage.result(10) == 4
    pool.shutdown()


def test_shutdown_cancels_pending_stages():
    """shutdown(cancel_futures=True) cancels queued tasks and pending stages; what runs is left to end."""
    gate, started = threading.Event(), threading.Event()
    pool = ThreadPoolExecutor(1)
    running = pool.submit(lambda: started.set() or gate.wait(10))
    stage, queued = running.then(str), pool.submit(int)
    started.wait(10)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.set()
    pool.shutdown()

    assert running.result(0) is True
    assert stage.cancelled()
    assert queued.cancelled()


def test_a_stage_after_the_shutdown_fails_with_the_remedy():
    """A stage on a pool that has been shut down fails with an error that shows what to do."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(int)
    pool.shutdown()

    with pytest.raises(ExecutorShutdownError, match="on=INLINE"):
        future.then(str).result(0)
    assert future.then(str, on=INLINE).result(0) == "0"
    assert future.then(None).result(0) == 0


def test_shutdown_from_a_worker():
    """A task may shut its own pool down; it does not wait for itself."""
    pool = ThreadPoolExecutor(1)

    assert pool.submit(pool.shutdown).result(10) is None
    pool.shutdown()


def test_a_dropped_pool_ends_its_chains_and_threads():
    """An executor that is collected still ends what was begun, and its threads go."""
    gate = threading.Event()
    pool = ThreadPoolExecutor(1)
    stage, threads = pool.submit(gate.wait, 10).then(str), tuple(pool._threads)
    ref = weakref.ref(pool)
    del pool
    gc.collect()
    gate.set()

    assert ref() is None
    assert stage.result(10) == "True"
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_no_thread_is_left():
    """A closed pool leaves no thread behind."""
    before = threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work.double, range(100)))

    assert threading.active_count() <= before


# -- failing --------------------------------------------------------------------------------------------------------


def test_system_exit_costs_no_worker():
    """sys.exit() in a task, a stage, a callback or a done callback settles it, and the worker goes on."""
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(work.leave)
        task.add_done_callback(work.leave)
        assert isinstance(task.exception(10), SystemExit)
        assert isinstance(pool.submit(int).then(work.leave).exception(10), SystemExit)
        assert isinstance(pool.submit(int).addCallback(work.leave).exception(10), SystemExit)
        assert pool.submit(work.double, 2).result(10) == 4


def test_a_failing_initializer_breaks_the_pool(caplog):
    """Everything on the pool fails, now and later."""
    pool = ThreadPoolExecutor(1, initializer=work.boom)
    with pytest.raises(BrokenExecutor):
        pool.submit(int).result(10)
    with pytest.raises(BrokenExecutor):
        pool.submit(int)
    assert isinstance(succeed(1).then(str, on=pool).exception(10), BrokenExecutor)
    assert "Exception in initializer" in caplog.text
    pool.shutdown()


def test_initializer_runs_in_each_thread():
    """The initializer gets its arguments, once in each thread."""
    seen = []
    with ThreadPoolExecutor(1, "named", seen.append, ("ready",)) as pool:
        assert pool.submit(name).result(10) == "named_0"

    assert seen == ["ready"]


def test_a_thread_that_cannot_be_started(monkeypatch):
    """submit raises what the start raises; a stage fails with it."""
    pool = ThreadPoolExecutor(1)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        pool.submit(int)
    assert isinstance(succeed(1).then(str, on=pool).exception(10), RuntimeError)
    monkeypatch.undo()
    pool.shutdown(cancel_futures=True)


def test_repr_tells_the_state(pool):
    """The repr has the name, the state and the number of threads."""
    assert repr(pool) == f"<ThreadPoolExecutor {pool._thread_name_prefix} open, 0 threads>"


def test_interpreter_exit_ends_chains():
    """At interpreter exit the chains of a pool nobody closed still end; submitting then is refused."""
    program = """
        import atexit, threading
        from futurechain import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        gate = threading.Event()
        pool.submit(gate.wait, 10).then(str).then(print)
        threading._register_atexit(gate.set)  # what is registered last is called first: the end has begun

        def late():
            try:
                pool.submit(int)
            except RuntimeError as error:
                print(error)

        atexit.register(late)
    """
    run = run_program(program)

    assert run.stderr == ""
    assert run.stdout == "True\ncannot schedule new futures after interpreter shutdown\n"


# -- races ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hectic():
    """Threads are switched as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_submit_against_shutdown(hectic):
    """Submitted in the very moment of the shutdown, a task is refused or it runs; nothing is lost."""
    for _ in range(300):
        pool, barrier, outcomes = ThreadPoolExecutor(2), threading.Barrier(2), []

        def submit(pool=pool, barrier=barrier, outcomes=outcomes):
            barrier.wait()
            try:
                for _ in range(5):
                    outcomes.append(pool.submit(int).then(str))
            except RuntimeError:
                outcomes.append(None)

        thread = threading.Thread(target=submit)
        thread.start()
        barrier.wait()
        pool.shutdown()
        thread.join()
        for future in filter(None, outcomes):
            assert future.result(10) == "0" if future.exception(10) is None else True


def test_attach_against_settle(hectic):
    """Stages attached by one thread while another settles the future all run, exactly once."""
    for _ in range(500):
        future, barrier, seen = Future(), threading.Barrier(2), []
        thread = threading.Thread(target=lambda f=future, b=barrier: (b.wait(), f.set_result(1)))
        thread.start()
        barrier.wait()
        stages = [future.then(seen.append) for _ in range(5)]
        thread.join()
        for stage in stages:
            stage.result(10)

        assert seen == [1] * 5


def test_settle_against_settle_against_cancel(hectic):
    """Of several who settle one future exactly one wins."""
    for _ in range(500):
        future, barrier, won = Future(), threading.Barrier(3), []

        def attempt(action, future=future, barrier=barrier, won=won):
            barrier.wait()
            try:
                if action(future) is not False:
                    won.append(action)
            except cf.InvalidStateError:
                pass

        actions = (lambda f: f.set_result(1), lambda f: f.set_exception(KeyError()), Future.cancel)
        threads = [threading.Thread(target=attempt, args=(action,)) for action in actions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(won) == 1
        assert future.done()


def test_cancel_against_run(hectic):
    """A queued task that is cancelled never runs, one that runs is not cancelled."""
    with ThreadPoolExecutor(2) as pool:
        for _ in range(1000):
            ran = []
            task = pool.submit(ran.append, 1)
            cancelled = task.cancel()
            cf.wait([task], 10)
            assert bool(ran) is not cancelled
            assert task.cancelled() is cancelled


def test_standard_attributes(pool):
    """Who looks for the standard pool's attributes finds them."""
    pool.submit(int).result(10)

    assert len(pool._threads) == pool._max_workers - 1
    assert pool._work_queue.empty()
    assert pool._broken is False
    assert pool._shutdown is False


def test_the_interpreter_exits_although_a_stage_waits():
    """A stage behind a future that nobody will settle holds up no exit."""
    program = (
        "from futurechain import Future, ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(2)\n"
        "assert pool.submit(int).result() == 0\n"
        "root = Future()\n"
        "stage = root.then(str, on=pool)\n"
    )
    run = run_program(program)
    assert (run.stdout, run.stderr) == ("", "")


# -- waiting workers, and begun work first ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        lambda future: future.result(10),
        lambda future: future.exception(10) or 3,
        lambda future: len(cf.wait([future], 10).done) + 2,
        lambda future: next(cf.as_completed([future], 10)).result(),
    ],
)
def test_a_worker_that_waits_runs_what_it_waits_for(wait):
    """On a pool of one, at any depth."""
    with ThreadPoolExecutor(1) as pool:

        def nest(depth):
            return wait(pool.submit(nest, depth - 1)) if depth else 3

        assert pool.submit(nest, 5).result(30) == 3


def test_a_waiting_worker_runs_that_work_alone_and_in_its_context():
    """What was queued before stays queued, and the task sees the context in which it was submitted."""
    order = []
    with ThreadPoolExecutor(1) as pool:

        def outer():
            pool.submit(order.append, "queued before")
            VARIABLE.set("inner")
            inner = pool.submit(lambda: order.append("waited for") or VARIABLE.get())
            VARIABLE.set("outer")
            return inner.result(10), VARIABLE.get()

        assert pool.submit(outer).result(10) == ("inner", "outer")
    assert order == ["waited for", "queued before"]


def test_begun_work_goes_first():
    """Stages, and what tasks and handlers submit, come before tasks that have not begun."""
    order, gate = [], threading.Event()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gate.wait, 10)
        for number in range(3):
            pool.submit(order.append, number)
        first.then(lambda _: order.append("stage"))
        first.then(lambda _: order.append("branch") or (pool.submit(order.append, "inside") and None))
        gate.set()

    assert order == ["stage", "branch", "inside", 0, 1, 2]


def test_few_intermediate_results_are_held():
    """A thousand `submit(load).then(reduce)` hold as many of what `load` returns as there are workers, nearly."""

    class Page:
        alive, most = 0, 0

        def __init__(self):
            Page.alive += 1
            Page.most = max(Page.most, Page.alive)

        def __del__(self):
            Page.alive -= 1

    with ThreadPoolExecutor(2) as pool:
        stages = [pool.submit(Page).then(lambda page: 1) for _ in range(1000)]
    assert sum(stage.result() for stage in stages) == 1000
    assert Page.most <= 8


def test_a_queued_task_and_a_carried_stage_can_be_cancelled():
    """A worker holds the one that it runs, and no other."""
    gate, entered, ran = threading.Event(), threading.Event(), []
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(lambda: entered.set() or gate.wait(10))
        queued = pool.submit(ran.append, "queued")
        stage = task.then(lambda _: ran.append("stage"))
        local = task.addCallback(lambda _: stage.cancel())
        assert entered.wait(10)
        assert queued.cancel()
        gate.set()
        assert local.result(10) is True

    assert ran == []


# -- what others do with a pool ---------------------------------------------------------------------------------------


def test_items_that_are_drained_look_like_the_standard_ones():
    """With `future`, `fn`, `args`, `kwargs` and `task`; the pool neither runs them nor waits for them any more."""
    gate = threading.Event()
    pool = ThreadPoolExecutor(1)
    running = pool.submit(gate.wait, 10)
    futures = [pool.submit(pow, base, exp=2) for base in range(4)]
    behind = [future.then(str) for future in futures]
    assert pool._work_queue.qsize() == 4

    items = []
    while not pool._work_queue.empty():
        items.append(pool._work_queue.get(block=False))
    with pytest.raises(queue.Empty):
        pool._work_queue.get_nowait()

    assert [(item.future, item.fn, item.args, item.kwargs) for item in items] == [
        (future, pow, (base,), {"exp": 2}) for base, future in enumerate(futures)
    ]
    assert items[2].task == (pow, (2,), {"exp": 2})
    items[2].run()
    items[3].future.set_result("by hand")
    assert futures[2].result(0) == 4

    del items
    gate.set()
    assert behind[3].result(10) == "by hand"
    pool.shutdown()
    assert running.result(0) is True
    assert [future.cancelled() for future in futures] == [True, True, False, False]
    assert behind[0].cancelled()


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_green_threads(library):
    """The pool works with both kinds of green threads, on which whatever blocks must be what they have patched."""
    if importlib.util.find_spec(library) is None:  # not imported here: they change what this process does
        pytest.skip(f"{library} is not installed")
    program = f"""
        import warnings
        warnings.simplefilter("ignore")
        if "{library}" == "gevent":
            from gevent import monkey
            monkey.patch_all()
        else:
            import eventlet
            eventlet.monkey_patch()
        import concurrent.futures as cf
        import time
        from futurechain import ThreadPoolExecutor, delay, gather
        seen = []
        with ThreadPoolExecutor(2) as pool:
            assert [task.result() for task in [pool.submit(time.sleep, 0.05) for _ in range(5)]] == [None] * 5
            assert pool.submit(int).then(lambda v: pool.submit(abs, v - 1)).then(str).result(10) == "1"
            assert list(pool.map(abs, [-1, -2])) == [1, 2]
            assert gather(*[pool.submit(abs, -n) for n in range(3)]).result(10) == (0, 1, 2)
            assert delay(0.05, 5).then(str).result(10) == "5"
            assert pool.submit(lambda: pool.submit(lambda: 7).result(10)).result(10) == 7
            assert len(cf.wait([pool.submit(abs, -n) for n in range(3)], 10).done) == 3
            pool.submit(time.sleep, 0.05).then(seen.append)
        print(seen)
    """
    run = run_program(program)
    assert (run.stdout, run.stderr) == ("[None]\n", "")


def test_who_blocks_hands_over_what_it_was_to_carry_on_with():
    """Although what it waits for, which another thread settles, is not known to depend on that."""
    with ThreadPoolExecutor(2) as pool:
        go, settled_elsewhere = threading.Event(), Future()
        task = pool.submit(go.wait, 10)
        carried = task.then(lambda _: "carried")
        carried.add_done_callback(settled_elsewhere.set_result)
        waiting = task.addCallback(lambda _: settled_elsewhere.result(5).result(0))
        go.set()
        try:
            assert waiting.result(10) == "carried"
        finally:
            carried.cancel()


def test_shutdown_waits_for_a_worker_that_is_being_started(monkeypatch):
    """However long that takes."""
    gate, ended = threading.Event(), []
    start = threading.Thread.start

    def slow(thread):
        if thread.name.startswith("slow"):
            gate.wait(10)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slow)
    pool = ThreadPoolExecutor(2, "slow", ended.append, ("began",))
    submitter = threading.Thread(target=pool.submit, args=(int,))
    submitter.start()
    while not pool._threads:
        pass
    closer = threading.Thread(target=lambda: pool.shutdown() or ended.append("shut down"))
    closer.start()
    closer.join(0.05)
    assert ended == []
    gate.set()
    submitter.join(10)
    closer.join(10)
    assert ended == ["began", "shut down"]
    assert not any(thread.is_alive() for thread in pool._threads)


def test_chains_against_shutdown(hectic):
    """What other threads attach while the pool shuts down is run, or refused with the remedy; nothing is lost."""
    for _ in range(200):
        pool, barrier, stages = ThreadPoolExecutor(2), threading.Barrier(2), []
        root = pool.submit(int)

        def attach(barrier=barrier, root=root, stages=stages, pool=pool):
            barrier.wait()
            stages.extend(root.then(lambda _: pool.submit(int).then(str)) for _ in range(5))

        thread = threading.Thread(target=attach)
        thread.start()
        barrier.wait()
        pool.shutdown()
        thread.join()
        for stage in stages:
            error = stage.exception(10)
            assert stage.result(0) == "0" if error is None else isinstance(error, RuntimeError)


@within(60)
def test_a_pool_whose_shutdown_cancels_while_a_task_of_it_submits():
    """At whatever call of that: the shutdown ends, and what was submitted is refused or cancelled, or has run."""
    before = sys.getprofile()
    for moment in itertools.count(1):
        pool, calls = ThreadPoolExecutor(1), itertools.count(1)

        def cancel_then(_, event, __, calls=calls, moment=moment, pool=pool):
            if event == "call" and next(calls) == moment:
                sys.setprofile(before)
                pool.shutdown(wait=False, cancel_futures=True)

        def submit(pool=pool, hook=cancel_then):
            pool.shutdown(wait=False)
            sys.setprofile(hook)
            try:
                return [pool.submit(int)]
            except RuntimeError:
                return []
            finally:
                sys.setprofile(before)

        futures = pool.submit(submit).result(30)
        pool.shutdown()
        assert all(future.cancelled() or future.result(0) == 0 for future in futures)
        if next(calls) <= moment:
            assert moment > 3
            break
