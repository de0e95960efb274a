"""Copies to the host and back: what waits for them, what they cost, when their blocks change hands.

An iteration of x tokens takes 1 s + 0.01 s * x, a copied token 0.01 s unless a test says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract import Change, EngineView, InterceptPolicy, Paused, Swap, Verdict
from sim.costs.profile import HostCost, SwapCost
from tests.sim.random_worlds import SHIPPED, Plot, examples, plots
from tests.sim.worlds import pause, run, session


def test_a_blocking_swap_stalls_the_batch() -> None:
    """a and b prefill until 1.15; a's 10 tokens leave in 0.10 s, then b decodes: 2.26; b decodes: 3.27.

    a's answer came at 3.15. Its 10 tokens return in 0.10 s, then 1 + 4 are computed beside b's last: 1.06, so 4.43.
    """
    world = run(session("a", 10, 1, pause(2.0, returned=4), 1), session("b", 5, 4), policy="swap", swap="blocking")
    assert world.copies("a") == [(pytest.approx(1.15), "out", 10), (pytest.approx(3.27), "in", 10)]
    assert [end for _, end in world.times()] == pytest.approx([1.15, 2.26, 3.27, 4.43])
    assert world.chunks("a") == [10, 5]
    assert world.call("a", 1)["scheduled_at"] == pytest.approx(3.27)
    assert world.totals["swap_stall_s"] == pytest.approx(0.20)
    assert world.session("a")["swapped_out_bytes"] == world.session("a")["swapped_in_bytes"] == 10


def test_the_host_works_while_a_batch_waits_for_copies() -> None:
    """As above, with 0.08 s of the host's work in each iteration, 0.06 s of them after the plan, and 0.02 s for chunks.

    The prefill ends at 1.15 + 0.08 + 0.02 = 1.25. The copy of 0.10 s hides 0.06: b decodes until 1.25 + 0.10 + 1.01 +
    0.02 = 2.38, then 1.09 until 3.47. a's answer came at 3.25: 0.10 s hide 0.08, chunks' work too: 3.47 + 0.10 + 1.06
    + 0.02 = 4.65.
    """
    works = HostCost(per_iteration_s=0.08, chunked_s=0.02, executor_s=0.06, executor_chunked_s=0.02)
    a, b = session("a", 10, 1, pause(2.0, returned=4), 1), session("b", 5, 4)
    world = run(a, b, policy="swap", swap="blocking", works=works)
    assert [end for _, end in world.times()] == pytest.approx([1.25, 2.38, 3.47, 4.65])
    assert world.totals["swap_stall_s"] == pytest.approx(0.20)


def test_a_short_copy_hides_no_more_than_it_takes() -> None:
    """A copy of 0.01 s: as if it took no time, and the host its whole time."""
    works = HostCost(per_iteration_s=0.08, executor_s=0.06)
    world = run(session("a", 1, 1, pause(9.0), 1), session("b", 5, 4), policy="swap", swap="blocking", works=works)
    assert [end for _, end in world.times()][:2] == pytest.approx([1.14, 1.14 + 1.09])


def test_copies_that_begin_beside_a_batch_cost_the_host_a_share_for_each_direction() -> None:
    """a's 10 tokens leave beside b's second iteration, from 1.15: 1.01 + 0.03. They return beside the third, as a's
    answer came at 1.65: 1.01 + 0.05. The fourth has nothing beside it; a is back, and computes its last token."""
    works = HostCost(copies_out_s=0.03, copies_in_s=0.05)
    a, b = session("a", 10, 1, pause(0.5), 1), session("b", 5, 4)
    world = run(a, b, policy="swap", swap="overlapped", works=works)
    assert [end for _, end in world.times()] == pytest.approx([1.15, 2.19, 3.25, 4.27])
    assert world.copies("a") == [(pytest.approx(1.15), "out", 10), (pytest.approx(2.19), "in", 10)]


def test_an_overlapped_swap_frees_its_blocks_only_at_its_end() -> None:
    """20 blocks: a pauses at 1.16 with 10, b has 6. A copied token takes 0.3 s: a's are out at 4.16.

    c needs 10 blocks and comes at 1.2. b's iterations end at 2.17, 3.18 and 4.19: there a's blocks are free.
    """
    world = run(
        session("a", 10, 1, pause(50.0)),
        session("b", 6, 8),
        session("c", 10, 1, at=1.2),
        gpu=20,
        copy=0.3,
        policy="swap",
        swap="overlapped",
        swap_budget="unlimited",
    )
    assert world.copies("a") == [(pytest.approx(1.16), "out", 10)]
    assert world.call("c", 0)["scheduled_at"] == pytest.approx(4.19)
    assert world.totals["swap_stall_s"] == 0.0


def test_a_blocking_swap_frees_its_blocks_for_the_same_iteration() -> None:
    """The same with a batch that waits: 3 s, and c is computed at once beside b."""
    world = run(
        session("a", 10, 1, pause(50.0)),
        session("b", 6, 8),
        session("c", 10, 1, at=1.1),
        gpu=20,
        copy=0.3,
        policy="swap",
        swap="blocking",
    )
    assert world.call("c", 0)["scheduled_at"] == pytest.approx(1.16)
    assert world.call("c", 0)["first_token_at"] == pytest.approx(1.16 + 3.0 + 1.11)


@pytest.mark.parametrize(("block_size", "copies"), [(1, [10, 10, 5]), (4, [5, 8, 8, 4])])
def test_copies_beside_an_iteration_stay_within_what_it_hides(block_size: int, copies: list[int]) -> None:
    """b's iterations of 1.01 s hide 10 tokens of 0.1 s: in whole blocks of 4 that is 8, the first of them holding 1."""
    world = run(
        session("a", 25, 1, pause(50.0)),
        session("b", 6, 9),
        copy=0.1,
        policy="swap",
        swap="overlapped",
        swap_budget="hidden",
        block_size=block_size,
    )
    assert [tokens for _, _, tokens in world.copies("a")] == copies


