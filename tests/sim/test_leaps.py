"""Leaping over iterations that are alike changes nothing but the work: every time is the same, bit for bit.

An iteration of x tokens takes 1 s + 0.01 s * x; blocks hold one token (see ``worlds``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract import NEVER, Change, Discard, EngineView, InterceptPolicy, Key, PreemptiveOrder, Queued
from policies.fastserve import MultiLevelQueue
from policies.lamps import SmallestRemainingMemory
from policies.orders import FirstCome
from sim.costs import CostModel
from sim.plan import Batch
from sim.profile import PhysicalForward
from tests.sim.random_orders import CATCHING_UP, PREEMPTIVE, LatestPreempts, always_asked
from tests.sim.random_worlds import SHIPPED, Plot, examples, plots
from tests.sim.worlds import World, pause, run, session
from traces.session import Session


def assert_alike(leaping: World, stepping: World) -> None:
    """Rows and decisions to the bit; sums to rounding, as they are added up in another order."""
    one, other = leaping.record, stepping.record
    assert repr(one.sessions) == repr(other.sessions)
    assert repr(one.calls) == repr(other.calls)
    assert repr(one.decisions) == repr(other.decisions)
    for name, value in one.totals.items():
        if name != "events":
            assert value == pytest.approx(other.totals[name], rel=1e-9, abs=1e-9), name
    for name, column in one.timeline.items():
        assert column == pytest.approx(other.timeline[name], rel=1e-6, abs=1e-6), name


@examples(150)
@given(plots(st.sampled_from(SHIPPED)), st.none() | st.floats(0, 60))
def test_leaps_change_no_timestamp_by_a_single_bit(plot: Plot, horizon: float | None) -> None:
    plot = replace(plot, horizon=horizon)
    assert_alike(replace(plot, leap=True).run(), replace(plot, leap=False).run())


@examples(100)
@given(plots(st.sampled_from(SHIPPED), st.sampled_from(PREEMPTIVE)), st.none() | st.floats(0, 60))
def test_leaps_change_nothing_under_an_order_that_preempts(plot: Plot, horizon: float | None) -> None:
    plot = replace(plot, horizon=horizon)
    assert_alike(replace(plot, leap=True).run(), replace(plot, leap=False).run())


LAMPS = st.just({"name": "lamps", "predictor": {"name": "call-oracle", "noise": 0.5}})
BY_MEMORY = st.just(partial(SmallestRemainingMemory, starving_after=5.0))


@examples(80)
@given(
    plots(st.sampled_from(SHIPPED), st.sampled_from(CATCHING_UP)) | plots(LAMPS, BY_MEMORY),
    st.none() | st.floats(0, 60),
)
def test_an_order_that_catches_up_says_what_it_says_when_it_is_always_asked(plot: Plot, horizon: float | None) -> None:
    plot = replace(plot, horizon=horizon)
    assert_alike(plot.run(), replace(plot, order=partial(always_asked, plot.order), leap=False).run())


def test_who_runs_again_with_a_quantum_used_up_before_falls_when_its_next_iteration_is_over() -> None:
    """Iterations of 1 s, and 1/1024 s a token; quanta of 2 s. c ends its call at 1 + 20/1024, and a, whose quantum is
    used up, at 2 + 21/1024; both run again at 5 + 20/1024.

    The order hears that they run after it has said who falls. So both fall an iteration later, as c's 2 s are over by
    then too, and c came first. d comes at 6.5 and takes one of the two places half a second later: a stops.
    """
    sessions = (
        session("c", 10, 1, pause(4.0), 9),
        session("a", 10, 2, pause(3.0 - 1 / 1024), 9),
        session("d", 10, 2, at=6.5),
    )
    make = partial(MultiLevelQueue, skip_join=False, quantum=2.0, falls_by=1, promote_after=90.0, resumed="keeps")
    rules: dict[str, Any] = {"per_token": 1 / 1024, "max_running": 2}
    world = run(*sessions, order=make(), leap=True, **rules)
    assert_alike(world, run(*sessions, order=always_asked(make), **rules))
    assert [world.session(name)["preemptions"] for name in "cad"] == [0, 1, 0]


def both(*sessions: Session, **rules: Any) -> World:
    """The world that leaps, after a look at the one that does not."""
    leaping = run(*sessions, leap=True, **rules)
    assert_alike(leaping, run(*sessions, leap=False, **rules))
    return leaping


def test_a_long_answer_is_one_event_however_long_it_is() -> None:
    """A prefill and 999 iterations of one token: 1.10 s + 999 * 1.01 s, two events."""
    world = both(session("a", 10, 1000), gpu=2000)
    assert world.totals["events"] == 2
    assert world.totals["iterations"] == 1000
    assert world.session("a")["finished_at"] == pytest.approx(1.10 + 999 * 1.01)


def test_the_chunks_of_a_prompt_are_one_event_and_the_one_that_emits_another() -> None:
    """100 tokens by 20: four chunks alike, 1.20 s each, and the fifth. At 95 tokens the fifth has 15, 1.15 s."""
    world = both(session("a", 100, 1), token_budget=20, gpu=200)
    assert (world.totals["events"], world.totals["iterations"]) == (2, 5)
    assert world.session("a")["finished_at"] == pytest.approx(6.0)
    assert both(session("a", 95, 1), token_budget=20, gpu=200).session("a")["finished_at"] == pytest.approx(5.95)


def test_chunks_beside_a_decoding_session_are_one_event_until_its_call_ends() -> None:
    """a computes its prompt by 1.05 and emits 4 tokens. b's 100 come by 20 - 1 tokens beside it, in three iterations of
    1.20 s; then, alone, 20 + 20 and the 3 that are left: two of 1.20 s, one of 1.03 s."""
    world = both(session("a", 5, 4), session("b", 100, 1, at=0.5), token_budget=20, gpu=200)
    assert world.session("a")["finished_at"] == pytest.approx(1.05 + 3 * 1.20)
    assert world.session("b")["finished_at"] == pytest.approx(1.05 + 5 * 1.20 + 1.03)
    assert (world.totals["events"], world.totals["iterations"]) == (4, 7)


def test_unequal_contexts_beside_chunks_and_alone_are_leapt_over_to_the_bit() -> None:
    """Three answers at once over contexts of 10, 40 and 200 tokens and more, while a fourth prompt comes in chunks."""
    forward = PhysicalForward(
        overhead_s=0.1,
        weights_s=0.7,
        per_token_s=0.013,
        decode_read_s=0.0017,
        pair_s=1e-5,
        mixed_read_s=0.0003,
        unequal_read_s=0.0011,
        path_s=0.004,
        path_tokens=150,
    )
    sessions = [session("a", 10, 300), session("b", 40, 150, at=1.0), session("c", 200, 90, at=2.0)]
    world = both(*sessions, session("d", 200, 5, at=40.0), token_budget=60, gpu=2000, forward=forward)
    assert world.totals["iterations"] > 5 * world.totals["events"]


def test_an_arrival_cuts_a_leap_over_chunks() -> None:
    """b comes at 1.5, in a's second chunk of six; b's own is computed after a's, which ends at 7.2."""
    world = both(session("a", 120, 1), session("b", 5, 1, at=1.5), token_budget=20, gpu=200)
    assert world.totals["events"] == 4
    assert world.call("b", 0)["scheduled_at"] == pytest.approx(7.2)


