"""Stages that a worker process begins without a further word: chains that go on, and what must stay as it was."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

import futurechain
import guard
import inside
import process_work as work
from futurechain import INLINE, ProcessPoolExecutor, trace
from futurechain.errors import StagePicklingError, WorkerDiedError
from futurechain.executors.processes.progress import Progress
from futurechain.testing import ManualClock
from guard import until
from stepping import NEVER, Stepper

ROOT = Path(__file__).parent.parent


@pytest.fixture
def pool():
    """A pool of one worker, which is there."""
    with ProcessPoolExecutor(1) as pool:
        pool.submit(int).result(30)
        yield pool


@pytest.fixture
def gate(tmp_path):
    """A file whose coming lets a task go on."""
    return tmp_path / "gate"


def locks_of(*pids):
    """The locks on files that processes hold: of whom, on what, on which bytes."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {tuple(words[4:]) for words in lines if int(words[4]) in pids}


def in_a_child(act, *args):
    """What `act` says in a process that ends then."""
    child = os.fork()
    if not child:
        os._exit(bool(act(*args)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def held(pool, gate, value, *fns):
    """A task that waits for `gate` and gives `value`, and stages that were sent after it."""
    future = pool.submit(work.give_after, str(gate), value)
    stages = [future]
    for fn in fns:
        stages.append(stages[-1].then(fn))
    until(lambda: inside.sent_ahead(pool) == len(fns))
    return stages


# -- they go on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_chain_goes_on_without_the_parent(method, tmp_path):
    """A worker begins the stages after its task also while the program can do nothing."""
    program = textwrap.dedent(f"""
        import multiprocessing, sys, time
        sys.path.insert(0, {str(ROOT / "tests")!r})
        import inside, process_work as work
        from futurechain import ProcessPoolExecutor

        if __name__ == "__main__":
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context({method!r})) as pool:
                pool.submit(int).result()
                first = pool.submit(work.give_after, {str(tmp_path / "gate")!r}, {str(tmp_path / "mark")!r})
                last = first.then(work.leave_mark).then(work.leave_mark)
                while inside.sent_ahead(pool) < 2:
                    time.sleep(0.001)
                print("ready", flush=True)
                print(last.result(30))
    """)
    script = tmp_path / "program.py"
    script.write_text(program)
    running = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert running.stdout.readline() == "ready\n"
    os.kill(running.pid, signal.SIGSTOP)
    try:
        (tmp_path / "gate").touch()
        until(lambda: (tmp_path / "mark").exists() and (tmp_path / "mark").read_bytes() == b"xx")
    finally:
        os.kill(running.pid, signal.SIGCONT)

    assert running.communicate(timeout=30)[0] == f"{tmp_path / 'mark'}\n"
    assert running.returncode == 0


def test_each_stage_has_its_own_value(pool, gate):
    """All futures of a chain that goes on in the worker are settled, each with its own value, in their order."""
    stages = held(pool, gate, 1, *[work.count_up] * 5)
    order = []
    for number, stage in enumerate(stages):
        stage.add_done_callback(lambda _, number=number: order.append(number))

    gate.touch()

    assert [stage.result(30) for stage in stages] == [1, 2, 3, 4, 5, 6]
    until(lambda: len(order) == 6)
    assert order == [0, 1, 2, 3, 4, 5]


def test_a_chain_longer_than_what_is_sent_ahead(pool, gate):
    """Of a long chain some is sent ahead; all of it is done."""
    first = pool.submit(work.give_after, str(gate), 0)
    last = first
    for _ in range(100):
        last = last.then(work.count_up)
    gate.touch()

    assert last.result(30) == 100


def test_a_chain_that_was_attached_before_its_turn(pool):
    """What is attached to a future that waits for somebody else goes along when its turn has come."""
    root = futurechain.Future()
    last = root.then(work.count_up, on=pool).then(work.count_up).then(work.count_up)
    root.set_result(1)

    assert last.result(30) == 4


def test_many_chains_at_once(processes):
    """Chains that are attached while workers are busy with them and others all end with the right value."""
    ends = [processes.submit(work.count_up, number).then(work.count_up).then(work.count_up) for number in range(300)]

    assert [end.result(30) for end in ends] == [number + 3 for number in range(300)]


# -- and stay what they were ------------------------------------------------------------------------------------------


def test_what_can_be_changed_is_copied(pool):
    """A stage gets a copy of a value that can be changed, as it would in another worker."""
    first = pool.submit(work.give_list, None)
    second = first.then(work.lengthen)

    assert (second.result(30), first.result(30)) == ([1, 2], [1])


@pytest.mark.parametrize("size", [1000, 100_000, 131_000, 140_000, 2_000_000])
def test_values_of_all_sizes(pool, size):
    """Short values go on in the worker, long ones and those in shared memory travel: the outcome is the same."""
    assert pool.submit(work.give_bytes, size).then(bytes.upper).then(len).result(30) == size


def test_an_error_in_the_middle(pool, gate):
    """A stage that raises settles itself with its error, and those after it are passed by, or handle it."""
    first, failed, passed = held(pool, gate, 1, work.boom, work.count_up)
    handled = passed.catch(ValueError, lambda error: 7)
    gate.touch()

    assert isinstance(failed.exception(30), ValueError)
    assert passed.exception(30) is failed.exception()
    assert (first.result(30), handled.result(30)) == (1, 7)


def test_an_error_before(pool, gate):
    """After a task that raises nothing is called."""
    first = pool.submit(work.wait_for_and_raise, str(gate))
    second = first.then(work.leave_mark)
    until(lambda: inside.sent_ahead(pool) == 1)
    gate.touch()

    assert isinstance(second.exception(30), ValueError)


def test_what_does_not_pickle_fails_at_its_turn(pool, gate):
    """A stage that cannot travel fails itself, when its turn has come."""
    first = pool.submit(work.give_after, str(gate), 1)
    second = first.then(lambda value: value)
    gate.touch()

    assert isinstance(second.exception(30), StagePicklingError)
    assert first.result(30) == 1


def test_a_method_takes_its_object_along_at_its_turn(pool, gate):
    """What its object is like then counts, as for every argument."""
    known = {1: "before"}
    first = pool.submit(work.give_after, str(gate), 1)
    second = first.then(known.get)
    known[1] = "then"
    gate.touch()

    assert second.result(30) == "then"


def test_who_was_attached_before_comes_before(pool, gate):
    """A stage is not begun before those have run that were attached before it."""
    first = pool.submit(work.give_after, str(gate), 1)
    here = first.then(work.clock, on=INLINE)
    there = first.then(work.clock)
    gate.touch()

    assert here.result(30) < there.result(30)


def test_a_trace_knows_when_each_began(pool, gate):
    """In a trace each stage of such a chain has its own worker and times."""
    with trace() as seen:
        stages = held(pool, gate, 1, work.count_up, work.count_up)
        gate.touch()
        assert stages[-1].result(30) == 3

    first, second, third = seen.spans()
    assert first.process == second.process == third.process
    assert first.returned <= second.started <= second.returned <= third.started
    for span in (first, second, third):
        moments = [span.attached, *span.packing, span.sent, span.started, span.returned, span.settled]
        assert moments == sorted(moments)


# -- cancelled --------------------------------------------------------------------------------------------------------


def test_what_was_sent_ahead_can_be_cancelled(pool, gate, tmp_path):
    """It has not begun: it is cancelled at once, and is never called."""
    first, second, third = held(pool, gate, str(tmp_path / "mark"), work.leave_mark, work.leave_mark)

    assert second.cancel()
    assert third.cancelled() or third.exception(30) is not None
    gate.touch()

    assert first.result(30) == str(tmp_path / "mark")
    assert pool.submit(os.path.exists, str(tmp_path / "mark")).result(30) is False


def test_the_last_one_cancelled(pool, gate, tmp_path):
    """Those before it go on."""
    _, second, third = held(pool, gate, str(tmp_path / "mark"), work.leave_mark, work.leave_mark)
    other = second.then(len, on=INLINE)

    assert third.cancel()
    gate.touch()

    assert other.result(30)
    assert pool.submit(int).result(30) == 0
    assert (tmp_path / "mark").read_bytes() == b"x"


def test_what_has_begun_cannot_be_cancelled(pool, gate, tmp_path):
    """From the moment at which the worker has gone on, `cancel` says False."""
    path = str(tmp_path / "second")
    _, second, third = held(pool, gate, path, work.begin_and_wait, work.leave_mark)
    gate.touch()
    until(Path(path + ".begun").exists)

    assert not second.cancel()
    assert third.cancel()
    Path(path + ".end").touch()
    assert second.result(30) == path


def test_settled_by_hand(pool, gate, tmp_path):
    """What somebody has settled is not called any more."""
    first, second = held(pool, gate, str(tmp_path / "mark"), work.leave_mark)
    second.set_result("mine")
    gate.touch()

    assert (second.result(), first.result(30)) == ("mine", str(tmp_path / "mark"))
    assert pool.submit(int).result(30) == 0
    assert not (tmp_path / "mark").exists()


def test_timed_out(pool, gate, tmp_path):
    """A stage whose time is up before its turn is not called."""
    with ManualClock() as clock:
        _, second = held(pool, gate, str(tmp_path / "mark"), work.leave_mark)
        late = second.timeout(5)
        clock.advance(5)
        assert isinstance(late.exception(30), TimeoutError)
    until(second.done)
    gate.touch()

    assert second.cancelled()
    assert pool.submit(int).result(30) == 0
    assert not (tmp_path / "mark").exists()


def test_shutdown_cancels_it(gate, tmp_path):
    """A shutdown with `cancel_futures` cancels what was sent ahead, and lets the task end."""
    pool = ProcessPoolExecutor(1)
    pool.submit(int).result(30)
    first, second = held(pool, gate, str(tmp_path / "mark"), work.leave_mark)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.touch()
    pool.shutdown()

    assert (first.result(), second.cancelled()) == (str(tmp_path / "mark"), True)
    assert not (tmp_path / "mark").exists()


def test_what_is_said_to_be_cancelled_is_not_called(pool, tmp_path):
    """Whenever a cancellation comes: either it says no and the stage has its value, or the stage is never called."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    chance = random.Random(5)
    called = 0
    path = str(tmp_path / "mark")
    try:
        for _ in range(3000 if guard.IS_THOROUGH else 600):
            first = pool.submit(str, path)
            second = first.then(work.leave_mark)
            third = second.then(work.leave_mark)
            stages = [second, third]
            for _ in range(chance.randrange(400)):
                pass
            victim = chance.choice(stages)
            other = threading.Thread(target=chance.choice(stages).cancel)
            other.start()
            victim.cancel()
            other.join()
            _, pending = cf.wait([first, *stages], 30)
            assert not pending
            called += sum(not stage.cancelled() and stage.exception() is None for stage in stages)
    finally:
        sys.setswitchinterval(before)

    pool.submit(int).result(30)
    assert (Path(path).stat().st_size if Path(path).exists() else 0) == called


@pytest.mark.parametrize("order", ["cancel first", "send first"])
def test_cancelled_just_when_it_is_sent(pool, order, tmp_path):
    """Before whichever bytecode of a cancellation it is sent, or the other way round: it is for one of the two."""
    with Stepper(inside.STARTING_FILES | inside.CORE_FILES, threads=2, few=True) as stepper:
        for stop in itertools.count(0, 1 if guard.IS_THOROUGH or order == "cancel first" else 3):
            root, gate, mark = futurechain.Future(), tmp_path / f"gate {stop}", tmp_path / f"mark {stop}"
            first = root.then(work.wait_and_give, on=pool)
            second = first.then(work.leave_mark)
            kept = first.then(str, on=INLINE)  # so that the first one is made, whatever becomes of the second

            def send(root=root, kept=kept, gate=gate, paths=(str(gate), str(mark))):
                root.set_result(paths)
                inside.catch_up(pool)
                gate.touch()
                kept.result(30)  # by then the worker has gone on, if it does

            jobs = [second.cancel, send] if order == "cancel first" else [send, second.cancel]
            slots = stepper.run(jobs, [(0, stop), (1, NEVER)])
            assert [slot.error for slot in slots] == [None, None]
            cf.wait([second], 30)
            pool.submit(abs, -1).result(30)  # there is one worker: what came before has run
            assert second.cancelled() != mark.exists()
            assert second.cancelled() == slots[jobs.index(second.cancel)].value
            assert not inside.left_in(second)
            if slots[0].steps <= stop:
                return


def test_attached_while_its_source_is_launched(pool, tmp_path):
    """By whom it is sent ahead then, its cancellation and its call exclude each other."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    chance = random.Random(3)
    try:
        for number in range(2000 if guard.IS_THOROUGH else 300):
            path, root = tmp_path / str(number), futurechain.Future()
            first = root.then(work.nap_and_give, on=pool)
            settler = threading.Thread(target=root.set_result, args=(str(path),))
            settler.start()
            for _ in range(chance.randrange(600)):
                pass
            second = first.then(work.leave_mark)
            settler.join()
            kept = first.then(str, on=INLINE)
            cancelled = second.cancel()
            kept.result(30)
            cf.wait([second], 30)
            pool.submit(int).result(30)
            assert path.exists() != cancelled
    finally:
        sys.setswitchinterval(before)


def test_who_notes_first_has_the_call():
    """A number that one side has taken or withdrawn is out of the other one's reach, also when its process is dead."""
    worker, address = Progress.make()
    parent = Progress.open(address)
    assert parent.has_gate()
    assert in_a_child(worker.take, 3)
    assert not parent.withdraw(3)
    assert parent.withdraw(4)
    assert not in_a_child(worker.take, 4)
    assert in_a_child(worker.take, 5)


def test_no_lock_is_kept(pool, tmp_path):
    """However many stages are sent ahead, taken, or cancelled: the system keeps no locks for them."""
    before = locks_of(os.getpid(), *pool._processes)  # tests before may have left some
    for number in range(100):
        gate = tmp_path / str(number)
        _, second, third = held(pool, gate, 1, work.count_up, work.count_up)
        if number % 2:
            third.cancel()
        gate.touch()
        cf.wait([second, third], 30)

    assert locks_of(os.getpid(), *pool._processes) <= before


# -- a worker dies ----------------------------------------------------------------------------------------------------


def test_a_stage_that_kills_its_worker():
    """It fails alone, by name; its source has its value, and the pool goes on."""
    with ProcessPoolExecutor(1, heal=True) as pool:
        pool.submit(int).result(30)
        first = pool.submit(work.count_up, 1)
        second = first.then(work.exit_now)
        third = second.then(work.count_up)

        assert first.result(30) == 2
        with pytest.raises(WorkerDiedError, match="exit_now"):
            third.result(30)
        assert pool.submit(work.count_up, 1).then(work.count_up).result(30) == 3


@pytest.mark.parametrize("heal", [False, True])
def test_a_task_that_is_killed_with_stages_behind_it(heal, gate, tmp_path):
    """They fail with its error, and were not called."""
    pool = ProcessPoolExecutor(1, heal=heal)
    pool.submit(int).result(30)
    first, second, third = held(pool, gate, str(tmp_path / "mark"), work.leave_mark, work.leave_mark)
    for pid in tuple(pool._processes):
        os.kill(pid, signal.SIGKILL)

    assert isinstance(first.exception(30), WorkerDiedError if heal else BrokenProcessPool)
    assert third.exception(30) is second.exception(30) is first.exception()
    assert not (tmp_path / "mark").exists()
    pool.shutdown()


def test_a_broken_pool_whose_workers_go_on_for_a_moment(caplog):
    """What a worker says after the pool has broken harms nobody: the pool tells why it is broken."""
    pool = ProcessPoolExecutor(2, initializer=work.refuse_to_end)
    cf.wait([pool.submit(work.nap, 0.05) for _ in range(2)])
    last = pool.submit(work.nap, 0.3, 1).then(work.count_up).then(work.count_up)
    until(lambda: inside.sent_ahead(pool) == 2)
    pool.submit(work.exit_now)

    assert isinstance(last.exception(30), BrokenProcessPool)
    time.sleep(0.5)  # the worker goes on, until it is killed
    with pytest.raises(BrokenProcessPool, match="ended abruptly"):
        pool.submit(int)
    pool.shutdown()
    assert not caplog.records


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_kills_at_any_moment(method):
    """Each stage of each chain ends: with its value, with the death of its worker, or with that of one before it."""
    chance = random.Random(7)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method), heal=True) as pool:
        stages = []
        for number in range(300 if guard.IS_THOROUGH else 60):
            chain = [pool.submit(work.count_up, number)]
            for _ in range(6):
                chain.append(chain[-1].then(work.count_up))
            stages.append(chain)
            if not number % 3:
                for _ in range(chance.randrange(3000)):
                    pass
                for pid in tuple(pool._processes):
                    if chance.random() < 0.5:
                        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                            os.kill(pid, signal.SIGKILL)
                cf.wait(chain, 30)
        _, pending = cf.wait([stage for chain in stages for stage in chain], 60)
        assert not pending

        for number, chain in enumerate(stages):
            dead = None
            for length, stage in enumerate(chain, 1):
                error = stage.exception()
                if dead is None and error is None:
                    assert stage.result() == number + length
                else:
                    assert isinstance(error, WorkerDiedError)
                    assert dead is None or error is dead
                    dead = error
