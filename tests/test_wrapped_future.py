"""`wrap_future`: somebody else's future, adopted."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import threading
import time

import pytest

from futurechain import Future, delay, gather, race, render, wrap_future
from futurechain.defer import Deferred
from futurechain.errors import CancelledError, LostFutureError


class Stoppable(cf.Future):
    """Can be cancelled while it runs, as Pebble's futures and Google's streaming pulls can."""

    def __init__(self, *, refuses=False, raises=False):
        super().__init__()
        self.asked = 0
        self.refuses = refuses
        self.raises = raises
        self.set_running_or_notify_cancel()

    def cancel(self):
        self.asked += 1
        if self.raises:
            raise NotImplementedError
        if self.refuses:
            return False
        self.set_exception(CancelledError())
        return True


def test_ours_are_returned_as_they_are():
    """And a foreign future has one that stands for it."""
    ours, foreign = Future(), cf.Future()
    assert wrap_future(ours) is ours
    assert wrap_future(foreign) is wrap_future(foreign)


def test_only_futures():
    """Something else is a TypeError that names it."""
    with pytest.raises(TypeError, match="not 3"):
        wrap_future(3)


def test_outcomes_come_over():
    """A value, an error, a cancellation; before or after."""
    for settle, outcome in (
        (lambda f: f.set_result(3), 3),
        (lambda f: f.set_exception(KeyError("k")), KeyError),
        (lambda f: f.cancel(), CancelledError),
    ):
        early, late = cf.Future(), cf.Future()
        ours = wrap_future(early)
        settle(early)
        settle(late)
        for one in (ours, wrap_future(late)):
            if outcome == 3:
                assert one.result(0) == 3
            else:
                with pytest.raises(outcome):
                    one.result(0)


CANCELLED_THROUGH = {
    "itself": lambda ours: ours.cancel(),
    "a stage": lambda ours: ours.then(str).then(str).cancel(),
    "a lost race": lambda ours: race(ours, Future.succeed(1)),
    "a gather": lambda ours: gather(ours, Future()).cancel(),
}


@pytest.mark.parametrize("cancel", CANCELLED_THROUGH.values(), ids=list(CANCELLED_THROUGH))
def test_a_foreign_future_is_always_asked(cancel):
    """Although it runs."""
    foreign = Stoppable()
    ours = wrap_future(foreign)
    cancel(ours)
    assert foreign.asked == 1
    assert ours.cancelled()


def test_pebbles_running_task_is_stopped():
    """Its worker ends, and another one does what comes next."""
    pebble = pytest.importorskip("pebble")
    with pebble.ProcessPool(max_workers=1) as pool:
        foreign = pool.schedule(time.sleep, args=[3600])
        while not foreign.running():
            time.sleep(0.001)
        assert race(wrap_future(foreign), Future.succeed("quicker")).result(0) == "quicker"
        assert foreign.cancelled()
        assert pool.schedule(int).result(30) == 0


def test_a_timeout_asks_too():
    """When it expires."""
    foreign = Stoppable()
    ours = wrap_future(foreign)
    with pytest.raises(TimeoutError):
        ours.timeout(0.01).result(10)
    assert foreign.exception(10) is not None
    assert ours.cancelled()


@pytest.mark.parametrize("options", [{"refuses": True}, {"raises": True}])
@pytest.mark.parametrize("cancel", CANCELLED_THROUGH.values(), ids=list(CANCELLED_THROUGH))
def test_one_that_refuses_is_left_alone(cancel, options):
    """`cancel` says False then, and nothing has changed."""
    foreign = Stoppable(**options)
    ours = wrap_future(foreign)
    cancel(ours)
    assert foreign.asked
    assert not ours.cancel()
    assert not ours.done()
    foreign.set_result(5)
    assert ours.result(0) == 5


def test_one_that_somebody_else_uses_is_not_asked():
    """Consumers are counted, as everywhere."""
    foreign = Stoppable()
    ours = wrap_future(foreign)
    one, two = ours.then(str), ours.then(str)
    one.cancel()
    assert foreign.asked == 0
    two.cancel()
    assert foreign.asked == 1


def test_a_pending_foreign_future_is_withdrawn():
    """Queued work on somebody's pool is taken back."""
    gate = threading.Event()
    with cf.ThreadPoolExecutor(1) as pool:
        pool.submit(gate.wait, 10)
        queued = pool.submit(int)
        assert wrap_future(queued).then(str).cancel()
        assert queued.cancelled()
        gate.set()


def test_a_cancelled_one_gives_way_to_another():
    """Who adopts the foreign future again gets a fresh one."""
    foreign = cf.Future()
    first = wrap_future(foreign)
    foreign.set_running_or_notify_cancel()
    assert not first.cancel()
    assert wrap_future(foreign) is first
    foreign.set_result(1)
    assert wrap_future(foreign).result(0) == 1


def test_a_foreign_future_that_is_dropped_is_lost():
    """What depends on it is told so."""
    stage = wrap_future(cf.Future()).then(str)
    gc.collect()
    with pytest.raises(LostFutureError):
        stage.result(10)


def test_dependents_do_not_run_on_a_thread_that_serves_everybody():
    """They go to a callback thread."""

    class Manager(threading.Thread):
        serves_everybody = True

    foreign = cf.Future()
    stage = wrap_future(foreign).then(lambda _: threading.current_thread().name)
    thread = Manager(target=foreign.set_result, args=(1,))
    thread.start()
    thread.join()
    assert stage.result(10).startswith("futurechain-callback")
    assert delay(0).result(10) is None


@pytest.mark.parametrize("call", [wrap_future, gather, render], ids=lambda call: call.__name__)
def test_a_deferred_is_no_future(call):
    """The error says how to make one of it."""
    with pytest.raises(TypeError, match=r"\.future$"):
        call(Deferred())
