"""Where the memory went, worked by hand. Token-seconds on 20 blocks of one token, unless a test says otherwise.

An iteration of x tokens takes 1 s + 0.01 s * x. Session a: a prompt of 10, one token, a pause of 5 s, 4 tokens back,
one more token. Its prompt always takes 1.10 s with 10 of 20 blocks: 11 useful, 11 unused.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from sim.results.memory_accounting import USES
from tests.sim.worlds import World, pause, run, session

A = session("a", 10, 1, pause(5.0, returned=4), 1)


def uses(world: World) -> dict[str, float]:
    """Token-seconds by use, without the ``waste_`` and ``_token_s`` around the names; zeros left out."""
    names = ("useful", "waste_preserve", "waste_recompute_own", "waste_recompute_others", "waste_swap", "unused")
    found = {name.removeprefix("waste_"): world.totals[f"{name}_token_s"] for name in names}
    return {name: value for name, value in found.items() if value}


def test_a_preserved_context_wastes_its_tokens_for_the_whole_pause() -> None:
    """Pause: 10 * 5 s preserved, 10 * 5 s unused. Then 1 + 4 tokens, 1.05 s: 15 useful, 5 unused.

    useful 11 + 15.75, preserved 50, unused 11 + 50 + 5.25: in all 143 = 20 * 7.15 s.
    """
    world = run(A, gpu=20, policy="preserve")
    assert uses(world) == pytest.approx({"useful": 26.75, "preserve": 50.0, "unused": 66.25})
    assert world.totals["memory_token_s"] == pytest.approx(143.0)
    assert (world.totals["forward_s"], world.totals["idle_s"]) == (pytest.approx(2.15), pytest.approx(5.0))


def test_a_recompute_wastes_its_own_memory_and_everybody_else_s_while_it_lengthens_the_iteration() -> None:
    """Pause: 20 * 5 s unused. Then 15 tokens in 1.15 s, 10 of them for the second time; without those, 1.05 s.

    own: 10 of its 15 blocks for 1.15 s = 11.5; others: the 5 for the extra 0.10 s = 0.5, for the rest useful, 5.25.
    """
    world = run(A, gpu=20, policy="discard")
    assert uses(world) == pytest.approx(
        {"useful": 11 + 5.25, "recompute_own": 11.5, "recompute_others": 0.5, "unused": 11 + 100 + 5.75}
    )
    assert world.totals["recompute_forward_s"] == pytest.approx(0.10)
    assert world.totals["recomputed_tokens"] == 10


def test_an_iteration_that_only_recomputes_is_all_waste() -> None:
    """S = 10: of the 15 tokens the first 10 go alone, 1.10 s for nothing new, own 11; then 5 new ones, 1.05 s."""
    world = run(A, gpu=20, policy="discard", saturation=10)
    assert world.chunks("a") == [10, 10, 5]
    assert uses(world) == pytest.approx(
        {"useful": 11 + 15 * 1.05, "recompute_own": 11.0, "unused": 11 + 100 + 11 + 5 * 1.05}
    )
    assert world.totals["recompute_forward_s"] == pytest.approx(1.10)


def test_others_wait_while_a_context_is_recomputed() -> None:
    """b decodes from 5 tokens, on 40 blocks. a: [0, 1.15] beside b's prompt; back at 6.15, during b's sixth iteration.

    b's tokens: 1.15, then 5 of 1.01 to 6.20, where it holds 10. There 15 + 1 tokens take 1.16 s, of which 0.10 s for
    a's 10: own 10 * 1.16 = 11.6; others (5 of a's and 11 of b's) 16 * 0.10 = 1.6.
    """
    world = run(A, session("b", 5, 7), gpu=40, policy="discard")
    assert uses(world)["recompute_own"] == pytest.approx(11.6)
    assert uses(world)["recompute_others"] == pytest.approx(1.6)
    assert world.totals["recompute_forward_s"] == pytest.approx(0.10)


def test_a_blocking_swap_in_wastes_the_whole_batch_while_it_stalls() -> None:
    """b beside a, on 40 blocks, until it decodes with 11 tokens as a returns at 6.30: 0.10 s for 10 tokens.

    a's 15 and b's 11 blocks wait: 26 * 0.10 = 2.6 of swap waste at the return.
    """
    world = run(A, session("b", 5, 9), gpu=40, policy="swap", swap="blocking")
    back = next(one for one in world.iterations if one.copies == [("a", "in", 10)])
    assert back.begin == pytest.approx(1.15 + 0.10 + 5 * 1.01)
    resident = 15 + 11
    out = world.totals["waste_swap_token_s"] - resident * 0.10
    assert out >= 6 * 0.10 * (1 - 1e-9)  # at least b's 6 blocks while a's tokens left


def test_a_blocking_swap_out_wastes_the_blocks_that_it_reads() -> None:
    """As ``sim.results.memory_accounting`` says: everyone's while the batch waits, and the blocks that a copy is
    reading.

    a's 10 tokens leave from 1.15 to 1.25 beside b's 6 blocks: (10 + 6) * 0.10 = 1.6; at the return 26 * 0.10 = 2.6.
    """
    world = run(A, session("b", 5, 9), gpu=40, policy="swap", swap="blocking")
    assert world.totals["waste_swap_token_s"] == pytest.approx(1.6 + 2.6)


def test_an_overlapped_copy_wastes_the_blocks_that_it_reads_or_fills() -> None:
    """a alone: out 10 * 0.10 s, idle until 6.10, back 10 * 0.10 s. The rest of the pause its blocks are unused.

    useful 11 + 15 * 1.05; swap 1 + 1; unused 11 + 1 + 4.9 * 20 + 1 + 5 * 1.05.
    """
    world = run(A, gpu=20, policy="swap", swap="overlapped")
    assert uses(world) == pytest.approx({"useful": 26.75, "swap": 2.0, "unused": 11 + 1 + 98 + 1 + 5.25})


def test_time_with_nothing_to_do_is_idle_and_memory_unused() -> None:
    """b comes 10 s after a has left at 1.10: 8.90 s of idle time, 20 blocks unused."""
    world = run(session("a", 10, 1), session("b", 10, 1, at=10.0), gpu=20)
    assert world.totals["idle_s"] == pytest.approx(8.90)
    assert uses(world) == pytest.approx({"useful": 22.0, "unused": 22.0 + 178.0})
    assert world.totals["end_time"] == pytest.approx(11.10)


def test_the_timeline_holds_means_over_its_steps() -> None:
    """a is preserved from 1.10 to 6.10, then has 15 blocks until 7.15; steps of 2 s, the last one of 1.15 s.

    Step 0: useful 11 / 2 s, preserved 10 * 0.9 / 2 s. Step 3: preserved 10 * 0.1, useful 15 * 1.05, over 1.15 s.
    """
    timeline = run(A, gpu=20, step=2.0).record.timeline
    assert timeline["time"] == [0.0, 2.0, 4.0, 6.0]
    assert timeline["useful"] == pytest.approx([5.5, 0.0, 0.0, 15 * 1.05 / 1.15])
    assert timeline["preserve"] == pytest.approx([4.5, 10.0, 10.0, 1.0 / 1.15])
    assert timeline["paused"] == pytest.approx([0.45, 1.0, 1.0, 0.1 / 1.15])
    assert [sum(timeline[use][step] for use in USES) for step in range(4)] == pytest.approx([20.0] * 4)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail, rather than hang."""

    def fail(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("step", [0.1, 0.3, 0.7, 1 / 49])
def test_any_step_of_the_timeline_ends(step: float) -> None:
    """43 * 0.1 / 0.1 is less than 43 in floating point: a step must not begin where it ended."""
    with within(5):
        timeline = run(A, gpu=20, step=step).record.timeline
    unused = sum(free * min(step, 7.15 - at) for at, free in zip(timeline["time"], timeline["unused"], strict=True))
    assert unused == pytest.approx(66.25)
