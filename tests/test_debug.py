"""debugging: the lines that attached a chain, and callbacks that hold their thread up."""

from __future__ import annotations

import logging

import pytest

from futurechain import ThreadPoolExecutor, debug, succeed
from futurechain.viewing import debug as debugging
from programs import run_program


@pytest.fixture
def debugged():
    debug(True)
    yield
    debug(False)


def broken(value):
    raise ValueError(value)


def test_a_report_shows_the_line_of_each_stage(debugged, caplog):
    """The whole chain is shown, from its first stage to the one that nobody looked at."""
    future = succeed(1).then(str)
    future = future.then(broken)
    future.then(len)
    del future

    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    assert [line.split(",")[0].strip() for line in lines[1:]] == ["stage str", "stage broken", "stage len"]
    numbers = [int(line.rsplit(":", 1)[1].split()[0]) for line in lines[1:]]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert all(__file__ in line and "test_a_report_shows" in line for line in lines[1:])


def test_a_report_of_a_long_chain_is_cut(debugged, caplog):
    """It shows the last hundred stages."""
    future = succeed(1).then(broken)
    for _ in range(150):
        future = future.then(len)
    del future

    lines = caplog.records[0].getMessage().splitlines()
    assert len(lines) == 102
    assert lines[1].strip() == "..."


def test_stages_on_a_pool_have_lines_too(debugged, caplog):
    """A task and the stages behind it."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(broken, 2).then(len)

    assert "stage broken, attached at" in caplog.text
    assert "stage len, attached at" in caplog.text


def test_without_debug_mode_the_report_names_the_stages(caplog):
    """From the one that raised it to the end."""
    succeed(1).then(str).then(broken)
    assert "raised in stage broken, on INLINE" in caplog.text


def test_a_slow_callback_is_warned_about(debugged, caplog, monkeypatch):
    """With its name and its line, once it has returned; a quick one is not, nor what runs on a pool."""
    now = iter([0.0, 0.25, 10.0, 10.01])
    monkeypatch.setattr(debugging, "perf_counter", lambda: next(now))
    with caplog.at_level(logging.WARNING, "futurechain"):
        succeed(1).then(str).then(len)

    (record,) = caplog.records
    assert "stage str, attached at" in record.getMessage()
    assert "0.250 seconds" in record.getMessage()


def test_a_slow_callback_that_fails_is_warned_about_too(debugged, caplog, monkeypatch):
    """It held its thread all the same."""
    now = iter([0.0, 0.25])
    monkeypatch.setattr(debugging, "perf_counter", lambda: next(now))
    assert succeed(1).then(broken).exception() is not None

    assert "held its thread for 0.250 seconds" in caplog.text


def test_pool_work_may_take_its_time(debugged, caplog, monkeypatch):
    """Only local callbacks hold up others."""
    now = iter([0.0, 5.0, 5.0, 10.0])
    monkeypatch.setattr(debugging, "perf_counter", lambda: next(now))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(abs, 1).then(str).result()

    assert caplog.records == []


def test_how_slow_is_slow_can_be_set(caplog, monkeypatch):
    """In seconds; what is no such number is refused."""
    now = iter([0.0, 0.25])
    monkeypatch.setattr(debugging, "perf_counter", lambda: next(now))
    debug(True, slow=0.5)
    try:
        succeed(1).then(str)
    finally:
        debug(False)

    assert caplog.records == []
    with pytest.raises(ValueError, match="not"):
        debug(True, slow=-1)
    with pytest.raises(TypeError):
        debug(True, slow="fast")


def test_the_environment_turns_it_on():
    """``FUTURECHAIN_DEBUG=1`` before the first import; anything but 0 will do."""
    program = "from futurechain import succeed; succeed(1).then(lambda n: n / 0)"
    for setting, expected in (("1", True), ("0", False)):
        run = run_program(program, FUTURECHAIN_DEBUG=setting)
        assert ("attached at <string>:1 in <module>" in run.stderr) is expected
        assert "ZeroDivisionError" in run.stderr
