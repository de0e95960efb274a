"""A portrait counts as a person would by hand."""

from __future__ import annotations

import numpy as np
import pytest

from traces import Call, Pause, Session
from traces.portrait import Portrait, arrival_figures, tick

CHAT = Session("a", 0.0, 100, (Call(10, Pause(4.0, 20, "user")), Call(5)), "chat")
LISTING = Pause(1.0, 7, "tool", "ls", keeps=40)
AGENT = Session("b", 2.0, 50, (Call(30, LISTING), Call(1, Pause(0.5, 9, "tool", "ls"))), "agent")


def test_contexts_grow_by_outputs_and_returns_and_shrink_by_rewrites() -> None:
    """100, +10 +20 = 130, +5 = 135. And 50, +30 = 80 at the pause, 40 kept +7 = 47, +1 = 48."""
    portrait = Portrait([CHAT, AGENT])
    assert portrait.column("context").tolist() == [100, 130, 50, 47]
    assert portrait.column("context_at_pause").tolist() == [110, 80, 48]
    assert portrait.column("final_context").tolist() == [135, 48]
    assert portrait.rewritten == 1


def test_pauses_are_told_apart_by_who_is_waited_for() -> None:
    portrait = Portrait([CHAT, AGENT])
    assert portrait.waits == [("tool", "ls"), ("user", "")]
    tool, user = portrait.summary(0.0)["waits"]
    assert (tool["name"], tool["seconds"]["count"], tool["seconds"]["mean"]) == ("tool:ls", 2, 0.75)
    assert (user["share"], user["share_of_time"]) == (pytest.approx(1 / 3), pytest.approx(4 / 5.5))


def test_open_sessions_last_for_pauses_and_generation() -> None:
    """At 0.1 s a token: 0 to 4 + 1.5 = 5.5 s, and 2 to 2 + 1.5 + 3.1 = 6.6 s. 10.1 s in all over 6.6 s."""
    figures = Portrait([CHAT, AGENT]).summary(0.1)["concurrency"]
    assert figures["peak"] == 2
    assert figures["mean"] == pytest.approx((5.5 + 4.6) / 6.6)


def test_shared_blocks_are_those_seen_before() -> None:
    """1 2 3, then 1 2 4: two of six."""
    pairs = (("a", (1, 2, 3)), ("b", (1, 2, 4)))
    first, second = (Session(id, 0.0, 12, (Call(1),), block_hashes=hashes, hash_block=4) for id, hashes in pairs)
    assert Portrait([first, second]).summary(0.0)["shared_blocks"] == {"seen": 6, "seen_before": 2, "hit_share": 2 / 6}


def test_gaps_vary_as_their_deviation_over_their_mean() -> None:
    """Gaps of 1 and 3 s: mean 2, deviation 1."""
    figures = arrival_figures(np.array([0.0, 1.0, 4.0, 5.0, 8.0]))
    assert (figures["span_s"], figures["rate"], figures["gap_cv"], figures["tick_s"]) == (8.0, 0.5, 0.5, None)


def test_a_grid_of_arrival_times_is_noticed() -> None:
    assert tick(np.array([0.0, 0.0, 3.0, 0.0, 6.0])) == 3.0
    assert tick(np.array([0.0, 0.0, 3.0, 0.0, 7.1])) is None
    assert tick(np.array([0.0, 3.0, 3.0, 6.0, 3.0])) is None


def test_a_trace_without_arrivals_or_pauses_says_so() -> None:
    summary = Portrait([Session("a", 0.0, 5, (Call(1),))]).summary(0.02)
    assert summary["arrivals"] is summary["concurrency"] is summary["shared_blocks"] is None
    assert summary["waits"] == []
    assert summary["kinds"]["all"]["pause_s"] is None
