"""Run a workload on the real backend, system by system, and record what happened."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caesura.errors import UserError
from caesura.systems import System, load_preset
from sim.profile import Profile
from traces.arrivals import Poisson, draw_workload
from traces.limits import fit
from traces.session import Session
from traces.shipped import load as load_trace


@dataclass(frozen=True)
class Plan:
    """What is run: every system at every load.

    Attributes:
        model: name or file of the model's shape.
        profile: measured costs of that model on this GPU, with the pools that the runs shall have.
        systems, loads: presets, and sessions per second.
        duration: seconds of arrivals.
        horizon: seconds after which a run is cut.
        seed: of the workload.
        max_context: longer sessions are cut to this.
    """

    model: str
    profile: Profile
    systems: Sequence[str]
    loads: Sequence[float]
    duration: float
    horizon: float | None
    seed: int = 0
    trace: str = "infercept-mix"
    max_context: int = 2048

    def sessions(self, load: float) -> list[Session]:
        """The workload at one load."""
        drawn = draw_workload(load_trace(self.trace), Poisson(load), self.duration, self.seed)
        return list(fit(drawn, self.max_context).sessions)


def record_runs(plan: Plan, out: Path, say: Callable[[str], None]) -> list[Path]:
    """Run everything of ``plan`` for real, one run after the other; returns the folders of the recordings.

    A run that is recorded already is not made again, so that the work can be spread over sittings.

    Raises:
        UserError: there is no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise UserError("there is no CUDA GPU here; `caesura validate --recorded` replays recorded runs without one")
    systems = [load_preset(name) for name in plan.systems]
    wanted = [(load, system) for load in plan.loads for system in systems]
    folders = [out / f"{system.name}.load-{load:g}" for load, system in wanted]
    if all((folder / "run.json").is_file() for folder in folders):
        return folders
    backend = _make_backend(plan, systems, torch.device("cuda"))
    for (load, system), folder in zip(wanted, folders, strict=True):
        if not (folder / "run.json").is_file():
            begun = time.perf_counter()
            _record(plan, system, load, backend, out)
            say(f"{system.name} at {load:g}/s: {time.perf_counter() - begun:.0f} s")
    return folders


def _make_backend(plan: Plan, systems: Sequence[System], device: Any) -> Any:
    """One backend for all runs: it has the most of whatever one of them needs."""
    from profiler.backend.backend import make_backend, make_model
    from profiler.backend.model_config import load_model_config

    block_sizes = {system.engine.block_size for system in systems}
    if len(block_sizes) > 1:
        raise UserError(f"the systems have blocks of {sorted(block_sizes)} tokens; run those of one size together")
    block = block_sizes.pop()
    profile, longest = plan.profile, plan.max_context + 128
    budgets = [_budget(system, profile) for system in systems]
    model = make_model(load_model_config(plan.model), device, max_context=longest)
    backend = make_backend(
        model,
        profile.kv_capacity_tokens // block,
        profile.host_capacity_tokens // block,
        block,
        max_sessions=max(len(plan.sessions(load)) for load in plan.loads) + 8,
        max_context=longest,
        max_decodes=max(min(s.engine.max_running, budget) for s, budget in zip(systems, budgets, strict=True)),
        max_chunk_tokens=max(*budgets, longest),
    )
    backend.executor.capture()
    return backend


def _budget(system: System, profile: Profile) -> int:
    budget = system.engine.token_budget
    return profile.saturation_tokens if budget == "saturation" else budget


def _record(plan: Plan, system: System, load: float, backend: Any, out: Path) -> None:
    import torch

    from policies.registry import make_order, make_policy
    from profiler.recorded import RecordedRun, save
    from profiler.serve import Server

    sessions = plan.sessions(load)
    policy, order = make_policy(system.policy), make_order(system.order)
    server = Server(backend, policy=policy, order=order, settings=system.engine, profile=plan.profile)
    record = server.serve(sessions, plan.horizon)
    server.abandon()
    timings = server.timings
    provenance = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "iterations": len(timings.wall),
        "host_s": sum(timings.wall) - sum(timings.device),
        "device_s": sum(timings.device),
    }
    save(RecordedRun(system.name, load, system.rules(), plan.profile, plan.horizon, sessions, record, provenance), out)
