"""What a capacity search found: capacities, ratios and their confidence intervals, as tables and a figure.

Intervals are Student's t over the seeds at 95 %: of the capacities themselves, and, for a ratio to the first system, of
the logarithms of the seeds' own ratios (each seed gives both systems the same sessions, so the ratios are paired). The
search stops when two neighbouring loads are told apart, so an interval's upper end is widened by that tolerance, and
both ends of a ratio's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from caesura.config.experiment import ResolvedExperiment
from caesura.results.extrapolation import runs_beyond
from caesura.results.json_safe import json_safe
from caesura.results.sections import Section, fill, markdown
from caesura.results.sustained import SAME, Sustained
from caesura.results.text_table import TextTable
from caesura.runs.capacity_search import CapacityQuery, SystemSeed
from caesura.runs.code_hash import versions
from caesura.runs.run_folder import write_bytes, write_file, write_json

if TYPE_CHECKING:
    from caesura.results.figures import Picture

MARK = "capacity.json"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        value: sessions per second, or a ratio.
        low: lower end of the interval; None with one seed, or where only a bound is known.
        high: its upper end.
        bound: ``exact``, or on which side of ``value`` the truth lies; ``unknown`` when not even that.
    """

    value: float
    low: float | None = None
    high: float | None = None
    bound: str = "exact"

    def text(self, unit: str = "") -> str:
        """The value with what its bound allows to be said."""
        if self.bound == "unknown":
            return "–"
        sign = {"at least": "≥ ", "below": "< "}.get(self.bound, "")
        return f"{sign}{self.value:.3g}{unit}"

    def interval(self) -> str:
        """The interval, or a dash."""
        return "–" if self.low is None or self.high is None else f"{self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True, repr=False)
class Capacities:
    """The highest load that each system sustains.

    Attributes:
        folder: where everything lies.
        facts: the objective, the tolerance, the workload.
        by_seed: what the search found for each system and seed.
        probes: one row a run: system, load, seed, the measures of the objective, and whether it ``holds``.
    """

    folder: Path
    facts: Mapping[str, Any]
    by_seed: Mapping[SystemSeed, Sustained]
    probes: pd.DataFrame

    @property
    def systems(self) -> list[str]:
        """In the order of the experiment; ratios refer to the first."""
        return list(dict.fromkeys(system for system, _ in self.by_seed))

    @property
    def seeds(self) -> list[int]:
        """In the order of the experiment."""
        return list(dict.fromkeys(seed for _, seed in self.by_seed))

    def found(self, system: str) -> list[Sustained]:
        """What each seed found."""
        return [self.by_seed[system, seed] for seed in self.seeds]

    def capacity(self, system: str) -> Estimate:
        """The mean over the seeds of the highest load that holds."""
        found = self.found(system)
        loads = np.array([one.load for one in found])
        low, high = _interval(loads)
        bound = _joint(one.bound for one in found)
        value = float(loads.mean())
        if bound != "exact" or low is None or high is None:
            return Estimate(value, bound=bound)
        return Estimate(value, max(low, 0.0), high * (1 + self.facts["tolerance"]))

    def ratio(self, system: str) -> Estimate:
        """The geometric mean over the seeds of the ratio to the first system."""
        pairs = list(zip(self.found(system), self.found(self.systems[0]), strict=True))
        logs = np.array([math.log(one.load / first.load) for one, first in pairs])
        bound = _joint(_ratio_bound(one, first) for one, first in pairs)
        low, high = _interval(logs)
        value = math.exp(float(logs.mean()))
        if bound != "exact" or low is None or high is None:
            return Estimate(value, bound=bound)
        within = 1 + self.facts["tolerance"]
        return Estimate(value, math.exp(low) / within, math.exp(high) * within)

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """One row a system: capacity and ratio with their intervals, the range over the seeds, runs that it took."""
        rows = []
        for system in self.systems:
            capacity, ratio = self.capacity(system), self.ratio(system)
            loads = [one.load for one in self.found(system)]
            rows.append(
                {
                    "system": system,
                    "capacity": capacity.value,
                    "bound": capacity.bound,
                    "low_95": capacity.low,
                    "high_95": capacity.high,
                    "lowest_seed": min(loads),
                    "highest_seed": max(loads),
                    "ratio_to_first": ratio.value,
                    "ratio_bound": ratio.bound,
                    "ratio_low_95": ratio.low,
                    "ratio_high_95": ratio.high,
                    "seeds": len(loads),
                    "runs": int((self.probes["system"] == system).sum()),
                }
            )
        return pd.DataFrame(rows)

    def rows(self) -> TextTable:
        """The capacities as a table of text."""
        first = self.systems[0]
        rows = []
        for system in self.systems:
            capacity, ratio = self.capacity(system), self.ratio(system)
            loads = [one.load for one in self.found(system)]
            versus = [SAME, "–"] if system == first else [ratio.text("×"), ratio.interval()]
            seeds = f"{min(loads):.3g} to {max(loads):.3g}"
            rows.append([system, capacity.text(), capacity.interval(), seeds, *versus])
        headings = ["system", "capacity", "95 % interval", "over seeds", f"vs {first}", "95 % interval"]
        title = f"Highest load ({self.facts['load_unit']}) at which {self.facts['slo']}, over {len(self.seeds)} seeds"
        return TextTable(title, headings, rows)

    def remarks(self) -> list[str]:
        """What a reader must know beside the table."""
        seconds = f"{self.facts['duration']:g} s"
        remarks = [f"Sessions arrive for {seconds}; in a short time, a load that grows a queue slowly may pass."]
        for system in self.systems:
            capacity = self.capacity(system)
            if capacity.bound == "below":
                remarks.append(f"{system} does not hold the objective even at {capacity.value:.3g}.")
            if capacity.bound == "unknown":
                remarks.append(f"{system}: some seeds never hold the objective, and some never miss it.")
            if capacity.bound == "at least":
                remarks.append(f"{system} still holds the objective at {capacity.value:.3g}; --high raises the end.")
        if note := runs_beyond(self.probes):
            remarks.append(f"Extrapolated: {note}")
        return remarks

    def figure(self) -> Picture:
        """One bar a system with its interval, and a dot for each seed."""
        from caesura.results.figures import Picture, frame, style

        figure = Picture(figsize=(8.6, 1.3 + 0.45 * len(self.systems)), layout="constrained")
        axes = figure.add_subplot()
        for place, system in zip(range(len(self.systems))[::-1], self.systems, strict=True):
            capacity, ratio = self.capacity(system), self.ratio(system)
            colour, _ = style(system, self.systems)
            axes.barh(place, capacity.value, color=colour, alpha=0.75, height=0.62)
            loads = [one.load for one in self.found(system)]
            axes.plot(loads, [place] * len(loads), "o", color="white", markeredgecolor="#222222", markersize=4.5)
            if capacity.low is not None and capacity.high is not None:
                axes.plot([capacity.low, capacity.high], [place, place], "|-", color="#222222", linewidth=1.2)
            end = max(capacity.value, capacity.high or 0, *loads)
            versus = "" if system == self.systems[0] else f"  ({ratio.text('×')})"
            axes.annotate(
                f"{capacity.text()}{versus}", (end, place), xytext=(7, 0), textcoords="offset points", va="center",
                fontsize=9.5,
            )  # fmt: skip
        axes.set_yticks(range(len(self.systems))[::-1], self.systems)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.22)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"highest load ({self.facts['load_unit']}) at which {self.facts['slo']}")
        frame(axes, grid="x")
        return figure

    def __repr__(self) -> str:
        return f"<Capacities: {', '.join(f'{s} {self.capacity(s).text()}' for s in self.systems)}; {self.folder}>"

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, float_format=lambda value: f"{value:.3g}")


