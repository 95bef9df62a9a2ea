"""Threads that take turns at bytecodes: a schedule says after how many steps of which thread which other one goes on.

Theory of operation
-------------------
Each thread of a `Stepper` runs one job. At most one of them has the baton; the others wait, each at a lock of its own.
A *step* is a bytecode of a watched file that can touch what threads share; the bytecodes in between (of locals,
constants, jumps) commute with everything another thread does, so to stop before one of them is to stop before the
step that follows it. ``every=True`` makes a step of each. ``few=True`` makes no step of three more kinds either: calls
of Python functions (which have steps of their own), attributes that nobody ever stores (methods), and what does no more
than drop a reference. The last may matter to a weak reference that somebody looks at just then; so few steps are for
running all schedules, and the usual ones for samples. Needs ``sys.monitoring``.

A plan is a list of turns ``(thread, stop)``: the thread goes on until it is about to make its step number `stop`, or
has finished, or blocks; then the next turn begins. When the plan is at its end, whoever has not finished goes on, in
the order of the threads. A thread that blocks (a lock, ``result()``) gives up its turn; when it wakes, it waits for the
baton at its next step. When nobody can go on, ``unblock`` is called.

Steps are counted by ``sys.monitoring``, or on Python 3.11 by ``sys.settrace``.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import dis
import inspect
import sys
import threading
import types
from _thread import allocate_lock, get_ident
from pathlib import Path

__all__ = ["NEVER", "Hang", "Slot", "Stepper"]

NEVER = 1 << 60
FIRST = 0.001
"""When to look first whether a thread that takes its time is blocked, in seconds: most have ended by then."""
POLL = 0.0002
"""How often to look after that."""

_LOCAL = (
    "BUILD_", "CACHE", "CHECK_EXC_MATCH", "COPY", "COPY_FREE_VARS", "EXTENDED_ARG", "IS_OP", "JUMP_", "KW_NAMES",
    "LOAD_CLOSURE", "LOAD_CONST", "LOAD_DEREF", "LOAD_FAST", "LOAD_GLOBAL", "MAKE_CELL", "NOP", "POP_JUMP_", "PRECALL",
    "PUSH_EXC_INFO", "PUSH_NULL", "RESUME", "SWAP",
)  # fmt: skip
"""Bytecodes that neither read nor change what threads share, nor can drop the last reference to anything."""

_DROPPING = ("DELETE_FAST", "END_", "POP_EXCEPT", "POP_TOP", "RETURN_", "STORE_DEREF", "STORE_FAST")
_OF_ONE_THREAD = ("GET_ITER", "MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE", "UNARY_NOT", "YIELD_VALUE")
_CALLS = frozenset({"CALL", "CALL_FUNCTION_EX", "CALL_KW"})
"""What is no step of its own where steps are few, since `sys.monitoring` tells then what is called."""

_HARMLESS = frozenset({type, isinstance, issubclass, callable, id, get_ident, allocate_lock})
"""What is called and not written in Python, and neither reads nor changes what threads share."""


class Hang(Exception):
    """A schedule has come to a standstill."""


class Slot:
    """One thread of a schedule, and how far it is."""

    def __init__(self, name):
        self.name = name
        self.turn = allocate_lock()
        self.turn.acquire()
        self.begin(None)

    def begin(self, job):
        """Get ready for the next schedule."""
        self.job = job
        self.steps = 0
        self.stop = NEVER
        self.finished = job is None
        self.free = False
        """Whether it was blocked when it lost its turn, so that it may wake up without the baton."""
        self.ready = not self.finished
        """Whether it waits for the baton."""
        self.thread = None
        self.value = self.error = None
        self.left = ()
        self.tracer = None
        """What traced the thread before, to be put back: a measurement of coverage, say."""


class Stepper:
    """Runs jobs in threads of its own, by plan; a context manager."""

    def __init__(self, files, *, threads=3, every=False, few=False, look=lambda: ()):
        self.files = files
        self.every = every
        self.few = few and _MONITORING
        self._stored = stored_names(files) if self.few else frozenset()
        self.look = look
        """Called in each thread after its job; what it returns is kept in ``left``."""
        self.slots = [Slot(name) for name in "ABCDEFGH"[:threads]]
        self.by_thread = {}
        self._local = {}
        self._codes = []
        self._mutex = allocate_lock()
        self._quiet = allocate_lock()
        self._quiet.acquire()
        self._plan = iter(())
        self._holder = None
        self._ended = False

    # -- running schedules --------------------------------------------------------------------------------------------

    def __enter__(self):
        self._watch()
        self._own = {slot: self._start(slot) for slot in self.slots}
        return self

    def __exit__(self, *_):
        self._ended = True
        for slot in self.slots:
            slot.job = None
            with contextlib.suppress(RuntimeError):
                slot.turn.release()
        for thread in self._own.values():
            thread.join(5)
        self._unwatch()

    def _start(self, slot):
        thread = threading.Thread(target=self._work, args=(slot,), name=f"schedule-{slot.name}", daemon=True)
        thread.start()
        return thread

    def run(self, jobs, plan, unblock=lambda: None, patience=10.0):
        """Run `jobs`, one in each thread, by `plan`; the slots, with how each has ended.

        Raises:
            Hang: if a job does not end `patience` seconds after nobody could go on any more.
        """
        active = self.slots[: len(jobs)]
        for slot, job in zip(active, jobs, strict=True):
            slot.begin(job)
        self._active, self._plan = active, iter(plan)
        with self._mutex:
            self._pass_on()
        self._wait(unblock, patience)
        return active

    def _wait(self, unblock, patience):
        last, unblocked, polls = None, False, 0
        while not self._quiet.acquire(timeout=FIRST if not polls else POLL if polls < 500 else 0.01):
            polls += 1
            holder = self._holder
            if holder is not None:
                place = self._place(holder)
                if place is not None and place == last:
                    self._give_up_turn(holder)
                last = place
            elif not unblocked:
                unblocked, polls = True, 0
                unblock()
            elif polls > 500 + patience * 100:
                where = {slot.name: self._frames(slot) for slot in self._active if not slot.finished}
                self._replace_stuck()
                raise Hang(where)

    def _frames(self, slot):
        frame, lines = sys._current_frames().get(slot.thread and slot.thread.ident), []
        while frame is not None:
            lines.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
            frame = frame.f_back
        return lines

    def _replace_stuck(self):
        for number, slot in enumerate(self.slots):
            if not slot.finished:
                self.by_thread.pop(slot.thread.ident, None)
                fresh = self.slots[number] = Slot(slot.name)
                self._own[fresh] = self._start(fresh)
        self._holder = None

    # -- the baton ----------------------------------------------------------------------------------------------------

    def _pass_on(self):
        """Give the baton to whom the plan says; the mutex is held, and nobody has the baton."""
        self._holder = None
        for number, stop in self._plan:
            slot = self._active[number]
            if slot.ready and stop > slot.steps:
                return self._hand_to(slot, stop)
        for slot in self._active:
            if slot.ready:
                return self._hand_to(slot, NEVER)
        if all(slot.finished for slot in self._active):
            self._quiet.release()
        return None

    def _hand_to(self, slot, stop):
        slot.stop, slot.ready = stop, False
        self._holder = slot
        slot.turn.release()

    def _work(self, slot):
        while True:
            slot.turn.acquire()
            if self._ended:
                return
            self.join(slot)
            try:
                slot.value = slot.job()
            except BaseException as error:
                slot.error = error
            self.leave(slot)
            slot.left = self.look()
            with self._mutex:
                slot.finished, slot.job = True, None
                if self._holder is slot:
                    self._pass_on()
                elif self._holder is None and all(one.finished for one in self._active):
                    self._quiet.release()
            if slot not in self.slots:
                return

    def join(self, slot):
        """Let this thread count as that of `slot`, from now on."""
        slot.thread = threading.current_thread()
        slot.tracer = sys.gettrace()
        self.by_thread[get_ident()] = slot
        if not _MONITORING:
            self._trace_this_thread()

    def leave(self, slot):
        """Let this thread count no more."""
        self.by_thread.pop(get_ident(), None)
        if not _MONITORING:
            sys.settrace(slot.tracer)

    def _step(self, slot):
        if slot.free:
            with self._mutex:
                slot.free, slot.ready = False, True
                if self._holder is None:
                    self._pass_on()
            slot.turn.acquire()
        while slot.steps >= slot.stop:
            with self._mutex:
                slot.ready = True
                self._pass_on()
            slot.turn.acquire()
        slot.steps += 1

    def _give_up_turn(self, holder):
        with self._mutex:
            if self._holder is holder and not holder.finished:
                holder.free = True
                self._pass_on()

    def _place(self, slot):
        """Where a thread stands, if it sleeps there; None if it runs."""
        thread = slot.thread
        if thread is None:
            return None
        try:
            stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text(encoding="ascii")
            asleep = stat.rsplit(")", 1)[1].split()[0] == "S"
        except OSError:
            asleep = True
        frame = sys._current_frames().get(thread.ident)
        return (slot, slot.steps, id(frame), frame.f_lasti) if asleep and frame is not None else None

    # -- counting steps -----------------------------------------------------------------------------------------------

    def _points(self, code):
        """The offsets in `code` that are no steps; None if it is not watched at all."""
        if code.co_filename not in self.files:
            return None
        local = frozenset(one.offset for one in dis.get_instructions(code) if self._is_local(one))
        self._local[id(code)] = local
        self._codes.append(code)  # so that its id stays its own
        return local

    def _is_local(self, one):
        """Whether this bytecode is no step."""
        if self.every:
            return False
        return one.opname.startswith(_LOCAL) or (
            self.few
            and (
                one.opname in _CALLS
                or one.opname.startswith(_DROPPING + _OF_ONE_THREAD)
                or (one.opname == "LOAD_ATTR" and one.argval not in self._stored)
            )
        )

    def _watch(self):
        if not _MONITORING:
            return
        local, points, by_thread, step = self._local, self._points, self.by_thread, self._step
        disable, watched = sys.monitoring.DISABLE, self.files

        def instruction(code, offset):
            known = local.get(id(code))
            if known is None and (code.co_filename not in watched or (known := points(code)) is None):
                return disable
            if offset in known:
                return disable
            slot = by_thread.get(get_ident())
            if slot is not None:
                if slot.free or slot.steps >= slot.stop:
                    step(slot)
                else:
                    slot.steps += 1
            return None

        def called(code, offset, function, _):
            if code.co_filename not in watched:
                return disable
            slot = by_thread.get(get_ident())
            if slot is not None and not _has_steps_of_its_own(function):
                if slot.free or slot.steps >= slot.stop:
                    step(slot)
                else:
                    slot.steps += 1
            return None

        tool, events = sys.monitoring.DEBUGGER_ID, sys.monitoring.events
        sys.monitoring.use_tool_id(tool, "schedules")
        sys.monitoring.register_callback(tool, events.INSTRUCTION, instruction)
        sys.monitoring.register_callback(tool, events.CALL, called)
        sys.monitoring.restart_events()
        sys.monitoring.set_events(tool, events.INSTRUCTION | (events.CALL if self.few else 0))

    def _unwatch(self):
        if _MONITORING:
            tool = sys.monitoring.DEBUGGER_ID
            sys.monitoring.set_events(tool, 0)
            sys.monitoring.register_callback(tool, sys.monitoring.events.INSTRUCTION, None)
            sys.monitoring.register_callback(tool, sys.monitoring.events.CALL, None)
            sys.monitoring.free_tool_id(tool)

    def _trace_this_thread(self):
        local, points, by_thread, step = self._local, self._points, self.by_thread, self._step
        files = self.files

        def called(frame, event, argument):
            code = frame.f_code
            known = local.get(id(code))
            if known is None and (code.co_filename not in files or (known := points(code)) is None):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return opcode

        def opcode(frame, event, argument):
            if event == "opcode" and frame.f_lasti not in local[id(frame.f_code)]:
                slot = by_thread.get(get_ident())
                if slot is not None:
                    step(slot)
            return opcode

        frame = sys._getframe(1)
        sys.settrace(called)
        while frame is not None:
            frame.f_trace = called(frame, "call", None)
            frame = frame.f_back


def _has_steps_of_its_own(function):
    """Whether a call of this is no step: it is written in Python, or touches nothing that is shared."""
    kind = type(function)
    if kind is types.FunctionType or (kind is types.MethodType and type(function.__func__) is types.FunctionType):
        return True
    if isinstance(function, type) and function.__module__.startswith("futurechain."):
        return True
    return kind in (types.BuiltinFunctionType, type) and function in _HARMLESS


def stored_names(files):
    """The names of attributes that somebody may store: in these files, or in those that they build on."""
    paths = (*files, cf._base.__file__, inspect.getfile(cf.ThreadPoolExecutor), threading.__file__)
    names, todo = set(), [compile(Path(path).read_text(encoding="utf-8"), path, "exec") for path in paths]
    while todo:
        code = todo.pop()
        names.update(one.argval for one in dis.get_instructions(code) if one.opname in ("STORE_ATTR", "DELETE_ATTR"))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                todo.append(constant)
            elif isinstance(constant, str):  # a name for `setattr`, perhaps
                names.add(constant)
    return frozenset(names)


_MONITORING = hasattr(sys, "monitoring")
