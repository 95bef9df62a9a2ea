"""Calls and outcomes as messages: what is pickled, what goes through shared memory, and how it is read again.

An object is packed into a `Parcel`: a stream by pickle, and the large buffers that pickle leaves out of it (protocol
5). Whatever of these is large, the stream included, goes into a block of shared memory; what is left goes through the
pipe. The *layout* says where each of them is: a number is a size in the pipe, a tuple is the handle of a block.
"""

from __future__ import annotations

import copyreg
import enum
import pickle
import struct
import traceback
import types
from collections import ChainMap
from collections.abc import Callable, Sequence
from concurrent.futures.process import _RemoteTraceback as RemoteTraceback
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, TypeAlias

from futurechain.executors.processes.leases import Receiver
from futurechain.executors.processes.shared_memory import Block, Handle, Sender, is_available
from futurechain.executors.processes.wire import JOINED, Piece

__all__ = [
    "PLAIN", "TIMES", "Kind", "Layout", "Opened", "Packer", "Parcel", "Status", "Times", "describe_error",
    "open_parcel", "with_remote_traceback",
]  # fmt: skip

PLAIN: frozenset[type] = frozenset({bool, bytes, complex, float, int, str, type(None)})
"""Values of exactly these types cannot be changed, and have no code of their own."""
Layout: TypeAlias = tuple["int | Handle", tuple["int | Handle", ...]]
"""Where the stream is, and each of its buffers."""


class Kind(enum.IntEnum):
    """What a frame is."""

    TRIP = 1
    """Calls to make."""
    GOODBYE = 2
    """Nothing more will come: end."""
    INLINE = 3
    """What was sent last cannot be opened here: send it again, through the pipe."""
    READY = 4
    """The worker has started."""
    NOT_READY = 5
    """The worker could not start: the reason, as a text."""
    ANSWER = 6
    """How the calls of a trip have ended, as far as they were made."""
    CALL = 7
    """A trip of one call, all of it in the stream of its parcel."""
    VALUE = 8
    """How that has ended: `TIMES`, and a value, all of it in the stream of its parcel."""
    AHEAD = 9
    """A function to call with the value of the call before; the worker may do so at once (see `progress`)."""
    GOES_ON = 10
    """As `VALUE`, and the worker has taken what was sent ahead to follow."""
    NEXT = 11
    """As `CALL`, sent behind what the worker does: it is to be taken (see `progress`), or is not to be made."""
    SKIPPED = 12
    """The call of that number was not made: it was recalled, or came between an answer and the repetition of it."""


class Status(enum.IntEnum):
    """How one call has ended."""

    VALUE = 1
    RAISED = 2
    CALL_UNREADABLE = 3
    """The call could not be unpickled in the worker."""
    RESULT_UNSENDABLE = 4
    """The result could not be pickled in the worker."""
    ERROR_UNSENDABLE = 5
    """It raised what could not be pickled; a text says what."""


class Times(NamedTuple):
    """When things happened, by ``time.perf_counter``, which is one clock for all processes of a machine."""

    received: float
    """The worker had read the trip."""
    began: float
    """It called the function."""
    ended: float
    """The function had returned or raised."""


TIMES = struct.Struct("<3d")
"""`Times` in a short message."""


class Parcel:
    """A packed object."""

    __slots__ = ("blocks", "layout", "pieces", "size")

    def __init__(self, layout: Layout, pieces: Sequence[Piece], blocks: Sequence[Block]) -> None:
        self.layout: Layout = layout
        self.pieces: Sequence[Piece] = pieces
        self.blocks: Sequence[Block] = blocks
        self.size: int = sum(map(len, pieces)) + (sum(block.size for block in blocks) if blocks else 0)
        """How much memory it takes."""

    def is_short(self) -> bool:
        """Tell whether there is nothing in it but a stream, a copy of which costs less than to send it apart."""
        return not (self.blocks or self.layout[1] or self.size >= JOINED)

    def short(self) -> bytes | None:
        """Return its stream, if it is short."""
        return b"".join(self.pieces) if self.is_short() else None

    def inlined(self) -> Parcel:
        """Return the same with nothing in shared memory; its blocks stay to be dropped by the caller."""
        blocks = iter(self.blocks)
        pieces: list[Piece] = []
        sizes: list[int] = []
        rest = iter(self.pieces)
        for place in (self.layout[0], *self.layout[1]):
            taken = [next(blocks).read()] if isinstance(place, tuple) else _next_pieces(rest, place)
            pieces += taken
            sizes.append(sum(map(len, taken)))
        return Parcel((sizes[0], tuple(sizes[1:])), pieces, ())


def _next_pieces(pieces: Any, size: int) -> list[Piece]:
    taken: list[Piece] = []
    while size > 0:
        taken.append(next(pieces))
        size -= len(taken[-1])
    return taken


