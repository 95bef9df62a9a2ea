"""What makes a step more than one call: a timeout for each run, a policy that tries again.

How a timeout is kept depends on where the step runs. In our memory the run itself starts the clock (`Timeout`).
Elsewhere the worker looks at the clock (see `trips`), unless the executor can stop what runs: then we look at it, and
cancel (`Deadline`).
"""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Callable
from typing import Any

from futurechain import clock
from futurechain.errors import CancelledError
from futurechain.failure import Failure
from futurechain.flow.timing import retry
from futurechain.future import Future, fail, succeed
from futurechain.pipeline.places import has_begun, later
from futurechain.pipeline.trips import protected

__all__ = ["Attempts", "Deadline", "Timeout", "outcome_of"]


def outcome_of(future: cf.Future[Any]) -> Any:
    """Return the value of a future that is done, or a `Failure`."""
    try:
        return future.result()
    except BaseException as error:
        return protected(error)


class Timeout:
    """Decides who ends a run: the run itself, or the clock. Who pops the token does."""

    __slots__ = ("_inner", "_timer", "_token")

    def __init__(self, seconds: float, expired: Callable[[Failure], object]) -> None:
        self._token = [None]
        self._inner: cf.Future[Any] | None = None
        self._timer = clock.call_later(seconds, self._expire, seconds, expired)

    def watch(self, inner: cf.Future[Any]) -> None:
        """Cancel `inner`, which the run waits for, when the time is up."""
        self._inner = inner
        if not self._token:
            inner.cancel()

    def ends_with_run(self) -> bool:
        """Tell whether the run has ended in time; to be asked once."""
        try:
            self._token.pop()
        except IndexError:
            return False
        self._timer.cancel()
        return True

    def _expire(self, seconds: float, expired: Callable[[Failure], object]) -> None:
        try:
            self._token.pop()
        except IndexError:
            return
        if self._inner is not None:
            self._inner.cancel()
        expired(Failure(TimeoutError(f"not done within {seconds:g} seconds")))


class Deadline:
    """Cancels a future when it has run for too long, on an executor that stops the work then.

    When the run begins can only be asked for, so it is, some twenty times within the time that is allowed.
    """

    def __init__(self, future: cf.Future[Any], seconds: float) -> None:
        self._future = future
        self._seconds = seconds
        self._began: float | None = None
        self._timer: clock.Timer | None = None
        self.failure: Failure | None = None
        """What the run has failed with, when the time is up."""
        self._look()
        future.add_done_callback(self._withdraw)

    def _look(self) -> None:
        if self._future.done():
            return
        now = clock.now()
        if self._began is None and has_begun(self._future):
            self._began = now
        left = self._seconds / 20 if self._began is None else self._began + self._seconds - now
        if left > 0:
            self._timer = clock.call_later(max(left, 0.001), self._look)
            if self._future.done():  # whoever settled it may not have seen this timer
                self._timer.cancel()
        else:
            self.failure = Failure(TimeoutError(f"not done within {self._seconds:g} seconds"))
            later(self._future.cancel)  # what depends on it does not run on the timer thread

    def _withdraw(self, future: cf.Future[Any]) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Attempts:
    """One item's runs of one step under a policy: each outcome is offered, and the policy goes on or ends it.

    Args:
        policy: a ``tenacity.Retrying``.
        again: runs the step once more; its outcome is offered then.
        over: called with the future of the last outcome, once.
        wanted: tells whether somebody still wants that.
    """

    __slots__ = ("_again", "_asked", "_begun", "_given_up", "_over", "_policy", "_ready", "_wanted", "future")

    def __init__(
        self,
        policy: Any,
        again: Callable[[], object],
        over: Callable[[cf.Future[Any]], object],
        wanted: Callable[[], bool],
    ) -> None:
        self._wanted = wanted
        self._policy = policy
        self._again = again
        self._over = over
        self._begun = self._given_up = False
        self._ready: list[Any] = []
        """The outcome of the first run, which the policy has not asked for yet."""
        self._asked: Future[Any] | None = None
        self.future: Future[Any] | None = None

    def offer(self, outcome: Any) -> None:
        """Tell the policy how a run ended."""
        if not self._begun:
            self._begun = True  # first: before `retry` has returned, another thread may have come with the next run
            self._ready.append(outcome)
            self.future = retry(self._attempt, policy=self._policy)
            self.future.add_done_callback(self._over)
            if self._given_up:  # meanwhile
                self.future.cancel()
            return
        asked, self._asked = self._asked, None
        assert asked is not None  # a run was asked for, by the policy
        if not asked.set_running_or_notify_cancel():
            return
        if type(outcome) is Failure:
            asked.set_exception(outcome.value)
        else:
            asked.set_result(outcome)

    def give_up(self) -> None:
        """Have the policy ask no more: the step cannot be run again."""
        self._given_up = True
        if self.future is not None:
            self.future.cancel()

    def _attempt(self) -> Future[Any]:
        if self.future is not None and not self._wanted():  # whoever dropped the item may have come while the policy
            self.future.cancel()  # was asked, and could not be cancelled; by now it waits for this
            raise CancelledError
        if self._ready:
            outcome = self._ready.pop()
            return fail(outcome) if type(outcome) is Failure else succeed(outcome)
        asked = self._asked = Future[Any]()
        self._again()
        return asked
