"""The least waste of a workload: by hand, reached by a policy that does the right thing, and below every other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from sim.costs.cost_model import CostModel
from sim.costs.profile import PhysicalForward
from sim.engine.settings import EngineSettings
from sim.results.waste_bound import least_seconds_per_token, needed_again, waste_bound
from tests.sim.random_orders import ORDERS
from tests.sim.random_worlds import SHIPPED, Plot, examples, plots
from tests.sim.worlds import pause, profile, run, session
from traces.session import SharedPrefix

BLOCKS_OF_ONE = EngineSettings(block_size=1)
WASTES = ("preserve", "recompute_own", "recompute_others", "swap")


def wasted(totals: dict[str, float]) -> float:
    return sum(totals[f"waste_{cause}_token_s"] for cause in WASTES)


def test_tokens_that_survive_a_pause_are_needed_again():
    """90 + 10 - 1 computed; after an answer of 20 tokens and 5 more, 50 of 125 are kept; after the last pause, none."""
    a = session("a", 90, 10, pause(3.0, 20), 5, pause(2.0, 1, keeps=50), 7, pause(9.0))
    assert list(needed_again(a)) == [(99, 3.0), (50, 2.0)]


def test_no_token_is_computed_faster_than_in_the_largest_iteration():
    """1 s + 0.01 s a token: 64 tokens in 1.64 s. A whole prompt of 200 in 3 s, where prompts are not cut in chunks."""
    costs = CostModel(profile())
    assert least_seconds_per_token(costs, EngineSettings(), 200) == pytest.approx(1.64 / 64)
    assert least_seconds_per_token(costs, EngineSettings(chunked_prefill=False), 200) == pytest.approx(3 / 200)


def test_padded_batches_may_compute_more_than_their_budget_says():
    """5 decoding sessions cost no more than 8: an iteration of 8 tokens may be as cheap a token as one of 11."""
    forward = PhysicalForward(
        overhead_s=1.0, weights_s=0, per_token_s=1e-9, decode_read_s=0, pair_s=0, decode_sizes=(4, 8)
    )
    costs = CostModel(profile(forward=forward))
    assert least_seconds_per_token(costs, EngineSettings(token_budget=8), 0) == pytest.approx(1 / 11, rel=1e-6)


@pytest.mark.parametrize(
    ("seconds", "copy", "bound"),
    [
        (0.001, 0.01, 99 * 0.001),  # kept: the first token would be recomputed in 1.64 / 64 s = 0.0256
        (5.0, 0.01, 99 * 0.02),  # swapped: 0.01 s each way, less than recomputing even the first
        (5.0, 0.05, 1.64 / 64 * (1 + 2 + 3) + 96 * 0.1),  # three tokens recomputed, the others swapped
        (5.0, 99.0, 1.64 / 64 * 99 * 100 / 2),  # all recomputed: the 99th for 2.54 s
    ],
)
def test_every_token_is_kept_swapped_or_recomputed_whichever_wastes_least(seconds, copy, bound):
    a = session("a", 90, 10, pause(seconds, 20), 5)
    assert waste_bound([a], profile(copy=copy), BLOCKS_OF_ONE) == pytest.approx(bound)


def test_a_copied_block_is_held_whole():
    """Blocks of 16 tokens, for 0.02 s a token copied out and in."""
    a = session("a", 33, 1, pause(5.0), 1)
    assert waste_bound([a], profile(copy=1e-4), EngineSettings()) == pytest.approx(33 * 16 * 2e-4)


def test_what_others_might_hold_is_not_counted():
    a = session("a", 90, 10, pause(0.001, 20), 5, prefix=SharedPrefix("system", 40))
    assert waste_bound([a], profile(), BLOCKS_OF_ONE) == pytest.approx((99 - 40) * 0.001)


def test_preserving_a_short_pause_wastes_the_bound_and_not_more():
    """Nobody else is there, and the answer is back before anything else could have been done: the bound is reached."""
    a = session("a", 90, 10, pause(0.001, 20), 5)
    assert wasted(run(a, policy="preserve").totals) == pytest.approx(waste_bound([a], profile(), BLOCKS_OF_ONE))


UNSEEN = 1e-9
"""Token-seconds: a pause of 1e-45 s is over when it begins, by a clock of double precision, and wastes nothing."""


@examples(100)
@given(plots(st.sampled_from(SHIPPED) | st.integers(0, 2**32), st.sampled_from(ORDERS)), st.sampled_from([1, 1, 3]))
def test_no_policy_wastes_less_than_the_bound(plot: Plot, count: int) -> None:
    """Including those that know every duration, and one that does whatever it likes. Few sessions: the fewer there are,
    the closer a run comes to the bound."""
    plot = replace(plot, sessions=plot.sessions[:count])
    world = plot.run()
    rows = world.record.sessions
    finished = {name for name, status in zip(rows["id"], rows["status"], strict=True) if status == "finished"}
    bound = waste_bound([one for one in plot.sessions if one.id in finished], plot.profile, plot.settings)
    measured = wasted(world.totals)
    assert measured >= bound * (1 - 1e-9) - UNSEEN
    event(f"bound above 0: {bound > 0}, above 0.8 of what was measured: {bound > 0.8 * measured > 0}")
