"""A few seconds of what ``python -m tests.soak`` does for minutes."""

from __future__ import annotations

import pytest

import guard


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_a_short_soak(seconds):
    """Crowds of chains, disturbed at random, lose no future, and leave nothing behind."""
    ended = guard.run(["-m", "tests.soak", "--seconds", str(seconds)], seconds=100)
    assert "futures lost: 0;" in ended.out, ended
    assert "left:" not in ended.out, ended
