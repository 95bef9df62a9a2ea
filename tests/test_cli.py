"""The command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from futurechain.cli import COMMANDS, main


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments, capsys):
    """Without a command, or with --help, all commands are listed."""
    assert main(arguments) == 0
    out = capsys.readouterr().out

    assert all(name in out for name in COMMANDS)


def test_unknown_command(capsys):
    """It is named; the exit status is 2."""
    assert main(["poem"]) == 2
    assert "'poem'" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name):
    """`python -m futurechain NAME --help` helps."""
    run = subprocess.run(
        [sys.executable, "-m", "futurechain", name, "--help"], capture_output=True, text=True, timeout=60, check=False
    )

    assert run.returncode == 0
    assert f"python -m futurechain {name}" in run.stdout
