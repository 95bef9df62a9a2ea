"""Slow poetry servers: each sends one poem, a few bytes at a time, to whoever connects."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

__all__ = ["PoetryServer"]


class PoetryServer:
    """Serve one poem on a free port of the loopback interface, within a ``with`` block.

    Args:
        poem: what to send.
        chunk: how many bytes at a time.
        delay: how many seconds between them.
        down: take no connections, to see a download fail.
    """

    def __init__(self, poem: bytes, *, chunk: int, delay: float, down: bool = False) -> None:
        self._poem = poem
        self._chunk = chunk
        self._delay = delay
        self._stop = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._socket.getsockname()
        """Where it listens: host and port."""
        if down:
            self.close()
        else:
            threading.Thread(target=self._accept, name=f"poetry-server-{self.address[1]}", daemon=True).start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed; or there is no descriptor to be had just now
                self._stop.wait(0.1)
            else:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the reader has gone
            for start in range(0, len(self._poem), self._chunk):
                if start and self._stop.wait(self._delay):
                    break
                connection.sendall(self._poem[start : start + self._chunk])
            connection.shutdown(socket.SHUT_RDWR)  # close() alone would wait for a forked child that inherited it

    def close(self) -> None:
        """Stop serving, in the middle of a poem if need be."""
        self._stop.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
