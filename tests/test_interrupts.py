"""A Ctrl-C in the library's own code: nothing is left locked, and hardly ever anything undone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import threading
import time

import pytest

import guard
from futurechain import ProcessPoolExecutor
from futurechain.interrupts import put_off
from interrupts import LIBRARY, PROGRAMS, ByPlace, count_places, go_through

SAMPLE = 12
"""At about so many places of each program an interrupt is tried."""
BOUND = 0.05


@pytest.fixture
def quiet(caplog):
    caplog.set_level("CRITICAL", logger="futurechain")


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer is at work already")
@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_at_some_places(name, quiet):
    """At places spread evenly over each program, a Ctrl-C locks nothing, and finalizers go on."""
    row = go_through(name, stride=max(1, count_places(name) // SAMPLE))
    assert row.runs >= SAMPLE
    assert row.locked == 0
    if name != "by hand":
        assert row.noise == ()


def test_ctrl_c_by_the_clock():
    """Of all runs that a Ctrl-C interrupts in the library's code, hardly any leaves a future unsettled."""
    ended = guard.run(["-m", "tests.interrupts", "--runs", "60"], seconds=100)  # so many that chance evens out
    assert ended.code == 0, ended
    rows = [line.rsplit(maxsplit=5) for line in ended.out.splitlines()[2:] if "%" in line]
    runs = sum(int(row[1]) for row in rows if row[0].strip() != "by hand")
    lost = sum(int(row[2]) for row in rows if row[0].strip() != "by hand")
    assert sum(int(row[4]) for row in rows) == 0, ended.out
    assert lost <= BOUND * runs, ended.out


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "by hand"])
@pytest.mark.timeout(600)
def test_ctrl_c_at_many_places(name, quiet):
    """The same at some hundreds of places, others in each run, of which one in ten may lose something.

    ``python -m tests.interrupts --places`` goes through all of them, which takes a quarter of an hour.
    """
    places, stride = [], 1 + count_places(name) // 250
    row = go_through(name, stride, places.append, random.Random())
    assert row.locked == 0
    assert row.rate <= 2 * BOUND, sorted(set(places))


def test_ctrl_c_in_a_handler_comes_out():
    """A KeyboardInterrupt that a handler raises in the main thread settles everything, and comes out there."""
    guard.check(
        """
        from futurechain import Future
        def interrupt(_):
            raise KeyboardInterrupt
        source = Future()
        ends = [source.then(abs), source.then(interrupt), source.then(abs).then(abs), source.addCallback(interrupt)]
        try:
            source.set_result(-1)
        except KeyboardInterrupt:
            print([end.done() for end in ends].count(True))
        """,
        prints="4",
    )


@pytest.mark.parametrize(
    "wait", ["future.result()", "cf.wait([future])", "list(cf.as_completed([future]))", "pool.shutdown()"]
)
def test_ctrl_c_in_a_wait(wait):
    """Ctrl-C ends a wait in the main thread at once; the future can be used as before, and nothing is left there."""
    program = f"""
import concurrent.futures as cf, os, signal, threading
from futurechain import ThreadPoolExecutor
signal.signal(signal.SIGINT, signal.default_int_handler)
release = threading.Event()
pool = ThreadPoolExecutor(1)
future = pool.submit(release.wait, 20).then(lambda v: v)
for _ in range(3):
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        {wait}
    except KeyboardInterrupt:
        print("interrupted")
release.set()
print(future.result(5))
"""
    guard.check(program, prints="interrupted interrupted interrupted True")


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer is at work already")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ctrl_c_in_the_first_submit_leaves_no_worker(method, quiet):
    """Wherever it comes while workers are started, the shutdown ends those that are there."""
    context, number, hit = multiprocessing.get_context(method), 1, True
    others = multiprocessing.active_children()
    while hit:
        pool = ProcessPoolExecutor(2, context)
        try:
            with ByPlace(number, (LIBRARY,)) as interruption:
                pool.submit(abs, -1)
        except KeyboardInterrupt:
            pass
        pool.shutdown(wait=False, cancel_futures=True)
        _expect_no_children_but(others, interruption.place)
        hit, number = interruption.hit, number + 23


