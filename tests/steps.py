"""Module-level steps for the tests of pipelines: what runs in worker processes has to be importable."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path


def increment(value):
    return value + 1


def times_ten(value):
    return value * 10


def fail_on_threes(value):
    if value % 10 == 3:
        raise ValueError(f"no threes: {value}")
    return value


def stop(value):
    raise StopIteration(value)


def handled_here(value):
    """What is being handled where this runs."""
    return repr(sys.exc_info()[1])


def outlast_the_signal(path):
    """Write down which process this is, and pay no attention to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def with_pid(value):
    return (*value, os.getpid()) if isinstance(value, tuple) else (value, os.getpid())


def spin(seconds):
    """Be busy for so long, by the clock of this process's own work."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


def spin_between(seconds):
    """Be busy; when that began, and when it ended."""
    began = time.perf_counter()
    spin(seconds)
    return began, time.perf_counter()


def spin_thrice(seconds):
    spin(3 * seconds)
    return seconds


def spin_first(pair):
    """Be busy for longer than the next step may be."""
    spin(0.11)
    return pair


def fail_on_zero(seconds):
    if not seconds:
        raise ValueError("nothing was done")
    return seconds


def give_lock_on_threes(value):
    return threading.Lock() if value % 10 == 3 else value


def die_on_threes(value):
    if value % 10 == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def wait_for_file(path):
    """Return when a file has come into being."""
    while not Path(path).exists():
        time.sleep(0.001)
    return path


def stuck_on_threes(pair):
    value, path = pair
    if value % 10 == 3:
        wait_for_file(path)
    return value


def note_run(pair):
    """Note in a file that it was run; fail the first time."""
    path, value = pair
    with Path(path).open("a") as file:
        file.write("x")
    if len(Path(path).read_text()) < 3:
        raise ConnectionError(value)
    return value


def meet(call):
    """Return when so many processes are in here."""
    folder, number, parties = call
    Path(folder, str(os.getpid())).touch()
    while len(list(Path(folder).iterdir())) < parties:
        time.sleep(0.001)
    return number


def crowd(call):
    """Note how many are in the step in all processes at once, for a moment; the second one to be run counts."""
    folder, number, *before = call
    mark = Path(folder, f"{len(before)}-{number}")
    mark.touch()
    time.sleep(0.002)
    most = len(list(Path(folder).glob(f"{len(before)}-*")))
    mark.unlink()
    return (folder, number, *before, most)


def note_first(pair):
    """Note in another file that it was run."""
    path, _ = pair
    with Path(f"{path}-first").open("a") as file:
        file.write("x")
    return pair


class Awkward:
    """It pickles, unless it is a three."""

    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        if self.value % 10 == 3:
            raise TypeError("a three does not pickle")
        return Awkward, (self.value,)


def value_of(awkward):
    return awkward.value


class Unportable(Exception):
    """An exception that cannot be built anew."""

    def __init__(self, first, second):
        super().__init__(first)


def raise_unportable_on_threes(value):
    if value % 10 == 3:
        raise Unportable(value, "more")
    return value
