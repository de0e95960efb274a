"""What a Dask worker has before its first run, and how it carries one out.

A worker is lent traces when it begins, by a plugin that the scheduler keeps: scattered data would be lost when the
workers that hold it have died, and every run with it.
"""

from __future__ import annotations

from typing import Any

from distributed import WorkerPlugin

from caesura.config.workload import Broadcast
from caesura.runs.executors.executor import RunOutcome
from caesura.runs.run import Run
from caesura.runs.simulate import run_safely

_broadcast: dict[str, Broadcast] = {}


class BroadcastPlugin(WorkerPlugin):
    """Lends traces to a worker for as long as it is registered.

    Args:
        name: runs ask for the traces by it.
        lent: the traces.
    """

    def __init__(self, name: str, broadcast: Broadcast) -> None:
        self.lent_as = name
        self.broadcast = broadcast

    def setup(self, worker: Any) -> None:
        """The worker begins, or is there."""
        _broadcast[self.lent_as] = self.broadcast

    def teardown(self, worker: Any) -> None:
        """The worker ends, or nobody needs the traces any more."""
        _broadcast.pop(self.lent_as, None)


def run_with_broadcast(run: Run, broadcast: str) -> RunOutcome:
    """``runs.run_safely`` with the traces that were lent under a name."""
    return run_safely(run, broadcast=_broadcast[broadcast])
