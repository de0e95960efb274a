"""The contract of a policy: defaults of the questions, and how the engine carries out answers."""

from __future__ import annotations

import pytest

from policies.contract import EVERY_ITERATION, NEVER, Discard, InterceptPolicy, Preserve, Swap
from sim.errors import PolicyError
from traces.session import Call, Pause, Session


def test_every_question_has_a_default(paused, view):
    policy, here = InterceptPolicy(), view(paused=[paused()])
    assert policy.on_pause(paused(), here) == Preserve()
    assert list(policy.evict(1, here)) == list(policy.revise(here)) == []
    assert policy.review_at(here) == NEVER
    assert policy.on_resume(paused(), 1.0, here) is None


def test_who_overrides_revise_is_asked_every_iteration(view):
    class Restless(InterceptPolicy):
        def revise(self, view):
            return ()

    assert Restless().review_at(view()) == EVERY_ITERATION


def test_a_policy_is_asked_whenever_an_iteration_is_planned_and_at_its_review_time_while_nothing_runs(replay):
    """A pauses at 1.2 for 10 s and nothing else runs: asked at 1.2, then at 5.0, and never again. At 5.0 the 20
    tokens are dropped; 20 + 1 + 9 = 30 take 1.3 s from 11.2 on."""

    class AtFive(InterceptPolicy):
        def __init__(self):
            self.asked = []

        def review_at(self, view):
            return 5.0 if view.now < 5.0 else NEVER

        def revise(self, view):
            self.asked.append(round(view.now, 9))
            return [(paused, Discard()) for paused in view.paused if view.now >= 5.0]

    policy = AtFive()
    world = replay([Session("a", 0.0, 20, (Call(1, Pause(10.0, returned=9)), Call(1)))], policy)
    assert policy.asked == [1.2, 5.0]
    assert world.changes() == [(5.0, "a", "discard", 0)]
    assert world.finished["a"] == pytest.approx(12.5, rel=1e-9)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("discard", "expected Preserve, Swap or Discard, got 'discard'"),
        (None, "expected Preserve, Swap or Discard, got None"),
        (Discard(keep=22), "keep is 22; the context has 21 tokens"),
        (Swap(keep=-1), "keep is -1"),
        (Discard(keep=1.5), "keep is 1.5"),
    ],
)
def test_an_impossible_answer_names_policy_session_and_time(replay, answer, complaint):
    class Odd(InterceptPolicy):
        def on_pause(self, paused, view):
            return answer

    session = Session("the-session", 0.0, 20, (Call(1, Pause(1.0)), Call(1)))
    with pytest.raises(PolicyError, match=rf"Odd failed in on_pause for session the-session at 1\.2.*{complaint}"):
        replay([session], Odd())


def test_part_of_a_context_can_be_dropped_by_whole_blocks(replay):
    """Of 39 tokens the first 15 are to stay: two blocks, so 20 do. 19 + 1 = 20 tokens at 11.39 take 1.2 s."""

    class KeepSome(InterceptPolicy):
        def on_pause(self, paused, view):
            return Discard(keep=15)

    world = replay([Session("a", 0.0, 39, (Call(1, Pause(10.0)), Call(1)))], KeepSome())
    assert world.calls("a", "resident_tokens") == [0, 20]
    assert world.finished["a"] == pytest.approx(12.59, rel=1e-9)


# ---- answers carried out


class DropAfterFive(InterceptPolicy):
    """Walks over ``view.paused`` lazily, as is natural to write."""

    def revise(self, view):
        for paused in view.paused:
            if view.now - paused.paused_at > 5.0:
                yield paused, Discard()


def test_a_policy_may_answer_while_it_walks_over_the_paused(replay):
    """A and B pause together at 1.6 while C decodes; once 5 s have passed both are dropped."""
    sessions = [
        Session("a", 0.0, 20, (Call(1, Pause(20.0)), Call(1))),
        Session("b", 0.0, 20, (Call(1, Pause(20.0)), Call(1))),
        Session("c", 0.0, 20, (Call(10),)),
    ]
    world = replay(sessions, DropAfterFive())
    assert world.of("recomputed_tokens") == {"a": 20, "b": 20, "c": 0}


class SwapOnNeed(InterceptPolicy):
    def evict(self, blocks, view):
        return [(paused, Swap()) for paused in view.paused]


@pytest.mark.parametrize("host_tokens", [0, 10, 20])
def test_paused_contexts_give_way_before_running_sessions_are_preempted(replay, host_tokens):
    """10 blocks. At 2.0 A pauses with 4 of them, and B and C need one more each. The host holds none, one or two
    blocks: what it cannot take of those two is dropped, and no session is preempted."""
    sessions = [
        Session("a", 0.0, 40, (Call(1, Pause(50.0)), Call(1))),
        Session("b", 0.0, 30, (Call(5),)),
        Session("c", 0.0, 30, (Call(5),)),
    ]
    world = replay(sessions, SwapOnNeed(), gpu_tokens=100, host_tokens=host_tokens)
    assert world.of("preemptions") == {"a": 0, "b": 0, "c": 0}


def test_a_swap_that_became_a_discard_is_logged_as_one(replay):
    sessions = [
        Session("a", 0.0, 40, (Call(1, Pause(50.0)), Call(1))),
        Session("b", 0.0, 60, (Call(5),)),
    ]
    world = replay(sessions, SwapOnNeed(), gpu_tokens=100, host_tokens=0)
    assert world.of("recomputed_tokens")["a"] == 40
    assert world.changes() == [(2.0, "a", "discard", 0)]
