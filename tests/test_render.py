"""render: a picture of a real chain, in four formats, that changes nothing by looking."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import logging
import re
import shutil
import subprocess
import sys
import threading
import weakref
import xml.etree.ElementTree as ET

import nbclient
import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

import futurechain
from futurechain import (
    Future,
    delay,
    ensure_future,
    fail,
    gather,
    inlineCallbacks,
    race,
    succeed,
    trace,
    wrap_future,
)
from futurechain.defer import Deferred
from futurechain.viewing.render import mimebundle, render

FORMATS = ("text", "mermaid", "dot", "svg")
SVG = "{http://www.w3.org/2000/svg}"
DOT_STRING = r'"(?:[^"\\\n]|\\.)*"'
DOT_LINE = re.compile(
    rf"digraph chain {{|}}|    (?:graph|node|edge|n\d+|n\d+ -> n\d+) \[\w+={DOT_STRING}(?:, \w+={DOT_STRING})*\];"
)
MERMAID_LINE = re.compile(
    r"flowchart TD"
    r'|    n\d+(?:\("[^"]*"\)|\["[^"]*"\]):::\w+'
    r'|    n\d+ (?:-\.->|==>)(?:\|"[\w ]+"\|)? n\d+'
    r"|    classDef \w+ [\w:#,\- ]+"
    r"|    linkStyle [\d,]+ stroke:#\w{6}"
)


@pytest.fixture(autouse=True)
def _nothing_left():
    """What a test leaves pending is lost, and reported, before the next one begins."""
    yield
    gc.collect()


def one(value):
    return value


def two(value):
    return value


def three(value):
    return value


def names(text):
    """What the lines of a text picture are about: the name of each node, or "see" and its number."""
    return [re.sub(r"^.*?(?:[✔✘⊘▶○] #\d+ |(?=see )|(?=… \d))", "", line).split(" ·")[0] for line in text.split("\n")]


def parse_svg(svg):
    """The root, the nodes and the edges of a picture."""
    root = ET.fromstring(svg)
    groups = root.findall(f"{SVG}g")
    edges = [group for group in groups if group.get("class").startswith("edge ")]
    return root, [group for group in groups if group not in edges], edges


def shape(future, kind, **options):
    """How many nodes and how many edges there are in a picture, whatever its format, after checking each line."""
    picture = render(future, kind, **options)
    if kind == "svg":
        _, nodes, edges = parse_svg(picture)
        return len(nodes), len(edges)
    pattern, node, edge = {
        "mermaid": (MERMAID_LINE, r"    n\d+[(\[]", r"    n\d+ (?:-\.->|==>)"),
        "dot": (DOT_LINE, r"    n\d+ \[", r"    n\d+ ->"),
    }[kind]
    lines = picture.split("\n")
    assert [line for line in lines if not pattern.fullmatch(line)] == []
    return sum(bool(re.match(node, line)) for line in lines), sum(bool(re.match(edge, line)) for line in lines)


# -- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "SVG", "png", None, 3, []])
def test_unknown_formats_are_refused(kind):
    """The error names the four formats there are."""
    with pytest.raises(ValueError, match=r'"text", "mermaid", "dot" or "svg"'):
        render(succeed(1), kind)


@pytest.mark.parametrize("thing", [None, 3, one, Future, futurechain.INLINE])
def test_only_futures_are_drawn(thing):
    """Anything but a future of concurrent.futures is a TypeError that shows what was given."""
    with pytest.raises(TypeError, match=re.escape(repr(thing))):
        render(thing)
    with pytest.raises(TypeError, match=re.escape(repr(thing))):
        mimebundle(thing)


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (None, TypeError)])
def test_the_limit_is_a_positive_whole_number(limit, error):
    """Anything else is refused."""
    with pytest.raises(error, match="limit="):
        render(succeed(1), limit=limit)


def test_the_text_is_the_default():
    """Without a format, the picture is for a terminal."""
    future = Future()

    assert render(future) == render(future, "text")


# -- what a picture says --------------------------------------------------------------------------------------------


def test_the_text_of_a_chain_with_branches():
    """Straight on at the same depth, branches one deeper; name, executor and state of each, and which was given."""
    root = Future()
    parsed = root.then(one)
    saved = parsed.then(two)
    saved.catch(KeyError, three).finally_(print)
    shown = parsed.then(three)

    assert render(parsed).split("\n") == [
        "○ #1 future · INLINE · pending",
        "⇣ ○ #2 one ◀ · INLINE · pending",
        "├╌ ○ #3 two · INLINE · pending",
        "│  ⇣ ○ #4 catch(KeyError, three) · INLINE · pending",
        "│  ⇣ ○ #5 finally print · INLINE · pending",
        "└╌ ○ #6 three · INLINE · pending",
    ]
    assert render(shown).replace(" ◀", "") == render(saved).replace(" ◀", "")


@pytest.mark.parametrize(
    ("future", "expected"),
    [
        (succeed(1), "✔ #1 future ◀ · INLINE · returned int"),
        (Future(), "○ #1 future ◀ · INLINE · pending"),
        (cf.Future(), "○ #1 concurrent Future ◀ · pending"),
    ],
)
def test_states(future, expected):
    """A single future says how it is."""
    assert render(future) == expected


def test_failed_and_cancelled():
    """They have marks of their own, and a failure names the exception's class."""
    failed, cancelled, running = fail(ValueError("v")), Future(), Future()
    cancelled.cancel()
    running.set_running_or_notify_cancel()

    assert render(failed) == "✘ #1 future ◀ · INLINE · raised ValueError"
    assert render(cancelled) == "⊘ #1 future ◀ · INLINE · cancelled"
    assert render(running) == "▶ #1 future ◀ · INLINE · running"
    failed.exception()


