"""How much of the waste that could have been saved a system saved."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from caesura.config.experiment import read_experiment
from caesura.config.yaml_source import Source
from caesura.results.tables import DETAIL, detail_rows, possible_saving
from caesura.runs.run import expand
from caesura.runs.simulate import simulate


def wastes(*preserved: float, bound: float | None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "useful_token_s": 400.0,
            "waste_preserve_token_s": preserved,
            "waste_recompute_own_token_s": 10.0,
            "waste_recompute_others_token_s": 5.0,
            "waste_swap_token_s": 5.0,
            "unused_token_s": 180.0,
            "waste_bound_token_s": bound,
        }
    )


def test_the_most_wasteful_saves_nothing_and_the_bound_would_save_all():
    """420, 120 and 20 token-seconds against a bound of 20: of 400 that could be saved 0, 300 and 400 were."""
    assert possible_saving(wastes(400.0, 100.0, 0.0, bound=20.0)) == pytest.approx([0.0, 75.0, 100.0])


def test_without_a_bound_or_waste_nothing_is_claimed():
    assert all(math.isnan(one) for one in possible_saving(wastes(400.0, 100.0, bound=None)))
    assert math.isnan(possible_saving(wastes(0.0, bound=20.0))[0])
    assert all(math.isnan(one) for one in possible_saving(wastes(1.0, bound=20.0).drop(columns="waste_bound_token_s")))


def test_where_next_to_nothing_could_be_saved_nobody_is_praised_for_it():
    """The worst wastes 22.5 of 602.5 token-seconds, the bound is 20: 2.5 is less than 0.5 % of it, 4 is more."""
    assert all(math.isnan(one) for one in possible_saving(wastes(2.5, 0.0, bound=20.0)))
    assert possible_saving(wastes(4.0, 0.0, bound=20.0)) == pytest.approx([0.0, 100.0])


@pytest.mark.parametrize(
    ("preserved", "bound", "why"),
    [(2.5, 20.0, "less than 0.5 % of the memory"), (400.0, None, "no bound is known"), (400.0, 20.0, "")],
)
def test_a_table_that_claims_nothing_says_why(preserved: float, bound: float | None, why: str):
    measured = wastes(preserved, 0.0, bound=bound).assign(system=["a", "b"], **{column: 1.0 for _, column, _ in DETAIL})
    title = detail_rows(SimpleNamespace(at=lambda load: measured, load_unit="sessions/s"), 2).title
    assert why in title
    assert ("–" in title) == bool(why)


def test_a_run_knows_its_bound_and_a_cluster_or_a_prefix_cache_none(tmp_path):
    """The same sessions have the same bound under every policy with the same engine."""
    replica = {"profile": "published/gpt-j-6b-a100-40g"}
    workload = {"trace": "infercept-mix", "arrivals": {"poisson": {"rate": 2}}, "duration": "5 s"}
    alone = {"workload": workload, "replica": replica, "systems": ["infercept", "infercept-oracle"]}
    bounds = [bound_of(run) for run in expand(read_experiment(Source("x", alone), "x", tmp_path))]
    assert bounds[0] == bounds[1] > 0
    several = {**alone, "cluster": {"replicas": 2, "router": "round-robin"}}
    assert [bound_of(run) for run in expand(read_experiment(Source("x", several), "x", tmp_path))] == [None, None]
    sharing = {"preset": "infercept", "name": "sharing", "engine": {"prefix_sharing": True}}
    (run,) = expand(read_experiment(Source("x", {**alone, "systems": [sharing]}), "x", tmp_path))
    assert bound_of(run) is None


def bound_of(run):
    return simulate(run)[1]["waste_bound_token_s"]
