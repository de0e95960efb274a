"""Caesura: what should a server do with a KV cache while its request waits for a tool?

    import caesura

    found = caesura.compare(systems=["vllm", "infercept"], rates=[2, 4], duration="2 min")
    found.table                # a pandas DataFrame: one row a system and load
    found.figure("latency")    # a matplotlib figure

``caesura.policy`` has everything that a policy of your own imports.
Nothing heavy is imported before the first of these names is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from caesura import own_packages

own_packages.protect()

if TYPE_CHECKING:
    from caesura import policy
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
    from sim.costs.profile import Profile
    from sim.engine.settings import EngineSettings

__all__ = [
    "Capacities",
    "Comparison",
    "ConfigError",
    "EngineSettings",
    "Explanation",
    "Profile",
    "Simulation",
    "Sweep",
    "UserError",
    "capacity",
    "compare",
    "explain",
    "load",
    "load_sweep",
    "policy",
    "run",
    "simulate",
    "sweep",
]

_HOMES = {
    "ConfigError": "caesura.errors",
    "EngineSettings": "sim.engine.settings",
    "Profile": "sim.costs.profile",
    "UserError": "caesura.errors",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'caesura' has no attribute {name!r}")
    if name == "policy":
        return importlib.import_module("caesura.policy")
    return getattr(importlib.import_module(_HOMES.get(name, "caesura.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
