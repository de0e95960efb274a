"""A sweep: an experiment repeated over the values of any of its keys; its runs, planned and run."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from caesura.config.experiment import ResolvedExperiment, read_experiment, slow_notes
from caesura.config.overrides import Override, parse_override
from caesura.config.yaml_source import Loc, Source
from caesura.errors import ConfigError, UserError
from caesura.runs.executors.executor import RunExecutor
from caesura.runs.run import Run, expand
from caesura.runs.run_experiment import RUNS, prepare, run_all
from caesura.runs.run_folder import is_complete, read_json, write_file, write_json
from caesura.runs.simulate import RunError

_OWN_OPTIONS = {"seeds": "--seeds N", "sweep": "the sweep section"}


@dataclass(frozen=True)
class Axis:
    """A key and the values it takes.

    Attributes:
        key: dotted, as it was written.
        values: in the order of tables.
        origin: how messages call the place where it was written.
    """

    key: str
    values: tuple[Any, ...]
    origin: str

    @functools.cached_property
    def loc(self) -> Loc:
        """The key's parts."""
        return parse_override(f"{self.key}=").loc

    @functools.cached_property
    def cells(self) -> tuple[Any, ...]:
        """The values as cells of a table: all numbers, all truth values, or all texts."""
        kinds = {bool if isinstance(value, bool) else float for value in self.values if isinstance(value, int | float)}
        if len(kinds) == 1 and all(isinstance(value, int | float) for value in self.values):
            return self.values
        return tuple(value if isinstance(value, str) else _shown(value) for value in self.values)


@dataclass(frozen=True)
class SweepRow:
    """One row of the results: the value of each swept key, and the run."""

    point: tuple[Any, ...]
    run: Run


