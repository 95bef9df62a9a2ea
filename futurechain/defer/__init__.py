"""Twisted's Deferred without a reactor: the names of ``twisted.internet.defer``, on top of `Future`.

Code written for Twisted's Deferred runs after its import line is changed to ``from futurechain import defer`` or
``from futurechain.defer import ...``. A Deferred may be fired, chained and cancelled from any thread, and other threads
can wait for its `Deferred.future`.

Theory of operation
-------------------
A Deferred *is* a chain of futures: a bare root, which ``callback`` settles, and one Twisted-family stage for each
pair of callbacks (`_Step`). ``called`` and ``result`` only describe where that chain is. A stage that finds the
Deferred paused waits for a gate, a bare future too. A callback that returns another Deferred appends a stage to *its*
chain, which moves the result into a `_Relay` and leaves None behind; the chain here waits for the relay. So everything
that holds for futures holds here: no stack, one order, no lost stage.

Who fires a Deferred is decided by one ``dict.setdefault``, which stores the winner's token: a list, with an element
for each late call that is forgiven. Everything else is decided by the ``pop`` of a token, as in `links`.

What differs from Twisted
-------------------------
* Threads: callbacks run in the thread that fires, or in the one that adds them to a settled Deferred.
* A Deferred that is returned while a callback of its own is running is waited for, and not emptied in the middle.
* A Deferred that waits for itself fails with ``TypeError``, instead of waiting for ever.
* A Deferred that is dropped without being fired fails with ``LostFutureError``, so that nobody waits for ever.
* ``race([])`` fails with ``ValueError``, instead of waiting for ever.
* A callback may return, and a generator may yield, a ``concurrent.futures.Future``; a generator's ``return d`` waits
  for `d`; `inlineCallbacks` takes ``async def`` functions too.
* ``cancel()`` of a generator that is running just then reaches the next Deferred that it waits for.
* ``callback()`` and ``succeed()`` with a Deferred, ``errback()`` with something that is no error, and a callback that
  is not callable are a ``TypeError`` at once; None in the place of a callback passes the result on.
* ``pause()`` holds up the next callback, also when a callback calls it, but never another Deferred's callbacks; an
  ``unpause()`` too many has no effect.
* Without reactor and logging there is no ``setDebugging``, ``logError``, ``DeferredFilesystemLock``; a `Failure` has no
  ``frames`` and ``stack``; a `Deferred` does not show its ``callbacks``.
* ``addTimeout()`` needs no clock; its error is the built-in ``TimeoutError``. `CancelledError` is that of
  ``concurrent.futures``, and is not reported when nobody handles it. Other errors are, to the logger ``futurechain``.
"""

from futurechain.flow.coroutines import returnValue
from futurechain.defer.calls import ensureDeferred, execute, inlineCallbacks, maybeDeferred
from futurechain.defer.deferred import Deferred, fail, succeed
from futurechain.defer.errors import (
    AlreadyCalledError,
    FailureGroup,
    FirstError,
    QueueOverflow,
    QueueUnderflow,
)
from futurechain.defer.several import FAILURE, SUCCESS, DeferredList, gatherResults, race
from futurechain.defer.waiting import DeferredLock, DeferredQueue, DeferredSemaphore
from futurechain.errors import CancelledError, TimeoutError  # noqa: A004  # the name that Twisted's users look for
from futurechain.failure import Failure

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
    "QueueOverflow",
    "QueueUnderflow",
    "TimeoutError",
    "ensureDeferred",
    "execute",
    "fail",
    "gatherResults",
    "inlineCallbacks",
    "maybeDeferred",
    "race",
    "returnValue",
    "succeed",
]
