"""Runs on a Dask or a Ray cluster: on one that is there, or on one started here for as long as the runs take."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import uuid
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import joblib

from caesura.cli.progress import Shares
from caesura.config.workload import Lent, read_trace, trace_files
from caesura.errors import UserError
from caesura.runs.executors.executors import DIED, Outcome, deaf_children
from caesura.runs.run import Fault, ForeignCode, Run, attempt
from traces.extras import install

_ANSWER_WITHIN_S = 10.0
_AHEAD = 4
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
_GONE = "the cluster has gone away; the runs that ended stay, and the same command goes on from there"


class DaskCluster:
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
    def staying(self) -> Iterator[None]:
        """As ``Executor.staying``."""
        with self._client() as self._kept:
            try:
                yield
            finally:
                self._kept = None

    def outcomes(self, runs: Sequence[Run], shares: Shares) -> Generator[tuple[int, Outcome]]:
        """As ``Executor.outcomes``. Dask moves the runs of a worker that dies to others; who was there when too many
        died is tried once more, alone."""
        from distributed import CancelledError
        from distributed.comm.core import CommClosedError

        kept = contextlib.nullcontext(self._kept) if self._kept is not None else self._client()
        with kept as client, self._lending(client, _lent(runs)) as name:
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
                raise UserError(f"{_option('dask', self.address)}: {_GONE}") from None

    @contextlib.contextmanager
    def _lending(self, client: Any, lent: Lent) -> Iterator[str]:
        """Every worker has the traces, those that begin later too; yields under which name."""
        from caesura.runs.executors.dask_worker import Lending

        name = f"caesura-{uuid.uuid4().hex}"
        try:
            client.register_plugin(Lending(name, lent), name=name)
        except Exception as error:  # whatever keeps a worker from reading what it is given
            raise UserError(
                f"{_option('dask', self.address)}: a worker cannot load Caesura ({type(error).__name__}: {error}); "
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
                client = Client(self.address, timeout=_ANSWER_WITHIN_S)
            except (OSError, ValueError) as error:
                raise UserError(f"--on dask={self.address}: no Dask scheduler answers there ({error})") from None
            with client:
                yield client
            return
        with contextlib.ExitStack() as stack:
            with deaf_children(), dask.config.set({"distributed.scheduler.allowed-failures": 0}):
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
            raise UserError(f"--on ray: Ray is not installed; {install('ray')}") from None
        if address and address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
            raise UserError(f"--on ray={address}: Ray's client is not installed; {install('ray')}")
        self.address = address
        self.jobs = jobs

    def staying(self) -> contextlib.AbstractContextManager[None]:
        """As ``Executor.staying``."""
        return self._connected()

    def outcomes(self, runs: Sequence[Run], shares: Shares) -> Generator[tuple[int, Outcome]]:
        """As ``Executor.outcomes``. A run whose worker dies is tried once more: Ray itself would try one that needs too
        much memory for ever."""
        import ray

        with self._connected():
            lent = ray.put(_lent(runs))
            remote: Any = ray.remote(max_retries=0)(attempt)
            ahead = max(1, int(_AHEAD * ray.cluster_resources().get("CPU", 1)))
            waiting = deque(enumerate(runs))
            died: set[int] = set()
            index_of: dict[Any, int] = {}
            try:
                while waiting or index_of:
                    while waiting and len(index_of) < ahead:
                        index, run = waiting.popleft()
                        index_of[remote.remote(run, lent)] = index
                    (done,), _ = ray.wait(list(index_of), num_returns=1)
                    index = index_of.pop(done)
                    outcome = _ray_result(done)
                    if outcome is DIED and index not in died:
                        died.add(index)
                        waiting.append((index, runs[index]))
                    else:
                        yield index, outcome
            except ConnectionError:
                raise UserError(f"{_option('ray', self.address)}: {_GONE}") from None
            finally:
                if ray.is_initialized():  # otherwise Ray would look for another cluster first
                    for reference in index_of:
                        ray.cancel(reference, force=True)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        import ray

        if ray.is_initialized():
            yield
            return
        try:
            if self.address is None:
                with deaf_children():
                    ray.init(address="local", num_cpus=self.jobs, include_dashboard=False, **_QUIET)
            else:
                _knock(self.address)
                with warnings.catch_warnings(action="ignore"):
                    ray.init(address=self.address, **_QUIET)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            where = "no Ray cluster lets us in there" if self.address else "Ray does not start"
            token = "; if it asks for a token, set RAY_AUTH_MODE=token" if self.address else ""
            said = " ".join(str(error).split())
            raise UserError(f"{_option('ray', self.address)}: {where} ({said}){token}") from None
        try:
            yield
        finally:
            ray.shutdown()


def _option(kind: str, address: str | None) -> str:
    """How the cluster was asked for on the command line."""
    return f"--on {kind}={address}" if address else f"--on {kind}"


def _in_parallel(client: Any, runs: Sequence[Run], lent: str) -> Generator[tuple[int, Outcome]]:
    """The runs on all workers of a Dask cluster, with the traces that were lent under a name."""
    from distributed import as_completed

    from caesura.runs.executors.dask_worker import attempt_with

    futures = client.map(attempt_with, list(runs), lent=lent, pure=False)
    index_of = {future.key: index for index, future in enumerate(futures)}
    ended = as_completed(futures)
    del futures
    try:
        for future in ended:
            yield index_of[future.key], _dask_result(future)
            future.release()
    finally:
        ended.clear()


def _dask_result(future: Any) -> Outcome:
    """What came of a run, or why nothing did."""
    from distributed import KilledWorker

    error = future.exception()
    if error is None:
        return future.result()  # type: ignore[no-any-return]
    return DIED if isinstance(error, KilledWorker) else _fault(error)


def _knock(address: str) -> None:
    """Find out at once whether anybody is there: Ray itself would ask for minutes; raises OSError or ValueError."""
    found, origin = _found_by_ray() if address == "auto" else (address, "")
    place = urlsplit(found if "://" in found else f"//{found}")
    if place.hostname and place.port:
        try:
            socket.create_connection((place.hostname, place.port), _ANSWER_WITHIN_S).close()
        except OSError as error:
            raise OSError(f"{found}{origin}: {error}") from None


def _found_by_ray() -> tuple[str, str]:
    """The address that ``auto`` means, and where Ray has it from; raises ConnectionError where it has none."""
    from ray._private.services import get_ray_address_from_environment

    origin = "RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else "ray_current_cluster in Ray's folder, /tmp/ray"
    return get_ray_address_from_environment("auto", None), f", from {origin}"


def _ray_result(done: Any) -> Outcome:
    """What came of a run; ``DIED`` itself, or a fault, where there was nobody to say."""
    import ray

    try:
        return ray.get(done)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        return _fault(error.cause)
    except ray.exceptions.RayError:
        return DIED


def _fault(error: BaseException) -> Fault:
    """A run that its worker could not even attempt; a worker with other code ends everything."""
    if isinstance(error, ForeignCode):
        raise error
    return Fault(f"{type(error).__name__}: {error}")


def _lent(runs: Sequence[Run]) -> Lent:
    """The trace files among the runs' workloads; they are sent once, not with every run."""
    files = {file for run in runs for file in trace_files(run.workload)}
    return {str(file): read_trace(file) for file in sorted(files)}
