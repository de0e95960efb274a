"""The results of a sweep: one table of all its runs, a page and a figure; written beside the runs, and read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from caesura.errors import UserError
from caesura.results.extrapolation import runs_beyond
from caesura.results.html import embedded, render
from caesura.results.tables import DETAIL, Rows, number
from caesura.runs.experiment import RUNS
from caesura.runs.run import versions
from caesura.runs.run_folder import is_complete, read_json, read_summary, write_bytes, write_file, write_json
from caesura.runs.sweep import Plan, failure

if TYPE_CHECKING:
    from caesura.results.figures import Picture

MARK = "sweep.json"
LABELS = ("system", "load", "seed")
SHOWN_ROWS = 400


@dataclass(frozen=True, repr=False)
class Sweep:
    """What a sweep found.

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

    def figure(self, measure: str = "mean_normalized_latency_s") -> Picture:
        """Lines over one dimension or a heatmap over two, for one measure.

        Raises:
            UserError: there is no such measure.
        """
        from caesura.results.sweep_figures import draw

        return draw(self, measure)

    def __repr__(self) -> str:
        return f"<Sweep {self.name!r}: {len(self.table)} runs, {len(self.failures)} failed; {self.folder}>"

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, max_rows=20)


def write_sweep(plan: Plan, out: Path) -> Sweep:
    """Tables, figures and report of a sweep from its runs; ``sweep.json`` comes last.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = out / RUNS
    done = [row for row in plan.rows if is_complete(folder / row.run.name)]
    summaries = {row.run.name: read_summary(folder / row.run.name) for row in done}
    keys = [axis.key for axis in plan.axes]
    points = [dict(zip(keys, row.point, strict=True)) for row in done]
    table = _table(keys, [point | summaries[row.run.name] for point, row in zip(points, done, strict=True)])
    failed = [
        dict(zip(keys, row.point, strict=True))
        | row.run.label
        | {"error": error, "file": f"{row.run.name}.failed.json"}
        for row in plan.rows
        if (error := failure(folder, row.run)) is not None
    ]
    failures = pd.DataFrame(failed, columns=[*keys, *LABELS, "error", "file"])
    sweep = Sweep(out, plan.name, _facts(plan), table.to_pandas(), failures)
    write_file(out / "results.parquet", lambda draft: pq.write_table(table, draft, compression="zstd"))
    write_file(out / "results.csv", lambda draft: sweep.table.to_csv(draft, index=False))
    write_file(out / "failures.csv", lambda draft: failures.to_csv(draft, index=False))
    images = {}
    if len(table) and sweep.dimensions:
        image = sweep.figure().png()
        images["sweep"] = embedded(image)
        write_bytes(out / "figures" / "sweep.png", image)
    write_bytes(out / "report.html", _page(sweep, images).encode())
    write_file(out / MARK, lambda draft: write_json(draft, sweep.facts))
    return sweep


def load_sweep(path: str | Path) -> Sweep:
    """The results in a folder that ``caesura sweep`` wrote.

    Raises:
        UserError: the folder holds no sweep, or a damaged one.
    """
    folder = Path(path)
    if not (folder / MARK).is_file():
        raise UserError(f"{folder} holds no sweep that ended ({MARK} is missing)")
    facts = read_json(folder / MARK)
    try:
        table, failures = pd.read_parquet((folder / "results.parquet").absolute()), pd.read_csv(folder / "failures.csv")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{folder} holds a damaged sweep: {error}") from None
    return Sweep(folder, str(facts["name"]), facts, table, failures)


def measure_rows(sweep: Sweep) -> list[Rows]:
    """One table a measure: a row for each value of the swept keys, a column for each system; means over the seeds."""
    names = {column: label.replace("its p99", "p99 norm. latency") for label, column, _ in DETAIL}
    return [_pivot(sweep, names[column], column, scale) for _, column, scale in DETAIL]


def failure_rows(sweep: Sweep) -> Rows:
    """The runs that failed, each with its reason."""
    headings = [*sweep.keys, *LABELS, "error"]
    rows = [[_cell(row[name]) for name in headings] for row in sweep.failures.to_dict("records")]
    return Rows(f"{len(rows)} runs failed; the traceback or message of each lies in runs/", headings, rows)


def _pivot(sweep: Sweep, label: str, column: str, scale: float) -> Rows:
    dimensions, table = sweep.dimensions, sweep.table
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
    return Rows(title, [*dimensions, *sweep.systems], rows)


def _table(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Columns in one order and of one type each, whatever the first rows hold; measures that are missing are null."""
    names = list(dict.fromkeys([*keys, *LABELS, *(name for row in rows for name in row)]))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, int | float) for value in known)
    return pa.array(values, pa.float64() if numbers and not all(isinstance(value, int) for value in known) else None)


def _facts(plan: Plan) -> dict[str, Any]:
    profile = plan.first.profile
    return {
        "name": plan.name,
        "over": {axis.key: list(axis.cells) for axis in plan.axes},
        "systems": list(plan.systems),
        "seeds": plan.first.experiment.seeds,
        "loads": len({row.run.workload.load for row in plan.rows}),
        "load_unit": plan.first.experiment.workload.arrivals.load_unit,
        "profile": {"name": plan.first.profile_reference, "origin": profile.origin, "source": profile.source},
        "versions": versions(),
        "rows": len(plan.rows),
        "runs": len(plan.runs),
    }


def _page(sweep: Sweep, images: Mapping[str, str]) -> str:
    measures = measure_rows(sweep) if len(sweep.table) else []
    cut = any(len(rows.rows) > SHOWN_ROWS for rows in measures)
    shown = [Rows(rows.title, rows.headings, rows.rows[:SHOWN_ROWS]) for rows in measures]
    return render(
        "sweep.html.j2",
        sweep=sweep,
        facts=sweep.facts,
        measures=shown,
        cut=SHOWN_ROWS if cut else 0,
        images=images,
        failures=failure_rows(sweep),
        extrapolation=runs_beyond(sweep.table),
        fixed={name: sweep.values(name)[-1] for name in sweep.dimensions[2:]},
    )


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
