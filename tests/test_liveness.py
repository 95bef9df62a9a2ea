"""Nothing hangs and nothing is lost: races of two threads, forks, odd exceptions, lost workers."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import gc
import logging
import sys
import threading
import time
from collections import Counter

import pytest

import work
from futurechain import (
    INLINE,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    delay,
    ensure_future,
    fail,
    first,
    gather,
    inlineCallbacks,
    race,
    some,
    succeed,
    wrap_executor,
)
from futurechain.errors import BrokenExecutor, CancelledError
from guard import check, share, within

LONG = 20


@pytest.fixture
def hasty():
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(*actions):
    """Do all of these at the same moment, each in a thread of its own; the last one in this thread."""
    barrier = threading.Barrier(len(actions))

    def act(action):
        barrier.wait(LONG)
        action()

    threads = [threading.Thread(target=act, args=(action,)) for action in actions[:-1]]
    for thread in threads:
        thread.start()
    act(actions[-1])
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


class Team:
    """Threads that do one action each, at the same moment, round after round."""

    def __init__(self, size):
        self._barrier = threading.Barrier(size + 1)
        self._actions = [None] * size
        self._errors = []
        self._threads = [
            threading.Thread(target=self._serve, args=(index,), daemon=True) for index in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def _serve(self, index):
        while True:
            self._barrier.wait()
            action = self._actions[index]
            if action is None:
                return
            try:
                action()
            except BaseException as error:
                self._errors.append(error)
            self._barrier.wait()

    def do(self, *actions):
        self._actions[:] = actions
        self._barrier.wait(LONG)
        self._barrier.wait(LONG)
        if self._errors:
            raise self._errors.pop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._actions[:] = [None] * len(self._actions)
        self._barrier.wait(LONG)
        for thread in self._threads:
            thread.join(LONG)


def is_settled(future):
    try:
        future.exception(LONG)
    except CancelledError:
        pass
    return future.done()


# -- rings  ----------------------------------


def returned_by_then(source, box, other):
    return source.then(lambda _: box[other])


def returned_by_callback(source, box, other):
    return source.addCallback(lambda _: box[other])


def returned_by_finally(source, box, other):
    return source.finally_(lambda: box[other])


def returned_after_a_stage(source, box, other):
    return source.then(lambda _: box[other]).then(lambda v: v)


def returned_in_a_gather(source, box, other):
    return source.then(lambda _: gather(box[other]))


def awaited(source, box, other):
    async def walk():
        await source
        return await box[other]

    return ensure_future(walk())


def yielded(source, box, other):
    @inlineCallbacks
    def walk():
        yield source
        return (yield box[other])

    return walk()


WAYS = [
    returned_by_then,
    returned_by_callback,
    returned_by_finally,
    returned_after_a_stage,
    returned_in_a_gather,
    awaited,
    yielded,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1, 2, 3])
@within(60)
def test_a_ring_is_seen(way, size):
    """Futures that wait for each other in a ring fail with a TypeError that names the cycle."""
    for order in range(size):
        sources, box = [Future() for _ in range(size)], []
        box.extend(way(sources[index], box, (index + 1) % size) for index in range(size))
        for index in range(size):
            sources[(order + index) % size].set_result(None)
        errors = [one.exception(LONG) for one in box]
        assert any(isinstance(error, TypeError) for error in errors)
        assert all(isinstance(error, (TypeError, CancelledError)) for error in errors)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [2, 3])
@within(100)
def test_a_ring_closed_by_threads_at_the_same_moment(way, size, hasty):
    """A ring that two or three threads close together is seen by one of them; all its futures are settled."""
    rounds = share(1500)
    with Team(size) as team:
        for number in range(rounds):
            sources, box = [Future() for _ in range(size)], []
            box.extend(way(sources[index], box, (index + 1) % size) for index in range(size))
            team.do(*[lambda source=source: source.set_result(None) for source in sources])
            for one in box:
                assert one.done(), f"round {number}: {box}"
                assert isinstance(one.exception(0), TypeError)


@within(100)
def test_a_ring_closed_by_pools(hasty):
    """The same by the workers of two pools."""
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        for _ in range(500):
            box = []
            go = threading.Event()
            box.append(a.submit(go.wait, LONG).then(lambda _, box=box: box[1]))
            box.append(b.submit(go.wait, LONG).then(lambda _, box=box: box[0]))
            go.set()
            for one in box:
                assert isinstance(one.exception(LONG), TypeError)


@within(100)
def test_rings_and_cancellation_at_the_same_moment(hasty):
    """A ring that is being closed while one of it is cancelled: everything is settled."""
    with Team(3) as team:
        for _ in range(1000):
            sources, box = [Future(), Future()], []
            box.extend(returned_by_then(sources[index], box, 1 - index) for index in range(2))
            end = box[0].then(lambda v: v)
            team.do(lambda s=sources: _set(s[0]), lambda s=sources: _set(s[1]), end.cancel)
            assert all(one.done() for one in (*box, end)), (box, end)


# -- races with a cancellation  ----------------------------------


@within(100)
def test_cancel_races_settle(hasty):
    """cancel() of a root, a stage, a branch or a combination while the root is settled: all is settled, once."""
    with Team(3) as team:
        for number in range(1500):
            source, ran = Future(), Counter()
            inner = Future()
            stage = source.then(lambda v, ran=ran: ran.update(["stage"]))
            returned = source.then(lambda _, inner=inner: inner)
            last = returned.then(lambda v, ran=ran: ran.update(["last"]))
            callback = source.addCallback(lambda v, ran=ran: ran.update(["callback"]))
            together = gather(stage, last, callback)
            targets = [source, stage, returned, last, callback, together, inner]
            one, other = targets[number % 7], targets[number // 7 % 7]
            team.do(lambda source=source: _set(source), one.cancel, other.cancel)
            _set(inner)
            for future in targets:
                assert future.done(), (future, targets)
            assert max(ran.values(), default=1) == 1


def _set(future):
    with contextlib.suppress(cf.InvalidStateError):  # somebody has cancelled it
        future.set_result(0)


@within(100)
def test_attach_races_settle(hasty):
    """then, addCallback, done callbacks, combinations and waits that come while the root is settled all hear of it."""
    with Team(4) as team:
        for _ in range(1000):
            source, got = Future(), []
            actions = [
                lambda source=source, got=got: got.append(source.then(lambda v: v)),
                lambda source=source, got=got: got.append(source.addCallback(lambda v: v)),
                lambda source=source, got=got: got.append(gather(source, race(source))),
                lambda source=source: source.set_result(1),
            ]
            team.do(*actions)
            assert len(got) == 3
            for future in got:
                assert future.done()
                assert future.exception(0) is None


@within(100)
def test_ends_of_a_chain_attached_at_once(hasty):
    """addCallback by four threads at once makes one chain: each callback gets what another one has returned."""
    with Team(4) as team:
        for settle_first in (True, False) * 300:
            source = Future()
            if settle_first:
                source.set_result(0)
            team.do(*[lambda source=source: source.addCallback(lambda v: v + 1) for _ in range(4)])
            if not settle_first:
                source.set_result(0)
            assert source.final.result(0) == 4


@within(100)
def test_the_end_of_a_chain_read_at_once(hasty):
    """f.final is a future of the chain at any moment, and never None."""
    with Team(3) as team:
        for _ in range(500):
            source, seen = Future(), []

            def read(source=source, seen=seen):
                seen.extend(source.final for _ in range(10))

            def attach(source=source):
                for _ in range(10):
                    source.addCallback(lambda v: v + 1)

            team.do(read, attach, attach)
            source.set_result(0)
            assert all(isinstance(one, Future) and one.done() for one in seen)
            assert source.final.result(0) == 20


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
@within(110)
def test_cancel_races_the_launch_of_a_stage(kind, hasty):
    """A stage cancelled while its pool takes it is no longer waited for: the shutdown ends."""
    rounds = 300 if kind is ProcessPoolExecutor else 2000
    with kind(2) as pool, Team(2) as team:
        for _ in range(rounds):
            source = Future()
            stage = source.then(abs, on=pool)
            end = stage.then(abs)
            team.do(lambda source=source: _set(source), stage.cancel)
            assert is_settled(end)


@within(60)
def test_cancel_races_the_submission_to_a_pool(hasty):
    """The same by way of a task: cancelled in the moment in which a worker takes it."""
    with ThreadPoolExecutor(2) as pool, Team(2) as team:
        for _ in range(1000):
            box = []

            def submit(box=box):
                box.append(pool.submit(abs, -1))
                box.append(box[0].then(abs))

            def cancel(box=box):
                while not box:
                    pass
                box[0].cancel()

            team.do(submit, cancel)
            assert all(is_settled(one) for one in box)


def test_exit_after_cancelled_launches():
    """Process stages that were cancelled at all moments of their launch do not hold up the end of the program."""
    check(
        """
        import sys, threading
        from futurechain import Future, ProcessPoolExecutor
        sys.setswitchinterval(1e-6)
        pool = ProcessPoolExecutor(1)
        for _ in range(300):
            source = Future()
            stage = source.then(abs, on=pool)
            thread = threading.Thread(target=stage.cancel)
            thread.start()
            try:
                source.set_result(-1)
            except Exception:
                pass  # it was cancelled, too
            thread.join()
        print("end")
        """,
        prints="end",
        seconds=60,
    )


# -- pools  ----------------------------------


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_cancelled_task_and_a_lost_worker(wrapped, tmp_path):
    """A queued process task is cancelled, then a worker is lost: everything is settled, and the program ends."""
    check(
        f"""
        import concurrent.futures as cf, pathlib, time
        import process_work, work
        from futurechain import ProcessPoolExecutor, wrap_executor
        pool = wrap_executor(cf.ProcessPoolExecutor(1)) if {wrapped} else ProcessPoolExecutor(1)
        gate = pathlib.Path({str(tmp_path / "gate")!r})
        ends = [pool.submit(process_work.wait_for, gate), pool.submit(work.die)]
        ends += [pool.submit(time.sleep, 60) for _ in range(5)]
        ends += [end.then(abs) for end in ends]
        print(ends[4].cancel())
        gate.touch()
        print(len(cf.wait(ends, 20).done))
        """,
        prints="True 14",
    )


@pytest.mark.parametrize("number", range(4))
def test_a_lost_worker_and_every_queued_task_cancelled(number):
    """Whichever of the queued tasks and their stages were cancelled before, a lost worker leaves nothing pending."""
    check(
        f"""
        import concurrent.futures as cf, os, random, time
        import work
        from futurechain import ProcessPoolExecutor
        chance = random.Random({number})
        pool = ProcessPoolExecutor(2)
        ends = [pool.submit(time.sleep, 0.2).then(work.die)]
        ends += [pool.submit(time.sleep, 0.3 + chance.random()) for _ in range(12)]
        ends += [end.then(abs) for end in ends] + [end.addCallback(abs) for end in ends[:5]]
        time.sleep(0.1)
        for end in chance.sample(ends[3:], 12):
            end.cancel()
        print(len(cf.wait(ends, 20).done) == len(ends))
        """,
        prints="True",
    )


@within(60)
def test_callback_threads_have_a_bound():
    """Thousands of delays whose handlers block take no thread each; all are run."""
    before, release, count = threading.active_count(), threading.Event(), []
    try:
        ends = [delay(0.01).then(lambda _: (release.wait(LONG), count.append(1))) for _ in range(3000)]
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert threading.active_count() - before <= 513
            time.sleep(0.05)
    finally:
        release.set()
    cf.wait(ends, LONG)
    assert len(count) == 3000


@within(60)
def test_blocked_callback_threads_are_joined_by_more():
    """While all callback threads are blocked, the one callback that would release them still runs."""
    release, number = threading.Event(), 60
    blocked = [delay(0.001).then(lambda _: release.wait(LONG)) for _ in range(number)]
    delay(0.05).then(lambda _: release.set())
    assert all(one.result(LONG) for one in blocked)


# -- forks  ----------------------------------


FORK_WHILE = {
    "addCallback": """
        while not stop:
            source = Future()
            for _ in range(20):
                source.addCallback(abs)
            source.set_result(-1)
    """,
    "pools": """
        with ThreadPoolExecutor(2) as other:
            while not stop:
                other.submit(abs, -1).then(abs).addCallback(abs).result()
    """,
    "timers": """
        while not stop:
            ends = [delay(0.0001), Future().timeout(0.0001), delay(60)]
            ends[0].result()
            ends[2].cancel()
    """,
    "logging": """
        import logging
        logging.disable()
        while not stop:
            fail(KeyError()).then(abs)
    """,
    "waits": """
        import concurrent.futures as cf
        while not stop:
            source = Future()
            cf.wait([source], 0.0001)
            gather(source, race(source)).cancel()
    """,
}


@pytest.mark.parametrize("name", FORK_WHILE)
def test_a_fork_while_another_thread_is_in_the_library(name):
    """A child forked at any moment can use the library: chains, pools of its own, timers."""
    import textwrap

    body = textwrap.dedent(FORK_WHILE[name])
    program = f"""
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
from futurechain import *
sys.setswitchinterval(1e-5)
stop = []
def busy():
{textwrap.indent(body, "    ")}
def child():
    source = Future()
    end = source.addCallback(abs).addCallback(abs)
    source.set_result(-3)
    assert source.final.result(5) == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(abs, -3).then(abs).addCallback(abs).result(5) == 3
    assert delay(0.001, 3).then(abs).result(5) == 3
    os._exit(0)
