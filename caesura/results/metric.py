"""What a metric is: one declaration that says what is measured, and from which summaries and tables take everything.

A metric's name, unit and meaning, the statistic that is taken of it, the column that it comes from, and where it is
shown stand in one place. ``caesura.results.metrics`` has the list; nothing else must be changed to add to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.results.run_record import RunRecord

Floats = NDArray[np.float64]
TableColumns = dict[str, Any]


@dataclass(frozen=True)
class RunTables:
    """One run, as metrics read it.

    Attributes:
        record: what the simulation recorded.
        sessions: one row a session, measures included.
        calls: one row a call, measures included.
        cut: sessions that were cut to the model's context before the run.
        turned_away: sessions that were rejected before the run, because they outgrow the model's context.
        window: what the GPU and its memory did while sessions arrived, by name.
        extrapolated: what lay beyond what profiles were measured over, by name.
    """

    record: RunRecord
    sessions: TableColumns
    calls: TableColumns
    cut: int
    turned_away: int
    window: dict[str, float]
    extrapolated: dict[str, float | None]

    def column(self, name: str) -> Floats:
        """A column of the sessions."""
        return floats(self.sessions[name])

    def count(self, status: str) -> int:
        """The sessions that ended with a status."""
        return list(self.sessions["status"]).count(status)

    @property
    def seconds(self) -> float:
        """The time from the first moment to the last, s."""
        return self.record.totals["end_time"]

    @functools.cached_property
    def finished(self) -> NDArray[np.bool_]:
        """Whether each session finished."""
        return np.array([one == "finished" for one in self.sessions["status"]], dtype=bool)

    def total(self, name: str) -> int:
        """The sum of a column over all sessions."""
        return int(self.column(name).sum())

    def total_finished(self, name: str) -> int:
        """The sum of a column over the sessions that finished."""
        return int(self.column(name)[self.finished].sum())

    @property
    def generated(self) -> int:
        """Tokens that finished sessions generated, all samples counted."""
        samples = floats(self.sessions.get("samples", np.ones(len(self.finished))))
        return int((samples * self.column("output_tokens"))[self.finished].sum())


class Shown(NamedTuple):
    """A metric as tables show it.

    Attributes:
        heading: of its column.
        key: of the summary.
        scale: what the value is multiplied by.
        place: columns stand by rising place.
    """

    heading: str
    key: str
    scale: float
    place: int


def one(_name: str, value: Any) -> dict[str, Any]:
    """The number itself, under the metric's own name."""
    return {_name: value}


def spread(name: str, value: Floats) -> dict[str, Any]:
    """Mean, median, deviation and percentiles (linear interpolation) of what was measured; None of nothing."""
    known = value[np.isfinite(value)]
    if not known.size:
        return {f"{kind}_{name}": None for kind in ("mean", "median", "std", "p50", "p90", "p99")}
    p50, p90, p99 = (float(p) for p in np.percentile(known, [50, 90, 99]))
    return {
        f"mean_{name}": float(known.mean()),
        f"median_{name}": p50,
        f"std_{name}": float(known.std()),
        f"p50_{name}": p50,
        f"p90_{name}": p90,
        f"p99_{name}": p99,
    }


@dataclass(frozen=True)
class Metric:
    """One thing that is measured of every run.

    Attributes:
        name: its key in ``summary.json``; of a ``spread``, what follows ``mean_``, ``p99_`` and the like.
        unit: of the value in the summary.
        meaning: in one line.
        measure: the number, or for a ``spread`` one number a session or call; NaN where there is none.
        statistic: ``one`` or ``spread``: which keys it has in the summary.
        shown: the columns that tables of results have of it: heading, key of the summary, factor.
        needs: a column without which there is nothing to summarize: records of before it was counted lack it.
        objective: the name under which ``--slo`` knows it, and the column of the session table; None: not at all.
    """

    name: str
    unit: str
    meaning: str
    measure: Callable[[RunTables], Any]
    statistic: Callable[[str, Any], dict[str, Any]] = one
    shown: Sequence[Shown] = ()
    needs: str | None = None
    objective: tuple[str, str] | None = None

    def summarize(self, run: RunTables) -> dict[str, Any]:
        """Its part of the summary of a run."""
        if self.needs is not None and self.needs not in run.sessions:
            return {}
        return self.statistic(self.name, self.measure(run))


def of_sessions(name: str, column: str, scale: float = 1.0, **more: Any) -> Metric:
    """A spread over the sessions of a column of their table, times ``scale``; finished sessions have a measure."""
    return Metric(name, measure=lambda run: scale * run.column(column), statistic=spread, **more)


def ratio(part: float, whole: float) -> float:
    """A share; 0 where there is no whole."""
    return part / whole if whole > 0 else 0.0


def floats(values: Sequence[float] | Floats) -> Floats:
    """A column as an array."""
    return np.asarray(values, dtype=np.float64)
