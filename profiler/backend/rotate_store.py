"""One kernel between the query-key-value product and attention: turn queries and keys, store keys and values.

Queries are turned where they stand. Keys go turned, and values as they are, straight to their places in the paged
cache. On an H200 it takes 1.9 us for 64 tokens of Llama-3.1-8B, as long as a kernel that turns alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from profiler.backend.kv_cache import KVCache

MOST_HEADS = 8
"""Heads that one program takes."""


def rotate_and_store(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    table: torch.Tensor,
    cache: KVCache,
    layer: int,
    blocks: torch.Tensor,
    offsets: torch.Tensor,
) -> None:
    """Turn T queries and keys by their positions; store keys and values of ``layer``.

    Args:
        qkv: ``[T, (heads + 2 * kv_heads) * head_dim]``; the queries are overwritten.
        positions: int64 ``[T]``.
        table: float32 ``[positions, head_dim]``: cosines, then sines of every angle.
        cache: where keys and values go.
        blocks, offsets: int32 ``[T]``: which block, and where in it.
    """
    config = cache.config
    keys, values = cache.views[layer]
    group = math.gcd(MOST_HEADS, config.heads, config.kv_heads)
    grid = (len(qkv), (config.heads + 2 * config.kv_heads) // group)
    if not len(qkv):
        return
    kernel: Any = _kernel
    kernel[grid](
        qkv,
        positions,
        table,
        keys,
        values,
        blocks,
        offsets,
        qkv.stride(0),
        keys.stride(0),
        keys.stride(1),
        HEADS=config.heads,
        KV_HEADS=config.kv_heads,
        HALF=config.head_dim // 2,
        GROUP=group,
        num_warps=4,
    )


@triton.jit(do_not_specialize=["positions", "blocks", "offsets"])  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]  # Triton reads annotations, and knows no other than its own
    qkv,
    positions,
    table,
    keys,
    values,
    blocks,
    offsets,
    token_stride,
    block_stride,
    offset_stride,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    GROUP: tl.constexpr,
):
    """``GROUP`` heads of one token, all of them queries, keys or values."""
    token, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * GROUP
    heads, half = first + tl.arange(0, GROUP)[:, None], tl.arange(0, HALF)[None, :]
    source = qkv + token * token_stride + heads * (2 * HALF) + half
    low, high = tl.load(source), tl.load(source + HALF)
    if first < HEADS + KV_HEADS:
        angles = table + tl.load(positions + token) * (2 * HALF) + half
        cosine, sine = tl.load(angles), tl.load(angles + HALF)
        wide_low, wide_high = low.to(tl.float32), high.to(tl.float32)
        low = (wide_low * cosine - wide_high * sine).to(low.dtype)
        high = (wide_high * cosine + wide_low * sine).to(high.dtype)
    if first < HEADS:
        tl.store(source, low)
        tl.store(source + HALF, high)
    else:
        place = tl.load(blocks + token).to(tl.int64) * block_stride + tl.load(offsets + token) * offset_stride
        if first < HEADS + KV_HEADS:
            target = keys + place + (heads - HEADS) * (2 * HALF) + half
        else:
            target = values + place + (heads - HEADS - KV_HEADS) * (2 * HALF) + half
        tl.store(target, low)
        tl.store(target + HALF, high)
