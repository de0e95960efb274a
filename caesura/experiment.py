"""Carries out an experiment: every run that is not there yet, on every core, each written whole or not at all."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import warnings
from collections.abc import Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path

import joblib

from caesura.config import Setup
from caesura.errors import UserError
from caesura.progress import Shares, reporter, sweep_progress
from caesura.run_folder import clear_unfinished, is_complete, naming_errors
from caesura.runs import Run, expand, perform

RUNS = "runs"
_SESSIONS_WORTH_A_PROCESS = 500


def carry_out(setup: Setup, out: Path, jobs: int | None = None, progress: bool | None = None) -> tuple[list[Run], int]:
    """Do the runs of an experiment that ``out`` does not hold yet.

    Args:
        setup: the experiment.
        out: the comparison's folder; the runs lie below ``out/runs``.
        jobs: processes; None takes every core, or one where starting others would take longer than the runs.
        progress: show a progress bar; None shows it on a terminal.

    Returns:
        All runs of the experiment, and how many of them were there already.

    Raises:
        UserError: a run that cannot go on, or a folder that cannot be written; runs that ended stay.
    """
    runs = expand(setup)
    out = out.resolve()
    prepare(out)
    todo = [run for run in runs if not is_complete(out / RUNS / run.name)]
    if todo:
        # The longest first, so that no core is left with one of them at the end.
        todo.sort(key=_work, reverse=True)
        try:
            with sweep_progress(setup.name, [_work(run) for run in todo], progress) as shares:
                _perform_all(todo, out / RUNS, shares, jobs)
        except BaseException:
            clear_unfinished(out / RUNS)
            _remove_if_empty(out / RUNS, out)
            raise
    return runs, len(runs) - len(todo)


def prepare(out: Path) -> None:
    """Make the folder of a comparison, or check that it is one.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose another folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / RUNS).is_dir():
        raise UserError(f"{out} is not empty and holds no comparison; choose another folder with --out")
    with naming_errors(out):
        (out / RUNS).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out / RUNS).close()
    clear_unfinished(out)
    clear_unfinished(out / RUNS)


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _work(run: Run) -> float:
    """Expected work, in sessions; only its proportions matter."""
    return run.workload.load * run.workload.duration


def _perform_all(runs: Sequence[Run], folder: Path, shares: Shares, jobs: int | None) -> None:
    small = jobs is None and sum(map(_work, runs)) < _SESSIONS_WORTH_A_PROCESS
    count = 1 if small else min(jobs or joblib.cpu_count(), len(runs))
    if count <= 1:
        for index, run in enumerate(runs):
            perform(run, folder / run.name, reporter(shares.file, index))
            shares.done[index] = 1
        return
    tasks = (joblib.delayed(_perform_one)(run, folder / run.name, shares.file, index) for index, run in enumerate(runs))
    pool = joblib.Parallel(n_jobs=count, backend="loky", batch_size=1, return_as="generator_unordered")
    with _deaf_children():
        finished: Generator[tuple[int, str | None]] = pool(tasks)
    try:
        for index, fault in finished:
            if fault is not None:
                raise UserError(fault)
            shares.done[index] = 1
    finally:
        _stop_workers(finished)


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes started inside never hear Ctrl-C; the first process ends them. Its own Ctrl-C waits until then."""
    resource_tracker.ensure_running()  # it starts with the first child otherwise, and would undo the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _perform_one(run: Run, folder: Path, shares: Path, index: int) -> tuple[int, str | None]:
    """In a worker."""
    try:
        perform(run, folder, reporter(shares, index))
    except UserError as error:
        return index, str(error)
    return index, None


def _stop_workers(finished: Generator[tuple[int, str | None]]) -> None:
    """End the processes at once, so that no later sweep meets modules or folders of this one.

    What they were writing carries the name of a draft and counts for nothing.
    """
    from joblib.externals.loky import get_reusable_executor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib tells of results that nobody will read
        finished.close()  # first: a run that is still being dispatched would wait for the pool, and the pool for it
    get_reusable_executor().shutdown(wait=True, kill_workers=True)