thread = threading.Thread(target=busy, daemon=True)
thread.start()
bad = 0
for number in range(40):
    time.sleep(0.001)
    if not (pid := os.fork()):
        try:
            child()
        finally:
            os._exit(1)
    end = time.monotonic() + 8
    while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < end:
        time.sleep(0.002)
    if time.monotonic() >= end:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        bad += 1
        break
stop.append(1)
thread.join(5)
print(bad)
os._exit(0)
"""
    check(program, prints="0", seconds=60)


def test_a_pool_that_was_forked_refuses_or_works():
    """In a forked child the parent's thread pool works or refuses at once; stages can be attached to its futures."""
    check(
        """
        import os, threading, warnings
        warnings.simplefilter("ignore")
        from futurechain import *
        pool = ThreadPoolExecutor(2)
        root = pool.submit(abs, -1)
        root.result()
        if not (pid := os.fork()):
            assert root.then(abs, on=INLINE).result(5) == 1
            print("child", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print(pool.submit(abs, -2).result(5))
        """,
        prints="child 2",
    )


# -- odd exceptions  ----------------------------------


class Odd(Exception):
    """Raises whatever one asks of it."""


def _refuse(self, *_):
    raise ZeroDivisionError("odd")


def _exit(self, *_):
    raise SystemExit("odd")