def _expect_no_children_but(others, place):
    end = time.monotonic() + 5
    while left := {*multiprocessing.active_children()} - {*others}:
        assert time.monotonic() < end, (place, left)
        time.sleep(0.002)


def test_putting_ctrl_c_off():
    """It is raised at the end of the block, once; what is in the block has ended. Blocks may be in each other."""
    done = []
    for depth in (1, 2):
        with pytest.raises(KeyboardInterrupt), contextlib.ExitStack() as stack:
            for _ in range(depth):
                stack.enter_context(put_off())
            signal.raise_signal(signal.SIGINT)
            done.append(depth)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert done == [1, 2]


def test_nothing_is_put_off_where_nobody_handles_it(monkeypatch):
    """An ignored Ctrl-C stays ignored; in another thread nothing is changed."""
    seen = []
    monkeypatch.setattr(signal, "signal", seen.append)
    thread = threading.Thread(target=put_off().__enter__)
    thread.start()
    thread.join()
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
    with put_off():
        pass
    assert seen == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="here no process is forked")
def test_a_forked_child_does_not_put_it_off():
    """It has the handler of the program, and none of the blocks."""
    with put_off(), put_off():
        pid = os.fork()
        if not pid:
            os._exit(0 if signal.getsignal(signal.SIGINT) is signal.default_int_handler else 1)
    assert os.waitpid(pid, 0)[1] == 0


STILL_WORKS = """
        def check():
            assert pool.submit(abs, -2).result(5) == 2
            while is_moving(pool):
                pass
            pool.shutdown()
        """
