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
        """The index of each run and what came of it, as they end; closing the iterator ends what is under way.

        Args:
            runs: the first are begun first.
            shares: told how far each run is, where that can be known before it ends.

        Raises:
            UserError: there is nobody to do the work.
        """
        ...

    def staying(self) -> contextlib.AbstractContextManager[None]:
        """As long as the context lasts the workers stay for the next ``outcomes``."""
        ...


@contextlib.contextmanager
def deaf_children(*also: signal.Signals) -> Iterator[None]:
    """Processes started inside never hear Ctrl-C, nor ``also``; the first process ends them, and hears it later.

    ``timeout`` sends SIGTERM to everybody: a worker that heard it might look as if it had died of its run.
    """
    resource_tracker.ensure_running()  # it starts with the first child otherwise, and would undo the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *also})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
