"""When a waiting session may begin: one rule, whether the order preempts or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from policies.basic.fcfs import FirstCome
from policies.contract import (
    Change,
    Discard,
    EngineView,
    InterceptPolicy,
    Key,
    PreemptiveOrder,
    Queued,
    QueueOrder,
    Swap,
)
from tests.sim.worlds import pause, run, session


class FirstPreempts(PreemptiveOrder):
    """First come, first served."""

    def key(self, queued: Queued, view: EngineView) -> Key:
        return queued.arrival


class SwapsSmallDiscardsLarge(InterceptPolicy):
    """Small contexts give way first, by a copy to the host; those of 10 tokens and more are forgotten."""

    def evict(self, blocks: int, view: EngineView) -> Iterator[Change]:
        for paused in sorted(view.paused, key=lambda one: one.context_tokens):
            if not paused.moving:
                yield paused, Swap() if paused.context_tokens < 10 else Discard()


@pytest.mark.parametrize("order", [FirstCome, FirstPreempts])
@pytest.mark.parametrize("mixed", [True, False])
def test_a_session_does_not_begin_beside_copies_that_were_begun_to_make_room_for_it(
    order: Callable[[], QueueOrder], mixed: bool
) -> None:
    """20 blocks. p and q pause at 1.15 with 5 and 10; c comes at 1.5, needs 12, and 5 are free.

    Nothing runs, so nothing limits copies: p's 5 tokens begin to leave, 0.5 s each, until 4.0; q's 10 are forgotten.
    c now finds room, but its batch of 1.12 s would hide 2 copied tokens, not 5. So it begins when p's copy has ended.
    """
    world = run(
        session("p", 5, 1, pause(50.0)),
        session("q", 10, 1, pause(50.0)),
        session("c", 12, 1, at=1.5),
        gpu=20,
        copy=0.5,
        policy=SwapsSmallDiscardsLarge(),
        order=order(),
        mixed_batches=mixed,
        swap="overlapped",
        swap_budget="hidden",
    )
    assert world.copies("p") == [(pytest.approx(1.5), "out", 5)]
    assert [one.beside for one in world.iterations if one.tokens] == [0, 0]
    assert world.call("c", 0)["scheduled_at"] == pytest.approx(4.0)
