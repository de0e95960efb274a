"""Several samples of one prompt: what they hold in three layouts, what they compute, and what goes on after a call.

Unless a test says otherwise an iteration of x tokens takes 1 s + 0.01 s * x and blocks hold 4 tokens (see ``worlds``).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sim.costs.cost_model import CostModel
from sim.engine.settings import EngineSettings
from sim.kv.beam_layouts import BeamRequests, batch_seconds, tokens_held
from sim.kv.sample_layout import Layout, SampleLayout
from sim.session import SessionState
from tests.sim.engine.test_leap import both
from tests.sim.random_orders import LatestPreempts
from tests.sim.worlds import World, pause, profile, run, session

LAYOUTS: list[Layout] = ["paged-sharing", "segment", "contiguous"]


def branched(*sessions: Any, layout: Layout = "paged-sharing", **knobs: Any) -> World:
    """A world in blocks of 4 tokens, the same with leaps as without."""
    return both(*sessions, **{"block_size": 4, "sample_layout": layout, **knobs})


def blocks_in_use(world: World) -> list[int]:
    """GPU blocks in use in each iteration, of a world that does not leap."""
    return [one.blocks for one in world.iterations]


# ---- blocks, by hand


@pytest.mark.parametrize(
    ("layout", "blocks"),
    [
        ("paged-sharing", [6, 8, 8, 8, 11, 11, 11, 11, 14, 14, 14, 14]),
        ("segment", [6, 9, 9, 9, 9, 12, 12, 12, 12, 15, 15, 15]),
        ("contiguous", [27] * 12),
    ],
)
def test_three_samples_of_21_and_12_tokens_hold_in_each_iteration(layout: Layout, blocks: list[int]) -> None:
    """The prompt's 21 tokens are 5 whole blocks and one token of a sixth; then 11 more of each sample are computed.

    Paged: the first write copies the sixth block for two samples, 5 + 3 * 1; at 25 and 29 tokens each takes another.
    Segment: 6 of the prompt, and for each sample one more at its 1st, 5th and 9th token. Contiguous: 3 buffers of 33.
    """
    world = run(session("a", 21, 12, samples=3), gpu=400, block_size=4, sample_layout=layout)
    assert blocks_in_use(world) == blocks
    assert world.session("a")["finished_at"] == pytest.approx(1.21 + 11 * 1.03)
    assert world.totals["emitted_tokens"] == 36
    branched(session("a", 21, 12, samples=3), layout=layout)


def test_a_prompt_of_whole_blocks_is_shared_whole() -> None:
    """20 tokens, 5 blocks: nothing is copied, each sample begins a block of its own in either layout."""
    for layout in LAYOUTS[:2]:
        world = run(session("a", 20, 6, samples=3), gpu=400, block_size=4, sample_layout=layout)
        assert blocks_in_use(world) == [5, 8, 8, 8, 8, 11]


@pytest.mark.parametrize(("layout", "blocks"), [("paged-sharing", 30), ("segment", 27), ("contiguous", 42)])
def test_how_many_sets_a_pool_holds_to_their_end(layout: Layout, blocks: int) -> None:
    """Two samples of 18 + 9, of which 8 are computed. Paged: 4 + 2 * (7 - 4) = 10. Segment: 5 + 2 * 2 = 9. Contiguous:
    2 * 7 = 14. So three sets run together in three times as much; with a block less one of them waits or gives way."""
    sets = [session(name, 18, 9, samples=2) for name in "abc"]
    enough = branched(*sets, layout=layout, gpu=4 * blocks)
    assert max(one.batch.decode_sessions for one in enough.iterations) == 6
    assert enough.totals["preemptions"] == 0
    short = branched(*sets, layout=layout, gpu=4 * (blocks - 1))
    assert short.record.sessions["status"] == ["finished"] * 3
    if layout == "contiguous":  # what is reserved is never short
        assert max(one.batch.decode_sessions for one in short.iterations) == 4
        assert short.totals["preemptions"] == 0
    else:
        assert short.totals["preemptions"] == 1


@given(
    layout=st.sampled_from(LAYOUTS), size=st.integers(1, 6), samples=st.integers(2, 4),
    fork=st.integers(1, 20), response=st.integers(1, 15),
)  # fmt: skip
def test_blocks_are_those_of_block_tables_filled_token_by_token(layout, size, samples, fork, response) -> None:
    state = SessionState(session("a", fork, response, samples=samples), 0, 0.0)
    branches = SampleLayout(layout, size)
    for resident in range(1, fork + response):
        tables = _tables(layout, size, samples, fork, response, resident)
        assert branches.blocks(state, resident) == len({block for table in tables for block in table}), resident
    assert branches.max_blocks(state.session) >= branches.blocks(state, fork + response - 1)


def _tables(layout: Layout, size: int, samples: int, fork: int, response: int, resident: int) -> list[list[Any]]:
    """The blocks of each sample once ``resident`` tokens are there: what stands for a block is what it holds."""
    if layout == "contiguous":
        return [[(one, index) for index in range(-(-(fork + response) // size))] for one in range(samples)]
    tables: list[list[Any]] = [[] for _ in range(samples)]
    for position in range(resident):
        for one, table in enumerate(tables):
            apart, place = position >= fork, position
            if layout == "segment" and apart:
                place = position - fork
            if place % size == 0:
                table.append(("own", one, position) if apart else ("shared", position))
            elif apart and table[-1][0] == "shared":
                table[-1] = ("copied", one, position)
    return tables


# ---- what is computed, and what it takes


def test_one_set_takes_what_the_closed_form_says() -> None:
    """A prompt of 10 in 1.10 s, then 4 steps of 3 tokens; a profile that reads contexts reads each sample's whole."""
    world = branched(session("a", 10, 5, samples=3))
    alone = batch_seconds(CostModel(profile()), BeamRequests(10, 5, 3), 1, shared_prompt=True)
    assert world.session("a")["finished_at"] == pytest.approx(alone) == pytest.approx(1.10 + 4 * 1.03)
    first, last = world.iterations[1].batch, run(session("a", 10, 5, samples=3)).iterations[-1].batch
    assert (first.decode_sessions, first.decode_context) == (3, 3 * 11)
    assert last.decode_context == 3 * 14


