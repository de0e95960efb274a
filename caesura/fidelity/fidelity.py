"""How far a simulation is from the real run that it replays.

Errors are signed, simulated against real, in percent of the real figure; waste is compared in points. Sessions count
only where both runs finished them. Runs whose workload, token counts or memory pools differ are not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import kendalltau

from caesura.results.metrics import WASTES, session_table, window_shares
from profiler.serving.real_engine import POOLS, tells_memory_use
from profiler.serving.recorded_run import RecordedRun
from sim.results.run_record import RunRecord

MEASURES = {
    "normalized_latency": "normalized latency",
    "ttft": "TTFT",
    "tpot": "TPOT",
    "e2el": "session time",
}
STATISTICS = ("mean", "p50", "p90", "p99")
AIM_PCT = {"mean": 3.0, "p50": 3.0, "p90": 6.0, "p99": 6.0, "throughput": 3.0}
"""Largest error that is aimed at, percent, by the last word of a figure's name."""
AIM_POINTS = 1.0
"""Largest difference of a wasted share of memory that is aimed at, in points."""
CLEAR_GAP = 0.03
"""Systems whose real means differ by less than this share have no rank that a simulator could get right."""


class NotComparable(ValueError):
    """Two runs that did not serve the same work in the same memory."""


@dataclass(frozen=True)
class Fidelity:
    """The errors of one replay.

    Attributes:
        system, load: what was run.
        real, simulated: figures by name, as ``MEASURE STATISTIC``, in seconds; throughput in sessions a second.
        error_pct: signed relative errors of the figures that both sides have, percent.
        waste_points: signed differences of the wasted shares of memory, in points, by cause; empty where the real
            engine did not tell how its memory was used, as ``real_waste`` is then.
        mape_pct: mean absolute relative error over sessions of the normalized latency, percent.
        sessions: how many sessions both runs finished.
        real_waste, simulated_waste: the wasted shares of memory, percent, by cause.
    """

    system: str
    load: float
    real: dict[str, float]
    simulated: dict[str, float]
    error_pct: dict[str, float]
    waste_points: dict[str, float]
    mape_pct: float
    sessions: int
    real_waste: dict[str, float] = field(default_factory=dict)
    simulated_waste: dict[str, float] = field(default_factory=dict)

    def errors_within_aim(self) -> int:
        """How many of ``error_pct`` are as small as is aimed at."""
        return sum(abs(error) <= aim_of(figure) for figure, error in self.error_pct.items())

    def wastes_within_aim(self) -> int:
        """How many of ``waste_points`` are."""
        return sum(abs(points) <= AIM_POINTS for points in self.waste_points.values())


@dataclass(frozen=True)
class Ranking:
    """The systems of one load in order of a figure, the smallest first.

    Attributes:
        real, simulated: names of systems.
        tau: Kendall's rank correlation of the two orders; NaN for one system alone.
        wrong: pairs the wrong way round though the real gap is larger than ``CLEAR_GAP``.
    """

    load: float
    figure: str
    real: list[str]
    simulated: list[str]
    tau: float
    wrong: list[str]


def aim_of(figure: str) -> float:
    """The error that is aimed at for a figure, percent."""
    return AIM_PCT[figure.rsplit(" ", 1)[-1]]


def compare(run: RecordedRun, simulated: RunRecord) -> Fidelity:
    """The errors of ``simulated`` against the real ``run``.

    Raises:
        NotComparable: workload, token counts or memory pools differ.
    """
    real = run.record
    served = {session.id for session in run.sessions}
    for record, side in ((real, "real"), (simulated, "simulated")):
        if strangers := set(record.sessions["id"]) - served:
            raise NotComparable(f"session {min(strangers)} of the {side} run is not in its workload")
    check_comparable(real, simulated)
    tables = [_by_id(real), _by_id(simulated)]
    common = tables[0].index.intersection(tables[1].index)
    both = common[np.isfinite(tables[0].loc[common, "e2el"]) & np.isfinite(tables[1].loc[common, "e2el"])]
    figures = [_figures(table.loc[both], record) for table, record in zip(tables, (real, simulated), strict=True)]
    shares = [_waste_shares(record) for record in (real, simulated)]
    latency = [table.loc[both, "normalized_latency"].to_numpy() for table in tables]
    return Fidelity(
        system=run.name,
        load=run.load,
        real=figures[0],
        simulated=figures[1],
        error_pct={name: 100 * (figures[1][name] / value - 1) for name, value in figures[0].items() if value},
        waste_points={waste: shares[1][waste] - share for waste, share in shares[0].items()},
        mape_pct=float(100 * np.mean(np.abs(latency[1] / latency[0] - 1))) if len(both) else float("nan"),
        sessions=len(both),
        real_waste=shares[0],
        simulated_waste=shares[1],
    )