@pytest.mark.parametrize("settle", [lambda f: f.set_result(1), lambda f: f.set_exception(OSError()), cf.Future.cancel])
def test_foreign_futures_say_how_they_ended(settle):
    """What is not ours is drawn by its public methods."""
    foreign = cf.Future()
    settle(foreign)

    assert render(foreign)[0] in "✔✘⊘"


def test_a_task_that_runs_and_one_that_waits_for_a_worker():
    """A pool's task shows its function and the pool's name, running or not."""
    begun, go_on = threading.Event(), threading.Event()
    with futurechain.ThreadPoolExecutor(1, "reader") as pool:
        running = pool.submit(lambda: (begun.set(), go_on.wait()))
        queued = pool.submit(one, 1)
        stage = queued.then(two)
        begun.wait()
        try:
            assert render(running) == "▶ #1 <lambda> ◀ · reader · running"
            assert render(stage).split("\n") == [
                "○ #1 one · reader · pending",
                "⇣ ○ #2 two ◀ · reader · pending",
            ]
        finally:
            go_on.set()


def test_stages_that_are_no_functions():
    """A timeout, a shield, a delay, a pass-through and an adopted future are called what the user calls them."""
    root, foreign = Future(), cf.Future()
    timer = delay(1000)

    assert names(render(root.timeout(1000).shield().then(None))) == ["future", "timeout", "shield", "pass ◀"]
    assert names(render(timer)) == ["delay ◀"]
    assert names(render(wrap_future(foreign))) == ["concurrent Future", "wrap_future ◀"]
    timer.cancel()
    root.cancel()


def test_done_callbacks_are_counted():
    """A done callback is no stage; the node that has some says so."""
    root = Future()
    root.add_done_callback(print)
    assert render(root).endswith("pending · 1 callback")
    root.add_done_callback(print)
    assert render(root).endswith("pending · 2 callbacks")
    root.cancel()


def test_twisted_chains():
    """The end of a chain is drawn from anywhere in it, even where the stages between have been settled."""
    root, inner = Future(), Future()
    root.addCallback(lambda _: inner).addCallback(two)
    root.set_result(1)

    assert names(render(root)) == ["future ◀", "two", "", "future", "<lambda>", "see #2"]
    assert "↓ later ○ #2 two" in render(root)
    inner.set_result(2)
    assert root.final.result(0) == 2


# -- joins, coroutines, futures of others ---------------------------------------------------------------------------


