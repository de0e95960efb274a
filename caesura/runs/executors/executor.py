"""What an executor is: a place where runs are simulated.

Workers only compute: a run goes out, the content of its files comes back, and the process that asked is the only one
that writes. So a cluster needs no shared folder, and a worker that dies leaves nothing half-written. Which of the three
it was cannot be seen in a result.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Protocol

from caesura.cli.progress import Progress
from caesura.runs.run import Run
from caesura.runs.run_folder import Files
from caesura.runs.simulate import RunError

RunOutcome = Files | RunError
DIED = RunError("the process that simulated it ended abruptly; it may have run out of memory")


class RunExecutor(Protocol):
    """Simulates runs somewhere."""

    def outcomes(self, runs: Sequence[Run], shares: Progress) -> Generator[tuple[int, RunOutcome]]:
        """The index and the outcome of each run, as runs end; closing the iterator ends those under way.

        Args:
            runs: started in this order.
            shares: where each run reports its progress, if the place of work allows that.

        Raises:
            UserError: there is no worker.
        """
        ...

    def keeping_workers(self) -> contextlib.AbstractContextManager[None]:
        """While the context lasts, workers stay up for the next ``outcomes``."""
        ...


@contextlib.contextmanager
def block_signals(*also: signal.Signals) -> Iterator[None]:
    """Processes started inside ignore Ctrl-C and the signals in ``also``; this process gets them later and ends its
    workers.

    ``timeout`` sends SIGTERM to all processes of its group: a worker that died of it would look as if its run had
    killed it.
    """
    resource_tracker.ensure_running()  # it starts with the first child otherwise, and would undo the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *also})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
