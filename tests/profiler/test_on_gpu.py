"""What only a GPU can show: FlashInfer against the reference, graphs against eager launches, copies beside compute."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA GPU", allow_module_level=True)
flashinfer = pytest.importorskip("flashinfer")

from profiler.backend.backend import Backend, make_backend, make_model  # noqa: E402
from profiler.backend.executor import ChunkWork  # noqa: E402
from profiler.backend.flashinfer_attention import FlashInferAttention  # noqa: E402
from profiler.backend.model import Llama  # noqa: E402
from profiler.backend.model_config import ModelConfig, load_model_config  # noqa: E402
from profiler.backend.swap import Way  # noqa: E402

GPU = torch.device("cuda")
SMALL: dict[str, Any] = {"layers": 3, "hidden": 512, "heads": 8, "intermediate": 1024, "vocab": 1000, "head_dim": 128}


def small_config(kv_heads: int) -> ModelConfig:
    return load_model_config("llama-3.1-8b").model_copy(update={**SMALL, "kv_heads": kv_heads, "name": "small"})


def make(model: Llama, flashinfer: bool = True, **sizes: Any) -> Backend:
    sizes = {"gpu_blocks": 500, "host_blocks": 200, "max_sessions": 16, "max_context": 1000, "max_decodes": 12} | sizes
    return make_backend(model, flashinfer=flashinfer, **sizes)


def logits_of_a_mixed_run(model: Llama, backend: Backend) -> Any:
    """Prompts in chunks beside decoding sessions; all logits, with tokens forced to be the same in every run."""
    seen = []
    forward = model.forward

    def watched(*arguments: Any) -> Any:
        logits = forward(*arguments)
        seen.append(logits.float().clone())
        return logits

    model.forward = watched  # type: ignore[method-assign]
    executor = backend.executor
    sample = executor.store.sample
    executor.store.sample = lambda *_: None  # type: ignore[method-assign]
    lengths = (3, 16, 17, 130, 250)
    for index, length in enumerate(lengths):
        executor.open(index, length)
    executor.run([], [ChunkWork(0, 0, 3), ChunkWork(1, 0, 16), ChunkWork(3, 0, 100)])
    executor.run([0, 1], [ChunkWork(2, 0, 17), ChunkWork(3, 100, 30), ChunkWork(4, 0, 99)])
    executor.run([0, 1, 2, 3], [ChunkWork(4, 99, 151)])
    for _ in range(3):
        executor.run([4, 0, 3, 1, 2])
    model.forward, executor.store.sample = forward, sample  # type: ignore[method-assign]
    kept = []
    for logits, decodes, ends in zip(seen, (0, 2, 4, 5, 5, 5), (2, 2, 1, 0, 0, 0), strict=True):
        kept += [logits[:decodes], logits[len(logits) - ends :]]  # padding stands between the two
    return torch.cat(kept)


@pytest.mark.parametrize("kv_heads", [2, 8], ids=["grouped heads", "every head its own"])
def test_flashinfer_agrees_with_the_reference(kv_heads: int) -> None:
    config = small_config(kv_heads)
    fused_model = make_model(config, GPU, torch.bfloat16, 1, 1024)
    plain_model = make_model(config, GPU, torch.bfloat16, 1, 1024, flashinfer=False)
    wide_model = make_model(config, GPU, torch.float64, 1, 1024, flashinfer=False)
    for ours, theirs in zip(wide_model.weights.layers, fused_model.weights.layers, strict=True):
        for name in ("qkv", "output", "gate_up", "down"):
            getattr(ours, name).copy_(getattr(theirs, name))
    wide_model.weights.embedding.copy_(fused_model.weights.embedding)
    wide_model.weights.head.copy_(fused_model.weights.head)
    fused = logits_of_a_mixed_run(fused_model, make(fused_model))
    plain = logits_of_a_mixed_run(plain_model, make(plain_model, flashinfer=False))
    exact = logits_of_a_mixed_run(wide_model, make(wide_model, flashinfer=False))
    assert (fused - exact).norm() / exact.norm() < 2e-2
    assert (plain - exact).norm() / exact.norm() < 2e-2


def test_graphs_give_the_tokens_of_eager_launches() -> None:
    model = make_model(small_config(2), GPU, torch.bfloat16, 2, 1024)
    tokens = []
    for graphs in (False, True):
        executor = make(model, margins=True).executor
        if graphs:
            executor.capture()
        for index in range(11):
            executor.open(index, 20 + index)
        executor.run([], [ChunkWork(index, 0, 20 + index) for index in range(11)])
        for step in range(40):
            executor.run(range(step % 11, 11))
        tokens.append([executor.tokens(index) for index in range(11)])
        assert executor.margins(10)[-1] > 0
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("kv_heads", [2, 8], ids=["grouped heads", "every head its own"])
def test_our_schedule_of_chunks_gives_what_flashinfers_own_gives(kv_heads: int) -> None:
    """Whole contexts: the same pieces in the same kernels, so the same bits; only the way of the numbers differs.
    Contexts cut otherwise than FlashInfer would cut them: the same numbers but for rounding."""
    draw = random.Random(kv_heads)
    config = small_config(kv_heads)
    model = make_model(config, GPU, torch.bfloat16, 1, 8192)
    backend = make(model, gpu_blocks=3000, max_context=8000, max_chunk_tokens=2048)
    cache, attention = backend.cache, backend.executor.attention
    assert isinstance(attention, FlashInferAttention)
    cache.pool.normal_()
    workspace = torch.zeros(256 << 20, dtype=torch.uint8, device=GPU)
    theirs = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend="fa2")
    stretches = set()
    for turn in range(40):
        work = []
        for index in range(draw.randint(1, 5)):
            tokens, before = draw.choice((1, 7, 30, 200, 400)), draw.choice((0, 0, 100, 1000, 3000))
            backend.executor.open((turn, index), tokens + before)
            work.append(ChunkWork((turn, index), before, tokens))
        part = backend.executor._prepare(
            np.zeros(0, dtype=np.int32), [backend.executor._look_up(one) for one in work], 0
        )
        backend.executor._send()
        assert part is not None
        chunks = part.sequences
        q = torch.randn(chunks.queries, config.heads, config.head_dim, dtype=torch.bfloat16, device=GPU)
        ours, other = torch.empty_like(q).flatten(1), torch.empty_like(q)
        attention.run(1, q, ours)
        theirs.plan(
            *(chunks.query_starts, chunks.block_starts, chunks.blocks, chunks.last_lengths),
            *(config.heads, config.kv_heads, config.head_dim, cache.block_size),
            causal=True,
            q_data_type=torch.bfloat16,
            disable_split_kv=True,
        )
        theirs.run(q, cache.views[1], out=other)
        cut = bool(attention._chunk_wrapper._plan_info[-1])
        if cut:
            assert (ours.view_as(other) - other).float().norm() / other.float().norm() < 1e-2
        else:
            assert torch.equal(ours.view_as(other), other)
            assert attention._chunk_wrapper._plan_info[0] == theirs._plan_info[0], "pieces"
        stretches.add(cut)
        for one in work:
            backend.executor.close(one.key)
    assert stretches == {False, True}


def test_a_large_decoding_batch_cut_at_its_mean_gives_what_whole_contexts_give() -> None:
    """90 sessions, a third of them four times as long as the others: each against a batch of its own."""
    config = small_config(8)
    model = make_model(config, GPU, torch.bfloat16, 1, 8192)
    backend = make(model, gpu_blocks=8000, max_context=3000, max_sessions=100, max_decodes=90, max_chunk_tokens=4096)
    backend.cache.pool.normal_()
    lengths = [2900 if index % 3 == 0 else 700 - index for index in range(90)]
    rows = []
    for index, length in enumerate(lengths):
        backend.executor.open(index, length)
        rows.append(backend.tables.rows[index])
    q = torch.randn(96, config.heads, config.head_dim, dtype=torch.bfloat16, device=GPU)
    attention, together, alone = backend.executor.attention, torch.zeros_like(q), torch.zeros_like(q)

    def attend(chosen: slice, into: Any) -> None:
        some = np.array(rows[chosen], dtype=np.int32)
        padded = attention.padded(len(some))
        backend.executor._prepare(some, [], padded)
        backend.executor._send()
        queries = q[chosen.start : chosen.start + padded].contiguous()
        out = torch.empty_like(queries).flatten(1)
        attention.run(1, queries, out)
        into[chosen] = out.view_as(queries)[: len(some)]

    attend(slice(0, 90), together)
    for index in range(90):
        attend(slice(index, index + 1), alone)
    assert (together[:90] - alone[:90]).float().norm() / alone[:90].float().norm() < 1e-2


@pytest.mark.parametrize("way", ["direct", "staged"])
def test_copies_beside_compute_keep_every_byte(way: Way) -> None:
    """Contexts go out and come back to other blocks while others decode; decoding goes on as if nothing happened."""
    model = make_model(small_config(2), GPU, torch.bfloat16, 3, 1024)
    chance = random.Random(0)
    expected: list[list[int]] = []
    for swaps in (False, True):
        backend = make(model, swap_way=way)
        executor, tables, swapper = backend.executor, backend.tables, backend.swapper
        executor.capture()
        for index in range(8):
            executor.open(index, 200)
            executor.run([], [ChunkWork(index, 0, 200)])
        for _ in range(30):
            if swaps:
                for index in range(4, 8):
                    before = backend.cache.pool[tables.gpu_ids(index)].clone()
                    chance.shuffle(tables._free_gpu._ids)
                    blocking = chance.random() < 0.5
                    for begin in (tables.begin_out, tables.begin_in):
                        for part in (5, 8):
                            move = begin(index, part)
                            swapper.submit(move, blocking)
                            executor.run(range(4))
                            swapper.wait_for_one()
                            assert [job.move for job in swapper.poll()] == ([] if blocking else [move])
                            tables.finish(move)
                    assert torch.equal(backend.cache.pool[tables.gpu_ids(index)], before)
            executor.run(range(4, 8))
        expected.append([token for index in range(4, 8) for token in executor.tokens(index)])
    assert expected[0] == expected[1]


def test_an_overlapped_copy_returns_at_once_and_hides() -> None:
    """A copy of 256 MB takes about 5 ms; submitting it takes far less, and decoding goes on meanwhile."""
    model = make_model(small_config(2), GPU, torch.bfloat16, 4, 1024)
    blocks = (256 << 20) // (model.config.kv_bytes_per_token() * 16)
    backend = make(model, gpu_blocks=blocks + 100, host_blocks=blocks, max_context=16 * blocks + 16)
    backend.executor.open("large", 1)
    import numpy as np

    backend.tables.grow(np.array([0], dtype=np.int32), np.array([16 * blocks], dtype=np.int32))
    torch.cuda.synchronize()
    for begin in (backend.tables.begin_out, backend.tables.begin_in):
        move = begin("large", blocks)
        backend.swapper.submit(move)
        backend.swapper.launch()
        polled = time.perf_counter()
        first = backend.swapper.poll()
        assert time.perf_counter() - polled < 1e-3
        assert first == []
        backend.swapper.wait_for_one()
        (job,) = backend.swapper.poll()
        assert 2 * 1e-3 < job.seconds() < 50e-3
        backend.tables.finish(move)
