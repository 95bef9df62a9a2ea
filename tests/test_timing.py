"""delay and retry: time passes, and no thread waits."""

from __future__ import annotations

import builtins
import sys
import traceback

import pytest
import tenacity

import work
from futurechain import Future, ProcessPoolExecutor, ThreadPoolExecutor, delay, retry, succeed
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


def causes(error):
    """Return the error, its cause, the cause of that, and so on."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def quick(attempts=3, **options):
    return tenacity.Retrying(stop=tenacity.stop_after_attempt(attempts), wait=tenacity.wait_none(), **options)


def test_a_failed_retry_carries_the_earlier_errors_on_every_executor(executor, tmp_path):
    """What gets lost when an exception is pickled is attached where it arrives."""
    with executor:
        error = retry(work.fail_counting, str(tmp_path / "count"), policy=quick(), on=executor).exception(60)
    last = causes(error)[-1]

    assert str(error) == "attempt 3"
    assert isinstance(last, ExceptionGroup)
    assert [str(earlier) for earlier in last.exceptions] == ["attempt 1", "attempt 2"]


def test_the_last_error_keeps_its_own_causes():
    """The group of the earlier errors comes after them; and no context gets lost."""
    numbers = iter(range(1, 4))

    def fails():
        number = next(numbers)
        try:
            try:
                raise LookupError(number)
            except LookupError:
                raise OSError(number)  # noqa: B904  # this is what is tested
        except OSError as error:
            raise ValueError(number) from error

    chain = causes(retry(fails, policy=quick()).exception(30))

    assert [type(error) for error in chain] == [ValueError, OSError, ExceptionGroup]
    assert [str(earlier) for earlier in chain[-1].exceptions] == ["1", "2"]
    assert isinstance(chain[-1].__context__, LookupError)
    assert "LookupError: 3" in "".join(traceback.format_exception(chain[0]))


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_one_error_raised_again_and_again(attempts):
    """An error is never among its own causes, and two retries that raise the same one do not make it grow."""
    error = ValueError("the same")

    def fails():
        raise error

    for _ in range(2):
        assert retry(fails, policy=quick(attempts)).exception(30) is error
        assert causes(error) == [error]


def test_an_error_raised_from_an_earlier_one():
    """What the chain of causes has already is not told twice; a ring of causes stays as it is."""
    errors = [KeyError("first")]

    def fails():
        errors.append(ValueError(len(errors)))
        raise errors[-1] from errors[-2]

    def ring():
        one, other = KeyError("one"), KeyError("other")
        one.__cause__, other.__cause__ = other, one
        raise one

    assert [str(error) for error in causes(retry(fails, policy=quick()).exception(30))] == ["3", "2", "1", "'first'"]
    error = retry(ring, policy=quick()).exception(30)
    assert error.__cause__.__cause__ is error


def test_errors_before_a_result_that_is_not_good_enough():
    """They are carried, too."""
    results = iter([ValueError("broken"), 0, 0])

    def fetch():
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    poor = tenacity.retry_if_result(lambda value: value == 0) | tenacity.retry_if_exception_type()
    error = retry(fetch, policy=quick(retry=poor)).exception(30)

    assert isinstance(error, tenacity.RetryError)
    assert [str(earlier) for earlier in error.__cause__.exceptions] == ["broken"]


def test_an_error_class_of_the_users_own():
    """A policy with retry_error_cls fails with that; its causes are all errors."""

    class GaveUpError(tenacity.RetryError):
        pass

    error = retry(Flaky(5), policy=quick(retry_error_cls=GaveUpError)).exception(30)

    assert isinstance(error, GaveUpError)
    assert str(error.__cause__) == "attempt 3"
    assert [str(earlier) for earlier in causes(error)[-1].exceptions] == ["attempt 1", "attempt 2"]


def test_keyword_arguments(executor):
    """They are the function's."""
    with executor:
        assert retry(work.add, 1, right=2, policy=quick(), on=executor).result(60) == 3


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


@pytest.mark.parametrize("part", ["wait", "before"])
def test_cancelling_a_retry_while_its_policy_is_asked(clock, part):
    """What the policy has answered is of no interest any more: no timer is set, and nothing is tried."""
    flaky, cancelled = Flaky(5), []

    def cancel(state):
        if state.attempt_number == 2 or part == "wait":
            cancelled.append(future.cancel())
        return 10

    gate = Future()
    future = retry(lambda: gate.then(lambda _: flaky()), policy=policy(**{part: cancel}))
    gate.set_result(None)
    clock.advance(100 if part == "before" else 0)

    assert cancelled == [True]
    assert flaky.calls == 1
    assert clock.pending == 0


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_retry_on_an_executor(kind):
    """The attempts run there."""
    with kind(1) as pool:
        assert retry(work.add, 1, 2, policy=quick(2), on=pool).result(30) == 3
        assert isinstance(retry(work.boom, policy=quick(2), on=pool).exception(30), ValueError)


def test_retry_flattens(clock):
    """A function that returns a future is waited for."""
    assert retry(lambda: succeed(5), policy=policy()).result(0) == 5


def test_bad_arguments():
    """What is no function, and no policy, is named."""
    with pytest.raises(TypeError, match="not 3"):
        retry(3, policy=policy())
    with pytest.raises(TypeError, match=r"policy= of retry\(\) wants a tenacity.Retrying\(stop=.*, not 3$"):
        retry(int, policy=3)
    with pytest.raises(TypeError, match=r"not None$"):
        retry(int, policy=None)
    with pytest.raises(TypeError, match="call it"):
        retry(int, policy=tenacity.Retrying)


@pytest.mark.parametrize(
    "part",
    [
        {"stop": tenacity.stop_after_attempt(2)},
        {"wait": tenacity.wait_fixed(1)},
        {"retry": tenacity.retry_if_exception_type(OSError)},
    ],
)
def test_a_part_of_a_policy_is_no_policy(part):
    """The error says where it belongs."""
    with pytest.raises(TypeError, match=rf"write Retrying\({next(iter(part))}=...\)"):
        retry(int, policy=next(iter(part.values())))


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
    with pytest.raises(TypeError, match="event loop"):
        retry(Flaky(1), policy=tenacity.AsyncRetrying())
    with pytest.raises(TypeError, match="executor"):
        retry(Flaky(1), policy=policy(), on=3)
