"""Storms of kills, cancels and timeouts over the process pool: nothing is lost, wrong, or left behind."""

from __future__ import annotations

import pytest

import storm


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("method", storm.METHODS)
def test_storms(method, stop):
    """Only killed tasks fail, in three storms for each start method, with and without stopping what is cancelled."""
    for seed in range(3):
        result = storm.in_a_process("ours", method, seed, ["--stop"] * stop)
        assert storm.is_good(result), result


@pytest.mark.parametrize("method", storm.METHODS)
def test_a_short_storm(method):
    """The same, in a few seconds."""
    result = storm.in_a_process("ours", method, 7, ["--tasks=400", "--kills=4"])
    assert storm.is_good(result), result
