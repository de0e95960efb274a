"""Where runs are simulated: in processes of this machine (joblib), or on a Dask or a Ray cluster.

Workers only compute: a run goes out, the content of its files comes back, and the process that asked is the only one
that writes. So a cluster needs no shared folder, and a worker that dies leaves nothing half-written. Which of the three
it was cannot be seen in a result.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Protocol

import joblib
import pyarrow as pa
from joblib.externals.loky.process_executor import TerminatedWorkerError

from caesura.cli.progress import Shares, reporter
from caesura.errors import UserError, did_you_mean
from caesura.runs.cluster_runs import Shard, dealt
from caesura.runs.run import Fault, Run, attempt, simulate_shard_of
from caesura.runs.run_folder import Files

Outcome = Files | Fault
_SESSIONS_WORTH_A_PROCESS = 500
DIED = Fault("the process that simulated it ended abruptly; it may have run out of memory")


class Executor(Protocol):
    """Simulates runs somewhere."""

    def outcomes(self, runs: Sequence[Run], shares: Shares) -> Generator[tuple[int, Outcome]]:
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


def executor(on: str | None = None, jobs: int | None = None) -> Executor:
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
        return LocalProcesses(jobs)
    from caesura.runs.executors.clusters import DaskCluster, RayCluster

    return DaskCluster(address or None, jobs) if place == "dask" else RayCluster(address or None, jobs)


class LocalProcesses:
    """Processes of this machine, or this process alone where starting others would take longer than the runs."""

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs
        self._stay = False

    @contextlib.contextmanager
    def staying(self) -> Iterator[None]:
        """As ``Executor.staying``. Processes that fail, or are not waited for, end all the same."""
        self._stay = True
        try:
            yield
        finally:
            self._stay = False
            _end_workers()

    def outcomes(self, runs: Sequence[Run], shares: Shares) -> Generator[tuple[int, Outcome]]:
        """As ``Executor.outcomes``. A run whose process dies is tried once more, alone."""
        small = self.jobs is None and sum(run.work for run in runs) < _SESSIONS_WORTH_A_PROCESS
        count = 1 if small else min(self.jobs or joblib.cpu_count(), len(runs))
        processes = (self.jobs or joblib.cpu_count()) if self._stay else count
        left = dict(enumerate(runs))
        if count <= 1:
            for index, run in left.items():
                in_shards = None if small or self.jobs == 1 else _Shards(self.jobs or joblib.cpu_count())
                yield index, attempt(run, on_progress=reporter(shares.file, index), in_shards=in_shards)
            return
        while left:
            try:
                for index, outcome in _in_pool(dict(left), shares, processes, self._stay):
                    del left[index]
                    yield index, outcome
            except TerminatedWorkerError:
                begun = [index for index in left if shares.done[index] > 0]
                if not begun:
                    raise UserError("a process ended before it had begun a run; try fewer --jobs") from None
                for index in begun:
                    yield index, _alone(index, left.pop(index), shares)


class _Shards:
    """The shards of a cluster, in processes of this machine."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs

    def __call__(self, run: Run) -> Sequence[Shard]:
        """What all shards of a run leave behind; raises as ``simulate_shard_of``."""
        assert run.cluster is not None
        tasks = [joblib.delayed(simulate_shard_of)(run, only) for only in dealt(run.cluster, self._jobs)]
        with deaf_children(signal.SIGTERM):
            finished: Generator[Shard] = joblib.Parallel(n_jobs=self._jobs, backend="loky", return_as="generator")(
                tasks
            )
        try:
            return list(finished)
        finally:
            _stop_workers(finished)


def _alone(index: int, run: Run, shares: Shares) -> Outcome:
    try:
        return next(_in_pool({index: run}, shares, 1))[1]
    except TerminatedWorkerError:
        return DIED


def _in_pool(
    runs: dict[int, Run], shares: Shares, count: int, workers_stay: bool = False
) -> Generator[tuple[int, Outcome]]:
    tasks = (joblib.delayed(_attempt_in_worker)(index, run, shares.file) for index, run in runs.items())
    # Two processes at least: with one, joblib would do the work in this one.
    pool = joblib.Parallel(n_jobs=max(count, 2), backend="loky", batch_size=1, return_as="generator_unordered")
    with deaf_children(signal.SIGTERM):
        finished: Generator[tuple[int, Outcome]] = pool(tasks)
    try:
        for one in finished:  # noqa: UP028 (with "yield from", closing would reach the pool before _stop_workers)
            yield one
    except BaseException:
        _stop_workers(finished)
        raise
    if not workers_stay:
        _stop_workers(finished)


def _attempt_in_worker(index: int, run: Run, shares: Path) -> tuple[int, Outcome]:
    report = reporter(shares, index)
    report(1e-9)  # begun
    _spare_pandas()
    return index, attempt(run, on_progress=report)


def _spare_pandas() -> None:
    """Arrow loads pandas to know whether a column is of pandas: a quarter of the start of a process that never uses it.

    It asks once. Whoever wants pandas here all the same gets it, from Arrow too.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([()])
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """Finds that there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


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


def _stop_workers(finished: Generator[Any]) -> None:
    """End the processes at once, so that no later sweep meets modules or folders of this one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib tells of results that nobody will read
        finished.close()  # first: a run that is still being dispatched would wait for the pool, and the pool for it
    _end_workers()


def _end_workers() -> None:
    """If there are any."""
    from joblib.externals.loky import reusable_executor

    if reusable_executor._executor is not None:
        reusable_executor._executor.shutdown(wait=True, kill_workers=True)
