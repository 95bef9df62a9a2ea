"""Whoever watches changes nothing: the tests of behaviour pass under a trace, and in debug mode."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = ["combinators", "coroutines", "differential", "flatten", "future", "handlers", "processes", "threads", "timing"]
GROWS = "not constant_memory and not leaves_no_trace"
"""A recording grows with what it records."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["trace", "debug"])
def test_nothing_changes(how):
    """The same tests, the same outcomes."""
    files = [str(TESTS / f"test_{name}.py") for name in FILES]
    options = ["-p", "watched", "-k", GROWS] if how == "trace" else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment |= {"PYTHONPATH": str(TESTS), "FUTURECHAIN_DEBUG": str(int(how == "debug"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *files]
    run = subprocess.run(
        command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=590, check=False
    )

    assert run.returncode == 0, run.stdout[-5000:]
