"""Leading blocks that contexts have in common are kept once, found by who comes later, and evicted when room is needed.

An iteration of x tokens takes 1 s + 0.01 s * x; blocks hold one token unless said otherwise (see ``worlds``).
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from policies.contract import EngineView, InterceptPolicy, Paused, Preserve, Swap, Verdict
from sim.engine.settings import EngineSettings
from tests.sim.engine.test_invariants import assert_books, assert_drained
from tests.sim.engine.test_leap import assert_alike
from tests.sim.random_orders import PREEMPTIVE
from tests.sim.random_worlds import ANY_ORDER, SHIPPED, Plot, examples, plots
from tests.sim.worlds import World, pause, run, session
from traces.session import Session, SharedPrefix

ANY_POLICY = st.sampled_from(SHIPPED) | st.integers(0, 2**32) | st.just("cache-lru")


def hashed(name: str, hashes: str, *steps: Any, at: float = 0.0, prompt: int = 0) -> Session:
    """``hashed("a", "xyz", 1)``: a prompt of three blocks of 10 tokens with these contents, generates 1."""
    contents = tuple(map(ord, hashes))
    return session(name, prompt or 10 * len(hashes), *steps, at=at, block_hashes=contents, hash_block=10)


def shared(*sessions: Session, **rules: Any) -> World:
    """The world with sharing on, leaping, after a look at the one that does not leap."""
    world = run(*sessions, prefix_sharing=True, leap=True, **rules)
    assert_alike(world, run(*sessions, prefix_sharing=True, leap=False, **rules))
    return world


def test_a_later_prompt_computes_only_what_follows_the_blocks_that_it_finds() -> None:
    """a computes 30 tokens by 1.3 and ends. b's first two blocks are a's: 20 of 40 tokens are left, 5 + 1 + 0.2 s."""
    world = shared(hashed("a", "xyz", 1), hashed("b", "xyvw", 1, at=5.0))
    assert world.chunks("b") == [20]
    assert world.session("b")["first_token_at"] == pytest.approx(6.2)
    assert [world.session(name)["prefix_hit_tokens"] for name in "ab"] == [0, 20]
    assert world.totals["prefix_hit_tokens"] == 20


def test_sharing_is_off_unless_it_is_asked_for() -> None:
    """The same two sessions: b computes all 40."""
    world = run(hashed("a", "xyz", 1), hashed("b", "xyvw", 1, at=5.0))
    assert world.chunks("b") == [40]


def test_equal_hashes_after_different_ones_are_not_equal_tokens() -> None:
    """b's second block has the hash of a's, but another block before it."""
    world = shared(hashed("a", "xyz", 1), hashed("b", "vyz", 1, at=5.0))
    assert world.chunks("b") == [30]


def test_sessions_of_one_named_prefix_share_as_much_of_it_as_both_have() -> None:
    """a says that 15 of its 30 tokens are the system prompt, b that 25 of its 30 are: 15 were computed, 15 are left."""
    system = [SharedPrefix("system", tokens) for tokens in (15, 25)]
    world = shared(session("a", 30, 1, prefix=system[0]), session("b", 30, 1, at=5.0, prefix=system[1]))
    assert world.chunks("b") == [15]


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    """The same prompt twice: 29 of 30 tokens are found, the last one is computed to know what comes next."""
    world = shared(hashed("a", "xyz", 1), hashed("b", "xyz", 1, at=5.0))
    assert world.chunks("b") == [1]


def test_only_whole_blocks_of_the_engine_are_shared() -> None:
    """Blocks of 8 tokens: the 20 common ones fill two, so that 40 - 16 = 24 are computed."""
    world = shared(hashed("a", "xyz", 1), hashed("b", "xyvw", 1, at=5.0), block_size=8)
    assert world.chunks("b") == [24]


def test_prompts_computed_side_by_side_are_kept_once_from_then_on() -> None:
    """Both compute 30 of 60 tokens in the first iteration; then one copy of the 30 blocks is left: 1.6 s, and a's next
    30 tokens fit into a pool of 70 beside b's."""
    world = shared(hashed("a", "xyz", 5), hashed("b", "xyz", 5), gpu=70)
    assert world.chunks("a") == world.chunks("b") == [30]
    contexts = world.engine.kv
    assert world.session("b")["prefix_hit_tokens"] == 0
    assert contexts.gpu.used == 0
    assert len(contexts.gpu.cached) == 30


