"""Caesura's own policy: what a context is worth, which leave ahead of need, and which session is served first."""

from __future__ import annotations

import math

import pytest

from policies.caesura.loss_model import LossModel
from policies.caesura.policy import Caesura, DueFirst
from policies.contract import EVERY_ITERATION, NEVER, Discard, Swap
from policies.learning.estimators import Oracle
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
    ((_, verdict),) = Caesura(known(a=10.0)).evict(3, alone)
    assert isinstance(verdict, Discard) and verdict.keep == 70
    assert verdict.reasons["discarded_s"] == pytest.approx(1.389e-3)
    assert verdict.reasons["swapped_s"] == pytest.approx(11.2463e-3)


def test_who_lacks_a_token_queues_so_while_others_wait_nothing_is_dropped(paused, queued, view, known):
    """The last to be admitted had waited 5 s. The 30 tokens of before would be recomputed in 1.389 ms, but only after
    that wait; with an empty queue there is none."""
    policy, here = Caesura(known(a=10.0)), {"paused": [paused()], "running_sessions": 1, "running_query_tokens": 1}
    policy.on_start(queued(id="new", ready_at=2.0), view(now=7.0))
    ((_, verdict),) = policy.evict(3, view(**here, waiting_sessions=1))
    assert isinstance(verdict, Swap) and verdict.keep == 70
    assert verdict.reasons["discarded_s"] == pytest.approx(5.0 + 1.389e-3)
    ((_, verdict),) = policy.evict(3, view(**here, waiting_sessions=0))
    assert isinstance(verdict, Discard)


def test_who_must_queue_anyway_loses_only_the_recompute(paused, view, known):
    """Beside the token that was emitted last 20 are missing: 30 more cost 1.389 ms, as with no queue."""
    losses = LossModel(view(running_sessions=1, running_query_tokens=1), queued_s=5.0)
    assert losses.discarded_s(paused(missing_tokens=21), 30) == pytest.approx(1.389e-3)
    assert losses.discarded_s(paused(missing_tokens=1), 30) == pytest.approx(5.001389)


def test_the_queue_is_as_long_as_the_last_who_had_to_queue_has_waited(paused, queued, view, known):
    """b came back whole and ran at once, which says nothing; a had lost 20 tokens and waited 4 s."""
    policy, here = Caesura(known(a=10.0)), {"paused": [paused()], "running_sessions": 1, "running_query_tokens": 1}
    for name, missing, waited in (("a", 21, 4.0), ("b", 1, 0.5)):
        policy.on_pause(paused(id=name), view())
        policy.on_resume(paused(id=name, missing_tokens=missing), 1.0, view(now=10.0))
        policy.on_start(queued(id=name, calls_done=1, ready_at=10.0), view(now=10.0 + waited))
    ((_, verdict),) = policy.evict(3, view(**here, waiting_sessions=1))
    assert verdict.reasons["discarded_s"] == pytest.approx(4.001389)


def test_the_cheapest_lose_their_tails_first(paused, view, known):
    """Equal contexts: the longer the pause is still expected to last, the cheaper. 13 blocks are c's 10 and 3 of b."""
    policy = Caesura(known(a=1.0, b=10.0, c=100.0))
    contexts = [paused(id=name) for name in "abc"]
    changes = list(policy.evict(13, view(paused=contexts)))[:2]
    assert [(one.id, type(verdict), verdict.keep) for one, verdict in changes] == [("c", Swap, 0), ("b", Swap, 70)]


def test_who_is_back_keeps_what_it_has_while_anybody_runs(paused, view, known):
    """Two that are back and need more than there is would take it from each other for ever."""
    contexts = [paused(id="back", resumed=True), paused(id="a")]
    changes = Caesura(known(a=10.0)).evict(20, view(paused=contexts))
    assert [(one.id, type(verdict)) for one, verdict in changes] == [("a", Swap)]


def test_when_nobody_runs_the_last_to_arrive_of_those_who_are_back_forgets_its_tail(paused, view, known):
    """25 blocks: 10 of a, whose pause goes on, 10 of late and 5 of early."""
    contexts = [paused(id=name, resumed=True, arrival=at) for name, at in (("early", 1.0), ("late", 2.0))]
    here = view(paused=[*contexts, paused(id="a")], running_sessions=0, running_query_tokens=0)
    changes = [(one.id, type(verdict), verdict.keep) for one, verdict in Caesura(known(a=10.0)).evict(25, here)]
    assert changes == [("a", Swap, 0), ("late", Discard, 0), ("early", Discard, 50)]


def test_with_a_full_host_the_context_is_forgotten_that_loses_least(paused, view, known):
    """A token takes as long to recompute in all of them, so the one away longest loses least by the second: far, then
    the one that must leave the GPU, then near. Its 10 blocks are more than far's 6, and it swaps as far as these go."""
    contexts = [paused(id="here")]
    there = [paused(id=name, resident_tokens=0, offloaded_tokens=60) for name in ("near", "far")]
    here = view(paused=contexts, offloaded=there, free_host_blocks=0)
    changes = Caesura(known(here=10.0, near=1.0, far=100.0)).evict(10, here)
    assert [(one.id, type(verdict), verdict.keep) for one, verdict in changes] == [
        ("far", Discard, 0),
        ("here", Swap, 0),
    ]
    changes = Caesura(known(here=1000.0, near=1.0, far=100.0)).evict(10, here)
    assert [(one.id, type(verdict)) for one, verdict in changes] == [("here", Discard)]


