"""Letter V of InferCept's released code: immediate discards, lazy victims, its own budget, and its quirks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract import EVERY_ITERATION, NEVER, Discard, Preserve, Swap
from policies.learning.estimators import Elapsed, Oracle
from policies.papers.infercept_v import InferCeptV, RecomputeEstimate
from tests.policies.conftest import AnyCosts
from traces.session import Call, Pause, Session


def told(changes) -> list[tuple[str, type, int]]:
    return [(paused.id, type(verdict), verdict.keep) for paused, verdict in changes]


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-9)


# ---- its estimate of what a recompute wastes: f_S n (n + 1) / 2 c + f_c n R + f_last (R + last)
# S = 384, f_S = 0.010 + 0.0000463 * 384 = 0.0277792 s; 134 running query tokens leave c = 250, f_c = 0.0000463 * 250
# = 0.011575 s; R = 4000


def discard_wastes(view):
    wastes, running = RecomputeEstimate(view.costs), (view.running_query_tokens, view.running_context_tokens)
    return lambda context: wastes.beside([context], *running)[0]


def test_the_waste_of_full_chunks_and_a_last_part(view):
    """1010 tokens: n = ceil(1010 / 250) - 1 = 4, last = 10.

    0.0277792 * 4 * 5 / 2 * 250 = 69.448;  0.011575 * 4 * 4000 = 185.2;  0.000463 * (4000 + 10) = 1.85663;  256.50463
    """
    assert discard_wastes(view())(1010) == close(256.50463)


def test_quirk_a_multiple_of_the_chunk_forgets_its_last_chunk(view):
    """1000 tokens: n = 4 - 1 = 3, last = 1000 mod 250 = 0. 0.0277792 * 6 * 250 = 41.6688; 0.011575 * 3 * 4000 = 138.9;
    180.5688 in all: 76 less than with ten tokens more. One chunk alone, 250 tokens: n = 0, last = 0, for nothing at
    all."""
    assert discard_wastes(view())(1000) == close(180.5688)
    assert discard_wastes(view())(250) == 0


def test_a_context_shorter_than_a_chunk_costs_only_the_margin(view):
    """20 tokens: n = 0, last = 20: 0.000926 * 4020 = 3.72252; no iteration's fixed 10 ms is counted."""
    assert discard_wastes(view())(20) == close(3.72252)


@pytest.mark.parametrize(("context", "waste"), [(1000, 14_060.7252), (2000, 55_900.8356)])
def test_quirk_a_full_batch_makes_the_waste_grow_with_the_square(view, context, waste):
    """384 or more running query tokens: c = 1, n = C - 1, last = 0.

    1000: 0.0277792 * 999 * 1000 / 2 = 13,875.7104;   0.0000463 *  999 * 4000 = 185.0148;  14,060.7252
    2000: 0.0277792 * 1999 * 2000 / 2 = 55,530.6208;  0.0000463 * 1999 * 4000 = 370.2148;  55,900.8356
    """
    assert discard_wastes(view(running_query_tokens=384))(context) == close(waste)
    assert discard_wastes(view(running_query_tokens=500))(context) == close(waste)


@given(
    st.lists(st.tuples(st.integers(1, 99), st.floats(0, 9)), max_size=12),
    st.lists(st.floats(0, 2), min_size=1, max_size=20),
    st.integers(0, 30),
    st.integers(0, 60),
)
def test_whoever_is_not_looked_at_wastes_less_kept(
    contexts: list[tuple[int, float]], times: list[float], queries: int, others: int
) -> None:
    """For any forward times, also where more tokens take less time."""
    wastes = RecomputeEstimate(AnyCosts(tuple(times)))
    tokens, rests = [one for one, _ in contexts], [rest for _, rest in contexts]
    recomputed = wastes.beside(tokens, queries, others)
    cheap = {place for place, (one, rest) in enumerate(contexts) if recomputed[place] < rest * one}
    assert cheap <= set(wastes.perhaps_less(tokens, rests, queries, others))