@given(st.integers(1, 40), st.integers(2, 20), st.integers(2, 5))
def test_the_closed_form_s_paged_memory_is_the_engine_s(prompt: int, response: int, samples: int) -> None:
    """The last token of a response is never computed."""
    state = SessionState(session("a", prompt, response, samples=samples), 0, 0.0)
    held = tokens_held("paged-sharing", BeamRequests(prompt, response - 1, samples), step=4)
    assert 4 * SampleLayout("paged-sharing", 4).blocks(state, prompt + response - 1) == held


def test_a_set_that_gives_way_is_computed_again_as_a_whole() -> None:
    """Blocks of one token, 20 of them; two sets of 5 shared tokens and 2 samples: with e more each, 10 + 4 e.

    Both prompts 1.10; two steps of 4 tokens to e = 2, 18 blocks; the third lacks 2, and b gives way with 3 tokens of
    each sample emitted. a goes on alone, 3 * 1.02. Then b computes 5 shared and 2 * 3 own tokens, 1.11, of which
    5 + 2 * 2 had been, and 2 more steps.
    """
    world = branched(session("a", 5, 6, samples=2), session("b", 5, 6, samples=2), block_size=1, gpu=20)
    assert world.session("b")["preemptions"] == 1
    assert world.session("b")["recomputed_tokens"] == world.totals["recomputed_tokens"] == 9
    assert world.session("a")["finished_at"] == pytest.approx(1.10 + 2 * 1.04 + 3 * 1.02)
    assert world.session("b")["finished_at"] == pytest.approx(1.10 + 2 * 1.04 + 3 * 1.02 + 1.11 + 2 * 1.02)
    assert world.totals["computed_tokens"] == 2 * (5 + 2 * 5) + 9


def test_a_set_that_is_computed_again_keeps_to_the_budget() -> None:
    """8 tokens an iteration: b's 5 shared ones and 1 of each sample, 7; then the 2 of each that are left."""
    world = branched(session("a", 5, 6, samples=2), session("b", 5, 6, samples=2), block_size=1, gpu=20, token_budget=8)
    again = [one for one in world.iterations if "b" in one.chunks][-2:]
    assert [one.batch.prefill_tokens for one in again] == [5 + 2 * 1, 2 * 2]
    assert [one.chunks["b"] for one in again] == [6, 2]


