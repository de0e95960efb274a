"""Chooses where runs are simulated: what ``--on`` and ``--jobs`` ask for."""

from __future__ import annotations

from caesura.errors import UserError, did_you_mean
from caesura.runs.executors.executor import RunExecutor
from caesura.runs.executors.local import LocalExecutor


def executor(on: str | None = None, jobs: int | None = None) -> RunExecutor:
    """What ``--on`` and ``--jobs`` ask for.

    Args:
        on: None or ``local``; ``dask`` or ``ray`` for a local cluster; ``dask=ADDRESS`` or ``ray=ADDRESS``.
        jobs: processes on this machine; None takes every core.

    Raises:
        UserError: an unknown place, an extra that is not installed, or processes given for a cluster that has its own.
    """
    place, equals, address = (on or "local").partition("=")
    known = ("local", "dask", "ray")
    if place not in known or (equals and not address) or (place == "local" and equals):
        hint = did_you_mean(place, known) if place not in known else ""
        raise UserError(f"--on {on}: expected local, dask, dask=ADDRESS, ray or ray=ADDRESS{hint}")
    if address and jobs is not None:
        raise UserError(f"--jobs {jobs}: the cluster at {address} has its own number of workers; leave --jobs out")
    if place == "local":
        return LocalExecutor(jobs)
    from caesura.runs.executors.dask import DaskExecutor
    from caesura.runs.executors.ray import RayExecutor

    return DaskExecutor(address or None, jobs) if place == "dask" else RayExecutor(address or None, jobs)
