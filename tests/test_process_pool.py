"""`ProcessPoolExecutor`: what becomes of tasks when workers end, and of what cannot travel."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import gc
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

import guard
import process_work as work
from futurechain import INLINE, ProcessPoolExecutor, gather, limit, succeed
from futurechain.errors import StagePicklingError, WorkerDiedError
from guard import until

METHODS = ("fork", "spawn", "forkserver")
ROOT = Path(__file__).parent.parent


@pytest.fixture(params=METHODS)
def context(request):
    """Each start method in turn."""
    return multiprocessing.get_context(request.param)


def descriptors():
    return len([*Path("/proc/self/fd").iterdir()])


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# -- a worker ends ----------------------------------------------------------------------------------------------------


def test_a_killed_worker_breaks_the_pool(context):
    """By default, with an error that names the task and the signal; nothing is left pending."""
    with ProcessPoolExecutor(1, context) as pool:
        victim, queued = pool.submit(work.die), pool.submit(work.double, 1)
        for future in (victim, queued):
            with pytest.raises(BrokenProcessPool, match=r"SIGKILL\) while it ran die"):
                future.result(30)
        with pytest.raises(BrokenProcessPool, match="while it ran die"):
            pool.submit(work.double, 1)


def test_a_killed_worker_hurts_nobody_else(context):
    """With heal=True only its own task fails; the pool goes on."""
    with ProcessPoolExecutor(2, context, heal=True) as pool:
        futures = [pool.submit(work.die if i == 5 else work.double, i) for i in range(20)]
        error = futures[5].exception(30)
        assert type(error) is WorkerDiedError
        assert isinstance(error, BrokenProcessPool)
        assert "SIGKILL) while it ran die" in str(error)
        assert [f.result(30) for i, f in enumerate(futures) if i != 5] == [2 * i for i in range(20) if i != 5]


@pytest.mark.parametrize(
    ("call", "how"),
    [
        ((work.exit_now, 3), "exit code 3"),
        ((work.double, work.DiesUnpickled()), "exit code 7"),
        ((work.give_what_dies,), "exit code 8"),
        ((work.write_into_pipe,), "ended abruptly"),
    ],
)
def test_every_way_to_end(call, how):
    """os._exit in the task, in unpickling it, while its result is pickled; a task that destroys the pipe."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), heal=True) as pool:
        with pytest.raises(WorkerDiedError, match=how):
            pool.submit(*call).result(30)
        assert pool.submit(work.double, 2).result(30) == 4


def test_killed_while_idle():
    """Nobody's task fails: with heal=True another worker takes its place."""
    with ProcessPoolExecutor(1, heal=True) as pool:
        for _ in range(20):
            os.kill(pool.submit(work.pid).result(30), signal.SIGKILL)
            assert pool.submit(work.double, 2).result(30) == 4


@pytest.mark.parametrize("size", [1, 2_000_000])
def test_killed_in_the_moment_of_submitting(size):
    """Whoever was not running yet is given to another worker, with all its data."""
    with ProcessPoolExecutor(1, heal=True) as pool:
        for _ in range(30):
            os.kill(pool.submit(work.pid).result(30), signal.SIGKILL)
            futures = [pool.submit(work.touch, bytearray(size)) for _ in range(3)]
            assert [len(future.result(30)) for future in futures] == [size] * 3


def test_several_at_once(context):
    """Each fails its own task."""
    with ProcessPoolExecutor(2, context, heal=True) as pool:
        futures = [pool.submit(work.die if i % 3 == 0 else work.double, i) for i in range(12)]
        failed = [i for i, future in enumerate(futures) if future.exception(30) is not None]
        assert failed == [0, 3, 6, 9]


def test_a_grandchild_hides_no_death(context):
    """A worker's end is seen although a child that its task had forked lives on with the pipe."""
    with ProcessPoolExecutor(1, context, heal=True) as pool:
        pool.submit(work.pid).result(30)
        began = time.monotonic()
        assert isinstance(pool.submit(work.fork_and_wait, 15).exception(30), WorkerDiedError)
        assert time.monotonic() - began < 10


