"""CPython's own tests of ``concurrent.futures`` pass with our classes in place of the standard ones."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cpython_suite import MODULES

RUNNER = Path(__file__).parent / "cpython_suite.py"


def suite_is_there():
    try:
        return importlib.util.find_spec("test.test_concurrent_futures.util") is not None
    except ImportError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="the suite that is meant is that of 3.13")
@pytest.mark.skipif(not suite_is_there(), reason="this Python comes without its test suite")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("module", MODULES)
def test_suite(module):
    """The module passes, in an interpreter of its own."""
    # Unmeasured: some of these fork while threads run, and a child would inherit a lock that coverage holds.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, str(RUNNER), module]
    run = subprocess.run(command, capture_output=True, text=True, timeout=390, check=False, env=environment)

    assert run.returncode == 0, run.stderr[-5000:]
    assert "\nOK" in run.stderr
