"""A plugin of pytest: each test runs while a trace records it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import futurechain


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    """Watch the whole test."""
    with futurechain.trace():
        yield
