"""The calls to FlashInfer, without a GPU: a stand-in with the same signatures computes from the very index tensors that
its kernels would read, so a wrong index, a missing one or wrong padding gives wrong tokens.
"""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from profiler.backend.backend import make_backend, make_model  # noqa: E402
from profiler.backend.executor import ChunkWork, Executor  # noqa: E402
from profiler.backend.flashinfer_attention import padded_sizes  # noqa: E402
from profiler.backend.model_config import load_model_config  # noqa: E402

CPU = torch.device("cpu")
CONFIG = load_model_config("tiny").model_copy(update={"dtype": "float32"})


class StandInPrefill:
    def __init__(self, workspace: Any, kv_layout: str = "NHD", *, backend: str = "auto") -> None:
        assert (kv_layout, backend) == ("NHD", "fa2")
        self.plans = 0
        self.stretches: set[int] = set()

    def plan(
        self,
        qo_indptr: Any,
        paged_kv_indptr: Any,
        paged_kv_indices: Any,
        paged_kv_last_page_len: Any,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        *,
        causal: bool = False,
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
    ) -> None:
        assert causal
        self.plans += 1
        assert (num_qo_heads, num_kv_heads, head_dim_qk) == (CONFIG.heads, CONFIG.kv_heads, CONFIG.head_dim)
        assert {t.dtype for t in (qo_indptr, paged_kv_indptr, paged_kv_indices)} == {torch.int32}
        self._plan_info: list[int] = [0, 0, 0, 16, *[0] * 11]
        self._int_workspace_buffer = torch.zeros(1, dtype=torch.uint8)

    def run(self, q: Any, paged_kv_cache: Any, *, out: Any) -> None:
        """Each piece on its own, row by row of its tile, then merged by weight."""
        pieces, rows, _, tile, *places, v, s, _, graph, cut = self._plan_info
        queries, starts, lengths = self._qo_indptr_buf, self._paged_kv_indptr_buf, self._paged_kv_last_page_len_buf
        assert (len(q), int(queries[-1]), v, graph) == (rows, rows, 0, 0)
        group, size = q.shape[1] // paged_kv_cache[0].shape[2], paged_kv_cache[0].shape[1]
        assert s >= 4 * pieces * tile * q.shape[1] * q.shape[2]
        numbers = self._int_workspace_buffer.view(torch.int32)
        counts = (pieces, pieces, pieces, rows + 1, len(lengths) + 1, 1)
        requests, tiles, stretches, merge, row_starts, stretch = (
            numbers[at // 4 : at // 4 + n].tolist() for at, n in zip(places, counts, strict=True)
        )
        assert cut == (max(stretches) > 0)
        self.stretches.add(max(stretches) + 1)
        found: dict[tuple[int, int], dict[int, tuple[Any, Any]]] = {}
        for request, number, piece in zip(requests, tiles, stretches, strict=True):
            ids = self._paged_kv_indices_buf[starts[request] : starts[request + 1]].long()
            context = (len(ids) - 1) * size + int(lengths[request])
            first, end = int(queries[request]), int(queries[request + 1])
            for row in range(number * tile, min((number + 1) * tile, (end - first) * group)):
                query = first + row // group
                seen = slice(piece * stretch[0], min((piece + 1) * stretch[0], context)) if cut else slice(context)
                seen = slice(seen.start, min(seen.stop, context - (end - 1 - query)))
                k, v = (part[ids].flatten(0, 1)[seen] for part in paged_kv_cache)
                for head in range(row % group, q.shape[1], group):
                    scores = k[:, head // group] @ q[query, head] / math.sqrt(q.shape[2])
                    parts = found.setdefault((query, head), {})
                    assert piece not in parts
                    parts[piece] = scores.softmax(0) @ v[:, head // group], scores.logsumexp(0)
        assert len(found) == rows * q.shape[1]
        for (query, head), parts in found.items():
            if cut:
                assert merge[query + 1] - merge[query] == len(parts)
            sums, weights = (torch.stack(part) for part in zip(*parts.values(), strict=True))
            out[query, head] = (sums * torch.softmax(weights, 0)[:, None]).sum(0)
        assert row_starts[-1] == (merge[-1] if cut else rows)


class StandInDecode:
    def __init__(
        self,
        float_workspace_buffer: Any,
        kv_layout: str,
        *,
        use_cuda_graph: bool,
        use_tensor_cores: bool,
        paged_kv_indptr_buffer: Any,
        paged_kv_indices_buffer: Any,
        paged_kv_last_page_len_buffer: Any,
        backend: str,
    ) -> None:
        assert (use_cuda_graph, use_tensor_cores, backend) == (True, True, "fa2")
        self.size = len(paged_kv_last_page_len_buffer)
        assert len(paged_kv_indptr_buffer) == self.size + 1
        self.buffers = (paged_kv_indptr_buffer, paged_kv_indices_buffer, paged_kv_last_page_len_buffer)
        self.plans = 0
        self._int_workspace_buffer = torch.zeros(1, dtype=torch.uint8)
        self._plan_info: list[int] = []

    def plan(self, indptr: Any, indices: Any, last_page_len: Any, *shape: int, **types: Any) -> None:
        assert len(last_page_len) == self.size
        self.plans += 1
        self._plan_info = [0, 0, 0, 16, *[0] * 11]

    def run(self, q: Any, paged_kv_cache: Any, *, out: Any) -> None:
        """Each piece on its own, then merged by weight: whoever is read twice, or not at all, shows."""
        assert len(q) == self.size
        pieces, rows, rows_at, tile, *places, v, s, valid_at, graph, split = self._plan_info
        assert (rows, tile, graph, split) == (self.size, 16, 1, 1)
        assert s >= 4 * pieces * q.shape[1] * q.shape[2] > v == 0
        numbers = self._int_workspace_buffer.view(torch.int32)
        lengths = (pieces, pieces, pieces, rows + 1, rows + 1, 1)
        requests, tiles, kv_pieces, merge, row_starts, size = (
            numbers[at // 4 : at // 4 + n].tolist() for at, n in zip(places, lengths, strict=True)
        )
        valid = self._int_workspace_buffer[valid_at : valid_at + pieces].bool()
        assert int(numbers[rows_at // 4]) == rows
        assert merge == row_starts
        found: dict[int, list[Any]] = {}
        chosen = torch.flatten(valid.nonzero()).tolist()
        for index in chosen:
            request, piece = requests[index], kv_pieces[index]
            assert tiles[index] == 0
            assert piece < merge[request + 1] - merge[request]
            parts = found.setdefault(request, [])
            parts.append(self.piece(q[request], paged_kv_cache, request, piece * size[0], size[0]))
        assert len({(requests[index], kv_pieces[index]) for index in chosen}) == len(chosen) == merge[-1]
        for request, parts in found.items():
            sums, weights = (torch.stack(part) for part in zip(*parts, strict=True))
            out[request] = (sums * torch.softmax(weights, 0)[..., None]).sum(0)
        assert len(found) == self.size

    def piece(self, q: Any, views: Any, request: int, begin: int, tokens: int) -> tuple[Any, Any]:
        """Attention to ``tokens`` tokens from ``begin``, and the logarithm of its weight, both a head."""
        starts, blocks, lengths = self.buffers
        ids = blocks[starts[request] : starts[request + 1]].long()
        context = (len(ids) - 1) * views[0].shape[1] + int(lengths[request])
        seen = slice(begin, min(begin + tokens, context))
        assert begin < context
        group = q.shape[0] // views[0].shape[2]
        k, v = (part[ids].flatten(0, 1)[seen].repeat_interleave(group, dim=1) for part in views)
        scores = torch.einsum("thd,hd->ht", k, q) / math.sqrt(q.shape[1])
        return torch.einsum("ht,thd->hd", scores.softmax(-1), v), scores.logsumexp(-1)


def rmsnorm(x: Any, weight: Any, eps: float) -> Any:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def fused_add_rmsnorm(x: Any, residual: Any, weight: Any, eps: float) -> None:
    residual += x
    x.copy_(rmsnorm(residual, weight, eps))


def rotate_and_store(qkv: Any, positions: Any, table: Any, cache: Any, layer: int, blocks: Any, offsets: Any) -> None:
    """As the kernel does: queries turned in place, turned keys only in the cache."""
    assert (positions.dtype, blocks.dtype, offsets.dtype) == (torch.int64, torch.int32, torch.int32)
    assert all(t.is_contiguous() for t in (positions, blocks, offsets))
    heads = qkv.view(len(qkv), -1, CONFIG.head_dim)
    queries, keys, values = heads.split((CONFIG.heads, CONFIG.kv_heads, CONFIG.kv_heads), dim=1)
    cosine, sine = table[positions][:, None].chunk(2, dim=-1)

    def turned(part: Any) -> Any:
        first, second = part.chunk(2, dim=-1)
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)

    for pool, new in zip(cache.views[layer], (turned(keys), values), strict=True):
        pool[blocks.long(), offsets.long()] = new
    queries.copy_(turned(queries))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = SimpleNamespace(
        BatchPrefillWithPagedKVCacheWrapper=StandInPrefill,
        BatchDecodeWithPagedKVCacheWrapper=StandInDecode,
        rmsnorm=rmsnorm,
        fused_add_rmsnorm=fused_add_rmsnorm,
        silu_and_mul=lambda x: torch.nn.functional.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
    )
    monkeypatch.setitem(sys.modules, "flashinfer", module)
    kernel: Any = SimpleNamespace(rotate_and_store=rotate_and_store)
    monkeypatch.setitem(sys.modules, "profiler.backend.rotate_store", kernel)
    monkeypatch.setattr("profiler.backend.decode_schedule.SHORTEST_PIECE", 8)
    monkeypatch.setattr("profiler.backend.flashinfer_attention.SHORTEST_PIECE", 8)
    monkeypatch.setattr("profiler.backend.flashinfer_attention._processors_a_head", lambda cache: 5.0)
    monkeypatch.setattr("profiler.backend.chunk_schedule.MERGE", 0.0)
    monkeypatch.setattr("profiler.backend.chunk_schedule.BEGIN", 0.0)


def serve(executor: Executor) -> list[list[int]]:
    """Seven sessions: chunks alone, mixed batches of several sizes, decodes alone, one left out now and then."""
    keys = [f"s{index}" for index in range(7)]
    for index, key in enumerate(keys):
        executor.open(key, 5 + 7 * index)
    executor.run([], [ChunkWork("s0", 0, 5), ChunkWork("s1", 0, 12)])
    executor.run(["s0", "s1"], [ChunkWork("s2", 0, 19), ChunkWork("s3", 0, 9)])
    executor.run(["s2", "s0"], [ChunkWork("s3", 9, 17)])
    executor.run(["s0", "s3"], [ChunkWork("s4", 0, 33), ChunkWork("s5", 0, 40), ChunkWork("s6", 0, 46)])
    executor.run(["s4"], [ChunkWork("s6", 46, 1)])
    for _ in range(9):
        executor.run(keys[::-1])
        executor.run(keys[1:6])
    return [executor.tokens(key) for key in keys]


@pytest.mark.usefixtures("stand_in")
def test_tokens_are_those_of_the_reference() -> None:
    def made(flashinfer: bool) -> Executor:
        model = make_model(CONFIG, CPU, torch.float32, 7, 256, flashinfer)
        backend = make_backend(model, 90, 0, 4, 8, 100, max_decodes=7, max_chunk_tokens=130, flashinfer=flashinfer)
        backend.cache.pool[:-1] = math.nan  # what is read before it is written shows
        return backend.executor

    fused = made(True)
    assert serve(fused) == serve(made(False))
    plans = fused.attention._decode_plans  # type: ignore[attr-defined]
    assert sorted(plans) == [1, 2, 8]
    assert all(plan.wrapper.plans == 1 for plan in plans.values()), "a wrapper's own first plan loads its kernels"
    chunks = fused.attention._chunk_wrapper  # type: ignore[attr-defined]
    assert chunks.plans == 1
    assert {1, 4} <= chunks.stretches, "12 blocks of 47 tokens, for 5 processors that begin a piece at no cost"


@pytest.mark.usefixtures("stand_in")
def test_passes_in_pieces_give_the_same_tokens() -> None:
    """Sizes are 16, 32, ... 144; the largest pass of ``serve`` has 119 + 2 tokens, the smallest with a chunk 1 + 1."""
    model = make_model(CONFIG, CPU, torch.float32, 7, 256, True)
    tokens = []
    for pieces in (False, True):
        backend = make_backend(model, 90, 0, 4, 8, 100, max_decodes=7, max_chunk_tokens=130, flashinfer=True)
        if pieces:
            backend.executor._pieces.capture()
        assert backend.executor.pass_sizes == (tuple(range(16, 145, 16)) if pieces else ())
        tokens.append(serve(backend.executor))
    assert tokens[0] == tokens[1]


def test_padded_sizes_end_at_or_just_above_the_largest() -> None:
    assert padded_sizes(1) == (1,)
    assert padded_sizes(3) == (1, 2, 4)
    assert padded_sizes(8) == (1, 2, 4, 8)
    assert padded_sizes(17) == (1, 2, 4, 8, 16, 24)
    assert padded_sizes(256)[-1] == 256
