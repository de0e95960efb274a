"""The highest load that each system sustains under an objective: found by bisection, apart for every seed.

Loads lie on one grid, the powers of 1 + tolerance, whatever the bracket: so two searches that meet ask for the same
runs, which are done once. All systems meet the same sessions under the same seed, so that their ratio is paired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caesura.config.experiment import ResolvedExperiment
from caesura.config.slo import Slo
from caesura.config.yaml_source import read_yaml
from caesura.errors import UserError
from caesura.results.extrapolation import EXTRAPOLATED
from caesura.results.sustained import Sustained
from caesura.runs.executors.executor import RunExecutor
from caesura.runs.executors.local import LocalExecutor
from caesura.runs.run import make_run
from caesura.runs.run_experiment import RUNS, run_missing
from caesura.runs.run_folder import read_summary

SystemSeed = tuple[str, int]
"""A system's name and a seed."""
DEFAULT_TOLERANCE = 0.02
DEFAULT_SEEDS = 5
_REACH = 64
_LEAST_SESSIONS = 20


@dataclass(frozen=True)
class Grid:
    """The loads that a search may try: powers of 1 + tolerance, to six digits."""

    tolerance: float

    def load(self, place: int) -> float:
        """The load at a place."""
        return float(f"{(1 + self.tolerance) ** place:.6g}")

    def place(self, load: float) -> int:
        """The place nearest to a load."""
        return round(math.log(load) / math.log1p(self.tolerance))


class Search:
    """One bisection over places of a grid. The ends of its bracket are guesses until it comes to them.

    Attributes:
        holds: the highest place that is known to hold.
        fails: the lowest place that is known to fail.
    """

    def __init__(self, low: int, high: int, step: int, floor: int, ceiling: int) -> None:
        self.holds: int | None = None
        self.fails: int | None = None
        self._low = low
        self._high = max(high, low + 1)
        self._step = step
        self._floor = min(floor, low)
        self._ceiling = max(ceiling, self._high)

    def next_place(self) -> int | None:
        """The place to try next; None when the answer is known."""
        low = self._low if self.holds is None else self.holds
        high = self._high if self.fails is None else self.fails
        if high - low > 1:
            return (low + high) // 2
        if self.holds is None and low < (math.inf if self.fails is None else self.fails):
            return low
        return high if self.fails is None and high > low and self.holds != self._ceiling else None

    def tell(self, place: int, held: bool) -> None:
        """What was found there. A bracket that proves wrong moves on by a factor of two."""
        if held:
            self.holds = place if self.holds is None else max(self.holds, place)
            if self.fails is None and place >= self._high:
                self._high = min(place + self._step, self._ceiling)
        else:
            self.fails = place if self.fails is None else min(self.fails, place)
            if self.holds is None and place <= self._low:
                self._low = max(place - self._step, self._floor)

    def found(self, grid: Grid) -> Sustained:
        """The highest load that holds; the one above it on the grid fails, unless the bound says otherwise."""
        if self.holds is None:
            assert self.fails is not None
            return Sustained(grid.load(self.fails), "below")
        return Sustained(grid.load(self.holds), "exact" if self.fails is not None else "at least")


@dataclass(frozen=True)
class CapacityQuery:
    """What to search for.

    Attributes:
        slo: the objective.
        low: a load that is thought to hold.
        high: a load that is thought to fail.
        tolerance: relative distance of two loads that are told apart.
    """

    slo: Slo
    low: float
    high: float
    tolerance: float = DEFAULT_TOLERANCE


def make_query(
    experiment: ResolvedExperiment,
    slo: Slo,
    low: float | None = None,
    high: float | None = None,
    tolerance: float | None = None,
) -> CapacityQuery:
    """A question with a bracket: the experiment's lowest and highest load where none is given.

    Raises:
        UserError: a bracket or tolerance that cannot be, or an experiment that cuts runs short.
    """
    loads = experiment.loads
    low, high = low or min(loads), high or max(max(loads), 2 * (low or 0))
    tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
    if not 0 < low <= high < math.inf:
        raise UserError(f"--low {low:g} --high {high:g}: expected two loads above 0, the lower one first")
    if not 0.001 <= tolerance <= 0.5:
        raise UserError(f"--tolerance {tolerance:g}: expected a share from 0.001 to 0.5; 0.02 tells 2 % apart")
    if experiment.horizon is not None:
        raise UserError("replica.horizon cuts sessions short, and they would count as late; leave it out")
    return CapacityQuery(slo, low, high, tolerance)


def with_seeds(seeds: int | None, file: Path | None) -> int | None:
    """How many seeds: those of the option, else the experiment's, else five."""
    says = file is not None and "seeds" in read_yaml(file).data
    return seeds if seeds is not None or says else DEFAULT_SEEDS


def find_capacities(
    experiment: ResolvedExperiment,
    question: CapacityQuery,
    out: Path,
    where: RunExecutor | None = None,
    progress: bool | None = None,
) -> tuple[dict[SystemSeed, Sustained], list[dict[str, Any]]]:
    """The highest load that holds for each system and seed, and every run that the search made.

    Runs that ``out`` holds already are not done again.

    Raises:
        UserError: a run that cannot go on, or a folder that cannot be written; runs that ended stay.
    """
    grid = Grid(question.tolerance)
    systems = {system.name: system for system in experiment.systems}
    searches = {(name, seed): _search(experiment, question, grid) for name in systems for seed in experiment.seeds}
    probes: list[dict[str, Any]] = []
    where = where or LocalExecutor()
    with where.keeping_workers():
        while asked := _next(searches):
            runs = {
                key: make_run(experiment, systems[key[0]], grid.load(place), key[1]) for key, place in asked.items()
            }
            title = f"{experiment.name}: {len(asked)} of {len(searches)} searches go on"
            run_missing(list(runs.values()), out, title, where, progress)
            for key, run in runs.items():
                folder = out / RUNS / run.name
                values = {term.name: term.measure(folder) for term in question.slo.terms}
                shares = {name: read_summary(folder)[name] for name in EXTRAPOLATED}
                held = all(term.holds(values[term.name]) for term in question.slo.terms)
                searches[key].tell(asked[key], held)
                probes.append({**run.label, **values, "holds": held, **shares, "folder": run.name})
    order = {name: index for index, name in enumerate(systems)}
    probes.sort(key=lambda probe: (order[probe["system"]], probe["seed"], probe["load"]))
    return {key: search.found(grid) for key, search in searches.items()}, probes


def _next(searches: Mapping[SystemSeed, Search]) -> dict[SystemSeed, int]:
    return {key: place for key, search in searches.items() if (place := search.next_place()) is not None}


def _search(experiment: ResolvedExperiment, question: CapacityQuery, grid: Grid) -> Search:
    fewest = _LEAST_SESSIONS / experiment.workload.duration
    floor = max(question.low / _REACH, min(fewest, question.low))
    return Search(
        low=grid.place(question.low),
        high=grid.place(question.high),
        step=max(1, grid.place(2.0)),
        floor=grid.place(floor),
        ceiling=grid.place(question.high * _REACH),
    )
