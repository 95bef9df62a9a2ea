"""Recordings as files: the events Perfetto reads, and the page, as a browser shows it."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from futurechain.viewing.trace_export import Count, Mark, Span, chrome_trace, page, save

REQUIRED = {  # by phase, what the description of the Chrome trace event format asks for
    "M": {"name", "pid", "args"},
    "X": {"name", "ts", "dur", "pid", "tid"},
    "b": {"name", "cat", "id", "ts", "pid"},
    "e": {"name", "cat", "id", "ts", "pid"},
    "s": {"name", "cat", "id", "ts", "pid", "tid"},
    "f": {"name", "cat", "id", "ts", "pid", "tid", "bp"},
    "i": {"name", "cat", "ts", "pid", "tid", "s"},
    "C": {"name", "ts", "pid", "tid", "args"},
}
STATES = ("returned", "failed", "cancelled", "passed", "pending")
FETCH = Span(1, "fetch", "pool-0", "pool-0_0", 10, 0.0, 0.001, 0.002, 0.010, "returned", "bytes", ())
PARSE = Span(
    2, "parse", "pool-0", "pool-0_1", 10, 0.0, 0.010, 0.011, 0.020, "failed", "ValueError: nope", (1,)
)
STORE = Span(3, "store", "procs-1", "", 0, 0.0, None, None, 0.0201, "passed", "ValueError: nope", (2,))
REPORT = Span(4, "report", "INLINE", "MainThread", 10, 0.0, None, 0.021, 0.030, "returned", "NoneType", (3,))
LATE = Span(5, "late", "procs-1", "Worker-1", 11, 0.005, 0.005, 0.006, None, "pending", "", ())
DROPPED = Span(6, "dropped", "procs-1", "", 0, 0.005, 0.006, None, 0.025, "cancelled", "CancelledError", (5,))
SENT = Span(
    7, "sent", "procs-1", "Worker-1", 11, 0, 0.001, 0.004, 0.009, "returned", "int", (), 0.008, (0.001, 0.002), 0.003
)
DIED = Mark(0.009, "procs-1", "Worker-1", 11, "died: SIGKILL")
CAME = Mark(0.009, "procs-1", "Worker-2", 12, "started in place of process 11")
WAITING = (Count(0.001, "items for sent", 7), Count(0.002, "items for sent", 0))
RECORDING = (FETCH, PARSE, STORE, REPORT, LATE, DROPPED)


def events(spans: Any, phase: str) -> list[dict[str, Any]]:
    return [event for event in chrome_trace(spans)["traceEvents"] if event["ph"] == phase]


def names_of_tracks(spans: Any) -> dict[tuple[int, int], str]:
    return {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events(spans, "M")
        if event["name"] == "thread_name"
    }


def names_of_processes(spans: Any) -> dict[int, str]:
    return {
        event["pid"]: event["args"]["name"] for event in events(spans, "M") if event["name"] == "process_name"
    }


@st.composite
def recordings(draw: st.DrawFn) -> list[Span]:
    """Any recordings: clocks that disagree, stages that overlap, parents nobody recorded."""
    times = st.integers(0, 40).map(lambda tick: tick / 1000)
    made = st.builds(
        Span,
        number=st.just(0),
        name=st.text(max_size=6),
        executor=st.sampled_from(["pool-0", "INLINE"]),
        track=st.sampled_from(["a", "b"]),
        process=st.integers(1, 3),
        attached=times,
        queued=st.none() | times,
        started=st.none() | times,
        settled=st.none() | times,
        state=st.sampled_from(STATES),
        detail=st.text(max_size=6),
        parents=st.lists(st.integers(0, 12), max_size=3).map(tuple),
    )
    return [replace(span, number=number) for number, span in enumerate(draw(st.lists(made, max_size=12)))]


@given(recordings())
def test_events_have_the_fields_of_their_phase(spans: list[Span]) -> None:
    """Each event has what the format asks of its phase; times are numbers of microseconds, durations not negative."""
    trace = chrome_trace(spans)

    assert trace["displayTimeUnit"] == "ms"
    for event in trace["traceEvents"]:
        assert REQUIRED[event["ph"]] <= event.keys(), event
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 0) >= 0
        assert type(event["pid"]) is int
        assert type(event["tid"]) is int


@given(recordings())
def test_every_span_appears(spans: list[Span]) -> None:
    """What ran is a complete event, what never ran a pair of asynchronous ones; nothing appears twice."""
    ran = [event["args"]["number"] for event in events(spans, "X")]
    waited = [event["id"] for event in events(spans, "b")]

    assert sorted(ran) == [span.number for span in spans if span.started is not None]
    assert sorted(waited) == [
        span.number for span in spans if span.queued is not None or span.started is None
    ]


@given(recordings())
def test_asynchronous_events_come_in_pairs(spans: list[Span]) -> None:
    """Each "b" has one "e" of the same category, id, name and process, and no earlier."""

    def key(event: dict[str, Any]) -> tuple[Any, ...]:
        return event["cat"], event["id"], event["name"], event["pid"]

    begins = {key(event): event["ts"] for event in events(spans, "b")}
    ends = {key(event): event["ts"] for event in events(spans, "e")}

    assert begins.keys() == ends.keys()
    assert all(ends[one] >= begins[one] for one in begins)


@given(recordings())
def test_events_on_a_track_are_nested_or_apart(spans: list[Span]) -> None:
    """Two complete events of one (pid, tid) never overlap in part: the viewers would drop one."""
    on_track: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events(spans, "X"):
        span = event["ts"], round(event["ts"] + event["dur"], 3)
        on_track.setdefault((event["pid"], event["tid"]), []).append(span)

    for members in on_track.values():
        assert not [(one, two) for one in members for two in members if one[0] < two[0] < one[1] < two[1]]


@given(recordings())
def test_arrows_match(spans: list[Span]) -> None:
    """Each "s" has one "f" of its id; both lie within a complete event of their track."""
    starts = {event["id"]: event for event in events(spans, "s")}
    finishes = {event["id"]: event for event in events(spans, "f")}
    running = events(spans, "X")

    assert starts.keys() == finishes.keys()
    assert len(starts) == len(events(spans, "s")), "ids are unique"
    for event in (*starts.values(), *finishes.values()):
        assert any(
            one["ts"] <= event["ts"] <= one["ts"] + one["dur"]
            for one in running
            if (one["pid"], one["tid"]) == (event["pid"], event["tid"])
        )
    assert all(event["bp"] == "e" for event in finishes.values())


def test_running_is_a_complete_event_with_its_facts() -> None:
    """A stage that ran is an "X" from start to settling in microseconds, on a track named after its thread."""
    (event,) = events([PARSE], "X")

    assert (event["name"], event["ts"], event["dur"], event["pid"]) == ("parse", 11000, 9000, 10)
    assert names_of_tracks([PARSE])[event["pid"], event["tid"]] == "pool-0_1"
    assert event["args"] == {
        "number": 2,
        "stage": "parse",
        "executor": "pool-0",
        "state": "failed",
        "detail": "ValueError: nope",
        "attached (ms)": 0,
        "parents": [1],
        "queued (ms)": 1,
    }


def test_queueing_is_apart_from_running() -> None:
    """The time in a queue is an asynchronous event named after the executor, in a process of its own."""
    (begin,), (end,) = events([FETCH], "b"), events([FETCH], "e")

    assert (begin["name"], begin["cat"], begin["ts"], end["ts"]) == ("queue of pool-0", "queued", 1000, 2000)
    assert begin["pid"] != FETCH.process
    assert names_of_processes([FETCH])[begin["pid"]] == "queues"


def test_packing_is_apart_from_queueing() -> None:
    """What of the time in the queue was packing is an event of its own within that; the run ends with the function."""
    queue, packing = events([SENT], "b")
    (run,) = events([SENT], "X")

    assert [queue["name"], packing["name"]] == ["queue of procs-1", "packing for procs-1"]
    assert queue["ts"] <= packing["ts"] < run["ts"]
    assert (run["ts"], run["dur"], run["args"]["packed (ms)"], run["args"]["came back (ms)"]) == (4000, 4000, 1, 1)


def test_marks_are_instants_on_the_track_of_the_worker() -> None:
    """What happened to a worker is an instant event on its track, also if it has run nothing."""
    trace = chrome_trace([SENT], [DIED, CAME])["traceEvents"]
    run = next(event for event in trace if event["ph"] == "X")
    died, came = (event for event in trace if event["ph"] == "i")
    tracks = {(one["pid"], one["tid"]): one["args"]["name"] for one in trace if one["name"] == "thread_name"}

    assert REQUIRED["i"] <= died.keys()
    assert (died["name"], died["pid"], died["tid"], died["ts"]) == ("died: SIGKILL", 11, run["tid"], 9000)
    assert tracks[came["pid"], came["tid"]] == "Worker-2"


def test_queues_of_streams_are_counters() -> None:
    """The length of a queue is a counter among the queues."""
    trace = chrome_trace([SENT], [], WAITING)["traceEvents"]
    counters = [event for event in trace if event["ph"] == "C"]

    assert all(REQUIRED["C"] <= event.keys() for event in counters)
    assert [(one["name"], one["ts"], one["args"]) for one in counters] == [
        ("items for sent", 1000, {"waiting": 7}),
        ("items for sent", 2000, {"waiting": 0}),
    ]


def test_a_pending_stage_lasts_to_the_end() -> None:
    """A stage that has not settled runs until the last moment of the recording."""
    late = next(event for event in events(RECORDING, "X") if event["name"] == "late")

    assert (late["ts"], late["dur"]) == (6000, 24000)


def test_each_thread_and_process_is_a_track() -> None:
    """One (pid, tid) per worker, each named; processes are named too."""
    names = names_of_tracks(RECORDING)

    assert sorted((pid, name) for (pid, _), name in names.items()) == [
        (10, "MainThread"),
        (10, "pool-0_0"),
        (10, "pool-0_1"),
        (11, "Worker-1"),
    ]
    assert names_of_processes(RECORDING) == {10: "process", 11: "Worker-1", 12: "queues"}
    assert len({tid for _, tid in names}) == len(names)


def test_what_overlaps_has_a_further_lane() -> None:
    """Stages of one thread that overlap in part go to lanes of that thread, which are used again."""
    times = [(0, 4), (1, 2), (1.5, 5), (3, 6), (5.5, 7)]
    spans = [replace(FETCH, number=i, started=start, settled=end) for i, (start, end) in enumerate(times)]
    names = names_of_tracks(spans)
    lanes = {event["args"]["number"]: names[event["pid"], event["tid"]] for event in events(spans, "X")}

    assert lanes == {0: "pool-0_0", 1: "pool-0_0", 2: "pool-0_0 (2)", 3: "pool-0_0 (3)", 4: "pool-0_0"}


def test_a_lane_is_used_again() -> None:
    """A further lane whose stage is over takes the next one that finds no place in the first."""
    times = [(0, 9), (1, 10), (11, 19), (12, 20)]
    spans = [replace(FETCH, number=i, started=start, settled=end) for i, (start, end) in enumerate(times)]

    assert sorted(names_of_tracks(spans).values()) == ["pool-0_0", "pool-0_0 (2)"]


def test_arrows_lead_from_parent_to_child() -> None:
    """An arrow leaves within the parent and arrives at the child's start, past stages that were skipped."""
    arrows = {
        (start["ts"], finish["ts"])
        for start in events(RECORDING, "s")
        for finish in events(RECORDING, "f")
        if start["id"] == finish["id"]
    }

    assert arrows == {(9999.999, 11000), (19999.999, 21000)}  # fetch to parse, and parse past store to report