def test_a_leap_over_chunks_ends_where_blocks_run_out() -> None:
    """110 blocks: a, from 5 tokens, and b, by 5 of its 100, have 5 + 6 * 17 = 107 after 17 iterations.

    The next chunk finds no room: b has 85 tokens and waits for a, then is preempted by it.
    """
    world = both(session("a", 5, 60), session("b", 100, 1, at=0.5), token_budget=6, gpu=110)
    assert world.session("b")["preemptions"] == 1


@examples(80)
@given(plots(st.sampled_from(["discard", "preserve", "swap", "cache-lru"])), st.none() | st.floats(0, 60))
def test_leaps_over_chunks_change_nothing(plot: Plot, horizon: float | None) -> None:
    """Policies that are asked at pauses only, first come, first served, a small budget: most leaps are over chunks."""
    rules = plot.settings.model_copy(update={"chunked_prefill": True, "mixed_batches": True})
    plot = replace(plot, settings=rules, order=FirstCome, horizon=horizon)
    assert_alike(replace(plot, leap=True).run(), replace(plot, leap=False).run())


def test_an_arrival_cuts_a_leap_at_the_end_of_the_iteration_in_which_it_comes() -> None:
    """b comes at 5.0; a's iterations end at 1.10 + 4 * 1.01 = 5.14, and b begins there."""
    world = both(session("a", 10, 100), session("b", 5, 1, at=5.0))
    assert world.call("b", 0)["scheduled_at"] == pytest.approx(5.14)


