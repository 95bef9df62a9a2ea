"""delay and retry: time passes, and no thread waits."""

from __future__ import annotations

import builtins
import sys

import pytest
import tenacity

import work
from futurechain import ProcessPoolExecutor, ThreadPoolExecutor, delay, retry, succeed
from futurechain.testing import ManualClock


@pytest.fixture
def clock():
    with ManualClock() as manual:
        yield manual


def policy(**options):
    return tenacity.Retrying(**{"stop": tenacity.stop_after_attempt(3), "wait": tenacity.wait_fixed(10)} | options)


class Flaky:
    """Fails a number of times, then succeeds."""

    def __init__(self, failures):
        self.failures = failures
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError(f"attempt {self.calls}")
        return args


def test_delay(clock):
    """A delayed future gets its value in time."""
    future = delay(5, "value")
    clock.advance(4)
    assert not future.done()
    clock.advance(1)

    assert future.result(0) == "value"


def test_delay_can_be_cancelled(clock):
    """Cancelling it, from below too, withdraws the timer."""
    delay(5).cancel()
    delay(5).then(print).cancel()

    assert clock.pending == 0


@pytest.mark.parametrize(("given", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_bad_times_are_refused(given, error):
    """Negative times, NaN and what is no number, at the call."""
    with pytest.raises(error):
        delay(given)


def test_a_real_delay():
    """Without a manual clock, it is the timer thread that settles it."""
    assert delay(0.001, 5).then(work.double).result(10) == 10


def test_retry_until_it_works(clock):
    """Attempts follow the policy, and the waits take no time of any thread."""
    flaky = Flaky(2)
    future = retry(flaky, 1, 2, policy=policy())
    assert flaky.calls == 1
    clock.advance(10)
    assert flaky.calls == 2
    clock.advance(10)

    assert future.result(0) == (1, 2)


def test_a_failed_retry_carries_the_earlier_errors(clock):
    """It fails with the last error; the earlier ones are its cause."""
    future = retry(Flaky(5), policy=policy())
    clock.advance(10)
    clock.advance(10)
    error = future.exception(0)

    assert str(error) == "attempt 3"
    assert [str(earlier) for earlier in error.__cause__.exceptions] == ["attempt 1", "attempt 2"]


def test_reraise_makes_no_difference(clock):
    """A policy with reraise=True gives the same."""
    future = retry(Flaky(5), policy=policy(reraise=True, stop=tenacity.stop_after_attempt(2)))
    clock.advance(10)

    assert str(future.exception(0)) == "attempt 2"
    assert len(future.exception(0).__cause__.exceptions) == 1


def test_errors_that_the_policy_does_not_retry(clock):
    """They fail at once."""
    future = retry(Flaky(5), policy=policy(retry=tenacity.retry_if_exception_type(KeyError)))

    assert str(future.exception(0)) == "attempt 1"
    assert future.exception(0).__cause__ is None


def test_results_that_are_not_good_enough(clock):
    """retry_if_result works, and gives tenacity's RetryError in the end."""
    future = retry(int, policy=policy(retry=tenacity.retry_if_result(lambda value: value == 0)))
    clock.advance(100)
    clock.advance(100)

    assert isinstance(future.exception(0), tenacity.RetryError)


def test_an_error_of_the_policy_itself(clock):
    """It fails the future."""

    def broken(_):
        raise KeyError("policy")

    assert isinstance(retry(Flaky(1), policy=policy(wait=broken)).exception(0), KeyError)


def test_cancelling_a_retry_withdraws_the_wait(clock):
    """Nothing is tried any more."""
    flaky = Flaky(5)
    future = retry(flaky, policy=policy())
    future.cancel()
    clock.advance(100)

    assert flaky.calls == 1
    assert clock.pending == 0


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_retry_on_an_executor(kind):
    """The attempts run there."""
    quick = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none())
    with kind(1) as pool:
        assert retry(work.add, 1, 2, policy=quick, on=pool).result(30) == 3
        assert isinstance(retry(work.boom, policy=quick, on=pool).exception(30), ValueError)


def test_retry_flattens(clock):
    """A function that returns a future is waited for."""
    assert retry(lambda: succeed(5), policy=policy()).result(0) == 5


def test_bad_arguments():
    """What is no function, and no policy, is named."""
    with pytest.raises(TypeError, match="not 3"):
        retry(3, policy=policy())
    with pytest.raises(TypeError, match="wants policy=tenacity"):
        retry(int, policy=3)


def test_without_tenacity(monkeypatch):
    """The error names the extra."""
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "tenacity":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "tenacity")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="futurechain\\[retry\\]"):
        retry(int, policy=None)


def test_only_policies_of_calls_are_taken():
    """Those for coroutines of an event loop, and what is no executor, are refused at the call."""
    with pytest.raises(TypeError, match="Retrying"):
        retry(Flaky(1), policy=tenacity.AsyncRetrying())
    with pytest.raises(TypeError, match="executor"):
        retry(Flaky(1), policy=policy(), on=3)
