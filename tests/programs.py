"""Programs in an interpreter of their own: for what is seen only at its beginning or its end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

__all__ = ["run_program"]


def run_program(text: str, *options: str, seconds: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program; how it ended, and what it printed.

    Args:
        text: the program; may be indented.
        options: of the interpreter.
        seconds: how long it may take.
        environment: what is set in addition to our own.
    """
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, **environment},
    )