@pytest.mark.parametrize("join", [gather, race, futurechain.first, lambda *futures: futurechain.some(2, *futures)])
def test_joins_are_drawn_once(join):
    """A combination of three futures has three arrows to one node; the text refers to it by its number."""
    a, b, c = Future(), Future(), Future()
    joined = join(a, b.then(one), c)
    end = joined.then(two)

    for start in (a, b, c, joined, end):
        text = render(start)
        assert text.count("see #2") == 2 or text.count("see #3") == 2 or text.count("see #4") == 2
        for kind in ("mermaid", "dot", "svg"):
            assert shape(start, kind) == (6, 5)


def test_names_of_combinations():
    """They are called what the user called."""
    a = Future()

    assert names(render(gather(a))) == ["future", "gather ◀"]
    assert names(render(gather(a, return_exceptions=True)))[-1] == "gather ◀"
    assert "race ◀" in render(race(a))


def test_a_join_shows_what_has_arrived():
    """The sources of a pending combination that are settled show the way that was taken."""
    a, b, c = succeed(1), Future(), fail(KeyError())
    both = gather(a, b, c, return_exceptions=True)
    text = render(both)

    assert set(text) > set("✔✘↓⇣")
    picture = render(both, "svg")
    assert sorted(edge.get("class") for edge in parse_svg(picture)[2]) == ["edge failed", "edge ok", "edge pending"]
    assert render(both, "mermaid").count("==>") == 2
    assert render(both, "dot").count('style="solid"') == 2
    b.set_result(2)


def test_a_diamond():
    """Two ways from one future to one: every future once, every arrow once."""
    root = Future()
    end = gather(root.then(one), root.then(two))

    for start in (root, end):
        assert names(render(start).replace(" ◀", "")) == ["future", "one", "gather", "two", "see #3"]
        assert shape(start, "svg") == (4, 4)


def test_returned_futures():
    """The stage whose handler returned a pending future waits for that, and so it is drawn."""
    inner = Future()
    stage = succeed(1).then(lambda _: inner)
    end = stage.then(two)

    for start in (inner, stage, end):
        assert names(render(start).replace(" ◀", "")) == ["future", "<lambda>", "two"]
        assert "⇣ returned by ○ #2 <lambda>" in render(start)
    inner.set_result(1)
    assert end.result(0) == 1


def test_coroutines():
    """A coroutine has its function's name, and hangs below the future that it awaits."""
    awaited = Future()

    async def reader():
        return await awaited

    @inlineCallbacks
    def generator():
        yield awaited

    running, other = ensure_future(reader()), generator()
    running.then(one)

    for start in (awaited, running, other):
        assert names(render(start).replace(" ◀", "")) == ["future", "coroutine reader", "one", "coroutine generator"]
        assert render(start).count("awaited by") == 2
    awaited.set_result(3)
    assert running.result(0) == 3


def test_foreign_futures_are_plain_boxes():
    """What hangs on a foreign future is found from there and back; its box has no round corners."""
    foreign = cf.Future()
    end = wrap_future(foreign).then(one)

    for start in (foreign, end):
        assert names(render(start).replace(" ◀", "")) == ["concurrent Future", "wrap_future", "one"]
    _, nodes, _ = parse_svg(render(end, "svg"))
    assert [node.find(f"{SVG}rect").get("rx") for node in nodes] == ["0", "8", "8"]
    assert re.findall(r"^    n\d+([\[(])", render(end, "mermaid"), re.MULTILINE) == ["[", "(", "("]
    assert render(end, "dot").count("rounded") == 2
    foreign.set_result(1)


def test_a_process_pool_draws_its_own_tasks_only(processes):
    """The future that the process pool uses inside is no part of the picture."""
    go_on = Future()
    end = gather(processes.submit(one, 1).then(two), go_on)

    assert "concurrent" not in render(end)
    go_on.set_result(1)
    assert end.result(60) == (1, 1)


# -- looking changes nothing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_a_rendered_chain_settles_as_ever(kind):
    """Links, order and outcome are those of a chain that nobody has drawn."""
    root, seen = Future(), []
    inner = Future()
    branches = [root.then(lambda value, n=n: seen.append(n) or value) for n in range(5)]
    end = gather(*branches).then(lambda _: inner).then(one)
    for future in (root, *branches, end):
        render(future, kind)
    root.set_result(7)
    render(end, kind)
    inner.set_result(8)

    assert seen == [0, 1, 2, 3, 4]
    assert end.result(0) == 8


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_does_not_count_as_having_looked(kind, caplog):
    """A failed future that was only drawn is still reported when it goes."""
    future = fail(ValueError("unheard of"))
    render(future, kind)
    mimebundle(future)
    with caplog.at_level(logging.ERROR, "futurechain"):
        del future
        gc.collect()

    assert [record.exc_info[1].args for record in caplog.records].count(("unheard of",)) == 1


