"""Programs that end while there is still something to do; ``python -m tests.exits NAME [ENDING] [METHOD]`` runs one.

Each is a function that leaves something unfinished and says what must be printed all the same. The `ENDINGS` say how
the main thread ends then. `METHOD` is how worker processes are started.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures as cf
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import futurechain
from futurechain import (
    INLINE,
    Future,
    delay,
    gather,
    inlineCallbacks,
    race,
    retry,
    wrap_executor,
    wrap_future,
)
from futurechain.errors import BrokenExecutor

KEPT: list[object] = []
"""What a script would hold in its globals."""
METHOD: str = "fork"
MOMENT = 0.15
"""So long the slow ones take; nothing that is expected hangs on how long that is."""


class Program(NamedTuple):
    run: Callable[[], object]
    prints: list[str]
    """The lines, in any order."""
    with_processes: bool
    starts: bool
    """Whether it starts its first process, or a foreign pool's first thread, when the end has begun."""


PROGRAMS: dict[str, Program] = {}


def program(
    prints: str = "", *, with_processes: bool = False, starts: bool = False
) -> Callable[[Any], Any]:
    """Enter a function into the table; `prints` is what must be printed, split at blanks, in any order."""

    def enter(function: Any) -> Any:
        assert function.__name__ not in PROGRAMS
        PROGRAMS[function.__name__] = Program(function, sorted(prints.split()), with_processes, starts)
        return function

    return enter


# -- what the programs are made of  ----------------------------------


def show(*values: Any) -> Any:
    """Print in one piece, from any thread and process; pass the last value on."""
    os.write(1, ("-".join(map(str, values)) + "\n").encode())
    return values[-1]


def slow(value: Any = None) -> Any:
    time.sleep(MOMENT)
    return value


def add_one(value: int) -> int:
    return value + 1


def die(*_: object) -> None:
    os._exit(7)


def fail(*_: object) -> None:
    raise KeyError("expected")


def threads(workers: int = 2) -> futurechain.ThreadPoolExecutor:
    KEPT.append(pool := futurechain.ThreadPoolExecutor(workers))
    return pool


def processes(workers: int = 1) -> futurechain.ProcessPoolExecutor:
    context = multiprocessing.get_context(METHOD)
    KEPT.append(pool := futurechain.ProcessPoolExecutor(workers, mp_context=context))
    return pool


def used(pool: Any) -> Any:
    pool.submit(slow).result()
    return pool


def keep(future: Any) -> Any:
    """Hold a future as a global variable would."""
    KEPT.append(future)
    return future


def when_settled(future: Any, text: str = "settled") -> Any:
    future.add_done_callback(lambda _: show(text))
    return keep(future)


class Policy:
    """Three attempts with a pause between them."""

    def __new__(cls) -> Any:
        import tenacity

        return tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(MOMENT / 2))


# -- from pool to pool  ----------------------------------


@program("1")
def one_pool():
    threads().submit(slow, 1).then(show)


@program("1")
def to_an_unused_pool():
    a, b = threads(), threads()
    a.submit(slow, 1).then(show, on=b)


@program("1")
def to_a_pool_used_before():
    a, b = threads(), used(threads())
    a.submit(slow, 1).then(show, on=b)


@program("1")
def to_a_pool_that_nobody_holds():
    futurechain.ThreadPoolExecutor(1).submit(slow, 1).then(show, on=futurechain.ThreadPoolExecutor(1))


@program("40")
def ping_pong():
    a, b = threads(1), threads(1)
    future = a.submit(slow, 0)
    for number in range(40):
        future = future.then(add_one, on=(a, b)[number % 2])
    future.then(show)


@program("12")
def ping_pong_of_returned_futures():
    pools = threads(1), threads(1)

    def step(n):
        return n if n == 12 else pools[n % 2].submit(step, n + 1)

    pools[0].submit(slow, 0).then(step).then(show)


@program("5", with_processes=True)
def thread_process_thread():
    a, b, c = threads(1), processes(), threads(1)
    a.submit(slow, 3).then(add_one, on=b).then(add_one, on=c).then(show)


