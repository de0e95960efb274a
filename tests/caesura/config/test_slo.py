"""Objectives in words, and the measure of a run that they name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caesura.config.slo import Slo, Term, parse_slo, statistic
from caesura.errors import UserError


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("p90 normalized_latency<0.1", [Term("p90", "normalized_latency", 0.1, True)]),
        ("mean ttft<=500ms", [Term("mean", "ttft", 0.5, False)]),
        ("p99 tpot<50 ms", [Term("p99", "tpot", 0.05, True)]),
        ("p99_ttft ≤ 2 s", [Term("p99", "ttft", 2.0, False)]),
        ("p99.9 jct < 5 min", [Term("p99.9", "e2el", 300.0, True)]),
        ("mean session time <= 20 s", [Term("mean", "e2el", 20.0, False)]),
        (
            "mean ttft<1 and p50 resume ttft<2, max queued<3",
            [Term("mean", "ttft", 1, True), Term("p50", "resume_ttft", 2, True), Term("max", "queued", 3, True)],
        ),
    ],
)
def test_an_objective_is_a_statistic_a_metric_and_a_limit(text: str, terms: list[Term]) -> None:
    assert parse_slo(text) == Slo(tuple(terms))
    assert parse_slo(str(parse_slo(text))) == parse_slo(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p90 normlized_latency<0.1", "unknown metric 'normlized_latency'; did you mean 'normalized_latency'?"),
        ("ttft<1", "say which statistic of ttft: mean, median, max or a percentile, as in 'p90 ttft'"),
        ("resume ttft<1", "say which statistic of resume_ttft"),
        ("meen ttft<1", "unknown statistic 'meen'; did you mean 'mean'?"),
        ("p90 ttft", "compares nothing with a limit"),
        ("p90 ttft>1", "write < or <=, not >"),
        ("p200 ttft<1", "p200 is no percentile"),
        ("p0 ttft<1", "p0 is no percentile"),
        ("p90 ttft<fast", "the limit of p90 ttft: 'fast' is not a quantity"),
        ("p90 cost<1", "e2el (or jct, session_time)"),
        ("p90 ttft<1 lightyear", "unknown unit"),
        ("p90 ttft<0", "must be more than 0"),
        ("<1", "nothing stands before the limit"),
        ("", "compares nothing"),
        ("mean ttft<1 and", "unknown unit 'and'"),
    ],
)
def test_nonsense_is_answered_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_slo(text)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"--slo {text!r}: ")


def test_the_limit_itself_is_within_at_most_and_outside_less_than() -> None:
    assert Term("mean", "ttft", 1.0, strict=False).holds(1.0)
    assert not Term("mean", "ttft", 1.0, strict=True).holds(1.0)
    assert not Term("mean", "ttft", 1.0, strict=False).holds(math.inf)


def test_a_percentile_that_reaches_a_lost_session_is_infinite() -> None:
    """1, 2, 3, inf: the median lies between 2 and 3; p90 stands at place 2.7, between 3 and inf."""
    values = np.array([3.0, math.inf, 1.0, 2.0])
    assert statistic("median", values) == 2.5
    assert statistic("p90", values) == math.inf
    assert statistic("mean", values) == math.inf
    assert statistic("max", values[:1]) == 3.0
    assert statistic("p50", np.array([])) == math.inf


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(0.1, 100))
def test_adding_a_lost_session_never_helps(values: list[float], percent: float) -> None:
    known = np.array(values)
    name = f"p{percent}"
    assert statistic(name, known) == np.percentile(known, percent)
    with_lost = statistic(name, np.append(known, math.inf))
    assert with_lost >= statistic(name, known) or math.isclose(with_lost, statistic(name, known))


def test_measures_are_those_of_the_summary(caesura: Callable, experiment: Callable) -> None:
    experiment()
    caesura("run", "x.yaml", "--out", "o")
    for folder in Path("o/runs").iterdir():
        summary = json.loads((folder / "summary.json").read_text())
        for text, expected in {
            "p90 normalized_latency<1": summary["p90_normalized_latency_s"],
            "mean ttft<1": summary["mean_ttft_ms"] / 1e3,
            "p99 tpot<1": summary["p99_tpot_ms"] / 1e3,
            "median jct<1": summary["median_e2el_ms"] / 1e3,
            "mean resume_ttft<1": summary["mean_resume_ttft_ms"] / 1e3,
            "p50 queued<1": summary["p50_queued_s"],
        }.items():
            (term,) = parse_slo(text).terms
            assert term.measure(folder) == pytest.approx(expected, rel=1e-12)


def test_sessions_that_a_run_left_unfinished_are_infinitely_late(caesura: Callable, experiment: Callable) -> None:
    """Cut at 8 s, some of 10 s of arrivals are still inside."""
    experiment()
    caesura("run", "x.yaml", "--set", "replica.horizon=8 s", "--out", "o")
    folder = next(Path("o/runs").iterdir())
    assert json.loads((folder / "summary.json").read_text())["unfinished"] > 0
    assert parse_slo("mean ttft<1").terms[0].measure(folder) == math.inf
    assert math.isfinite(parse_slo("p10 ttft<1").terms[0].measure(folder))