def _refuse_attributes(self, name):
    if name.startswith("__") and name != "__notes__":
        return object.__getattribute__(self, name)
    raise ZeroDivisionError(name)


def _exit_on_all(self, name):
    raise SystemExit(name)


ODD = {
    "bool": {"__bool__": _refuse},
    "bool exits": {"__bool__": _exit},
    "eq": {"__eq__": _refuse, "__hash__": _refuse},
    "len": {"__len__": _refuse},
    "str": {"__str__": _refuse, "__repr__": _refuse},
    "str exits": {"__str__": _exit, "__repr__": _exit},
    "add_note": {"add_note": _refuse},
    "add_note exits": {"add_note": _exit},
    "add_note is none": {"add_note": None},
    "notes": {"__notes__": property(_refuse)},
    "notes exits": {"__notes__": property(_exit)},
    "notes are a number": {"__notes__": 5},
    "notes are a tuple": {"__notes__": ("a",)},
    "getattribute": {"__getattribute__": _refuse_attributes},
    "getattribute exits": {"__getattribute__": _exit_on_all},
    "setattr": {"__setattr__": _refuse},
    "class": {"__class__": property(_refuse)},
    "traceback": {"__traceback__": property(_refuse)},
    "cause": {"__cause__": property(_refuse), "__context__": property(_refuse)},
    "with_traceback": {"with_traceback": _refuse},
    "reduce": {"__reduce__": _refuse, "__reduce_ex__": _refuse},
    "dict": {"__dict__": property(_refuse)},
    "iter": {"__iter__": _refuse, "__contains__": _refuse},
}
BASES = {
    "Exception": Odd,
    "BaseException": BaseException,
    "SystemExit": SystemExit,
    "GeneratorExit": GeneratorExit,
}


