"""What losses cannot fall below while about as many sessions run."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.caesura.loss_model import LossBounds, LossModel
from tests.policies.conftest import FakePaused, FakeView, LinearCosts, Tiles


@given(
    st.sampled_from([LinearCosts(), Tiles(), Tiles(fixed=0.0, copy=1e-3)]),
    st.sampled_from([1, 2, 64, 384]),
    st.integers(0, 500),
    st.floats(0, 1),
    st.integers(1, 1500),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_loss_is_less_than_the_least(costs, budget, running, share, tokens):
    """Costs fall at some sizes, batches reach the budget, and contexts are longer and shorter than a chunk."""
    least = LossBounds(costs, budget)
    least.begin(running)
    beside = least.fewest + round(share * (least.most - least.fewest))
    view = FakeView(costs=costs, token_budget=budget, running_sessions=beside, running_query_tokens=max(1, beside))
    losses, context = LossModel(view), FakePaused(resident_tokens=tokens)
    swapped_s, discarded_s = least.token_s(tokens)
    assert (swapped_s + losses.wait_s / tokens) * tokens <= losses.swapped_s(context, tokens) * (1 + 1e-12)
    assert discarded_s * tokens <= losses.discarded_s(context, tokens) + 1e-12 * abs(discarded_s * tokens)


def test_the_least_is_that_of_the_fewest_sessions_and_the_fewest_tokens_that_a_chunk_is_longer_by():
    """About 30 sessions are 18 to 42. A chunk of 100 tokens beside 18 is compared with a batch of 42: 118 - 42 = 76
    tokens longer, 76 * 4.63e-5 s for each of 18 sessions, over 100 tokens. A copy takes 4e-5 s a token."""
    least = LossBounds(LinearCosts(), 384)
    least.begin(30)
    assert (least.fewest, least.most) == (18, 42)
    swapped_s, discarded_s = least.token_s(100)
    assert abs(swapped_s - 4e-5) < 1e-15
    assert abs(discarded_s - 76 * 4.63e-5 * 18 / 100) < 1e-12
