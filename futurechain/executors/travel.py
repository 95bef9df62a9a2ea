"""What is said about a stage that cannot travel to a worker, or back: one text for all pools, with the remedies."""

from __future__ import annotations

from futurechain.errors.processes import StagePicklingError

__all__ = ["cannot_come_back", "cannot_travel"]

_STAY_HERE = (
    "run this stage here with on=INLINE, and on= the pool again after it: without that the stages after it stay here "
    "too"
)


def cannot_travel(stage: str, way: str, reason: str) -> StagePicklingError:
    """Return the error of `stage`, of which some part cannot be pickled or unpickled.

    Args:
        stage: what it is called.
        way: from where to where: the pool, as a rule.
        reason: what was wrong with which part.
    """
    reason = reason.removesuffix(".")
    remedy = f"Use a module-level function with arguments and results that pickle, or {_STAY_HERE}"
    return StagePicklingError(f"stage {stage} cannot travel to {way}: {reason}. {remedy}")


def cannot_come_back(stage: str, raised: str, reason: str) -> StagePicklingError:
    """Return the error of `stage`, which has `raised` what cannot be built anew in this process."""
    remedy = f"Give the exception arguments that its __init__ takes again (or a __reduce__), or {_STAY_HERE}"
    return StagePicklingError(f"{stage} raised {raised}, which cannot travel back from the worker: {reason}. {remedy}")