"""The check of a wrapped pool."""
FIRST_USES = {
    "submit": """
        pool = ThreadPoolExecutor(2)
        def use():
            pool.submit(abs, -1)
        def check():
            with pool:
                assert pool.submit(abs, -2).result(5) == 2
        """,
    "then": """
        pool = ThreadPoolExecutor(2)
        def use():
            succeed(-1).then(abs, on=pool)
        def check():
            pool.shutdown()
        """,
    "delay": """
        def use():
            delay(0.001)
        def check():
            assert delay(0.001, "came").result(5) == "came"
        """,
    "timeout": """
        sources = Future(), Future()
        def use():
            sources[0].timeout(0.001)
        def check():
            assert isinstance(sources[1].timeout(0.001).exception(5), TimeoutError)
        """,
    "callback": """
        first, second = threading.Event(), threading.Event()
        def use():
            callback_threads.post(first.set)
        def check():
            callback_threads.post(second.set)
            assert second.wait(5)
        """,
    "submit to idle workers": """
        pool = warm()
        def use():
            pool.submit(abs, -1)
        check = pool.shutdown
        """,
    "then on idle workers": """
        pool = warm()
        def use():
            succeed(-1).then(abs, on=pool)
        check = pool.shutdown
        """,
    "shutdown": """
        pool = warm()
        def use():
            pool.shutdown(wait=False)
        check = pool.shutdown
        """,
    "limit": """
        pool = warm()
        view = limit(pool, concurrency=1, queued=1)
        def use():
            view.submit(abs, -1)
        def check():
            assert [view.submit(abs, -number).result(5) for number in range(3)] == [0, 1, 2]
            view.shutdown()
            pool.shutdown()
        """,
    "coroutine": """
        pool = warm()
        async def wait():
            return await pool.submit(abs, -1)
        def use():
            ensure_future(wait(), on=pool)
        check = pool.shutdown
        """,
    "stream": """
        pool = warm()
        def use():
            list(Pipeline().then(abs, on=pool).map([-1, -2, -3]))
        def check():
            with pool:
                assert list(Pipeline().then(abs, on=pool).map([-1, -2, -3])) == [1, 2, 3]
        """,
    "stream of steps in place": """
        pool = warm()
        async def step(value):
            return abs(value)
        def use():
            list(Pipeline().then(abs, on=INLINE).then(step, on=INLINE).map([-1, -2]))
        check = pool.shutdown
        """,
    "process": """
        pool = warm_process()
        def use():
            pool.submit(sum, LONG).result()
        def check():
            assert [task.result() for task in [pool.submit(abs, -number) for number in range(5)]] == [*range(5)]
            pool.shutdown()
        """,
    "stream over a process": """
        pool = warm_process()
        def use():
            list(Pipeline().then(sum, on=pool).map([LONG]))
        def check():
            with pool:
                assert list(Pipeline().then(abs, on=pool, batch=1).map(range(5))) == [*range(5)]
        """,
    "view of a process": """
        pool = warm_process()
        view = limit(pool, concurrency=1)
        def use():
            view.submit(sum, LONG).result()
        def check():
            with pool, view:
                assert list(Pipeline().then(abs, on=view, batch=1).map(range(5))) == [*range(5)]
        """,
    "stage on a process": """
        pool = warm_process()
        def use():
            succeed(LONG).then(sum, on=pool).result()
        def check():
            with pool:
                assert [succeed(number).then(abs, on=pool).result() for number in range(5)] == [*range(5)]
        """,
    "wrapped pool": """
        pool = wrap_executor(cf.ThreadPoolExecutor(1))
        pool.submit(abs, -1).result()
        def use():
            succeed(-1).then(abs, on=pool).result()
        """ + STILL_WORKS,
    "wrapped pool that is quicker": """
        class Quick(cf.ThreadPoolExecutor):
            def submit(self, *call):
                future = super().submit(*call)
                cf.wait([future])
                return future
        pool = wrap_executor(Quick(1))
        pool.submit(abs, -1).result()
        def use():
            succeed(-1).then(abs, on=pool).then(abs).result()
        """ + STILL_WORKS,
    "wrapped executor that runs it at once": """
        class AtOnce(cf.Executor):
            def submit(self, fn, *args):
                future = cf.Future()
                future.set_result(fn(*args))
                return future
        pool = wrap_executor(AtOnce())
        pool.submit(abs, -1).result()
        def use():
            succeed(-1).then(abs, on=pool).then(abs).result()
        def check():
            assert pool.submit(abs, -2).result(5) == 2
            pool.shutdown()
        """,
    "shutdown of a wrapped pool": """
        pool = wrap_executor(cf.ThreadPoolExecutor(1))
        pool.submit(abs, -1).result()
        def use():
            pool.shutdown()
        def check():
            pool.shutdown()
        """,
    "cancelled chain on a wrapped pool": """
        pool, go_on = wrap_executor(cf.ThreadPoolExecutor(1)), threading.Event()
        pool.submit(go_on.wait)
        task = pool.submit(abs, -1)
        end = task.then(abs)
        def use():
            task.cancel()
        def check():
            go_on.set()
            if end.done():  # else it was only asked for
                pool.shutdown()
        """,
}
"""What starts or wakes a thread, or gives work to a process, and what must work after that was interrupted."""
IN_CHILDREN = """
import concurrent.futures as cf, faulthandler, os, signal, sys, textwrap, threading
from futurechain import *
from futurechain.core import callback_threads
import futurechain.pipeline.pipeline, futurechain.flow.coroutines, futurechain.executors.limit
from inside import has_idle_process, idle_workers, is_moving
from interrupts import LIBRARY, ByPlace

def warm():
    pool, both = ThreadPoolExecutor(2), threading.Barrier(3)
    for _ in range(2):
        pool.submit(both.wait)
    both.wait()
    while idle_workers(pool) < 2:
        pass
    return pool

LONG = range(100_000)  # to be summed up: it takes longer than to look for what was sent

def warm_process():
    pool = ProcessPoolExecutor(1)
    pool.submit(abs, -1).result()
    while not has_idle_process(pool):
        pass
    return pool

def run(number):
    pid = os.fork()
    if not pid:
        faulthandler.dump_traceback_later(20, exit=True)
        place = ByPlace(number, (LIBRARY, threading.__file__))
        try:
            exec(textwrap.dedent({use!r}), globals())
            try:
                with place:
                    use()
            except (KeyboardInterrupt, RuntimeError):  # what `threading` makes of one in its own locks
                pass
            check()
            os._exit(0 if place.hit else 3)
        except BaseException as error:
            print(number, place.place, repr(error), flush=True)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

number = 1
while not (code := run(number)):
    number += STRIDE
print("ended", number > 10, code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each interrupt is tried in a forked child")
@pytest.mark.parametrize("use", FIRST_USES.values(), ids=FIRST_USES)
@pytest.mark.timeout(450)
def test_ctrl_c_where_threads_begin_or_wake(use):
    """Wherever it comes, what needs the thread or the process works afterwards, and a shutdown ends."""
    stride = 6 if guard.IS_THOROUGH else 9
    program = IN_CHILDREN.replace("{use!r}", repr(use)).replace("STRIDE", str(stride))
    guard.check(program, prints="ended True 3", seconds=400 if guard.IS_THOROUGH else 100)


def test_ctrl_c_while_other_threads_use_the_same_futures():
    """Interrupts in the main thread, again and again, leave other threads free to use the futures it was using."""
    program = """
