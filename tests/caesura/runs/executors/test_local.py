"""Processes of this machine that simulate, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from caesura.cli.progress import Progress
from caesura.config.experiment import read_experiment_file
from caesura.runs.executors.choose import executor
from caesura.runs.run import expand
from caesura.runs.simulate import RunError

TELLING = """
import sys

from policies.contract import InterceptPolicy

class Telling(InterceptPolicy):
    def on_pause(self, paused, view):
        heavy = {"dask", "jinja2", "matplotlib", "pandas", "ray", "rich", "scipy", "torch", "typer"}
        raise RuntimeError(f"has loaded {sorted(heavy & set(sys.modules))}")
"""
THREE_AND_THREE = """\
workload: {trace: infercept-mix, arrivals: {poisson: {rate: [5, 6, 7]}}, duration: 2 s}
systems: [vllm, {name: telling, policy: {name: "telling_policy:Telling"}}]
"""


def test_a_process_that_only_simulates_loads_nothing_for_people(folder: Path, experiment: Callable) -> None:
    """Three runs that are encoded, then three that say what the process has loaded by now."""
    (folder / "telling_policy.py").write_text(TELLING)
    runs = expand(read_experiment_file(experiment(THREE_AND_THREE)))
    outcomes = dict(executor(jobs=2).outcomes(runs, Progress(folder / "shares", [1.0] * 6)))
    assert [isinstance(outcomes[index], RunError) for index in range(6)] == [False] * 3 + [True] * 3
    assert all("has loaded [] (telling_policy.py:" in outcomes[index].error for index in range(3, 6))