@program("8", with_processes=True)
def thread_process_ping_pong():
    a, b = threads(1), processes()
    future = a.submit(slow, 0)
    for number in range(8):
        future = future.then(add_one, on=(b, a)[number % 2])
    future.then(show)


@program("2", with_processes=True)
def process_to_an_unused_thread_pool():
    a, b = processes(), threads()
    a.submit(slow, 2).then(show, on=b)


@program("3 5", with_processes=True)
def process_to_process():
    a, b = processes(), processes()
    a.submit(slow, 2).then(add_one).then(add_one, on=b).then(add_one, on=a).then(show, on=INLINE)
    b.submit(slow, 3).then(show)


@program("0 1 2 3 4 5 6 7 8 9")
def fan_out():
    a, b = threads(2), threads(2)
    root = a.submit(slow)
    for number in range(10):
        root.then(lambda _, number=number: show(number), on=(a, b)[number % 2])


@program("6")
def gathered_from_everywhere():
    a, b = threads(1), threads(1)
    gather(a.submit(slow, 1), b.submit(slow, 2), b.submit(slow, 3)).then(sum).then(show, on=a)


@program("KeyError done")
def an_error_on_its_way():
    a, b = threads(1), threads(1)
    a.submit(slow).then(fail, on=b).then(show).catch(lambda e: show(type(e).__name__), on=a).finally_(
        lambda: show("done"), on=b
    )


# -- work that begins at the end  ----------------------------------


@program("1")
def a_task_that_submits():
    pool = threads(1)
    pool.submit(lambda: slow(pool.submit(slow, 1).then(show)))


@program("1 2")
def a_stage_that_submits():
    a, b = threads(1), threads(1)

    def more(value):
        b.submit(slow, value + 1).then(show)
        return a.submit(slow, value)

    a.submit(slow, 1).then(more).then(show)


@program("1")
def a_stage_that_submits_to_an_unused_pool_and_waits():
    a, b = threads(1), threads(1)
    a.submit(slow, 1).then(lambda value: b.submit(slow, value).result()).then(show)


@program("10")
def each_task_submits_the_next():
    pool = threads(1)

    def step(n):
        pool.submit(step, n + 1) if n < 10 else show(n)

    pool.submit(step, 0)


@program("1 2", with_processes=True, starts=True)
def a_handler_that_submits_to_a_process_pool():
    a, b = threads(1), processes()
    a.submit(slow, 1).then(lambda value: b.submit(slow, value)).then(show).then(
        lambda v: b.submit(add_one, v)
    ).then(show)


@program("2", with_processes=True)
def a_callback_that_submits_to_its_process_pool():
    pool = processes()
    pool.submit(slow, 1).addCallback(lambda value: pool.submit(add_one, value)).addCallback(show)


@program("1 2")
def attached_at_the_end():
    pool = threads(2)
    future = pool.submit(slow, 1)

    def attach(_):
        future.then(show)
        future.then(lambda value: show(value + 1))

    pool.submit(slow).then(attach)


# -- coroutines, timers, retries  ----------------------------------


@program("first second third")
def the_steps_of_a_coroutine():
    pool = threads(1)

    async def walk():
        await pool.submit(slow)
        show("first")
        await pool.submit(slow)
        show("second")
        await delay(MOMENT)
        show("third")

    futurechain.ensure_future(walk(), on=pool)


@program("first second")
def the_steps_of_a_generator_on_inline():
    pool = threads(1)

    @inlineCallbacks
    def walk():
        yield pool.submit(slow)
        show("first")
        yield pool.submit(slow)
        show("second")

    walk()


@program("3", with_processes=True, starts=True)
def a_coroutine_between_threads_and_processes():
    a, b = threads(1), processes()

    async def walk():
        value = await a.submit(slow, 1)
        value = await b.submit(add_one, value)
        return await b.submit(add_one, await a.submit(slow, value))

    futurechain.ensure_future(walk(), on=a).then(show)