import os, signal, sys, threading, time
import logging; logging.disable()
from futurechain import Future, gather
sys.unraisablehook = lambda args: None
sys.setswitchinterval(1e-4)
stop, rounds, box = [], [0], [Future()]
def other():
    source = None
    while not stop:
        if source is not box[0]:
            source, left = box[0], 100  # without an end, who settles it would never come to the end of it
        if not left:
            time.sleep(0)
            continue
        left -= 1
        source.addCallback(abs)
        gather(source.then(abs), source.final)
        rounds[0] += 1
thread = threading.Thread(target=other, daemon=True)
thread.start()
interrupted = 0
chance = __import__("random").Random(1)
while interrupted < 200:
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 2e-3))
        for _ in range(1000):  # a finalizer may have swallowed it
            box[0] = source = Future()
            for _ in range(20):
                source.addCallback(abs)
            if not source.done():
                source.set_result(0)
    except KeyboardInterrupt:
        interrupted += 1
        before = rounds[0]
        end = time.monotonic() + 5
        box[0] = Future()
        while rounds[0] < before + 2 and time.monotonic() < end:
            time.sleep(0.0001)
        if rounds[0] < before + 2:
            print("locked")
            break
stop.append(1)
thread.join(5)
print(thread.is_alive())
sys.stdout.flush()
os._exit(0)
"""
    for _ in range(6 if sys.version_info < (3, 12) else 1):  # CPython 3.11 itself crashes here now and then
        ended = guard.run(["-c", program], seconds=60)
        if ended.code != -signal.SIGSEGV:
            break
    assert ended.out.split() == ["False"], ended


@pytest.mark.skipif(not hasattr(os, "fork"), reason="here no process is forked")
def test_ctrl_c_while_processes_are_forked_beside_threads():
    """It comes out of the program, and not in a hook of the fork, where it would leave the lock of `logging` taken."""
    program = """
import logging, multiprocessing, os, random, signal, sys, threading, time, warnings
from futurechain import ProcessPoolExecutor, delay
warnings.simplefilter("ignore")
signal.signal(signal.SIGINT, signal.default_int_handler)
delay(0).result()  # another thread, which gets the signal if this one blocks it
came, chance = 0, random.Random(1)
for _ in range(40):
    try:
        with ProcessPoolExecutor(8, multiprocessing.get_context("fork")) as pool:
            threading.Timer(chance.uniform(0, 0.006), os.kill, (os.getpid(), signal.SIGINT)).start()
            pool.submit(abs, -1)
            time.sleep(5)
    except KeyboardInterrupt:
        came += 1
other = threading.Thread(target=logging.getLogger, args=("fresh",), daemon=True)
other.start()
other.join(5)
print(came > 36, other.is_alive())  # one may come in the finalizer of an earlier pool
"""
    ended = guard.check(program, prints="True False", seconds=100)
    assert "fork" not in ended.err


def test_ctrl_c_at_the_prompt_of_a_pool():
    """Leaving a with block by Ctrl-C, with cancel_on_error, cancels what has not begun, and ends."""
    program = """
import os, signal, threading, time
from futurechain import ThreadPoolExecutor
signal.signal(signal.SIGINT, signal.default_int_handler)
begun, count = threading.Event(), []
try:
    with ThreadPoolExecutor(1, cancel_on_error=True) as pool:
        ends = [pool.submit(lambda: (begun.set(), time.sleep(0.1), count.append(1))).then(abs) for _ in range(100)]
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)
except KeyboardInterrupt:
    print(len(count) < 5, all(end.done() for end in ends))
"""
    guard.check(program, prints="True True")