def test_nothing_recorded_is_no_event() -> None:
    """An empty recording is a valid file of each kind."""
    assert chrome_trace([])["traceEvents"] == []
    assert "__SPANS__" not in page([], "nothing")


# ---- the page as text ----------------------------------------------------------------------------------------


class Outline(HTMLParser):
    """What a page holds: its elements, and the text of the data and of the heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags:
            tag, attributes = self.tags[-1]
            key = attributes.get("id") or tag
            self.texts[key] = self.texts.get(key, "") + data


@given(st.text(), st.text())
def test_the_page_carries_any_text(name: str, title: str) -> None:
    """Whatever is in a name or title comes out as it was, in a page with the same elements."""
    outline = Outline(page([replace(FETCH, name=name)], f"x{title}"))
    strings = json.loads(outline.texts["data"])["strings"]

    assert strings[0] == name
    assert [tag for tag, _ in outline.tags] == [tag for tag, _ in Outline(page([FETCH], "plain")).tags]


@pytest.mark.parametrize(
    "text",
    [
        "</script><b>",
        "<!--<script>",
        "]]>",
        "\u2028\u2029",
        "\ud800",
        "__TITLE__ __SPANS__",
        r"\1 \g<0> \u003c",
    ],
)
def test_the_page_escapes(text: str) -> None:
    """Text that could end the script element, a line or the encoding is escaped, and comes back as it was."""
    spans = [replace(FETCH, name=text, detail=text)]
    result = page(spans, "title")
    data = Outline(result).texts["data"]

    assert data.isascii()
    assert not re.search("[<>&]", data)
    assert json.loads(data)["strings"][0] == text


def test_the_title_is_text() -> None:
    """A title with markup is shown, not obeyed; what looks like a placeholder stays."""
    result = page([], "<b>&__SPANS__\u2028")

    assert "<b>" not in result
    assert result.count("&lt;b&gt;&amp;__SPANS__&#8232;") == 2  # the title and the heading


def test_the_page_needs_no_network() -> None:
    """The page names no address, and its policy forbids it to load anything."""
    result = page(RECORDING, "title")

    assert not re.search(r"(?:https?:)?//[a-z]+\.|@import|url\(", result)
    assert "default-src 'none'" in result


def test_the_rows_are_compact() -> None:
    """20,000 stages take about a hundred bytes each: strings that come often stand there once."""
    spans = [replace(FETCH, number=i, parents=(i - 1,)) for i in range(20_000)]

    assert len(page(spans, "t")) - len(page([], "t")) < 100 * len(spans)


# ---- saving --------------------------------------------------------------------------------------------------


def test_save_picks_the_format_by_suffix(tmp_path: Path) -> None:
    """.json is a trace for Perfetto, .html the page; the case of the suffix does not matter."""
    save(RECORDING, tmp_path / "a.json", "title")
    save(RECORDING, str(tmp_path / "a.HTML"), "title")

    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == chrome_trace(RECORDING)
    assert (tmp_path / "a.HTML").read_text("utf-8") == page(RECORDING, "title")


@pytest.mark.parametrize("name", ["a.svg", "a", "json"])
def test_save_refuses_other_suffixes(name: str, tmp_path: Path) -> None:
    """Any other suffix is a ValueError that names both formats, and no file is written."""
    with pytest.raises(ValueError, match=r"\.json .*\.html"):
        save(RECORDING, tmp_path / name, "title")

    assert list(tmp_path.iterdir()) == []


def test_save_takes_an_iterator(tmp_path: Path) -> None:
    """The spans may come from an iterator, which is read once."""
    for name in ("a.json", "a.html"):
        save(iter(RECORDING), tmp_path / name, "title")

        assert "report" in (tmp_path / name).read_text("utf-8")


# ---- the page in a browser -----------------------------------------------------------------------------------


class Browser:
    """Headless Chromium with a page of this module in it."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver = driver
        self.folder = folder

    def open(self, spans: Any, title: str = "A recording", marks: Any = (), counts: Any = ()) -> Browser:
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # what came before is another test's
        save(spans, self.folder / "page.html", title, marks, counts)
        self.driver.get((self.folder / "page.html").as_uri())
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        return self

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(
            f"const timeline = window.futurechainTimeline; return {script}", *arguments
        )

    def view(self) -> tuple[float, float]:
        view = self.ask("timeline.view()")
        return view["from"], view["to"]

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def keys(self, *keys: str, into: str = "#canvas") -> None:
        self.find(into).send_keys(*keys)

    def pointer_on(self, number: int) -> Any:
        """Actions that begin with the pointer moved to a stage."""
        from selenium.webdriver import ActionChains

        place = self.ask("timeline.place(arguments[0])", number)
        actions = ActionChains(self.driver, duration=0)
        actions.w3c_actions.pointer_action.move_to_location(round(place["x"]), round(place["y"]))
        return actions

    def wheel_on(self, number: int, delta: int) -> None:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

        place, canvas = self.ask("timeline.place(arguments[0])", number), self.find("#canvas")
        box = self.ask("document.querySelector('#canvas').getBoundingClientRect().toJSON()")
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        origin = ScrollOrigin.from_element(
            canvas, round(place["x"] - middle[0]), round(place["y"] - middle[1])
        )
        ActionChains(self.driver, duration=0).scroll_from_origin(origin, 0, delta).perform()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("needs the programs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-gpu",
        "window-size=1300,1000",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        yield Browser(driver, tmp_path_factory.mktemp("timeline"))
    finally:
        driver.quit()


def many(count: int) -> list[Span]:
    """A busy pool: `count` stages on five threads, one after the other with little between."""
    dice, free, spans = random.Random(5), [0.0] * 5, []
    for number in range(count):
        worker = min(range(5), key=free.__getitem__)
        start = free[worker] + dice.random() * 0.001
        free[worker] = start + dice.expovariate(500)
        queued = max(0.0, start - dice.random() * 0.01)
        state = "failed" if dice.random() < 0.01 else "returned"
        spans.append(
            replace(
                FETCH,
                number=number,
                name=dice.choice(["fetch", "parse", "store"]),
                track=f"pool-0_{worker}",
                queued=queued,
                started=start,
                settled=free[worker],
                state=state,
                parents=(number - 1,) if number else (),
            )
        )
    return spans


def test_the_page_shows_what_happened_to_workers(browser: Browser) -> None:
    """Workers that have run nothing have a track, and so have the queues of streams."""
    browser.open([SENT], "<Title>", [DIED, CAME], WAITING)

    assert browser.driver.get_log("browser") == []
    assert browser.ask("timeline.rows()") == 4
    browser.ask("timeline.select(7)")
    assert "packed in" in browser.find("#panel").text
    assert "came back in" in browser.find("#panel").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "spans", [RECORDING, (), (STORE,)], ids=["a recording", "nothing", "nothing that ran"]
)
def test_the_page_loads(spans: tuple[Span, ...], scheme: str, browser: Browser) -> None:
    """The page shows itself without a message on the console and without asking the network for anything."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.open(spans, "<Title>")

    messages = [json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")]
    requested = [
        one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"
    ]
    assert browser.driver.get_log("browser") == []
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in requested if url.startswith("file:")]) == 1
    assert browser.find("h1").text == browser.driver.title == "<Title>"
    assert browser.ask("timeline.drawn()") > 0


def test_the_wheel_zooms_around_the_pointer(browser: Browser) -> None:
    """The wheel narrows the view, and what is under the pointer stays there; turned back, it widens."""
    browser.open(RECORDING)
    (start, end), before = browser.view(), browser.ask("timeline.place(2)")
    browser.wheel_on(2, -240)
    (near, far), after = browser.view(), browser.ask("timeline.place(2)")

    assert far - near < (end - start) * 0.8
    assert start < near < far < end
    assert abs(before["x"] - after["x"]) <= 2

    browser.wheel_on(2, 1000)
    assert browser.view() == (start, end)


def test_keys_move_and_zoom(browser: Browser) -> None:
    """+ and - zoom, the arrows move, 0 and Home show all."""
    from selenium.webdriver import Keys

    browser.open(RECORDING)
    whole = browser.view()
    browser.keys("+", "+")
    near = browser.view()
    browser.keys(Keys.ARROW_RIGHT)
    moved = browser.view()
    browser.keys("-")
    wider = browser.view()

    assert near[1] - near[0] < whole[1] - whole[0]
    assert moved[0] > near[0]
    assert moved[1] - moved[0] == pytest.approx(near[1] - near[0])
    assert wider[1] - wider[0] > moved[1] - moved[0]
    browser.keys("0")
    assert browser.view() == whole
    browser.keys("+", Keys.HOME)
    assert browser.view() == whole
    browser.keys(Keys.ARROW_LEFT)
    assert browser.view() == whole, "there is nothing outside of the recording"


def test_dragging_pans(browser: Browser) -> None:
    """Dragging moves what is shown with the pointer, and selects nothing."""
    browser.open(RECORDING).ask("timeline.zoomTo(8000, 22000)")
    before = browser.ask("timeline.place(2)")
    browser.pointer_on(2).click_and_hold().move_by_offset(60, 0).release().perform()
    after = browser.ask("timeline.place(2)")

    assert after["x"] - before["x"] == pytest.approx(60, abs=1)
    assert browser.ask("timeline.selected()") is None


def test_keys_select_stage_after_stage(browser: Browser) -> None:
    """n and ] go to the next stage by start, p and [ back; Enter zooms to it, Escape clears; a live region tells."""
    from selenium.webdriver import Keys

    browser.open(RECORDING)
    seen = []
    for key in "n]np[":
        browser.keys(key)
        seen.append(browser.ask("timeline.selected()"))
    assert seen == [1, 5, 2, 5, 1]
    assert browser.find("#panel[aria-live=polite] .stage").text == "fetch #1"

    browser.keys(Keys.ENTER)
    near, far = browser.view()
    assert near < 1000, "the time in the queue is shown too"
    assert far > 10000
    assert far - near < 20000
    browser.keys(Keys.ESCAPE)
    assert browser.ask("timeline.selected()") is None


def test_a_selected_stage_is_brought_into_view(browser: Browser) -> None:
    """Selecting a stage outside of the view moves the view to it, and to its start if it is too long for the view."""
    browser.open(RECORDING).ask("timeline.zoomTo(0, 5000)")
    browser.ask("timeline.select(4)")
    near, far = browser.view()

    assert far - near == pytest.approx(5000)
    assert near < 21000
    assert far > 21000


def test_hovering_shows_the_facts(browser: Browser) -> None:
    """A tooltip tells about the stage under the pointer, and goes when the pointer does."""
    browser.open(RECORDING)
    browser.pointer_on(2).perform()
    tip = browser.find("#tip")

    assert tip.is_displayed()
    assert all(
        fact in tip.text for fact in ("parse", "failed", "ValueError: nope", "9 ms", "1 ms", "pool-0_1")
    )
    away = browser.pointer_on(2)
    away.w3c_actions.pointer_action.move_to_location(2, 2)
    away.perform()
    assert not tip.is_displayed()


def test_a_click_selects(browser: Browser) -> None:
    """A click selects the stage under it, and its parents and children are links that select them."""
    browser.open(RECORDING)
    browser.pointer_on(2).click().perform()
    assert browser.ask("timeline.selected()") == 2

    links = browser.driver.find_elements("css selector", "#panel button")
    assert [link.text for link in links] == ["fetch #1", "\u21b7 store #3"]
    links[0].click()
    assert browser.ask("timeline.selected()") == 1


def test_search_finds(browser: Browser) -> None:
    """The search counts what it finds by name, Enter goes from match to match, Escape ends it."""
    from selenium.webdriver import Keys

    browser.open(RECORDING)
    browser.keys("/")
    assert browser.driver.switch_to.active_element.get_attribute("id") == "search"
    browser.keys("RE", into="#search")
    assert browser.ask("timeline.matches()") == [3, 4]
    assert browser.find("#count[role=status]").text == "2 of 6 stages"

    chosen = []
    for keys in (Keys.ENTER, Keys.ENTER, Keys.ENTER, Keys.SHIFT + Keys.ENTER):
        browser.keys(keys, into="#search")
        chosen.append(browser.ask("timeline.selected()"))
    assert chosen == [3, 4, 3, 4]

    browser.keys(Keys.ESCAPE, into="#search")
    assert browser.ask("timeline.matches()") == []
    assert browser.driver.switch_to.active_element.get_attribute("id") == "canvas"


def test_the_table_selects(browser: Browser) -> None:
    """The slowest stages come first; a click on a row selects its stage, and so does Enter on its button."""
    from selenium.webdriver import Keys

    browser.open(RECORDING)
    rows = browser.driver.find_elements("css selector", "#slowest tbody tr")
    assert [row.get_attribute("data-number") for row in rows] == ["5", "2", "4", "1"]

    rows[1].find_elements("css selector", "td")[1].click()
    assert browser.ask("timeline.selected()") == 2
    assert rows[1].get_attribute("aria-current") == "true"
    rows[3].find_element("css selector", "button").send_keys(Keys.ENTER)
    assert browser.ask("timeline.selected()") == 1
    assert rows[1].get_attribute("aria-current") is None


def test_executors_are_compared(browser: Browser) -> None:
    """A table gives for each executor the time its stages were queued and the time they ran."""
    browser.open(RECORDING)
    rows = browser.driver.find_elements("css selector", "#executors tbody tr")

    assert [row.text.split("\n")[0] for row in rows] == [
        "INLINE 1 0 \u00b5s 9 ms",
        "pool-0 2 2 ms 17 ms",
        "procs-1 1 20 ms 24 ms",
    ]


def test_the_page_can_be_used_without_a_mouse(browser: Browser) -> None:
    """Tab leaves the timeline again, every control has a name, and the headings are in order."""
    from selenium.webdriver import Keys

    browser.open(RECORDING)
    browser.keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.get_attribute("id") != "canvas"

    controls = browser.driver.find_elements("css selector", "button, input, canvas[tabindex], table, summary")
    assert [one.get_attribute("outerHTML") for one in controls if not one.accessible_name] == []
    headings = browser.driver.find_elements("css selector", "h1, h2, h3")
    assert [one.tag_name for one in headings] == ["h1", *["h2"] * (len(headings) - 1)]


def test_an_empty_recording_starts_at_zero(browser: Browser) -> None:
    """There is no time before it."""
    browser.open(())
    assert browser.view() == (0, 1000)
    assert browser.ask("timeline.ticks()[0].text") == "0 \N{MICRO SIGN}s"


@pytest.mark.parametrize("shown", [(0, 40_000), (39_990, 40_010), (123, 39_321)])
@pytest.mark.parametrize("width", [320, 400, 1300])
def test_ticks_at_any_width(width: int, shown: tuple[float, float], browser: Browser) -> None:
    """Three of them at least on a phone, and no text reaches the next line."""
    size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": width < 640}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.open(RECORDING).ask("timeline.zoomTo(...arguments)", *shown)
        ticks = browser.ask("timeline.ticks()")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    assert len(ticks) >= (3 if width >= 400 else 2)
    for tick, following in pairwise(ticks):
        assert tick["x"] + 4 + tick["width"] < following["x"]


def test_any_name_of_any_length(browser: Browser) -> None:
    """Long ones are cut, direction marks are written out, and Hebrew and Arabic stay by themselves."""
    names = ["x" * 500, "abc\u202edef\u2066", "\u05e9\u05dc\u05d5\u05dd"]
    browser.open([replace(STORE, number=number, name=name) for number, name in enumerate(names)])
    legend = browser.driver.execute_script("return document.getElementById('legend').textContent")

    assert "x" * 59 + "\u2026" in legend
    assert "x" * 60 not in legend
    assert "abc\\u202edef\\u2066" in legend
    assert "\u202e" not in browser.driver.execute_script("return document.body.innerText")
    assert "\u2068\u05e9\u05dc\u05d5\u05dd\u2069" in legend


def test_a_narrow_window_is_enough(browser: Browser) -> None:
    """On a phone nothing sticks out to the side."""
    size = {"width": 360, "height": 700, "deviceScaleFactor": 2, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.open(RECORDING)
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.5, 0.51)])
def test_a_frame_costs_what_is_visible(start: float, end: float, browser: Browser) -> None:
    """Of 20,000 stages a frame draws no more than a few marks for each pixel of each row, wherever one looks."""
    browser.open(many(20_000))
    first, last = browser.view()
    size = last - first
    browser.ask("timeline.zoomTo(arguments[0], arguments[1])", first + size * start, first + size * end)
    width, rows = browser.find("#canvas").size["width"], browser.ask("timeline.rows()")

    assert rows == 6  # five threads and their queue
    assert 0 < browser.ask("timeline.drawn()") <= 3 * width * rows
    if end < 1:
        assert browser.ask("timeline.drawn()") < 2000


def test_a_frame_of_many_is_not_much_slower(browser: Browser) -> None:
    """Drawing 20,000 stages takes a bounded multiple of drawing 200: the pixels are as many."""
    least = "Math.min(...Array.from({ length: 9 }, () => timeline.drawMillis()))"
    few = browser.open(many(200)).ask(least)
    lot = browser.open(many(20_000)).ask(least)

    assert lot < 40 * max(few, 0.5)
