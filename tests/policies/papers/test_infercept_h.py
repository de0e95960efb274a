"""Letters H-S, H-D, H-B and the early G of InferCept's released code."""

from __future__ import annotations

import pytest

from policies.contract import EVERY_ITERATION, NEVER, Discard, Preserve, Swap
from policies.learning.estimators import Oracle
from policies.papers.infercept_h import GreedySwap, InferCeptH
from policies.papers.infercept_v import InferCeptV
from traces.session import Call, Pause, Session


def told(changes) -> list[tuple[str, type, int]]:
    return [(paused.id, type(verdict), verdict.keep) for paused, verdict in changes]


@pytest.mark.parametrize(("expected", "verdict"), [(3.99, Preserve), (4.0, Swap), (6.99, Swap), (7.0, Discard)])
def test_h_b_decides_by_its_thresholds_at_the_pause(paused, view, known, expected, verdict):
    policy = InferCeptH(known(a=expected), swap_above=4.0, discard_above=7.0)
    assert type(policy.on_pause(paused(), view())) is verdict


def test_what_a_threshold_preserved_is_decided_anew_by_the_rule_of_the_release(paused, view, known):
    """3 s are left, below 4 s: kept at the pause. Then keeping 20 tokens wastes 60 and keeping 1010 wastes 3030, while
    recomputing them wastes 3.7 and 256.5 (see ``test_released``): the cheaper one goes, the dearer one may be swapped.
    """
    here = view(paused=[paused(id="a", resident_tokens=20), paused(id="b", resident_tokens=1010)])
    estimator = known(a=3.0, b=3.0)
    policy = InferCeptH(estimator, swap_above=4.0)
    assert told(policy.revise(here)) == [("a", Discard, 0)] == told(InferCeptV(estimator).revise(here))


def test_g_swaps_the_longest_away_first_within_half_of_999_tokens(paused, view, known):
    """Blocks of 10: 49 an iteration. b (away 9 s) has 30 blocks and leaves whole; of c's 40 the last 19 leave, 210
    tokens stay; a is back in less than 94 ms and stays whatever happens."""
    contexts = [paused(id="a", resident_tokens=50), paused(id="b", resident_tokens=300)]
    contexts += [paused(id="c", resident_tokens=400), paused(id="d", resident_tokens=100)]
    policy = GreedySwap(known(a=0.0939, b=9.0, c=5.0, d=1.0))
    assert told(policy.revise(view(paused=contexts))) == [("b", Swap, 0), ("c", Swap, 210)]


def test_g_asks_again_while_anybody_is_on_the_gpu_who_is_not_on_the_way(paused, view, known):
    policy = GreedySwap(known(a=9.0))
    assert policy.review_at(view(paused=[paused()])) == EVERY_ITERATION
    assert policy.review_at(view(paused=[paused(moving=True), paused(id="b", resumed=True)])) == NEVER


def test_g_in_a_small_world(replay):
    """A (40 tokens) pauses at 2.00 for 10 s. 20 tokens an iteration: two blocks at 2.00, two more at 3.01, while B
    decodes. Nothing is recomputed."""
    a = Session("a", 0.0, 40, (Call(1, Pause(10.0, returned=9)), Call(1)))
    b = Session("b", 0.0, 60, (Call(12),))
    world = replay([a, b], GreedySwap(Oracle(), tokens=20), swap_budget="unlimited")
    assert world.changes() == [(2.0, "a", "swap", 20), (3.01, "a", "swap", 0)]
    assert world.of("recomputed_tokens") == {"a": 0, "b": 0}


@pytest.mark.parametrize("make", [lambda: GreedySwap(Oracle(), least=-1.0), lambda: GreedySwap(Oracle(), tokens=-1)])
def test_impossible_parameters_are_refused(make):
    with pytest.raises(ValueError, match="least is in seconds"):
        make()