@program("2")
def coroutines_that_await_each_other():
    pool = threads(1)

    async def inner():
        return add_one(await pool.submit(slow, 1))

    async def outer():
        return await futurechain.ensure_future(inner(), on=pool)

    futurechain.ensure_future(outer(), on=pool).then(show)


@program("1")
def a_stage_that_waits_for_a_delay():
    pool = threads(1)
    pool.submit(slow).then(lambda _: delay(MOMENT, 1)).then(show)


@program("1")
def a_delay_before_a_pool():
    keep(delay(MOMENT, 1).then(show, on=threads(1)))


@program("1")
def a_delay_before_a_used_pool():
    keep(delay(MOMENT, 1).then(show, on=used(threads(1))))


@program("2", with_processes=True)
def a_delay_before_a_process_pool():
    pool = processes()
    keep(delay(MOMENT, 1).then(add_one, on=pool).then(show))


@program("1-None")
def a_delay_and_a_task_together():
    pool = threads(1)
    gather(pool.submit(slow, 1), delay(2 * MOMENT)).then(lambda both: show(*both), on=pool)


@program("3")
def a_retry():
    pool, attempts = threads(1), []

    def attempt():
        attempts.append(slow())
        return len(attempts) if len(attempts) == 3 else fail()

    retry(attempt, policy=Policy(), on=pool).then(show)


@program("KeyError")
def a_retry_behind_a_pool():
    a, b = threads(1), threads(1)
    a.submit(slow).then(lambda _: retry(fail, policy=Policy(), on=b)).catch(lambda e: show(type(e).__name__))


@program("in-time")
def a_timeout_that_never_comes():
    threads().submit(slow, "in-time").timeout(3600).then(show)


@program("TimeoutError end")
def a_timeout_that_comes():
    a, b = threads(1), threads(1)
    a.submit(time.sleep, 3 * MOMENT).timeout(MOMENT).catch(lambda e: show(type(e).__name__), on=b).finally_(
        lambda: show("end")
    )


@program()
def timers_alone():
    keep(delay(3600))
    keep(delay(3600).then(show))
    keep(Future().timeout(3600))


# -- what cannot come any more  ----------------------------------


@program("settled")
def a_bare_future_before_an_unused_pool():
    keep(future := Future())
    when_settled(future.then(show, on=threads()))


@program("settled")
def a_bare_future_before_a_used_pool():
    keep(future := Future())
    when_settled(future.then(show, on=used(threads())))


@program("settled", with_processes=True)
def a_bare_future_before_a_process_pool():
    keep(future := Future())
    when_settled(future.then(show, on=used(processes())))


@program("settled")
def a_stage_waits_for_a_bare_future():
    pool = threads()
    keep(future := Future())
    when_settled(pool.submit(slow).then(lambda _: future).then(show))


@program("settled")
def a_coroutine_waits_for_a_bare_future():
    pool = threads()
    keep(future := Future())

    async def walk():
        await pool.submit(slow)
        await future

    when_settled(futurechain.ensure_future(walk(), on=pool))


@program("settled")
def a_bare_future_that_a_daemon_thread_settles_too_late():
    keep(future := Future())
    threading.Thread(target=lambda: future.set_result(time.sleep(3600)), daemon=True).start()
    when_settled(future.then(lambda _: 0, on=threads()))


@program("settled")
def a_bare_future_that_a_daemon_thread_settles_soon():
    keep(future := Future())
    threading.Thread(target=lambda: future.set_result(slow(1)), daemon=True).start()
    when_settled(future.then(lambda _: 0, on=threads()))


@program("settled")
def a_bare_future_that_another_thread_settles():
    keep(future := Future())
    threading.Thread(target=lambda: future.set_result(slow(1))).start()
    when_settled(future.then(lambda _: 0, on=threads()))


@program("1 settled")
def a_pool_settles_a_bare_future():
    a, b = threads(1), threads(1)
    keep(future := Future())
    when_settled(future.then(show, on=b))
    a.submit(slow, 1).then(future.set_result)


@program("settled 1")
def a_race_with_a_bare_future():
    a, b = threads(1), threads(1)
    keep(future := Future())
    when_settled(race(future, a.submit(slow, 1)).then(show, on=b))


