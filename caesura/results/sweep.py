"""The results of a sweep: one table of all its runs, a page and a figure; written beside the runs, and read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from caesura.errors import UserError
from caesura.results.html import embed_image, render_html
from caesura.results.remarks import sweep_remarks
from caesura.results.sections import fill, markdown
from caesura.results.sweep_tables import LABELS, SECTIONS, SweepTables
from caesura.runs.code_hash import versions
from caesura.runs.run_experiment import RUNS
from caesura.runs.run_folder import is_complete, read_json, read_summary, write_bytes, write_file, write_json
from caesura.runs.sweep import SweepPlan, failure

if TYPE_CHECKING:
    from caesura.results.figures import Picture

MARK = "sweep.json"
SHOWN_ROWS = 400


class Sweep(SweepTables):
    """What a sweep found: its tables (see ``SweepTables``) and figures."""

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


def write_sweep(plan: SweepPlan, out: Path) -> Sweep:
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
        images["sweep"] = embed_image(image)
        write_bytes(out / "figures" / "sweep.png", image)
    write_bytes(out / "tables.md", markdown(plan.name, fill(SECTIONS, sweep)))
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


def _table(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Columns in one order and of one type each, whatever the first rows hold; measures that are missing are null."""
    names = list(dict.fromkeys([*keys, *LABELS, *(name for row in rows for name in row)]))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, int | float) for value in known)
    return pa.array(values, pa.float64() if numbers and not all(isinstance(value, int) for value in known) else None)


def _facts(plan: SweepPlan) -> dict[str, Any]:
    profile = plan.first.profile
    return {
        "name": plan.name,
        "over": {axis.key: list(axis.cells) for axis in plan.axes},
        "systems": list(plan.systems),
        "seeds": plan.first.seeds,
        "loads": len({row.run.workload.load for row in plan.rows}),
        "load_unit": plan.first.workload.arrivals.load_unit,
        "profile": {"name": plan.first.profile_reference, "origin": profile.origin, "source": profile.source},
        "versions": versions(),
        "rows": len(plan.rows),
        "runs": len(plan.runs),
    }


def _page(sweep: Sweep, images: Mapping[str, str]) -> str:
    sections = fill(SECTIONS, sweep)
    cut = any(len(one.table.rows) > SHOWN_ROWS for one in sections)
    shown = [replace(one, table=one.table.first(SHOWN_ROWS)) for one in sections]
    return render_html(
        "sweep.html.j2",
        sweep=sweep,
        facts=sweep.facts,
        sections=shown,
        cut=SHOWN_ROWS if cut else 0,
        images=images,
        remarks=sweep_remarks(sweep),
        fixed={name: sweep.values(name)[-1] for name in sweep.dimensions[2:]},
    )
