"""The runs of an experiment as data frames, and what follows from them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from caesura.results.sustained import SAME, Split, Sustained, batching_splits, ratio_text, sustained_load
from caesura.runs.run_folder import read_provenance, read_summary, read_table

LABELS = ("system", "load", "seed")


@dataclass(frozen=True, repr=False)
class ComparisonTables:
    """What an experiment found, as tables.

    Attributes:
        folder: where everything lies.
        name: the experiment's name.
        facts: what was compared: systems and their differences, profile, objective, versions.
        folders: the run folder of each (system, load, seed), in the order of the experiment.
    """

    folder: Path
    name: str
    facts: Mapping[str, Any]
    folders: Mapping[tuple[str, float, int], Path]

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """One row a run, with every measure of its summary."""
        return pd.DataFrame([read_summary(folder) for folder in self.folders.values()])

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """One row a system and load: every measure, averaged over the seeds; ``seeds`` says how many there were."""
        labels = self.runs[["system", "load"]]
        measures = pd.concat([labels, self.runs.drop(columns=list(LABELS)).apply(pd.to_numeric)], axis="columns").copy()
        groups = measures.groupby(["system", "load"], sort=False)
        table: pd.DataFrame = groups.mean().reset_index()
        table.insert(2, "seeds", groups.size().to_numpy())
        return table

    @functools.cached_property
    def sessions(self) -> pd.DataFrame:
        """One row a session of every run, with ``system``, ``load`` and ``seed``."""
        return self._of_all_runs("sessions")

    @functools.cached_property
    def calls(self) -> pd.DataFrame:
        """One row a call of every run."""
        return self._of_all_runs("calls")

    @functools.cached_property
    def timeline(self) -> pd.DataFrame:
        """One row a replica and second of every run: sessions by state, GPU blocks by use."""
        return self._of_all_runs("timeline")

    @functools.cached_property
    def replicas(self) -> pd.DataFrame:
        """One row a replica of every run: its profile, what ended there, and its totals."""
        return self._of_all_runs("replicas")

    @property
    def systems(self) -> list[str]:
        """Names in the order of the experiment; ratios refer to the first."""
        return [str(system["name"]) for system in self.facts["systems"]]

    @property
    def loads(self) -> list[float]:
        """The loads, rising."""
        return sorted({load for _, load, _ in self.folders})

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of the experiment."""
        return list(dict.fromkeys(seed for _, _, seed in self.folders))

    @property
    def load_unit(self) -> str:
        """What a load counts."""
        return str(self.facts["load_unit"])

    @property
    def objective(self) -> float:
        """Mean normalized latency that a system must hold, seconds per token."""
        return float(self.facts["objective"]["normalized_latency"])

    @property
    def duration(self) -> float:
        """Seconds during which sessions arrive."""
        return float(self.facts["duration"])

    def latency(self, system: str, seed: int | None = None) -> list[float | None]:
        """Mean normalized latency of a system at each of ``loads``, over all seeds or one; None: none finished."""
        rows = self.runs[self.runs["system"] == system]
        rows = rows if seed is None else rows[rows["seed"] == seed]
        values = []
        for load in self.loads:
            found = pd.to_numeric(rows.loc[rows["load"] == load, "mean_normalized_latency_s"])
            values.append(None if found.isna().any() or found.empty else float(found.mean()))
        return values

    @functools.cached_property
    def sustained(self) -> dict[str, Sustained]:
        """The sustained load of each system, from the means over the seeds."""
        return {system: sustained_load(self.loads, self.latency(system), self.objective) for system in self.systems}

    def sustained_by_seed(self, system: str) -> list[Sustained]:
        """The sustained load of a system from each seed alone: how far chance moves it."""
        return [sustained_load(self.loads, self.latency(system, seed), self.objective) for seed in self.seeds]

    @functools.cached_property
    def sustained_table(self) -> pd.DataFrame:
        """One row a system: sustained load, its bound and range over the seeds, and its ratio to the first system."""
        reference = self.sustained[self.systems[0]]
        rows = []
        for system, found in self.sustained.items():
            by_seed = [one.load for one in self.sustained_by_seed(system)]
            rows.append(
                {
                    "system": system,
                    "sustained_load": found.load,
                    "bound": found.bound,
                    "lowest_seed": min(by_seed),
                    "highest_seed": max(by_seed),
                    "ratio_to_first": ratio_text(found, reference) if system != self.systems[0] else SAME,
                }
            )
        return pd.DataFrame(rows)

    @property
    def splits(self) -> list[Split]:
        """For baselines that ran under both batching rules: what part of infercept's gain is batching."""
        return batching_splits(self.sustained)

    @property
    def knee(self) -> float:
        """The measured load nearest to what the first system sustains: where systems part."""
        found = self.sustained[self.systems[0]]
        return min(self.loads, key=lambda load: (abs(load - found.load), load))

    def at(self, load: float) -> pd.DataFrame:
        """The rows of ``table`` at one load, in the order of the systems."""
        return self.table[self.table["load"] == load].reset_index(drop=True)

    def commonest_reason(self, status: str) -> str:
        """Why most of the sessions with this status have it; empty when no reason is known."""
        reasons = self.sessions.loc[self.sessions["status"] == status, "reason"]
        reasons = reasons[reasons != ""]
        return str(reasons.value_counts().index[0]) if len(reasons) else ""

    def oracles(self) -> list[str]:
        """Systems whose policy used an oracle: the true duration of pauses, or of generation."""
        return [
            system
            for system in self.systems
            if any(
                read_provenance(folder)["facts"].get("uses_oracle")
                for (name, _, _), folder in self.folders.items()
                if name == system
            )
        ]

    @property
    def report(self) -> Path:
        """The report, one self-contained HTML file."""
        return self.folder / "report.html"

    def _of_all_runs(self, name: str) -> pd.DataFrame:
        frames = []
        for label, folder in self.folders.items():
            frame = read_table(folder, name)
            labels = pd.DataFrame(dict(zip(LABELS, label, strict=True)), index=frame.index)
            frames.append(pd.concat([labels, frame], axis="columns"))
        return pd.concat(frames, ignore_index=True)