def test_a_task_that_forks_and_returns_twice():
    """The worker's answer counts; its child ends where it would have answered."""
    with ProcessPoolExecutor(1) as pool:
        worker = pool.submit(work.pid).result(30)
        assert [pool.submit(work.fork_and_return).result(30) for _ in range(5)] == [worker] * 5


def test_chains_on_a_healing_pool():
    """The stages after a killed one get the error; those after that are handled go on."""
    with ProcessPoolExecutor(1, heal=True) as pool:
        chain = pool.submit(work.double, 1).then(work.die).then(work.double)
        assert chain.catch(WorkerDiedError, work.recover, on=INLINE).result(30) == "recovered from WorkerDiedError"


# -- a worker cannot begin --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heal", [False, True])
@pytest.mark.parametrize(
    ("initializer", "how"), [(work.fail_to_begin, "no licence"), (work.die_to_begin, "exit code 5")]
)
def test_an_initializer_that_fails(heal, initializer, how, capfd):
    """It breaks the pool with that reason, after a few tries at most; never a loop."""
    with ProcessPoolExecutor(1, initializer=initializer, heal=heal) as pool:
        with pytest.raises(BrokenProcessPool, match=how):
            pool.submit(work.double, 1).result(60)
        with pytest.raises(BrokenProcessPool, match=how):
            pool.submit(work.double, 1)


def test_an_initializer_that_fails_later(tmp_path, capfd):
    """A worker that cannot be replaced breaks a pool that heals: what is queued fails with the reason."""
    path = str(tmp_path / "begun")
    with ProcessPoolExecutor(1, initializer=work.begin_slowly_then_fail, initargs=(path,), heal=True) as pool:
        died, queued = pool.submit(work.die), pool.submit(work.double, 1)
        assert isinstance(died.exception(60), WorkerDiedError)
        with pytest.raises(BrokenProcessPool, match="no licence any more"):
            queued.result(60)


# -- the number of tasks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_tasks_per_child(method):
    """A worker is replaced after that many tasks; the pool never hangs for that."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, context, max_tasks_per_child=2) as pool:
        pids = [pool.submit(work.pid) for _ in range(12)]
        counts = [future.result(60) for future in pids]
        assert all(counts.count(pid) <= 2 for pid in counts)


def test_tasks_per_child_with_data():
    """A worker's last result arrives, however large it is."""
    with ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
        assert [len(pool.submit(work.give_bytes, 3_000_000).result(60)) for _ in range(4)] == [3_000_000] * 4


# -- stopping what runs -----------------------------------------------------------------------------------------------


def test_cancel_stops_a_running_task(context, tmp_path):
    """With stop_cancelled=True; its worker is replaced, and the pool goes on."""
    path = tmp_path / "running"
    with ProcessPoolExecutor(1, context, stop_cancelled=True) as pool:
        running, queued = pool.submit(work.note, str(path)), pool.submit(work.double, 2)
        until(path.exists)
        assert running.cancel()
        assert running.cancelled()
        assert queued.result(30) == 4
    assert not is_alive(int(path.read_text()))


def test_timeout_stops_a_running_task(tmp_path):
    """So does a timeout."""
    path = tmp_path / "running"
    with ProcessPoolExecutor(1, stop_cancelled=True) as pool:
        pool.submit(work.double, 2).result(30)
        with pytest.raises(TimeoutError):
            pool.submit(work.note, str(path)).timeout(0.5).result(30)
        assert pool.submit(work.double, 2).result(30) == 4


def test_a_task_that_ignores_sigterm(tmp_path):
    """It is killed a second later."""
    path = tmp_path / "running"
    with ProcessPoolExecutor(1, stop_cancelled=True) as pool:
        running = pool.submit(work.ignore_sigterm, str(path))
        until(lambda: path.exists() and path.read_text())
        running.cancel()
        assert pool.submit(work.double, 2).result(30) == 4
    assert not is_alive(int(path.read_text()))


def test_cancel_leaves_alone_what_runs():
    """Without stop_cancelled a running task cannot be cancelled."""
    with ProcessPoolExecutor(1) as pool:
        running = pool.submit(work.nap, 0.3, 5)
        until(running.running)
        assert not running.cancel()
        assert running.result(30) == 5


