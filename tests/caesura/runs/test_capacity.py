"""The search for the highest load that holds, and what several seeds say about it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import caesura as package
from caesura.results.capacities import Capacities
from caesura.results.sustained import Sustained
from caesura.runs.capacity_search import Grid, Search
from caesura.runs.executors import local

ANSWER = ("--slo", "p90 normalized_latency<60ms", "--systems", "vllm,infercept", "--duration", "15 s", "--seeds", "2")
COARSE = ("--low", "2", "--high", "16", "--tolerance", "0.25", "--jobs", "1")


def test_the_grid_is_the_powers_of_one_plus_the_tolerance() -> None:
    """1.25^3 = 1.953125, to six digits."""
    grid = Grid(0.25)
    assert [grid.load(place) for place in (0, 1, 3)] == [1.0, 1.25, 1.95312]
    assert all(grid.place(grid.load(place)) == place for place in range(-40, 40))


@given(
    low=st.integers(-50, 50),
    width=st.integers(0, 60),
    step=st.integers(1, 40),
    below=st.integers(0, 80),
    above=st.integers(0, 80),
    truth=st.integers(-200, 200),
)
def test_any_bracket_leads_to_the_last_place_that_holds(
    low: int, width: int, step: int, below: int, above: int, truth: int
) -> None:
    """No place is tried twice; outside what may be tried, the end is named as a bound."""
    floor, ceiling = low - below, max(low + width, low + 1) + above
    search, tried = Search(low, low + width, step, floor, ceiling), set()
    while (place := search.next_place()) is not None:
        assert place not in tried and floor <= place <= ceiling
        tried.add(place)
        search.tell(place, place <= truth)
    if truth < floor:
        assert (search.holds, search.fails) == (None, floor)
    elif truth >= ceiling:
        assert (search.holds, search.fails) == (ceiling, None)
    else:
        assert (search.holds, search.fails) == (truth, truth + 1)


def test_a_good_bracket_costs_the_logarithm_of_its_width_and_never_its_ends() -> None:
    """Places 0 to 64, truth 20: 32, 16, 24, 20, 22, 21."""
    search, tried = Search(0, 64, 35, -100, 200), []
    while (place := search.next_place()) is not None:
        tried.append(place)
        search.tell(place, place <= 20)
    assert tried == [32, 16, 24, 20, 22, 21]


def found(**loads: list[Sustained]) -> Capacities:
    by_seed = {(system, seed): one for system, ones in loads.items() for seed, one in enumerate(ones)}
    facts = {"tolerance": 0.02, "load_unit": "sessions/s", "slo": "mean ttft < 1 s", "duration": 60.0}
    return Capacities(Path("o"), facts, by_seed, pd.DataFrame({"system": list(loads)}))


def exact(*loads: float) -> list[Sustained]:
    return [Sustained(load) for load in loads]


def test_a_capacity_is_the_mean_over_seeds_with_a_t_interval() -> None:
    """4, 5, 6: mean 5, deviation 1, t(2) = 4.3027: 5 ± 2.484; the upper end 2 % wider."""
    capacity = found(a=exact(4, 5, 6)).capacity("a")
    assert capacity.value == 5
    assert capacity.low == pytest.approx(5 - 4.30265 / math.sqrt(3), rel=1e-5)
    assert capacity.high == pytest.approx((5 + 4.30265 / math.sqrt(3)) * 1.02, rel=1e-5)


def test_ratios_are_paired_by_seed() -> None:
    """Twice the load under every seed: the ratio is 2 within the tolerance, however much the seeds differ."""
    ratio = found(a=exact(4, 5, 6), b=exact(8, 10, 12)).ratio("b")
    assert ratio.value == pytest.approx(2)
    assert (ratio.low, ratio.high) == (pytest.approx(2 / 1.02), pytest.approx(2 * 1.02))


def test_one_seed_has_no_interval() -> None:
    capacity = found(a=exact(4)).capacity("a")
    assert (capacity.value, capacity.low, capacity.high, capacity.interval()) == (4, None, None, "–")


def test_bounds_travel_into_the_mean_and_the_ratio() -> None:
    never, always = Sustained(1, "below"), Sustained(64, "at least")
    capacities = found(a=exact(4, 5), b=[always, Sustained(6)], c=[never, never], d=[never, always])
    assert capacities.capacity("b").text() == "≥ 35"
    assert capacities.capacity("b").interval() == "–"
    assert capacities.ratio("b").text("×").startswith("≥ ")
    assert capacities.capacity("c").text() == "< 1"
    assert capacities.ratio("c").text("×").startswith("< ")
    assert capacities.ratio("d").text("×") == "–"
    remarks = " ".join(capacities.remarks())
    assert "c does not hold the objective even at 1." in remarks
    assert "b still holds the objective at 35" in remarks
    assert "d: some seeds never hold the objective, and some never miss it." in remarks


def test_a_search_ends_where_the_next_load_fails_and_repeats_nothing(caesura: Callable) -> None:
    said = caesura("capacity", *ANSWER, *COARSE, "--out", "o")
    assert said.code == 0
    assert "p90 normalized_latency < 60 ms" in said.out
    result = json.loads(Path("o/capacity.json").read_text())
    probes = pd.read_csv("o/probes.csv")
    grid = Grid(0.25)
    for one in result["by_seed"]:
        mine = probes[(probes["system"] == one["system"]) & (probes["seed"] == one["seed"])].set_index("load")
        above = grid.load(grid.place(one["load"]) + 1)
        assert one["bound"] == "exact"
        assert mine.loc[one["load"], "holds"] and mine.loc[one["load"], "p90_normalized_latency_s"] < 0.06
        assert not mine.loc[above, "holds"]
    table = pd.read_csv("o/capacity.csv").set_index("system")
    assert table.loc["infercept", "ratio_to_first"] > 1
    assert (Path("o") / "figures" / "capacity.png").stat().st_size > 5000

    written = {file: file.stat().st_mtime_ns for file in Path("o/runs").glob("*/summary.json")}
    again = caesura("capacity", *ANSWER, *COARSE, "--out", "o")
    assert again.out == said.out
    caesura("capacity", *ANSWER, *COARSE, "--low", "4", "--high", "8", "--out", "o")
    assert json.loads(Path("o/capacity.json").read_text())["by_seed"] == result["by_seed"]
    assert {file: file.stat().st_mtime_ns for file in written} == written


def test_all_rounds_of_a_search_have_the_same_processes(caesura: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended once, when the search is over; the answer is that of one process."""
    ended = []
    end_workers = local._end_workers
    monkeypatch.setattr(local, "_end_workers", lambda: ended.append(end_workers()))
    caesura("capacity", *ANSWER, *COARSE, "--jobs", "2", "--out", "two")
    assert len(ended) == 1
    caesura("capacity", *ANSWER, *COARSE, "--out", "one")
    assert Path("two/capacity.csv").read_bytes() == Path("one/capacity.csv").read_bytes()


