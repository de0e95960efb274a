"""What paused contexts waste, ranked only as far as is needed: the same as when every context is looked at."""

from __future__ import annotations

from itertools import islice
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policies.papers.waste import RecomputeTerms, chunked_discard_waste
from policies.papers.wastes import Wastes
from tests.policies.conftest import AnyCosts, FakePaused, LinearCosts

GPT_J = LinearCosts()


FOOTPRINTS = st.integers(1, 40).flatmap(lambda r: st.tuples(st.just(r), st.integers(0, r), st.integers(0, 40)))
CONTEXTS = st.lists(st.tuples(FOOTPRINTS, st.floats(0, 20)), min_size=1, max_size=12)
COSTS = st.lists(st.floats(0, 2), min_size=1, max_size=90).map(lambda times: AnyCosts(tuple(times)))


@given(CONTEXTS, COSTS, st.integers(1, 50), st.integers(0, 60))
def test_whoever_is_not_looked_at_could_change_nothing(contexts: Any, costs: AnyCosts, chunk: int, others: int) -> None:
    """For any forward times, in any order of questions, each asked twice."""
    footprints, rests = zip(*contexts, strict=True)
    kept = [rest * (resident - shared) for (resident, shared, _), rest in contexts]
    recomputed = [chunked_discard_waste(costs, r - shared + away, others, chunk) for r, shared, away in footprints]
    alone = [place for place, (resident, shared, _) in enumerate(footprints) if resident > shared]
    order = sorted(alone, key=lambda place: -min(kept[place], recomputed[place]))
    wastes = Wastes([FakePaused()] * len(contexts), footprints, rests, RecomputeTerms(costs), chunk, others)
    assert list(islice(wastes.ranked(), 1)) == order[:1]
    for _ in range(2):
        assert wastes.dear == [place for place in order if recomputed[place] < kept[place]]
        assert list(wastes.ranked()) == order
    for place in range(len(contexts)):
        assert wastes.both(place) == {"preserve": kept[place], "recompute": recomputed[place]}


def test_a_short_pause_is_not_looked_at_however_long_the_context() -> None:
    """Chunks of 250 tokens take 0.021575 s, 0.0863 ms a token: beside 4000 tokens a pause of 0.3 s wastes less kept
    than any recompute, one of 0.4 s perhaps not. 1000 tokens waste 373.35 recomputed, 350 kept for 0.35 s."""
    terms = RecomputeTerms(GPT_J)
    assert terms.least_per_token(250) * 4000 == 0.021575 / 250 * 4000
    looked_at = []

    class Watched(Wastes):
        def recomputed(self, place: int) -> float:
            looked_at.append(place)
            return super().recomputed(place)

    wastes = Watched([FakePaused()] * 3, [(9000, 0, 0), (1000, 0, 0), (1000, 0, 0)], [0.3, 0.35, 0.4], terms, 250, 4000)
    assert wastes.dear == [2]
    assert set(looked_at) == {1, 2}