@pytest.mark.parametrize(
    ("budget", "together"),
    [("hidden", [("a", "in", 10)]), ("hidden-each-way", [("a", "in", 10), ("c", "out", 10)])],
)
def test_each_way_may_have_a_budget_of_its_own(budget: str, together: list[tuple[str, str, int]]) -> None:
    """b's iterations of 1.01 s hide 10 tokens of 0.1 s. a's 20 tokens are out when it is back, at 9.6, and begin to
    return while c's 27 leave since 8.6: out of one budget, or beside each other."""
    world = run(
        session("a", 20, 1, pause(7.5), 1),
        session("c", 20, 8, pause(50.0)),
        session("b", 6, 30),
        copy=0.1,
        policy="swap",
        swap="overlapped",
        swap_budget=budget,
    )
    first_in = next(one for one in world.iterations if ("a", "in", 10) in one.copies)
    assert first_in.copies == together


def test_nothing_limits_copies_while_nothing_is_computed() -> None:
    """a is alone: all 25 tokens leave at once when it pauses at 1.25, and return at once at 51.25."""
    world = run(session("a", 25, 1, pause(50.0), 1), copy=0.1, policy="swap", swap="overlapped", swap_budget="hidden")
    assert world.copies("a") == [(pytest.approx(1.25), "out", 25), (pytest.approx(51.25), "in", 25)]
    assert world.call("a", 1)["scheduled_at"] == pytest.approx(51.25 + 2.5)


def test_a_copy_begun_with_the_queue_s_head_stays_within_what_its_iteration_hides() -> None:
    """a's 25 tokens are out when it returns, at 11.25, as c comes: c's 10 tokens take 1.10 s and hide 11 of them."""
    world = run(
        session("a", 25, 1, pause(10.0), 1),
        session("c", 10, 1, at=11.25),
        copy=0.1,
        policy="swap",
        swap="overlapped",
        swap_budget="hidden",
    )
    together = next(one for one in world.iterations if "c" in one.chunks)
    assert sum(tokens for _, _, tokens in together.copies) <= 11


