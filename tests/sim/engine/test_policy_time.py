"""The time that policies see: never earlier than when they were asked before."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from policies.contract import (
    Change,
    EngineView,
    InterceptPolicy,
    Paused,
    Preserve,
    Queued,
    QueueOrder,
    Verdict,
)
from tests.sim.random_worlds import Plot, Whimsical, examples, plots
from tests.sim.worlds import pause, run, session, simulate


class Watchful(QueueOrder):
    """First come, first served; notes when it was asked."""

    def __init__(self, seen: list[float]) -> None:
        self.seen = seen

    def key(self, queued: Queued, view: EngineView) -> float:
        self.seen.append(view.now)
        return queued.entered


class WatchfulWhims(Whimsical):
    """Notes when it was asked, whatever it was asked."""

    def __init__(self, seed: int, seen: list[float]) -> None:
        super().__init__(seed)
        self.seen = seen

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        self.seen.append(view.now)
        return super().on_pause(paused, view)

    def evict(self, blocks: int, view: EngineView) -> Iterable[Change]:
        self.seen.append(view.now)
        return super().evict(blocks, view)

    def revise(self, view: EngineView) -> Iterable[Change]:
        self.seen.append(view.now)
        return super().revise(view)

    def review_at(self, view: EngineView) -> float:
        self.seen.append(view.now)
        return super().review_at(view)

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        self.seen.append(view.now)


@examples(100)
@given(plots(st.integers(0, 2**32)))
def test_no_policy_sees_time_run_backwards(plot: Plot) -> None:
    seen: list[float] = []
    simulate(
        plot.sessions,
        policy=WatchfulWhims(plot.policy, seen),
        order=Watchful(seen),
        settings=plot.settings,
        profile=plot.profile,
        leap=plot.leap,
    )
    assert seen == sorted(seen)


class NotesResumes(InterceptPolicy):
    """Keeps contexts, and notes when it hears of a pause, of an answer, and how long that was in coming."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, float, float]] = []

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        self.heard.append((f"{paused.id} pauses", view.now, 0.0))
        return Preserve()

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        self.heard.append((f"{paused.id} is back", view.now, duration))


def test_an_answer_that_came_during_an_iteration_is_heard_of_at_its_end() -> None:
    """a pauses at 1.15 for 0.5 s; b's iteration ends at 2.16, where b pauses and then a's answer is taken up.

    The policy hears at 2.16 that the pause lasted 0.5 s, and the call's row says that a was ready at 1.65.
    """
    policy = NotesResumes()
    world = run(session("a", 10, 1, pause(0.5), 1), session("b", 5, 2, pause(9.0)), policy=policy)
    heard = [(what, round(when, 9), round(lasted, 9)) for what, when, lasted in policy.heard[:3]]
    assert heard == [("a pauses", 1.15, 0.0), ("b pauses", 2.16, 0.0), ("a is back", 2.16, 0.5)]
    assert round(world.call("a", 1)["ready_at"], 9) == 1.65
