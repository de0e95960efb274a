"""Recorded real runs: numbers only, small enough for a repository, with all that a replay needs.

A folder holds one run: ``run.json`` (system, profile with the pools as they were, provenance, totals) and the tables
``sessions``, ``calls``, ``timeline`` and, unless the run is an old one, ``iterations`` (seconds there as whole
microseconds) as parquet. The workload lies beside the runs that share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from policies.registry import make_order, make_policy
from profiler.iterations import KEPT, LATER
from sim.profile import Profile
from sim.record import RunRecord
from sim.settings import EngineSettings
from traces.readers import read_own, write_own
from traces.session import Session

TABLES = ("sessions", "calls", "timeline")
ITERATIONS = "iterations"
SHIPPED = Path(__file__).resolve().parent / "recordings"
_POOLS = ("kv_capacity_tokens", "host_capacity_tokens")


@dataclass(frozen=True)
class RecordedRun:
    """A run of the real backend.

    Attributes:
        name: the system's name.
        load: sessions per second.
        rules: policy, order and engine settings, as plain data.
        profile: the costs that the policies asked for, and the pools that the backend had.
        horizon: seconds after which the run was cut; None if it was not.
        sessions: the workload.
        record: what happened.
        provenance: machine, versions, date.
        iterations: what each iteration computed and took (``profiler.iterations``); None for runs of before they were
            kept.
    """

    name: str
    load: float
    rules: dict[str, Any]
    profile: Profile
    horizon: float | None
    sessions: Sequence[Session]
    record: RunRecord
    provenance: dict[str, Any]
    iterations: pd.DataFrame | None = None

    @property
    def label(self) -> str:
        """A name for the run's folder."""
        return f"{self.name}.load-{self.load:g}"


def workload_hash(sessions: Sequence[Session]) -> str:
    """A hash of everything that a workload says."""
    return hashlib.sha256("\n".join(repr(session) for session in sessions).encode()).hexdigest()


def save(run: RecordedRun, folder: Path) -> Path:
    """Write a run below ``folder``; returns its own folder."""
    hashed = workload_hash(run.sessions)
    target = folder / run.label
    target.mkdir(parents=True, exist_ok=True)
    workload = folder / f"workload-{hashed[:12]}.jsonl"
    if not workload.exists():
        write_own(workload, run.sessions)
    for name in TABLES:
        frame = pd.DataFrame(getattr(run.record, name))
        frame.to_parquet(target / f"{name}.parquet", compression="zstd", index=False)
    iterations = target / f"{ITERATIONS}.parquet"
    if run.iterations is None:
        iterations.unlink(missing_ok=True)
    else:
        _write_steps(_in_microseconds(run.iterations), iterations)
    facts = {
        "name": run.name,
        "load": run.load,
        "rules": run.rules,
        "profile": run.profile.model_dump(mode="json"),
        "horizon": run.horizon,
        "workload": {"file": workload.name, "sha256": hashed, "sessions": len(run.sessions)},
        "totals": run.record.totals,
        "facts": run.record.facts,
        "provenance": run.provenance,
    }
    (target / "run.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return target


def load(folder: Path) -> RecordedRun:
    """Read a run that ``save`` wrote.

    Raises:
        OSError: a file is missing.
        ValueError: the workload beside it is not the one that was served, or iterations are not those of the run.
    """
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    sessions = read_own(folder.parent / facts["workload"]["file"])
    if workload_hash(sessions) != facts["workload"]["sha256"]:
        raise ValueError(f"{folder}: {facts['workload']['file']} is not the workload that this run served")
    tables = {name: pd.read_parquet(folder / f"{name}.parquet").to_dict("list") for name in TABLES}
    sessions_table = tables["sessions"]
    sessions_table.setdefault("input_ended_at", sessions_table["arrival"])  # recorded before prompts could stream in
    sessions_table.setdefault("inference_tokens", [0] * len(sessions_table["id"]))
    return RecordedRun(
        name=facts["name"],
        load=facts["load"],
        rules=facts["rules"],
        profile=Profile.model_validate(facts["profile"]),
        horizon=facts["horizon"],
        sessions=sessions,
        record=RunRecord(**tables, totals=facts["totals"], facts=facts["facts"]),  # type: ignore[arg-type]
        provenance=facts["provenance"],
        iterations=_read_steps(folder / f"{ITERATIONS}.parquet", facts["provenance"].get("iterations")),
    )


def _write_steps(whole: pd.DataFrame, file: Path) -> None:
    """Whole numbers as steps from row to row: most are small."""
    steps = dict.fromkeys(map(str, whole.columns), "DELTA_BINARY_PACKED")
    whole.to_parquet(file, compression="zstd", index=False, use_dictionary=False, column_encoding=steps)


def _read_steps(file: Path, count: int | None) -> pd.DataFrame | None:
    if not file.exists():
        return None
    iterations = _in_seconds(pd.read_parquet(file))
    if lacking := [name for name in KEPT if name not in iterations and name not in LATER]:
        raise ValueError(f"{file} lacks {', '.join(lacking)}")
    if count is not None and len(iterations) != count:
        raise ValueError(f"{file} has {len(iterations):,} iterations, and the run had {count:,}")
    return iterations


def _in_microseconds(iterations: pd.DataFrame) -> pd.DataFrame:
    """Whole microseconds for seconds: a third of the bytes."""
    names = {name: f"{name[:-2]}_us" for name in map(str, iterations.columns) if name.endswith("_s")}
    whole = {name: (iterations[name] * 1e6).round().astype("int64") for name in names}
    return iterations.assign(**whole).rename(columns=names)


def _in_seconds(iterations: pd.DataFrame) -> pd.DataFrame:
    names = {name: f"{name[:-3]}_s" for name in map(str, iterations.columns) if name.endswith("_us")}
    return iterations.assign(**{name: iterations[name] / 1e6 for name in names}).rename(columns=names)


def replay(run: RecordedRun, profile: Profile | None = None) -> RunRecord:
    """Simulate what was run: the same sessions, arrivals, rules and pools.

    Args:
        run: the real run.
        profile: other costs than those recorded with it, such as a newer fit: by them time passes. The engine and the
            policies decide by the costs that they knew then.
    """
    from sim.run import simulate  # SimPy is not needed to record

    costs = run.profile
    if profile is not None:
        costs = profile.model_copy(update={name: getattr(run.profile, name) for name in _POOLS})
    return simulate(
        run.sessions,
        policy=make_policy(run.rules["policy"]),
        order=make_order(run.rules["order"]),
        settings=EngineSettings.model_validate(run.rules["engine"]),
        profile=costs,
        horizon=run.horizon,
        believed=run.profile,
    )
