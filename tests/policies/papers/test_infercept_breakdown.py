"""The steps of InferCept's breakdown: swap within the budget, discard the rest, keep short pauses."""

from __future__ import annotations

from policies.contract import EVERY_ITERATION, NEVER, Discard, Swap
from policies.learning.estimators import Elapsed, ToolMean
from policies.papers.infercept_breakdown import SwapOrDiscard
from traces.session import Call, Pause, Session


def told(changes) -> list[tuple[str, type, int]]:
    return [(paused.id, type(verdict), verdict.keep) for paused, verdict in changes]


def test_what_the_budget_hides_leaves_and_the_rest_is_discarded(paused, view, known):
    """A budget of 150 tokens: all 100 of a, the last 50 of b, and nothing is left for c."""
    contexts = [paused(id="a"), paused(id="b", resident_tokens=80), paused(id="c")]
    policy = SwapOrDiscard(known(a=9.0, b=9.0, c=9.0))
    here = view(paused=contexts, swap_budget=150.0)
    assert told(policy.revise(here)) == [("a", Swap, 0), ("b", Swap, 30), ("c", Discard, 0)]


def test_a_pause_expected_to_be_short_keeps_its_context(paused, view):
    """A tool of 3 s and one of 5 s, a threshold of 4 s; elapsed time expects nothing at the pause, so all stay."""
    estimator = ToolMean()
    estimator.pause_ended(paused(tool="quick"), 3.0)
    estimator.pause_ended(paused(tool="slow"), 5.0)
    policy = SwapOrDiscard(estimator, preserve_below=4.0)
    here = view(now=90.0, paused=[paused(id="a", tool="quick"), paused(id="b", tool="slow")])
    assert told(policy.revise(here)) == [("b", Discard, 0)]
    assert policy.review_at(here) == EVERY_ITERATION
    assert policy.review_at(view(paused=[paused(tool="quick")])) == NEVER
    assert told(SwapOrDiscard(Elapsed(), preserve_below=4.0).revise(here)) == []


def test_swap_or_discard_in_a_small_world(replay):
    """A (40 tokens) pauses at 2.00 while B decodes: an iteration of 1.01 s hides 20 tokens of copying at 20 a second.
    20 of A's leave at 2.00; the other 20 are in the way of a copy until 3.01, and then leave too."""
    a = Session("a", 0.0, 40, (Call(1, Pause(10.0, returned=9)), Call(1)))
    b = Session("b", 0.0, 60, (Call(12),))
    world = replay([a, b], SwapOrDiscard(ToolMean()), copy_rate=20.0)
    assert world.changes() == [(2.0, "a", "swap", 20), (3.01, "a", "swap", 0)]
    assert world.of("recomputed_tokens") == {"a": 0, "b": 0}
