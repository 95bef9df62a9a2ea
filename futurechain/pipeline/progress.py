"""A progress bar: tqdm's, or anybody's with ``update``, ``set_postfix`` and ``close``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
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
        visible = make is not None and sys.stderr is not None and sys.stderr.isatty()
        self._bar = make(total=total) if make is not None and visible else None
        self._finished = self._failed = 0

    @property
    def visible(self) -> bool:
        """Whether there is anything to show it on."""
        return self._bar is not None

    def show(self, finished: int, failed: int) -> None:
        """Show that so many items are finished, and so many of these failed."""
        if self._bar is None:
            return
        if failed != self._failed:
            self._failed = failed
            self._bar.set_postfix(failed=failed)
        if finished != self._finished:
            more, self._finished = finished - self._finished, finished
            self._bar.update(more)

    def close(self) -> None:
        """Leave the terminal whole; closing twice does no harm."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()