def test_a_picture_keeps_nothing_alive():
    """A future that was drawn goes as soon as nobody holds it, without the garbage collector."""
    future = Future()
    stage = future.then(one)
    render(stage, "svg")
    gone = weakref.ref(stage)
    gc.disable()
    try:
        future.cancel()
        del stage, future
        assert gone() is None
    finally:
        gc.enable()


def test_a_picture_is_no_consumer():
    """Cancelling a stage that was drawn cancels its parent, which nobody else uses."""
    root = Future()
    stage = root.then(one)
    render(stage)
    stage.cancel()

    assert root.cancelled()


def test_a_chain_that_runs_meanwhile_can_be_drawn(pool):
    """Drawing while workers settle the chain raises nothing, and the chain ends as it should."""
    ends = [pool.submit(one, number).then(two).then(three) for number in range(200)]
    everything = gather(*ends)
    while not everything.done():
        for kind in FORMATS:
            render(everything, kind)

    assert everything.result(0) == tuple(range(200))


# -- size and form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_long_chains(kind):
    """Ten thousand stages need no stack, drawn in full or in part."""
    root = end = Future()
    for _ in range(10_000):
        end = end.then(one)

    assert "9801 more" in render(end, kind)
    assert "9801 more" in render(root, kind)
    if kind != "text":
        assert shape(end, kind, limit=20_000) == (10_001, 10_000)
    else:
        assert render(root, limit=20_000).count("\n") == 10_000


def test_the_limit_leaves_out_what_is_far():
    """What is left out above and below is counted in one node each."""
    root = end = Future()
    futures = [root, *(end := end.then(one) for _ in range(100))]

    assert names(render(futures[50], limit=3)) == ["… 49 more", "one", "one ◀", "one", "… 49 more"]
    assert names(render(futures[0], limit=1)) == ["future ◀", "… 100 more"]
    assert names(render(end, limit=101)).count("one") == 99
    assert "more" not in render(end, limit=101)
    assert shape(futures[50], "svg", limit=3) == (5, 4)


def test_a_node_for_the_others_is_referred_to():
    """Branches that are all cut off lead to one node."""
    root = Future()
    for stage in [root.then(one) for _ in range(3)]:
        stage.then(two).then(three)

    assert names(render(root, limit=4)) == ["future ◀", "one", "… 6 more", "one", "see … 6 more", "one", "see … 6 more"]


def test_there_is_an_end_to_counting(monkeypatch):
    """Beyond a large number, the others are not counted any more."""
    monkeypatch.setattr("futurechain.viewing.render.MOST_COUNTED", 50)
    root = end = Future()
    for _ in range(200):
        end = end.then(one)

    assert "50+ more" in render(root, limit=10)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("entrance", [False, True])
def test_rings_do_not_hang(kind, entrance):
    """Futures that wait for each other (which the library prevents) are drawn, and each once."""
    root = Future()
    first = root.then(one)
    second = first.then(two)
    if not entrance:
        root._dependents.clear()
        root = second
    first._source, first._scheduler = second, second._scheduler
    second._dependents.append(first)
    assert "one" in render(second, kind)
    assert "two" in render(root, kind)
    if kind != "text":
        assert shape(root, kind) == ((3, 3) if entrance else (2, 2))
    first._source = None
    for future in (first, second):
        future._dependents.clear()


def test_a_future_that_waits_for_itself_does_not_hang():
    """The shortest ring of all."""
    future = Future()
    future._dependents.append(future)

    for kind in FORMATS:
        assert render(future, kind)
    future._dependents.clear()


NASTY = 'a"b\n</title><script>&\\n`#x;\x00\ud800]] --> \\'


