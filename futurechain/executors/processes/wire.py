"""Frames over a pipe: a head with size and kind, then the body.

Our side of a worker's pipe is non-blocking: `Reader.read` takes what is there, `Writer.flush` gives what fits, and what
is half done is kept for the next time. The worker's side blocks, and uses the same two.
"""

from __future__ import annotations

import marshal
import os
import struct
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

__all__ = ["JOINED", "Bell", "Frame", "Piece", "Reader", "Writer", "frame", "open_body", "short_frame"]

Piece: TypeAlias = bytes | bytearray | memoryview
"""A stretch of bytes that is written as it stands, without being copied together with others."""

HEAD = struct.Struct("<QBI")  # size of the body, kind, size of the header within the body
CHUNK = 1 << 16
JOINED = 1 << 17  # up to here one write of a copy is cheaper than a write of many pieces
LARGEST = 1 << 48
MOST_KINDS = 16
MOST_PIECES = 512  # in one system call; the system's own limit is 1,024


class Frame(NamedTuple):
    """A message that has arrived."""

    kind: int
    header: Any
    """What ``marshal`` makes of it: numbers, strings and tuples."""
    payload: memoryview | None
    """What follows; None if there was no memory for it."""


def frame(kind: int, header: Any = (), payload: Iterable[Piece] = ()) -> list[Piece]:
    """Return the pieces of a message."""
    packed = marshal.dumps(header)
    pieces = list(payload)
    body = len(packed) + sum(len(piece) for piece in pieces)
    pieces.insert(0, HEAD.pack(body, kind, len(packed)) + packed)
    return [b"".join(pieces)] if body < JOINED else pieces


def short_frame(kind: int, payload: bytes) -> list[Piece]:
    """Return the only piece of a message that has no header."""
    return [HEAD.pack(len(payload), kind, 0) + payload]


def open_body(kind: int, body: memoryview, header_size: int) -> Frame:
    """Return the message with that body."""
    if not header_size:
        return Frame(kind, (), body)
    return Frame(kind, marshal.loads(body[:header_size]), body[header_size:])  # noqa: S302  # our own bytes


class Reader:
    """Take messages from a pipe, as far as they have come."""

    __slots__ = ("_body", "_fd", "_got", "_head", "_rest", "_skip", "frames")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.frames: deque[Frame] = deque()
        self._rest = b""
        """What was read and is not used yet: less than a head, as a rule nothing."""
        self._head: tuple[int, int, int] | None = None
        self._body: memoryview | None = None
        self._got = 0
        self._skip = 0
        """How many bytes are still to be thrown away, of a body for which there is no memory."""

    def read(self) -> bool:
        """Read once and keep what is complete in ``frames``; False if there was no more than that.

        Raises:
            BlockingIOError: if there is nothing.
            EOFError: if the other end is closed.
        """
        if self._body is not None and len(self._body) - self._got >= CHUNK:
            count = os.readv(self._fd, [self._body[self._got :]])
            self._got += count
            more = self._got == len(self._body)
            piece = b""
        else:
            piece = os.read(self._fd, CHUNK)
            count, more = len(piece), len(piece) == CHUNK
            if self._head is None and not self._rest and count >= HEAD.size:
                size, kind, header_size = _checked(HEAD.unpack_from(piece))
                if HEAD.size + size == count:  # most messages come whole, and alone
                    self.frames.append(open_body(kind, memoryview(piece)[HEAD.size :], header_size))
                    return more
        if not count:
            raise EOFError
        self._take(memoryview(self._rest + piece) if self._rest else memoryview(piece))
        return more

    def _take(self, data: memoryview) -> None:
        """Use `data` for the message under way, and for those after it."""
        while True:
            if self._head is None:
                if len(data) < HEAD.size:
                    break
                self._head = _checked(HEAD.unpack_from(data))
                data = self._begin(data[HEAD.size :])
            else:
                data = self._continue(data)
            if self._head is not None:
                break
        self._rest = bytes(data)

    def _begin(self, data: memoryview) -> memoryview:
        """Begin the body of a new message, of which `data` is the first part; what is left of that."""
        assert self._head is not None
        size = self._head[0]
        if len(data) >= size:
            self._end(data[:size])
            return data[size:]
        try:
            self._body, self._got = memoryview(bytearray(size)), 0
        except (MemoryError, OverflowError):
            self._skip = size
        return self._continue(data)

    def _continue(self, data: memoryview) -> memoryview:
        if self._body is None:
            used = min(self._skip, len(data))
            self._skip -= used
            if not self._skip:
                self._end(None)
            return data[used:]
        used = min(len(self._body) - self._got, len(data))
        self._body[self._got : self._got + used] = data[:used]
        self._got += used
        if self._got == len(self._body):
            self._end(self._body)
        return data[used:]

    def _end(self, body: memoryview | None) -> None:
        assert self._head is not None
        _, kind, header_size = self._head
        self.frames.append(Frame(kind, (), None) if body is None else open_body(kind, body, header_size))
        self._head = self._body = None


