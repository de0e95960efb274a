"""Run a workload on a real engine, system by system, and record what happened."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from caesura.cli.gpu import WITHOUT_GPU, find_device, read_model, require_idle
from caesura.config.generator_schema import GeneratedTrace
from caesura.config.systems import System, load_preset
from caesura.config.workload import find_trace, read_trace
from caesura.errors import UserError
from sim.costs.profile import Profile
from sim.engine.settings import EngineSettings
from traces.draw.arrivals import Poisson, draw_workload
from traces.limits import fit_to_limit
from traces.session import Session
from traces.workload_hash import workload_hash

if TYPE_CHECKING:
    from profiler.backend.backend import Backend
    from profiler.backend.model import Llama
    from profiler.backend.model_config import ModelConfig
    from profiler.serving.real_engine import RealEngine

_SPARE_TOKENS = 128


@dataclass(frozen=True)
class RecordingPlan:
    """What is run: every system at every load.

    Attributes:
        model: name or file of the model's shape.
        profile: measured costs of that model on this device, with the pools that the runs shall have.
        systems, loads: presets, and sessions per second.
        duration: seconds of arrivals.
        horizon: seconds after which a run is cut.
        seed: of the workload.
        trace: a shipped trace's name, or a file.
        max_context: longer sessions are cut to this.
        device: ``cuda``, ``cuda:1``; ``cpu`` to rehearse.
        checked_sessions: of how many sessions of each run the tokens are compared with those of the session alone.
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
    device: str = "cuda"
    checked_sessions: int = 12

    def sessions(self, load: float) -> list[Session]:
        """The workload at one load.

        Raises:
            UserError: there is no such trace.
        """
        trace = find_trace(self.trace, Path())
        assert not isinstance(trace, GeneratedTrace)
        drawn = draw_workload(read_trace(trace), Poisson(load), self.duration, self.seed)
        return list(fit_to_limit(drawn, self.max_context).sessions)


def record_runs(
    plan: RecordingPlan, out: Path, say: Callable[[str], None], engine: RealEngine | None = None
) -> list[Path]:
    """Run everything of ``plan`` for real, one run after the other; returns the folders of the recordings.

    A run that is recorded already is not made again, so that the work can be spread over sittings.

    Args:
        say: is told what happens, a line at a time.
        engine: what serves the sessions; None sets up the torch backend, with the pools of the plan's profile.

    Raises:
        UserError: there is no such device, system, trace or model; the GPU is busy; or ``out`` holds recordings of
            other runs.
    """
    systems = [load_preset(name) for name in plan.systems]
    wanted = [(load, system) for load in plan.loads for system in systems]
    folders = [out / f"{system.name}.load-{load:g}" for load, system in wanted]
    recorded = [_is_recorded(plan, system, load, out) for load, system in wanted]
    if all(recorded):
        return folders
    engine = engine or set_up_engine(plan, systems, say)
    for number, ((load, system), done) in enumerate(zip(wanted, recorded, strict=True), start=1):
        name = f"{system.name} at {load:g}/s ({number} of {len(wanted)})"
        if done:
            say(f"{name}: recorded already")
            continue
        say(f"{name}: {plan.duration:g} s of arrivals{f', cut at {plan.horizon:g} s' if plan.horizon else ''}")
        begun = time.perf_counter()
        said = record_run(plan, system, load, engine, out)
        say(f"{name}: {time.perf_counter() - begun:.0f} s; {said}")
    return folders


def _is_recorded(plan: RecordingPlan, system: System, load: float, out: Path) -> bool:
    """Whether this very run lies in ``out``.

    Raises:
        UserError: another one does, under its name.
    """
    file = out / f"{system.name}.load-{load:g}" / "run.json"
    if not file.is_file():
        return False
    facts = json.loads(file.read_text(encoding="utf-8"))
    pools = ("kv_capacity_tokens", "host_capacity_tokens")
    same = {
        "system": _same_rules(facts["rules"], system),
        "workload": facts["workload"]["sha256"] == workload_hash(plan.sessions(load)),
        "horizon": facts["horizon"] == plan.horizon,
        "model": facts["profile"]["model"] == plan.profile.model,
        "memory pools": all(facts["profile"][name] == getattr(plan.profile, name) for name in pools),
    }
    if other := [name for name, equal in same.items() if not equal]:
        raise UserError(
            f"{file.parent} holds a run with another {' and another '.join(other)}; choose another folder with --out"
        )
    return True


