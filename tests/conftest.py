"""What all tests share: fresh pools of each kind, and Hypothesis without deadlines."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import futurechain

settings.register_profile(
    "shared-machine",
    deadline=None,  # two busy cores say nothing about one example
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("shared-machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--all"):
        config.hook.pytest_deselected(items=[item for item in items if "slow" in item.keywords])
        items[:] = [item for item in items if "slow" not in item.keywords]


KINDS = ("inline", "thread", "process", "wrapped")


@pytest.fixture
def pool() -> Iterator[futurechain.ThreadPoolExecutor]:
    """A thread pool with two workers; the test ends when all its chains have ended."""
    with futurechain.ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def processes() -> Iterator[futurechain.ProcessPoolExecutor]:
    """A process pool with two workers; what runs there comes from an importable module."""
    with futurechain.ProcessPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(params=KINDS)
def executor(request: pytest.FixtureRequest) -> Iterator[cf.Executor]:
    """Each kind of executor in turn, for the rules that hold wherever a stage runs."""
    with _build(request.param) as executor:
        yield executor


def _build(kind: str) -> cf.Executor:
    if kind == "inline":
        return futurechain.INLINE
    if kind == "thread":
        return futurechain.ThreadPoolExecutor(2)
    if kind == "process":
        return futurechain.ProcessPoolExecutor(2)
    return futurechain.wrap_executor(cf.ThreadPoolExecutor(2))