def test_what_is_queued_can_be_cancelled():
    """All of it: no worker holds anything but what it runs."""
    with ProcessPoolExecutor(1) as pool:
        running = pool.submit(work.nap, 0.3)
        until(running.running)
        queued = [pool.submit(work.double, i) for i in range(50)]
        assert all(future.cancel() for future in queued)


def test_short_tasks_do_not_wait_behind_a_long_one():
    """While one worker is busy for long, the other one takes all that comes."""
    with ProcessPoolExecutor(2) as pool:
        long = pool.submit(work.nap, 1.5)
        short = [pool.submit(work.nap, 0.001) for _ in range(20)]
        cf.wait(short, 30)
        assert not long.done()


@pytest.mark.parametrize("queued", [0, 1, 40])
def test_a_result_is_told_while_others_run_and_wait(tmp_path, queued):
    """However much is queued: results are held back for a moment, and not until the next one comes."""
    go = tmp_path / "go"
    with ProcessPoolExecutor(1) as pool:
        first = pool.submit(int, "1")
        running = pool.submit(work.wait_for, go)
        others = [pool.submit(abs, -number) for number in range(queued)]
        assert first.result(30) == 1
        go.touch()
        running.result(30)
        assert [future.result(30) for future in others] == [*range(queued)]


def test_a_chain_goes_on_before_fresh_tasks_while_results_are_told_together(tmp_path):
    """What a stage waits for is told at once: hardly any fresh task begins between a task's end and its next stage."""
    overtaken = 0
    with ProcessPoolExecutor(1) as pool:
        pool.submit(int).result(30)
        for turn in range(30):
            go = tmp_path / str(turn)
            gate = pool.submit(work.wait_for, go)
            chain = pool.submit(work.clock).then(work.clock_after)
            fresh = [pool.submit(work.clock) for _ in range(20)]
            go.touch()
            gate.result(30)
            ended, begun = chain.result(30)
            overtaken += sum(ended < future.result(30) < begun for future in fresh)
    assert overtaken <= 3 * 30, overtaken


def test_results_that_are_told_together_all_come():
    """Errors and large ones among them, and what chains: each is told once."""
    told = []
    with ProcessPoolExecutor(1) as pool:
        tasks = []
        for number in range(300):
            kind = number % 4
            call = (int, "x") if kind == 1 else (bytes, 200_000) if kind == 2 else (abs, -number)
            tasks.append(pool.submit(*call))
            tasks[-1].add_done_callback(lambda _, number=number: told.append(number))
        chains = [task.then(abs) for task in tasks[::4]]
        assert all(isinstance(task.exception(30), ValueError) for task in tasks[1::4])
        assert all(len(task.result(30)) == 200_000 for task in tasks[2::4])
        assert [chain.result(30) for chain in chains] == [*range(0, 300, 4)]
    assert sorted(told) == [*range(300)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_end_all_workers(number):
    """terminate_workers() and kill_workers() settle every future, chained ones included."""
    pool = ProcessPoolExecutor(1)
    running = pool.submit(work.nap, 60)
    until(running.running)
    queued = pool.submit(work.double, 1)
    stages = [running.then(work.double).then(work.double), queued.then(work.double)]
    workers = list(pool._processes)
    (pool.terminate_workers if number == signal.SIGTERM else pool.kill_workers)()

    assert cf.wait([running, queued, *stages], 30).not_done == set()
    assert isinstance(running.exception(), BrokenProcessPool)
    assert queued.cancelled()
    with pytest.raises(RuntimeError):
        pool.submit(work.double, 1)
    pool.shutdown()
    assert not any(map(is_alive, workers))


# -- what cannot travel -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        (work.double, work.Unreadable()),
        (work.give_unreadable,),
        (work.give_lock,),
        (work.double, threading.Lock()),
        (work.raise_stubborn,),
        (work.raise_two_arguments,),
    ],
)
def test_what_cannot_be_pickled_or_unpickled(call):
    """There or back, it fails its own task with an error that names it; the pool goes on."""
    with ProcessPoolExecutor(1) as pool:
        error = pool.submit(*call).exception(30)
        assert isinstance(error, StagePicklingError)
        assert isinstance(error, BrokenProcessPool)
        assert call[0].__name__ in str(error)
        assert pool.submit(work.double, 2).result(30) == 4