class FireAndForget(cf.Executor):
    """An executor whose work runs on daemon threads that nobody waits for."""

    def submit(self, fn, /, *args, **kwargs):
        future = cf.Future()
        threading.Thread(target=self._run, args=(future, fn, args, kwargs), daemon=True).start()
        return future

    def _run(self, future, fn, args, kwargs):
        future.set_result(fn(*args, **kwargs))

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


@program()
def fire_and_forget():
    keep(wrap_executor(FireAndForget()).submit(time.sleep, 3600).then(show))


@program()
def fire_and_forget_before_a_pool():
    keep(wrap_executor(FireAndForget()).submit(time.sleep, 3600).then(show, on=threads(1)))


@program("1")
def a_pool_beside_fire_and_forget():
    keep(wrap_executor(FireAndForget()).submit(time.sleep, 3600).then(show))
    threads(1).submit(slow, 1).then(show)


@program("1")
def wrapped_standard_threads():
    pool = keep(wrap_executor(cf.ThreadPoolExecutor(1)))
    pool.submit(slow, 1).then(slow).then(show, on=threads(1))


@program("1", starts=True)
def to_wrapped_standard_threads():
    pool = keep(wrap_executor(cf.ThreadPoolExecutor(1)))
    threads(1).submit(slow, 1).then(slow, on=pool).then(show)


@program("3", with_processes=True)
def wrapped_standard_processes():
    pool = keep(wrap_executor(cf.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(METHOD))))
    pool.submit(slow, 1).then(add_one).then(add_one).then(show, on=threads(1))


@program("1")
def a_wrapped_future_of_a_standard_pool():
    pool = keep(cf.ThreadPoolExecutor(1))
    wrap_future(pool.submit(slow, 1)).then(show)


# -- shutdown  ----------------------------------


@program("5", with_processes=True)
def shutdown_without_waiting():
    a, b = threads(1), processes()
    a.submit(slow, 1).then(add_one).then(add_one, on=b).then(add_one).then(add_one, on=a).then(show)
    a.shutdown(wait=False)
    b.shutdown(wait=False)


@program("1 settled")
def shutdown_with_cancellation():
    pool = threads(1)
    begun = threading.Event()
    pool.submit(lambda: (begun.set(), slow(), show(1)))
    when_settled(pool.submit(show, 2).then(show))
    begun.wait()
    pool.shutdown(wait=False, cancel_futures=True)


@program("2 3")
def a_with_block_of_threads():
    with futurechain.ThreadPoolExecutor(1) as pool:
        pool.submit(slow, 1).then(add_one).then(show).then(lambda v: pool.submit(add_one, v)).then(show)


@program("2", with_processes=True)
def a_with_block_of_processes():
    with futurechain.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(METHOD)) as pool:
        pool.submit(slow, 1).then(add_one).then(show)


@program("1")
def a_with_block_left_by_an_exception():
    try:
        with futurechain.ThreadPoolExecutor(1) as pool:
            pool.submit(slow, 1).then(show)
            fail()
    except KeyError:
        pass


@program("1")
def waited_for_by_another_thread():
    future = threads(1).submit(slow, 1)
    threading.Thread(target=lambda: show(future.then(slow).result())).start()


@program("1")
def as_completed_in_another_thread():
    future = threads(1).submit(slow, 1).then(slow)
    threading.Thread(target=lambda: [show(one.result()) for one in cf.as_completed([future])]).start()


@program("RuntimeError")
def submitted_too_late():
    pool = used(threads(1))

    def late():
        try:
            pool.submit(show, 1)
        except RuntimeError as error:
            show(type(error).__name__)

    atexit.register(late)


@program("settled")
def attached_too_late():
    pool = threads(1)
    future = pool.submit(slow, 1)
    atexit.register(lambda: when_settled(future.then(lambda _: 0)))


@program("RuntimeError")
def a_daemon_thread_goes_on_submitting():
    pool = threads(2)
    begun = threading.Event()

    def submit():
        try:
            while True:
                pool.submit(int).then(str)
                begun.set()
        except RuntimeError as error:
            show(type(error).__name__)

    threading.Thread(target=submit, daemon=True).start()
    begun.wait()


