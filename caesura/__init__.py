"""Caesura: what should a server do with a KV cache while its request waits for a tool?

    import caesura

    found = caesura.compare(systems=["vllm", "infercept"], rates=[2, 4], duration="2 min")
    found.table                # a pandas DataFrame: one row a system and load
    found.figure("latency")    # a matplotlib figure

Nothing heavy is imported before the first of these names is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caesura.api import (
        Capacities,
        Comparison,
        Explanation,
        Simulation,
        Sweep,
        capacity,
        compare,
        explain,
        load,
        load_sweep,
        run,
        simulate,
        sweep,
    )
    from caesura.errors import ConfigError, UserError

__all__ = [
    "Capacities",
    "Comparison",
    "ConfigError",
    "Explanation",
    "Simulation",
    "Sweep",
    "UserError",
    "capacity",
    "compare",
    "explain",
    "load",
    "load_sweep",
    "run",
    "simulate",
    "sweep",
]

_HOMES = {"ConfigError": "caesura.errors", "UserError": "caesura.errors"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'caesura' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "caesura.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
