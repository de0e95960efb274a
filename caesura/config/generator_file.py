"""Generator files: a workload's shape in YAML, which an experiment names instead of a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caesura.config.generator_schema import GeneratorFile
from caesura.config.validation import validated
from caesura.config.yaml_source import Source, read_yaml
from caesura.errors import ConfigError, UserError

_AT = ("workload", "generator")
_TRACE = ("workload", "trace")
_EXAMPLE = "{poisson: {rate: 2}}"


def read_generator(path: Path) -> GeneratorFile:
    """What a generator file says; a trace whose arrivals it replays is named by its absolute path.

    Raises:
        UserError: the file cannot be read.
        ConfigError: it does not hold; one line per fault.
    """
    file = validated(GeneratorFile, read_yaml(path))
    replay = file.arrivals.replay if file.arrivals is not None else None
    lender = path.parent / replay.trace if replay is not None and replay.trace is not None else None
    if file.arrivals is None or replay is None or lender is None or not lender.is_file():
        return file
    found = replay.model_copy(update={"trace": str(lender.resolve())})
    return file.model_copy(update={"arrivals": file.arrivals.model_copy(update={"replay": found})})


def with_generator(source: Source, base: Path) -> Source:
    """The experiment with the sessions, and unless it has its own the arrivals, of the generator file that it names.
    One that an option names displaces the trace of the experiment file.

    Raises:
        ConfigError: a file that is not there or does not hold, or a trace beside the generator.
    """
    workload = source.data.get("workload")
    named = workload.get("generator") if isinstance(workload, dict) else None
    if not isinstance(workload, dict) or not isinstance(named, str):
        return source
    displaced = _AT in source.overrides and _TRACE not in source.overrides
    if "trace" in workload and not displaced:
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
        written["arrivals"] = file.arrivals.model_dump(exclude_unset=True, exclude_none=True)
    own = {key: value for key, value in workload.items() if key != "generator"}
    return Source(source.name, {**source.data, "workload": {**own, **written}}, source.lines, source.overrides)