# -- odd ends  ----------------------------------


@program("SystemExit")
def a_handler_exits():
    threads(1).submit(slow).then(sys.exit).catch(lambda e: show(type(e).__name__))


@program("BrokenExecutor 1", with_processes=True)
def a_worker_dies():
    a, b = processes(), threads(1)
    a.submit(slow).then(die).catch(BrokenExecutor, lambda e: show("BrokenExecutor"), on=b).then(
        lambda _: show(1)
    )


@program("local 2", with_processes=True)
def callbacks_of_a_process_pool():
    pool = processes()
    future = pool.submit(slow, 1)
    future.addCallback(add_one).addCallback(slow).addCallback(show)
    future.finally_(lambda: show("local"))


@program("child parent", starts=True)
def a_fork_in_a_handler():
    def fork(_):
        if not (child := os.fork()):
            futurechain.succeed("child").then(show).result()
            os._exit(0)
        os.waitpid(child, 0)
        return show("parent")

    threads(1).submit(slow).then(fork)


def in_a_child() -> None:
    threads(1).submit(slow, "child").then(show, on=threads(1))


@program("child parent", starts=True)
def a_process_started_in_a_handler():
    def start(_):
        child = multiprocessing.get_context("fork").Process(target=in_a_child)
        child.start()
        child.join()
        return show("parent")

    a, b = threads(1), threads(1)
    b.submit(slow)
    a.submit(slow).then(start, on=b)


@program("child parent")
def a_process_started_while_pools_work():
    pool = threads(1)
    pool.submit(slow, "parent").then(slow).then(show)
    child = multiprocessing.get_context("fork").Process(target=in_a_child)
    child.start()
    child.join()


@program("1")
def under_asyncio():
    pool = threads(1)

    async def main():
        future = asyncio.get_running_loop().run_in_executor(pool, slow, 1)
        pool.submit(slow, await future).then(show)

    asyncio.run(main())


@program("settled settled")
def a_ring_of_two_pools():
    a, b = threads(1), threads(1)
    box = []
    first = a.submit(slow).then(lambda _: box[0])
    box.append(b.submit(slow).then(lambda _: first))
    when_settled(first)
    when_settled(box[0])


@program("done done")
def two_pools_that_return_each_other_s_work():
    a, b = threads(1), threads(1)
    a.submit(slow).then(lambda _: b.submit(lambda: a.submit(slow, "done").then(show)))
    b.submit(slow).then(lambda _: a.submit(lambda: b.submit(slow, "done").then(show)))


# -- how the main thread ends  ----------------------------------


def _plainly(body: Callable[[], object]) -> None:
    body()


def _in_another_thread(body: Callable[[], object]) -> None:
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()


def _dropping_everything(body: Callable[[], object]) -> None:
    body()
    KEPT[:] = [one for one in KEPT if not isinstance(one, cf.Executor)]


def _with_an_exception(body: Callable[[], object]) -> None:
    body()
    raise ValueError("the main thread ends with this")


def _with_a_code(body: Callable[[], object]) -> None:
    body()
    sys.exit(3)


def _in_a_function_of_atexit(body: Callable[[], object]) -> None:
    atexit.register(KEPT.clear)
    body()


class Ending(NamedTuple):
    run: Callable[[Callable[[], object]], None]
    code: int = 0


ENDINGS = {
    "plainly": Ending(_plainly),
    "thread": Ending(_in_another_thread),
    "dropped": Ending(_dropping_everything),
    "exception": Ending(_with_an_exception, 1),
    "code": Ending(_with_a_code, 3),
    "atexit": Ending(_in_a_function_of_atexit),
}


def main(name: str, ending: str = "plainly", method: str = "fork") -> None:
    global METHOD  # noqa: PLW0603  # what the programs of one process share
    METHOD = method
    ENDINGS[ending].run(PROGRAMS[name].run)


if __name__ == "__main__":
    main(*sys.argv[1:])
