"""Run CPython's own tests of ``concurrent.futures`` against our `Future` and our two pools.

A program, because it puts our classes in the place of the standard ones: ``python tests/cpython_suite.py [NAME ...]``
with names of modules of the suite, by default all. Its ready-made futures are made through the public interface.
"""

from __future__ import annotations

import concurrent.futures as standard
import concurrent.futures._base as base
import importlib
import sys
import unittest
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
sys.path.insert(0, ROOT)

import futurechain  # noqa: E402  # the line above lets it be found

MODULES = (
    "test_future",
    "test_wait",
    "test_as_completed",
    "test_thread_pool",
    "test_process_pool",
    "test_init",
    "test_shutdown",
    "test_deadlock",
)

NOT_NOTIFIED = "waits for a future in the private state CANCELLED; ours is notified by cancel() itself"

SKIPPED = {
    "FutureTest.test_cancel": "looks for the private state CANCELLED; ours is notified by cancel() itself",
    "FutureTest.test_exception_with_success": "settles a future by assigning its private _state and _exception",
    "WaitTest.test_first_completed": NOT_NOTIFIED,
    "WaitTest.test_first_exception_some_already_complete": NOT_NOTIFIED,
    "FutureTest.test_repr": "compares with the standard class's repr; ours is tested in test_future.py",
    "FutureTest.test_multiple_set_result": "compares with the standard message; ours is in test_future.py",
    "FutureTest.test_multiple_set_exception": "compares with the standard message; ours is in test_future.py",
    "test_hang_global_shutdown_lock": "ends only if a task may not submit after shutdown; here that is inside work",
    "test_python_finalization_error": "forbids the thread that feeds the standard pool's call queue; ours has none",
}
"""What names private attributes of the standard classes, or wants what is different by design; with the reason."""


def create_future(state=base.PENDING, exception=None, result=None):
    """Make a future in `state` through the public interface."""
    future = futurechain.Future()
    if state == base.RUNNING:
        future.set_running_or_notify_cancel()
    elif state in (base.CANCELLED, base.CANCELLED_AND_NOTIFIED):
        future.cancel()
    elif state == base.FINISHED and exception is not None:
        future.set_exception(exception)
    elif state == base.FINISHED:
        future.set_result(result)
    return future


def use_ours_in_interpreters():
    """Let the interpreters that the suite starts import our pools as well."""
    helper = importlib.import_module("test.support.script_helper")
    start = helper.assert_python_ok

    def start_with_ours(*arguments, **environment):
        changed = [one.replace("from concurrent.futures import", "from futurechain import") for one in arguments]
        return start(*changed, PYTHONPATH=ROOT, **environment)

    helper.assert_python_ok = start_with_ours


def load(names):
    """Import the suite with our classes in place of the standard ones; its tests."""
    use_ours_in_interpreters()
    standard.ThreadPoolExecutor = futurechain.ThreadPoolExecutor
    standard.ProcessPoolExecutor = futurechain.ProcessPoolExecutor
    util = importlib.import_module("test.test_concurrent_futures.util")
    original = base.Future
    base.Future = standard.Future = futurechain.Future
    util.create_future = create_future
    for name in ("PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED"):
        setattr(util, f"{name}_FUTURE", create_future(state=getattr(base, name)))
    util.EXCEPTION_FUTURE = create_future(state=base.FINISHED, exception=OSError())
    util.SUCCESSFUL_FUTURE = create_future(state=base.FINISHED, result=42)
    loader = unittest.TestLoader()
    suites = [
        loader.loadTestsFromModule(importlib.import_module(f"test.test_concurrent_futures.{name}")) for name in names
    ]
    base.Future = original
    return unittest.TestSuite(suites)


def skip(suite):
    """Mark the tests of `SKIPPED`."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            skip(test)
            continue
        reason = next((why for name, why in SKIPPED.items() if name in test.id().replace("Tests.", "Test.")), None)
        if reason is not None:
            setattr(test, test._testMethodName, unittest.skip(reason)(getattr(test, test._testMethodName)))


def main(names):
    """Run the modules; the exit status."""
    suite = load(names or MODULES)
    skip(suite)
    result = unittest.TextTestRunner(verbosity=2 if "-v" in sys.argv else 1).run(suite)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main([name for name in sys.argv[1:] if not name.startswith("-")]))
