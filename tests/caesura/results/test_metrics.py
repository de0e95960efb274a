"""Measures, computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from caesura.results.metrics import (
    USES,
    UnbalancedMemory,
    call_table,
    memory_shares,
    session_table,
    summarize,
    window_shares,
)
from sim.results.run_record import RunRecord

NAN = math.nan

TOTALS = {
    "end_time": 40.0,
    "forward_s": 20.0,
    "recompute_forward_s": 5.0,
    "memory_token_s": 4000.0,
    "useful_token_s": 1000.0,
    "waste_preserve_token_s": 400.0,
    "waste_recompute_own_token_s": 100.0,
    "waste_recompute_others_token_s": 300.0,
    "waste_swap_token_s": 200.0,
    "unused_token_s": 2000.0,
    "gpu_blocks": 100,
    "block_size": 1,
}

TIMELINE = {
    "time": [0.0, 2.0, 4.0, 6.0],
    "seconds": [2.0, 2.0, 2.0, 34.0],
    "useful": [40.0, 20.0, 0.0, 0.0],
    "preserve": [0.0, 40.0, 0.0, 0.0],
    "recompute_own": [10.0, 0.0, 0.0, 0.0],
    "recompute_others": [20.0, 0.0, 0.0, 0.0],
    "swap": [10.0, 0.0, 0.0, 0.0],
    "unused": [20.0, 40.0, 100.0, 100.0],
    "forward": [0.8, 0.4, 0.5, 0.1],
    "recompute_forward": [0.4, 0.1, 0.0, 0.0],
}


def record(**changes: Any) -> RunRecord:
    """Three sessions: one with a pause, one with a single token, one that was rejected.

    ``a`` arrives at 2, emits its first of 11 tokens at 3, pauses 5 s, ends at 13; tools returned 9 tokens to it.
    ``b`` arrives at 4, emits its only token at 4.5; then a trailing pause of 2 s ends the session at 6.5.
    """
    sessions = {
        "id": ["a", "b", "c"],
        "kind": ["chat", "math", "qa"],
        "status": ["finished", "finished", "rejected"],
        "reason": ["", "", "too long"],
        "arrival": [2.0, 4.0, 5.0],
        "first_token_at": [3.0, 4.5, NAN],
        "finished_at": [13.0, 6.5, NAN],
        "input_ended_at": [2.0, 4.0, 5.0],
        "prompt_tokens": [100, 50, 9000],
        "output_tokens": [11, 1, 0],
        "inference_tokens": [0, 0, 0],
        "returned_tokens": [9, 0, 0],
        "calls": [2, 1, 1],
        "pauses": [1, 1, 0],
        "pause_s": [5.0, 2.0, 0.0],
        "queued_s": [1.0, 0.0, 0.0],
        "recomputed_tokens": [7, 0, 0],
        "swapped_out_bytes": [64, 0, 0],
        "swapped_in_bytes": [32, 0, 0],
        "preemptions": [0, 0, 0],
    }
    calls = {
        "session": ["a", "a", "b"],
        "call": [0, 1, 0],
        "ready_at": [2.0, 9.0, 4.0],
        "first_token_at": [3.0, 9.25, 4.5],
    }
    return RunRecord(sessions={**sessions, **changes}, calls=calls, timeline=TIMELINE, totals=dict(TOTALS))


def test_normalized_latency_takes_the_pauses_out_and_divides_by_output_tokens() -> None:
    """a: (13 - 2 - 5) / 11 = 6/11; b: (6.5 - 4 - 2) / 1 = 0.5; c did not finish."""
    table = session_table(record())
    assert table["normalized_latency"][:2] == pytest.approx([6 / 11, 0.5])
    assert math.isnan(table["normalized_latency"][2])


def test_the_released_variant_counts_returned_tokens() -> None:
    """a: 6 / (11 + 9) = 0.3; b has none returned."""
    assert session_table(record())["normalized_latency_released"][:2] == pytest.approx([0.3, 0.5])


def test_ttft_counts_from_the_arrival_and_after_a_pause_from_the_answer() -> None:
    """First tokens at 3 and 4.5 after arrivals at 2 and 4; the second call of a: 9.25 - 9."""
    assert session_table(record())["ttft"][:2] == pytest.approx([1.0, 0.5])
    assert call_table(record())["ttft"] == pytest.approx([1.0, 0.25, 0.5])


def test_tpot_needs_two_tokens_and_takes_the_pauses_out() -> None:
    """a: (13 - 3 - 5) / 10 = 0.5; b has a single token."""
    tpot = session_table(record())["tpot"]
    assert tpot[0] == pytest.approx(0.5)
    assert math.isnan(tpot[1])


def test_latencies_of_a_prompt_that_streams_in_count_from_its_end_and_in_tokens_of_the_answer() -> None:
    """a's input ends at 2.5, 6 of its 11 tokens are inferences: 13 - 2.5; 3 - 2.5; (13 - 2.5 - 5) / 5; 5 / 4."""
    table = session_table(record(input_ended_at=[2.5, 4.0, 5.0], inference_tokens=[6, 0, 0]))
    assert table["e2el"][0] == pytest.approx(10.5)
    assert table["ttft"][0] == pytest.approx(0.5)
    assert table["normalized_latency"][0] == pytest.approx(1.1)
    assert table["tpot"][0] == pytest.approx(1.25)


