"""The command line: ``futurechain COMMAND`` or ``python -m futurechain COMMAND``.

Whatever happens to the terminal, the pipe or the disk that a command writes to, or when Ctrl-C comes, it ends with one
line at most and the usual exit status: 130 after Ctrl-C, 141 if nobody reads any more, 1 if something else cannot be
read or written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

__all__ = ["main"]

COMMANDS = {
    "poetry": ("futurechain.demo.poetry", "download and transform poems: the example program"),
    "simulate": ("futurechain.demo.simulator", "draw what a chain of callbacks and errbacks does"),
}
NOBODY_READS = 128 + 13
"""What a shell says of a program that was ended by SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names; by default the one that was typed.

    Returns:
        The exit status.
    """
    program = _program()
    try:
        try:
            return _run(program, list(sys.argv[1:] if argv is None else argv))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _give_up_output()
        return NOBODY_READS
    except OSError as error:
        _give_up_output()
        _complain(f"{program}: {error.filename or 'output'}: {error.strerror or error}")
        return 1


def _run(program: str, arguments: list[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name in {"-h", "--help"}:
        print(_usage(program))
        return 0
    if name == "--version":
        print(f"futurechain {_version()}")
        return 0
    if name not in COMMANDS:
        _complain(f"{program}: there is no command {name!r}\n\n{_usage(program)}")
        return 2
    module = import_module(COMMANDS[name][0])
    return int(module.main(rest, f"{program} {name}"))


def _program() -> str:
    """Return what was typed."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")  # noqa: PTH119  # pathlib takes as long to import as all else
    return "futurechain" if name.startswith("futurechain") else "python -m futurechain"


def _usage(program: str) -> str:
    commands = "".join(f"  {name:10} {text}\n" for name, (_, text) in COMMANDS.items())
    return (
        f"usage: {program} COMMAND [ARGUMENT ...]\n       {program} --version\n\n"
        f"commands:\n{commands}\n{program} COMMAND --help tells more."
    )


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("futurechain")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _give_up_output() -> None:
    """Let what could not be written go, instead of trying again at exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str) -> None:
    with suppress(OSError):  # nobody to complain to
        print(text, file=sys.stderr, flush=True)
