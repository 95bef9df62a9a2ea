"""Ctrl-C that is held back and looked at."""

from __future__ import annotations

import signal
import threading

import pytest

from futurechain.demo.interrupts import HeldInterrupts


@pytest.fixture(autouse=True)
def as_usual():
    """A shell may have started the tests with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_it_is_raised_where_it_is_looked_at():
    """And nowhere else; again and again."""
    with HeldInterrupts() as interrupts:
        interrupts.check()
        press()
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                interrupts.check()


def test_what_comes_too_late_is_forgotten():
    """After the block Ctrl-C is what it was before, and nothing of the block is left."""
    with HeldInterrupts():
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        press()


def test_without_a_mask(monkeypatch):
    """Where signals cannot be blocked, a handler takes note."""
    monkeypatch.delattr(signal, "pthread_sigmask")
    with HeldInterrupts() as interrupts:
        press()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_a_background_job_is_not_meant():
    """Where Ctrl-C is ignored, it stays so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with HeldInterrupts() as interrupts:
        press()
        interrupts.check()


def test_in_another_thread():
    """It may be held back there, too; who gets it is the main thread's business."""
    found = []

    def work():
        with HeldInterrupts() as interrupts:
            interrupts.check()
            found.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert found == [{signal.SIGINT}]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
