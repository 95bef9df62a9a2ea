"""What the tests of clusters run in workers: module-level functions."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from operator import mul
from pathlib import Path

from distributed import Event, get_client, get_worker

from futurechain.dask import DaskExecutor

OVER_MB = 1_200_000


class Refuses:
    """A value that can be moved between workers, and not be unpickled in the client."""

    def __init__(self, payload, home):
        self.payload = payload
        self.home = home

    def __reduce__(self):
        return _unpack, (self.payload, self.home)


def _unpack(payload, home):
    if os.getpid() == home:
        raise RuntimeError("this value has no business in the client")
    return Refuses(payload, home)


def make(size, home):
    return Refuses(b"x" * size, home)


def grow(value):
    return Refuses(value.payload + b"y", value.home)


def length(value):
    return len(value.payload if isinstance(value, Refuses) else value)


def lengths(values):
    return sum(map(length, values))


def nested_lengths(values):
    return sum(map(lengths, values))


def zeros(size):
    return bytes(size)


def wait_for(name, value=None):
    Event(name).wait(60)
    return value


def announce_and_wait(begun, name, value=None):
    Event(begun).set()
    Event(name).wait(60)
    return value


def begin_another(value):
    return get_client().submit(abs, -value, pure=False)


def begin_a_chain(value, times=2):
    return DaskExecutor(get_client()).submit(mul, value, 2).then(partial(mul, times)).then(abs)


def named(**kwargs):
    return kwargs


def same(value):
    return value


def die_at_seven(value):
    if value == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


class Closes:
    """An argument that closes the client while it is pickled."""

    def __init__(self, client):
        self.client = client

    def __reduce__(self):
        self.client.close()
        return int, ()


def worker_name(_=None):
    return get_worker().name


def die_once(value, path):
    """End the worker on the first call, as a file remembers."""
    if not Path(path).exists():
        Path(path).write_text("once", "ascii")
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def stop_iteration(*_):
    raise StopIteration(3)


def rapid(value):
    return value + 1


def odd(value):
    if value % 2:
        raise ValueError(value)
    return value


def spin(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return threading.current_thread().name


async def coroutine(value):
    return value


def falsy(*_):
    raise Falsy("no")


class Falsy(Exception):
    def __bool__(self):
        return False


class TwoArguments(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


def two_arguments(*_):
    raise TwoArguments(1, 2)


class Unsendable:
    """Pickles here, and cannot be unpickled anywhere."""

    def __call__(self, *_):
        return 1

    def __reduce__(self):
        return int, ("no number",)
