"""Whoever lost context to a preemptive order goes first at its next turn, until it has emitted a token.

An iteration of x tokens takes 1 s + 0.01 s * x, a copied token 0.01 s, a block is a token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from policies.contract import EngineView, Key, PreemptiveOrder, Queued
from tests.sim.engine.test_leap import assert_alike
from tests.sim.worlds import pause, run, session


class LeastServed(PreemptiveOrder):
    """Whoever has run the shortest time goes first, at every moment."""

    def key(self, queued: Queued, view: EngineView) -> Key:
        return queued.served(view.now)

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        return [(queued, self.key(queued, view)) for queued in view.running]


TWINS = (session("a", 100, 3), session("b", 100, 3))
"""On 110 blocks there is room for one; with S = 50 a prompt takes two iterations of 1.50 s."""


def test_two_prompts_do_not_take_the_memory_of_each_other_for_ever() -> None:
    """a loses 50 tokens to b at 1.50, b loses 50 to a at 3.00, and a is owed a token: 50 + 50, until 6.00.

    By then a was served 4.5 s and b 1.5 s, so b takes the 100 tokens of a and is owed a token, until 9.00. Then both
    have been served as long, and a, which came first, recomputes 101 tokens for its second one, and so on.
    """
    world = run(*TWINS, order=LeastServed(), gpu=110, max_running=1, saturation=50)
    assert world.chunks("a") == [50, 50, 50, 50, 50, 1, 50, 50, 2]
    assert world.chunks("b") == [50, 50, 50, 50, 50, 1, 50, 50, 2]
    assert world.call("a", 0)["first_token_at"] == pytest.approx(6.00)
    assert world.call("b", 0)["first_token_at"] == pytest.approx(9.00)


class ByName(PreemptiveOrder):
    """Session z before x, for good."""

    def key(self, queued: Queued, view: EngineView) -> Key:
        return -ord(queued.id)


def test_a_context_that_was_fetched_back_stays_for_one_token_however_far_time_leaps() -> None:
    """One place, 20 blocks: x's 10 tokens leave for z (15) at 1.10, and z runs from 1.20 to 3.36, when it pauses.

    x comes back until 3.46. z, which goes before it and needs its memory, is there again at 3.41; x emits the token
    that it is owed, at 4.47, and leaves once more until 4.57.
    """
    sessions = (session("x", 10, 5), session("z", 15, 2, pause(0.05), 3, at=0.5))
    rules: dict[str, Any] = {
        "order": ByName(), "policy": "discard", "max_running": 1, "gpu": 20, "preemption": "swap", "swap": "overlapped"
    }  # fmt: skip
    leaping, stepping = run(*sessions, leap=True, **rules), run(*sessions, leap=False, **rules)
    assert_alike(leaping, stepping)
    assert [(at, way) for at, way, _ in leaping.copies("x")][:3] == [
        (pytest.approx(1.10), "out"), (pytest.approx(3.36), "in"), (pytest.approx(4.47), "out")
    ]  # fmt: skip
    assert leaping.call("z", 1)["scheduled_at"] == pytest.approx(4.58)
