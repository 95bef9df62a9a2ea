"""The scenarios: each runs one piece of work for one peer, and says how many stages that was."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import Peer


def identity(value: Any) -> Any:
    """Do nothing: what is measured is everything around it."""
    return value


def create_settle_read(peer: Peer) -> int:
    """Make a future, settle it, read it."""
    future = peer.pending()
    peer.settle(future, 1)
    peer.read(future)
    return 1


def chain(peer: Peer, length: int) -> int:
    """Attach a chain of stages, then run it."""
    root = last = peer.pending()
    attach = peer.attach
    for _ in range(length):
        last = attach(last, identity)
    peer.settle(root, 1)
    peer.read(last)
    return length


def on_settled(peer: Peer, count: int) -> int:
    """Attach stages, one after the other, to a settled future."""
    last = peer.settled(1)
    attach = peer.attach
    for _ in range(count):
        last = attach(last, identity)
    peer.read(last)
    return count


def error_through(peer: Peer, length: int) -> int:
    """Let an error pass through stages that only take values."""
    root = last = peer.pending()
    attach = peer.attach
    for _ in range(length):
        last = attach(last, identity)
    peer.fail(root, ValueError("passes"))
    peer.flush()
    return length


def fan_out(peer: Peer, count: int) -> int:
    """Attach many stages to one future, then settle it."""
    root = peer.pending()
    attach = peer.attach
    last = root
    for _ in range(count):
        last = attach(root, identity)
    peer.settle(root, 1)
    peer.read(last)
    return count