@pytest.mark.parametrize("kind", FORMATS)
def test_names_are_escaped(kind):
    """Quotes, line ends, tags, backslashes and characters that are none change no format."""

    def handler(value):
        return value

    handler.__qualname__ = handler.__name__ = NASTY
    root = Future()
    stage = root.then(handler)
    picture = render(stage, kind)

    picture.encode("utf-8")
    assert "\x00" not in picture
    if kind == "text":
        assert picture.count("\n") == 1
    else:
        assert shape(stage, kind) == (2, 1)
        assert "<script" not in picture or kind == "dot"
    if kind == "dot":
        assert r'a\"b\\n</title><script>&amp;\\n`' in picture
    if kind == "svg":
        text = "".join(parse_svg(picture)[1][1].itertext())
        assert 'a"b\\n</title><script>&' in text


def test_long_names_are_cut():
    """A name takes forty characters at most."""

    def handler(value):
        return value

    handler.__qualname__ = "n" * 1000
    assert "n" * 39 + "…" in render(Future().then(handler))
    assert "n" * 40 not in render(Future().then(handler))


def test_callables_that_answer_no_questions():
    """A callable whose attributes raise is drawn by its class."""

    class Sulky:
        def __getattribute__(self, name):
            raise RuntimeError(name)

        def __call__(self, value):
            return value

    assert names(render(Future().then(Sulky()))) == ["future", "Sulky ◀"]


def test_a_measured_duration_is_shown(monkeypatch):
    """Seconds from one on, milliseconds below."""
    monkeypatch.setattr("futurechain.viewing.render.duration", lambda future: 1.25)
    assert render(succeed(1)).endswith("returned int · 1.25 s")
    monkeypatch.setattr("futurechain.viewing.render.duration", lambda future: 0.0125)
    assert render(succeed(1)).endswith("returned int · 12.5 ms")


def test_a_trace_knows_the_durations():
    """What was recorded is shown in the picture."""
    with trace():
        future = succeed(1).then(one)
    assert re.search(r"returned int · [0-9.e-]+ ms$", render(future))


# -- the formats ----------------------------------------------------------------------------------------------------


def everything():
    """A chain with a branch, joins, a coroutine, a foreign future, and what is settled beside what is not."""
    root, foreign = Future(), cf.Future()

    async def reader():
        return await root

    branches = [root.then(one).then(two).then(three), root.catch(two), ensure_future(reader())]
    joined = gather(*branches, succeed(1), fail(KeyError()), foreign, return_exceptions=True)
    return race(joined, succeed(None).then(lambda _: joined)), (root, foreign)


def test_svg_is_accessible():
    """It is an image with a title that says what it shows, and each node has a title of its own."""
    end, _held = everything()
    root, nodes, _ = parse_svg(render(end, "svg"))

    assert root.get("role") == "img"
    assert root[0].tag == f"{SVG}title"
    assert root[0].text == "The chain of race (pending): 13 futures, 2 settled"
    assert all(node[0].tag == f"{SVG}title" and node[0].text for node in nodes)


def test_svg_is_self_contained():
    """It has a size, and no script, style sheet, identifier or address: it may stand on any page, twice."""
    end, _held = everything()
    picture = render(end, "svg")
    root, _, _ = parse_svg(picture)

    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags == {"svg", "title", "g", "rect", "path", "text", "tspan"}
    assert not re.search(r"\bid=|href|url\(|@import", picture)
    assert picture.count("http") == 1


def boxes(nodes):
    """Left, top, right, bottom of each node."""
    shapes = [node.find(f"{SVG}rect") for node in nodes]
    places = [[float(rect.get(key)) for key in ("x", "y", "width", "height")] for rect in shapes]
    return [(x, y, x + width, y + height) for x, y, width, height in places]


def is_laid_out(picture):
    """Nothing lies on another thing or outside of the picture."""
    root, nodes, _ = parse_svg(picture)
    places = boxes(nodes)
    width, height = float(root.get("width")), float(root.get("height"))
    inside = all(x >= 0 and y >= 0 and right <= width and bottom <= height for x, y, right, bottom in places)
    rows = {}
    for left, top, right, _ in sorted(places):
        if rows.get(top, -1) > left:
            return False
        rows[top] = right
    return inside


