"""Runs on a Ray cluster: on one that is up, or on one started here for as long as the runs take."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from caesura.cli.progress import Progress
from caesura.errors import UserError
from caesura.runs.executors.executor import DIED, RunOutcome, block_signals
from caesura.runs.executors.remote import ANSWER_WITHIN_S, GONE, broadcast_of, option_text, run_error
from caesura.runs.run import Run
from caesura.runs.simulate import run_safely
from traces.extras import install

_AHEAD = 4
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}


class RayExecutor:
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

    def keeping_workers(self) -> contextlib.AbstractContextManager[None]:
        """As ``RunExecutor.keeping_workers``."""
        return self._connected()

    def outcomes(self, runs: Sequence[Run], shares: Progress) -> Generator[tuple[int, RunOutcome]]:
        """As ``RunExecutor.outcomes``. A run whose worker dies is tried once more.

        Ray's own retries are off: Ray would try a run that needs too much memory for ever.
        """
        import ray

        with self._connected():
            broadcast = ray.put(broadcast_of(runs))
            remote: Any = ray.remote(max_retries=0)(run_safely)
            ahead = max(1, int(_AHEAD * ray.cluster_resources().get("CPU", 1)))
            waiting = deque(enumerate(runs))
            died: set[int] = set()
            index_of: dict[Any, int] = {}
            try:
                while waiting or index_of:
                    while waiting and len(index_of) < ahead:
                        index, run = waiting.popleft()
                        index_of[remote.remote(run, broadcast)] = index
                    (done,), _ = ray.wait(list(index_of), num_returns=1)
                    index = index_of.pop(done)
                    outcome = _ray_result(done)
                    if outcome is DIED and index not in died:
                        died.add(index)
                        waiting.append((index, runs[index]))
                    else:
                        yield index, outcome
            except ConnectionError:
                raise UserError(f"{option_text('ray', self.address)}: {GONE}") from None
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
                with block_signals():
                    ray.init(address="local", num_cpus=self.jobs, include_dashboard=False, **_QUIET)
            else:
                _check_reachable(self.address)
                with warnings.catch_warnings(action="ignore"):
                    ray.init(address=self.address, **_QUIET)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            where = "no Ray cluster lets us in there" if self.address else "Ray does not start"
            token = "; if it asks for a token, set RAY_AUTH_MODE=token" if self.address else ""
            said = " ".join(str(error).split())
            raise UserError(f"{option_text('ray', self.address)}: {where} ({said}){token}") from None
        try:
            yield
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Find out at once whether a cluster answers: Ray itself would try for minutes; raises OSError or ValueError."""
    found, origin = _found_by_ray() if address == "auto" else (address, "")
    place = urlsplit(found if "://" in found else f"//{found}")
    if place.hostname and place.port:
        try:
            socket.create_connection((place.hostname, place.port), ANSWER_WITHIN_S).close()
        except OSError as error:
            raise OSError(f"{found}{origin}: {error}") from None


def _found_by_ray() -> tuple[str, str]:
    """The address that ``auto`` means, and where Ray found it; raises ConnectionError where it found none."""
    from ray._private.services import get_ray_address_from_environment

    origin = "RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else "ray_current_cluster in Ray's folder, /tmp/ray"
    return get_ray_address_from_environment("auto", None), f", from {origin}"


def _ray_result(done: Any) -> RunOutcome:
    """The outcome of a run; ``DIED`` where its worker is gone."""
    import ray

    try:
        return ray.get(done)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        return run_error(error.cause)
    except ray.exceptions.RayError:
        return DIED