@pytest.mark.parametrize(("prefix_sharing", "begins"), [(True, 5.0), (False, 102.31)])
def test_a_shared_block_counts_once(prefix_sharing: bool, begins: float) -> None:
    """50 blocks, of which the paused a holds 30 from 1.3 s to 101.3 s. b needs 40: with 20 of a's there are enough;
    otherwise it waits until a has ended."""
    a, b = hashed("a", "xyz", 1, pause(100.0), 1), hashed("b", "xyvw", 1, at=5.0)
    world = run(a, b, gpu=50, prefix_sharing=prefix_sharing)
    assert world.call("b", 0)["scheduled_at"] == pytest.approx(begins)
    assert world.session("b")["prefix_hit_tokens"] == (20 if prefix_sharing else 0)


@pytest.mark.parametrize(
    ("needed", "x", "y"), [(10, 1, 1), (20, 10, 1), (30, 20, 1), (35, 20, 5)], ids=["room", "xtail", "x", "y"]
)
def test_cached_blocks_are_evicted_least_recently_used_and_last_ones_first(needed: int, x: int, y: int) -> None:
    """50 blocks: x leaves 20 cached at 1.2, y 20 at 6.2, 10 are free. z takes what it needs beyond 10 from the end of x
    first, then of y; then both come again, and compute what is gone, at least the last token."""
    before = [hashed("x", "ab", 1), hashed("y", "cd", 1, at=5.0), session("z", needed, 1, at=10.0)]
    assert shared(*before, hashed("x2", "ab", 1, at=20.0), gpu=50).chunks("x2") == [x]
    assert shared(*before, hashed("y2", "cd", 1, at=20.0), gpu=50).chunks("y2") == [y]


@pytest.mark.parametrize(("policy", "paused", "cached"), [("cache-lru", 10, 1), ("preserve", 20, 10)])
def test_cache_lru_evicts_paused_contexts_and_cached_blocks_in_one_order(policy: str, paused: int, cached: int) -> None:
    """50 blocks: p pauses at 1.2 with 20, x leaves 20 cached at 6.2. z needs 20, 10 more than are free: cache-lru takes
    them from p, which was used before x; elsewhere cached blocks go before any context."""
    p, x = session("p", 20, 1, pause(100.0), 1), hashed("x", "ab", 1, at=5.0)
    world = shared(p, x, session("z", 20, 1, at=10.0), hashed("x2", "ab", 1, at=20.0), gpu=50, policy=policy)
    assert world.call("p", 1)["resident_tokens"] == paused
    assert world.chunks("x2") == [cached]


def test_a_discarded_context_finds_what_is_left_of_its_prompt() -> None:
    """a drops its context at 1.3 and goes on at 11.3; its 30 prompt tokens are cached: it computes one token."""
    world = shared(hashed("a", "xyz", 1, pause(10.0), 1), policy="discard")
    assert world.chunks("a") == [30, 1]
    assert (world.session("a")["recomputed_tokens"], world.session("a")["prefix_hit_tokens"]) == (0, 0)


def test_blocks_that_others_hold_stay_when_a_context_is_swapped_out() -> None:
    """a and b pause with 30 and 40 tokens, of which 20 are common: b copies its other 20 to the host, and back."""
    a, b = hashed("a", "xyz", 1, pause(100.0), 1), hashed("b", "xyvw", 1, pause(10.0), 1, at=5.0)
    world = shared(a, b, policy="swap", swap="blocking")
    assert world.copies("a")[0][1:] == ("out", 30)
    world = shared(a, b, policy=SwapsOnly("b"), swap="blocking")
    assert [copy[1:] for copy in world.copies("b")] == [("out", 20), ("in", 20)]


