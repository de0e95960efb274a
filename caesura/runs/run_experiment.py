"""Runs an experiment: every run that its folder lacks, on every core, each written whole or not at all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

from caesura.cli.progress import sweep_progress
from caesura.config.experiment import ResolvedExperiment
from caesura.errors import UserError
from caesura.runs.executors.executor import RunExecutor
from caesura.runs.executors.local import LocalExecutor
from caesura.runs.run import Run, expand
from caesura.runs.run_folder import clear_unfinished, errors_named, is_complete, write_run
from caesura.runs.simulate import RunError

RUNS = "runs"


def run_experiment(
    experiment: ResolvedExperiment, out: Path, where: RunExecutor | None = None, progress: bool | None = None
) -> tuple[list[Run], int]:
    """Run what ``out`` does not hold yet of an experiment.

    Args:
        experiment: which systems, loads and seeds.
        out: the comparison's folder; the runs lie below ``out/runs``.
        where: what simulates; the processes of this machine when left out.
        progress: show a progress bar; None shows it on a terminal.

    Returns:
        All runs of the experiment, and how many of them ``out`` held already.

    Raises:
        UserError: a run that cannot go on, or a folder that cannot be written; runs that ended stay.
    """
    runs = expand(experiment)
    return runs, run_missing(runs, out, experiment.name, where, progress)


def run_missing(
    runs: Sequence[Run], out: Path, title: str, where: RunExecutor | None = None, progress: bool | None = None
) -> int:
    """Run those of ``runs`` that ``out`` does not hold yet, and stop at the first that fails.

    Returns:
        How many of them ``out`` held already.

    Raises:
        UserError: a run that cannot go on, or a folder that cannot be written; runs that ended stay.
    """
    out = out.resolve()
    prepare(out)
    todo = [run for run in runs if not is_complete(out / RUNS / run.name)]
    with contextlib.closing(run_all(todo, out / RUNS, title, where, progress)) as failures:
        for _, fault in failures:
            raise RuntimeError(fault.trace) if fault.trace else UserError(fault.error)
    return len(runs) - len(todo)


def run_all(
    runs: Sequence[Run], folder: Path, title: str, where: RunExecutor | None = None, progress: bool | None = None
) -> Generator[tuple[Run, RunError]]:
    """Run all, and write each into its folder below ``folder``; yield those that fail, as they fail.

    Closing the iterator ends the runs under way. Those that ended stay.

    Raises:
        UserError: a folder that cannot be written, or no worker.
    """
    if not runs:
        return
    # The longest first, so that no core is left with one of them at the end.
    runs = sorted(runs, key=lambda run: run.work, reverse=True)
    try:
        with sweep_progress(title, [run.work for run in runs], progress) as shares:
            outcomes = (where or LocalExecutor()).outcomes(runs, shares)
            with contextlib.closing(outcomes):
                for index, outcome in outcomes:
                    if isinstance(outcome, RunError):
                        yield runs[index], outcome
                    else:
                        write_run(folder / runs[index].name, outcome)
                    shares.done[index] = 1
    except BaseException:
        clear_unfinished(folder)
        _remove_if_empty(folder, folder.parent)
        raise


def prepare(out: Path) -> None:
    """Make the folder of a comparison, or check that it is one.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose another folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / RUNS).is_dir():
        raise UserError(f"{out} is not empty and holds no comparison; choose another folder with --out")
    with errors_named(out):
        (out / RUNS).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out / RUNS).close()
    clear_unfinished(out)
    clear_unfinished(out / RUNS)


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