def test_svg_is_laid_out():
    """Nodes do not overlap, and an arrow goes down."""
    end, _held = everything()
    picture = render(end, "svg")
    _, nodes, edges = parse_svg(picture)

    assert is_laid_out(picture)
    tops = {(left + right) / 2: top for left, top, right, _ in boxes(nodes)}
    assert tops
    for edge in edges:
        start, end_ = re.findall(r"M([\d.]+) ([\d.]+)", " ".join(path.get("d") for path in edge.findall(f"{SVG}path")))
        assert float(start[1]) < float(end_[1])


def test_a_picture_with_too_many_bends(monkeypatch):
    """Beyond a large number of rows to be passed, arrows are straight; everything is drawn all the same."""
    root = Future()
    end = gather(root, root.then(one).then(two))
    bent = render(end, "svg")
    monkeypatch.setattr("futurechain.viewing.graph._MOST_BENDS", 3)

    assert shape(end, "svg") == (4, 4)
    assert bent.count("V") == 2
    assert "V" not in render(end, "svg")


def contrast(first, second):
    """The contrast of two colours, as the accessibility guidelines of the web define it."""

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("background", ["#ffffff", "#000000"])
def test_svg_can_be_read_on_any_background(background):
    """Lines have a contrast of 3 at least to white and to black, text one of 4.5 to what it stands on."""
    end, _held = everything()
    root, _, _ = parse_svg(render(end, "svg"))
    lines = {element.get("stroke") for element in root.iter() if element.get("stroke")}
    labels = {text.get("fill") for text in root.findall(f"{SVG}g/{SVG}text") if text.text}

    assert min(contrast(colour, background) for colour in labels) >= 4.5
    assert min(contrast(colour, background) for colour in lines) >= 3
    assert contrast("#1f2328", "#f6f8fa") >= 4.5


def test_mermaid_and_dot_lines():
    """Every line is of a known form, and all nodes and arrows are there."""
    end, _held = everything()

    assert shape(end, "mermaid") == shape(end, "dot") == shape(end, "svg")
    picture = render(end, "mermaid")
    used = set(re.findall(r":::(\w+)", picture))
    assert used == set(re.findall(r"classDef (\w+)", picture))
    styled = ",".join(re.findall(r"linkStyle ([\d,]+)", picture)).split(",")
    assert sorted(map(int, styled)) == list(range(shape(end, "mermaid")[1]))


def test_graphviz_reads_what_is_written():
    """If Graphviz is there, it takes the picture; else the lines have been checked one by one."""
    end, _held = everything()
    stage = Future().then(one)
    for picture in (render(end, "dot"), render(stage, "dot")):
        assert all(DOT_LINE.fullmatch(line) for line in picture.split("\n"))
        if (program := shutil.which("dot")) is not None:
            subprocess.run([program, "-Tsvg"], input=picture.encode(), check=True, capture_output=True, timeout=60)


def test_the_text_order_is_the_numbering():
    """Numbers grow from line to line, and a reference names a node that stands above."""
    end, _held = everything()
    last = 0
    for line in render(end).split("\n"):
        if match := re.search(r"[✔✘⊘▶○] #(\d+) ", line):
            assert int(match[1]) == last + 1
            last += 1
        elif match := re.search(r"see #(\d+)$", line):
            assert int(match[1]) <= last
        else:
            assert line == ""


# -- any tree -------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw):
    """Futures that hang together: each further one is a stage of an earlier one, or a join of two."""
    futures = [Future()]
    edges = 0
    for _ in range(draw(st.integers(0, 30))):
        parents = draw(st.lists(st.sampled_from(futures), min_size=1, max_size=3, unique_by=id))
        kind = draw(st.sampled_from(["then", "catch", "gather", "root"]))
        if kind == "then":
            futures.append(parents[0].then(one))
            edges += 1
        elif kind == "catch":
            futures.append(parents[0].catch(OSError, two))
            edges += 1
        elif kind == "gather":
            futures.append(gather(*parents))
            edges += len(parents)
        else:
            root = Future()
            futures += [root, gather(root, *parents)]
            edges += 1 + len(parents)
    return futures, edges


@given(graphs(), st.data())
def test_any_graph_is_drawn_whole_from_anywhere(graph, data):
    """All futures, all arrows, from whichever future one looks; and it settles as ever afterwards."""
    futures, edges = graph
    start = data.draw(st.sampled_from(futures))
    text = render(start)

    for kind in ("mermaid", "dot", "svg"):
        assert shape(start, kind) == (len(futures), edges)
    assert is_laid_out(render(start, "svg"))
    assert len(re.findall(r"[○] #\d+ ", text)) == len(futures)
    assert text.count("⇣") + text.count("╌") == edges
    assert text.count("◀") == 1
    for future in [future for future in futures if future._source is None]:
        future.set_result(1)
    assert all(future.done() for future in futures)