@pytest.fixture(params=ODD)
def odd(request):
    """A function that makes an exception which raises when it is looked at."""
    kind = type("VeryOdd", (Odd,), ODD[request.param])
    return lambda: kind("odd")


def raiser(make):
    def bad(*_):
        raise make()

    return bad


def all_ways(make, pool):
    """Futures that fail with odd exceptions, in every way in which one can, and stages behind them."""
    bad = raiser(make)
    source = Future()
    yield source.then(bad)
    yield source.then(bad).then(abs).catch(lambda e: "caught")
    yield source.then(bad).catch(ValueError, abs).finally_(lambda: None)
    yield source.then(abs).finally_(bad)
    yield source.then(bad).catch(bad)
    yield source.addCallback(bad)
    yield source.addCallback(abs).addErrback(lambda failure: failure)
    yield source.addBoth(lambda x: x).addErrback(lambda failure: failure.trap(KeyError))
    yield source.then(lambda _: fail(make()))
    yield source.then(lambda _: pool.submit(bad))
    yield gather(source.then(bad), source.then(abs))
    yield gather(source.then(bad), source.then(bad), return_exceptions=True)
    yield first(source.then(bad), source.then(bad))
    yield some(1, source.then(bad), source.then(bad))
    yield race(source.then(bad), source.then(bad))
    yield source.then(bad).timeout(60)
    yield source.then(bad).shield()
    yield source.then(bad, on=pool).then(abs)
    yield pool.submit(bad).then(abs).catch(bad)
    yield pool.submit(bad).addErrback(bad)

    @inlineCallbacks
    def walk():
        yield source
        try:
            yield fail(make())
        finally:
            bad()

    yield walk()

    async def run():
        await source
        bad()

    yield ensure_future(run())
    yield ensure_future(run(), on=pool)
    source.set_result(0)


