"""What all tests share: fresh pools of each kind, the choice of slow tests, and no reports of other tests."""

from __future__ import annotations

import concurrent.futures as cf
import copyreg
import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import futurechain
import guard
from garbage import collect_garbage

PATIENT = settings(
    deadline=None,  # two busy cores say nothing about one example
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", PATIENT, max_examples=50)
settings.register_profile("thorough", PATIENT, max_examples=300)

KINDS = ("inline", "thread", "process", "wrapped")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests, too, and thousands of examples")


def pytest_configure(config: pytest.Config) -> None:
    guard.IS_THOROUGH = config.getoption("--all")
    settings.load_profile("thorough" if guard.IS_THOROUGH else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, unless it was asked for; whatever drives a browser is."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    if config.getoption("--all") or "slow" in config.getoption("markexpr"):
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow")])
    items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_report_header(config: pytest.Config) -> str:
    return "with the slow tests" if config.getoption("--all") else "without the slow tests: --all runs them, too"


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> None:
    """Take what the files before have left, and what was imported, out of the collector's sight.

    A full collection costs as much as there is to look at, and many tests do hundreds of them.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def pickling_as_it_was() -> None:
    """Exceptions pickle as they do in Python, although Dask's import teaches them another way, in the whole process."""
    for kind, reduce in tuple(copyreg.dispatch_table.items()):
        if str(getattr(reduce, "__module__", "")).startswith("tblib"):
            del copyreg.dispatch_table[kind]


@pytest.fixture(autouse=True)
def only_own_reports(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that reads the log finds no report of a failure that a test before it has dropped."""
    if "caplog" in request.fixturenames:
        collect_garbage()
    yield
    assert futurechain.succeed(-1).then(abs).done(), "this thread still believes that it runs a handler"


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
