"""The benchmarks measure what they say."""

from __future__ import annotations

import concurrent.futures as cf

import pytest

import work
from benchmarks import byhand, ratios, scenarios
from benchmarks.peers import peers


@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
def test_every_peer_runs_every_scenario(peer):
    """All adapters do the work they are timed for."""
    assert scenarios.create_settle_read(peer) == 1
    assert scenarios.chain(peer, 5) == 5
    assert scenarios.on_settled(peer, 5) == 5
    assert scenarios.error_through(peer, 5) == 5
    if peer.name != "Twisted":
        assert scenarios.fan_out(peer, 5) == 5


def test_the_helper_by_hand_is_correct():
    """Values, errors and cancellation pass through it."""
    parent = cf.Future()
    child = byhand.then(byhand.then(parent, work.double), work.double)
    failed = byhand.then(byhand.then(parent, work.boom), work.double)
    parent.set_result(1)
    cancelled = cf.Future()
    below = byhand.then(cancelled, work.double)
    cancelled.cancel()

    assert child.result(0) == 4
    assert isinstance(failed.exception(0), ValueError)
    assert below.cancelled()


def test_a_row_says_whether_its_bound_is_met():
    """The ratio is ours divided by the other's, and the bound belongs to it."""
    row = ratios.Row("work", lambda: 1.0, {"slow": (lambda: 4.0, 0.5), "quick": (lambda: 1.0, 0.5)})
    ratios.measure(row, 3)

    assert row.ratios == {"slow": 0.25, "quick": 1.0}
    assert not row.met()
    assert "bound 0.5: met" in ratios.show(row)
    assert "bound 0.5: NOT MET" in ratios.show(row)