def test_every_sample_takes_a_place() -> None:
    """5 places: two sets of 2 run, the third waits for one of them; so does a single session behind it, which fits."""
    world = branched(*(session(name, 4, 6, samples=2) for name in "abc"), session("d", 4, 2, at=0.1), max_running=5)
    assert world.call("c", 0)["scheduled_at"] == world.session("a")["finished_at"]
    assert world.call("d", 0)["scheduled_at"] >= world.session("a")["finished_at"]


def test_a_set_that_can_never_run_is_rejected_with_a_reason() -> None:
    world = run(session("many", 4, 2, samples=9), session("large", 20, 9, samples=3), gpu=40, max_running=8)
    assert "9 samples at once; at most 8" in world.session("many")["reason"]
    assert "29 tokens in each of 3 samples, 47 blocks" in world.session("large")["reason"]
    assert world.record.sessions["status"] == ["rejected", "rejected"]


def test_a_set_is_stopped_and_goes_on_as_a_whole() -> None:
    """One place for two: the later set stops the earlier, which keeps its blocks and goes on where it was."""
    early, late = session("a", 5, 6, samples=2), session("b", 5, 2, at=2.0, samples=2)
    world = branched(early, late, order=LatestPreempts(), max_running=2)
    assert world.session("a")["preemptions"] == 1
    assert world.totals["recomputed_tokens"] == 0
    assert world.session("b")["finished_at"] < world.session("a")["finished_at"]


# ---- after a call


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_first_sample_goes_on_after_a_pause_and_the_others_are_gone(layout: Layout) -> None:
    """Blocks of one token. 5 + 4 tokens of which 8 are resident are kept for the pause, whatever the layout; then the
    last one and 2 returned are computed, and each sample has 3 more, from a context of 11."""
    world = branched(
        session("a", 5, 4, pause(3.0, returned=2), 3, samples=3), policy="preserve", layout=layout, block_size=1
    )
    assert world.chunks("a") == [5, 3]
    assert world.totals["waste_preserve_token_s"] == pytest.approx(8 * 3.0)
    assert world.call("a", 1)["context_tokens"] == 11
    assert (world.iterations[-1].batch.decode_context, world.iterations[-1].alike) == (3 * 12, 2)
    assert world.totals["emitted_tokens"] == 3 * 7
    assert world.session("a")["output_tokens"] == 7


def test_a_discarded_context_of_samples_is_computed_once() -> None:
    """After the pause 9 + 2 tokens are missing: 8 of them had been computed, none for each sample."""
    world = branched(session("a", 5, 4, pause(3.0, returned=2), 3, samples=3), policy="discard", block_size=1)
    assert world.chunks("a") == [5, 11]
    assert world.totals["recomputed_tokens"] == 8


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_sample_is_held_alike_in_every_layout(layout: Layout) -> None:
    plain = run(session("a", 21, 12), block_size=4)
    assert run(session("a", 21, 12), block_size=4, sample_layout=layout).iterations == plain.iterations


def test_buffers_that_share_nothing_refuse_shared_prefixes() -> None:
    with pytest.raises(ValidationError, match="contiguous shares nothing"):
        EngineSettings(prefix_sharing=True, sample_layout="contiguous")


def test_samples_beside_a_shared_prefix_hold_its_blocks_once() -> None:
    """Blocks of 4: b finds a's two, computes 4 of its own, and its 2 samples write 3 more each: 2 + 1 + 2 * 1."""
    common = {"block_hashes": (1, 2), "hash_block": 4}
    first, second = session("a", 12, 40, **common), session("b", 12, 4, at=1.0, samples=2, **common)
    assert branched(first, second, prefix_sharing=True).session("b")["prefix_hit_tokens"] == 8
    together, alone = (
        blocks_in_use(run(*who, prefix_sharing=True, block_size=4)) for who in ([first, second], [first])
    )
    assert [one - other for one, other in zip(together, alone, strict=True)][:6] == [0, 1, 3, 3, 3, 0]
