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
    "test_flatten.py", "test_combinators.py", "test_timing.py", "test_coroutines.py", "test_future.py", "test_threads.py",
    "test_unobserved.py", "test_handlers.py", "test_callback_threads.py",
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
            yield [*schedules, "--stop", *(word for case in self.cases for word in ("--case", case))]
        if self.tests:
            yield [*pytest, *(f"tests/{name}" for name in self.tests)]
        yield [*schedules, *SAMPLE]
        yield [*pytest, *(f"tests/{name}" for name in TESTS)]


MUTANTS = (
    Mutant(
        "core/state.py",
        "    if group is None:\n        return not withdraw(link, entry)\n",
        "    if group is None:\n        return True\n",
        "the attacher's second look: what comes too late is never started",
        ("bare(): finally | set_result", "bare(): add_done_callback | set_result"),
    ),
    Mutant(
        "core/state.py",
        "    late = group.pop(key, None) is not None",
        "    late = False",
        "the same for the second dependent and those after it",
        ("bare(then): finally | set_result",),
    ),
    Mutant(
        "core/stdlib.py",
        "if type(self._outcome) is Pending and not waiter.wait(timeout)",
        "if not waiter.wait(timeout)",
        "the waiter's second look: it sleeps for ever",
        ("bare(): result | set_result",),
    ),
    Mutant(
        "core/flatten.py",
        "    if forwarded and is_consumed(stage):\n        pin(stage)",
        "    if False:\n        pin(stage)",
        "who attaches while a stage is forwarded is lost with it",
        ("returns(): set_result | then",),
    ),
    Mutant(
        "core/flatten.py",
        "    if is_ring(stage, inner) and claim(stage):\n        detach(inner, stage)\n        return _cycle(inner)",
        "    pass",
        "a ring is not seen",
        ("ring(): close_ring | close_ring_too | close_ring_as_well",),
    ),
    Mutant(
        "future.py",
        "        return _start(parent, child) if withdraw(parent._link, child) else child",
        "        return child",
        "the second look of `then`",
        ("bare(): then | set_result",),
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

    def run(self, command):
        """Run one command; None if it succeeds, else what it says."""
        environment = {**os.environ, "PYTHONPATH": str(self.directory), "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            command, cwd=self.directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"no end after {PATIENCE:.0f} s"
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
        words = bench.run(command)
        assert words is None, f"{_short(command)} fails without any mutant: {words}"


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
    for mutant in mutants:  # those that cannot be applied come first
        mutant.apply(benches[0].directory / "futurechain")()
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