class SwapsWhenAsked(InterceptPolicy):
    """Keeps contexts until their room is needed; then they leave for the host."""

    def evict(self, blocks: int, view: EngineView) -> Iterator[Change]:
        for paused in view.paused:
            if not paused.moving:
                yield paused, Swap()


@pytest.mark.parametrize("mixed", [True, False])
def test_copies_that_make_room_stay_within_what_their_iteration_hides(mixed: bool) -> None:
    """20 blocks: a pauses at 1.15 with 10, b decodes, c comes at 1.2 and needs 12. b's 1.01 s hide 2 tokens of 0.5 s.

    With prefill apart the queue is looked at, and a asked for room, before b's iteration is planned.
    """
    world = run(
        session("a", 10, 1, pause(50.0)),
        session("b", 5, 8),
        session("c", 12, 1, at=1.2),
        gpu=20,
        copy=0.5,
        policy=SwapsWhenAsked(),
        mixed_batches=mixed,
        swap="overlapped",
        swap_budget="hidden",
    )
    assert world.copies("a")[0] == (pytest.approx(2.16), "out", 2)
    assert all(one.beside <= 2 for one in world.iterations if one.decoding == ("b",))


def test_copies_begun_before_a_chunk_is_planned_stay_within_what_it_hides() -> None:
    """Prefill apart, ``swap_in_before_prefill``: c's last 36 tokens are planned after a's copy. 1.36 s hide 13 tokens
    of 0.1 s.

    a is on the host from 3.75 and back at 10.25; c computes 64 tokens from 9.5 to 11.14 and the rest beside a's copy.
    """
    world = run(
        session("a", 25, 1, pause(9.0), 1),
        session("c", 100, 1, at=9.5),
        copy=0.1,
        policy="swap",
        mixed_batches=False,
        swap_in_before_prefill=True,
        swap="overlapped",
        swap_budget="hidden",
    )
    last = next(one for one in world.iterations if one.chunks == {"c": 36})
    assert last.beside <= 13


def overlapped_and_hidden(plot: Plot) -> Plot:
    rules = plot.settings.model_copy(update={"swap": "overlapped", "swap_budget": "hidden"})
    slow = plot.profile.model_copy(update={"swap": SwapCost(out_bytes_per_s=100.0, in_bytes_per_s=50.0)})
    return replace(plot, settings=rules, profile=slow)


@examples(60)
@given(plots(st.sampled_from(SHIPPED) | st.integers(0, 2**32)).map(overlapped_and_hidden))
def test_overlapped_copies_stay_within_the_hidden_budget_of_every_iteration(plot: Plot) -> None:
    """T_swap(copies out and in) <= T_fwd(batch), unless nothing is computed."""
    world = plot.run()
    costs = world.engine.costs
    for one in world.iterations:
        if one.tokens:
            assert one.beside <= costs.tokens_within(costs.iteration_time(one.batch)), one


@pytest.mark.parametrize(("host_full", "chunks"), [("discard", [10, 15]), ("preserve", [10, 5])])
def test_a_context_that_the_host_cannot_hold_is_discarded_or_preserved(host_full: str, chunks: list[int]) -> None:
    """The host holds 5 of a's 10 tokens. Blocking swaps are whole or not at all: 10 + 1 + 4 to compute, or 1 + 4."""
    a = session("a", 10, 1, pause(2.0, returned=4), 1)
    world = run(a, host=5, policy="swap", swap="blocking", host_full=host_full)
    assert world.copies("a") == []
    assert world.chunks("a") == chunks