# ---- what it does at every iteration


def test_a_pause_itself_decides_nothing(paused, view):
    policy = InferCeptV(Oracle())
    assert policy.on_pause(paused(), view()) == Preserve()
    assert policy.review_at(view()) == NEVER


@pytest.mark.parametrize(
    ("tokens", "here", "at"),
    [
        ([500], {}, 2.1064896),
        ([500, 500], {}, 2.1064896),
        ([500], {"running_sessions": 0}, EVERY_ITERATION),
        ([100, 500], {}, EVERY_ITERATION),
    ],
)
def test_it_wants_to_be_asked_when_another_context_may_become_a_candidate(paused, view, tokens, here, at):
    """500 tokens, paused at 2, waste 53.2448 recomputed: more than kept until 0.1064896 s have passed.

    Beside two that are candidates already, which waste unequally, it wants to be asked every iteration.
    """
    contexts = [paused(str(place), resident_tokens=one, paused_at=2.0) for place, one in enumerate(tokens)]
    if tokens[0] == 100:
        contexts += [paused("old", resident_tokens=1000, paused_at=0.0), paused("older", resident_tokens=900)]
    policy = InferCeptV(Elapsed())
    assert policy.review_at(view(now=2.05, paused=contexts, **here)) == pytest.approx(at, abs=1e-6)


def test_with_an_oracle_nobody_becomes_a_candidate_while_time_passes(paused, view):
    """What is left of a known pause only shrinks: 0.1 s of 1000 tokens is less than 180.57, now and later."""
    oracle = Oracle()
    oracle.truth = lambda _: 5.0
    assert InferCeptV(oracle).review_at(view(now=4.9, paused=[paused(resident_tokens=1000)])) == NEVER


def test_the_dearest_candidate_waits_for_a_need_and_the_others_are_discarded(paused, view, known):
    """w_p = remaining * context, w_d as above:

        kept     1000 tokens, 0.1 s left:  w_p  100 < w_d 180.5688   no candidate
        dearest  1000 tokens, 1 s left:    w_p 1000 > w_d 180.5688   candidate, the largest w_d: a lazy victim
        cheap     500 tokens, 2 s left:    w_p 1000 > w_d 53.2448    candidate: discarded at once

    500 tokens: n = 1, last = 0: 0.0277792 * 1 * 250 = 6.9448; 0.011575 * 4000 = 46.3.
    """
    contexts = [
        paused("kept", resident_tokens=1000),
        paused("dearest", resident_tokens=1000),
        paused("cheap", resident_tokens=500),
    ]
    policy = InferCeptV(known(kept=0.1, dearest=1.0, cheap=2.0))
    here = view(paused=contexts)
    changes = list(policy.revise(here))
    assert told(changes) == [("cheap", Discard, 0)]
    assert changes[0][1].reasons == pytest.approx({"preserve": 1000, "recompute": 53.2448}, rel=1e-9)
    assert told(policy.evict(1, here)) == [("dearest", Swap, 990)]


def test_a_single_candidate_is_never_discarded_at_once(paused, view, known):
    policy = InferCeptV(known(a=1e6))
    here = view(paused=[paused(resident_tokens=500)])
    assert told(policy.revise(here)) == []
    assert told(policy.evict(1, here)) == [("a", Swap, 490)]


def test_equally_dear_candidates_are_all_victims(paused, view, known):
    policy = InferCeptV(known(a=10.0, b=20.0))
    here = view(paused=[paused("a", resident_tokens=400), paused("b", resident_tokens=400)])
    assert told(policy.revise(here)) == []
    assert told(policy.evict(49, here)) == [("a", Swap, 0), ("b", Swap, 310)]


