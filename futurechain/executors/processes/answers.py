"""What a worker sends back, turned into a job's result or error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from futurechain.executors.processes.leases import Receiver
from futurechain.executors.processes.light import NotLight, load_light
from futurechain.executors.processes.messages import (
    TIMES,
    Opened,
    Status,
    Times,
    open_parcel,
    with_remote_traceback,
)
from futurechain.executors.processes.trips import Item, Job, Report
from futurechain.executors.processes.wire import Frame
from futurechain.executors.travel import cannot_come_back, cannot_travel

__all__ = ["Answer", "Arrival", "deliver", "deliver_all", "deliver_light", "open_answers", "short_answer", "unsendable"]


_STATUS = {int(status): status for status in Status}


class Answer(NamedTuple):
    """How one call has ended, as the worker tells it."""

    status: Status
    times: Times
    opened: Opened
    """The result or the exception."""
    texts: tuple[str, str] | None
    """For an error: what it is, and its traceback."""


Arrival: TypeAlias = tuple[Item, Answer, Report]
"""An answer, and to what."""


def open_answers(frame: Frame, receiver: Receiver) -> list[Answer]:
    """Return the answers in a frame that there was memory for.

    Raises:
        Unopened: if a block cannot be opened here.
    """
    answers = []
    payload = frame.payload
    assert payload is not None
    for status, times, layout, texts in frame.header[1]:
        opened, payload = open_parcel(layout, payload, receiver)
        answers.append(Answer(_STATUS[status], Times(*times), opened, texts))
    return answers


def short_answer(payload: memoryview) -> Answer:
    """Return the answer in a short message."""
    return Answer(Status.VALUE, Times(*TIMES.unpack_from(payload)), Opened(payload[TIMES.size :], []), None)


def deliver_all(
    answered: Sequence[Arrival], place: str, elsewhere: Callable[[Callable[[], object]], object]
) -> None:
    """Give each job its result or error; what may run anybody's code for that is done elsewhere."""
    heavy = []
    for item, answer, report in answered:
        if not deliver_light(item.job, answer, report, place):
            heavy.append(partial(deliver, item.job, answer, report, place))
    if heavy:
        elsewhere(heavy[0] if len(heavy) == 1 else partial(_do_all, heavy))


def _do_all(acts: Sequence[Callable[[], object]]) -> None:
    for act in acts:
        act()


def deliver(job: Job, answer: Answer, report: Report, place: str) -> None:
    """Give `job` its result or error; unpickles, so whatever classes are in it run their code here.

    Args:
        job: what was asked for.
        answer: how it ended.
        report: who did it.
        place: what the pool is called.
    """
    try:
        value = answer.opened.load()
    except MemoryError as error:
        job.fail(error, report)
    except BaseException as error:
        job.fail(_unreadable(job, answer, error, place), report)
    else:
        _settle(job, answer, value, report, place)


def deliver_light(job: Job, answer: Answer, report: Report, place: str) -> bool:
    """Do the same if that runs nobody's code, and is soon done; False if it is not."""
    try:
        value = load_light(answer.opened)
    except NotLight:
        return False
    _settle(job, answer, value, report, place)
    return True


def _settle(job: Job, answer: Answer, value: Any, report: Report, place: str) -> None:
    if answer.status is Status.VALUE:
        job.succeed(value, report)
    else:
        job.fail(_error(job, answer, value, place), report)


def _error(job: Job, answer: Answer, raised: Any, place: str) -> BaseException:
    """Return the error of a call that failed there: the function's own, or one that says what could not travel."""
    described, trace = answer.texts or ("", "")
    if answer.status is Status.RAISED:
        return with_remote_traceback(raised, trace)
    if answer.status is Status.ERROR_UNSENDABLE:
        return with_remote_traceback(cannot_come_back(job.name, described, "it cannot be pickled"), trace)
    what = "cannot be unpickled there" if answer.status is Status.CALL_UNREADABLE else "its result cannot be pickled"
    error = cannot_travel(job.name, f"{place} and back", f"{what}: {described}")
    if isinstance(raised, BaseException):
        error.__cause__ = with_remote_traceback(raised, trace)
        return error
    return with_remote_traceback(error, trace)


def _unreadable(job: Job, answer: Answer, reason: BaseException, place: str) -> BaseException:
    """Return the error for what arrived and cannot be built again here."""
    if answer.texts is not None:
        return with_remote_traceback(cannot_come_back(job.name, answer.texts[0], repr(reason)), answer.texts[1])
    error = cannot_travel(job.name, f"{place} and back", f"its result cannot be unpickled here: {reason!r}")
    error.__cause__ = reason
    return error


def unsendable(job: Job, reason: BaseException, place: str) -> BaseException:
    """Return the error for a call that cannot be packed here."""
    if isinstance(reason, MemoryError):
        return reason
    error = cannot_travel(job.name, place, repr(reason))
    error.__cause__ = reason
    return error