@dataclass(frozen=True)
class SweepPlan:
    """Everything that a sweep does.

    Attributes:
        name: what the report is headed with.
        axes: the swept keys; the last one changes fastest.
        rows: by point, then system, load and seed, each in the order of the experiment. A run may stand in several.
        first: the experiment at the first point.
        systems: every system's name, in the order of their appearance.
        slow: notes about policies that keep simulated time from leaping.
    """

    name: str
    axes: tuple[Axis, ...]
    rows: tuple[SweepRow, ...]
    first: ResolvedExperiment
    systems: tuple[str, ...]
    slow: tuple[str, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """The runs, each once."""
        return list({row.run.name: row.run for row in self.rows}.values())


def parse_over(text: str) -> Axis:
    """``a.b.c=v1,v2,...`` of ``--over``; the values are read as the items of a YAML list.

    Raises:
        UserError: no ``=``, an empty key, or values that are not YAML.
    """
    key, equals, values = text.partition("=")
    example = "--over replica.kv_capacity='8 GB,16 GB'"
    if not equals or not values.strip() or not all(key.strip().replace("[", ".").replace("]", "").split(".")):
        raise UserError(f"--over {text}: expected KEY=V1,V2,..., for example {example}")
    try:
        parsed = yaml.safe_load(f"[{values}]")
    except yaml.YAMLError:
        parsed = None
    if not isinstance(parsed, list) or not parsed:
        raise UserError(f"--over {text}: the values {values!r} are not YAML; for example {example}")
    return Axis(key.strip(), tuple(parsed), f"--over {key.strip()}")


def plan_sweep(
    source: Source, name: str, base: Path, over: Sequence[Axis], overrides: Sequence[Override] = ()
) -> SweepPlan:
    """The runs of a sweep, all of them checked.

    Args:
        source: the experiment; its ``sweep`` section holds swept keys, too.
        name: what the report is headed with.
        base: the folder that relative paths refer to.
        over: swept keys from outside; one that stands in the experiment as well replaces it there.
        overrides: values that hold everywhere.

    Raises:
        ConfigError: a value that does not hold, or a key that cannot be swept; one line per fault.
    """
    axes = _axes(source, over)
    faults: dict[str, None] = {}
    rows: list[SweepRow] = []
    experiments: list[ResolvedExperiment] = []
    cells = itertools.product(*(axis.cells for axis in axes))
    for point, row in zip(itertools.product(*(axis.values for axis in axes)), cells, strict=True):
        here = [
            Override(axis.loc, value, f"{axis.origin} = {_shown(value)}")
            for axis, value in zip(axes, point, strict=True)
        ]
        own = Source(source.name, copy.deepcopy(source.data), source.lines, dict(source.overrides))
        try:
            experiment = read_experiment(own, name, base, [*overrides, *here])
            rows += [SweepRow(row, run) for run in expand(experiment)]
        except ConfigError as error:
            faults |= dict.fromkeys(error.faults)
        except UserError as error:
            faults[f"{', '.join(override.option for override in here)}: {error}"] = None
        else:
            experiments.append(experiment)
    if faults:
        raise ConfigError(faults)
    systems = dict.fromkeys(system.name for experiment in experiments for system in experiment.systems)
    slow = dict.fromkeys(note for experiment in experiments for note in slow_notes(experiment))
    return SweepPlan(name, axes, tuple(rows), experiments[0], tuple(systems), tuple(slow))


def run_sweep(
    plan: SweepPlan,
    out: Path,
    where: RunExecutor | None = None,
    progress: bool | None = None,
    retry_failed: bool = False,
) -> int:
    """Run what ``out`` neither holds nor has noted as failed. A run that fails is noted, and the others go on.

    Args:
        plan: the sweep.
        out: its folder; the runs lie below ``out/runs``.
        where: what simulates; the processes of this machine when left out.
        progress: show a progress bar; None shows it on a terminal.
        retry_failed: run again what failed before.

    Returns:
        How many runs ``out`` held already.

    Raises:
        UserError: a folder that cannot be written, or no worker; runs that ended stay.
    """
    out = out.resolve()
    prepare(out)
    folder = out / RUNS
    runs = plan.runs
    missing = [run for run in runs if not is_complete(folder / run.name)]
    if retry_failed:
        for run in missing:
            failure_file(folder, run).unlink(missing_ok=True)
    todo = [run for run in missing if not failure_file(folder, run).exists()]
    with contextlib.closing(run_all(todo, folder, plan.name, where, progress)) as failures:
        for run, fault in failures:
            _note_failure(folder, run, fault)
    return len(runs) - len(missing)


def failure_file(folder: Path, run: Run) -> Path:
    """The file that says why a run failed; it stands where the run's folder would."""
    return folder / f"{run.name}.failed.json"


def failure(folder: Path, run: Run) -> str | None:
    """Why a run failed; None where it did not."""
    file = failure_file(folder, run)
    return str(read_json(file)["error"]) if file.exists() else None


def _note_failure(folder: Path, run: Run, fault: RunError) -> None:
    note: Mapping[str, Any] = {**run.label, "error": fault.error, "trace": fault.trace, "config": run.config}
    write_file(failure_file(folder, run), lambda draft: write_json(draft, note))


def _axes(source: Source, over: Sequence[Axis]) -> tuple[Axis, ...]:
    """The swept keys of the experiment's own section, then those from outside, taken out of the experiment."""
    section = source.data.pop("sweep", None) or {}
    if not isinstance(section, dict) or not all(isinstance(values, list) and values for values in section.values()):
        fault = "expected keys with lists of values, as in replica.kv_capacity: [8 GB, 16 GB]"
        raise ConfigError([source.fault(("sweep",), fault)])
    axes = {
        key: Axis(key, tuple(values), f"{source.where(('sweep', key))}: sweep.{key}") for key, values in section.items()
    }
    axes |= {axis.key: axis for axis in over}
    faults = []
    for axis in axes.values():
        if axis.key in _OWN_OPTIONS:
            faults.append(f"{axis.origin}: {axis.key} is no key to sweep over; use {_OWN_OPTIONS[axis.key]}")
        shown = [_shown(value) for value in axis.values]
        if twice := sorted({value for value in shown if shown.count(value) > 1}):
            faults.append(f"{axis.origin}: the value {twice[0]} is listed twice")
    if not axes:
        faults.append(f"{source.name}: nothing to sweep over; write --over KEY=V1,V2 or a sweep section")
    if faults:
        raise ConfigError(faults)
    return tuple(axes.values())


def _shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()
    return text.removesuffix("\n...").removesuffix("...").strip()
