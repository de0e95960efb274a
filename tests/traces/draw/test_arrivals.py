"""Arrival processes: their statistics, their seeds, and the pairing of workloads over load."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import (
    ArrivalProcess,
    Call,
    Gamma,
    Pause,
    Poisson,
    Replay,
    Session,
    TraceError,
    draw_workload,
    replay_workload,
    shipped,
)

MIX = shipped.load("infercept-mix")
SEEDS = st.integers(0, 2**32)
RATES = st.floats(0.1, 20)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("process", "variation"),
    [(Poisson(4.0), 1.0), (Gamma(4.0), 1.0), (Gamma(4.0, 0.25), 2.0), (Gamma(4.0, 100.0), 0.1)],
)
def test_gaps_have_the_rate_and_the_coefficient_of_variation(process: ArrivalProcess, variation: float) -> None:
    """Gamma gaps of shape b vary by b ** -0.5: 0.25 gives 2, 100 gives 0.1."""
    gaps = np.diff(process.first(200_000, rng()), prepend=0.0)
    assert gaps.mean() == pytest.approx(1 / 4, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.02)


@given(seed=SEEDS, rate=RATES, burstiness=st.floats(0.05, 50), duration=st.floats(0, 50))
@settings(max_examples=100, deadline=None)
def test_times_ascend_end_before_the_duration_and_begin_alike(
    seed: int, rate: float, burstiness: float, duration: float
) -> None:
    for process in (Poisson(rate), Gamma(rate, burstiness)):
        times = process.times(duration, rng(seed))
        assert (np.diff(times) >= 0).all()
        assert (times < duration).all()
        longer = process.first(len(times) + 1, rng(seed))
        assert (longer[:-1] == times).all()
        assert longer[-1] >= duration


@given(seed=SEEDS, slow=RATES, factor=st.floats(1, 4))
@settings(max_examples=30, deadline=None)
def test_workloads_over_load_are_paired(seed: int, slow: float, factor: float) -> None:
    """At a higher rate come the same sessions in the same order, at arrivals divided by the factor, and then more."""
    few = draw_workload(MIX, Poisson(slow), 20.0, seed)
    many = draw_workload(MIX, Poisson(slow * factor), 20.0, seed)
    assert len(few) <= len(many)
    for one, other in zip(few, many, strict=False):
        assert (one.id, one.calls) == (other.id, other.calls)
        assert one.arrival / factor == pytest.approx(other.arrival, rel=1e-9)
    bursty = draw_workload(MIX, Gamma(slow, 0.5), 20.0, seed)
    assert all(one.id == other.id for one, other in zip(few, bursty, strict=False))


def test_a_drawn_workload_has_its_own_ids_and_ordered_arrivals() -> None:
    drawn = draw_workload(MIX, Poisson(5.0), 600.0, seed=3)
    assert len(drawn) == pytest.approx(3000, abs=4 * math.sqrt(3000))
    assert len({session.id for session in drawn}) == len(drawn)
    assert drawn[7].id.endswith("#7")
    assert all(type(session.arrival) is float and 0 <= session.arrival < 600 for session in drawn)
    assert drawn == sorted(drawn, key=lambda session: session.arrival)
    assert drawn == draw_workload(MIX, Poisson(5.0), 600.0, seed=3)
    assert drawn != draw_workload(MIX, Poisson(5.0), 600.0, seed=4)


def test_sessions_are_drawn_uniformly() -> None:
    """40,000 draws of 4: each 10,000 times, within 5 standard deviations of sqrt(10,000 * 3/4) = 87."""
    four = [Session(name, 0.0, 1, (Call(1),)) for name in "abcd"]
    drawn = draw_workload(four, Replay((0.0,) * 40_000), 1.0, seed=0)
    for name in "abcd":
        assert abs(sum(session.id.startswith(name) for session in drawn) - 10_000) < 5 * 87


def test_replayed_sessions_keep_their_own_arrivals() -> None:
    late, early, tie = (Session(name, arrival, 1, (Call(1),)) for name, arrival in (("l", 5.0), ("e", 1.0), ("t", 1.0)))
    assert replay_workload([late, early, tie]) == [early, tie, late]
    assert replay_workload([late, early, tie], duration=5.0) == [early, tie]
    assert Replay.of([late, early]).recorded == (1.0, 5.0)
    drawn = draw_workload(MIX, Replay.of([late, early, tie]), 600.0, seed=0)
    assert [session.arrival for session in drawn] == [1.0, 1.0, 5.0]


def test_a_csv_column_of_dates_or_numbers_gives_arrivals(tmp_path: Path) -> None:
    """Counted from the earliest: 46.68 s, 50.99 s and 45.18 s after the minute are 1.5, 5.81 and 0."""
    path = tmp_path / "azure.csv"
    path.write_text(
        "TIMESTAMP,ms\n2023-11-16 18:15:46.6800000,10\n2023-11-16 18:15:50.9900000,40\n2023-11-16 18:15:45.1800000,20\n"
    )
    assert Replay.from_csv(path, "TIMESTAMP").recorded == pytest.approx((0, 1.5, 5.81))
    assert Replay.from_csv(path, "ms", unit=0.001).recorded == pytest.approx((0, 0.01, 0.03))
    assert Replay.from_csv(path, "ms").times(25.0).tolist() == [0.0, 10.0]
    with pytest.raises(ValueError, match="4 arrivals wanted, but only 3 are recorded"):
        Replay.from_csv(path, "ms").first(4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "line 1: found the columns a, b; expected a CSV file with a header and a column 't'"),
        ("", r"found the columns \(none\)"),
        ("t\n", "found a header only"),
        ("t\n1\nsoon\n", "line 3, field t: found 'soon'; expected a finite number, or a date"),
        ("t\nnan\n", "line 2, field t: found 'nan'"),
        ("t,u\n1,2\n,3\n", "line 3, field t: found ''"),
    ],
)
def test_a_csv_without_arrivals_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(TraceError, match=message):
        Replay.from_csv(path, "t")


def test_a_csv_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no readable file"):
        Replay.from_csv(tmp_path / "absent.csv", "t")
    with pytest.raises(TraceError, match="no readable file"):
        Replay.from_csv(tmp_path, "t")
    (tmp_path / "x.csv").write_bytes(b"t\n\xff\n")
    with pytest.raises(TraceError, match="no CSV text"):
        Replay.from_csv(tmp_path / "x.csv", "t")


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate is .*; it must be finite and > 0"):
        Poisson(rate)
    with pytest.raises(ValueError, match=r"rate is .*; it must be finite and > 0"):
        Gamma(rate)


@pytest.mark.parametrize("burstiness", [0.0, -1.0, 1e-9, math.nan, math.inf])
def test_a_burstiness_that_is_none_is_refused(burstiness: float) -> None:
    with pytest.raises(ValueError, match=r"burstiness is .*; it must be finite and >= "):
        Gamma(1.0, burstiness)


def test_impossible_workloads_are_refused() -> None:
    with pytest.raises(ValueError, match="no sessions to draw from"):
        draw_workload([], Poisson(1.0), 10.0, 0)
    for duration in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"duration is .*; it must be finite and > 0 seconds"):
            draw_workload(MIX, Poisson(1.0), duration, 0)
    with pytest.raises(ValueError, match="expected arrivals must be 0 to"):
        draw_workload(MIX, Poisson(1e9), 600.0, 0)
    with pytest.raises(ValueError, match=r"recorded\[1\] is 1.0; times must be finite, >= 0 and ascending"):
        Replay((2.0, 1.0))
    parent = Session("p", 0.0, 1, (Call(1, Pause(1.0, session="child")), Call(1)))
    with pytest.raises(ValueError, match="'p' waits for another session"):
        draw_workload([parent], Poisson(1.0), 10.0, 0)
