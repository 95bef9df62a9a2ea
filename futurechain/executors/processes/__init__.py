"""A process pool built for chains: one pipe for each worker, nothing that workers share, the queue on our side.

Each module has one idea, and imports only from those above it:

* `wire`: frames over a pipe, which never block the side that must not wait
* `shared_memory`: large buffers in memory without a name, used again and again; `leases`: their receiver; `progress`
* `messages`: calls and outcomes, packed and unpacked
* `worker`: what runs in the child process; `process`: that child, seen from here
* `trips`: what is queued, in which order; `roster` and `staff`: who is there, who may be
* `watcher`: the thread that owns all of it; `turnover`: what it does when workers come and go; `behind`: what short
  calls have behind them; `machine`: its outside;
  `ending`: what becomes of it when the interpreter ends
* `jobs`: tasks and stages, as the machine sees them; `ahead`: those that a worker may begin without a further word
* `scheduler`: what chains hold; `pool`: the executor

Up to `machine` nothing knows futures: it runs *jobs* (`trips.Job`).
"""

from __future__ import annotations

__all__: list[str] = []
