"""Runs on a Dask cluster: on one that is up, or on one started here for as long as the runs take."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import joblib

from caesura.cli.progress import Progress
from caesura.config.workload import Broadcast
from caesura.errors import UserError
from caesura.runs.executors.executor import DIED, RunOutcome, block_signals
from caesura.runs.executors.remote import ANSWER_WITHIN_S, GONE, broadcast_of, option_text, run_error
from caesura.runs.run import Run
from traces.extras import install


class DaskExecutor:
    """The workers of a Dask cluster."""

    def __init__(self, address: str | None, jobs: int | None) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise UserError(f"--on dask: Dask is not installed; {install('dask')}") from None
        self.address = address
        self.jobs = jobs
        self._kept: Any = None

    @contextlib.contextmanager
    def keeping_workers(self) -> Iterator[None]:
        """As ``RunExecutor.keeping_workers``."""
        with self._client() as self._kept:
            try:
                yield
            finally:
                self._kept = None

    def outcomes(self, runs: Sequence[Run], shares: Progress) -> Generator[tuple[int, RunOutcome]]:
        """As ``RunExecutor.outcomes``. Dask moves the runs of a worker that dies to other workers; a run that was
        under way when too many workers died is tried once more, alone."""
        from distributed import CancelledError
        from distributed.comm.core import CommClosedError

        kept = contextlib.nullcontext(self._kept) if self._kept is not None else self._client()
        with kept as client, self._broadcasting(client, broadcast_of(runs)) as name:
            try:
                died = []
                for index, outcome in _in_parallel(client, runs, name):
                    if outcome is DIED:
                        died.append(index)
                    else:
                        yield index, outcome
                for index in died:
                    ((_, outcome),) = _in_parallel(client, [runs[index]], name)
                    yield index, outcome
            except (CancelledError, CommClosedError):
                raise UserError(f"{option_text('dask', self.address)}: {GONE}") from None

    @contextlib.contextmanager
    def _broadcasting(self, client: Any, broadcast: Broadcast) -> Iterator[str]:
        """Send the traces to every worker, also to those that start later; yields the name that runs give."""
        from caesura.runs.executors.dask_worker import BroadcastPlugin

        name = f"caesura-{uuid.uuid4().hex}"
        try:
            client.register_plugin(BroadcastPlugin(name, broadcast), name=name)
        except Exception as error:  # whatever keeps a worker from reading what it is given
            raise UserError(
                f"{option_text('dask', self.address)}: a worker cannot load Caesura ({type(error).__name__}: {error}); "
                "install the same versions there"
            ) from None
        try:
            yield name
        finally:
            with contextlib.suppress(Exception):  # the cluster may have gone
                client.unregister_worker_plugin(name)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        import dask
        from distributed import Client, LocalCluster

        if self.address is not None:
            try:
                client = Client(self.address, timeout=ANSWER_WITHIN_S)
            except (OSError, ValueError) as error:
                raise UserError(f"--on dask={self.address}: no Dask scheduler answers there ({error})") from None
            with client:
                yield client
            return
        with contextlib.ExitStack() as stack:
            with block_signals(), dask.config.set({"distributed.scheduler.allowed-failures": 0}):
                count = self.jobs or joblib.cpu_count()
                cluster = LocalCluster(
                    n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
                )
                stack.enter_context(cluster)
                client = stack.enter_context(Client(cluster))
            yield client


def _in_parallel(client: Any, runs: Sequence[Run], broadcast: str) -> Generator[tuple[int, RunOutcome]]:
    """Run on all workers of a Dask cluster, with the traces that were broadcast under a name."""
    from distributed import as_completed

    from caesura.runs.executors.dask_worker import run_with_broadcast

    futures = client.map(run_with_broadcast, list(runs), broadcast=broadcast, pure=False)
    index_of = {future.key: index for index, future in enumerate(futures)}
    ended = as_completed(futures)
    del futures
    try:
        for future in ended:
            yield index_of[future.key], _dask_result(future)
            future.release()
    finally:
        ended.clear()


def _dask_result(future: Any) -> RunOutcome:
    """The outcome of a run."""
    from distributed import KilledWorker

    error = future.exception()
    if error is None:
        return future.result()  # type: ignore[no-any-return]
    return DIED if isinstance(error, KilledWorker) else run_error(error)
