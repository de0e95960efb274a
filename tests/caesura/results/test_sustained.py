"""Sustained load and what a gain is made of, computed by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caesura.results.sustained import Split, Sustained, batching_splits, ratio_text, sustained_load


def test_the_crossing_is_interpolated_in_the_logarithm_of_latency() -> None:
    """0.05 at 2 and 0.2 at 4: 0.1 lies half-way in the logarithm, at 3."""
    assert sustained_load([2, 4], [0.05, 0.2], 0.1) == Sustained(pytest.approx(3.0))


def test_a_load_that_meets_the_objective_exactly_is_sustained() -> None:
    assert sustained_load([1, 2], [0.1, 0.3], 0.1) == Sustained(pytest.approx(1.0))


def test_never_crossed_is_at_least_the_highest_load() -> None:
    assert sustained_load([1, 2], [0.02, 0.05], 0.1) == Sustained(2, "at least")


def test_always_above_is_below_the_lowest_load() -> None:
    assert sustained_load([1, 2], [0.2, 0.5], 0.1) == Sustained(1, "below")


def test_a_dip_behind_the_crossing_counts_for_nothing() -> None:
    """0.2 at 2 stays the curve's height at 3 and 4."""
    assert sustained_load([1, 2, 3, 4], [0.05, 0.2, 0.06, 0.4], 0.1) == sustained_load([1, 2], [0.05, 0.2], 0.1)


def test_loads_may_come_in_any_order() -> None:
    assert sustained_load([4, 2], [0.2, 0.05], 0.1) == Sustained(pytest.approx(3.0))


def test_a_run_that_finished_nobody_misses_every_objective() -> None:
    assert sustained_load([1, 2], [0.05, None], 0.1) == Sustained(1)
    assert sustained_load([1, 2], [None, None], 0.1) == Sustained(1, "below")


@given(
    st.lists(st.floats(0.001, 10), min_size=1, max_size=8),
    st.floats(0.001, 10),
    st.floats(1.0, 3.0),
)
def test_a_looser_objective_never_sustains_less(latencies: list[float], objective: float, looser: float) -> None:
    loads = [float(index + 1) for index in range(len(latencies))]
    strict = sustained_load(loads, latencies, objective)
    loose = sustained_load(loads, latencies, objective * looser)
    assert loose.load >= strict.load - 1e-9
    assert loads[0] <= strict.load <= loads[-1]


@pytest.mark.parametrize(
    ("one", "reference", "text"),
    [
        (Sustained(6), Sustained(4), "1.50×"),
        (Sustained(6, "at least"), Sustained(4), "≥ 1.50×"),
        (Sustained(1, "below"), Sustained(4), "≤ 0.25×"),
        (Sustained(6), Sustained(8, "at least"), "≤ 0.75×"),
        (Sustained(6), Sustained(1, "below"), "≥ 6.00×"),
        (Sustained(6, "at least"), Sustained(1, "below"), "≥ 6.00×"),
        (Sustained(6, "at least"), Sustained(6, "at least"), "–"),
        (Sustained(1, "below"), Sustained(1, "below"), "–"),
    ],
)
def test_a_ratio_says_what_the_bounds_allow(one: Sustained, reference: Sustained, text: str) -> None:
    assert ratio_text(one, reference) == text


def test_a_gain_is_split_into_batching_and_the_rest() -> None:
    """vllm 4, with infercept's batching 5, infercept 8: 2 = 1.25 × 1.6."""
    loads = {"vllm": Sustained(4), "vllm-chunked": Sustained(5), "infercept": Sustained(8), "swap": Sustained(3)}
    assert batching_splits(loads) == [Split("vllm", "vllm-chunked", "infercept", "2.00×", "1.25×", "1.60×")]


def test_a_preset_that_batches_like_infercept_is_split_by_its_unchunked_twin() -> None:
    loads = {"cache-lru": Sustained(6), "cache-lru-unchunked": Sustained(5), "infercept": Sustained(8)}
    (split,) = batching_splits(loads)
    assert (split.baseline, split.twin) == ("cache-lru-unchunked", "cache-lru")
    assert math.prod(float(part[:-1]) for part in (split.batching, split.rest)) == pytest.approx(1.6, rel=0.01)


def test_without_infercept_nothing_is_split() -> None:
    assert batching_splits({"vllm": Sustained(4), "vllm-chunked": Sustained(5)}) == []


def test_small_loads_keep_three_digits() -> None:
    assert [str(Sustained(load)) for load in (10.956, 0.125, 0.0123, 0.0)] == ["10.96", "0.12", "0.0123", "0.00"]