def test_contexts_are_rounded_up_to_blocks(paused, view, known):
    """1001 tokens hold 101 blocks and count as 1010, for both wastes: 0.25 s * 1010 = 252.5 < 256.50463, 0.26 s
    more."""
    policy = InferCeptV(known(a=0.25, b=0.26, c=1.0))
    a, b = paused("a", resident_tokens=1001), paused("b", resident_tokens=1001)
    dearest = paused("c", resident_tokens=1500)
    changes = list(policy.revise(view(paused=[a, b, dearest])))
    assert told(changes) == [("b", Discard, 0)]
    assert changes[0][1].reasons == pytest.approx({"preserve": 262.6, "recompute": 256.50463}, rel=1e-9)


def test_what_moves_or_came_back_is_left_alone(paused, view, known):
    policy = InferCeptV(known(a=10.0, b=10.0, c=10.0))
    a, b, c = (paused(name, resident_tokens=400) for name in "abc")
    a.moving, b.resumed = True, True
    here = view(paused=[a, b, c])
    assert told(policy.revise(here)) == []
    assert told(policy.evict(10, here)) == [("c", Swap, 300)]


# ---- when blocks are needed: out = (1 + a) 384 + b - free / 2 = 385.77408 + 108.99 - free / 2 tokens, in whole blocks


@pytest.mark.parametrize(
    ("needed", "free_blocks", "leaving"),
    [
        (10, 0, 10),  # 494.76 tokens: 49 blocks
        (60, 0, 49),
        (60, 20, 39),  # 494.76 - 100 = 394.76
        (60, 96, 1),  # 494.76 - 480 = 14.76
        (60, 98, 0),  # 494.76 - 490 = 4.76: less than a block
        (60, 99, 0),  # 494.76 - 495 < 0: from 990 free tokens on nothing leaves
    ],
)
def test_a_victim_leaves_from_its_tail_within_the_releases_budget(paused, view, known, needed, free_blocks, leaving):
    policy = InferCeptV(known(a=10.0))
    here = view(paused=[paused(resident_tokens=1000)], free_gpu_blocks=free_blocks)
    list(policy.revise(here))
    assert told(policy.evict(needed, here)) == ([("a", Swap, (100 - leaving) * 10)] if leaving else [])


def test_who_was_offered_and_stays_has_spent_nothing(paused, view, known):
    """49 blocks may leave and 60 are needed: too few, so none leaves, and a need of 10 then finds them."""
    policy = InferCeptV(known(a=10.0))
    here = view(paused=[paused(resident_tokens=1000)], free_gpu_blocks=0)
    assert told(policy.evict(60, here)) == [("a", Swap, 510)]
    assert told(policy.evict(10, here)) == [("a", Swap, 900)]


@pytest.mark.parametrize("gone", [{"moving": True}, {"resident_tokens": 0}], ids=["on its way", "left"])
def test_who_leaves_has_spent_the_budget_of_the_iteration(paused, view, known, gone):
    """Of 49 blocks a takes 40; b gives 9 in the same iteration and could give all its 40 in the next."""
    policy = InferCeptV(known(a=10.0, b=10.0))
    a, b = paused("a", resident_tokens=400), paused("b", resident_tokens=400)
    assert told(policy.evict(40, view(now=10.0, paused=[a, b], free_gpu_blocks=0))) == [("a", Swap, 0)]
    for name, value in gone.items():
        setattr(a, name, value)
    for now, keep in ((10.0, 310), (11.0, 0)):
        assert told(policy.evict(60, view(now=now, paused=[a, b], free_gpu_blocks=0))) == [("b", Swap, keep)]


def test_it_wants_to_be_asked_again_when_the_budget_was_too_small(paused, view, known):
    """49 blocks may leave. Decoding takes free blocks, and half a block each adds to the next iteration's budget."""
    policy = InferCeptV(known(a=10.0))
    here = view(paused=[paused(resident_tokens=1000)], free_gpu_blocks=0)
    for needed, review in ((49, NEVER), (50, EVERY_ITERATION)):
        list(policy.evict(needed, here))
        assert policy.review_at(here) == review
    assert policy.review_at(view(now=11.0, paused=here.paused)) == NEVER


