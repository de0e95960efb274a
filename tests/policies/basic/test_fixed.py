"""The three fixed answers. One world for all three, so that they can be compared:

A (prompt 40, one token, a pause of 10 s that returns 9 tokens, one token) and B (prompt 60, three tokens) arrive at
0. The first iteration computes 100 tokens: 1 + 1 = 2 s. At 2.0 A pauses, with 40 tokens in 4 blocks and one more to
compute; B decodes on, 1.01 s a token. The answer comes at 12.0, when B has left.
"""

from __future__ import annotations

import pytest

from policies.basic.fixed import DiscardAlways, PreserveAlways, SwapAlways
from policies.contract import NEVER, Discard, Preserve, Swap
from traces.session import Call, Pause, Session

A = Session("a", 0.0, 40, (Call(1, Pause(10.0, returned=9)), Call(1)))
B = Session("b", 0.0, 60, (Call(3),))


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("policy", "verdict"), [(DiscardAlways(), Discard()), (PreserveAlways(), Preserve()), (SwapAlways(), Swap())]
)
def test_a_fixed_answer_is_the_same_for_every_pause_and_never_changes(paused, view, policy, verdict):
    contexts = [paused(resident_tokens=10), paused(resident_tokens=2000, waits_for="user")]
    here = view(paused=contexts, now=1000.0)
    assert [policy.on_pause(context, here) for context in contexts] == [verdict, verdict]
    assert list(policy.evict(50, here)) == []
    assert list(policy.revise(here)) == []
    assert policy.review_at(here) == NEVER


def test_discard_recomputes_the_whole_context(replay):
    """B: 2 + 2 * 1.01 = 4.02. A: 40 + 1 + 9 = 50 tokens at 12.0 take 1.5 s: 13.5.

    Waste: 40 of the 50 tokens are computed again, so 4 of A's 5 blocks recompute for 1.5 s: 40 * 1.5 = 60 token-s.
    Without them the iteration had taken 1.1 s, so the fifth block waits 0.4 s for them: 10 * 0.4 = 4 token-s.
    """
    world = replay([A, B], DiscardAlways())
    assert world.finished == pytest.approx({"a": 13.5, "b": 4.02}, rel=1e-9)
    assert world.of("recomputed_tokens") == {"a": 40, "b": 0}
    assert world.calls("a", "resident_tokens") == [0, 0]
    assert world.total("recompute_forward_s") == close(0.4)
    assert world.total("waste_recompute_own_token_s") == close(60.0)
    assert world.total("waste_recompute_others_token_s") == close(4.0)
    assert world.total("waste_preserve_token_s") == 0


def test_discard_recomputes_in_chunks_up_to_the_saturation_point(replay):
    """A alone, prompt 100, three tokens: 2.0, 3.01, 4.02. Back at 14.02 with 20 more, 102 + 1 + 20 = 123 tokens:
    100 of them in 2.0 s, all again; 23 in 1.23 s, 2 of them again (1.21 s without); then one more token in 1.01 s.

    2.0 + 1.23 + 1.01 -> 18.26; recomputation takes 2.0 + 0.02 s of it.
    """
    session = Session("a", 0.0, 100, (Call(3, Pause(10.0, returned=20)), Call(2)))
    world = replay([session], DiscardAlways())
    assert world.calls("a", "first_token_at") == pytest.approx([2.0, 17.25], rel=1e-9)
    assert world.finished["a"] == close(18.26)
    assert world.of("recomputed_tokens") == {"a": 102}
    assert world.total("recompute_forward_s") == close(2.02)


def test_preserve_computes_only_what_is_new(replay):
    """B as before: 4.02. A: 1 + 9 = 10 tokens at 12.0 take 1.1 s: 13.1. Its 4 blocks idled for 10 s: 400 token-s."""
    world = replay([A, B], PreserveAlways())
    assert world.finished == pytest.approx({"a": 13.1, "b": 4.02}, rel=1e-9)
    assert world.of("recomputed_tokens") == {"a": 0, "b": 0}
    assert world.calls("a", "resident_tokens") == [0, 40]
    assert world.total("waste_preserve_token_s") == close(400.0)


def test_preserved_contexts_do_not_give_way_to_an_arrival(replay):
    """11 blocks: A holds 4 from 2.0 on, B 7 until it leaves at 4.02. D (80 tokens) arrives at 5 and needs 8 of the
    free 7: it waits until A has left at 13.1, and takes 1.8 s."""
    d = Session("d", 5.0, 80, (Call(1),))
    world = replay([A, B, d], PreserveAlways(), gpu_tokens=110)
    assert world.finished == pytest.approx({"a": 13.1, "b": 4.02, "d": 14.9}, rel=1e-9)


def test_swap_makes_the_batch_wait_for_both_copies(replay):
    """Out: 40 tokens at 200 a second take 0.2 s, and B's second token comes at 2 + 0.2 + 1.01 = 3.21, its third at
    4.22. In: 0.2 s at 12.0, then 10 tokens in 1.1 s: 13.3.

    Waste: B's 6 + 1 blocks wait 0.2 s and A's 4 are being read, 22 token-s; then A's own 4 + 1 blocks wait 0.2 s,
    10 token-s.
    """
    world = replay([A, B], SwapAlways(), swap="blocking", swap_budget="unlimited")
    assert world.calls("b", "finished_at") == [close(4.22)]
    assert world.finished == pytest.approx({"a": 13.3, "b": 4.22}, rel=1e-9)
    assert world.calls("a", "offloaded_tokens") == [0, 40]
    assert world.of("swapped_out_bytes") == {"a": 40, "b": 0}
    assert world.of("swapped_in_bytes") == {"a": 40, "b": 0}
    assert world.total("swap_stall_s") == close(0.4)
    assert world.total("waste_swap_token_s") == close(32.0)


@pytest.mark.parametrize(("host_full", "finished"), [("discard", 13.5), ("preserve", 13.1)])
def test_swap_without_room_on_the_host_does_what_the_settings_say(replay, host_full, finished):
    """The host holds 3 of the 4 blocks: nothing is copied, and A fares as under discard or under preserve, above."""
    settings = {"swap": "blocking", "swap_budget": "unlimited", "host_full": host_full}
    world = replay([A, B], SwapAlways(), host_tokens=30, **settings)
    assert world.finished == pytest.approx({"a": finished, "b": 4.02}, rel=1e-9)
    assert world.total("swap_stall_s") == 0


def test_swap_beside_the_batch_delays_nobody_but_its_own_session(replay):
    """Overlapped: B keeps 4.02. A's copy in at 12.0 has nothing to hide behind and takes 0.2 s; then 1.1 s: 13.3."""
    world = replay([A, B], SwapAlways(), swap="overlapped")
    assert world.finished == pytest.approx({"a": 13.3, "b": 4.02}, rel=1e-9)
    assert world.total("swap_stall_s") == 0