@within(60, plainly=True)
def test_odd_exceptions(odd):
    """An exception that raises whatever is asked of it settles its future, and stops nobody else."""
    logging.disable(logging.CRITICAL)
    try:
        with ThreadPoolExecutor(1) as pool:
            others = []
            futures = []
            for future in all_ways(odd, pool):
                future.add_done_callback(raiser(odd))
                others.append(future.addBoth(lambda _: "went on"))
                others.append(future.final.addBoth(lambda _: "went on"))
                futures.append(future)
            for future in [*futures, *others]:
                _, pending = cf.wait([future], LONG)
                assert not pending, future
            assert all(other.final.result(0) == "went on" for other in others)
            assert pool.submit(abs, -1).then(abs).result(LONG) == 1
            futures = others = None
            gc.collect()
    finally:
        logging.disable(logging.NOTSET)


@within(60, plainly=True)
def test_the_branches_behind_an_odd_exception(odd):
    """The branches that come after one that fails oddly are run."""
    logging.disable(logging.CRITICAL)
    try:
        source, ran = Future(), []
        for _number in range(5):
            source.then(raiser(odd))
            source.add_done_callback(raiser(odd))
            source.then(ran.append)
            source.then(raiser(odd)).catch(lambda e: ran.append(-1))
        source.set_result(1)
        assert sorted(ran) == [-1] * 5 + [1] * 5
        gc.collect()
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit])
@within(30)
def test_a_logging_handler_that_raises(error):
    """A logging handler or filter that raises stops nobody, nor while garbage is collected."""

    class Bad(logging.Handler):
        def emit(self, record):
            raise error

        handle = emit

    logger, bad = logging.getLogger("futurechain"), Bad()
    logger.addHandler(bad)
    try:
        source, ran = Future(), []
        source.add_done_callback(lambda _: 1 / 0)
        source.then(lambda _: 1 / 0)
        source.then(ran.append)
        source.add_done_callback(lambda _: ran.append(2))
        source.addCallback(lambda _: 1 / 0)
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):
                pool.submit(work.boom).then(abs)
                pool.submit(abs, -1).add_done_callback(lambda _: 1 / 0)
            source.set_result(1)
            assert pool.submit(abs, -1).then(abs).result(LONG) == 1
        gc.collect()
        assert ran == [1, 2]
    finally:
        logger.removeHandler(bad)


@within(30)
def test_done_callbacks_that_raise():
    """A done callback that raises, SystemExit and KeyboardInterrupt included, stops no later one, on any thread."""
    logging.disable(logging.CRITICAL)
    try:
        for error in (KeyError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, RecursionError):
            with ThreadPoolExecutor(1) as pool:
                ran = []
                task = pool.submit(work.wait_a_moment)
                task.add_done_callback(raiser(error))
                task.add_done_callback(ran.append)
                stage = task.then(abs, on=INLINE).catch(lambda e: 5)
                assert stage.result(LONG) == 5
                assert pool.submit(abs, -1).result(LONG) == 1
                assert ran == [task]
    finally:
        logging.disable(logging.NOTSET)