def _checked(head: tuple[int, int, int]) -> tuple[int, int, int]:
    size, kind, header_size = head
    if size > LARGEST or not 0 < kind < MOST_KINDS or header_size > size:
        raise ValueError("this is no message: somebody else has written into the pipe")
    return head


class Writer:
    """Give messages to a pipe, as far as they fit."""

    __slots__ = ("_fd", "_left")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._left: list[memoryview] = []

    def send(self, pieces: Iterable[Piece]) -> bool:
        """Write `pieces` behind what is still to be written; True if all of it is out, else `flush` has to follow.

        When a single piece is out, nothing of this is touched any more: somebody else may be writing by then.

        Raises:
            OSError: if the other end is closed.
        """
        if not self._left and type(pieces) is list and len(pieces) == 1:  # most are so
            piece = pieces[0]
            try:
                written = os.write(self._fd, piece)
            except BlockingIOError:
                written = 0
            if written == len(piece):
                return True
            self._left = [memoryview(piece).cast("B")[written:]]
            return False
        self._left += [memoryview(piece).cast("B") for piece in pieces if len(piece)]
        return self.flush()

    def send_at_once(self, piece: Piece, written: list[int]) -> None:
        """Write what fits of a message of one piece, before which nothing waits; add to `written` how much that was.

        System call and note are one step of the interpreter: a Ctrl-C finds both done, or none.

        Raises:
            OSError: if the other end is closed.
        """
        with suppress(BlockingIOError):
            written.extend(map(os.write, (self._fd,), (piece,)))

    def go_on_with(self, rest: Piece) -> None:
        """Take note that so much of a message is still to be written."""
        self._left.append(memoryview(rest).cast("B"))

    def flush(self) -> bool:
        """Write what fits; True if nothing is left.

        Raises:
            OSError: if the other end is closed.
        """
        while self._left:
            try:
                written = os.writev(self._fd, self._left[:MOST_PIECES])
            except BlockingIOError:
                return False
            self._drop(written)
        return True

    def _drop(self, written: int) -> None:
        """Forget the first `written` bytes."""
        done = 0
        for view in self._left:
            if written < len(view):
                break
            written -= len(view)
            done += 1
        del self._left[:done]
        if written:
            self._left[0] = self._left[0][written:]


class Bell:
    """Wakes the thread that waits for ``fd``. Any thread may ring, finalizers and signal handlers included.

    Its pipe is closed with the object: while anybody can still ring, its numbers are nobody else's.
    """

    __slots__ = ("_rope", "_rung", "fd")

    def __init__(self) -> None:
        self.fd: int
        self.fd, self._rope = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._rope, False)
        self._rung = False

    def ring(self) -> None:
        """Wake it, if that was not done already.

        Whoever rings has put down before what the other is to find; that one silences the bell before it looks.
        """
        if not self._rung:
            self._rung = True
            try:
                os.write(self._rope, b"!")
            except BlockingIOError:  # full: it will wake up
                pass

    def silence(self) -> None:
        """Let it be rung again."""
        try:
            os.read(self.fd, CHUNK)
        except BlockingIOError:
            pass
        self._rung = False

    def __del__(self) -> None:
        if hasattr(self, "_rope"):  # no Ctrl-C came before that
            os.close(self.fd)
            os.close(self._rope)
