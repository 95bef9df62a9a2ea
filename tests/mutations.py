"""Is each step of the protocol needed, and tested? Take it out, and see a test fail.

``python -m tests.mutations`` makes a copy of the package for each entry of `MUTANTS`, takes the step out of it that the
entry names, and runs what ought to notice: the schedules that the entry names, a random sample of all of them, and the
fast part of the tests. It prints what has killed each mutant. A mutant that survives, or whose text is not found
in its file exactly once, makes the exit code 1; so the table stays true while the core changes.

``python -m tests.mutations NAME ...`` runs those whose file or description contains one of the words.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MUTANTS", "Mutant"]

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("futurechain", "tests", "pyproject.toml")
WORKERS = 2
PATIENCE = 60.0
"""Seconds for one killer: a mutant that hangs for so long is dead as well."""
SAMPLE = ("--seconds", "15", "--seed", "1", "--stop")
TESTS = (
    "test_flatten.py", "test_combinators.py", "test_timing.py", "test_coroutines.py", "test_future.py",
    "test_threads.py", "test_unobserved.py", "test_handlers.py",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One step taken out.

    Args:
        file: in the package.
        before: the text, which is there exactly once, leading blanks apart.
        after: what stands there instead.
        breaks: what goes wrong without it.
        cases: of `schedules`, which are to notice; without, the random sample or the tests have to.
        tests: of pytest, which are to notice.
    """

    file: str
    before: str
    after: str
    breaks: str
    cases: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()

    def apply(self, package):
        """Change the file; back to what it was with the function that is returned."""
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        count = text.count(self.before)
        if count != 1:
            raise LookupError(f"{self.file} holds it {count} times: {self.before!r}")
        path.write_text(text.replace(self.before, self.after), encoding="utf-8")
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
        return lambda: path.write_text(text, encoding="utf-8")

    def killers(self):
        """The commands that may notice, the likeliest first."""
        schedules = [sys.executable, "-m", "tests.schedules"]
        pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout=30"]
        if self.cases:
            yield [*schedules, "--stop", "--some", "2000", *(word for case in self.cases for word in ("--case", case))]
        if self.tests:
            yield [*pytest, *(f"tests/{name}" for name in self.tests)]
        yield [*schedules, *SAMPLE]
        yield [*pytest, *(f"tests/{name}" for name in TESTS)]


