"""What runs in a worker process: read a trip, make its calls, send back how they ended.

The main thread does this, one trip at a time. A second thread waits for the parent's end and takes the process with it.
Ctrl-C, which a terminal sends to all processes, interrupts a call and nothing else: what to do about it is the
parent's decision.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import wait
from time import perf_counter
from typing import Any, NamedTuple

from futurechain.executors.processes.leases import Receiver
from futurechain.executors.processes.messages import (
    PLAIN,
    TIMES,
    Kind,
    Layout,
    Opened,
    Packer,
    Parcel,
    Status,
    Times,
    describe_error,
    open_parcel,
)
from futurechain.executors.processes.progress import Progress
from futurechain.executors.processes.shared_memory import IDLE_SECONDS, Unopened
from futurechain.executors.processes.wire import Frame, Piece, Reader, Writer, frame, short_frame

__all__ = ["Start", "main"]

logger: logging.Logger = logging.getLogger("concurrent.futures")


class Start(NamedTuple):
    """What a worker is started with."""

    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    share: int | None
    modules: tuple[str, ...] = ()
    """What it imports before it is ready, so that no call has to wait for that."""


def main(connection: Any, start: Start, unblock: bool) -> None:
    """Run a worker: the target of its process.

    Args:
        connection: its end of the pipe.
        start: how to begin.
        unblock: whether Ctrl-C was blocked for the time of the start only.
    """
    worker = _Worker(connection.fileno(), start.share)
    worker.expect_interrupts(unblock=unblock)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    if worker.get_ready(start):
        worker.serve()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:  # it is run by hand
        return
    watched: Any = parent.sentinel  # a pipe, which any other child that the parent has forked holds open, too
    try:
        watched = os.pidfd_open(parent.pid)  # type: ignore[arg-type]
    except ProcessLookupError:
        os._exit(1)
    except (AttributeError, OSError):
        pass
    wait([watched])
    os._exit(1)


class _Outcome(NamedTuple):
    """How one call has ended, packed."""

    status: Status
    times: Times
    parcel: Parcel
    texts: tuple[str, str] | None
    """For an error: what it is, and its traceback."""
    plain: tuple[object, ...] = ()
    """The value, if it may be given to another call as it is: that would get an equal one, and could not change it."""


class _Ahead(NamedTuple):
    """A call that was sent ahead, and the value for it."""

    opened: Opened
    value: object

    def load(self) -> tuple[Any, tuple[object], dict[str, Any]]:
        """Return what to call, and with what."""
        return self.opened.load(), (self.value,), {}


class _Worker:
    def __init__(self, fd: int, share: int | None) -> None:
        self._fd = fd
        self._pid = os.getpid()
        self._reader = Reader(fd)
        self._writer = Writer(fd)
        self._packer = Packer(share)
        self._receiver = Receiver()
        self._address: tuple[int, int] | None = None
        self._last: list[_Outcome] = []
        """What was sent last: the parent may not be able to open its blocks."""
        self._interruptible = False
        self._handler: Callable[..., object] = signal.default_int_handler
        self._progress: Progress | None = None
        """How many calls were begun: it tells the parent which one has killed this process, if one does."""
        self._heard = 0
        """How many of those that were sent ahead have come."""

    def expect_interrupts(self, *, unblock: bool) -> None:
        """Let Ctrl-C interrupt calls, and nothing else.

        A handler that was inherited does that; but none of an event loop, which has stayed behind, and hears of no
        signals of this process. Nor does such a one keep SIGTERM from ending it.
        """
        signal.set_wakeup_fd(-1)
        if _belongs_to_a_loop(signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        inherited = signal.getsignal(signal.SIGINT)
        if callable(inherited):
            self._handler = signal.default_int_handler if _belongs_to_a_loop(inherited) else inherited
            signal.signal(signal.SIGINT, self._interrupt)
        if unblock:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def get_ready(self, start: Start) -> bool:
        """Call the initializer; tell the parent how that went."""
        try:
            for name in start.modules:
                import_module(name)
            if start.initializer is not None:
                start.initializer(*start.initargs)
        except BaseException as error:
            logger.critical("Exception in initializer:", exc_info=True)
            self._send(Kind.NOT_READY, describe_error(error)[0])
            return False
        address = None
        made = Progress.make()
        if made is not None:
            self._progress, address = made
        try:
            self._send(Kind.READY, address)
        except BrokenPipeError:  # nobody wants it any more
            return False
        return True

    def _interrupt(self, *what: Any) -> None:
        if self._interruptible:
            self._handler(*what)

    def serve(self) -> None:
        """Do what the parent wants, until that is nothing more."""
        while (received := self._next()) is not None:
            if received.kind == Kind.CALL:
                self._make_one(received.payload)
            elif received.kind == Kind.TRIP:
                self._make(received)
            elif received.kind == Kind.INLINE:
                self._packer.stop_sharing()
                self._answer([one._replace(parcel=one.parcel.inlined()) for one in self._last])
            elif received.kind == Kind.AHEAD:  # too late: what it was to follow was answered, and it will come again
                self._heard += 1
            elif received.kind == Kind.NEXT:
                self._make_next(received.header, received.payload)
            else:
                return
            del received

    def _next(self) -> Frame | None:
        """Wait for a message; None if the parent has closed the pipe. Gives memory back while there is nothing."""
        frames = self._reader.frames
        while not frames:
            try:
                if self._has_memory() and not wait([self._fd], IDLE_SECONDS):
                    self._last.clear()
                    self._give_back()
                    continue
                self._reader.read()
            except (EOFError, OSError):
                return None
        return frames.popleft()

    def _has_memory(self) -> bool:
        return self._packer.sender is not None or self._address is not None

    def _give_back(self) -> None:
        self._receiver.give_back()
        if self._packer.sender is not None:
            self._packer.sender.give_back()

    def _make_one(self, stream: Any) -> None:
        """Make the call of a short message."""
        self._finish(self._call([Opened(stream, [])], perf_counter()))

    def _make_next(self, number: int, stream: Any) -> None:
        """Make a call that was sent while another one was made, unless it was withdrawn.

        While the parent may still ask for an answer once more, the next message has to be that.
        """
        self._heard += 1
        if not self._last and self._progress is not None and self._progress.take(number):
            self._make_one(stream)
        else:
            self._send(Kind.SKIPPED, number)

    def _finish(self, outcome: _Outcome) -> None:
        """Send back how the only call of a trip has ended, and go on with what was sent ahead to follow it."""
        following: list[_Ahead] = []
        while self._find_following(outcome, following):
            self._send_value(Kind.GOES_ON, outcome)
            outcome = self._call(following, perf_counter())
        if not (outcome.status is Status.VALUE and self._send_value(Kind.VALUE, outcome)):
            self._answer([outcome])

    def _send_value(self, kind: Kind, outcome: _Outcome) -> bool:
        """Send a value in a short message, if it can go in one."""
        value = outcome.parcel.short()
        if value is None:
            return False
        self._last = []
        self._write(short_frame(kind, TIMES.pack(*outcome.times) + value))
        return True

    def _find_following(self, outcome: _Outcome, found: list[_Ahead]) -> bool:
        """Find what was sent ahead to follow `outcome`, if that is plain and short; nobody can take it back then."""
        progress = self._progress
        if not outcome.plain or progress is None or progress.announced() <= self._heard:
            return False
        received = self._next_ahead() if outcome.parcel.is_short() else None
        if received is None or received.payload is None or not progress.take(received.header):
            return False
        found.append(_Ahead(Opened(received.payload, []), outcome.plain[0]))
        return True

    def _next_ahead(self) -> Frame | None:
        """Read the next of those that were announced: it is on its way, if it is not here."""
        frames = self._reader.frames
        while not frames:
            try:
                self._reader.read()
            except (EOFError, OSError):
                return None
        if frames[0].kind != Kind.AHEAD:
            return None
        self._heard += 1
        return frames.popleft()

    def _make(self, received: Frame) -> None:
        """Make the calls of a trip, as far as its time goes."""
        at = perf_counter()
        cut, address, layouts = received.header
        payload, outcomes = received.payload, list[_Outcome]()
        assert payload is not None
        try:
            self._connect(address)
            for layout in layouts:
                opened, payload = self._open(layout, payload)
                outcomes.append(self._call(opened, at))
                if cut is not None and outcomes[-1].times.ended - at >= cut:
                    break
        except Unopened:
            if not outcomes:
                self._send(Kind.INLINE)
                return
        if len(layouts) == 1 and cut is None:
            self._finish(outcomes[0])
        else:
            self._answer(outcomes)

    def _connect(self, address: tuple[int, int] | None) -> None:
        if address != self._address and address is not None:
            self._receiver.connect(address)
            self._address = address

    def _open(self, layout: Layout, payload: memoryview) -> tuple[list[Opened], memoryview]:
        opened, rest = open_parcel(layout, payload, self._receiver)
        return [opened], rest

    def _call(self, opened: list[Opened] | list[_Ahead], at: float) -> _Outcome:
        """Make one call; `opened` is emptied, so that nothing but the call holds its arguments."""
        if self._progress is not None:
            self._progress.step()
        began = perf_counter()
        status, value, error = Status.CALL_UNREADABLE, None, None
        try:
            self._interruptible = True
            fn, args, kwargs = opened.pop().load()
            status, began = Status.RAISED, perf_counter()
            value = fn(*args, **kwargs)
            self._interruptible = False
        except BaseException as raised:
            self._interruptible = False
            error = raised
            if isinstance(error, KeyboardInterrupt):  # it is no matter of what cannot be unpickled
                status = Status.RAISED
        if os.getpid() != self._pid:
            _leave_forked()
        times = Times(at, began, perf_counter())
        fn = args = kwargs = None
        try:
            return self._failure(status, times, error) if error is not None else self._value(times, value)
        finally:
            error = None  # no cycle: it holds this frame

    def _value(self, times: Times, value: object) -> _Outcome:
        try:
            plain = (value,) if type(value) in PLAIN else ()
            return _Outcome(Status.VALUE, times, self._packer.pack(value), None, plain)
        except BaseException as error:
            own = isinstance(error, MemoryError) or not isinstance(error, Exception)
            return self._failure(Status.RAISED if own else Status.RESULT_UNSENDABLE, times, error)

    def _failure(self, status: Status, times: Times, error: BaseException) -> _Outcome:
        texts = describe_error(error)
        try:
            return _Outcome(status, times, self._packer.pack(error), texts)
        except BaseException:
            if status is Status.RAISED:
                status = Status.ERROR_UNSENDABLE
            return _Outcome(status, times, self._packer.pack(None), texts)

    def _answer(self, outcomes: list[_Outcome]) -> None:
        self._last = [one for one in outcomes if one.parcel.blocks]
        if self._last:
            self._last = outcomes
        header = [(int(one.status), tuple(one.times), one.parcel.layout, one.texts) for one in outcomes]
        pieces: list[Piece] = [piece for one in outcomes for piece in one.parcel.pieces]
        self._send(Kind.ANSWER, (self._packer.address, header), pieces)

    def _send(self, kind: Kind, header: Any = (), payload: list[Piece] | None = None) -> None:
        self._write(frame(kind, header, payload or ()))

    def _write(self, pieces: list[Piece]) -> None:
        if not self._writer.send(pieces):
            self._writer.flush()  # a signal may have cut it short


def _belongs_to_a_loop(handler: Any) -> bool:
    module = getattr(getattr(handler, "func", handler), "__module__", None) or ""
    return module.partition(".")[0] in {"asyncio", "trio", "uvloop"}


def _leave_forked() -> None:
    """End a child that a task has forked and let return: the answer is the worker's to give."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: S110  # closed, or None
            pass
    os._exit(0)
