"""The benchmarks measure what they say, with every peer that is installed."""

from __future__ import annotations

import concurrent.futures as cf
import json
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

import work
from benchmarks import byhand, chart, cost, growth, linear, measure, processes, ratios, scenarios, streams
from benchmarks.peers import BY_HAND, OURS, Limit, peers
from benchmarks.pools import open_pool, pool_peers

MACHINE = {"processor": "a <fast> one", "cores": 2, "python": "CPython", "date": "today"}


@pytest.fixture(autouse=True, scope="module")
def _steady():
    with measure.steady():
        yield


def takes_part():
    """Yield every scenario with every peer, in a small size."""
    for scenario in scenarios.SCENARIOS:
        for peer in scenario.peers():
            if not scenarios.refusal(scenario, peer, 5):
                yield pytest.param(scenario, peer, id=f"{scenario.name}-{peer.name}")


@pytest.mark.parametrize(("scenario", "peer"), list(takes_part()))
def test_every_peer_runs_every_scenario(scenario, peer):
    """All adapters do the work they are timed for, and a sample is a time per piece."""
    made = scenario.make(peer, 5)
    made.run()

    assert made.pieces > 0
    assert measure.time_sample(lambda: scenario.make(peer, 5))() > 0


@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
def test_every_peer_hands_values_through_its_chains(peer):
    """What is compared does the same work: the functions of a chain are called in order."""
    root = last = peer.pending()
    for step in (work.double, str, len):
        last = peer.attach(last, step)
    peer.settle(root, 50)

    assert peer.read(last) == 3


@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
def test_every_peer_hands_errors_through_its_chains(peer):
    """The error that a chain ends with is the one it began with."""
    if scenarios.refusal(scenarios.by_name("error_through"), peer, 1):
        pytest.skip("it does not")
    error = ValueError("passes")
    root = peer.pending()
    last = peer.attach(peer.attach(root, work.double), work.double)
    peer.fail(root, error)

    assert peer.error(last) is error


@pytest.mark.parametrize("peer", peers(), ids=lambda peer: peer.name)
def test_every_peer_waits_for_returned_futures(peer):
    """A function that returns a future ends its stage with the value of that future."""
    if scenarios.refusal(scenarios.by_name("flatten_pending"), peer, 1):
        pytest.skip("it does not")
    inner = peer.pending()
    stage = peer.flat(peer.settled(0), lambda _: inner)
    peer.flush()
    peer.settle(inner, 7)

    assert peer.read(stage) == 7


@pytest.mark.parametrize("peer", pool_peers(), ids=lambda peer: peer.name)
@pytest.mark.parametrize("kind", ["thread", "process"])
def test_every_pool_runs_a_chain(peer, kind):
    """The steps of a chain get one another's results, in the pools of each library."""
    if kind not in peer.open:
        pytest.skip("its steps would not run in the pool")

    assert peer.read(peer.chain(open_pool(peer, kind), [work.double, str, len], 50)) == 3


def test_a_peer_is_left_out_with_a_reason():
    """Beyond its limit a peer says why it cannot; up to it, it takes part."""
    limited = next(peer for peer in peers() if peer.name == BY_HAND)
    chain = scenarios.by_name("chain")

    assert isinstance(limited.limits["chain"], Limit)
    assert scenarios.refusal(chain, limited, 1000) is None
    assert "overflow the stack" in scenarios.refusal(chain, limited, 1001)


def test_every_scenario_says_what_it_does():
    """Each is a function with a docstring of one line."""
    for scenario in scenarios.SCENARIOS:
        assert len(scenario.make.__doc__.splitlines()) == 1


def test_the_helpers_by_hand_are_correct():
    """Values, errors and cancellation pass through them."""
    parent, cancelled, late = cf.Future(), cf.Future(), cf.Future()
    child = byhand.then(byhand.then(parent, work.double), work.double)
    failed = byhand.then(byhand.then(parent, work.boom), work.double)
    below = [byhand.then(cancelled, work.double), byhand.flat_then(cancelled, work.double)]
    flat = byhand.flat_then(parent, lambda _: late)
    broken = byhand.flat_then(parent, work.boom)
    dropped = byhand.flat_then(parent, lambda _: cancelled)
    parent.set_result(1)
    cancelled.cancel()
    whole, partly = byhand.gather([child, flat]), byhand.gather([failed, broken])
    late.set_result(5)

    assert child.result(0) == 4
    assert isinstance(failed.exception(0), ValueError)
    assert isinstance(broken.exception(0), ValueError)
    assert [future.cancelled() for future in (*below, dropped)] == [True, True, True]
    assert whole.result(0) == [4, 5]
    assert partly.exception(0) is failed.exception(0)


def test_contestants_take_turns():
    """A B A B: so that a busy moment meets both."""
    order = []
    taken = measure.take_turns({name: lambda name=name: order.append(name) or 1.0 for name in "AB"}, 2)

    assert order == ["A", "B", "A", "B"]
    assert taken == {"A": [1.0, 1.0], "B": [1.0, 1.0]}


def test_a_ratio_is_the_median_of_those_of_neighbours():
    """One disturbed pair does not move it."""
    assert measure.ratio([1.0, 50.0, 2.0], [4.0, 1.0, 8.0]) == 0.25