def test_python_finds_what_the_command_line_finds(caesura: Callable) -> None:
    caesura("capacity", *ANSWER, *COARSE, "--out", "o")
    data = {"workload": {"arrivals": {"poisson": {"rate": 2}}, "duration": "15 s"}, "systems": ["vllm", "infercept"]}
    found = package.capacity(
        data, slo="p90 normalized_latency<60ms", seeds=2, low=2, high=16, tolerance=0.25, out="o", progress=False
    )
    pd.testing.assert_frame_equal(found.table, pd.read_csv("o/capacity.csv"), check_dtype=False)
    assert len(list(Path("o/runs").iterdir())) == len(found.probes)


def test_an_objective_that_nothing_meets_is_said_plainly(caesura: Callable) -> None:
    said = caesura("capacity", "--slo", "mean jct<1us", *ANSWER[2:], *COARSE, "--out", "o")
    assert said.code == 0
    assert "does not hold the objective even at" in said.out
    assert "< " in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--slo", "p90 tftt<1"], "did you mean 'ttft'?"),
        ([], "--slo is missing; for example"),
        (["--slo", "p90 ttft<1", "--tolerance", "9"], "--tolerance 9: expected a share"),
        (["--slo", "p90 ttft<1", "--low", "9", "--high", "3"], "the lower one first"),
        (["--slo", "p90 ttft<1", "--set", "replica.horizon=5 s"], "replica.horizon cuts sessions short"),
    ],
)
def test_a_question_that_does_not_hold_is_refused(words: list[str], message: str, caesura: Callable) -> None:
    said = caesura("capacity", *words, "--out", "o")
    assert said.code == 2
    assert message in said.err
    assert not Path("o").exists()
