"""Service-level objectives in words, such as ``p90 normalized_latency < 0.1 and mean ttft <= 500 ms``.

A session that the run did not finish, or that failed, counts as infinitely late, so that a system gains nothing by
losing sessions. One that was rejected because it can never fit counts for nothing: it is rejected at every load.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caesura.config.units import parse_seconds
from caesura.errors import UserError, did_you_mean, listed
from caesura.results.metric import Floats
from caesura.results.metrics import METRICS as METRICS_OF_RUNS
from caesura.runs.run_folder import read_table

_COLUMNS = dict(metric.objective for metric in METRICS_OF_RUNS if metric.objective is not None)
_ALIASES = {"jct": "e2el", "session_time": "e2el", "e2e": "e2el", "latency": "e2el", "queue_time": "queued"}
METRICS = (*_COLUMNS, "resume_ttft")
NAMED = tuple(f"{name} (or jct, session_time)" if name == "e2el" else name for name in METRICS)
"""The metrics as messages name them."""
_STATISTIC = re.compile(r"mean|median|max|p\d+(\.\d+)?")
_TERM = re.compile(r"(?P<what>[^<>=≤≥]*?)\s*(?P<sign><=|≤|<|>=|≥|>|=+)\s*(?P<limit>.*)", re.DOTALL)
_EXAMPLE = "for example 'p90 normalized_latency<0.1' or 'mean ttft<=500ms and p99 tpot<50ms'"


@dataclass(frozen=True)
class Term:
    """One comparison.

    Attributes:
        statistic: ``mean``, ``median``, ``max``, or a percentile such as ``p90`` (linear interpolation).
        metric: one of ``METRICS``.
        limit: seconds; for normalized latency and TPOT, seconds per token.
        strict: whether the limit itself misses the objective.
    """

    statistic: str
    metric: str
    limit: float
    strict: bool

    @property
    def name(self) -> str:
        """What tables call the measure."""
        return f"{self.statistic}_{self.metric}_s"

    def __str__(self) -> str:
        return f"{self.statistic} {self.metric} {'<' if self.strict else '<='} {_time(self.limit)}"

    def measure(self, folder: Path) -> float:
        """The measure of a run, s; infinite where too many sessions never got there.

        Raises:
            UserError: the run's tables cannot be read.
        """
        return statistic(self.statistic, _values(self.metric, folder))

    def holds(self, value: float) -> bool:
        """Whether a measure is within the limit."""
        return value < self.limit if self.strict else value <= self.limit


@dataclass(frozen=True)
class Slo:
    """An objective: every one of its terms must hold."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.terms))


def parse_slo(text: str) -> Slo:
    """An objective from words: ``STATISTIC METRIC < LIMIT``, several joined by ``and``.

    Raises:
        UserError: what cannot be understood, with what to write instead.
    """
    parts = re.split(r"\s+and\s+|\s*&+\s*|\s*,\s*", text.strip())
    return Slo(tuple(_term(part.strip(), text) for part in parts))


def statistic(name: str, values: Floats) -> float:
    """Mean, median, max or percentile of values of which some may be infinite; infinite where there are none."""
    if not values.size:
        return math.inf
    if name == "mean":
        return float(values.mean())
    percent = {"median": 50.0, "max": 100.0}.get(name)
    percent = float(name[1:]) if percent is None else percent
    if np.isfinite(values).all():
        return float(np.percentile(values, percent))
    ordered = np.sort(values)
    place = (len(values) - 1) * percent / 100
    below, above = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
    return above if math.isinf(above) else below + (above - below) * (place - math.floor(place))


def _values(metric: str, folder: Path) -> Floats:
    if metric == "resume_ttft":
        calls = read_table(folder, "calls")
        return _late_if_missing(calls.loc[calls["call"] > 0, "ttft"].to_numpy(dtype=float))
    sessions = read_table(folder, "sessions")
    finished = sessions[sessions["status"] == "finished"]
    lost = int((~sessions["status"].isin(["finished", "rejected"])).sum())
    known = finished[_COLUMNS[metric]].to_numpy(dtype=float)
    return np.append(known[np.isfinite(known)], np.full(lost, math.inf))


def _late_if_missing(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, math.inf)


def _term(text: str, whole: str) -> Term:
    def wrong(message: str) -> UserError:
        return UserError(f"--slo {whole!r}: {message}")

    found = _TERM.fullmatch(text)
    if found is None:
        raise wrong(f"{text!r} compares nothing with a limit; write {_EXAMPLE}")
    what, sign, limit = found["what"], found["sign"], found["limit"]
    if sign not in ("<", "<=", "≤"):
        raise wrong(f"an objective says what must not be exceeded; write < or <=, not {sign}")
    words = re.split(r"\s+", what.strip()) if " " in what.strip() else what.strip().split("_", 1)
    if len(words) == 1 or not _STATISTIC.fullmatch(words[0]):
        raise wrong(_no_statistic(what.strip(), words[0]))
    if words[0].startswith("p") and not 0 < float(words[0][1:]) <= 100:
        raise wrong(f"{words[0]} is no percentile; write one from p1 to p100")
    metric = _ALIASES.get(name := "_".join(words[1:]), name)
    if metric not in METRICS:
        raise wrong(f"unknown metric {name!r}{did_you_mean(name, [*METRICS, *_ALIASES])} (there are {listed(NAMED)})")
    try:
        seconds = parse_seconds(limit)
    except ValueError as error:
        raise wrong(f"the limit of {what.strip()}: {error}") from None
    if seconds <= 0:
        raise wrong(f"the limit of {what.strip()} must be more than 0, not {limit}")
    return Term(words[0], metric, seconds, sign == "<")


def _no_statistic(what: str, word: str) -> str:
    joined = what.replace(" ", "_")
    if not what:
        return f"nothing stands before the limit; write {_EXAMPLE}"
    if joined in METRICS or joined in _ALIASES:
        return f"say which statistic of {joined}: mean, median, max or a percentile, as in 'p90 {joined}'"
    known = ("mean", "median", "max", "p50", "p90", "p99", *METRICS)
    return f"unknown statistic {word!r}{did_you_mean(word, known)}; write {_EXAMPLE}"


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:g} ms" if seconds < 1 else f"{seconds:g} s"
