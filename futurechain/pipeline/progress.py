"""A progress bar: tqdm's, or anybody's with ``update``, ``set_postfix`` and ``close``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import starmap
from types import ModuleType
from typing import Any, Protocol, cast

__all__ = ["Bar", "Progress", "check_progress"]


class Bar(Protocol):
    """What a stream does with a progress bar."""

    def update(self, n: int) -> object:
        """Show that `n` more items are finished."""

    def set_postfix(self, **shown: Any) -> object:
        """Show some figures."""

    def close(self) -> object:
        """Leave the terminal as it is to be."""


def check_progress(progress: Any) -> Callable[..., Bar] | None:
    """Return what makes a bar.

    Raises:
        ImportError: for True, without tqdm.
        TypeError: if it can make none.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        try:
            return cast("Callable[..., Bar]", import_module("tqdm.auto").tqdm)
        except ImportError:
            raise ImportError("progress=True needs tqdm: install the extra futurechain[progress]") from None
    if isinstance(progress, ModuleType):
        progress = getattr(progress, "tqdm", progress)
    if not callable(progress):
        raise TypeError(f"map() wants progress=tqdm.tqdm, or what can be called so, not {progress!r}")
    return progress  # type: ignore[no-any-return]


class Progress:
    """The bar of one stream; touched by the consumer's thread alone, and only if stderr is a terminal."""

    def __init__(self, make: Callable[..., Bar] | None, total: int | None) -> None:
        self._make = make
        self._total = total
        self._bars: list[Bar] = []
        """The bar, while it is shown."""
        self._finished = self._failed = 0

    def begin(self) -> None:
        """Show it, if there is anything to show it on."""
        if self._make is None or sys.stderr is None or not sys.stderr.isatty():
            return
        try:
            # in one step of the interpreter: Ctrl-C must not come between having it and knowing that
            self._bars.extend(starmap(partial(self._make, total=self._total), [()]))
        except BaseException:
            print(file=sys.stderr)  # noqa: T201  # it may stand on the line already, and nobody has it, to close it
            raise

    @property
    def visible(self) -> bool:
        """Whether there is anything to show it on."""
        return bool(self._bars)

    def show(self, finished: int, failed: int) -> None:
        """Show that so many items are finished, and so many of these failed."""
        bar = next(iter(self._bars), None)
        if bar is None:
            return
        if failed != self._failed:
            self._failed = failed
            bar.set_postfix(failed=failed)
        if finished != self._finished:
            more, self._finished = finished - self._finished, finished
            bar.update(more)

    def close(self) -> None:
        """Leave the terminal whole; closing twice does no harm."""
        while self._bars:
            self._bars.pop().close()
