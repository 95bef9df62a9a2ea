"""Module-level functions for tests: what runs in worker processes has to be importable."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path


def add(left, right):
    return left + right


def double(value):
    return value * 2


def fetch(url):
    return f"page of {url}"


def parse(page):
    return {"page": page}


def save(record):
    return "Save successful"


def boom(*_):
    raise ValueError("boom")


def fail_counting(path):
    """Fail, and count the calls in a file, so that it does not matter in which process."""
    with Path(path).open("a+", encoding="ascii") as file:
        file.write(".")
        raise OSError(f"attempt {file.tell()}")


def leave(*_):
    sys.exit(3)


def pid(*_):
    return os.getpid()


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def give_lock(*_):
    return threading.Lock()


class Stubborn(Exception):
    """An exception that does not pickle."""

    def __init__(self):
        super().__init__("stubborn")
        self.lock = threading.Lock()


def raise_stubborn(*_):
    raise Stubborn


class Falsy(Exception):
    """An exception that is false."""

    def __bool__(self):
        return False


def raise_falsy(*_):
    raise Falsy("falsy")


def recover(error):
    return f"recovered from {type(error).__name__}"


class TwoArguments(Exception):
    """It pickles, and cannot be built anew from that."""

    def __init__(self, first, second):
        super().__init__(first)
        self.second = second


def raise_two_arguments(*_):
    raise TwoArguments(1, 2)


class Unwilling:
    def __reduce__(self):
        raise RuntimeError("not me")


def nap(seconds):
    time.sleep(seconds)


def is_none(value):
    return value is None


def touch(path):
    Path(path).touch()


def wait_a_moment(*_):
    time.sleep(0.05)


def one(*_):
    return 1


async def wait_for(future):
    return await future
