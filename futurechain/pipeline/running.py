"""What can still touch the items of a stream: futures that can be cancelled, and jobs of callback threads."""

from __future__ import annotations

import concurrent.futures as cf
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from futurechain.errors import InvalidStateError
from futurechain.future import Future
from futurechain.pipeline import places
from futurechain.pipeline.items import DROPPED, LIVE, Item

__all__ = ["Running", "cancel_all", "is_undone", "takes", "wake"]


class Running:
    """Everything that runs for one flow, with the items that it may touch.

    An entry leaves as the last thing that it does; a flow is idle when there is none.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._entries: dict[Any, Iterable[Item]] = {}
        self._groups: dict[Any, Iterable[Item]] = {}
        """Those of them that may touch several items; there are a few for each worker."""
        self._idle: Future[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def enter(self, key: Any, items: Iterable[Item]) -> bool:
        """Note that `key` may still touch `items`; cancel it, and return False, if nobody wants them."""
        with self._lock:
            self._entries[key] = items
            if type(items) is tuple:
                items[0].held += (key,)
            else:
                self._groups[key] = items
            wanted = any(item.state is LIVE for item in items)
        if not wanted:
            cancel_all([key])
        places.wake_workers()  # one that waits for this stream may have looked too early
        return wanted

    def during(self, items: Iterable[Item], start: Callable[[bool], object]) -> None:
        """Call `start`, which is about to have `items` touched, with whether anybody wants them.

        So nobody finds the flow idle between the start of something and its entry. A Ctrl-C may come while it leaves.
        """
        key = object()
        try:
            start(self.enter(key, items))
        finally:
            try:
                self.leave(key)
            except BaseException:
                self.leave(key)
                raise

    def watch(self, future: cf.Future[Any], items: Iterable[Item], done: Callable[[Any], object]) -> None:
        """Enter `future`, and have `done` called when it is done, which has to let it leave."""
        try:
            self.enter(future, items)
            future.add_done_callback(done)
        except BaseException:  # Ctrl-C: nobody is to wait for it
            self.leave(future)
            raise

    def leave(self, key: Any) -> None:
        """Note that `key` touches its items no more."""
        with self._lock:
            self._forget(key)
            idle = self._idle if not self._entries else None
        if idle is not None:
            wake(idle)

    def _forget(self, key: Any) -> None:
        items = self._entries.pop(key, ())
        if type(items) is not tuple:
            self._groups.pop(key, None)  # a Ctrl-C may have come before it was there
        elif items:
            items[0].held = tuple([one for one in items[0].held if one is not key])  # whole at once

    def post(self, job: Any, item: Item, *args: Any) -> None:
        """Run ``job(item, *args)`` on a callback thread."""
        key = object()
        try:
            self.enter(key, (item,))
            places.later(self._do, key, job, item, *args)
        except BaseException:  # as above
            self.leave(key)
            raise

    def _do(self, key: Any, job: Any, item: Item, *args: Any) -> None:
        try:
            job(item, *args)
        finally:
            self.leave(key)

    def items_of(self, key: Any) -> Iterable[Item]:
        """Return what `key` may touch."""
        return self._entries.get(key, ())

    def idle(self) -> Future[None] | None:
        """Return what is settled when there is no entry; None if that is so already. Under the lock."""
        if not self._entries:
            return None
        if self._idle is None or self._idle.done():  # a task that waited for it was cancelled
            self._idle = Future()
        return self._idle

    def unwanted(self, dropped: Iterable[Item]) -> list[Any]:
        """Return what works for nobody, now that these were `dropped`. Under the lock."""
        alone = [key for item in dropped for key in item.held]
        return alone + [key for key, inside in self._groups.items() if all(item.state is DROPPED for item in inside)]

    # -- as what a worker waits for: it does what is queued on its own pool meanwhile ---------------------------------

    def sources(self) -> list[Future[Any]]:
        """Return the futures among the entries."""
        with self._lock:
            return [key for key in self._entries if isinstance(key, Future)]

    def cancel_for(self, child: Any) -> tuple[()]:
        """Say that nothing is to be cancelled when the waiter is: that is not all that they are wanted for."""
        return ()


def takes(token: list[None]) -> bool:
    """Take the token of a task: its call does, or who hears that it was cancelled; False if it is taken."""
    try:
        token.pop()  # decides
    except IndexError:
        return False
    return True


def is_undone(task: cf.Future[Any], token: list[None]) -> bool:
    """Tell whether a task that has ended was cancelled before it ran, or has failed."""
    return takes(token) if task.cancelled() else task.exception() is not None


def cancel_all(entries: Iterable[Any]) -> None:
    """Cancel those that are futures."""
    for entry in entries:
        if isinstance(entry, cf.Future):
            with suppress(Exception):  # those of some executors cannot be cancelled, and say so by raising
                entry.cancel()


def wake(waiter: Future[None]) -> None:
    """Let the thread that waits go on, unless that was done; it may have given up."""
    with suppress(InvalidStateError):
        waiter.set_result(None)
