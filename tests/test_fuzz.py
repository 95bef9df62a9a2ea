"""A few seconds of what ``python -m tests.fuzz`` does for minutes."""

from __future__ import annotations

import pytest

import guard
from tests.fuzz import MIXES


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("seconds", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_random_programs(mix, seconds):
    """Whatever a program does to its pools and futures, everything is settled, and nothing is left or hangs."""
    ended = guard.run(["-m", "tests.fuzz", "--seconds", str(seconds), "--seed", "1", "--mix", mix], seconds=100)
    assert "0 of them with faults" in ended.out, ended