def test_an_overlapped_swap_moves_what_the_host_can_hold_and_preserves_the_rest() -> None:
    a = session("a", 10, 1, pause(2.0, returned=4), 1)
    world = run(a, host=5, policy="swap", swap="overlapped", host_full="preserve")
    assert [(way, tokens) for _, way, tokens in world.copies("a")] == [("out", 5), ("in", 5)]
    assert world.chunks("a") == [10, 5]


def test_an_overlapped_swap_that_ends_at_a_full_host_discards_it_all() -> None:
    """Without its first tokens the rest of a context is of no use: 10 + 1 + 4 are computed."""
    a = session("a", 10, 1, pause(2.0, returned=4), 1)
    world = run(a, host=5, policy="swap", swap="overlapped", host_full="discard")
    assert world.copies("a") == [(pytest.approx(1.10), "out", 5)]
    assert world.chunks("a") == [10, 15]


def test_an_answer_that_comes_during_a_copy_waits_for_its_end() -> None:
    """a's 10 tokens leave from 1.10 to 4.10. The answer of 2.10 is taken up at 4.10; back by 7.10, then computed."""
    world = run(session("a", 10, 1, pause(1.0, returned=4), 1), copy=0.3, policy="swap", swap="overlapped")
    assert world.copies("a") == [(pytest.approx(1.10), "out", 10), (pytest.approx(4.10), "in", 10)]
    assert world.call("a", 1)["ready_at"] == pytest.approx(2.10)
    assert world.call("a", 1)["scheduled_at"] == pytest.approx(7.10)
    assert world.session("a")["queued_s"] == pytest.approx(5.0)


def test_a_trailing_pause_that_ends_during_a_copy_ends_the_session_at_its_own_time() -> None:
    """a pauses from 1.10 to 2.10 and nothing follows; its copy holds memory until 4.10 and delays nobody's clock."""
    world = run(session("a", 10, 1, pause(1.0)), copy=0.3, policy="swap", swap="overlapped")
    assert world.session("a")["finished_at"] == pytest.approx(2.10)
    assert world.totals["end_time"] == pytest.approx(4.10)


def test_copies_of_one_direction_follow_each_other() -> None:
    """Both pause at 1.20 with 10 tokens: a's leave until 2.20, b's until 3.20."""
    world = run(
        session("a", 10, 1, pause(9)), session("b", 10, 1, pause(9)), copy=0.1, policy="swap", swap="overlapped"
    )
    assert [(kind, name, at) for at, kind, name in world.engine.events if kind == "copied"] == [
        ("copied", "a", pytest.approx(2.20)),
        ("copied", "b", pytest.approx(3.20)),
    ]


def test_a_copy_beside_the_batch_slows_it_while_it_runs() -> None:
    """a's 10 tokens leave in 0.1 s beside b's iteration; at a slowdown of one half it takes 1.01 + 0.05."""
    sessions = (session("a", 10, 1, pause(9)), session("b", 10, 3))
    world = run(*sessions, policy="swap", swap="overlapped", slowdown=0.5)
    begin, end = world.times()[1]
    assert end - begin == pytest.approx(1.06)


def test_a_copy_that_ends_while_the_batch_still_waits_for_another_slows_nothing() -> None:
    """20 blocks, 0.3 s a copied token. a's 10 leave beside the batch from 1.18 to 4.18, so b and c take 1.02 + 0.51.

    At 2.71 no block is left: c is preempted and its 5 tokens leave in 1.5 s, for which b waits until 4.21. b then
    computes beside nothing: 1.01 s.
    """
    world = run(
        session("a", 10, 1, pause(90)),
        session("b", 4, 8),
        session("c", 4, 8),
        gpu=20,
        copy=0.3,
        slowdown=0.5,
        policy="swap",
        swap="overlapped",
        swap_budget="unlimited",
        preemption="swap",
    )
    assert world.copies("c")[0] == (pytest.approx(2.71), "out", 5)
    assert [end for _, end in world.times()[:3]] == pytest.approx([1.18, 2.71, 2.71 + 1.5 + 1.01])