class SwapsOnly(InterceptPolicy):
    """Swaps one session out when it pauses."""

    def __init__(self, name: str) -> None:
        self._name = name

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        return Swap() if paused.id == self._name else Preserve()


def test_a_rewrite_inside_a_shared_block_gives_up_the_whole_of_it() -> None:
    """Blocks of 10: a keeps 25 of its 30 shared tokens and gets 5 others. What the third block held is published as it
    was, so a keeps 20, and computes 5 again, 5 new ones and the token that it emitted is gone."""
    world = shared(hashed("a", "xyz", 1, pause(1.0, returned=5, keeps=25), 1), block_size=10)
    assert world.chunks("a") == [30, 10]
    assert world.session("a")["recomputed_tokens"] == 5


def test_contexts_that_share_all_they_have_give_way_together() -> None:
    """a and b hold the same 30 blocks of 50 while they pause; c needs 40. Neither alone would free one."""
    a, b = (hashed(name, "xyz", 1, pause(100.0), 1) for name in "ab")
    world = shared(a, b, session("c", 40, 1, at=10.0), gpu=60, policy="cache-lru")
    assert world.call("c", 0)["scheduled_at"] == pytest.approx(10.0)


@st.composite
def sharing(draw: st.DrawFn, orders: st.SearchStrategy[Any] = ANY_ORDER) -> Plot:
    """A world whose prompts begin alike: by a named prefix, or by the hashes of blocks of one size."""
    plot = draw(plots(ANY_POLICY, orders))
    size = draw(st.sampled_from([1, plot.settings.block_size, 3, 8, 32]))

    def shaped(one: Session) -> Session:
        if draw(st.booleans()):
            name = draw(st.sampled_from(["system", "tools"]))
            return replace(one, prefix=SharedPrefix(name, draw(st.integers(0, one.prompt))))
        most = -(-one.prompt // size)
        hashes = draw(st.lists(st.integers(0, 1), max_size=min(most, 3)))
        hashes += [9] * draw(st.integers(0, most - len(hashes))) if hashes else []
        return replace(one, block_hashes=tuple(hashes), hash_block=size if hashes else 0)

    rules = plot.settings.model_dump() | {"prefix_sharing": True}
    if plot.settings.sample_layout == "contiguous":  # refused beside prefix sharing
        rules["sample_layout"] = draw(st.sampled_from(["paged-sharing", "segment"]))
    settings = EngineSettings.model_validate(rules)
    return replace(plot, sessions=tuple(shaped(one) for one in plot.sessions), settings=settings)


@examples(80)
@given(sharing())
def test_shared_blocks_keep_every_invariant(plot: Plot) -> None:
    world = plot.run()
    assert_drained(plot, world)
    prompts = sum(one.max_context for one in plot.sessions)
    assert 0 <= world.totals["prefix_hit_tokens"] <= prompts
    event(f"hits: {world.totals['prefix_hit_tokens'] > 0}")


@examples(40)
@given(sharing(st.sampled_from(PREEMPTIVE) | st.integers(0, 2**32)))
def test_shared_blocks_keep_every_invariant_under_an_order_that_preempts(plot: Plot) -> None:
    assert_drained(plot, plot.run())


@examples(70)
@given(sharing(ANY_ORDER | st.sampled_from(PREEMPTIVE)), st.floats(0, 60))
def test_leaps_change_no_timestamp_of_contexts_that_share(plot: Plot, horizon: float | None) -> None:
    policy = "cache-lru" if isinstance(plot.policy, int) else plot.policy
    plot = replace(plot, horizon=horizon, policy=policy)
    leaping = replace(plot, leap=True).run()
    assert_alike(leaping, replace(plot, leap=False).run())
    assert_books(plot, leaping)


@examples(40)
@given(sharing())
def test_the_same_shared_blocks_give_identical_bytes(plot: Plot) -> None:
    first, second = plot.run().record, plot.run().record
    assert pickle.dumps(first.sessions) == pickle.dumps(second.sessions)
    assert repr(first) == repr(second)
