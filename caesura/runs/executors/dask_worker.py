"""What a Dask worker holds before its first run, and how it simulates one.

A worker gets the traces when it starts, from a plugin that the scheduler keeps: scattered data would be lost when the
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
    """Gives traces to a worker for as long as the plugin is registered.

    Args:
        name: runs ask for the traces by it.
        lent: the traces.
    """

    def __init__(self, name: str, broadcast: Broadcast) -> None:
        self.lent_as = name
        self.broadcast = broadcast

    def setup(self, worker: Any) -> None:
        """Keep the traces: the worker starts, or runs already."""
        _broadcast[self.lent_as] = self.broadcast

    def teardown(self, worker: Any) -> None:
        """Forget the traces: the worker ends, or the runs that need them are over."""
        _broadcast.pop(self.lent_as, None)


def run_with_broadcast(run: Run, broadcast: str) -> RunOutcome:
    """``runs.run_safely`` with the traces that were broadcast under a name."""
    return run_safely(run, broadcast=_broadcast[broadcast])