@given(graphs(), st.integers(1, 10), st.data())
def test_any_limit_is_kept(graph, limit, data):
    """No more nodes than that are drawn, besides one for the others above and one for those below; all are counted."""
    futures, _ = graph
    start = data.draw(st.sampled_from(futures))
    text = render(start, limit=limit)
    left_out = re.findall(r"(?<!see )… (\d+) more", text)

    assert len(re.findall(r"○ #\d+ ", text)) == min(limit, len(futures))
    assert sum(map(int, left_out)) == max(0, len(futures) - limit)
    assert len(left_out) <= 2
    assert is_laid_out(render(start, "svg", limit=limit))
    for future in futures:
        future.cancel()


# -- notebooks ------------------------------------------------------------------------------------------------------


def test_the_bundle_for_notebooks():
    """The text is the future's repr, and the picture is the SVG."""
    future = Future().then(one)

    assert mimebundle(future) == {"text/plain": repr(future), "image/svg+xml": render(future, "svg")}


def test_a_notebook_shows_the_picture():
    """A future that is the value of a cell is shown as a picture by a real kernel."""
    cells = [
        "import futurechain\nroot = futurechain.Future()\nend = root.then(abs).then(str)",
        "end",
        "root.set_result(-3); end.result()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
    client.km = client.create_kernel_manager()
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute()
    shown = notebook.cells[1].outputs[0].data

    assert shown["text/plain"].startswith("<Future stage str pending")
    assert "abs" in "".join(ET.fromstring(shown["image/svg+xml"]).itertext())
    assert notebook.cells[2].outputs[0].data["text/plain"] == "'3'"


def test_catch_shows_its_types():
    """As it was written, with the classes by name."""
    source = Future()
    source.catch(KeyError, repr)
    source.catch((KeyError, OSError), repr)
    source.catch(repr)

    drawn = [line.split(" · ")[0].split("#")[1][2:] for line in render(source).splitlines()]
    assert drawn == ["future ◀", "catch(KeyError, repr)", "catch(KeyError | OSError, repr)", "repr"]


def test_the_root_of_a_deferred_is_called_so():
    """What stands for a Deferred in a picture has its name."""
    deferred = Deferred()
    assert "#1 Deferred ◀" in render(deferred.future)


def test_labels_stand_beside_their_arrows():
    """On the side that the line does not come from, within the picture."""
    inner = Future()
    outer = [succeed(1).then(lambda _: inner) for _ in range(3)]
    root = ET.fromstring(render(inner, "svg"))
    box = [float(number) for number in root.get("viewBox").split()]
    edges = [group for group in root.iter(f"{SVG}g") if group.get("class", "").startswith("edge")]
    assert len(edges) == len(outer)
    for edge in edges:
        line, _, text = edge
        numbers = [float(number) for number in re.findall(r"[-0-9.]+", line.get("d"))]
        start, tip, x = numbers[0], numbers[-2], float(text.get("x"))
        side = -1 if text.get("text-anchor") == "end" else 1
        assert (x - tip) * side > 5, "beside the tip"
        assert (start - tip) * side <= 0, "away from where the line comes from"
        assert box[0] <= min(x, x + side * 7.5 * len(text.text))
        assert max(x, x + side * 7.5 * len(text.text)) <= box[2]


@pytest.mark.parametrize("format", ["text", "mermaid", "dot", "svg"])
@pytest.mark.parametrize("letter", ["x", "\u202e", "\n", "\U000e0001", "ש"])
def test_any_name_of_any_length(letter, format):  # noqa: A002  # as in render
    """500 letters, direction marks and what does not print are cut, or written out; the picture stays small."""

    def named(value):
        return value

    named.__name__ = named.__qualname__ = letter * 500
    source = Future()
    source.then(named).then(str)
    drawn = render(source, format)

    assert len(drawn) < 4000
    assert not {"\u202e", "\U000e0001"} & {*drawn}