def test_session_time_includes_pauses() -> None:
    assert session_table(record())["e2el"][:2] == pytest.approx([11.0, 2.5])


def test_summary_by_hand() -> None:
    """Two of four sessions done in 40 s: 150 prompt and 12 output tokens; one was turned away before the run."""
    one = record()
    summary = summarize(one, session_table(one), call_table(one), cut=3, turned_away=1)
    expected = {
        "num_prompts": 4,
        "completed": 2,
        "rejected": 2,
        "failed": 0,
        "unfinished": 0,
        "cut": 3,
        "duration": 40.0,
        "total_input_tokens": 150,
        "total_output_tokens": 12,
        "total_returned_tokens": 9,
        "request_throughput": 2 / 40,
        "output_throughput": 12 / 40,
        "total_token_throughput": 162 / 40,
        "mean_normalized_latency_s": (6 / 11 + 0.5) / 2,
        "mean_ttft_ms": 750.0,
        "median_ttft_ms": 750.0,
        "p90_ttft_ms": 500 + 0.9 * 500,
        "p99_ttft_ms": 500 + 0.99 * 500,
        "std_ttft_ms": 250.0,
        "mean_resume_ttft_ms": 250.0,
        "mean_tpot_ms": 500.0,
        "mean_e2el_ms": (11_000 + 2_500) / 2,
        "swapped_out_bytes": 64,
    }
    assert {key: summary[key] for key in expected} == pytest.approx(expected)


def test_throughput_counts_all_samples_and_latency_is_that_of_one() -> None:
    """Three samples in a and two in b: 3 * 11 + 2 * 1 tokens."""
    one, alone = record(samples=[3, 2, 1]), record()
    summary = summarize(one, session_table(one), call_table(one))
    assert summary["total_output_tokens"] == 35
    assert summary["output_throughput"] == pytest.approx(35 / 40)
    both = (session_table(run)["normalized_latency"] for run in (one, alone))
    assert [list(values[:2]) for values in both] == [[6 / 11, 0.5]] * 2


def test_what_was_not_measured_is_none() -> None:
    one = record(status=["rejected"] * 3, first_token_at=[NAN] * 3)
    summary = summarize(one, session_table(one), call_table(one))
    assert summary["mean_normalized_latency_s"] is None
    assert summary["p99_tpot_ms"] is None
    assert summary["completed"] == 0


def test_an_unfinished_session_has_a_ttft_and_no_end() -> None:
    one = record(status=["unfinished", "finished", "rejected"])
    table = session_table(one)
    assert table["ttft"][0] == 1.0
    assert math.isnan(table["e2el"][0])
    assert math.isnan(table["normalized_latency"][0])


@pytest.mark.parametrize("part", USES)
def test_memory_that_does_not_add_up_is_refused(part: str) -> None:
    """2e-8 of the whole is 2e-6 %, twice the tolerance; a quarter of it passes."""
    part = USES[part]
    with pytest.raises(UnbalancedMemory, match=r"not 100 %"):
        memory_shares(TOTALS | {part: TOTALS[part] + 4000 * 2e-8})
    memory_shares(TOTALS | {part: TOTALS[part] + 4000 * 0.5e-8})


def test_shares_are_those_while_sessions_arrive() -> None:
    """The last arrival is at 5 s: the steps from 0 to 4 s count, 100 blocks for 4 s.

    Kept: 40 x 2 of 400. Recompute: own 10 x 2, others 20 x 2. Copies: 10 x 2. Unused: (20 + 40) x 2.
    Forward: (0.8 + 0.4) x 2 s, of it recompute (0.4 + 0.1) x 2 s.
    """
    expected = {
        "window_s": 4.0,
        "useful_pct": 30.0,
        "waste_preserve_pct": 20.0,
        "waste_recompute_own_pct": 5.0,
        "waste_recompute_others_pct": 10.0,
        "waste_swap_pct": 5.0,
        "unused_pct": 30.0,
        "waste_pct": 40.0,
        "recompute_share": 1.0 / 2.4,
        "busy_share": 0.6,
    }
    assert window_shares(record()) == pytest.approx(expected)


def test_a_timeline_that_does_not_add_up_is_refused() -> None:
    one = record()
    one.timeline = TIMELINE | {"swap": [10.0, 1.0, 0.0, 0.0]}
    with pytest.raises(UnbalancedMemory):
        window_shares(one)


def test_a_run_without_time_wastes_nothing() -> None:
    assert memory_shares(dict.fromkeys(TOTALS, 0.0))["waste_pct"] == 0
