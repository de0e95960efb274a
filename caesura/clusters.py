"""Runs on a Dask or a Ray cluster: on one that is there, or on one started here for as long as the runs take."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import joblib

from caesura.errors import UserError
from caesura.executors import Outcome, deaf_children
from caesura.progress import Shares
from caesura.runs import Fault, ForeignCode, Run, attempt
from caesura.workload import Lent, read_trace, trace_files

_ANSWER_WITHIN = "10 s"
_AHEAD = 4


class DaskCluster:
    """The workers of a Dask cluster."""

    def __init__(self, address: str | None, jobs: int | None) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise UserError("--on dask: Dask is not installed; pip install 'caesura[dask]'") from None
        self.address = address
        self.jobs = jobs
        self._kept: Any = None

    @contextlib.contextmanager
    def staying(self) -> Iterator[None]:
        """As ``Executor.staying``."""
        with self._client() as self._kept:
            try:
                yield
            finally:
                self._kept = None

    def outcomes(self, runs: Sequence[Run], shares: Shares) -> Generator[tuple[int, Outcome]]:
        """As ``Executor.outcomes``. Dask itself moves the runs of a worker that dies to others."""
        from distributed import as_completed

        with contextlib.nullcontext(self._kept) if self._kept is not None else self._client() as client:
            (lent,) = client.scatter([_lent(runs)], broadcast=True, hash=False)
            futures = client.map(attempt, list(runs), lent=lent, pure=False)
            index_of = {future.key: index for index, future in enumerate(futures)}
            ended = as_completed(futures)
            del futures
            try:
                for future in ended:
                    error = future.exception()
                    yield index_of[future.key], future.result() if error is None else _fault(error)
                    future.release()
            finally:
                ended.clear()

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        from distributed import Client, LocalCluster

        if self.address is not None:
            try:
                client = Client(self.address, timeout=_ANSWER_WITHIN)
            except (OSError, ValueError) as error:
                raise UserError(f"--on dask={self.address}: no Dask scheduler answers there ({error})") from None
            with client:
                yield client
            return
        with contextlib.ExitStack() as stack:
            with deaf_children():
                count = self.jobs or joblib.cpu_count()
                cluster = LocalCluster(
                    n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
                )
                stack.enter_context(cluster)
                client = stack.enter_context(Client(cluster))
            yield client


class RayCluster:
    """The workers of a Ray cluster."""

    def __init__(self, address: str | None, jobs: int | None) -> None:
        try:
            import ray  # noqa: F401
        except ImportError:
            raise UserError("--on ray: Ray is not installed; pip install 'caesura[ray]'") from None
        self.address = address
        self.jobs = jobs

    def staying(self) -> contextlib.AbstractContextManager[None]:
        """As ``Executor.staying``."""
        return self._connected()

    def outcomes(self, runs: Sequence[Run], shares: Shares) -> Generator[tuple[int, Outcome]]:
        """As ``Executor.outcomes``. Ray itself moves the runs of a worker that dies to others."""
        import ray

        with self._connected():
            lent = ray.put(_lent(runs))
            remote: Any = ray.remote(attempt)
            ahead = max(1, int(_AHEAD * ray.cluster_resources().get("CPU", 1)))
            waiting = iter(enumerate(runs))
            index_of: dict[Any, int] = {}
            try:
                while True:
                    for index, run in waiting:
                        index_of[remote.remote(run, lent)] = index
                        if len(index_of) >= ahead:
                            break
                    if not index_of:
                        return
                    (done,), _ = ray.wait(list(index_of), num_returns=1)
                    index = index_of.pop(done)
                    yield index, _ray_result(done)
            finally:
                for reference in index_of:
                    ray.cancel(reference, force=True)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        import ray

        if ray.is_initialized():
            yield
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        try:
            with deaf_children():
                if self.address is None:
                    ray.init(address="local", num_cpus=self.jobs, include_dashboard=False, **quiet)
                else:
                    ray.init(address=self.address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            where = f"={self.address}: no Ray cluster answers there" if self.address else ": Ray does not start"
            raise UserError(f"--on ray{where} ({str(error).splitlines()[0]})") from None
        try:
            yield
        finally:
            ray.shutdown()


def _ray_result(done: Any) -> Outcome:
    import ray

    try:
        return ray.get(done)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        return _fault(error.cause)
    except ray.exceptions.RayError as error:
        return _fault(error)


def _fault(error: BaseException) -> Fault:
    """A run that its worker could not even attempt; a worker with other code ends everything."""
    if isinstance(error, ForeignCode):
        raise error
    return Fault(f"{type(error).__name__}: {error}")


def _lent(runs: Sequence[Run]) -> Lent:
    """The trace files among the runs' workloads; they are sent once, not with every run."""
    files = {file for run in runs for file in trace_files(run.workload)}
    return {str(file): read_trace(file) for file in sorted(files)}
