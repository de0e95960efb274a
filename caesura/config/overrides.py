"""Values that options set in an experiment: ``--set``, the arguments of the Python API, the points of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from caesura.config.renamed import current_loc, rename_settings
from caesura.config.yaml_source import Loc, Source
from caesura.errors import ConfigError, UserError, did_you_mean, listed


@dataclass(frozen=True)
class Override:
    """A value that the command line sets: where, what, and how messages call it."""

    loc: Loc
    value: Any
    option: str


def apply_overrides(source: Source, overrides: Sequence[Override]) -> None:
    """Set the values in ``source``, with engine settings under the names that they have today.

    Raises:
        ConfigError: an override names a place that is not there, or a setting has both of its names.
    """
    rename_settings(source)
    for override in overrides:
        for loc in _places(source, override):
            source.override(current_loc(loc, override.option), override.value, override.option)
    rename_settings(source)


def parse_override(text: str) -> Override:
    """``a.b.c=value`` of ``--set``; the value is read as YAML.

    Raises:
        UserError: no ``=``, an empty key, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    parts = key.strip().replace("[", ".").replace("]", "").split(".")
    if not equals or not all(parts):
        raise UserError(f"--set {text}: expected KEY=VALUE, for example --set workload.duration='5 min'")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {text}: the value {value!r} is not YAML") from None
    return Override(tuple(parts), parsed, f"--set {key.strip()}")


def _places(source: Source, override: Override) -> list[Loc]:
    """Where an override sets its value. A key inside ``systems`` may name the item by number or name, or all by ``*``.

    Raises:
        ConfigError: no system has that name.
    """
    loc, systems = override.loc, source.data.get("systems")
    if len(loc) < 3 or loc[0] != "systems" or not isinstance(systems, list):
        return [loc]
    names = [_entry_name(entry) for entry in systems]
    item = str(loc[1])
    if item == "*":
        chosen = list(range(len(systems)))
    elif item in names:
        chosen = [names.index(item)]
    elif item.isdigit():
        return [loc] if int(item) >= len(systems) else _opened(source, [int(item)], loc)
    else:
        raise ConfigError(
            [f"{override.option}: no system {item!r}{did_you_mean(item, names)} (there are {listed(names)})"]
        )
    return _opened(source, chosen, loc)


def _opened(source: Source, chosen: list[int], loc: Loc) -> list[Loc]:
    """The place inside each of the chosen systems; a preset's bare name becomes a mapping that can hold it."""
    systems = source.data["systems"]
    for index in chosen:
        if isinstance(systems[index], str):
            systems[index] = {"preset": systems[index]}
    return [("systems", index, *loc[2:]) for index in chosen]


def _entry_name(entry: Any) -> str:
    return str(entry.get("name") or entry.get("preset") or "") if isinstance(entry, dict) else str(entry)
