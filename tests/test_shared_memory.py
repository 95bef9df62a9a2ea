"""Blocks of memory without a name: who may write into them, and when they are used again."""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path

import pytest

from futurechain.executors.processes import leases, shared_memory
from futurechain.executors.processes.leases import Receiver
from futurechain.executors.processes.progress import Progress
from futurechain.executors.processes.shared_memory import Sender, Unopened

pytestmark = pytest.mark.skipif(not shared_memory.is_available(), reason="this system has no such memory")
MB = 1 << 20


def descriptors():
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.fixture
def sender():
    return Sender()


@pytest.fixture
def receiver(sender):
    one = Receiver()
    one.connect(sender.address)
    return one


def test_a_block_goes_round(sender, receiver):
    """Write, open, drop: then the same block takes the next buffer."""
    first = sender.put([b"a" * MB])
    view = receiver.open(first.handle())
    assert bytes(view[:3]) == b"aaa"
    assert not view.readonly
    second = sender.put([b"b" * MB])
    assert second.slot != first.slot
    assert bytes(view[:3]) == b"aaa"
    del view
    assert sender.put([b"c" * MB]).slot == first.slot


def test_any_view_keeps_it(sender, receiver):
    """The last one to die sets it free."""
    block = sender.put([b"a" * MB])
    view = receiver.open(block.handle())
    part = view[10:20]
    del view
    assert sender.put([b"b" * MB]).slot != block.slot
    assert bytes(part) == b"a" * 10
    del part
    assert sender.put([b"c" * MB]).slot == block.slot


def test_sizes_share_blocks(sender, receiver):
    """A block takes whatever its power of two holds; several pieces lie one after the other."""
    block = sender.put([b"a" * (MB - 5)])
    del block.holder
    view = receiver.open(block.handle())
    del view
    again = sender.put([b"bc", b"d" * (MB - 20)])
    assert again.slot == block.slot
    assert bytes(receiver.open(again.handle())[:4]) == b"bcdd"


def test_what_is_not_kept_is_closed(sender, receiver, monkeypatch):
    """Beyond the number that is used again, the sender closes a block when the receiver has it."""
    monkeypatch.setattr(shared_memory, "MOST_KEPT", 1)
    kept, spare = sender.put([b"a" * MB]), sender.put([b"b" * MB])
    views = [receiver.open(block.handle()) for block in (kept, spare)]
    sender.collect()
    assert (kept.fd >= 0, spare.fd >= 0) == (True, False)
    assert bytes(views[1][:1]) == b"b"
    views.clear()
    sender.collect()
    assert sender.statistics() == (1, 1)


def test_memory_is_given_back(sender, receiver):
    """What is free for a while is closed; so is what the receiver has mapped and does not use."""
    block = sender.put([b"a" * MB])
    receiver.open(block.handle())
    assert sender.give_back(idle=1000)
    assert receiver.give_back(idle=1000)
    assert not sender.give_back(idle=0)
    assert not receiver.give_back(idle=0)
    assert sender.statistics() == (0, 0)


def test_a_holder_that_has_ended(sender):
    """Its blocks are closed, and never used again."""
    block = sender.put([b"a" * MB])
    block.holder = "somebody"
    sender.drop_all_of("somebody")
    assert sender.statistics() == (0, 0)
    with pytest.raises(Unopened):
        Receiver().open(block.handle())


def test_a_child_that_was_forked_sets_nothing_free(sender, receiver):
    """It drops its copy of a view; the block stays the parent's, and is not used again after that."""
    block = sender.put([b"a" * MB])
    view = receiver.open(block.handle())
    if not (child := os.fork()):
        del view
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    other = sender.put([b"b" * MB])
    assert other.slot != block.slot
    assert bytes(view[:3]) == b"aaa"
    del view
    sender.collect()
    assert block.fd == -1


def test_a_child_that_was_forked_keeps_what_it_sees(sender, receiver):
    """Though the parent has dropped its view, nobody writes into the block: the child has one still."""
    block = sender.put([b"a" * MB])
    view = receiver.open(block.handle())
    (ask, go), (answer, say) = os.pipe(), os.pipe()
    if not (child := os.fork()):
        os.read(ask, 1)
        os.write(say, bytes(view[:3]))
        os._exit(0)
    del view
    for _ in range(3):
        sender.put([b"b" * MB])
    os.write(go, b"!")
    assert os.read(answer, 3) == b"aaa"
    os.waitpid(child, 0)
    for fd in (ask, go, answer, say):
        os.close(fd)


def test_without_memory_there_is_no_block(sender, monkeypatch):
    """`put` says so, and leaves nothing behind."""
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError("no memory")))
    assert sender.put([b"a" * MB]) is None
    assert sender.statistics() == (0, 0)


def test_without_descriptors_there_is_no_block(monkeypatch):
    """Blocks take a quarter of what the process may open, no more."""
    monkeypatch.setattr(shared_memory, "descriptors_to_spare", lambda: 3)
    sender = Sender()
    assert [sender.put([b"a"]) is None for _ in range(5)] == [False, False, False, True, True]


def test_without_descriptors_the_receiver_copies(sender, receiver, monkeypatch):
    """It has a buffer of its own then, and the block is free at once."""
    monkeypatch.setattr(leases, "_is_short_of_descriptors", lambda: True)
    block = sender.put([b"a" * MB])
    assert receiver.open(block.handle()) == b"a" * MB
    assert sender.put([b"b" * MB]).slot == block.slot


def test_a_sender_that_has_ended():
    """Its blocks cannot be opened any more."""
    receiver = Receiver()
    with pytest.raises(Unopened):
        receiver.connect((os.getpid(), 1_000_000))
    with pytest.raises(Unopened):
        receiver.open((0, 0, 0, 1, 1, False))


def test_nothing_is_left_of_a_sender(receiver):
    """Neither descriptors nor memory; what the receiver has mapped stays its own."""
    gc.collect()
    before = descriptors()
    sender = Sender()
    one = Receiver()
    one.connect(sender.address)
    view = one.open(sender.put([b"a" * MB]).handle())
    sender.put([b"b" * MB])
    del sender
    assert bytes(view[:2]) == b"aa"
    del view, one
    gc.collect()
    assert descriptors() == before


def test_no_byte_is_ever_changed_under_a_reader(sender, receiver):
    """Random sends and drops: each view shows what was sent until it is dropped."""
    chance, held = random.Random(7), []
    for number in range(2000):
        block = sender.put([bytes([number % 251]) * chance.choice((5000, 70_000, 300_000))])
        held.append((number % 251, receiver.open(block.handle())))
        chance.shuffle(held)
        del held[chance.randrange(1, 12) :]
        assert all(view[0] == view[-1] == byte for byte, view in held)


def test_progress_is_seen_from_outside():
    """A number that one process writes and another reads."""
    writer, address = Progress.make()
    reader = Progress.open(address)
    assert reader.read() == 0
    for _ in range(3):
        writer.step()
    assert reader.read() == 3
    assert Progress.open((os.getpid(), 1_000_000)) is None
