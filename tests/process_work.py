"""What the tests of process pools run in workers: some of it is not good for them."""

from __future__ import annotations

import gc
import os
import signal
import stat
import time
from pathlib import Path

from work import boom, die, double, give_lock, pid, raise_stubborn, raise_two_arguments, recover

__all__ = ["boom", "die", "double", "give_lock", "pid", "raise_stubborn", "raise_two_arguments", "recover"]


def nap(seconds, value=None):
    time.sleep(seconds)
    return value


def exit_now(code=3):
    os._exit(code)


def fork_and_wait(seconds, pipe_held=True):
    """Leave a child behind that lives on for a while, and die."""
    if not os.fork():
        time.sleep(seconds)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def fork_and_return():
    os.fork()
    return os.getpid()


class DiesUnpickled:
    """Unpickling it ends the process."""

    def __reduce__(self):
        return exit_now, (7,)


class Unreadable:
    """It cannot be unpickled."""

    def __reduce__(self):
        return boom, ()


def give_unreadable():
    return Unreadable()


class DiesPickled:
    """Pickling it, in a worker, ends the process; what was written until then is on its way."""

    def __reduce__(self):
        os._exit(8)


def give_what_dies():
    return [bytes(500_000), DiesPickled()]


def give_bytes(size):
    return bytes(size)


def give_huge():
    raise MemoryError("huge")


def touch(data):
    data[0] = data[-1] = 7
    return data


def sum_of(data):
    return sum(memoryview(data).cast("B")[:10])


def fail_to_begin():
    raise ValueError("no licence")


def die_to_begin():
    os._exit(5)


def begin_slowly_then_fail(path):
    """Be fine the first time, and fail ever after."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        raise ValueError("no licence any more") from None


def interrupt_me():
    signal.raise_signal(signal.SIGINT)
    time.sleep(30)


def ignore_sigterm(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def note(path, seconds=60):
    """Write down who runs this, and go on for a while."""
    part = Path(path + ".part")
    part.write_text(str(os.getpid()))
    part.rename(path)
    time.sleep(seconds)


def die_once(path, value):
    """Die the first time."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return value
    return os.kill(os.getpid(), signal.SIGKILL)


def write_into_pipe():
    """Write rubbish into every socket that is open: the way back to the pool, and what a fork has inherited."""
    for fd in range(3, 1000):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, b"\xff" * 100)
        except OSError:
            pass
    time.sleep(20)


def clock(*_):
    return time.perf_counter()


def clock_after(before):
    """When the task before was made, and this one."""
    return before, time.perf_counter()


def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.002)


def give_after(path, value):
    """Wait until `path` is there."""
    wait_for(path)
    return value


def wait_and_give(paths):
    """Wait until the first one is there, and return the second."""
    wait_for(paths[0])
    return paths[1]


def nap_and_give(value):
    time.sleep(0.003)
    return value


def refuse_to_end():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def leave_mark(path):
    """Note that this was called: a byte for each call."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, b"x")
    finally:
        os.close(fd)
    return path


def begin_and_wait(path):
    """Let it be seen that this runs, and wait."""
    Path(path + ".begun").touch()
    wait_for(path + ".end")
    return path


def wait_for_and_raise(path):
    wait_for(path)
    raise ValueError(path)


def count_up(number):
    return number + 1


def give_list(_):
    return [1]


def lengthen(values):
    values.append(2)
    return values


def parcels_with_blocks():
    """How many packed objects this process holds that lie in shared memory."""
    return sum(type(one).__name__ == "Parcel" and bool(one.blocks) for one in gc.get_objects())


def leave_name(path, name):
    """Add a line to the file at `path`."""
    with Path(path).open("a") as file:
        file.write(f"{name}\n")


def leave_names(both):
    """Do so with a path and a name in one."""
    leave_name(*both)
