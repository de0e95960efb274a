"""Equations 1 to 5 of InferCept (arXiv 2402.01869) with its published constants of GPT-J-6B on an A100:

    T_fwd(x) = 10 ms + 0.0463 ms * x,  T_swap(x) = 0.04 ms * x,  S = 384 tokens,  M = 458,752 bytes a token

Waste is in token-seconds; times M it is in byte-seconds, as the paper writes it.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.learning.estimators import Elapsed
from policies.papers.infercept import MinWaste
from policies.papers.waste import (
    PausedWastes,
    RecomputeTerms,
    chunked_discard_waste,
    discard_waste,
    preserve_waste,
    swap_waste,
)
from sim.costs.cost_model import CostModel
from sim.costs.profile import load_profile
from tests.policies.conftest import AnyCosts, FakePaused, LinearCosts

PUBLISHED = Path(__file__).parents[3] / "configs" / "profiles" / "published" / "gpt-j-6b-a100-40g"


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-9)


def test_the_published_profile_holds_these_constants():
    """T_fwd(1000) = 10 + 46.3 = 56.3 ms. T_fwd(384) = 10 + 17.7792 = 27.7792 ms, which hides the copy of
    27.7792 / 0.04 = 694.48, so 694 tokens. M = 28 layers * 2 * 4096 * 2 bytes = 458,752."""
    costs = CostModel(load_profile(PUBLISHED))
    assert costs.saturation_tokens == 384
    assert costs.forward_time(1000) == close(0.0563)
    assert costs.forward_time(384) == close(0.0277792)
    assert costs.swap_time(1000) == close(0.04)
    assert costs.tokens_within(0.0277792) == 694
    assert costs.profile.kv_bytes_per_token == 458_752


def test_equation_1_discard(gpt_j):
    """C = 1000, C_other = 4000: T_fwd(1000) = 0.0563 s; 0.0563 * 1000 + 0.0563 * 4000 = 56.3 + 225.2 = 281.5 token-s,
    which is 281.5 * 458,752 = 129,138,688 byte-s."""
    waste = discard_waste(gpt_j, 1000, 4000)
    assert waste == close(281.5)
    assert waste * 458_752 == close(129_138_688)


def test_equation_2_preserve():
    """A context of 1000 tokens idle for 5 s: 5000 token-s; for no time: none."""
    assert preserve_waste(5.0, 1000) == close(5000)
    assert preserve_waste(0.0, 1000) == 0


def test_equation_3_swap(gpt_j):
    """T_swap(1000) = 0.04 s, out and in, while a batch of 5000 context tokens waits: 2 * 0.04 * 5000 = 400 token-s."""
    assert swap_waste(gpt_j, 1000, 5000) == close(400)


def test_equation_4_chunked_discard(gpt_j):
    """C = 1000 in chunks of 250, C_other = 4000: n = 4.

    own:    T_fwd(1000) * 1000 / 2 = 0.0563 * 500       =  28.15
    others: T_fwd(250) = 0.010 + 0.011575 = 0.021575 s; 4 * 0.021575 * 4000 = 345.2
    together 373.35 token-s
    """
    assert chunked_discard_waste(gpt_j, 1000, 4000, 250) == close(373.35)


def test_equation_4_rounds_the_number_of_chunks_and_their_length_up(gpt_j):
    """C = 1000 in chunks of at most 384: n = 3, C / n = 333.3, computed as 334 tokens.

    own 28.15; others: T_fwd(334) = 0.010 + 0.0154642 = 0.0254642 s; 3 * 0.0254642 * 4000 = 305.5704; 333.7204 in all
    """
    assert chunked_discard_waste(gpt_j, 1000, 4000, 384) == close(333.7204)


def test_equation_4_in_one_chunk_halves_the_own_part_of_equation_1(gpt_j):
    """C = 200 fits one chunk: T_fwd(200) = 0.01926 s; own 0.01926 * 100 = 1.926, others 0.01926 * 4000 = 77.04.
    Equation 1 has 0.01926 * 200 = 3.852 for its own part, and the same for the others."""
    assert chunked_discard_waste(gpt_j, 200, 4000, 250) == close(78.966)
    assert discard_waste(gpt_j, 200, 4000) == close(80.892)


def test_equation_4_when_the_batch_leaves_one_token_an_iteration(gpt_j):
    """Chunks of one token: n = 1000, T_fwd(1) = 0.0100463 s; 28.15 + 1000 * 0.0100463 * 4000 = 28.15 + 40,185.2."""
    assert chunked_discard_waste(gpt_j, 1000, 4000, 1) == close(40_213.35)


def test_equation_4_of_nothing_is_nothing(gpt_j):
    assert chunked_discard_waste(gpt_j, 0, 4000, 250) == 0


@pytest.mark.parametrize(("elapsed", "discards"), [(0.373, False), (0.374, True)])
def test_equation_5_takes_the_smaller(paused, view, elapsed, discards):
    """Context 1000, others 4000, 134 decoding sessions: S - 134 = 250 tokens a chunk, so a recompute wastes 373.35
    (above). A pause that has lasted t s and is expected to last as long again wastes 1000 t: equal at 0.37335 s."""
    context = paused(resident_tokens=1000, paused_at=100.0)
    changes = list(MinWaste(Elapsed(), swaps=False).revise(view(now=100.0 + elapsed, paused=[context])))
    assert bool(changes) is discards
    if discards:
        assert changes[0][1].reasons == {"preserve": close(374.0), "recompute": close(373.35)}


# ---- many contexts, ranked only as far as is needed

GPT_J = LinearCosts()


FOOTPRINTS = st.integers(1, 40).flatmap(lambda r: st.tuples(st.just(r), st.integers(0, r), st.integers(0, 40)))
CONTEXTS = st.lists(st.tuples(FOOTPRINTS, st.floats(0, 20)), min_size=1, max_size=12)
COSTS = st.lists(st.floats(0, 2), min_size=1, max_size=90).map(lambda times: AnyCosts(tuple(times)))


@given(CONTEXTS, COSTS, st.integers(1, 50), st.integers(0, 60))
def test_whoever_is_not_looked_at_could_change_nothing(contexts: Any, costs: AnyCosts, chunk: int, others: int) -> None:
    """For any forward times, in any order of questions, each asked twice."""
    kv_usage, rests = zip(*contexts, strict=True)
    kept = [rest * (resident - shared) for (resident, shared, _), rest in contexts]
    recomputed = [chunked_discard_waste(costs, r - shared + away, others, chunk) for r, shared, away in kv_usage]
    alone = [place for place, (resident, shared, _) in enumerate(kv_usage) if resident > shared]
    order = sorted(alone, key=lambda place: -min(kept[place], recomputed[place]))
    wastes = PausedWastes([FakePaused()] * len(contexts), kv_usage, rests, RecomputeTerms(costs), chunk, others)
    assert list(islice(wastes.ranked(), 1)) == order[:1]
    for _ in range(2):
        assert wastes.cheaper_recomputed == [place for place in order if recomputed[place] < kept[place]]
        assert list(wastes.ranked()) == order
    for place in range(len(contexts)):
        assert wastes.both(place) == {"preserve": kept[place], "recompute": recomputed[place]}


def test_a_short_pause_is_not_looked_at_however_long_the_context() -> None:
    """Chunks of 250 tokens take 0.021575 s, 0.0863 ms a token: beside 4000 tokens a pause of 0.3 s wastes less kept
    than any recompute, one of 0.4 s perhaps not. 1000 tokens waste 373.35 recomputed, 350 kept for 0.35 s."""
    terms = RecomputeTerms(GPT_J)
    assert terms.least_per_token(250) * 4000 == 0.021575 / 250 * 4000
    looked_at = []

    class Watched(PausedWastes):
        def recomputed(self, place: int) -> float:
            looked_at.append(place)
            return super().recomputed(place)

    wastes = Watched([FakePaused()] * 3, [(9000, 0, 0), (1000, 0, 0), (1000, 0, 0)], [0.3, 0.35, 0.4], terms, 250, 4000)
    assert wastes.cheaper_recomputed == [2]
    assert set(looked_at) == {1, 2}