def test_a_leap_is_timed_as_far_as_the_next_event_and_no_pass_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """a's leap of 999 passes is cut by b, which comes at 20.05: 19 are timed, until 20.29, b's prompt, the rest."""
    timed = []

    def passes(costs: CostModel, batch: Batch, iterations: int) -> Iterator[float]:
        for seconds in every(costs, batch, iterations):
            timed.append(seconds)
            yield seconds

    every = CostModel.passes
    monkeypatch.setattr(CostModel, "passes", passes)
    world = run(session("a", 10, 1000), session("b", 5, 1, at=20.05), gpu=2000, leap=True)
    assert world.call("b", 0)["scheduled_at"] == pytest.approx(1.10 + 19 * 1.01)
    assert len(timed) == world.totals["iterations"] == 1000


def test_a_leap_ends_where_blocks_run_out() -> None:
    """20 blocks, both grow from 5: the seventh iteration preempts b, leaping or not."""
    world = both(session("a", 5, 10), session("b", 5, 10), gpu=20)
    assert world.session("b")["preemptions"] == 1
    assert world.totals["events"] < world.totals["iterations"]


def test_a_session_that_a_preemption_makes_room_for_is_admitted_in_the_next_iteration() -> None:
    """Prefill apart, two places, 7 blocks: the prefills are looked at before a lacks a block and c is preempted.

    So b, which waits, is admitted one iteration later, beside nobody, and not when a has ended.
    """
    world = both(
        session("a", 1, 5),
        session("b", 1, 1, pause(0.0), 1, pause(1e-5), 1),
        session("c", 1, 4, pause(0.0), 1),
        policy="cache-lru",
        gpu=7,
        max_running=2,
        mixed_batches=False,
        chunked_prefill=False,
        swap="blocking",
        token_budget=2,
    )
    assert world.session("c")["preemptions"] == 1
    assert world.call("b", 2)["finished_at"] < world.session("a")["finished_at"]


class DropsAfterTwoSeconds(InterceptPolicy):
    """Discards a context when its pause has lasted 2 s, and says so beforehand."""

    def revise(self, view: EngineView) -> Iterator[Change]:
        for paused in view.paused:
            if view.now >= paused.paused_at + 2.0:
                yield paused, Discard()

    def review_at(self, view: EngineView) -> float:
        return min((paused.paused_at + 2.0 for paused in view.paused), default=NEVER)


def test_a_session_that_a_change_of_mind_makes_room_for_is_admitted_in_the_next_iteration() -> None:
    """40 blocks. a pauses at 1.15 with 10 and loses them at 1.15 + 2 * 1.01 = 3.17; c needs 30 and b has 8 by then.

    The queue was looked at before the policy: c begins one iteration later, at 4.18.
    """
    world = both(
        session("a", 10, 1, pause(90.0), 1),
        session("b", 5, 20),
        session("c", 25, 1, at=0.5),
        policy=DropsAfterTwoSeconds(),
        gpu=40,
    )
    assert world.call("c", 0)["scheduled_at"] == pytest.approx(4.18)


def test_a_policy_is_asked_at_its_time_in_the_middle_of_a_leap() -> None:
    """a pauses at 1.15; b's iterations begin at 1.15, 2.16 and 3.17, the first at which 2 s have passed."""
    world = both(session("a", 10, 1, pause(90.0)), session("b", 5, 60), policy=DropsAfterTwoSeconds())
    dropped = [one["time"] for one in world.record.decisions if one["asked"] == "revise"]
    assert dropped == [pytest.approx(3.17)]


def test_who_was_copied_back_before_its_first_pause_is_not_unanswered() -> None:
    """18 blocks, two places: who is preempted is swapped out, comes back and waits for a place. It has never paused, so
    there is no pause of its own that a policy could weigh."""
    world = both(
        session("p", 4, 1, pause(90.0), 1),
        session("a", 3, 10, at=1.5),
        session("b", 3, 6, at=1.5),
        session("c", 4, 11, at=3.5),
        session("d", 8, 9, at=0.5),
        policy={"name": "min-waste", "estimator": "elapsed", "swaps": False},
        gpu=18,
        max_running=2,
        preemption="swap",
        swap="overlapped",
        swap_budget="unlimited",
        resume_resident="queue",
    )
    assert sum(world.record.sessions["preemptions"]) > 0
    assert all(math.isfinite(at) for at in world.record.sessions["finished_at"])


