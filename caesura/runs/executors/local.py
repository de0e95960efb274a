"""Runs in processes of this machine (joblib), or in this process alone."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
import pyarrow as pa
from joblib.externals.loky.process_executor import TerminatedWorkerError

from caesura.cli.progress import Progress, reporter
from caesura.errors import UserError
from caesura.runs.cluster_runs import Shard, deal_replicas
from caesura.runs.executors.executor import DIED, RunOutcome, block_signals
from caesura.runs.run import Run
from caesura.runs.simulate import run_safely, simulate_shard_of

_SESSIONS_WORTH_A_PROCESS = 500


class LocalExecutor:
    """Processes of this machine, or this process alone where starting others would take longer than the runs."""

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs
        self._stay = False

    @contextlib.contextmanager
    def keeping_workers(self) -> Iterator[None]:
        """As ``RunExecutor.keeping_workers``; a failure ends all worker processes even so."""
        self._stay = True
        try:
            yield
        finally:
            self._stay = False
            _end_workers()

    def outcomes(self, runs: Sequence[Run], shares: Progress) -> Generator[tuple[int, RunOutcome]]:
        """As ``RunExecutor.outcomes``. A run whose process dies is tried once more, alone."""
        small = self.jobs is None and sum(run.work for run in runs) < _SESSIONS_WORTH_A_PROCESS
        count = 1 if small else min(self.jobs or joblib.cpu_count(), len(runs))
        processes = (self.jobs or joblib.cpu_count()) if self._stay else count
        left = dict(enumerate(runs))
        if count <= 1:
            for index, run in left.items():
                in_shards = None if small or self.jobs == 1 else _Shards(self.jobs or joblib.cpu_count())
                yield index, run_safely(run, on_progress=reporter(shares.file, index), in_shards=in_shards)
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
        tasks = [joblib.delayed(simulate_shard_of)(run, only) for only in deal_replicas(run.cluster, self._jobs)]
        with block_signals(signal.SIGTERM):
            finished: Generator[Shard] = joblib.Parallel(n_jobs=self._jobs, backend="loky", return_as="generator")(
                tasks
            )
        try:
            return list(finished)
        finally:
            _stop_workers(finished)


def _alone(index: int, run: Run, shares: Progress) -> RunOutcome:
    try:
        return next(_in_pool({index: run}, shares, 1))[1]
    except TerminatedWorkerError:
        return DIED


def _in_pool(
    runs: dict[int, Run], shares: Progress, count: int, workers_stay: bool = False
) -> Generator[tuple[int, RunOutcome]]:
    tasks = (joblib.delayed(_run_in_worker)(index, run, shares.file) for index, run in runs.items())
    # Two processes at least: with one, joblib would do the work in this one.
    pool = joblib.Parallel(n_jobs=max(count, 2), backend="loky", batch_size=1, return_as="generator_unordered")
    with block_signals(signal.SIGTERM):
        finished: Generator[tuple[int, RunOutcome]] = pool(tasks)
    try:
        for one in finished:  # noqa: UP028 (with "yield from", closing would reach the pool before _stop_workers)
            yield one
    except BaseException:
        _stop_workers(finished)
        raise
    if not workers_stay:
        _stop_workers(finished)


def _run_in_worker(index: int, run: Run, shares: Path) -> tuple[int, RunOutcome]:
    report = reporter(shares, index)
    report(1e-9)  # begun
    _skip_pandas()
    return index, run_safely(run, on_progress=report)


def _skip_pandas() -> None:
    """Arrow loads pandas to know whether a column is of pandas: a quarter of the start of a process that never uses it.

    Arrow asks once. A policy that imports pandas still gets it, and Arrow then uses it.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([()])
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """An import finder that reports pandas as not installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _stop_workers(finished: Generator[Any]) -> None:
    """End the processes at once, so that no later sweep meets modules or folders of this one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib warns of results that are never read
        finished.close()  # first: a run that is still being dispatched would wait for the pool, and the pool for it
    _end_workers()


def _end_workers() -> None:
    """End joblib's worker processes, if there are any."""
    from joblib.externals.loky import reusable_executor

    if reusable_executor._executor is not None:
        reusable_executor._executor.shutdown(wait=True, kill_workers=True)
