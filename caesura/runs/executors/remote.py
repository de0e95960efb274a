"""What runs on a Dask and on a Ray cluster have in common."""

from __future__ import annotations

from collections.abc import Sequence

from caesura.config.workload import Broadcast, read_trace, trace_files
from caesura.runs.code_hash import CodeMismatch
from caesura.runs.run import Run
from caesura.runs.simulate import RunError

ANSWER_WITHIN_S = 10.0
GONE = "the cluster has gone away; the runs that ended stay, and the same command goes on from there"


def option_text(kind: str, address: str | None) -> str:
    """The option that names the cluster, for messages."""
    return f"--on {kind}={address}" if address else f"--on {kind}"


def run_error(error: BaseException) -> RunError:
    """The error of a run that its worker could not start; raises CodeMismatch where the worker has other code."""
    if isinstance(error, CodeMismatch):
        raise error
    return RunError(f"{type(error).__name__}: {error}")


def broadcast_of(runs: Sequence[Run]) -> Broadcast:
    """The trace files among the runs' workloads; they are sent once, not with every run."""
    files = {file for run in runs for file in trace_files(run.workload)}
    return {str(file): read_trace(file) for file in sorted(files)}
