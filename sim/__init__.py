"""The simulated serving engine: replay sessions under a policy, an order and settings, with the costs of a profile.

    from sim import EngineSettings, load_profile, simulate

    record = simulate(sessions, policy=policy, order=order, settings=EngineSettings(), profile=load_profile(folder))

Nothing is imported before one of these names is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.costs.cost_model import CostModel
    from sim.costs.profile import HostCost, LinearForward, PhysicalForward, Profile, SwapCost, load_profile
    from sim.engine.settings import EngineSettings
    from sim.errors import PolicyError, SimulationError, StalledEngine, UnsupportedSession
    from sim.results.run_record import RunRecord
    from sim.world.cluster import Link, simulate_cluster
    from sim.world.simulate import simulate

__all__ = [
    "CostModel",
    "EngineSettings",
    "HostCost",
    "LinearForward",
    "Link",
    "PhysicalForward",
    "PolicyError",
    "Profile",
    "RunRecord",
    "SimulationError",
    "StalledEngine",
    "SwapCost",
    "UnsupportedSession",
    "load_profile",
    "simulate",
    "simulate_cluster",
]

_HOMES = {
    "sim.costs.cost_model": ("CostModel",),
    "sim.costs.profile": ("HostCost", "LinearForward", "PhysicalForward", "Profile", "SwapCost", "load_profile"),
    "sim.engine.settings": ("EngineSettings",),
    "sim.errors": ("PolicyError", "SimulationError", "StalledEngine", "UnsupportedSession"),
    "sim.results.run_record": ("RunRecord",),
    "sim.world.cluster": ("Link", "simulate_cluster"),
    "sim.world.simulate": ("simulate",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sim' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
