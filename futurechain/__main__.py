"""``python -m futurechain``, and the installed command: Ctrl-C ends it at once and in silence.

So it does before anything else is imported. A command that has to clean up after itself does better, see `interrupts`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]  # `signal` itself takes long
import os
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command that was typed; the exit status."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, lambda *_: os._exit(128 + _signal.SIGINT))
    from futurechain import cli

    try:
        return cli.main()
    finally:
        if hasattr(_signal, "pthread_sigmask"):  # at its end the interpreter still waits for workers
            _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGINT})


if __name__ == "__main__":
    sys.exit(main())