def check_comparable(real: RunRecord, simulated: RunRecord) -> None:
    """Refuse to compare runs that did not do the same work.

    Raises:
        NotComparable: naming what differs.
    """
    for name in POOLS:
        if name in real.totals and real.totals[name] != simulated.totals[name]:
            raise NotComparable(
                f"{name} is {real.totals[name]:g} in the real run, {simulated.totals[name]:g} simulated"
            )
    for name in ("arrival", "prompt_tokens", "calls"):
        seen = [dict(zip(record.sessions["id"], record.sessions[name], strict=True)) for record in (real, simulated)]
        for session in seen[0].keys() & seen[1].keys():
            if seen[0][session] != seen[1][session]:
                raise NotComparable(f"session {session}: {name} is {seen[0][session]} and {seen[1][session]}")
    done = [_finished_outputs(record) for record in (real, simulated)]
    for session in done[0].keys() & done[1].keys():
        if done[0][session] != done[1][session]:
            raise NotComparable(f"session {session} emitted {done[0][session]} and {done[1][session]} tokens")


def ranks_agree(results: Sequence[Fidelity], figure: str = "normalized latency mean") -> tuple[float, list[str]]:
    """Kendall's tau of the systems' order at one load, and the pairs that are the wrong way round though the real gap
    is larger than ``CLEAR_GAP``."""
    real = np.array([one.real[figure] for one in results])
    simulated = np.array([one.simulated[figure] for one in results])
    wrong = [
        f"{results[i].system} / {results[j].system}"
        for i in range(len(results))
        for j in range(i)
        if abs(real[i] - real[j]) > CLEAR_GAP * min(real[i], real[j])
        and (real[i] - real[j]) * (simulated[i] - simulated[j]) < 0
    ]
    return float(kendalltau(real, simulated).statistic), wrong


def ranking(results: Sequence[Fidelity], figure: str = "normalized latency mean") -> Ranking:
    """How the systems rank at the one load of ``results``, in reality and simulated."""
    known = [one for one in results if figure in one.real]
    real, simulated = (sorted(known, key=lambda one: getattr(one, side)[figure]) for side in ("real", "simulated"))
    tau, wrong = ranks_agree(known, figure) if len(known) > 1 else (float("nan"), [])
    return Ranking(results[0].load, figure, [one.system for one in real], [one.system for one in simulated], tau, wrong)


def table(results: Sequence[Fidelity]) -> pd.DataFrame:
    """One row a run: signed errors in percent, waste in points."""
    rows = []
    for one in results:
        row: dict[str, object] = {"system": one.system, "load": one.load, "sessions": one.sessions}
        row |= {name: one.error_pct.get(name, float("nan")) for name in one.real}
        row |= {f"{name.removeprefix('waste_')} points": value for name, value in one.waste_points.items()}
        rows.append(row | {"MAPE": one.mape_pct})
    return pd.DataFrame(rows)


def _waste_shares(record: RunRecord) -> dict[str, float]:
    """The wasted shares of memory, percent, by cause; none where the engine did not tell how memory was used."""
    if not tells_memory_use(record):
        return {}
    window = window_shares(record)
    return {waste: window[f"{waste}_pct"] for waste in WASTES}


def _by_id(record: RunRecord) -> pd.DataFrame:
    return pd.DataFrame(session_table(record)).set_index("id")


def _finished_outputs(record: RunRecord) -> dict[str, int]:
    sessions = record.sessions
    rows = zip(sessions["id"], sessions["status"], sessions["output_tokens"], strict=True)
    return {name: tokens for name, status, tokens in rows if status == "finished"}


def _figures(rows: pd.DataFrame, record: RunRecord) -> dict[str, float]:
    found: dict[str, float] = {}
    for column, name in MEASURES.items():
        values: NDArray[np.float64] = rows[column].dropna().to_numpy()
        if len(values):
            p50, p90, p99 = np.percentile(values, [50, 90, 99])
            found |= dict(zip((f"{name} {s}" for s in STATISTICS), (values.mean(), p50, p90, p99), strict=True))
    finished = record.sessions["status"].count("finished")
    found["throughput"] = finished / record.totals["end_time"]
    return {name: float(value) for name, value in found.items()}
