"""Blocks in use: private ones are counted, shared ones count once however many hold them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sim.kv.block_pool import BlockPool, blocks_for

CAPACITY = 12
KEYS = st.lists(st.sampled_from("abcdef"), max_size=4)


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_a_context_holds_whole_blocks(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens, 16) == blocks


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_blocks_hold_the_tokens_and_one_less_would_not(tokens: int, size: int) -> None:
    blocks = blocks_for(tokens, size)
    assert blocks * size >= tokens > (blocks - 1) * size or tokens == blocks == 0


def test_a_block_that_two_share_counts_once_and_goes_with_the_last() -> None:
    pool = BlockPool(4)
    assert pool.ref(["system", "tools"]) == 2
    assert pool.missing(["system", "tools", "user"]) == 1
    assert pool.ref(["system", "tools", "user"]) == 1
    assert (pool.used, pool.free_blocks) == (3, 1)
    assert pool.unref(["system", "tools"]) == 0
    assert pool.unref(["system", "tools", "user"]) == 3
    assert pool.used == 0


def test_a_pool_gives_no_more_than_it_has() -> None:
    pool = BlockPool(2)
    pool.allocate(1)
    with pytest.raises(AssertionError, match="taking 2 of 1 free blocks"):
        pool.allocate(2)
    with pytest.raises(AssertionError, match="returning 2 of 1 private blocks"):
        pool.free(2)
    pool.ref(["system"])
    with pytest.raises(AssertionError, match="free block"):
        pool.ref(["tools"])


def test_a_pool_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 blocks"):
        BlockPool(-1)


class AnyPool(RuleBasedStateMachine):
    """Whoever takes, gives, shares and lets go: used == private + distinct keys, and never more than there is."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(CAPACITY)
        self.private = 0
        self.holders: list[list[str]] = []

    @rule(blocks=st.integers(0, CAPACITY))
    def take(self, blocks: int) -> None:
        if blocks <= self.pool.free_blocks:
            self.pool.allocate(blocks)
            self.private += blocks

    @rule(blocks=st.integers(0, CAPACITY))
    def give(self, blocks: int) -> None:
        if blocks <= self.private:
            self.pool.free(blocks)
            self.private -= blocks

    @rule(keys=KEYS)
    def share(self, keys: list[str]) -> None:
        wanted = self.pool.missing(keys)
        assert wanted == len(set(keys) - self.held().keys())
        if wanted <= self.pool.free_blocks:
            assert self.pool.ref(keys) == wanted
            self.holders.append(keys)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def unshare(self, data: st.DataObject) -> None:
        keys = self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))
        assert self.pool.unref(keys) == len(set(keys) - self.held().keys())

    def held(self) -> Counter[str]:
        return Counter(key for keys in self.holders for key in keys)

    @invariant()
    def used_is_private_and_distinct(self) -> None:
        assert self.pool.used == self.private + len(self.held())
        assert 0 <= self.pool.free_blocks == CAPACITY - self.pool.used


TestAnyPool = AnyPool.TestCase
