"""Decisions by costs that are believed, time by those that hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.basic.fcfs import FirstCome
from policies.registry import make_policy
from sim.costs.profile import Profile
from sim.engine.settings import EngineSettings
from sim.results.run_record import RunRecord
from sim.world.simulate import simulate
from tests.sim.engine.test_leap import assert_alike
from tests.sim.random_worlds import SHIPPED, Plot, examples, plots
from tests.sim.worlds import pause, profile, session

SETTINGS = EngineSettings(block_size=1, watermark=0.0, token_budget="saturation")


def serve(policy_costs: Profile | None) -> RunRecord:
    """While ``a``, with a context of 40, pauses for 20 s, ``b`` decodes for as long."""
    return simulate(
        [session("a", 39, 1, pause(20.0), 1), session("b", 1, 20)],
        policy=make_policy("swap"),
        order=FirstCome(),
        settings=SETTINGS,
        profile=profile(),
        policy_costs=policy_costs,
    )


def first_token(record: RunRecord) -> float:
    """When ``a`` had its first token, s."""
    return float(record.sessions["first_token_at"][record.sessions["id"].index("a")])


def test_the_engine_s_budget_is_the_believed_one_and_time_passes_as_it_does() -> None:
    """39 tokens and ``b``'s one are computed in a pass of 1.4 s. With 13 at a time they take three passes of 1.13 s, in
    the last two of which there would be room for no token of ``b``, and a fourth."""
    assert first_token(serve(None)) == pytest.approx(1.4)
    assert first_token(serve(profile(saturation=13))) == pytest.approx(3 * 1.13)


def test_what_a_pass_hides_is_what_copies_are_believed_to_take() -> None:
    """``a`` pauses at 1.4 s with 39 tokens computed. ``b``'s next pass, of 1.01 s, hides the copies of them all; who
    thinks that each takes 0.1 s begins with 10. In the 0.6 s that are left of that second they hold room on the host.
    """
    assert serve(None).timeline["host_used"][1] == pytest.approx(0.6 * 39)
    assert serve(profile(copy=0.1)).timeline["host_used"][1] == pytest.approx(0.6 * 10)


@examples(40)
@given(plots(st.sampled_from(SHIPPED)), plots(st.just("preserve")), st.none() | st.floats(0, 60))
def test_leaps_change_nothing_where_other_costs_are_believed(plot: Plot, other: Plot, horizon: float | None) -> None:
    plot = replace(plot, policy_costs=other.profile, horizon=horizon)
    assert_alike(replace(plot, leap=True).run(), replace(plot, leap=False).run())