def test_it_decides_afresh_whenever_room_is_needed(paused, view, known):
    """A context that was cheap beside a dearer one is the dearest once that has left, without another review."""
    policy = InferCeptV(known(a=10.0, b=10.0))
    a, b = paused("a", resident_tokens=100), paused("b", resident_tokens=400)
    assert told(policy.evict(1, view(paused=[a, b]))) == [("b", Swap, 390)]
    assert told(policy.evict(1, view(paused=[a]))) == [("a", Swap, 90)]


def test_who_is_cheaper_to_keep_never_gives_way(paused, view, known):
    """100 tokens: w_d = 0.00463 * 4100 = 18.983, so a pause of 0.18 s more (w_p = 18) is preserved, whatever the
    need."""
    here = view(paused=[paused("a", resident_tokens=100)])
    assert told(InferCeptV(known(a=0.18)).evict(10, here)) == []
    assert told(InferCeptV(known(a=0.19)).evict(10, here)) == [("a", Swap, 0)]


@pytest.mark.parametrize("change", [{"resumed": True}, {"moving": True}, {"resident_tokens": 0}])
def test_a_victim_that_came_back_or_left_since_is_passed_over(paused, view, known, change):
    policy = InferCeptV(known(a=10.0, b=10.0))
    a, b = paused("a"), paused("b")
    here = view(paused=[a, b])
    list(policy.revise(here))
    for name, value in change.items():
        setattr(a, name, value)
    assert told(policy.evict(1, here)) == [("b", Swap, 90)]


# ---- in a world


@pytest.mark.parametrize(
    ("when_idle", "finished", "recomputed"), [(False, 203.25, 0), (True, 203.4, 30)], ids=["swapped in", "recomputed"]
)
def test_one_is_discarded_and_the_dearest_leaves_only_when_an_arrival_needs_its_blocks(
    replay, when_idle, finished, recomputed
):
    """P (20 tokens, paused 100 s), Q (40 tokens, paused 200 s) and C (40 tokens, 5 of output) start together: 2.0 s.

    At 2.0 C decodes: c = 99, R = 40, f(x) = 0.01 x. P: w_d = 0.2 * (40 + 20) = 12; Q: 0.4 * (40 + 40) = 32; both less
    than to keep them (2000, 8000). So P is discarded and Q stays. Of 12 blocks Q holds 4, C 5 from 3.01 on. D (60
    tokens) arrives at 2.5. At 3.01 it needs 6 blocks and 3 are free: Q's last 3 leave, 30 tokens in 0.15 s, free at
    4.02. Then C and D compute 61 tokens, 1.61 s: D is done at 5.63, C at 6.64.

    P is back at 102: 20 + 1 + 9 = 30 tokens, 103.3. Q is back at 202 with 10 tokens: the other 30 are copied in 0.15
    s and 10 computed in 1.1 s, 203.25; or, by the release's rule for an empty queue, 40 are computed in 1.4 s, 203.4.
    The release's budget out, a = b = 0 here: 100 - 30 / 2 = 85 tokens, enough.
    """
    sessions = [
        Session("p", 0.0, 20, (Call(1, Pause(100.0, returned=9)), Call(1))),
        Session("q", 0.0, 40, (Call(1, Pause(200.0, returned=9)), Call(1))),
        Session("c", 0.0, 40, (Call(5),)),
        Session("d", 2.5, 60, (Call(1),)),
    ]
    policy = InferCeptV(Oracle(), per_token=0.0, fixed=0.0)
    world = replay(sessions, policy, gpu_tokens=120, recompute_swapped_when_idle=when_idle)
    assert world.changes() == [(2.0, "p", "discard", 0), (3.01, "q", "swap", 10)]
    assert world.calls("q", "resident_tokens")[1] == 10
    assert world.calls("q", "offloaded_tokens")[1] == 30
    assert world.finished == pytest.approx({"p": 103.3, "q": finished, "c": 6.64, "d": 5.63}, rel=1e-9)
    assert world.of("recomputed_tokens") == {"p": 20, "q": recomputed, "c": 0, "d": 0}
    assert world.record.facts["uses_oracle"]