@within(30)
def test_handlers_that_return_odd_things():
    """What a handler returns is a value, whatever its class says of itself, or fails its stage."""

    class Liar:
        @property
        def __class__(self):
            raise ZeroDivisionError

    class Unequal:
        __eq__ = __bool__ = __hash__ = __len__ = _refuse

    for value in (Liar(), Unequal(), type, object(), NotImplemented, Ellipsis, [], {}):
        source = Future()
        ends = [
            source.then(lambda _, v=value: v).then(lambda v: "on"),
            source.addCallback(lambda _, v=value: v),
        ]
        source.set_result(0)
        assert all(end.done() for end in ends)
        assert ends[0].exception(0) is None or isinstance(ends[0].exception(0), ZeroDivisionError)


@within(30)
def test_near_the_end_of_the_stack():
    """When the stack is at its end, what a future that was settled has had attached is settled, too."""
    sources, ends = [], []

    def step(n):
        if n == 400:
            return n
        sources.append(source := Future())
        end = source.then(lambda _: step(n + 1))
        ends.append(end)
        source.set_result(0)
        return end.result(LONG)

    with contextlib.suppress(RecursionError):
        step(0)
    assert (
        succeed(1).then(lambda v: v + 1).result(0) == 2
    )  # the thread goes on with what it could not do there
    for source, end in zip(sources, ends, strict=False):
        assert end.done() or not source.done()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # it was not started, and that was said
@pytest.mark.parametrize(
    "way",
    ["then", "callback", "branches", "gather", "coroutine", "returned", "cancel"],
)
@within(60)
def test_at_every_depth_of_the_stack(way):
    """Whatever is done at whatever depth of the stack: what is settled then has nothing pending behind it for long."""
    seen = []

    def attempt():
        source = Future()
        ends = []
        seen.append((source, ends))
        if way == "then":
            ends.extend([source.then(lambda v: v), source.then(lambda v: v).then(lambda v: v)])
        elif way == "callback":
            ends.extend([source.addCallback(lambda v: v), source.addCallback(lambda v: v)])
        elif way == "branches":
            ends.extend(source.then(lambda v: v).then(lambda v: v) for _ in range(4))
        elif way == "gather":
            ends.append(gather(source, source.then(lambda v: v)))
        elif way == "coroutine":
            ends.append(ensure_future(work.wait_for(source)))
        elif way == "returned":
            ends.append(succeed(0).then(lambda _: source).then(lambda v: v))
        ends.append(source.then(lambda v: v))
        if way == "cancel":
            source.cancel()
        else:
            source.set_result(0)

    def descend(n):
        if n:
            descend(n - 1)
        else:
            attempt()

    limit = sys.getrecursionlimit()
    for depth in range(limit - 120, limit, 1):
        try:
            descend(depth)
        except RecursionError:
            pass
    assert (
        succeed(1).then(lambda v: v + 1).result(0) == 2
    )  # the thread goes on with what it could not do there
    for source, ends in seen:
        if source.done():
            assert all(end.done() for end in ends), (source, ends)
    del seen[:]
    gc.collect()  # what could not be started is told here, and not in whatever test comes next


# -- worn-out workers and pools that refuse  ----------------------------------


class Refusing(cf.Executor):
    """Refuses in the ways in which executors do."""

    def __init__(self, error):
        self.error = error

    def submit(self, fn, /, *args, **kwargs):
        raise self.error

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


@pytest.mark.parametrize(
    "error", [RuntimeError("full"), MemoryError(), BrokenExecutor("broken"), SystemExit(3)]
)
@within(30)
def test_an_executor_that_refuses(error):
    """A refused submit fails the stage, and those after it; a refused task raises at the call."""
    source, pool = Future(), wrap_executor(Refusing(error))
    stage = source.then(abs, on=pool)
    ends = [stage.then(abs), stage.catch(BaseException, lambda e: 1), source.then(abs, on=INLINE)]
    source.set_result(-1)
    with pytest.raises(type(error)):
        pool.submit(abs, 1)
    assert ends[0].exception(LONG) is not None
    assert is_settled(ends[1])
    assert ends[2].result(0) == 1


@within(60)
def test_no_more_threads(monkeypatch):
    """When no thread can be started, what was accepted is settled."""
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.startswith(("unlucky", "futurechain")):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool = ThreadPoolExecutor(2, thread_name_prefix="unlucky")
    source = Future()
    stage = source.then(abs, on=pool)
    source.set_result(-1)
    assert is_settled(stage)
    with pytest.raises(RuntimeError):
        pool.submit(abs, -1)
    monkeypatch.undo()
    assert pool.submit(abs, -1).result(LONG) == 1
    pool.shutdown()


