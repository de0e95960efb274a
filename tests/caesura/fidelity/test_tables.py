"""Where the errors of replays come from, as it is told."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from caesura.config.systems import load_preset
from caesura.fidelity.fidelity import Fidelity
from caesura.fidelity.figures import FIGURES
from caesura.fidelity.replays import ReplayCosts, Replayed, replay_all
from caesura.fidelity.tables import aim_rows, error_rows, pace_verdict, share_rows
from profiler.serving.recorded_run import RecordedRun, replay, save
from profiler.serving.time_split import TimeSplit
from sim.costs.profile import Measurement
from tests.caesura.fidelity.small_real_runs import GUESSED
from traces.session import Call, Session

SHARES = TimeSplit(
    iterations=2000,
    waited=0.0,
    whole_s=0.010,
    device_s=0.008,
    expected_device_s=0.0082,
    host_s=0.002,
    expected_host_s=0.0015,
)

MEASURED = Measurement(date="", commit="", machine={}, within_aim=False, verdict="misses it", errors={})
ONE = Session("only", 0.0, 40, (Call(5),))


def errors(**pct: float) -> Fidelity:
    """A replay of vllm at 8 a second; ``TTFT_mean`` stands for ``TTFT mean``."""
    named = {name.replace("_", " "): error for name, error in pct.items()}
    return Fidelity("vllm", 8.0, {}, {}, named, {}, mape_pct=1.0, sessions=100)


def replayed(fidelity: Fidelity, at_its_pace: Fidelity | None, shares: TimeSplit | None = SHARES) -> Replayed:
    return Replayed(Path("vllm.load-8"), "bench", "costs", {}, 100, 100, fidelity, shares, at_its_pace)


def test_shares_are_told_by_how_much_the_profile_is_off() -> None:
    """The device 8.2 ms for 8: +2.5 %; the host 1.5 for 2: -25 %; both 9.7 for 10, -3 %. Of the two errors none is
    within the aim, at the run's pace the mean is."""
    one = replayed(
        errors(normalized_latency_mean=-4.0, TTFT_p90=7.0), errors(normalized_latency_mean=1.0, TTFT_p90=7.0)
    )
    rows = share_rows([one])
    assert rows.rows == [
        ["vllm @ 8", "2,000", "10.00", "8.00", "+2.5", "2.00", "-25.0", "0.00", "-3.0", "-4.0", "+1.0", "0 / 1"]
    ]  # fmt: skip
    assert len(rows.headings) == len(rows.rows[0])


def test_what_the_host_is_off_by_counts_for_those_that_waited_for_no_copies() -> None:
    """8.2 ms for 8, and in four of five iterations 1.5 for 2: 9.8 for 10."""
    rows = share_rows([replayed(errors(TTFT_mean=0.0), errors(TTFT_mean=0.0), replace(SHARES, waited=0.2))]).rows
    assert rows[0][8] == "-2.0"


def test_where_every_iteration_waited_for_copies_the_host_has_a_dash() -> None:
    stalled = replace(SHARES, host_s=math.nan, expected_host_s=math.nan)
    (row,) = share_rows([replayed(errors(TTFT_mean=0.0), errors(TTFT_mean=0.0), stalled)]).rows
    assert row[3:8] == ["8.00", "+2.5", "–", "–", "–"]


def test_runs_whose_iterations_were_not_recorded_are_left_out() -> None:
    old = replayed(errors(TTFT_mean=9.0), None, None)
    assert share_rows([old]).rows == []
    assert pace_verdict([old]) == ""
    known = replayed(errors(TTFT_mean=9.0), errors(TTFT_mean=0.0))
    assert len(share_rows([old, known]).rows) == 1
    assert "1 of 1 errors would be within the aim." in pace_verdict([old, known])


def test_the_pace_s_verdict_counts_errors_and_names_the_worst_mean() -> None:
    """Aims are 3 % for means and throughput, 6 % for P90: of -2, 7, 1 and 0 % three are within them."""
    first, second = (
        errors(normalized_latency_mean=-2.0, TTFT_p90=7.0),
        errors(normalized_latency_mean=1.0, throughput=0.0),
    )
    bad = errors(normalized_latency_mean=50.0)
    assert pace_verdict([replayed(bad, first), replayed(bad, second)]) == (
        "With the device and the host as fast as they were in each run in the mean, 3 of 4 errors would be within the "
        "aim, and the mean normalized latency off by at most 2.0 %."
    )


def test_errors_within_the_aim_are_counted_by_measure_and_statistic() -> None:
    """3 % for a mean, 6 % for a P90: of the two means of TTFT one is within it, and its one P90."""
    runs = [
        replayed(errors(TTFT_mean=-3.0, TTFT_p90=6.0, throughput=3.5), None, None),
        replayed(errors(TTFT_mean=3.1), None, None),
    ]
    rows = {row[0]: row[1:] for row in aim_rows(runs).rows}
    assert rows["TTFT"] == ["1 of 2", "–", "1 of 1", "–"]
    assert rows["throughput"] == ["0 of 1", "–", "–", "–"]


def test_figures_bear_runs_in_which_nobody_had_a_second_token() -> None:
    """No TPOT, simulated or real: its panel is empty."""
    known = {"normalized latency mean": 0.1, "TTFT mean": 0.1, "throughput": 1.0}
    one = replace(errors(normalized_latency_mean=1.0), real=known, simulated=known)
    for name, draw in FIGURES.items():
        assert draw([replayed(one, None, None)]).png().startswith(b"\x89PNG"), name


def test_errors_that_miss_the_aim_are_marked() -> None:
    """3 % for a mean and throughput, 6 % for a P99."""
    one = replayed(errors(normalized_latency_mean=-3.2, normalized_latency_p99=5.9, throughput=2.0), None, None)
    (row,) = error_rows([one]).rows
    assert row[2:7] == ["-3.2 !", "–", "–", "+5.9", "+2.0"]


def test_a_profile_that_misses_its_own_aim_is_named(tmp_path: Path) -> None:
    missed = GUESSED.model_copy(update={"measured": MEASURED})
    recorded = RecordedRun("vllm", 1.0, load_preset("vllm").rules(), missed, None, [ONE], None, {"gpu": "none"})  # type: ignore[arg-type]
    save(replace(recorded, record=replay(recorded)), tmp_path)
    (found,) = replay_all([tmp_path / "vllm.load-1"], ReplayCosts(("mine", missed)), jobs=1, progress=False)
    assert found.misses == "mine: misses it"
    (found,) = replay_all([tmp_path / "vllm.load-1"], ReplayCosts(("mine", GUESSED)), jobs=1, progress=False)
    assert found.misses == ""
