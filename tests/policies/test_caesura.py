"""Caesura's own policy: what a context is worth, who leaves ahead of need, and who is served first."""

from __future__ import annotations

import math

import pytest

from policies.caesura import Caesura, DueFirst
from policies.contract import EVERY_ITERATION, NEVER, Discard, Swap
from policies.estimators import Oracle
from traces.session import Call, Pause, Session


def test_the_price_of_a_context_is_what_its_loss_costs_per_token_and_second(paused, view, known):
    """100 tokens: T_swap = 4 ms, T_fwd(134) = 16.2042 ms; recomputed they cost 134 sessions 4.63 ms each, far more.
    Over 100 tokens and 10 s that is 20.2042 ms / 1000; with a part on the host already, 4 ms / 1000."""
    policy = Caesura(known(a=10.0))
    assert policy.price(paused(), view()) == pytest.approx(20.2042e-6)
    assert policy.price(paused(offloaded_tokens=10), view()) == pytest.approx(4e-6)


def test_a_context_is_dropped_where_the_batch_hides_its_recompute(paused, view, known):
    """Beside one decoding session 30 tokens lengthen an iteration by 1.389 ms; a copy of theirs takes 1.2 ms and the
    iteration of 10.0463 ms that is waited for it."""
    alone = view(paused=[paused()], running_sessions=1, running_query_tokens=1)
    ((_, verdict),) = Caesura(known(a=10.0)).gives_way(3, alone)
    assert isinstance(verdict, Discard) and verdict.keep == 70
    assert verdict.because["discarded_s"] == pytest.approx(1.389e-3)
    assert verdict.because["swapped_s"] == pytest.approx(11.2463e-3)


def test_the_cheapest_lose_their_tails_first(paused, view, known):
    """Equal contexts: the longer the pause is still expected to last, the cheaper. 13 blocks are c's 10 and 3 of b."""
    policy = Caesura(known(a=1.0, b=10.0, c=100.0))
    contexts = [paused(id=name) for name in "abc"]
    changes = list(policy.gives_way(13, view(paused=contexts)))[:2]
    assert [(one.id, type(verdict), verdict.keep) for one, verdict in changes] == [("c", Swap, 0), ("b", Swap, 70)]


def test_who_is_back_gives_way_last_and_a_full_host_means_to_forget(paused, view, known):
    contexts = [paused(id="back", resumed=True), paused(id="a")]
    changes = Caesura(known(a=10.0)).gives_way(20, view(paused=contexts, free_host_blocks=0))
    assert [(one.id, type(verdict)) for one, verdict in changes] == [("a", Discard), ("back", Discard)]


def test_nothing_leaves_while_the_headroom_is_free(paused, view, known):
    policy, here = Caesura(known(a=10.0), headroom=0.1), view(free_gpu_blocks=100, swap_budget=500)
    here.paused = [paused()]
    policy.on_pause(here.paused[0], here)
    assert policy.review_at(here) == EVERY_ITERATION
    assert list(policy.revise(here)) == []
    assert policy.review_at(here) == NEVER


def test_the_headroom_is_restored_within_the_swap_budget(paused, view, known):
    """12 of 1000 blocks of 10 tokens lack; the iteration hides 110 tokens: all of b's and a block of a's. c is
    expected in 7 ms, before two copies of 4 ms could end: it stays."""
    policy = Caesura(known(a=10.0, b=20.0, c=0.007), headroom=0.1)
    here = view(free_gpu_blocks=88, swap_budget=110, paused=[paused(id=name) for name in "abc"])
    policy.on_pause(here.paused[0], here)
    assert [(one.id, verdict.keep) for one, verdict in policy.revise(here)] == [("b", 0), ("a", 90)]
    assert policy.review_at(here) == EVERY_ITERATION


def test_with_nobody_to_send_it_waits_for_somebody_to_come_or_go(paused, view, known):
    policy, here = Caesura(known(c=0.007)), view(swap_budget=110, paused=[paused(id="c")])
    policy.on_pause(here.paused[0], here)
    assert list(policy.revise(here)) == []
    assert policy.review_at(here) == NEVER


A = Session("a", 0.0, 40, (Call(1, Pause(10.0, returned=9)), Call(1)))
B = Session("b", 0.0, 60, (Call(3),))


@pytest.mark.parametrize(("headroom", "end", "copied"), [(1.0, 13.3, 40), (0.0, 13.1, 0)])
def test_a_context_leaves_beside_an_iteration_only_if_its_memory_may_be_wanted(replay, headroom, end, copied):
    """A and B compute 100 tokens until 2.0, when A pauses; its 40 tokens leave for the host in 0.2 s beside B's next
    token. Back at 12.0, it waits 0.2 s for them and computes 10 tokens in 1.1 s. Where they stayed, only the latter."""
    world = replay([A, B], Caesura(Oracle(), headroom=headroom))
    assert world.finished == pytest.approx({"a": end, "b": 4.02}, rel=1e-9)
    assert world.of("recomputed_tokens") == {"a": 0, "b": 0}
    assert [verdict for _, _, verdict, _ in world.changes()] == (["swap"] if copied else [])


def test_a_session_is_expected_to_emit_what_longer_ones_of_its_kind_did(paused, queued, view, known):
    """Sessions of kind x emitted 10 and 30 tokens: 20 in the mean, and 30 of those above 10. One of kind y emitted 100.
    A new kind is expected to be as all three: 140 / 3."""
    policy, here = Caesura(known()), view()
    for kind, tokens in (("x", 10), ("x", 30), ("y", 100)):
        policy.on_finish(queued(id=kind, kind=kind, calls_done=1, emitted_tokens=tokens), here)
    assert policy.tokens_expected(queued(kind="x")) == 20
    assert policy.tokens_expected(queued(kind="new")) == pytest.approx(140 / 3)
    policy.on_pause(paused(id="a", kind="x", emitted_tokens=10), here)
    assert policy.tokens_expected(queued(id="a", kind="x")) == 30


def test_a_last_pause_adds_no_tokens(paused, queued, view, known):
    """One call of 10 tokens and a pause after which nothing follows."""
    policy, here = Caesura(known()), view()
    policy.on_pause(paused(id="a", kind="x", emitted_tokens=10), here)
    policy.on_finish(queued(id="a", kind="x", calls_done=1, emitted_tokens=10), here)
    assert policy.tokens_expected(queued(id="b", kind="x")) == 10


def test_the_shorter_a_session_the_earlier_it_is_due(queued, view, known):
    """At 0.1 s a token 20 tokens are due 2 s after their arrival; 100 tokens that came a second earlier, at 9 s."""
    order, policy = DueFirst(latency=0.1), Caesura(known())
    order.policy = policy
    for kind, tokens in (("x", 20), ("y", 100)):
        policy.on_finish(queued(id=kind, kind=kind, calls_done=1, emitted_tokens=tokens), view())
    assert order.key(queued(kind="x", arrival=1.0), view()) == pytest.approx(3.0)
    assert order.key(queued(kind="y", arrival=0.0), view()) == pytest.approx(10.0)


def test_the_order_goes_with_its_policy(queued, view):
    with pytest.raises(ValueError, match="goes with the policy 'caesura'"):
        DueFirst().key(queued(), view())


def test_impossible_parameters_are_refused(known):
    with pytest.raises(ValueError, match="headroom is a share"):
        Caesura(known(), headroom=1.5)
    with pytest.raises(ValueError, match="latency is in seconds"):
        DueFirst(latency=math.inf)
