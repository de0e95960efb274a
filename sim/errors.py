"""What can go wrong in a simulation, said so that a person can act on it."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_ENGINE = Path(__file__).resolve().parent
_SHIPPED = tuple(_ENGINE.parent / package for package in ("caesura", "policies", "profiler", "sim", "traces"))
_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))


class SimulationError(Exception):
    """A run that cannot go on. The message says why and what to change."""


class PolicyError(SimulationError):
    """A policy raised, or answered something impossible. Names the policy, the session and the simulated time."""


class UnsupportedSession(SimulationError):
    """A session uses a shape that the schema names and the engine cannot serve yet."""


class StalledEngine(SimulationError):
    """Work is waiting, nothing runs, and no event could change that: a rule of the engine is broken."""


def place_of(error: BaseException) -> str:
    """Where a rule went wrong, as ``boom.py:4``: the last line of the user's own that the traceback runs through, else
    of a library or a shipped policy. Empty where only the engine speaks, which refused the rule's answer."""
    lines = list(_lines(error.__traceback__))
    for strangers in ((*_SHIPPED, *_LIBRARIES), _SHIPPED, (_ENGINE,)):
        for file, line in reversed(lines):
            if not any(file.is_relative_to(folder) for folder in strangers):
                return f"{file.name}:{line}"
    return ""


def _lines(trace: TracebackType | None) -> Iterator[tuple[Path, int]]:
    for frame, line in traceback.walk_tb(trace):
        yield Path(frame.f_code.co_filename).resolve(), line
