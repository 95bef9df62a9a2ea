"""What makes ``python -m pytest benchmarks`` quiet, steady and readable."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.measure import steady

BYTES = "memory"
"""Groups whose title begins so measure bytes, not seconds."""


def pytest_configure(config: pytest.Config) -> None:
    """Show the columns that say something about a few samples, by size; and say who is left out, and why."""
    config.option.benchmark_columns = ["median", "min", "max", "rounds"]
    config.option.benchmark_sort = "median"
    config.option.benchmark_group_by = "group"
    config.option.reportchars += "s"
    config.option.verbose -= 1  # a line of dots: the table tells the rest


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_benchmark_scale_unit(unit: str, benchmarks: list[dict[str, object]]) -> tuple[str, float] | None:
    """Name the unit of memory: pytest-benchmark adds an s."""
    if unit == "seconds" and str(benchmarks[0]["group"]).startswith(BYTES):
        return "byte", 1.0
    return None


@pytest.fixture(scope="session", autouse=True)
def _steady() -> Iterator[None]:
    with steady():
        yield
