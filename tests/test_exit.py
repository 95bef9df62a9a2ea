"""The end of the interpreter: nothing is lost that can come, and nothing is waited for that cannot."""

from __future__ import annotations

import concurrent.futures as cf
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import guard
from exits import ENDINGS, PROGRAMS

AT_ONCE = 4
"""How many programs run at the same time: they mostly sleep."""

EVERYTHING = [(name, "plainly", "fork") for name in PROGRAMS]
ENDED_IN_ALL_WAYS = (
    "ping_pong",
    "thread_process_thread",
    "a_delay_before_a_pool",
    "each_task_submits_the_next",
)
OTHERWISE = [
    (name, ending, "fork") for name in ENDED_IN_ALL_WAYS for ending in ENDINGS if ending != "plainly"
]
OTHER_METHODS = [
    (name, "plainly", method)
    for name in ("thread_process_ping_pong", "callbacks_of_a_process_pool")
    for method in ("spawn", "forkserver")
]
REST = [
    (name, ending, method)
    for name, program in PROGRAMS.items()
    for ending in ENDINGS
    for method in (("fork", "spawn", "forkserver") if program.with_processes else ("fork",))
    if (name, ending, method) not in {*EVERYTHING, *OTHERWISE, *OTHER_METHODS}
]


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest) -> Iterator[Callable[[tuple[str, ...]], guard.Ended]]:
    """Run the programs of all tests that were chosen, some at once; give each test the one it asks for."""
    items = (getattr(item, "callspec", None) for item in request.session.items if item.path == request.path)
    chosen = [spec.params["case"] for spec in items if spec is not None and "case" in spec.params]
    with cf.ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {case: pool.submit(guard.run, ["-m", "tests.exits", *case], seconds=25) for case in chosen}
        yield lambda case: runs[case].result()
        for one in runs.values():
            one.cancel()


def check(case: tuple[str, str, str], ended: guard.Ended) -> None:
    name, ending, _ = case
    assert ended.code is not None, f"it hangs; printed {ended.out.split()}\n{ended.err[-4000:]}"
    if PROGRAMS[name].starts and sys.version_info[:2] == (3, 12) and "at interpreter shutdown" in ended.err:
        assert not ended.left, "processes are left"
        return  # that Python starts no thread, and forks no process, once it ends; and the report says so
    assert sorted(ended.out.split()) == PROGRAMS[name].prints, ended.err[-4000:]
    assert ended.code == ENDINGS[ending].code, ended.err[-4000:]
    assert not ended.left, "processes are left"
    if not ENDINGS[ending].code:
        assert "Traceback" not in ended.err, ended.err[-4000:]


@pytest.mark.parametrize("case", [*EVERYTHING, *OTHERWISE, *OTHER_METHODS], ids="-".join)
def test_the_end_of_a_program(ended, case):
    """What was begun ends, in whatever state the program ends, and the interpreter ends then."""
    check(case, ended(case))


@pytest.mark.slow
@pytest.mark.parametrize("case", REST, ids="-".join)
def test_the_end_of_a_program_in_all_other_ways(ended, case):
    """The same: every program, with every ending and every way to start a process."""
    check(case, ended(case))


INTERRUPTED = (
    "ping_pong",
    "thread_process_ping_pong",
    "the_steps_of_a_coroutine",
    "fan_out",
    "a_with_block_of_threads",
)


def interrupt(name: str, seed: int) -> guard.Ended:
    """Run a program, and send its group a Ctrl-C at a random moment, perhaps two."""
    chance = random.Random(seed)

    def kill(group: int) -> None:
        for _ in range(chance.choice((1, 1, 2))):
            time.sleep(chance.uniform(0, 0.35))
            try:
                os.killpg(group, signal.SIGINT)
            except ProcessLookupError:
                return

    begin = "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); os.write(1, b' ')"
    command = f"{begin}; from tests import exits; exits.main({name!r})"
    return guard.run(["-c", command], seconds=25, after_start=kill)


def check_interrupted(name: str, ended: guard.Ended) -> None:
    if ended.code is None and "standard" in name and "_adjust_thread_count" in ended.err:
        return  # a standard pool waits for ever for a thread that was starting when the Ctrl-C came
    assert ended.code is not None, f"{name} hangs; printed {ended.out.split()}\n{ended.err[-4000:]}"
    assert ended.code in {0, 1, -signal.SIGINT}, ended.err[-4000:]
    assert "Fatal" not in ended.err, ended.err[-4000:]
    assert not ended.left, "processes are left"


def test_ctrl_c_ends_a_program():
    """Ctrl-C at a random moment ends a program, whatever its pools are doing."""
    seed = random.randrange(10**6)
    print("seed", seed)
    cases = [(name, seed + number) for number in range(3) for name in INTERRUPTED]
    with cf.ThreadPoolExecutor(AT_ONCE) as pool:
        for (name, _), ended in zip(cases, pool.map(lambda case: interrupt(*case), cases), strict=True):
            check_interrupted(name, ended)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_ends_each_program(name):
    """The same for every program, at ten moments."""
    with cf.ThreadPoolExecutor(AT_ONCE) as pool:
        for ended in pool.map(lambda seed: interrupt(name, seed), range(10)):
            check_interrupted(name, ended)