def test_an_exception_that_cannot_be_built_again():
    """A stand-in arrives that names it, with the remote traceback."""
    with ProcessPoolExecutor(1) as pool:
        error = pool.submit(work.raise_two_arguments).exception(30)
    assert "raise_two_arguments raised TwoArguments: 1" in str(error)
    assert "raise TwoArguments(1, 2)" in str(error.__cause__)


def test_memory_errors():
    """They are the task's own."""
    with ProcessPoolExecutor(1) as pool:
        assert type(pool.submit(work.give_huge).exception(30)) is MemoryError
        assert type(pool.submit(work.give_bytes, 1 << 60).exception(30)) is MemoryError
        assert pool.submit(work.double, 2).result(30) == 4


def test_ctrl_c_interrupts_a_task_and_nothing_else():
    """An interrupt in a worker ends the call that it runs; an idle worker does not mind."""
    with ProcessPoolExecutor(1) as pool:
        worker = pool.submit(work.pid).result(30)
        for _ in range(20):
            os.kill(worker, signal.SIGINT)
        assert isinstance(pool.submit(work.interrupt_me).exception(30), KeyboardInterrupt)
        assert pool.submit(work.pid).result(30) == worker


# -- the parent -------------------------------------------------------------------------------------------------------

ORPHANS = """
    import multiprocessing, os, sys, time
    sys.path[:0] = [{root!r}, {tests!r}]
    import process_work as work
    from futurechain import ProcessPoolExecutor
    if __name__ == "__main__":
        pool = ProcessPoolExecutor(2, multiprocessing.get_context({method!r}))
        pool.submit(work.touch, bytearray(5_000_000)).result()
        pool.submit(work.nap, 60)
        while len(pool._processes) < 2:
            pool.submit(work.nap, 60)
        pids = [*pool._processes]
        if not os.fork():
            time.sleep(30)  # holds all that the parent has open
            os._exit(0)
        print(*pids, flush=True)
        time.sleep(0.2)
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ctrl_c_while_workers_start(method):
    """Ctrl-C at any moment of a worker's start neither ends it nor makes it complain; SIGINT is then as before."""
    context = multiprocessing.get_context(method)
    for round_ in range(6):
        with ProcessPoolExecutor(1, context) as pool:
            future = pool.submit(abs, -1)
            for _ in range(20):
                for pid in list(pool._processes):
                    os.kill(pid, signal.SIGINT)
                if future.done():
                    break
                time.sleep(0.001 * round_)
            with contextlib.suppress(KeyboardInterrupt):  # it may have been at the call already
                assert future.result(30) == 1
            assert signal.SIGINT not in pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result(30)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("method", METHODS)
def test_workers_end_with_their_parent(method):
    """However that ends, busy or idle, and although another child of it lives on."""
    program = textwrap.dedent(ORPHANS).format(root=str(ROOT), tests=str(ROOT / "tests"), method=method)
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in child.stdout.readline().split()]
    assert len(pids) == 2
    child.wait(30)
    until(lambda: not any(map(is_alive, pids)))
    child.stdout.close()


