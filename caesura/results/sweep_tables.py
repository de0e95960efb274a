"""The runs of a sweep as one table, and the sections that are shown of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from caesura.results.sections import Section
from caesura.results.tables import DETAIL
from caesura.results.text_table import TextTable, number

LABELS = ("system", "load", "seed")


@dataclass(frozen=True, repr=False)
class SweepTables:
    """What a sweep found, as tables.

    Attributes:
        folder: where everything lies.
        name: the experiment's name.
        facts: what was swept: keys and their values, systems, profile, versions.
        table: one row a run that ended: the swept keys, ``system``, ``load``, ``seed``, then every measure of its
            summary. By swept key as written (the last one fastest), then system, load and seed as in the experiment.
        failures: one row a run that failed, in the same order, with its ``error`` and its ``file``.
    """

    folder: Path
    name: str
    facts: Mapping[str, Any]
    table: pd.DataFrame
    failures: pd.DataFrame

    @property
    def keys(self) -> list[str]:
        """The swept keys."""
        return list(self.facts["over"])

    @property
    def systems(self) -> list[str]:
        """The systems, in the order of the experiment."""
        return list(self.facts["systems"])

    @property
    def dimensions(self) -> list[str]:
        """The columns in which the runs differ, beside system and seed. A load that a key sets is no second one."""
        keys = [key for key in self.keys if len(self.facts["over"][key]) > 1 and key != "systems"]
        sets_load = any(key.startswith("workload.arrivals") for key in keys)
        several = self.facts["loads"] > 1 and not sets_load
        return [*keys, "load"] if several else keys

    def values(self, dimension: str) -> list[Any]:
        """The values of a dimension, in the order of tables; loads rise."""
        if dimension == "load":
            return sorted(self.table["load"].unique())
        return list(self.facts["over"][dimension])

    @property
    def report(self) -> Path:
        """The report, one self-contained HTML file."""
        return self.folder / "report.html"


def failure_rows(sweep: SweepTables) -> TextTable:
    """The runs that failed, each with its reason."""
    headings = [*sweep.keys, *LABELS, "error"]
    rows = [[_cell(row[name]) for name in headings] for row in sweep.failures.to_dict("records")]
    return TextTable(f"{len(rows)} runs failed; the traceback or message of each lies in runs/", headings, rows)


def _measure_rows(label: str, column: str, scale: float, sweep: SweepTables) -> TextTable:
    """One measure: a row for each value of the swept keys, a column for each system; means over the seeds."""
    dimensions, table = sweep.dimensions, sweep.table
    if table.empty:
        return TextTable(label, [], [])
    values = scale * pd.to_numeric(table[column])
    groups = values.groupby([table[name] for name in (*dimensions, "system")], sort=False)
    several = bool((groups.size() > 1).any())
    means, deviations = groups.mean().to_dict(), groups.std().to_dict()
    rows = []
    for point in dict.fromkeys(tuple(row) for row in table[dimensions].itertuples(index=False)) if dimensions else [()]:
        cells = []
        for system in sweep.systems:
            key = (*point, system) if dimensions else system
            spread = f" ± {number(deviations[key])}" if several and key in means else ""
            cells.append(number(means.get(key)) + spread)
        rows.append([*map(_cell, point), *cells])
    title = f"{label}, mean over {'seeds ± their standard deviation' if several else 'the run'}"
    return TextTable(title, [*dimensions, *sweep.systems], rows)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _sections() -> list[Section[SweepTables]]:
    sections = []
    for place, (heading, column, scale) in enumerate(DETAIL):
        label = heading.replace("its p99", "p99 norm. latency")
        rows = functools.partial(_measure_rows, label, column, scale)
        sections.append(Section(column, label, rows, on_terminal=place == 0))
    return [*sections, Section("failures", "What failed", failure_rows, urgent=True, wrap=True)]


SECTIONS: tuple[Section[SweepTables], ...] = tuple(_sections())
"""The sections of a sweep: one a measure, and the runs that failed."""
