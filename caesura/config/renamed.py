"""Older names of engine settings in experiments, presets and run folders: they are read, and a note names the new one.

The table is ``sim.engine.settings.RENAMED_SETTINGS``. Recordings are read by ``EngineSettings`` itself.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection, Iterator
from typing import Any

from caesura.config.yaml_source import Loc, Source
from caesura.errors import ConfigError, listed
from sim.engine.settings import RENAMED_SETTINGS


def rename_settings(source: Source) -> None:
    """Give engine settings in ``source`` the names that they have today, and say so once for each place.

    Raises:
        ConfigError: a setting is given under both of its names.
    """
    for loc, settings in _engines(source.data):
        for old in RENAMED_SETTINGS.keys() & settings.keys():
            new = RENAMED_SETTINGS[old]
            if new in settings:
                raise ConfigError([source.fault((*loc, old), f"this is the older name of {new}; keep one of them")])
            note(source.where((*loc, old)), [old])
            items = [(new if name == old else name, value) for name, value in settings.items()]
            settings.clear()
            settings.update(items)
            for places in (source.lines, source.overrides):
                if (*loc, old) in places:
                    places[*loc, new] = places.pop((*loc, old))  # type: ignore[assignment]


def current_loc(loc: Loc, option: str) -> Loc:
    """The place of a value that an option sets, under the name that its setting has today."""
    if len(loc) < 2 or loc[-2] != "engine" or loc[-1] not in RENAMED_SETTINGS:
        return loc
    note(option, [str(loc[-1])])
    return (*loc[:-1], RENAMED_SETTINGS[str(loc[-1])])


@functools.cache
def _say(line: str) -> None:
    print(line, file=sys.stderr)


def note(where: str, old: Collection[str]) -> None:
    """One line on standard error, once for each place: which settings have another name today."""
    names = listed(f"{one!r} is now called {RENAMED_SETTINGS[one]!r}" for one in sorted(old))
    _say(f"caesura: note: {where}: the engine setting {names}")


def _engines(data: Any, loc: Loc = ()) -> Iterator[tuple[Loc, dict[str, Any]]]:
    """Every mapping of engine settings below ``data``, with its place."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        if key == "engine" and isinstance(value, dict):
            yield (*loc, key), value
        else:
            yield from _engines(value, (*loc, key))
