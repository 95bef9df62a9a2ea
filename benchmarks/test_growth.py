"""Chains, of both families, cost per stage what they cost when they are short."""

from __future__ import annotations

import pytest

from benchmarks.growth import best
from benchmarks.peers import ADD_CALLBACK, OURS

FACTOR = 4
"""Generous: what is shown is linear growth, not speed; quadratic growth would be a factor of 1,000."""


@pytest.mark.parametrize("family", [OURS, ADD_CALLBACK])
def test_a_stage_of_a_long_chain_costs_what_one_of_a_short_chain_does(family: str) -> None:
    """The time per stage of 100,000 is within a factor of that of 100."""
    short, long = best("chain", 100, 5, only=(family,)), best("chain", 100_000, 5, only=(family,))

    assert long[family] < FACTOR * short[family]
