"""Copies move every byte, to where it belongs and nowhere else."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from profiler.backend.block_tables import Move  # noqa: E402
from profiler.backend.kv_cache import KVCache  # noqa: E402
from profiler.backend.model_config import load_model_config  # noqa: E402
from profiler.backend.swap import Swapper, Way  # noqa: E402

CPU = torch.device("cpu")
BLOCKS = 12


def filled_cache(dtype: torch.dtype) -> KVCache:
    cache = KVCache(load_model_config("tiny"), BLOCKS, BLOCKS, 4, CPU, dtype)
    generator = torch.Generator().manual_seed(0)
    for pool in (cache.pool, cache.host):
        pool.view(torch.uint8).random_(0, 256, generator=generator)
    return cache


def as_bytes(pool: torch.Tensor) -> torch.Tensor:
    return pool.view(torch.uint8).flatten(1).clone()


some_blocks = st.lists(st.integers(0, BLOCKS - 1), unique=True, min_size=1)


@settings(deadline=None)
@given(
    gpu=some_blocks,
    host=st.permutations(range(BLOCKS)),
    back=st.permutations(range(BLOCKS)),
    way=st.sampled_from(["direct", "staged"]),
    staging_blocks=st.integers(1, 5),
    blocking=st.booleans(),
    dtype=st.sampled_from([torch.bfloat16, torch.float64]),
)
def test_a_round_trip_keeps_every_byte(
    gpu: list[int],
    host: list[int],
    back: list[int],
    way: Way,
    staging_blocks: int,
    blocking: bool,
    dtype: torch.dtype,
) -> None:
    """Out to scattered host blocks, then in to other GPU blocks, in any order; all else stays as it was."""
    cache = filled_cache(dtype)
    swapper = Swapper(cache, way, staging_blocks * cache.block_bytes)
    device, memory = as_bytes(cache.pool), as_bytes(cache.host)
    host, back = host[: len(gpu)], back[: len(gpu)]
    for move in (Move("a", True, tuple(gpu), tuple(host)), Move("a", False, tuple(back), tuple(host))):
        job = swapper.submit(move, blocking)
        ended = swapper.poll()
        assert (ended == []) == blocking
        assert job.done()
        assert swapper.idle
    memory[host] = device[gpu]
    device[back] = memory[host]
    assert torch.equal(as_bytes(cache.host), memory)
    assert torch.equal(as_bytes(cache.pool), device)


def test_an_overlapped_copy_is_under_way_until_polled_and_a_blocking_one_is_not() -> None:
    cache = filled_cache(torch.float64)
    swapper = Swapper(cache)
    before = as_bytes(cache.host)
    job = swapper.submit(Move("a", True, (0, 1), (3, 4)))
    assert not swapper.idle
    assert not job.done()
    assert torch.equal(as_bytes(cache.host), before)
    assert swapper.poll() == [job]
    assert torch.equal(as_bytes(cache.host)[[3, 4]], as_bytes(cache.pool)[[0, 1]])
    assert swapper.poll() == []


def test_blocking_copies_of_one_plan_may_hand_blocks_on() -> None:
    """a leaves blocks 0 and 1, and b, which was on the host, comes back to the very same ones."""
    cache = filled_cache(torch.float64)
    swapper = Swapper(cache, "staged")
    a, b = as_bytes(cache.pool)[:2], as_bytes(cache.host)[5:7]
    swapper.submit(Move("a", True, (0, 1), (8, 2)), blocking=True)
    swapper.submit(Move("b", False, (1, 0), (5, 6)), blocking=True)
    assert torch.equal(as_bytes(cache.host)[[8, 2]], a)
    assert torch.equal(as_bytes(cache.pool)[[1, 0]], b)


def test_small_blocks_are_gathered_and_large_ones_travel_directly() -> None:
    tiny = KVCache(load_model_config("tiny"), 2, 2, 4, CPU)
    large = KVCache(load_model_config("llama-3.1-8b"), 1, 1, 16, CPU)
    assert large.block_bytes == 2 * 1024 * 1024
    assert (Swapper(tiny).way, Swapper(large).way) == ("staged", "direct")
