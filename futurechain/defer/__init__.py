"""Twisted's Deferred without a reactor: the names of ``twisted.internet.defer``, on an engine of their own.

Code written for Twisted's Deferred runs after its import line is changed to ``from futurechain import defer`` or
``from futurechain.defer import ...``. A Deferred may be fired, chained and cancelled from any thread::

    from futurechain import defer

    d = defer.Deferred()
    d.addCallback(lambda page: page.upper())
    d.callback("text")              # in whatever thread: the callbacks run there
    assert d.result == "TEXT"

Ways over: ``d.future`` is a `futurechain.Future` of the callbacks added so far, for which any thread may wait;
``await d`` works in coroutines of this module, of ``futurechain.inlineCallbacks``, under asyncio and under trio;
``Deferred.fromFuture`` takes any ``concurrent.futures.Future``, and asyncio's. A callback may return, and a generator
may yield, a ``concurrent.futures.Future`` or a coroutine, which is waited for as a Deferred is.

`state` has the theory of operation, `engine` the loop that runs callbacks, `deferred` and `adding` the class that users
see; `futures` has the ways over, `calls` generators and coroutines, `expiry` timeouts, `several` and `waiting` what
is made of several Deferreds, `reports` and `legacy` the rest of Twisted's names.

What differs from Twisted, and the way out
------------------------------------------
* Threads: callbacks run in the thread that fires, or in the one that adds them to a settled Deferred; there is no
  reactor to go back to. To have them elsewhere: ``d.future.then(fn, on=executor)``.
* ``chainDeferred``, and generators that wait for each other, need no stack. One Deferred that is waited for by
  several gives its result to the first, as in Twisted.
* A Deferred that is returned while a callback of its own is running is waited for, and not emptied in the middle.
* A Deferred that waits for itself fails with ``TypeError``, instead of a warning or waiting for ever.
* ``race([])`` fails with ``ValueError``, instead of waiting for ever.
* A generator's ``return d`` waits for `d`; `inlineCallbacks` takes ``async def`` functions too; `returnValue` outside
  of a generator is a ``TypeError``, is not deprecated, and does not warn when it is called from a function in
  between.
* ``cancel()`` of a generator that is running just then reaches the next Deferred that it waits for.
* ``callback()`` and ``succeed()`` with a Deferred, ``errback()`` with something that is no error, and a callback that
  is not callable are a ``TypeError`` at once; None in the place of a callback passes the result on.
* ``pause()`` holds up the next callback, also when a callback calls it, but never another Deferred's callbacks; an
  ``unpause()`` too many has no effect.
* Ctrl-C that a callback raises in the main thread is its result, and is raised there again when the callbacks have
  run.
* `CancelledError` is that of ``concurrent.futures``, and is not reported when nobody handles it; for Twisted's own
  use ``failure.check("twisted.internet.defer.CancelledError")``. A timeout is the built-in ``TimeoutError``, and
  ``addTimeout()`` needs no clock. `AlreadyCalledError` has a message, with the stacks of `setDebugging` if that is
  on.
* Errors that nobody handled, and `logError`, go to the logger ``futurechain`` of ``logging``:
  ``twisted.python.log.PythonLoggingObserver`` has the other direction. An error has a note that names the callback.
* `Failure` is frozen, is no exception itself, and has no ``frames``, ``stack``, ``tb`` and ``parents``: look at
  ``failure.value.__traceback__``, or print ``failure.getTraceback(detail="verbose")`` for the variables. Twisted's
  own `Failure` is taken for what it is, in ``errback()``, ``callback()`` and as a callback's result.
* ``repr()`` tells what a Deferred waits for only when that was returned by a callback, not after ``chainDeferred()``.
* No ``DeferredFilesystemLock`` (use ``filelock`` in a thread pool), no ``Deferred.callbacks`` (``futurechain.render``
  draws futures), and no private names, such as ``_DEFERRED_SUBCLASSES``. `timeout` is not marked as deprecated.
"""

from futurechain.defer.calls import ensureDeferred, execute, inlineCallbacks, maybeDeferred
from futurechain.defer.deferred import Deferred, fail, succeed
from futurechain.defer.errors import (
    AlreadyCalledError,
    FailureGroup,
    FirstError,
    NotACoroutineError,
    QueueOverflow,
    QueueUnderflow,
)
from futurechain.defer.legacy import getDebugging, passthru, setDebugging, timeout
from futurechain.defer.reports import logError
from futurechain.defer.several import FAILURE, SUCCESS, DeferredList, gatherResults, race
from futurechain.defer.waiting import DeferredLock, DeferredQueue, DeferredSemaphore
from futurechain.errors import CancelledError, TimeoutError  # noqa: A004  # the name that Twisted's users look for
from futurechain.failure import Failure
from futurechain.flow.driver import returnValue

__all__ = [
    "FAILURE",
    "SUCCESS",
    "AlreadyCalledError",
    "CancelledError",
    "Deferred",
    "DeferredList",
    "DeferredLock",
    "DeferredQueue",
    "DeferredSemaphore",
    "Failure",
    "FailureGroup",
    "FirstError",
    "NotACoroutineError",
    "QueueOverflow",
    "QueueUnderflow",
    "TimeoutError",
    "ensureDeferred",
    "execute",
    "fail",
    "gatherResults",
    "getDebugging",
    "inlineCallbacks",
    "logError",
    "maybeDeferred",
    "passthru",
    "race",
    "returnValue",
    "setDebugging",
    "succeed",
    "timeout",
]
