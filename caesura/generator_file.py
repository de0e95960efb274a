"""Generator files: a workload's shape in YAML, which an experiment names instead of a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caesura.arrivals_schema import Arrivals
from caesura.errors import ConfigError, UserError
from caesura.generator_schema import GeneratorFile
from caesura.validation import validated
from caesura.yaml_source import Source, read_yaml

_AT = ("workload", "generator")
_EXAMPLE = "{poisson: {rate: 2}}"


def read_generator(path: Path) -> GeneratorFile:
    """What a generator file says.

    Raises:
        UserError: the file cannot be read.
        ConfigError: it does not hold; one line per fault.
    """
    return validated(GeneratorFile, read_yaml(path))


def with_generator(source: Source, base: Path) -> Source:
    """The experiment with the sessions, and unless it has its own the arrivals, of the generator file that it names.

    Raises:
        ConfigError: a file that is not there or does not hold, or a trace beside the generator.
    """
    workload = source.data.get("workload")
    named = workload.get("generator") if isinstance(workload, dict) else None
    if not isinstance(workload, dict) or not isinstance(named, str):
        return source
    if "trace" in workload:
        raise ConfigError([source.fault(_AT, "a trace is given, too; keep one of the two")])
    try:
        file = read_generator((base / named).expanduser())
    except ConfigError:
        raise
    except UserError as error:
        raise ConfigError([source.fault(_AT, str(error))]) from None
    written: dict[str, Any] = {"trace": {"generate": file.generate.model_dump(exclude_unset=True, exclude_none=True)}}
    if "arrivals" not in workload:
        if file.arrivals is None:
            fault = (
                f"neither it nor this file says how sessions arrive; add arrivals: {{poisson: {{rate: 2}}}} to {named}"
            )
            raise ConfigError([source.fault(_AT, fault)])
        written["arrivals"] = _arrivals(file.arrivals, (base / named).expanduser().parent)
    own = {key: value for key, value in workload.items() if key != "generator"}
    return Source(source.name, {**source.data, "workload": {**own, **written}}, source.lines, source.overrides)


def _arrivals(arrivals: Arrivals, folder: Path) -> dict[str, Any]:
    """The arrivals as written; the path of a trace that they are replayed from is relative to the generator file."""
    written = arrivals.model_dump(exclude_unset=True, exclude_none=True)
    lender = arrivals.replay.trace if arrivals.replay is not None else None
    if lender is not None and (folder / lender).expanduser().is_file():
        written["replay"]["trace"] = str((folder / lender).expanduser().resolve())
    return written
