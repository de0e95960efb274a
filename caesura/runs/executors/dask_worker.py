"""What a Dask worker has before its first run, and how it carries one out.

A worker is lent traces when it begins, by a plugin that the scheduler keeps: scattered data would be lost when the
workers that hold it have died, and every run with it.
"""

from __future__ import annotations

from typing import Any

from distributed import WorkerPlugin

from caesura.config.workload import Lent
from caesura.runs.executors.executors import Outcome
from caesura.runs.run import Run, attempt

_lent: dict[str, Lent] = {}


class Lending(WorkerPlugin):
    """Lends traces to a worker for as long as it is registered.

    Args:
        name: runs ask for the traces by it.
        lent: the traces.
    """

    def __init__(self, name: str, lent: Lent) -> None:
        self.lent_as = name
        self.lent = lent

    def setup(self, worker: Any) -> None:
        """The worker begins, or is there."""
        _lent[self.lent_as] = self.lent

    def teardown(self, worker: Any) -> None:
        """The worker ends, or nobody needs the traces any more."""
        _lent.pop(self.lent_as, None)


def attempt_with(run: Run, lent: str) -> Outcome:
    """``runs.attempt`` with the traces that were lent under a name."""
    return attempt(run, lent=_lent[lent])
