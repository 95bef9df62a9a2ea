"""How a call ended badly: one frozen value that every layer passes on.

A stage ends with a plain value or with a `Failure`; nothing else is needed to say how. So a `Failure` never
travels as a *value*: a handler that returns one has failed, which is Twisted's way to re-raise. The vocabulary is
that of ``twisted.python.failure``, reduced to what has a meaning without a reactor.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator
from types import TracebackType
from typing import Any, NoReturn, TextIO, TypeAlias, final

__all__ = ["Failure", "RemoteTraceback"]


class RemoteTraceback(Exception):  # noqa: N818  # it is not raised: it is the `__cause__` that carries the text
    """The text of a traceback that could not travel: the ``__cause__`` of an unpickled failure's exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


_set = object.__setattr__

ErrorType: TypeAlias = type[BaseException] | str
"""An exception class, or the full name of one."""


@final
class Failure:
    """Hold the exception with which a call ended; frozen.

    Args:
        exc_value: the exception, or another `Failure`, whose exception it is then; without it, the one that is being
            handled (``sys.exception()``).
        exc_type: taken as Twisted takes it, and not looked at: it is the class of the exception.
        exc_tb: the traceback of the exception, if that has none of its own.
        captureVars: taken as Twisted takes it, and not looked at.

    Raises:
        TypeError: if `exc_value` is not an exception, or is missing where none is being handled.

    Example:
        >>> fail(KeyError("k")).addErrback(lambda failure: failure.getErrorMessage()).result()
        "'k'"
    """

    __slots__ = ("__weakref__", "value")

    value: BaseException
    """The exception itself."""

    def __init__(
        self,
        exc_value: BaseException | Failure | None = None,
        exc_type: ErrorType | None = None,
        exc_tb: TracebackType | None = None,
        captureVars: bool = False,
    ) -> None:
        error: Any = sys.exception() if exc_value is None else exc_value
        if type(error) is Failure:  # not isinstance(): that would ask an exception for its class
            error = error.value
        if not issubclass(type(error), BaseException):
            wanted = "an exception instance, as in Failure(ValueError('...'))"
            given = "nothing, and no exception is being handled" if error is None else repr(error)
            raise TypeError(f"Failure() wants {wanted}, not {given}")
        if exc_tb is not None and error.__traceback__ is None:
            error = error.with_traceback(exc_tb)
        _set(self, "value", error)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Failure is frozen: {name!r} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Failure is frozen: {name!r} cannot be deleted")

    @property
    def type(self) -> type[BaseException]:
        """The class of the exception.

        Example:
            >>> Failure(ValueError("no")).type
            <class 'ValueError'>
        """
        return self.value.__class__

    def check(self, *types: ErrorType) -> ErrorType | None:
        """Return the first of `types` that the exception is an instance of, or None.

        Args:
            types: exception classes, or full names of them such as ``"builtins.KeyError"``.

        Example:
            >>> Failure(KeyError("k")).check(OSError, LookupError)
            <class 'LookupError'>
        """
        names = [f"{cls.__module__}.{cls.__qualname__}" for cls in self.type.__mro__]
        for wanted in types:
            if wanted in names if isinstance(wanted, str) else issubclass(self.type, wanted):
                return wanted
        return None

    def trap(self, *types: ErrorType) -> ErrorType:
        """Return the first matching one of `types`; raise the exception itself when none matches.

        Example:
            >>> Failure(KeyError("k")).trap(OSError, LookupError)
            <class 'LookupError'>
        """
        matching = self.check(*types)
        if matching is None:
            self.raiseException()
        return matching

    def raiseException(self) -> NoReturn:
        """Raise the exception, with the traceback it already has.

        Example:
            >>> Failure(ValueError("no")).raiseException()
            Traceback (most recent call last):
            ValueError: no
        """
        raise self.value

    def getErrorMessage(self) -> str:
        """Return the message of the exception as one string.

        Example:
            >>> Failure(ValueError("no")).getErrorMessage()
            'no'
        """
        try:
            return str(self.value)
        except Exception as error:  # a broken __str__ must not hide the failure
            return f"<{self.type.__qualname__} whose __str__ raised {error.__class__.__qualname__}>"

    def getTraceback(self, elideFrameworkCode: int = 0, detail: str = "default") -> str:
        """Return the formatted traceback, that of a worker process included.

        Args:
            elideFrameworkCode: taken as Twisted takes it, and not looked at.
            detail: "brief" leaves out the lines of code, "verbose" adds the local variables.

        Raises:
            ValueError: if `detail` is none of "brief", "default" and "verbose".

        Example:
            >>> print(Failure(ValueError("no")).getTraceback(detail="verbose"), end="")
            ValueError: no
        """
        if detail not in {"brief", "default", "verbose"}:
            raise ValueError(f'detail must be "brief", "default" or "verbose", not {detail!r}')
        told = traceback.TracebackException.from_exception(
            self.value, lookup_lines=detail != "brief", capture_locals=detail == "verbose"
        )
        if detail == "brief":
            return "".join([*_places(told), *told.format_exception_only()])
        return "".join(told.format())

    def printTraceback(
        self, file: TextIO | None = None, elideFrameworkCode: int = 0, detail: str = "default"
    ) -> None:
        """Write the formatted traceback to `file`, or to ``sys.stderr``.

        Example:
            >>> Failure(ValueError("no")).printTraceback(sys.stdout)
            ValueError: no
        """
        (sys.stderr if file is None else file).write(self.getTraceback(elideFrameworkCode, detail))

    def getBriefTraceback(self) -> str:
        """Return the formatted exception alone, without the lines that led to it.

        Example:
            >>> print(Failure(ValueError("no")).getBriefTraceback(), end="")
            ValueError: no
        """
        return "".join(traceback.format_exception_only(self.value))

    def printBriefTraceback(self, file: TextIO | None = None, elideFrameworkCode: int = 0) -> None:
        """Write that to `file`, or to ``sys.stderr``.

        Example:
            >>> Failure(ValueError("no")).printBriefTraceback(sys.stdout)
            ValueError: no
        """
        (sys.stderr if file is None else file).write(self.getBriefTraceback())

    def printDetailedTraceback(self, file: TextIO | None = None, elideFrameworkCode: int = 0) -> None:
        """Write the formatted traceback with the local variables to `file`, or to ``sys.stderr``.

        Example:
            >>> Failure(ValueError("no")).printDetailedTraceback(sys.stdout)
            ValueError: no
        """
        self.printTraceback(file, elideFrameworkCode, "verbose")

    def getTracebackObject(self) -> TracebackType | None:
        """Return the traceback of the exception, if it has one here.

        Example:
            >>> Failure(ValueError("never raised")).getTracebackObject() is None
            True
        """
        return self.value.__traceback__

    def throwExceptionIntoGenerator(self, g: Generator[Any, Any, Any]) -> Any:
        """Raise the exception inside of a generator; return what that yields next.

        Example:
            >>> Failure(ValueError("no")).throwExceptionIntoGenerator(n for n in range(3))
            Traceback (most recent call last):
            ValueError: no
        """
        return g.throw(self.value)

    def cleanFailure(self) -> None:
        """Do nothing: no frame is kept but those of the exception's own traceback.

        Example:
            >>> Failure(ValueError("no")).cleanFailure() is None
            True
        """

    def __repr__(self) -> str:
        return f"<Failure {self.type.__module__}.{self.type.__qualname__}: {self.getErrorMessage()}>"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        text = self.getTraceback() if self.value.__traceback__ or self.value.__cause__ else None
        return _rebuild, (self.value, text)


def _places(told: traceback.TracebackException) -> list[str]:
    return [f"{frame.filename}:{frame.lineno}:{frame.name}\n" for frame in told.stack]


def _rebuild(value: BaseException, text: str | None) -> Failure:
    if text is not None and value.__cause__ is None:
        value.__cause__ = RemoteTraceback(text)
    return Failure(value)
