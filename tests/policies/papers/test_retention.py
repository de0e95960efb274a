"""Retention by priority and duration."""

from __future__ import annotations

import pytest

from policies.papers.retention import DEFAULT_PRIORITY, Retention

WISHES = {"tool": {"priority": 80, "duration": 30}, "user": {"priority": 20}, "search": {"priority": 90}}


@pytest.mark.parametrize(
    ("tool", "waits_for", "now", "priority"),
    [
        ("bash", "tool", 10.0, 80),
        ("bash", "tool", 39.9, 80),
        ("bash", "tool", 40.0, DEFAULT_PRIORITY),
        ("search", "tool", 1e6, 90),
        ("", "user", 1e6, 20),
        ("", "image", 10.0, DEFAULT_PRIORITY),
    ],
)
def test_a_wish_holds_for_its_duration_and_the_tools_own_counts_first(paused, tool, waits_for, now, priority):
    assert Retention(WISHES).priority(paused(tool=tool, waits_for=waits_for, paused_at=10.0), now) == priority


def test_the_lowest_priority_goes_first_then_the_longest_unused(paused, view):
    """10 blocks each. A person's (20), then what has lapsed (35), then the tools (80), each the longest unused first;
    of the last one only the 5 blocks that are still needed."""
    contexts = [
        paused(id="lapsed", tool="bash", paused_at=1.0),
        paused(id="person", tool="chat", waits_for="user", paused_at=50.0),
        paused(id="old", tool="bash", paused_at=60.0),
        paused(id="new", tool="bash", paused_at=61.0),
    ]
    gone = Retention(WISHES).evict(25, view(now=62.0, paused=contexts))
    assert [(one.id, verdict.keep) for one, verdict in gone] == [("person", 0), ("lapsed", 0), ("old", 50)]


def test_a_priority_beyond_100_is_refused():
    with pytest.raises(ValueError, match="priority is 0 to 100"):
        Retention({"tool": {"priority": 101}})
