"""What the options of ``caesura compare`` set in an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from caesura.config.experiment import ResolvedExperiment, read_experiment
from caesura.config.overrides import Override
from caesura.config.schema import Objective
from caesura.config.units import parse_seconds
from caesura.config.yaml_source import Loc, Source, read_yaml
from caesura.errors import UserError

DEFAULT_SYSTEMS = ["vllm", "improved-discard", "preserve", "swap", "heuristic", "infercept", "cache-lru"]
DEFAULT_RATES = [1.0, 2.0, 3.0, 4.0]
DEFAULT_DURATION = "5 min"
NAME = "compare"


def experiment_from_options(options: list[Override]) -> ResolvedExperiment:
    """An experiment without a file: the defaults of ``caesura compare`` with ``options`` over them."""
    source = Source(
        "command line",
        {
            "workload": {
                "arrivals": {"poisson": {"rate": list(DEFAULT_RATES)}},
                "duration": DEFAULT_DURATION,
            },
            "systems": list(DEFAULT_SYSTEMS),
        },
    )
    return read_experiment(source, NAME, Path.cwd(), options)


def overrides(
    *,
    systems: str | None = None,
    rates: str | None = None,
    duration: str | None = None,
    trace: str | None = None,
    profile: str | None = None,
    seeds: int | None = None,
    objective: str | None = None,
    file: Path | None = None,
) -> list[Override]:
    """The options that were given. Paths in them refer to the current folder, not to the experiment file's.

    Raises:
        UserError: rates that are no numbers, or the file cannot be read.
    """
    given: list[tuple[Loc, Any, str]] = []
    if systems is not None:
        given.append((("systems",), words(systems, "--systems", "vllm,infercept"), "--systems"))
    if rates is not None:
        at = load_key(read_yaml(file).data if file is not None else {})
        given.append((at, numbers(rates, "--rates"), "--rates"))
    if duration is not None:
        given.append((("workload", "duration"), _scalar(duration), "--duration"))
    if trace is not None:
        given.append((("workload", "trace"), _from_here(trace), "--trace"))
    if profile is not None:
        given.append((("replica", "profile"), _from_here(profile), "--profile"))
    if seeds is not None:
        given.append((("seeds",), seeds, "--seeds"))
    if objective is not None:
        given.append((("objective", next(iter(Objective.model_fields))), _scalar(objective), "--objective"))
    return [Override(*one) for one in given]


def seconds(text: str, option: str) -> float:
    """A duration from an option, more than 0.

    Raises:
        UserError: naming the option and what to write.
    """
    try:
        found = parse_seconds(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None
    if found <= 0:
        raise UserError(f"{option}: {text!r} must be more than 0")
    return found


def load_key(experiment: Mapping[str, Any]) -> Loc:
    """Where an experiment says its loads: in the arrival process that it names, or else under Poisson."""
    workload = experiment.get("workload")
    arrivals = workload.get("arrivals") if isinstance(workload, dict) else None
    if arrivals == "replay" or (isinstance(arrivals, dict) and "replay" in arrivals):
        return ("workload", "arrivals", "replay", "speed")
    process = "gamma" if isinstance(arrivals, dict) and "gamma" in arrivals else "poisson"
    return ("workload", "arrivals", process, "rate")


def words(text: str, option: str, example: str) -> list[str]:
    """Names with commas between them, from an option.

    Raises:
        UserError: naming the option and what to write.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f"{option} {text!r}: expected names with commas between them, for example {example}")
    return names


def numbers(text: str, option: str) -> list[float]:
    """Numbers with commas between them, from an option.

    Raises:
        UserError: naming the option and what to write.
    """
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: expected numbers with commas between them, for example 1,2,3") from None


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _from_here(name: str) -> str:
    """A file of the current folder by its absolute path; a shipped name as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name
