"""Contexts stay while there is room and leave least recently used first, last blocks first."""

from __future__ import annotations

import pytest

from policies.basic.cache_lru import CacheLru
from policies.contract import NEVER, Discard, Preserve
from traces.session import Call, Pause, Session


def test_nothing_leaves_before_it_must(paused, view):
    policy, here = CacheLru(), view(paused=[paused()], now=1e6)
    assert policy.on_pause(paused(), here) == Preserve()
    assert list(policy.revise(here)) == []
    assert policy.review_at(here) == NEVER


@pytest.mark.parametrize(
    ("needed", "kept"),
    [
        (1, {"old": 90}),
        (3, {"old": 70}),
        (10, {"old": 0}),
        (12, {"old": 0, "new": 20}),
        (14, {"old": 0, "new": 0}),
        (99, {"old": 0, "new": 0}),
    ],
)
def test_the_longest_unused_loses_its_last_blocks_first(paused, view, needed, kept):
    """Blocks of 10 tokens. The older context has 95 tokens in 10 blocks, the newer 40 in 4. One block from the older
    leaves 90 tokens, three leave 70; twelve take all of it and two of the newer's four, which leaves 20."""
    contexts = [paused("old", resident_tokens=95), paused("new", resident_tokens=40)]
    changes = list(CacheLru().evict(needed, view(paused=contexts)))
    assert {context.id: verdict.keep for context, verdict in changes} == kept
    assert all(isinstance(verdict, Discard) for _, verdict in changes)


@pytest.mark.parametrize(
    ("gpu_tokens", "left", "finished", "recomputed"),
    [
        (1000, {"a": 40, "b": 40}, {"a": 103.9, "b": 202.89, "c": 11.9}, {"a": 0, "b": 0, "c": 0}),
        (150, {"a": 40, "b": 20}, {"a": 103.9, "b": 203.09, "c": 11.9}, {"a": 0, "b": 20, "c": 0}),
        (100, {"a": 10, "b": 0}, {"a": 104.2, "b": 203.29, "c": 11.9}, {"a": 30, "b": 40, "c": 0}),
    ],
    ids=["room for all", "two blocks short", "seven blocks short"],
)
def test_an_arrival_takes_the_tail_of_whoever_paused_first(replay, gpu_tokens, left, finished, recomputed):
    """A (39 tokens) and B (40) start together, 1.79 s. B pauses at 1.79, A after a second token at 2.80: B is the
    older. Each holds 40 tokens in 4 blocks. At 10 C arrives and needs 9 blocks for 90 tokens: 1.9 s, 11.9.

    Of 15 blocks 7 are free: B loses its last 2 and keeps 20 tokens. Of 10 blocks 2 are free: B loses 4, A 3 and keeps
    10.

    A is back at 102.80 with 1 + 9 new tokens: 10 take 1.1 s; with 30 lost 40 take 1.4 s.
    B is back at 201.79 likewise: 10 take 1.1 s; with 20 lost 30 take 1.3 s; with 40 lost 50 take 1.5 s.
    """
    sessions = [
        Session("a", 0.0, 39, (Call(2, Pause(100.0, returned=9)), Call(1))),
        Session("b", 0.0, 40, (Call(1, Pause(200.0, returned=9)), Call(1))),
        Session("c", 10.0, 90, (Call(1),)),
    ]
    world = replay(sessions, CacheLru(), gpu_tokens=gpu_tokens, resume_on_gpu="queue")
    assert {name: world.calls(name, "resident_tokens")[1] for name in "ab"} == left
    assert world.finished == pytest.approx(finished, rel=1e-9)
    assert world.of("recomputed_tokens") == recomputed


def test_decoding_sessions_take_from_paused_contexts_before_they_preempt(replay):
    """10 blocks: A pauses at 2.0 with 4; B and C fill 3 each and need one more each for their second token: A loses 2.

    B and C: 2, then 4 tokens of two sessions at 1.02 s: 6.08, no preemption. A is back at 52: 41 - 20 + 5 = 26 tokens.
    """
    sessions = [
        Session("a", 0.0, 40, (Call(1, Pause(50.0, returned=5)), Call(1))),
        Session("b", 0.0, 30, (Call(5),)),
        Session("c", 0.0, 30, (Call(5),)),
    ]
    world = replay(sessions, CacheLru(), gpu_tokens=100)
    assert world.changes() == [(2.0, "a", "discard", 20)]
    assert world.finished == pytest.approx({"a": 53.26, "b": 6.08, "c": 6.08}, rel=1e-9)
    assert world.total("preemptions") == 0
