"""What ``caesura validate`` does: real runs, or those that were recorded; their replays; a report."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from caesura.cli.options import numbers, seconds, words
from caesura.config.profiles import read_profile
from caesura.config.units import parse_capacity
from caesura.errors import UserError
from caesura.fidelity.record_runs import RecordingPlan, record_runs
from caesura.fidelity.replays import ReplayCosts, Replayed, choose_costs, find_recordings, replay_all
from caesura.fidelity.report import RECORDINGS, REPORT, prepare, write_validation
from caesura.fidelity.tables import SECTIONS, agreement_rows, remarks, verdict
from caesura.results.sections import fill, for_terminal
from sim.costs.profile import Profile

SYSTEMS = ("vllm", "improved-discard", "preserve", "swap", "infercept", "cache-lru")
LOADS = (8.0, 12.0, 16.0)
DRAIN_S = 20.0
"""Seconds that a run goes on after the last arrival, by default."""


def plan_from_options(
    *,
    model: str | None = None,
    profile: str | None = None,
    systems: str | None = None,
    loads: str | None = None,
    trace: str | None = None,
    duration: str | None = None,
    horizon: str | None = None,
    kv_capacity: str | None = None,
    host_capacity: str | None = None,
    max_context: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    check: int | None = None,
) -> RecordingPlan:
    """What to run for real; None takes the default.

    Raises:
        UserError: an option that does not hold, or no measured profile of the model on this device.
    """
    device = device or "cuda"
    found = _profile(profile, model, device)
    for option, text, name in (
        ("--kv-capacity", kv_capacity, "kv_capacity_tokens"),
        ("--host-capacity", host_capacity, "host_capacity_tokens"),
    ):
        if text is not None:
            found = found.model_copy(update={name: _tokens(text, option, found)})
    lasts = seconds(duration or "90 s", "--duration")
    return RecordingPlan(
        model=model or found.model,
        profile=found,
        systems=SYSTEMS if systems is None else words(systems, "--systems", "vllm,infercept"),
        loads=LOADS if loads is None else _positive(numbers(loads, "--loads"), "--loads"),
        duration=lasts,
        horizon=lasts + DRAIN_S if horizon is None else seconds(horizon, "--horizon"),
        seed=seed or 0,
        trace=trace or "infercept-mix",
        max_context=max_context or 2048,
        device=device,
        checked_sessions=12 if check is None else check,
    )


def validate_here(plan: RecordingPlan, out: Path, jobs: int | None, quiet: bool) -> list[Replayed]:
    """Make the real runs that are missing below ``out``, replay all of the plan's, write the report.

    Raises:
        UserError: see ``record_runs`` and ``replay_all``.
    """
    prepare(out)
    with _told(quiet) as say:
        folders = record_runs(plan, out / RECORDINGS, say)
    replayed = replay_all(folders, ReplayCosts((plan.profile.name, plan.profile)), jobs, False if quiet else None)
    write_validation(replayed, out)
    return replayed


def validate_recorded(
    folder: Path | None,
    out: Path,
    *,
    profile: str | None,
    systems: str | None,
    loads: str | None,
    jobs: int | None,
    quiet: bool,
) -> list[Replayed]:
    """Replay recorded runs and write the report.

    Raises:
        UserError: no such recordings, or some that cannot be compared with their replay.
    """
    prepare(out)
    found = find_recordings(
        folder,
        None if systems is None else words(systems, "--systems", "vllm,infercept"),
        None if loads is None else numbers(loads, "--loads"),
    )
    replayed = replay_all(found, choose_costs(profile), jobs, False if quiet else None)
    write_validation(replayed, out)
    return replayed


def _profile(name: str | None, model: str | None, device: str) -> Profile:
    """The profile that was named, or the measured one that ships for this model on this device."""
    if name is not None:
        profile = read_profile(name)
        if model is not None and model != profile.model and not Path(model).exists():
            raise UserError(f"--profile {name} is of {profile.model}, not of {model}")
        return profile
    if model is None:
        raise UserError("name the profile of the model on this GPU with --profile, or the model with --model")
    from caesura.cli.gpu import WITHOUT_GPU, find_device
    from profiler.measure.machine import describe

    machine = describe(find_device(device, WITHOUT_GPU))
    gpu = machine["gpu"]
    _, found = choose_costs(None).of(model, gpu, machine.get("card"))
    if found is None:
        raise UserError(
            f"no measured profile of {model} on {gpu} ships; make one with `caesura profile --model {model} "
            f"--device {device} --out FOLDER`, and name it with --profile FOLDER"
        )
    return found


def _positive(values: list[float], option: str) -> list[float]:
    for value in values:
        if not 0 < value < math.inf:
            raise UserError(f"{option}: {value:g} must be more than 0")
    return values


def _tokens(text: str, option: str, profile: Profile) -> int:
    try:
        return parse_capacity(text).in_tokens(profile.kv_bytes_per_token)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


@contextlib.contextmanager
def _told(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yields a function that prints a line of progress; on a terminal a clock runs behind the last line."""
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet)
    if quiet or not sys.stderr.isatty():
        yield lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("")

        def say(line: str) -> None:
            bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
            bar.reset(task, description=line)

        yield say


TOKENS_NOTE = (
    "Tokens part where two choices nearly tie: in 16-bit arithmetic other batches round otherwise. A first difference "
    "with a margin as large as elsewhere would mean a wrong KV cache; in float64, on a CPU, all tokens are equal."
)


def show(replayed: Sequence[Replayed], out: Path) -> None:
    """Print the simulator's errors, and where the report lies."""
    from caesura.cli.terminal import show_rows

    lines = [*dict.fromkeys(f"{one.bench}; costs: {one.costs}" for one in replayed)]
    show_rows(lines, for_terminal(fill(SECTIONS, replayed)))
    tokens = [TOKENS_NOTE] if agreement_rows(replayed).rows else []
    show_rows(["", *tokens, verdict(replayed), *remarks(replayed), f"Report: {out / REPORT}"], [])


def refuse_given(how: Mapping[str, object]) -> None:
    """Refuse options for real runs with --recorded.

    Raises:
        UserError: naming the first of them.
    """
    for name, value in how.items():
        if value is not None:
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} says how to make real runs; with --recorded they are there already")


def refuse_folder(folder: Path | None) -> None:
    """Refuse a folder of recordings without --recorded.

    Raises:
        UserError: there is one.
    """
    if folder is not None:
        raise UserError(f"to replay the runs in {folder} write --recorded {folder}")