def test_no_use_in_a_forked_child():
    """A pool belongs to the process that made it; a child that was forked is told so."""
    with ProcessPoolExecutor(1) as pool:
        pool.submit(work.double, 1).result(30)
        reader, writer = os.pipe()
        if not (child := os.fork()):
            try:
                pool.submit(work.double, 1)
            except RuntimeError as error:
                os.write(writer, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert b"make a new pool" in os.read(reader, 1000)
        os.close(reader)
        os.close(writer)
        assert pool.submit(work.double, 1).result(30) == 2


def test_a_forked_child_lets_go_of_an_inherited_pool(tmp_path):
    """It cancels what it has inherited, and shuts the pool down, for itself: none of that waits for the parent's."""
    with ProcessPoolExecutor(1) as pool:
        task = pool.submit(work.give_after, str(tmp_path / "gate"), 1)
        last = task.then(work.count_up)
        if not (child := os.fork()):
            signal.alarm(20)
            last.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            pool.shutdown()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        (tmp_path / "gate").touch()
        assert last.result(30) == 2


# -- order, ends, and the rest ----------------------------------------------------------------------------------------


def test_begun_work_goes_first():
    """The first chain goes on before the last one is begun."""
    with ProcessPoolExecutor(1) as pool:
        pool.submit(work.nap, 0.3)
        begun = [pool.submit(work.clock) for _ in range(20)]
        ended = [future.then(work.clock) for future in begun]
        assert ended[0].result(30) < begun[-1].result(30)


def test_nothing_is_left_after_many_pools(context):
    """No process, no descriptor, no thread."""
    before = descriptors(), threading.active_count()
    for _ in range(3):
        with ProcessPoolExecutor(2, context) as pool:
            assert gather(*[pool.submit(work.touch, bytearray(2_000_000)) for _ in range(4)]).result(30)
            workers = list(pool._processes)
        assert not any(map(is_alive, workers))
    del pool
    gc.collect()
    after = descriptors(), sum(not t.name.startswith("futurechain") for t in threading.enumerate())
    assert after[0] - before[0] <= 2  # multiprocessing's own helpers
    assert after[1] <= before[1]


def test_repr():
    """It tells the state of the pool."""
    pool = ProcessPoolExecutor(1)
    assert repr(pool).endswith("open, 0 workers, 0 queued>")
    pool.submit(work.double, 1).result(30)
    assert repr(pool).endswith("open, 1 workers, 0 queued>")
    pool.shutdown()
    assert "shut down" in repr(pool)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": "2"}, TypeError),
        ({"initializer": 3}, TypeError),
        ({"max_tasks_per_child": "2"}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": 1, "mp_context": multiprocessing.get_context("fork")}, ValueError),
        ({"share": 0}, ValueError),
        ({"share": "1"}, TypeError),
    ],
)
def test_wrong_options(options, error):
    """They are told at the call."""
    with pytest.raises(error):
        ProcessPoolExecutor(**options)


@pytest.mark.parametrize("size", [100, 30_000, 100_000, 300_000])
def test_a_pipe_that_takes_little_at_once(size):
    """Messages arrive whole, one after the other, when the pipe to the worker takes but a part of each at once."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        pool.submit(abs, -1).result(30)
        (worker,) = pool._scheduler.machine._watcher.roster.workers
        with socket.socket(fileno=os.dup(worker.fd)) as pipe:
            pipe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for number in range(30):  # one by one, which are given to the worker at once, then many
            data = bytes([number]) * size
            assert pool.submit(bytes.upper, data).result(30) == data.upper()
        futures = [pool.submit(bytes.upper, bytes([number]) * size) for number in range(100)]
        assert [future.result(30) for future in futures] == [(bytes([number]) * size).upper() for number in range(100)]


def test_an_interrupt_right_before_a_worker_is_there():
    """A Ctrl-C when the process runs already, and its object is not made yet, leaves no process and no descriptor."""
    before, others = descriptors(), multiprocessing.active_children()
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        with pytest.MonkeyPatch.context() as patch:

            def interrupted(process):
                raise KeyboardInterrupt

            patch.setattr("futurechain.executors.processes.process._death_of", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.submit(abs, -1)
        until(lambda: {*multiprocessing.active_children()} <= {*others})
        assert pool.submit(abs, -1).result(30) == 1
    del pool
    gc.collect()
    assert descriptors() <= before


@pytest.mark.parametrize("end", [ProcessPoolExecutor.shutdown, ProcessPoolExecutor.kill_workers])
def test_an_interrupt_right_after_workers_were_started(end):
    """Workers that were started when Ctrl-C came, and had nothing to do, end with their pool, or do what comes next."""
    for submits in (False, True):
        pool = ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
        staff = pool._scheduler.machine.staff
        prepare = staff.prepare

        def interrupted(prepare=prepare):
            prepare()
            raise KeyboardInterrupt

        staff.prepare = interrupted
        with pytest.raises(KeyboardInterrupt):
            pool.submit(abs, -1)
        staff.prepare = prepare
        pids = list(pool._processes)
        if submits:
            assert pool.submit(os.getpid).result(30) in pids
        end(pool)
        until(lambda pids=pids: not any(map(is_alive, pids)))
        assert len(pids) == 2


@pytest.mark.parametrize(("module", "name"), [(select, "poll"), (os, "readv")])
def test_a_system_without_posix_pipes(monkeypatch, module, name):
    """Where there are no POSIX pipes, as on Windows, the error says so, and names what works."""
    monkeypatch.delattr(module, name)
    with pytest.raises(NotImplementedError, match=r"wrap_executor\(concurrent.futures.ProcessPoolExecutor\(\)\)"):
        ProcessPoolExecutor(1)


@pytest.mark.parametrize("heal", [False, True])
def test_a_system_without_pidfd_and_shared_memory(monkeypatch, heal):
    """Without them, as on macOS, the sentinel tells of a worker's end, and data goes through the pipe."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork"), heal=heal) as pool:
        data = bytes(3_000_000)
        assert pool.submit(bytes.upper, data).result(30) == data
        killed = pool.submit(work.exit_now)
        assert isinstance(killed.exception(30), WorkerDiedError if heal else BrokenProcessPool)
        if heal:
            assert pool.submit(abs, -1).result(30) == 1


