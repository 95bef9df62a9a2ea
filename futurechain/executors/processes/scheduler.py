"""The scheduler of a process pool: it turns tasks and stages into jobs of the machine."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from futurechain.core.delivery import first_dependent
from futurechain.core.scheduler import Call
from futurechain.core.state import State, source_of
from futurechain.core.thread_state import current
from futurechain.executors.out_of_process import OutOfProcess
from futurechain.executors.processes.ahead import AheadJob, keep_back
from futurechain.executors.processes.jobs import StageJob
from futurechain.executors.processes.machine import Machine
from futurechain.executors.processes.messages import PLAIN
from futurechain.executors.processes.trips import Item

__all__ = ["ProcessScheduler"]


class ProcessScheduler(OutOfProcess):
    """Start calls on a machine, and deliver what comes of them."""

    __slots__ = ("ahead", "behind", "machine", "stop_cancelled")
    starts_anywhere = True

    def __init__(self, name: str, make: Callable[[str], Machine], *, stop_cancelled: bool) -> None:
        super().__init__(name)
        self.machine: Machine = make(name)
        self.stop_cancelled: bool = stop_cancelled
        self.ahead: dict[int, AheadJob] = {}
        """What was sent ahead, or is about to be, by the identity of the stage."""
        self.behind: dict[int, StageJob] = {}
        """What was sent behind something else, and has not had its turn."""

    def register(self, stage: Any, source: Any = None) -> None:
        super().register(stage, source)
        if NOTHING_STARTS_AT_EXIT and not self.closing:
            self.machine.prepare()

    def launch(self, stage: Any, call: Call, *, begun: bool) -> None:
        job = StageJob(self, stage, call, begun=begun)
        stage._call, stage._source = call[0], job
        try:
            (job.item,) = self.machine.submit([job], pack=_may_pack_here(call))
        finally:
            if stage.done():  # cancelled in between, and perhaps before our stores
                stage._call = stage._source = None
                if job.item is not None:
                    self.withdraw(job.item)
        following = first_dependent(stage)
        while following is not None and self._send_ahead(stage, following):
            stage, following = following, first_dependent(following)

    # -- ahead of their turn ------------------------------------------------------------------------------------------

    def show(self, stage: Any) -> Any:
        source = source_of(stage)
        if isinstance(source, State) and first_dependent(source) is stage:  # whoever comes first has its turn first
            self._send_ahead(source, stage)
        return stage

    def _send_ahead(self, source: Any, stage: Any) -> bool:
        """Send `stage` to the worker that makes the call of `source`, to go on with its value; False if it cannot be.

        Only a function goes, which is pickled by its name: all else may be changed until the turn has come.
        """
        if self.stop_cancelled or not getattr(stage, "_on_executor", False) or stage._scheduler is not self:
            return False
        fn = stage._handler
        before = self.ahead.get(id(source)) or source._source
        if not _goes_by_name(fn) or not isinstance(before, StageJob):
            return False
        if before.item is None or before.item.trip.worker is None:
            return False
        job = AheadJob(self, stage, source, fn)
        if self.ahead.setdefault(id(stage), job) is not job:  # decides: who attaches it, or who launches its source
            return False
        job.item = self.machine.send_ahead(job, fn, before.item)
        if job.item is None:
            job.left()
        return job.item is not None

    def keeps_back(self, stage: Any) -> bool:
        keep_back(stage)
        job = self.ahead.get(id(stage))
        return job is None or job.stays()

    def unregister(self, stage: Any) -> None:
        if self.behind and id(stage) in self.behind:
            self.behind.pop(id(stage)).stop()  # somebody has settled it by hand: it is not to be called any more
        if self.ahead:
            job = self.ahead.pop(id(stage), None)
            if job is not None:
                job.stays()  # somebody has settled it by hand: it is not to be called any more
        super().unregister(stage)

    def forget(self) -> None:
        super().forget()
        self.ahead.clear()
        self.behind.clear()

    def withdraw(self, item: Item) -> None:
        """Let the machine forget a job, and end the worker that runs it, if that was asked for."""
        (self.machine.stop if self.stop_cancelled else self.machine.withdraw)(item)

    def is_moving(self) -> bool:
        return self.is_working() or any(isinstance(stage._source, StageJob) for stage in self.unsettled())

    # -- ending -------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        self.machine.close()

    def shut_down(self, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more outside work; end the machine when the chains have ended."""
        if cancel_futures:
            self.machine.catch_up()
        self.close(cancel_futures=cancel_futures)
        if wait and current.thread.within is not self:
            self.wait()
            self.machine.wait()

    def terminate(self, number: int) -> None:
        """End the workers by a signal; cancel what has not begun."""
        self.shut_down(wait=False, cancel_futures=True)
        self.machine.terminate(number)

    def describe(self) -> str:
        """Return what ``repr`` says."""
        machine = self.machine
        state = "broken" if machine.reason else "shut down" if self.closing else "open"
        return f"{self.name} {state}, {len(machine.staff.processes)} workers, {machine.queued} queued"


NOTHING_STARTS_AT_EXIT: bool = sys.version_info[:2] == (3, 12)
"""Whether what a stage needs must be there before its turn comes: the interpreter may have begun to end by then."""
_FUNCTIONS = frozenset({types.FunctionType, types.BuiltinFunctionType, type})
_MODULES = frozenset({types.ModuleType, type(None)})
"""Where builtin functions come from."""
SHORT = 1 << 17


def _goes_by_name(fn: Any) -> bool:
    """Tell whether `fn` is pickled by its name, so that nobody's code runs for it; a method takes its object along."""
    return type(fn) in _FUNCTIONS and type(getattr(fn, "__self__", None)) in _MODULES


def _may_pack_here(call: Call) -> bool:
    """Tell whether `call` may be pickled in this thread.

    In one that serves everybody, only what runs nobody's code.
    """
    if not getattr(threading.current_thread(), "serves_everybody", False):
        return True
    fn, args, kwargs = call
    if not _goes_by_name(fn) or kwargs:
        return False
    return all(type(one) in PLAIN and (not hasattr(one, "__len__") or len(one) < SHORT) for one in args)
