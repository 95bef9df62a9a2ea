"""`render` of a pipeline: its recipe; and what a trace shows of a stream."""

from __future__ import annotations

import json

import pytest

from futurechain import Pipeline, render, trace
from steps import increment, times_ten


@pytest.fixture
def recipe(pool, processes):
    first = Pipeline().then(increment, on=pool, concurrency=16, timeout=10)
    second = first.then(times_ten, on=processes, batch=8).catch(ValueError, str).then(increment)
    return second.then(str, on=pool, name="save")


def test_the_recipe_as_text(recipe):
    """The picture of a pipeline names each step, where it runs, its bounds, and which steps make one trip."""
    places = [line.split(" · ")[1] for line in render(recipe).splitlines()]
    pool, processes = places[0], places[1]

    assert render(recipe).splitlines() == [
        f"○ #1 increment · {pool} · at most 16 at once, 10 s each",
        f"⇣ ○ #2 times_ten · {processes} · trips of 8",
        f"⇣ same trip ○ #3 catch(ValueError, str) · {processes}",
        f"⇣ same trip ○ #4 increment · {processes}",
        f"⇣ ○ #5 save · {pool}",
    ]


@pytest.mark.parametrize("kind", ["text", "mermaid", "dot", "svg"])
def test_every_format(recipe, kind):
    """A recipe is drawn in every format, one without steps, too."""
    picture = render(recipe, kind)
    assert all(name in picture for name in ("increment", "times_ten", "ValueError, str", "save"))
    assert "without steps" in render(Pipeline(), kind)


def test_in_a_notebook(recipe):
    """A notebook shows the picture of a pipeline."""
    bundle = recipe._repr_mimebundle_()
    assert bundle["text/plain"] == "<Pipeline increment | times_ten | catch(ValueError, str) | increment | save>"
    assert "times_ten" in bundle["image/svg+xml"]


def test_a_trace_shows_trips(recipe, tmp_path):
    """A trace names the trips of a stream by their steps and how many items they took."""
    with trace() as recording:
        list(recipe.map(range(80)))
    recording.save(tmp_path / "trace.json")

    shown = str(json.loads((tmp_path / "trace.json").read_text("utf-8")))
    assert "times_ten+increment ×8" in shown
