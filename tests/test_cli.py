"""The command line."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from futurechain.cli import COMMANDS, main

FULL = Path("/dev/full")
RUNS = [[], ["--version"], ["simulate"], ["poetry", "--delay", "0.0001"]]


def start(*arguments, **options):
    command = [sys.executable, "-m", "futurechain", *arguments]
    return subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | options)


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


def test_version(capsys, monkeypatch):
    """--version tells what is installed, if it is."""
    monkeypatch.setattr(metadata, "version", lambda name: f"version of {name}")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "futurechain version of futurechain\n"

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "futurechain (not installed)\n"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/usr/bin/futurechain", "futurechain"),
        ("C:/futurechain.exe", "futurechain"),
        ("/lib/futurechain/__main__.py", "python -m futurechain"),
    ],
)
def test_usage_says_what_was_typed(typed, said, capsys, monkeypatch):
    """The installed command calls itself by its name, and ``python -m`` by that."""
    monkeypatch.setattr(sys, "argv", [typed])
    assert main() == 0
    assert f"usage: {said} COMMAND" in capsys.readouterr().out
    assert main(["verse"]) == 2
    assert capsys.readouterr().err.startswith(f"{said}: there is no command 'verse'")
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert f"usage: {said} {name} " in capsys.readouterr().out


# -- what output may be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", RUNS, ids=" ".join)
def test_nobody_reads(arguments):
    """As in ``| head -1``: no word, and the status of a program that a closed pipe has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start(*arguments, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (141, "")


@pytest.mark.skipif(not FULL.exists(), reason="there is no full device")
@pytest.mark.parametrize("arguments", RUNS, ids=" ".join)
def test_a_full_disk(arguments):
    """One line that says so, and status 1."""
    with FULL.open("w") as full:
        process = start(*arguments, stdout=full)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert re.fullmatch(r"python -m futurechain: output: .+\n", err)


@pytest.mark.skipif(not FULL.exists(), reason="there is no full device")
def test_nobody_to_complain_to():
    """The status tells all the same."""
    with FULL.open("w") as full:
        process = start("verse", stdout=full, stderr=full)
        assert process.wait(timeout=60) == 2


# -- Ctrl-C ---------------------------------------------------------------------------------------------------------


def interrupt(moments):
    """Run the poetry program, press Ctrl-C at each of the moments; the status, what it said, and who is left."""
    process = start(
        "poetry",
        "--delay",
        "0.02",
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the tests may run with it ignored
    )
    for moment in moments:
        time.sleep(moment)
        try:
            os.killpg(process.pid, signal.SIGINT)
        except ProcessLookupError:
            break
    _, err = process.communicate(timeout=60)  # ends when nobody has the pipe any more, orphans included
    return process.returncode, err.strip()


def check_interrupted(moments):
    """The program ends by itself, or with status 130, and says one line at most."""
    status, err = interrupt(moments)
    if "Traceback" in err and "futurechain" not in err:
        return  # on a busy machine the interpreter itself has only begun to start
    assert status in {130, 0}, (moments, err)  # a fast machine may be ready by then
    assert err in {"", "poetry: interrupted"}, moments


@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c(times, pause):
    """However often it is pressed: one line at most, status 130, no traceback, no worker left."""
    check_interrupted([0.6] + [pause] * (times - 1))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_at_any_moment():
    """Once the interpreter has started, which belongs to Python."""
    generator = random.Random(1)
    for _ in range(40):
        pauses = [generator.choice([0, 0.001, 0.05, 0.3]) for _ in range(generator.randrange(3))]
        check_interrupted([generator.uniform(0.3, 2), *pauses])
