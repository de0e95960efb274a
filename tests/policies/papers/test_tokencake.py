"""TokenCake: which contexts leave at a pause, and which come back ahead of the return."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract import NEVER, Prefetch, Preserve, Swap
from policies.learning.estimators import Ewma, Oracle
from policies.papers.tokencake import TokenCake
from tests.sim.random_worlds import examples, plots
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


def test_an_upload_is_expected_anew_when_a_pause_has_ended_or_the_context_is_another(paused, view):
    """100 tokens take 4 ms, 50 take 2. b's pause of 3 s ends: the next is expected to last (1 + 3) / 2 s."""
    estimator = Ewma(default=1.0, weight=0.5)
    policy = TokenCake(estimator)
    away, half = paused(offloaded_tokens=100), paused(offloaded_tokens=50)
    estimator.pause_ended(paused(id="c"), 1.0)
    assert policy.review_at(view(offloaded=[away])) == pytest.approx(0.996)
    assert policy.review_at(view(offloaded=[half])) == pytest.approx(0.998)
    estimator.pause_ended(paused(id="b"), 3.0)
    policy.on_resume(paused(id="b"), 3.0, view())
    assert policy.review_at(view(offloaded=[away])) == pytest.approx(1.996)


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
    begins at 11.8 though no session runs, and A computes 10 tokens from 12.0 to 13.1. Without uploads the copy begins
    at
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


class AskedEachTime(TokenCake):
    """Asks the estimator whenever it needs to know."""

    def _upload_at(self, paused, view):
        self._uploads.clear()
        return super()._upload_at(paused, view)


SPECS = [
    {"estimator": estimator, "pressure": 1.0}
    for estimator in ("oracle", "elapsed", {"name": "ewma", "default": 1.0}, {"name": "tool-mean", "default": 1.0})
]


@examples(20)
@given(st.sampled_from(SPECS), st.data())
def test_what_is_expected_of_a_pause_changes_only_when_one_ends(spec, data):
    plot = data.draw(plots(st.just({"name": "tokencake", **spec})))
    plot = replace(plot, settings=plot.settings.model_copy(update={"swap": "overlapped"}))
    plain = replace(plot, policy={"name": f"{__name__}:AskedEachTime", **spec})
    assert repr(plot.run().record.calls) == repr(plain.run().record.calls)