SECTIONS: tuple[Section[Capacities], ...] = (
    Section("capacities", "Which load does each system sustain?", Capacities.rows),
)
"""The sections of a capacity search."""


def write_capacities(
    experiment: ResolvedExperiment,
    question: CapacityQuery,
    found: Mapping[SystemSeed, Sustained],
    probes: Sequence[Mapping[str, Any]],
    out: Path,
) -> Capacities:
    """Write tables and figure beside the runs; ``capacity.json`` comes last.

    Raises:
        UserError: the folder cannot be written.
    """
    workload, profile = experiment.workload, experiment.profile
    facts = {
        "name": experiment.name,
        "slo": str(question.slo),
        "tolerance": question.tolerance,
        "bracket": [question.low, question.high],
        "duration": workload.duration,
        "load_unit": workload.arrivals.load_unit,
        "profile": {
            "name": experiment.profile_reference,
            "origin": profile.origin,
            "source": profile.source,
        },
        "interval": "95 %, Student's t over seeds; of a ratio, over the logarithms of paired ratios",
        "versions": versions(),
    }
    capacities = Capacities(out, facts, found, pd.DataFrame(probes))
    write_file(out / "capacity.csv", lambda draft: capacities.table.to_csv(draft, index=False))
    write_file(out / "probes.csv", lambda draft: capacities.probes.to_csv(draft, index=False))
    write_bytes(out / "tables.md", markdown(experiment.name, fill(SECTIONS, capacities)))
    write_bytes(out / "figures" / "capacity.png", capacities.figure().png())
    seeds = [
        {"system": system, "seed": seed, "load": one.load, "bound": one.bound} for (system, seed), one in found.items()
    ]
    table = json_safe(capacities.table.to_dict("records"))
    write_file(out / MARK, lambda draft: write_json(draft, {**facts, "capacities": table, "by_seed": seeds}))
    return capacities


def _interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float | None, float | None]:
    """Student's t interval of a mean; None with fewer than two values."""
    if len(values) < 2:
        return None, None
    from scipy.stats import t

    reach = float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - reach, float(values.mean()) + reach


def _joint(bounds: Any) -> str:
    """The bound of a mean: exact when all are, one-sided when the others lie on one side."""
    sides = set(bounds) - {"exact"}
    return "exact" if not sides else sides.pop() if len(sides) == 1 else "unknown"


def _ratio_bound(one: Sustained, first: Sustained) -> str:
    above = one.bound == "at least" or first.bound == "below"
    below = one.bound == "below" or first.bound == "at least"
    return "unknown" if above and below else "at least" if above else "below" if below else "exact"
