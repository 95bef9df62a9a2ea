"""The command line: ``python -m futurechain COMMAND``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["main"]

COMMANDS = {
    "poetry": ("futurechain.demo.poetry", "download and transform poems: the example program"),
    "simulate": ("futurechain.demo.simulator", "draw what a chain of callbacks and errbacks does"),
}

USAGE = "usage: python -m futurechain COMMAND [ARGUMENT ...]\n\ncommands:\n" + "".join(
    f"  {name:10} {text}\n" for name, (_, text) in COMMANDS.items()
) + "\npython -m futurechain COMMAND --help tells more."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names; the exit status."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in {"-h", "--help"}:
        print(USAGE)
        return 0
    if name not in COMMANDS:
        print(f"futurechain: there is no command {name!r}\n\n{USAGE}", file=sys.stderr)
        return 2
    module = import_module(COMMANDS[name][0])
    return int(module.main(rest))
