"""`Failure`: one frozen value for how a call ended badly, with Twisted's words."""

from __future__ import annotations

import io
import pickle

import pytest

from futurechain import Failure
from futurechain.failure import RemoteTraceback


def failure_of(error):
    try:
        raise error
    except BaseException as raised:
        return Failure(raised)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def test_value_and_type():
    """A failure holds the exception itself, and tells its class."""
    error = KeyError("k")

    assert Failure(error).value is error
    assert Failure(error).type is KeyError


def test_without_argument_takes_the_exception_being_handled():
    """`Failure()` in an except block is a failure with that exception."""
    try:
        raise KeyError("k")
    except KeyError as error:
        assert Failure().value is error


@pytest.mark.parametrize(("given", "named"), [((), "nothing"), ((3,), "3"), ((KeyError,), "KeyError")])
def test_wants_an_exception_instance(given, named):
    """What is no exception instance is refused by a TypeError that names it."""
    with pytest.raises(TypeError, match=named):
        Failure(*given)


def test_is_frozen():
    """Nothing of a failure can be set or deleted."""
    failure = Failure(KeyError())

    with pytest.raises(AttributeError, match="frozen"):
        failure.value = ValueError()
    with pytest.raises(AttributeError, match="frozen"):
        del failure.value


def test_check_returns_the_first_type_that_matches():
    """`check` takes classes and full names, and returns the one that matches, or None."""
    failure = Failure(KeyError())

    assert failure.check(ValueError, LookupError) is LookupError
    assert failure.check("builtins.KeyError") == "builtins.KeyError"
    assert failure.check(ValueError, "builtins.OSError") is None


def test_trap_raises_what_does_not_match():
    """`trap` returns the type that matches, and raises the very exception when none does."""
    error = KeyError("k")

    assert Failure(error).trap(KeyError) is KeyError
    with pytest.raises(KeyError) as caught:
        Failure(error).trap(ValueError)
    assert caught.value is error


def test_messages():
    """`getErrorMessage` is the message; a broken `__str__` does not hide the failure."""
    assert Failure(ValueError("why")).getErrorMessage() == "why"
    assert "RuntimeError" in Failure(Mute()).getErrorMessage()
    assert repr(Failure(ValueError("why"))) == "<Failure builtins.ValueError: why>"


def test_traceback_is_printed():
    """`getTraceback` has the raising line, and `printTraceback` writes it to a file or to stderr."""
    failure = failure_of(ValueError("why"))
    out = io.StringIO()

    failure.printTraceback(out)

    assert "raise error" in failure.getTraceback()
    assert out.getvalue() == failure.getTraceback()


def test_print_traceback_to_stderr(capsys):
    """Without a file, the traceback goes to stderr."""
    failure_of(ValueError("why")).printTraceback()

    assert "ValueError: why" in capsys.readouterr().err


def test_raise_exception():
    """`raiseException` raises the exception itself."""
    with pytest.raises(ValueError, match="why"):
        Failure(ValueError("why")).raiseException()


def test_pickles_with_its_traceback():
    """A pickled failure brings the text of its traceback along, once."""
    failure = failure_of(ValueError("why"))

    there = pickle.loads(pickle.dumps(failure))
    and_back = pickle.loads(pickle.dumps(there))

    assert isinstance(there.value.__cause__, RemoteTraceback)
    assert "raise error" in there.getTraceback()
    assert and_back.getTraceback().count("in failure_of") == 1


def test_pickles_without_traceback():
    """A failure that was never raised has no traceback to bring along."""
    assert pickle.loads(pickle.dumps(Failure(ValueError("why")))).value.__cause__ is None


def test_the_rest_of_twisted_s_vocabulary():
    """Brief and detailed tracebacks, the traceback itself, and raising inside of a generator."""
    try:
        raise KeyError("k")
    except KeyError as error:
        failure = Failure(error)
        traceback = error.__traceback__

    assert failure.getBriefTraceback() == "KeyError: 'k'\n"
    brief, detailed = io.StringIO(), io.StringIO()
    failure.printBriefTraceback(brief)
    failure.printDetailedTraceback(detailed)
    assert brief.getvalue() == failure.getBriefTraceback()
    assert detailed.getvalue().startswith("Traceback")
    assert "    failure = " in detailed.getvalue()
    assert failure.getTracebackObject() is traceback
    failure.cleanFailure()
    assert failure.getTracebackObject() is traceback

    def catches():
        try:
            yield
        except KeyError as caught:
            yield caught

    generator = catches()
    next(generator)
    assert failure.throwExceptionIntoGenerator(generator) is failure.value