def test_a_policy_is_asked_at_its_time_while_nothing_runs() -> None:
    """a is alone: its pause begins at 1.10, and its context goes at 3.10."""
    world = both(session("a", 10, 1, pause(90.0)), policy=DropsAfterTwoSeconds())
    assert [one["time"] for one in world.record.decisions if one["asked"] == "revise"] == [pytest.approx(3.10)]
    assert world.totals["waste_preserve_token_s"] == pytest.approx(20.0)


class FirstPreempts(PreemptiveOrder):
    """First come, first served."""

    def key(self, queued: Queued, view: EngineView) -> Key:
        return queued.arrival


RELEASED = {"name": "min-waste-released", "estimator": "oracle", "per_token": 0.0}


def test_a_budget_that_grows_as_memory_fills_ends_a_leap() -> None:
    """20 blocks of 2; p pauses with 6 and a decodes from 8 tokens. w comes at 1.5 and needs 11 blocks.

    At 2.20 10 are free, a takes one, and w lacks 2. The release lets 8 + 5 - 20 / 2 = 3 tokens leave, one block. At
    3.21 9 are free, a takes none, and w lacks 2 again: now 13 - 18 / 2 = 4 tokens may leave, and w computes.
    """
    world = both(
        session("p", 12, 1, pause(90.0), 1),
        session("a", 8, 9),
        session("w", 22, 1, at=1.5),
        policy={**RELEASED, "fixed": 5.0},
        order=FirstPreempts(),
        gpu=40,
        block_size=2,
        saturation=8,
        chunked_prefill=False,
        swap="blocking",
    )
    assert world.call("w", 0)["scheduled_at"] == pytest.approx(3.21)


def test_an_offer_that_is_not_taken_up_leaves_the_budget_to_the_next_who_asks() -> None:
    """23 blocks; p pauses with 12 and a decodes from 4. w comes at 1.5, goes before a and needs 16.

    At 2.16 7 are free, a takes one, and w lacks 10, or with a's 4 only 5. The release lets 8 + 2 - 7 / 2 = 6 leave:
    less than 10, and nobody goes; enough for 5, so a stops and w computes.
    """
    world = both(
        session("p", 12, 1, pause(90.0), 1),
        session("a", 4, 8, at=0.1),
        session("w", 16, 1, at=1.5),
        policy={**RELEASED, "fixed": 2.0},
        order=LatestPreempts(),
        gpu=23,
        saturation=8,
        chunked_prefill=False,
        swap="blocking",
    )
    assert world.call("w", 0)["scheduled_at"] == pytest.approx(2.16)


class GivesWayBesideTwo(InterceptPolicy):
    """Paused contexts give way while more than one session runs."""

    def gives_way(self, blocks: int, view: EngineView) -> Iterator[Change]:
        if view.running_sessions > 1:
            yield from ((paused, Discard()) for paused in view.paused)


def test_who_goes_on_after_somebody_found_no_room_may_change_the_answer() -> None:
    """Two places, 40 blocks, the latest first. p holds 12; w (at 1.5) needs 30, d's blocks are too few, and p stays.

    x and a take both places at 3.17, and x ends. At 4.21 a runs alone, so w is refused, and d goes on. Beside two the
    policy gives way: w is admitted one iteration later.
    """
    world = both(
        session("p", 12, 1, pause(90.0), 1),
        session("d", 4, 20, at=0.1),
        session("w", 30, 1, at=1.5),
        session("a", 2, 20, at=2.5),
        session("x", 2, 1, at=2.6),
        policy=GivesWayBesideTwo(),
        order=LatestPreempts(),
        gpu=40,
        max_running=2,
        chunked_prefill=False,
        swap="blocking",
    )
    assert world.call("w", 0)["scheduled_at"] == pytest.approx(4.21 + 1.02)


@pytest.mark.parametrize("horizon", [1.0, 1.10, 50.0, 50.59, 50.6, 1e4])
def test_a_leap_is_cut_at_the_horizon(horizon: float) -> None:
    """Iterations end at 1.10 + k * 1.01, so at 50.59 for k = 49: what had not ended by then is not emitted."""
    world = both(session("a", 10, 500), horizon=horizon)
    assert world.totals["end_time"] <= horizon