MUTANTS = (
    # -- state: the ticket, and "attached, or too late?"
    Mutant(
        "core/state.py",
        "        dependents.remove(ticket)  # decides who settles it",
        "        dependents.index(ticket)",
        "the ticket decides: two settle one future",
        ("bare(then): set_result | cancel_root",),
    ),
    Mutant(
        "core/state.py",
        "        return take(others, future)",
        "        return bool(others)",
        "a stage is its own ticket, in the list of its source",
        ("bare(then): cancel_first | set_result",),
    ),
    Mutant(
        "core/state.py",
        "    if future._outcome is FORWARDED:\n        withdraw(dependents, PIN)\n    return True",
        "    return True",
        "a pin stays in the list of a settled future",
        ("waiting(): cancel_root | set_result",),
    ),
    Mutant(
        "core/state.py",
        "    if group is None:\n        return not withdraw(dependents, dependent)\n",
        "    if group is None:\n        return True\n",
        "the second look of who attaches: what comes too late is never started",
        ("bare(): add_done_callback | set_result", "bare(): finally | set_result"),
    ),
    Mutant(
        "core/state.py",
        "    if group is None:\n        return not withdraw(dependents, dependent)\n",
        "    if group is None:\n        return False\n",
        "the take-back decides: what comes too late is started twice",
        ("bare(): add_done_callback | set_result", "bare(): finally | set_result"),
    ),
    Mutant(
        "core/state.py",
        "    late = group.pop(key, None) is not None  # from the group itself: it may be out of the list",
        "    late = False",
        "the same look, in a group",
        ("bare(then_two, then): finally | set_result",),
    ),
    Mutant(
        "core/state.py",
        "    late = group.pop(key, None) is not None  # from the group itself: it may be out of the list",
        "    late = True",
        "the same take-back, in a group",
        ("bare(then_two, then): finally | set_result",),
    ),
    Mutant(
        "core/state.py",
        "    if late and not group:\n        withdraw(dependents, group)\n",
        "",
        "an empty group stays in the list of a settled future",
        ("bare(then): finally | set_result",),
    ),
    Mutant(
        "core/state.py",
        "        future._pin()\n        return True",
        "        return True",
        "who attaches to a forwarded stage pins it",
        ("waiting(): finally | look",),
    ),
    Mutant(
        "core/state.py",
        "            held.pop(~key, None)\n",
        "",
        "what stands for a stage leaves a group when the stage is cancelled",
        ("bare(adopt, adopt): cancel_first | cancel_last",),
    ),
    Mutant(
        "core/state.py",
        "    return future._outcome is FORWARDED and any(not one.done() for one in moved_from(future))",
        "    return False",
        "who was forwarded still consumes what it waited for",
        ("returns(adopt, adopt): set_result | cancel_first", "moves(adopt): set_result | cancel_first"),
    ),
    # -- flatten: returned futures, forwarding, rings
    Mutant(
        "core/flatten.py",
        "        return _does_not_wait(stage, outcome)\n    if",
        "        return outcome\n    if",
        "a stage that does not wait after all is not waited for by its pool",
        tests=("test_flatten.py",),
    ),
    Mutant(
        "core/flatten.py",
        "        self.key: int = ~id(stage)",
        "        self.key: int = id(stage)",
        "an entry that stands for a stage is not taken for the stage",
        ("waiting(then, adopt): cancel_root | set_result",),
    ),
    Mutant(
        "core/flatten.py",
        "    if forwarded:\n        stage._outcome = FORWARDED\n",
        "",
        "FORWARDED is stored before the list is looked at",
        ("returns(): then | set_result", "returns(): finally | set_result", "returns(): set_result | then"),
    ),
    Mutant(
        "core/flatten.py",
        "    if waiting is not None and has_dependents(stage):\n        pin(stage)",
        "    if False:\n        pin(stage)",
        "the second look of who forwards: somebody came before that",
        ("returns(): set_result | finally", "returns(): set_result | then"),
    ),
    Mutant(
        "core/flatten.py",
        (
            "        if not claim(stage):\n"
            "            return PENDING\n"
            "        inner._observed()\n"
            "        return inner._outcome"
        ),
        "        inner._observed()\n        return inner._outcome",
        "a stage that comes too late to a returned future claims itself",
        ("returns(then): set_result | set_inner | cancel_root", "returns(then): set_result | cancel_root | set_inner"),
    ),
    Mutant(
        "core/flatten.py",
        (
            "    if any(rings) and claim(stage):  # who closes it fails, and those who were moved with it\n"
            "        detach(inner, stage)\n"
            "        return _fail_ring(stage, inner)"
        ),
        "    pass",
        "rings are looked for",
        ("ring(): close_ring | close_ring_too | close_ring_as_well",),
    ),
    Mutant(
        "core/flatten.py",
        (
            "    if type(stage._outcome) is not Pending:  # cancelled before it was attached\n"
            "        detach(inner, stage)"
        ),
        "    if False:\n        detach(inner, stage)",
        "a stage cancelled before it was attached to a returned future leaves no entry there",
        ("returns(then_inner): set_result | cancel_root",),
    ),
    Mutant(
        "core/flatten.py",
        (
            "    elif not is_unclaimed(target):  # a second look: "
            "who cancels it may have seen what it waited for before\n"
            "        detach(inner, target)\n"
        ),
        "",
        "one that is cancelled while it is moved leaves no entry",
        ("returns(then_inner, adopt): set_result | cancel_first",),
    ),
    Mutant(
        "core/flatten.py",
        "    if type(target._outcome) is not Pending:  # a second look",
        "    if False and target:  # a second look",
        "one that is settled while it is moved holds no source",
        ("moves(then): set_result | set_inner",),
    ),
    Mutant(
        "core/flatten.py",
        "    moved.append(remembered)  # before it is taken out",
        "    [].append(remembered)  # before it is taken out",
        "a cancellation reaches those who were forwarded",
        ("returns(adopt): set_result | cancel_root",),
    ),
    Mutant(
        "core/flatten.py",
        '    target.__dict__["_waited_for"] = [*before, weakref.ref(stage)]\n',
        "",
        "and what they had waited for, when they are cancelled",
        ("returns(adopt): set_result | cancel_first",),
    ),
    Mutant(
        "core/flatten.py",
        "    for target in moved_from(stage):\n        if claim(target):\n            detach",
        "    for target in ():\n        if claim(target):\n            detach",
        "a ring that is broken lets those fail who were moved from it",
        ("ring_of_chains(adopt, adopt): close_ring | add_both",),
    ),
    Mutant(
        "core/flatten.py",
        "    return stage if stage is not None and settle_unowned(stage, outcome) else None",
        "    return stage if stage is not None and publish(stage, outcome) is None else None",
        "a returned future settles only the stage that still waits",
        ("waiting(then): cancel_root | set_result",),
    ),
    Mutant(
        "core/flatten.py",
        "for one in (*moved, stage) if one is not None)",
        "for one in (stage,))",
        "rings are looked for where an entry is moved to",
        ("ring(adopt): close_ring_too | close_ring | close_ring_as_well",),
        ("test_flatten.py",),
    ),
    # -- loop: what a thread does, and puts off
    Mutant(
        "core/loop.py",
        (
            "            except ValueError:\n"
            "                continue\n"
            "            except KeyboardInterrupt as interrupt:  # CPython looks for it after the call: `first` is ours"
        ),
        (
            "            except ValueError:\n"
            "                pass\n"
            "            except KeyboardInterrupt as interrupt:"
        ),
        "the removal decides between running a stage and cancelling it",
        ("bare(then): set_result | cancel_first",),
    ),
    Mutant(
        "core/loop.py",
        "        stage._dependents.insert(0, TICKET)\n    current.thread.later.append(stage)",
        "        pass\n    current.thread.later.append(stage)",
        "a stage that is put off has a ticket of its own",
        (),
        ("test_future.py",),
    ),
    Mutant(
        "core/loop.py",
        (
            "            if not claim(stage):\n"
            "                return None\n"
            "            publish(stage, outcome if call is None else call)"
        ),
        "            publish(stage, outcome if call is None else call)",
        "a stage of an executor that is passed by is claimed first",
        ("pool_hop(catch): set_result | cancel_root", "pool_hop(): set_exception | cancel_root"),
    ),
    Mutant(
        "core/loop.py",
        "            stage._scheduler.start(stage, stage._call)\n        has_more",
        "            pass\n        has_more",
        "who blocks hands over the stage that it was to carry on with",
        (),
        ("test_threads.py", "test_future.py"),
    ),
    Mutant(
        "core/loop.py",
        "        has_more = any(start_all() for start_all in tuple(thread.starting))\n",
        "        has_more = False\n",
        "who blocks starts what is queued where this thread starts things",
        (),
        ("test_limit.py",),
    ),
    Mutant(
        "core/loop.py",
        "    if begin(stage):\n        outcome = perform(stage, stage._call, thread, stage._context)",
        "    if True:\n        outcome = perform(stage, stage._call, thread, stage._context)",
        "a worker claims the stage that it carries on with",
        ("pool_stage(): open_gate | cancel_root", "pool(then): open_gate | cancel_first"),
    ),
    Mutant(
        "core/loop.py",
        "    if not begin(future):\n        return\n    thread = current.thread",
        "    if not claim(future):\n        return\n    thread = current.thread",
        "what waits for a future that it returned is run once more",
        tests=("test_nested_waits.py",),
    ),
    Mutant(
        "core/loop.py",
        "    if not begin(future):\n        return\n    thread = current.thread",
        "    begin(future)\n    thread = current.thread",
        "a worker claims what it executes",
        ("pool_hop(then): set_result | cancel_root",),
        ("test_threads.py",),
    ),
    # -- cancel
    Mutant(
        "core/cancel.py",
        "    if shielded or is_consumed(source):\n        return",
        "    if shielded:\n        return",
        "what somebody else consumes is not cancelled",
        ("bare(then_two, then): cancel_first | look",),
    ),
    Mutant(
        "core/cancel.py",
        "    detach(source, child)\n    if",
        "    if",
        "a cancelled stage is no consumer any more",
        ("bare(adopt): cancel_first | look", "bare(adopt, adopt): cancel_first | cancel_last"),
    ),
    Mutant(
        "core/cancel.py",
        "            if claim(target):\n                yield target, self.failure",
        "            if False:\n                yield target, self.failure",
        "a cancellation goes down to those who were forwarded",
        ("returns(adopt): set_result | cancel_root",),
    ),
    Mutant(
        "core/cancel.py",
        "            owned.extend(release(before(), self.future))",
        "            pass",
        "a cancellation goes up to what was waited for before it was forwarded",
        ("returns(adopt): set_result | cancel_first",),
    ),
    Mutant(
        "core/cancel.py",
        "    if future is not None and claim(future):",
        "    if future is not None:",
        "a timer claims what it lets fail",
        ("expiring(then): set_result | expire", "expiring(then): expire | set_result"),
    ),
    # -- workers that wait
    Mutant(
        "core/flatten.py",
        "    if blocked:\n        wake_blocked()",
        "    pass",
        "a worker that is blocked hears of what its future comes to wait for",
        (),
        ("test_nested_waits.py",),
    ),
    Mutant(
        "executors/threads.py",
        "                wake_blocked()\n",
        "                pass\n",
        "a worker that is blocked hears of what comes to be queued",
        (),
        ("test_nested_waits.py",),
    ),
    # -- what a worker elsewhere gets, against its cancellation
    Mutant(
        "executors/processes/jobs.py",
        "        self._owns = begin(self._stage)  # decides, against a cancellation",
        "        self._owns = not self._stage.done() and begin(self._stage) in (True, False)",
        "the ticket decides: what was said to be cancelled runs in a worker process",
        (),
        ("test_schedules.py::test_what_is_cancelled_has_not_run_and_does_not",),
    ),
    Mutant(
        "executors/processes/jobs.py",
        "            give_back(self._stage)\n",
        "            pass\n",
        "what comes back from a worker, not begun, can be sent to another one, or cancelled",
        (),
        ("test_process_pool.py::test_killed_while_idle",),
    ),
    Mutant(
        "executors/processes/progress.py",
        "            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)  # decides",
        "            pass",
        "what was sent ahead and is withdrawn is not called",
        (),
        ("test_ahead.py",),
    ),
    Mutant(
        "executors/processes/progress.py",
        "        if self._read(TAKEN) >= number:",
        "        if False:",
        "what a worker has taken is not withdrawn",
        (),
        ("test_ahead.py",),
    ),
    Mutant(
        "executors/processes/progress.py",
        "        is_here = self._read(TAKEN) < number",
        "        is_here = True",
        "what a worker has taken from behind another call is not recalled",
        (),
        ("test_behind.py",),
    ),
    Mutant(
        "executors/processes/progress.py",
        "        if self._read(RECALLED) >= number:\n            self._unlock(number)\n            return False\n",
        "",
        "what was recalled is not called",
        (),
        ("test_behind.py",),
    ),
    Mutant(
        "executors/processes/watcher.py",
        "        elif trip is not None and trip.number == number:",
        "        elif False:",
        "what was recalled when its turn had come is queued again",
        (),
        ("test_behind.py",),
    ),
    Mutant(
        "executors/processes/scheduler.py",
        "        if self.ahead.setdefault(id(stage), job) is not job:",
        "        self.ahead[id(stage)] = job\n        if False:",
        "a stage is sent ahead once, by who attaches it or by who launches its source",
        (),
        ("test_ahead.py",),
    ),
    Mutant(
        "executors/processes/ahead.py",
        "        may_go = not (stage.done() or KEPT_BACK in stage.__dict__)",
        "        may_go = not stage.done()",
        "the second look of who sends ahead: what is being cancelled is not sent any more",
        (),
        ("test_ahead.py",),
    ),
    Mutant(
        "executors/processes/scheduler.py",
        "                job.stays()  # somebody has settled it by hand: it is not to be called any more",
        "                pass",
        "what somebody has settled is not called ahead of its turn",
        (),
        ("test_ahead.py",),
    ),
    Mutant(
        "executors/parcel.py",
        "        if not begin(stage):  # it was cancelled by who had looked before there was anything to be stopped",
        "        if not begin(stage) and stage.done():",
        "a cancellation that found nothing to be stopped decides, too",
        (),
        ("test_schedules.py::test_what_is_cancelled_has_not_run_and_does_not",),
    ),
    # -- attaching, and in place
    Mutant(
        "core/attaching.py",
        (
            "        if not withdraw(source._dependents, stage):  # whoever settles the source has it\n"
            "            return stage\n"
        ),
        "        withdraw(source._dependents, stage)\n",
        "the take-back of a stage that comes too late decides",
        ("bare(): then | set_result",),
    ),
    Mutant(
        "core/attaching.py",
        "        if source._outcome is FORWARDED:\n            pin(source)\n            return stage\n",
        "        if source._outcome is FORWARDED:\n            return stage\n",
        "a stage that is attached in place pins a forwarded one",
        ("returns(): then | set_result",),
    ),
    Mutant(
        "core/fast.py",
        (
            "        return _connect(self, child)\n"
            "    dependents.append(child)\n"
            "    return child if self._outcome is PENDING else too_late(self, child)\n"
            "\n"
            "\n"
            "def then_on_inline"
        ),
        (
            "        return _connect(self, child)\n"
            "    dependents.append(child)\n"
            "    return child\n"
            "\n"
            "\n"
            "def then_on_inline"
        ),
        "the second look of `then` on a bare future",
        ("bare(): then | set_result",),
    ),
    Mutant(
        "core/fast.py",
        (
            "        return _connect(self, child)\n"
            "    dependents.append(child)\n"
            "    return child if self._outcome is PENDING else too_late(self, child)\n"
            "\n"
            "\n"
            "def then_on_settled"
        ),
        (
            "        return _connect(self, child)\n"
            "    dependents.append(child)\n"
            "    return child\n"
            "\n"
            "\n"
            "def then_on_settled"
        ),
        "the second look of `then` on a stage",
        ("stage(): then | set_result",),
    ),
    Mutant(
        "core/fast.py",
        "        if end._outcome is not PENDING:\n            return too_late(end, child)\n",
        "",
        "the second look of `addCallback`",
        ("chain(): add_callback | set_result", "bare(): add_callback | set_result"),
    ),
    Mutant(
        "core/fast.py",
        "            if source._outcome is PENDING or not withdraw(dependents, dependent):",
        "            if True:",
        "the second look of a combination",
        ("bare(): gather | set_result", "bare(): race | set_result"),
    ),
    Mutant(
        "core/fast.py",
        "                dependents.remove(dependent)\n                dependent.count()",
        "                dependent.count()",
        "`set_result` takes the combination out before it counts",
        (),
        ("test_combinators.py",),
    ),
    # -- scheduler: the end of a chain
    Mutant(
        "core/scheduler.py",
        "    if type(found) is Chain:\n        chain = found\n    else:\n        future._chain = chain\n",
        "    future._chain = chain\n",
        "the second look of who begins a chain",
        ("bare(): add_callback | add_callback", "bare(): add_callback | add_both"),
    ),
    Mutant(
        "core/scheduler.py",
        "_beginnings.setdefault(key, Chain(future))",
        "_beginnings.get(key) or Chain(future)",
        "of two that begin a chain one decides",
        ("bare(): add_callback | add_callback", "bare(): add_callback | add_both"),
    ),
    Mutant(
        "core/scheduler.py",
        "    if chain.has_begun:\n        tidy(chain.ends)\n",
        "    chain.ends.remove(end)\n",
        "a child is not taken out before it has found its predecessor",
        ("chain(): add_callback | add_both | add_callback",),
    ),
    Mutant(
        "core/scheduler.py",
        "    if chain.has_begun:\n        tidy(chain.ends)\n",
        "    tidy(chain.ends)\n",
        "nobody tidies before the first child has found the root",
        ("bare(): add_callback | add_callback | add_both",),
    ),
    # -- stdlib: who waits
    Mutant(
        "core/stdlib.py",
        "if type(self._outcome) is Pending and not waiter.wait(timeout)",
        "if not waiter.wait(timeout)",
        "the second look of a thread that waits",
        ("bare(): result | set_result",),
    ),
    Mutant(
        "core/stdlib.py",
        "        finally:\n            withdraw(self._dependents, waiter)",
        "        finally:\n            pass",
        "a thread that waits no more leaves the list",
        ("bare(): result | set_result",),
    ),
    Mutant(
        "core/stdlib.py",
        (
            "            if not self.done():\n"
            "                return\n"
            "            withdraw(self._dependents, condition)"
        ),
        "            return\n            withdraw(self._dependents, condition)",
        "the second look of `concurrent.futures.wait`",
        ("bare(): wait | set_result",),
    ),
    Mutant(
        "core/stdlib.py",
        "            withdraw(self._dependents, condition)  # a second look",
        "            pass  # a second look",
        "its condition leaves the list",
        ("bare(): wait | set_result",),
    ),
    Mutant(
        "core/stdlib.py",
        'self.__dict__.setdefault("_waited", fresh)',
        'self.__dict__.__setitem__("_waited", fresh) or fresh',
        "of two conditions one decides",
        ("bare(): wait | wait",),
    ),
    Mutant(
        "core/stdlib.py",
        "            self._dependents.insert(0, RUNNING)\n",
        "",
        "who announces the work may settle it",
        ("bare(): set_running | set_result",),
    ),
    # -- combinations, lost producers, timers, coroutines
    Mutant(
        "flow/combinators.py",
        "            let_go(distinct, self)\n        return cast",
        "            pass\n        return cast",
        "a combination that is decided early takes its entries back",
        ("bare(then): race | set_result", "bare(): gather | set_exception"),
    ),
    Mutant(
        "core/state.py",
        "        mine = claim(future)\n",
        "        mine = claim(future) or True\n",
        "of several parts of a combination one decides",
        (
            "raced(then): set_result | set_inner",
            "raced(then): set_result | cancel_root",
            "gathered(then): set_result | cancel_root",
        ),
        ("test_combinators.py",),
    ),
    Mutant(
        "core/lost.py",
        (
            "                if type(waiting._outcome) is not Pending:  # a second look: cancelled before our store\n"
            "                    waiting._source = None\n"
        ),
        "",
        "one that is cancelled while its producer goes holds no source",
        ("expiring(): drop | cancel_root", "stage(): drop | cancel_root"),
    ),
    Mutant(
        "core/state.py",
        (
            "    if has_dependents(future):\n"
            "        return True\n"
            "    # Only then: who moves on is noted before it leaves the list (see `flatten._move`).\n"
            "    return future._outcome is FORWARDED and any(not one.done() for one in moved_from(future))\n"
        ),
        (
            "    moved = future._outcome is FORWARDED and any(not one.done() for one in moved_from(future))\n"
            "    return moved or has_dependents(future)\n"
        ),
        "one of two consumers is given up while the other one moves on: it is still consumed",
        ("returns(then, adopt): cancel_first | set_result",),
    ),
    Mutant(
        "future.py",
        (
            "            if child.done():  # settled while the timer was being set\n"
            "                timer.cancel()\n"
        ),
        "",
        "a timer that is set too late is withdrawn",
        ("bare(): timeout | set_result",),
    ),
)