class SwapsItsTail(InterceptPolicy):
    """Swaps all but 3 tokens at the pause."""

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        return Swap(keep=3)


def test_a_part_of_a_context_may_leave() -> None:
    """Of 10 tokens in blocks of 2, 3 are to stay: 2 blocks, 4 tokens. 6 leave and return."""
    world = run(session("a", 10, 1, pause(2.0), 1), policy=SwapsItsTail(), block_size=2, swap="blocking")
    assert [(way, tokens) for _, way, tokens in world.copies("a")] == [("out", 6), ("in", 6)]
    assert world.chunks("a") == [10, 1]


IDLE = session("a", 10, 1, pause(2.0, returned=4), 1)


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize(("rule", "chunks"), [(True, [10, 15]), (False, [10, 5])])
def test_with_nobody_waiting_the_released_code_recomputes_a_swapped_session(
    mixed: bool, rule: bool, chunks: list[int]
) -> None:
    """a returns alone: 10 + 1 + 4 tokens are computed though 10 lie on the host; without the rule they come back."""
    world = run(IDLE, policy="swap", recompute_swapped_when_idle=rule, mixed_batches=mixed)
    assert world.chunks("a") == chunks
    assert world.session("a")["swapped_in_bytes"] == (0 if rule else 10)


def test_with_somebody_waiting_the_released_code_copies_the_swapped_session_back() -> None:
    """b occupies the 30 blocks but 14, and c waits for 20: the queue is not empty, so a's tokens return by copy."""
    world = run(
        IDLE,
        session("b", 16, 4),
        session("c", 20, 1, at=1.2),
        gpu=31,
        policy="swap",
        swap="blocking",
        recompute_swapped_when_idle=True,
    )
    assert world.chunks("a") == [10, 5]


@pytest.mark.parametrize(("rule", "first", "second"), [(True, "a", "c"), (False, "c", "a")])
def test_swapped_first_admits_nobody_while_a_session_waits_to_come_back(rule: bool, first: str, second: str) -> None:
    """20 blocks; b runs from 8 tokens to 17. a is back at 3.1 and needs 12; c comes at 3.2 and needs 2, which are free.

    With the rule c waits until b has left and a is back; without it c goes first.
    """
    world = run(
        session("a", 10, 1, pause(2.0, returned=1), 1),
        session("b", 8, 10),
        session("c", 2, 1, at=3.2),
        gpu=20,
        policy="swap",
        swap="blocking",
        mixed_batches=False,
        swap_in_before_prefill=rule,
    )
    begun = {"a": world.call("a", 1)["scheduled_at"], "c": world.call("c", 0)["scheduled_at"]}
    assert begun[first] < begun[second]


class SwapsTheReturned(InterceptPolicy):
    """Keeps contexts while they pause, and swaps them out when they are back and wait."""

    def revise(self, view: EngineView) -> Iterator[Change]:
        for paused in list(view.paused):
            if paused.resumed and not paused.moving:
                yield paused, Swap()


def test_a_context_on_its_way_out_promises_no_room() -> None:
    """80 blocks, one session at a time. a's 50 tokens leave from 2.55 to 7.55, though it is back since 2.00.

    b leaves at 4.57: 30 blocks are free, c needs 60 and waits for the end of the copy.
    """
    world = run(
        session("a", 50, 1, pause(0.5), 1),
        session("b", 5, 3),
        session("c", 60, 1, at=2.1),
        gpu=80,
        copy=0.1,
        max_running=1,
        policy=SwapsTheReturned(),
        resume_on_gpu="queue",
        swap="overlapped",
        swap_budget="unlimited",
    )
    assert world.copies("a")[0] == (pytest.approx(2.55), "out", 50)
    assert world.call("c", 0)["scheduled_at"] >= 7.55 - 1e-9