@within(60)
def test_an_initializer_that_fails_while_chains_are_attached(hasty):
    """A pool that breaks while stages come to it settles every one of them."""
    logging.disable(logging.CRITICAL)
    try:
        for _ in range(50):
            pool, source = ThreadPoolExecutor(2, initializer=work.boom), Future()
            ends = [source.then(abs, on=pool) for _ in range(10)]

            def submit(pool=pool, ends=ends):
                try:
                    ends.extend(pool.submit(abs, -1).then(abs) for _ in range(10))
                except BrokenExecutor:
                    pass

            at_once(submit, lambda source=source: source.set_result(-1))
            assert all(isinstance(end.exception(LONG), BrokenExecutor) for end in ends)
            pool.shutdown()
    finally:
        logging.disable(logging.NOTSET)


@within(60)
def test_a_pool_that_is_dropped_with_stages_to_come():
    """An executor that nobody holds any more still runs the stages of its chains, or settles them."""
    source = Future()
    ends = [
        source.then(abs, on=ThreadPoolExecutor(1)),
        source.then(abs, on=wrap_executor(cf.ThreadPoolExecutor(1))),
    ]
    ends.append(source.then(abs, on=ProcessPoolExecutor(1)).then(abs))
    gc.collect()
    source.set_result(-1)
    assert all(is_settled(end) for end in ends)


@within(30)
def test_a_producer_that_is_dropped():
    """What waits for a bare future that nobody can settle any more is told so, in whatever way it waits."""
    ends = []
    for attach in (
        lambda f: f.then(abs),
        lambda f: f.addCallback(abs),
        lambda f: f.finally_(lambda: None),
        lambda f: f.shield(),
        lambda f: succeed(0).then(lambda _: f).then(abs),
        lambda f: succeed(0).addCallback(lambda _: f),
        lambda f: f.then(abs).then(abs).timeout(60),
    ):
        ends.append(attach(Future()))  # noqa: PERF401  # one after the other, with nothing held between
    gc.collect()
    for end in ends:
        assert end.exception(LONG) is not None  # a callback thread tells it


@within(30)
def test_a_finalizer_that_uses_the_library():
    """Futures used by finalizers and weak references' callbacks, while the library runs, come to no harm."""
    import weakref

    class Thing:
        pass

    source, ends = Future(), []
    for _ in range(50):
        thing = Thing()
        weakref.finalize(thing, lambda: ends.append(source.then(lambda v: v)))
        thing.me = thing
        source.then(lambda v, thing=thing: None)
        del thing
    source.set_result(1)
    gc.collect()
    assert len(ends) == 50
    assert all(end.result(0) == 1 for end in ends)


def test_signal_handlers_that_use_the_library():
    """A signal handler may settle, attach, cancel and read futures that the interrupted code is working on."""
    check(
        """
        import signal
        from futurechain import Future, gather, succeed
        from futurechain.errors import InvalidStateError
        box, ends = [Future()], []
        def handler(*_):
            source = box[0]
            ends.append(source.then(abs))
            ends.append(source.addCallback(abs))
            try:
                source.set_result(-1)
            except InvalidStateError:
                pass  # it is done, or the interrupted code is about to do it
            source.final
            ends.append(gather(source, succeed(0).then(lambda _: source)))
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for _ in range(20_000):
            box[0] = source = Future()
            a, b = source.then(abs), source.addCallback(abs)
            a.then(abs)
            c = gather(a, b)
            try:
                source.set_result(-1)
            except InvalidStateError:
                assert source.done()
            assert a.result(5) == b.result(5) == 1 and c.result(5) == (1, 1), (a, b, c)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(len(ends) > 0, all(end.done() for end in ends))
        """,
        prints="True True",
        seconds=60,
    )


@pytest.mark.parametrize("n", [1, 3])
def test_os_fork_in_a_handler_settles_in_both(n):
    """A handler that forks goes on in both processes; the child's branches run there."""
    check(
        f"""
        import os, warnings
        warnings.simplefilter("ignore")
        from futurechain import Future
        source = Future()
        pids = []
        def fork(v):
            pids.append(os.fork())
        first = source.then(fork)
        ends = [source.then(abs).then(abs) for _ in range({n})]
        source.set_result(-1)
        ok = all(end.result(5) == 1 for end in ends) and first.done()
        if not pids[0]:
            os._exit(0 if ok else 1)
        print(os.waitpid(pids[0], 0)[1], ok)
        """,
        prints="0 True",
    )