def test_imports_are_measured_from_cached_bytecode(monkeypatch, tmp_path):
    """The fresh interpreter may write bytecode, whatever this one may, and not beside the sources."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "fresh.py").write_text("import sys; assert not sys.dont_write_bytecode and sys.pycache_prefix")
    monkeypatch.syspath_prepend(tmp_path)

    assert measure.import_sample(f"import sys; sys.path.append({str(tmp_path)!r}); import fresh")() > 0
    assert not list(tmp_path.glob("__pycache__"))


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [(7.4, "7 ns"), (999, "999 ns"), (1234, "1.23 µs"), (98_765, "98.8 µs"), (1_500_000, "1.50 ms"), (3e9, "3000 ms")],
)
def test_durations_have_three_digits(nanoseconds, shown):
    """The unit suits the figure."""
    assert measure.duration(nanoseconds) == shown


def test_a_row_says_whether_its_bounds_are_met():
    """The ratio is ours divided by the other's, and the bound belongs to it; who is not there decides nothing."""
    samples = {OURS: lambda: 1.0, "slow": lambda: 4.0, "quick": lambda: 1.0}
    row = ratios.Row("work", samples, {"slow": 0.5, "quick": 0.5, "absent": 0.5}, limit=1)
    ratios.measure(row, 3)

    assert row.ratios == {"slow": 0.25, "quick": 1.0}
    assert [verdict for _, _, verdict in row.verdicts()] == [True, True, False, None]
    assert not row.met()
    assert ratios.table([row]).count("NOT MET") == 1
    assert "not installed" in ratios.table([row])


def test_fused_steps_are_measured():
    """The row runs the recipe against three chained submits."""
    row = ratios.fused()
    ratios.measure(row, 1)

    assert row.figures[OURS] > 0
    assert row.bounds == {BY_HAND: 0.40}


def test_the_memory_of_streams(capsys):
    """``python -m benchmarks.streams`` prints the peak memory of streams, for each kind."""
    assert streams.main(["--items", "2000"]) in (0, 1)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["threads", "processes", "mixed"]


def test_trips_of_a_stream_are_measured():
    """The lengths of trips are what the workers have measured."""
    lengths = streams.trip_lengths(streams.drifting, 500)
    assert lengths
    assert max(lengths) < 10


@pytest.mark.slow
def test_the_ratios_command(tmp_path, capsys, monkeypatch):
    """It prints a table of all that is promised, writes JSON, and its status tells whether all bounds are met."""
    monkeypatch.setattr(ratios.cluster, "is_there", lambda: False)  # which takes its time: see test_dask.py
    status = ratios.main(["--rounds", "1", "--scale", "0.01", "--json", str(tmp_path / "r.json")])
    written = json.loads((tmp_path / "r.json").read_text())
    printed = capsys.readouterr().out

    assert status == (0 if all(row["met"] for row in written["rows"]) else 1)
    assert all(row["work"] in printed for row in written["rows"])
    assert len([row for row in written["rows"] if row["bounds"] or row["limit"]]) >= 9


@pytest.mark.parametrize("name", linear.SHAPES)
def test_pieces_among_many_and_few(name):
    """Each shape does the work of its pieces, once, whatever their number."""
    assert linear.SHAPES[name](12).pieces == 12
    assert all(sample() > 0 for sample in linear.growth_samples(name, 120, 12).values())


def test_a_raise_is_measured():
    """The row times it in a chain, beside a chain in which nothing is raised."""
    assert all(sample() > 0 for sample in linear.raising_samples(10).values())


def test_the_growth_command(tmp_path, capsys):
    """It prints the time per stage, draws it, and writes JSON."""
    svg, figures = tmp_path / "g.svg", tmp_path / "g.json"
    assert growth.main(["--rounds", "1", "--longest", "100", "--svg", str(svg), "--json", str(figures)]) == 0

    assert ET.parse(svg).getroot().tag.endswith("svg")
    assert set(json.loads(figures.read_text())["chains"][OURS]) == {"1", "10", "100"}
    assert "fan-out, per piece" in capsys.readouterr().out


def test_the_cost_command(tmp_path, capsys):
    """It counts in function calls, the first of which is one."""
    assert cost.main(["--rounds", "1", "--scale", "0.02", "--json", str(tmp_path / "c.json")]) == 0

    assert json.loads((tmp_path / "c.json").read_text())["nanoseconds"][cost.CALL] > 0
    assert f"| {cost.CALL} | 1 |" in capsys.readouterr().out


def test_the_chart_names_every_line_and_keeps_the_names_apart():
    """Lines that end in one place have names one below the other; the machine's name cannot break the picture."""
    found = {name: {1: 100.0, 10: 100.0} for name in (OURS, "Twisted", "asyncio")} | {BY_HAND: {1: 500.0}}
    picture = ET.fromstring(chart.chart(found, MACHINE))
    words = {text.text: float(text.get("y")) for text in picture.iter() if text.tag.endswith("text")}
    places = sorted(words[name] for name in ("futurechain then", "Twisted", "asyncio"))

    assert all(lower - upper >= 16 for upper, lower in pairwise(places))
    assert BY_HAND in words
    assert any("a <fast> one" in text for text in words)


def test_the_chart_of_a_single_length():
    """One point a line is enough for a picture."""
    ET.fromstring(chart.chart({OURS: {1: 100.0}, "unheard of": {1: 200.0}}, MACHINE))


@pytest.mark.slow
@pytest.mark.parametrize(
    "samples",
    [
        lambda: processes.tasks(5, 0),
        lambda: processes.tasks(5, 10),
        lambda: processes.round_trips(2),
        lambda: processes.first_and_last(3),
        lambda: processes.composed(1000, 2),
    ],
)
def test_process_pools_side_by_side(samples):
    """Each installed process pool does the work of each row."""
    taken = samples()
    assert OURS in taken
    assert all(sample() > 0 for sample in taken.values())


@pytest.mark.slow
def test_heavy_data_side_by_side():
    """The rows of heavy data have figures for each installed pool."""
    pytest.importorskip("numpy")
    for samples in (processes.array_echoes(80_000, 2), processes.echo_peaks(8_000_000)):
        assert set(samples) == set(processes.engines())
        assert all(sample() > 0 for sample in samples.values())
