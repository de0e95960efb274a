"""TokenCake: who leaves at a pause, and who comes back ahead of its return."""

from __future__ import annotations

import pytest

from policies.contract import NEVER, Prefetch, Preserve, Swap
from policies.estimators import Oracle
from policies.tokencake import TokenCake
from traces.session import Call, Pause, Session


@pytest.mark.parametrize(
    ("free", "waiting", "expected", "verdict"),
    [(99, 1, 1.0, Swap), (100, 1, 1.0, Preserve), (99, 0, 1.0, Preserve), (99, 1, 0.008, Preserve)],
)
def test_a_context_leaves_under_pressure_if_its_pause_outlasts_both_copies(
    paused, view, known, free, waiting, expected, verdict
):
    """100 tokens are copied in 4 ms, so out and in take 8. Memory is short below a tenth of 1000 blocks."""
    policy = TokenCake(known(a=expected))
    here = view(free_gpu_blocks=free, waiting_sessions=waiting)
    assert type(policy.on_pause(paused(), here)) is verdict


def test_an_upload_begins_one_copy_before_the_expected_return(paused, view, known):
    """Paused at 10 for 1 s, 100 tokens of 4 ms on the host: at 10.996."""
    policy = TokenCake(known(a=1.0))
    away = paused(paused_at=10.0, resident_tokens=0, offloaded_tokens=100)
    here = view(now=10.99, offloaded=[away])
    assert policy.review_at(here) == pytest.approx(10.996)
    assert list(policy.revise(here)) == []
    here.now = policy.review_at(here)
    assert [(one.id, type(verdict)) for one, verdict in policy.revise(here)] == [("a", Prefetch)]


def test_what_is_on_the_way_already_is_not_asked_for_again(paused, view, known):
    away = paused(resident_tokens=0, offloaded_tokens=100, moving=True)
    here = view(now=50.0, offloaded=[away])
    assert list(TokenCake(known(a=1.0)).revise(here)) == []
    assert TokenCake(known(a=1.0)).review_at(here) == NEVER


A = Session("a", 0.0, 40, (Call(1, Pause(10.0, returned=9)), Call(1)))
B = Session("b", 0.0, 60, (Call(3),))
W = Session("w", 0.0, 10, (Call(1),))


@pytest.mark.parametrize(("uploads", "end"), [(True, 13.1), (False, 13.3)])
def test_a_context_is_there_when_its_session_is_back(replay, uploads, end):
    """Two at a time. A pauses at 2.0, when W waits, and leaves for 0.2 s. It is expected, rightly, at 12.0: its copy
    begins at 11.8 though nobody runs, and A computes 10 tokens from 12.0 to 13.1. Without uploads the copy begins at
    12.0, and A ends at 13.3.
    """
    policy = TokenCake(Oracle(), pressure=1.0, uploads=uploads)
    world = replay([A, B, W], policy, max_running=2, swap_budget="unlimited")
    assert world.finished["a"] == pytest.approx(end, rel=1e-9)
    assert world.of("recomputed_tokens") == {"a": 0, "b": 0, "w": 0}
    assert world.changes() == ([(11.8, "a", "prefetch", 41)] if uploads else [])


def test_a_context_that_is_fetched_too_early_may_lose_its_memory_again(replay):
    """13 blocks. 3 s are expected where the truth is 10: A's 4 blocks are back at 5.0. A prompt that comes at 5.5 needs
    10, takes A's last one, and A computes its 10 tokens again."""

    class ThreeSeconds(Oracle):
        needs_truth = False

        def remaining(self, paused, now):
            return paused.paused_at + 3.0 - now

    late = Session("late", 5.5, 100, (Call(1),))
    policy = TokenCake(ThreeSeconds(), pressure=1.0)
    world = replay([A, B, W, late], policy, max_running=2, swap_budget="unlimited", gpu_tokens=130)
    assert [verdict for _, _, verdict, _ in world.changes()] == ["prefetch", "discard"]
    assert world.of("recomputed_tokens")["a"] == 10


def test_impossible_parameters_are_refused(known):
    with pytest.raises(ValueError, match="pressure is a share"):
        TokenCake(known(), pressure=1.5)