class Packer:
    """Packs objects for other processes; in any thread."""

    def __init__(self, share: int | None) -> None:
        self._share = share if is_available() else None
        self._made: dict[str, Sender] = {}

    @property
    def sender(self) -> Sender | None:
        """What writes blocks, or None while there are none."""
        return self._made.get("sender")

    def _blocks(self) -> Sender | None:
        try:
            return self.sender or self._made.setdefault("sender", Sender())  # decides whose it is
        except OSError:
            self._share = None
            return None

    @property
    def address(self) -> tuple[int, int] | None:
        """Where the receiver finds the ledger, if there is anything to be found."""
        return None if self.sender is None or self._share is None else self.sender.address

    def pack(self, value: object) -> Parcel:
        """Pickle `value`; raises what its parts raise when they are pickled."""
        if _is_light(value):
            data = pickle.dumps(value, 5)
            return Parcel((len(data), ()), (data,), ())
        share, buffers = self._share, list[Any]()
        file = _Pieces()
        pickler = pickle.Pickler(file, 5, buffer_callback=None if share is None else _collector(buffers, share))
        pickler.dispatch_table = _reducers
        pickler.dump(value)
        stream = file.pieces
        size = len(stream[0]) if len(stream) == 1 else sum(map(len, stream))
        if not buffers and (share is None or size < share):
            return Parcel((size, ()), _kept(stream), ())
        return self._with_blocks(stream, size, buffers)

    def _with_blocks(self, stream: list[Any], size: int, buffers: list[memoryview]) -> Parcel:
        blocks: list[Block] = []
        pieces: list[Piece] = []
        share = self._share or 0
        places: list[int | Handle] = [size]
        try:
            if size >= share:
                places = [self._place(stream, size, blocks, pieces)]
            else:
                pieces += _kept(stream)
            places += [self._place([buffer], buffer.nbytes, blocks, pieces) for buffer in buffers]
        except BaseException:
            self.drop(blocks)
            raise
        return Parcel((places[0], tuple(places[1:])), pieces, blocks)

    def _place(self, parts: list[Any], size: int, blocks: list[Block], pieces: list[Piece]) -> int | Handle:
        """Put `parts` into a block, or among the pieces for the pipe."""
        sender = self._blocks()
        block = None if sender is None else sender.put(parts)
        if block is None:
            pieces += _kept(parts)
            return size
        blocks.append(block)
        return block.handle()

    def close(self) -> None:
        """Give up all blocks."""
        self._share = None
        if self.sender is not None:
            self.sender.close()

    def stop_sharing(self) -> None:
        """Send everything through the pipe from now on."""
        self._share = None

    def drop(self, blocks: Sequence[Block]) -> None:
        """Give up `blocks`: nobody will open them any more."""
        if blocks and self.sender is not None:
            self.sender.drop(blocks)


_ATOMS = frozenset({int, float, bool, type(None)})
_NAMED = frozenset({types.FunctionType, type})
"""What is always pickled by its name."""
_SHORT = 1 << 14


def _is_light(value: object) -> bool:
    """Tell whether a plain ``pickle.dumps`` does the same; it pays, since most small calls and results are such."""
    if type(value) in _ATOMS:
        return True
    if type(value) is not tuple or len(value) != 3 or type(value[2]) is not dict or value[2]:
        return _is_short_text(value)
    fn, args, _ = value
    if type(fn) not in _NAMED or type(args) is not tuple:
        return False
    for one in args:  # noqa: SIM110  # a generator costs more, and this is asked for each task
        if type(one) not in _ATOMS and not _is_short_text(one):
            return False
    return True


def _is_short_text(value: object) -> bool:
    return type(value) in (str, bytes) and len(value) < _SHORT  # type: ignore[arg-type]


class _Pieces:
    """A file that keeps what is written: pickle writes a large object as it is, so that is not copied here."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[Any] = []

    def write(self, piece: Any) -> None:
        """Keep `piece`: ``bytes`` as a rule; the memory of a large buffer, which is not ours to keep for long."""
        self.pieces.append(piece if type(piece) is bytes else memoryview(piece).cast("B"))


def _kept(pieces: list[Any]) -> list[Piece]:
    """Return pieces that nobody changes while they wait to be sent."""
    return [piece if type(piece) is bytes else bytes(piece) for piece in pieces]


_reducers = ChainMap(ForkingPickler._extra_reducers, copyreg.dispatch_table)  # type: ignore[attr-defined]
"""What multiprocessing knows to pickle, its locks and connections; what is registered later included."""


def _collector(buffers: list[Any], share: int) -> Callable[[pickle.PickleBuffer], bool]:
    def collect(buffer: pickle.PickleBuffer) -> bool:
        """Keep a large buffer out of the stream; True leaves a small one in."""
        raw = buffer.raw()
        if raw.nbytes < share:
            return True
        buffers.append(raw)
        return False

    return collect


class Opened(NamedTuple):
    """A parcel that has arrived, with its blocks mapped."""

    stream: Any
    buffers: list[Any]

    def load(self) -> Any:
        """Build the object; raises what its parts raise."""
        return pickle.loads(self.stream, buffers=self.buffers)  # noqa: S301  # from our own processes


def open_parcel(layout: Layout, payload: memoryview, receiver: Receiver) -> tuple[Opened, memoryview]:
    """Return a parcel that begins at `payload`, and what comes after it.

    Raises:
        Unopened: if a block cannot be opened.
    """
    found: list[Any] = []
    for place in (layout[0], *layout[1]):
        if isinstance(place, tuple):
            found.append(receiver.open(place))
        else:  # a buffer must be writable; the stream need not be
            found.append(bytearray(payload[:place]) if found else payload[:place])
            payload = payload[place:]
    return Opened(found[0], found[1:]), payload


def describe_error(error: BaseException) -> tuple[str, str]:
    """Return class and message of `error`, and its traceback, as texts."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as reason:
        text = f"(its traceback cannot be formatted: {reason!r})\n"
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be told)"
    return f"{type(error).__qualname__}: {message}" if message else type(error).__qualname__, text


def with_remote_traceback(error: BaseException, text: str) -> BaseException:
    """Return `error`, with the traceback that it had in the worker as its cause."""
    try:
        error.__cause__ = RemoteTraceback(text)  # type: ignore[arg-type]  # that is what it takes
    except Exception:  # noqa: S110  # a class may forbid it
        pass
    return error