def test_what_is_on_the_host_behind_a_dropped_tail_is_lost_with_it(paused, view, known):
    """Beside one decoding session 30 tokens of the GPU and 40 behind them on the host are 70 to recompute: 3.241 ms."""
    alone = view(running_sessions=1, running_query_tokens=1)
    assert LossModel(alone).discarded_s(paused(offloaded_tokens=40), 30) == pytest.approx(70 * 4.63e-5)


def test_a_recompute_is_paid_in_the_chunks_that_the_budget_allows(paused, view, known):
    """Chunks of 384 - 134 = 250 tokens: a thousand tokens are four chunks of 11.575 ms, for 134 sessions."""
    assert LossModel(view()).discarded_s(paused(resident_tokens=1000), 1000) == pytest.approx(4 * 0.011575 * 134)


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
        policy.on_finish(queued(id=kind, kind=kind, calls_done=1, emitted_before=tokens), here)
    assert policy.tokens_expected(queued(kind="x")) == 20
    assert policy.tokens_expected(queued(kind="new")) == pytest.approx(140 / 3)
    assert policy.tokens_expected(queued(id="a", kind="x", emitted_before=10)) == 30


def test_tokens_and_pauses_are_those_of_all_calls(replay, queued):
    """Calls of 10 and 5 tokens, a pause of 3 s between them, and one of 2 s after which nothing follows. Prompt 10 at
    1.10, nine tokens at 1.01 s: 10.19; back at 13.19 the answer of 5 and the last token take 1.06, four tokens 4.04."""
    policy = Caesura(Oracle())
    replay([Session("a", 0.0, 10, (Call(10, Pause(3.0, 5)), Call(5, Pause(2.0, 5))))], policy)
    assert policy.tokens_expected(queued(id="b")) == 15
    assert policy.mean_normalized_latency == pytest.approx((10.19 + 1.06 + 4.04) / 15)


def test_the_shorter_a_session_the_earlier_it_is_due(queued, view, known):
    """Two sessions have left at 0.1 s a token: 20 tokens in 2 s, 100 tokens in 10 s. At a patience of 2, 20 tokens are
    due 4 s after their arrival; 100 tokens that came a second earlier, 20 s after theirs."""
    order, policy = DueFirst(patience=2.0), Caesura(known())
    order.policy = policy
    for kind, tokens in (("x", 20), ("y", 100)):
        policy.on_finish(queued(id=kind, kind=kind, calls_done=1, emitted_before=tokens), view(now=tokens / 10))
    assert policy.mean_normalized_latency == pytest.approx(0.1)
    assert order.key(queued(kind="x", arrival=1.0), view()) == pytest.approx(5.0)
    assert order.key(queued(kind="y", arrival=0.0), view()) == pytest.approx(20.0)


def test_pauses_put_off_when_a_session_is_due(paused, queued, view, known):
    """5 s of pauses: due at 0 + 5 + 2 * 0.1 * 20. Left at 25 s it would have been served 20 s."""
    order, policy = DueFirst(patience=2.0), Caesura(known())
    order.policy = policy
    policy.on_finish(queued(id="x", kind="x", calls_done=1, emitted_before=20), view(now=2.0))
    assert order.key(queued(id="a", kind="x", emitted_before=10, paused_s=5.0), view()) == pytest.approx(9.0)
    policy.on_finish(queued(id="a", kind="x", calls_done=2, emitted_before=100, paused_s=5.0), view(now=25.0))
    assert policy.mean_normalized_latency == pytest.approx((0.1 + 20 / 100) / 2)


def test_the_pace_is_that_of_the_last_to_finish(queued, view, known):
    """1 s, 2 s and 6 s a token, of which two are remembered."""
    policy = Caesura(known(), pace_window=2)
    assert policy.mean_normalized_latency == 0.0
    for number, seconds in enumerate((10.0, 20.0, 60.0)):
        policy.on_finish(queued(id=str(number), calls_done=1, emitted_before=10), view(now=seconds))
    assert policy.mean_normalized_latency == pytest.approx(4.0)


def test_before_anybody_has_finished_it_is_first_come_first_served(queued, view, known):
    order = DueFirst()
    order.policy = Caesura(known())
    assert order.key(queued(arrival=7.0), view()) == 7.0


def test_the_order_goes_with_its_policy(queued, view):
    with pytest.raises(ValueError, match="goes with the policy 'caesura'"):
        DueFirst().key(queued(), view())


def test_impossible_parameters_are_refused(known):
    with pytest.raises(ValueError, match="headroom is a share"):
        Caesura(known(), headroom=1.5)
    with pytest.raises(ValueError, match="pace_window is at least 1"):
        Caesura(known(), pace_window=0)
    with pytest.raises(ValueError, match="patience is a multiple"):
        DueFirst(patience=math.inf)
