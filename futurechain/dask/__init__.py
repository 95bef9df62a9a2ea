"""Chains and pipelines on a Dask cluster: ``DaskExecutor(client)``.

The same program on more than one machine: each next stage is sent to the cluster with Dask's own future as its
argument, so that results stay there and move from worker to worker; only what is asked for comes here.
"""

from __future__ import annotations

try:
    import distributed as _distributed  # noqa: F401  # asked for first, for the message
except ImportError:
    raise ImportError("futurechain.dask needs distributed: install the extra futurechain[dask]") from None

from futurechain.dask.errors import ClusterWorkerDiedError
from futurechain.dask.executor import DaskExecutor

__all__ = ["ClusterWorkerDiedError", "DaskExecutor"]