def test_cancel_on_error():
    """Leaving the block by an exception cancels what has not begun, if it was asked for."""
    for cancels in (False, True):
        with pytest.raises(KeyError), ProcessPoolExecutor(1, cancel_on_error=cancels) as pool:
            running = pool.submit(work.nap, 0.3)
            until(running.running)
            queued = pool.submit(work.double, 1)
            raise KeyError
        assert queued.cancelled() == cancels


def test_no_thread_to_be_had(context, monkeypatch):
    """When the system gives no thread, the submit raises, no worker is left, and the next one may have more luck."""
    with ProcessPoolExecutor(1, context) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _refuse)
            with pytest.raises(RuntimeError, match="no thread today"):
                pool.submit(work.double, 1)
            assert not pool._processes
        assert pool.submit(work.double, 2).result(30) == 4


def _refuse(_):
    raise RuntimeError("no thread today")


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_while_a_worker_is_started_costs_no_worker(when):
    """Ctrl-C in the call that starts it comes out there; the place is free again, and the shutdown ends."""
    strike = [when]

    class Process(multiprocessing.get_context("fork").Process):
        def start(self):
            if strike == ["before"]:
                raise KeyboardInterrupt(strike.pop())
            super().start()
            if strike:
                raise KeyboardInterrupt(strike.pop())

    context = multiprocessing.get_context("fork")
    context = type("Context", (type(context),), {"Process": Process})()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.submit(abs, -1)
        assert pool.submit(abs, -2).result(60) == 2


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


class Interrupting:
    """Is hit by Ctrl-C when it is pickled."""

    def __reduce__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["submit", "a view's submit", "stage"])
def test_ctrl_c_while_something_is_submitted_is_raised(kind):
    """Whatever becomes of what was to be submitted, and the pool goes on."""
    with ProcessPoolExecutor(1) as pool, limit(pool, concurrency=1) as view:
        act = {
            "submit": lambda: pool.submit(abs, Interrupting()),
            "a view's submit": lambda: view.submit(abs, Interrupting()),
            "stage": lambda: succeed(Interrupting()).then(abs, on=pool),
        }[kind]
        with pytest.raises(KeyboardInterrupt):
            act()
        assert [view.submit(abs, -1).result(20), pool.submit(abs, -2).result(20)] == [1, 2]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_workers_that_are_forked_in_an_event_loop_have_left_it(loop):
    """Its handlers of signals are none of theirs: Ctrl-C does not end an idle worker, SIGTERM does; it hears none."""
    program = """
        import asyncio, os, signal, sys, time, trio
        from futurechain import ProcessPoolExecutor

        heard = []

        async def main():
            if {loop!r} == "asyncio":
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.append, "SIGTERM")
            with ProcessPoolExecutor(1, heal=True) as pool:
                pid = await pool.submit(os.getpid)
                for _ in range(3):
                    os.kill(pid, signal.SIGINT)
                    time.sleep(0.05)
                    assert await pool.submit(os.getpid) == pid
                began = time.monotonic()
                os.kill(pid, signal.SIGTERM)
                while os.path.exists(f"/proc/{{pid}}"):
                    assert time.monotonic() < began + 20
                    time.sleep(0.01)
                assert await pool.submit(os.getpid) != pid
            print("heard", heard)

        {loop}.run(main() if {loop!r} == "asyncio" else main)
    """
    guard.check(textwrap.dedent(program).format(loop=loop), prints="heard []")