def _same_rules(recorded: Mapping[str, Any], system: System) -> bool:
    """Whether a recording was made by these rules: settings that it does not name had what is their default today."""
    try:
        engine = EngineSettings.model_validate(recorded["engine"])
    except ValidationError:  # a setting that is not there any more, or not yet
        return False
    rules = system.rules()
    others = {name: rule for name, rule in recorded.items() if name != "engine"}
    return engine == system.engine and others == {name: rule for name, rule in rules.items() if name != "engine"}


def set_up_engine(plan: RecordingPlan, systems: Sequence[System], say: Callable[[str], None]) -> RealEngine:
    """One backend for all runs, as large in each respect as one of them needs.

    Raises:
        UserError: as ``record_runs``.
    """
    sizes = {system.engine.block_size for system in systems}
    if len(sizes) > 1:
        raise UserError(f"the systems have blocks of {sorted(sizes)} tokens; run those of one size together")
    config, longest = read_model(plan.model), plan.max_context + _SPARE_TOKENS
    _check_shape(plan, config)
    device = find_device(plan.device, WITHOUT_GPU)
    require_idle(device)
    import torch

    from profiler.backend.backend import make_model
    from profiler.backend.kv_cache import HostPoolRefused
    from profiler.serving.token_match import Alone, sample
    from profiler.serving.torch_engine import TorchEngine

    if device.type == "cpu":
        torch.set_num_threads(1)
    pools = f"{plan.profile.kv_capacity_tokens:,} and {plan.profile.host_capacity_tokens:,} tokens"
    say(f"loading {config.name}; pools of {pools}")
    try:
        model = make_model(config, device, max_context=longest)
        backend = _make_backend(plan, systems, model, sizes.pop())
        alone = Alone(model, longest, backend.tables.block_size) if plan.checked_sessions else None
    except (torch.OutOfMemoryError, HostPoolRefused):
        raise UserError(
            f"{config.name} with pools of {pools} does not fit here; choose smaller ones with --kv-capacity and "
            "--host-capacity"
        ) from None
    checked = sample(plan.sessions(min(plan.loads)), plan.checked_sessions)
    return TorchEngine(backend, device, plan.profile, checked, alone)


def _check_shape(plan: RecordingPlan, config: ModelConfig) -> None:
    """The profile is one of this model, and the model can hold the sessions.

    Raises:
        UserError: otherwise.
    """
    in_profile, in_model = plan.profile.kv_bytes_per_token, config.kv_bytes_per_token()
    if in_profile != in_model:
        raise UserError(
            f"the profile {plan.profile.name} has {in_profile:,} bytes of KV a token, {config.name} has {in_model:,}: "
            "measure one of this model with `caesura profile`"
        )
    if plan.max_context > config.max_context:
        raise UserError(f"{config.name} knows contexts of {config.max_context:,} tokens; lower --max-context")


def _make_backend(plan: RecordingPlan, systems: Sequence[System], model: Llama, block: int) -> Backend:
    from profiler.backend.backend import make_backend

    profile, longest = plan.profile, plan.max_context + _SPARE_TOKENS
    budgets = [_budget(system, profile) for system in systems]
    decodes = max(min(s.engine.max_running, budget) for s, budget in zip(systems, budgets, strict=True))
    samples = [[one.samples for one in plan.sessions(load)] for load in plan.loads]
    most = max(map(max, filter(None, samples)), default=1)
    again = decodes * block if most > 1 else 0  # branches that are recomputed begin at a block's begin
    backend = make_backend(
        model,
        profile.kv_capacity_tokens // block,
        profile.host_capacity_tokens // block,
        block,
        max_sessions=max(map(sum, samples)) + 8,
        max_context=longest,
        max_decodes=decodes,
        max_chunk_tokens=max(*budgets, most * longest) + again,
    )
    backend.executor.capture()
    return backend


def _budget(system: System, profile: Profile) -> int:
    budget = system.engine.token_budget
    return profile.saturation_tokens if budget == "saturation" else budget


def record_run(plan: RecordingPlan, system: System, load: float, engine: RealEngine, out: Path) -> str:
    """Make one run and write it; returns what to say of it."""
    from profiler.measure.commit import commit_of
    from profiler.serving.recorded_run import RecordedRun, save

    sessions, rules = plan.sessions(load), system.rules()
    real = engine.serve(sessions, rules, plan.horizon)
    provenance: dict[str, Any] = {
        **real.provenance,
        "commit": commit_of(Path(__file__).parent),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    said = f"{real.record.sessions['status'].count('finished')} of {len(sessions)} sessions finished"
    if (found := real.token_match) is not None:
        provenance["agreement"] = found
        said += f"; tokens of {found['equal']} of {found['sessions']} as alone"
    save(
        RecordedRun(
            system.name, load, rules, plan.profile, plan.horizon, sessions, real.record, provenance, real.iterations
        ),
        out,
    )
    return said
