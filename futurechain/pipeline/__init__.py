"""Pipelines: recipes of steps on executors, and streams of items through them.

* `places`: what a pipeline wants to know of an executor
* `steps`: one step of a recipe, and the checks of what it is made of
* `trips`: what travels to an executor that does not share our memory, and how large it should be
* `statistics`, `progress`: what a stream tells about itself
* `flow`: the items of one stream on their way; `stations`, `runners`: where they wait and run in our memory;
  `trip_stations`: where they wait for trips; `attempts`: timeouts and retries
* `single`: one item through a recipe, as a chain of futures
* `stream`: what the consumer holds; `pipeline`: the recipe itself

Items are moved by whoever has brought them further: a worker, a callback thread, the consumer. All that they share is
guarded by one lock for each stream, under which is decided and never acted.
"""

from __future__ import annotations

__all__: list[str] = []