class Bench:
    """A copy of the tree in which mutants are tried, one after the other."""

    def __init__(self, directory):
        self.directory = Path(directory)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.directory / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.directory / name)

    def run(self, command, patience=PATIENCE):
        """Run one command; None if it succeeds, else what it says."""
        environment = {**os.environ, "PYTHONPATH": str(self.directory), "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            command, cwd=self.directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            output, _ = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"no end after {patience:.0f} s"
        return None if process.returncode == 0 else _last_words(output)

    def kill(self, mutant):
        """What has killed `mutant`: ``(command, words)``; or None."""
        restore = mutant.apply(self.directory / "futurechain")
        try:
            for command in mutant.killers():
                words = self.run(command)
                if words is not None:
                    return command, words
        finally:
            restore()
        return None


def _last_words(output):
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR", "E  "))]
    if failed:
        return failed[-1]
    told = [number for number, line in enumerate(lines) if re.search(r"for example --case", line)]
    return lines[told[0] + 1] if told and told[0] + 1 < len(lines) else (lines or ["(silence)"])[-1]


def _short(command):
    words = command[command.index("-m") + 1 :]
    return " ".join(word for word in words if word not in {"-q", "-x", "-p", "no:cacheprovider", "--stop"})


def check_baseline(bench, mutants):
    """Make sure that what is to notice mutants is silent about the core as it is.

    Raises:
        AssertionError: otherwise.
    """
    cases = sorted({case for mutant in mutants for case in mutant.cases})
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    probe = Mutant("", "", "", "", tuple(cases), tuple(tests))
    for command in probe.killers():
        words = bench.run(command, patience=10 * PATIENCE)
        assert words is None, f"{_short(command)} fails without any mutant: {words}"


def check_texts(bench, mutants):
    """Make sure that each text is found.

    Raises:
        LookupError: with all those that are not.
    """
    wrong = []
    for mutant in mutants:
        try:
            mutant.apply(bench.directory / "futurechain")()
        except LookupError as error:
            wrong.append(str(error))
    if wrong:
        raise LookupError("\n".join(wrong))


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only mutants whose file or description contains one of these")
    parser.add_argument("--no-baseline", action="store_true", help="do not run everything without a mutant first")
    given = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not given.words or any(word in f"{mutant.file} {mutant.breaks}" for word in given.words)
    ]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        survivors = try_all(chosen, Path(directory), baseline=not given.no_baseline)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed in {time.monotonic() - began:.0f} s")
    return 1 if survivors else 0


def try_all(mutants, directory, *, baseline):
    """Try all mutants on a few copies; how many survive."""
    benches = [Bench(directory / str(number)) for number in range(WORKERS)]
    check_texts(benches[0], mutants)
    if baseline:
        check_baseline(benches[0], mutants)

    def attempt(mutant):
        bench = benches.pop()
        started = time.monotonic()
        try:
            killed = bench.kill(mutant)
        finally:
            benches.append(bench)
        verdict = "SURVIVES" if killed is None else f"killed by {_short(killed[0])}: {killed[1]}"
        print(f"{mutant.file}: {mutant.breaks}\n    {verdict[:300]} ({time.monotonic() - started:.0f} s)", flush=True)
        return killed is None

    with ThreadPoolExecutor(WORKERS) as pool:
        return sum(pool.map(attempt, mutants))


if __name__ == "__main__":
    sys.exit(main())
