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


def attend(q: Any, views: Any, queries: Any, starts: Any, blocks: Any, lengths: Any, out: Any) -> None:
    """Causal attention of ragged queries over paged keys and values, one query and one head at a time."""
    keys, values = views
    group = q.shape[1] // keys.shape[2]
    for index, length in enumerate(lengths.tolist()):
        ids = blocks[starts[index] : starts[index + 1]].long()
        context = (len(ids) - 1) * keys.shape[1] + length
        first, end = int(queries[index]), int(queries[index + 1])
        for query in range(first, end):
            seen = context - (end - 1 - query)
            for head in range(q.shape[1]):
                k = keys[ids, :, head // group].flatten(0, 1)[:seen]
                v = values[ids, :, head // group].flatten(0, 1)[:seen]
                out[query, head] = ((k @ q[query, head]) / math.sqrt(q.shape[2])).softmax(0) @ v


class StandInPrefill:
    def __init__(self, workspace: Any, kv_layout: str = "NHD", *, backend: str = "auto") -> None:
        assert (kv_layout, backend) == ("NHD", "fa2")

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
        assert (num_qo_heads, num_kv_heads, head_dim_qk) == (CONFIG.heads, CONFIG.kv_heads, CONFIG.head_dim)
        assert {t.dtype for t in (qo_indptr, paged_kv_indptr, paged_kv_indices)} == {torch.int32}
        self.planned = [t.clone() for t in (qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len)]

    def run(self, q: Any, paged_kv_cache: Any, *, out: Any) -> None:
        assert len(q) == self.planned[0][-1]
        attend(q, paged_kv_cache, *self.planned, out)


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
        self.plans: list[str] = []

    def plan(self, indptr: Any, indices: Any, last_page_len: Any, *shape: int, **types: Any) -> None:
        self.check(indptr, indices, last_page_len)
        self.plans.append("whole")

    def check(self, indptr: Any, indices: Any, last_page_len: Any) -> None:
        """What is planned on the host is what lies in the buffers that the kernels read."""
        assert len(last_page_len) == self.size
        for told, there in zip((indptr, indices, last_page_len), self.buffers, strict=True):
            assert torch.equal(told, there[: len(told)])

    def run(self, q: Any, paged_kv_cache: Any, *, out: Any) -> None:
        assert len(q) == self.size
        starts, blocks, lengths = self.buffers
        attend(q, paged_kv_cache, torch.arange(self.size + 1), starts, blocks, lengths, out)


def fast_decode_plan(
    wrapper: StandInDecode,
    indptr: Any,
    indices: Any,
    last_page_len: Any,
    *shape: int,
    q_data_type: Any,
    kv_data_type: Any,
    global_override_indptr_cpu: Any,
) -> None:
    assert wrapper.plans, "a wrapper's first plan loads its kernels"
    assert torch.equal(global_override_indptr_cpu, indptr)
    wrapper.check(indptr, indices, last_page_len)
    wrapper.plans.append("fast")


def rmsnorm(x: Any, weight: Any, eps: float) -> Any:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def fused_add_rmsnorm(x: Any, residual: Any, weight: Any, eps: float) -> None:
    residual += x
    x.copy_(rmsnorm(residual, weight, eps))


def apply_rope(positions: Any, query: Any, key: Any, head_size: int, cos_sin_cache: Any, is_neox: bool = True) -> None:
    assert positions.is_contiguous()
    assert is_neox
    cosine, sine = cos_sin_cache[positions][:, None].chunk(2, dim=-1)
    for part in (query, key):
        first, second = part.view(len(part), -1, head_size).chunk(2, dim=-1)
        turned = first * cosine - second * sine, second * cosine + first * sine
        first.copy_(turned[0])
        second.copy_(turned[1])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = SimpleNamespace(
        BatchPrefillWithPagedKVCacheWrapper=StandInPrefill,
        BatchDecodeWithPagedKVCacheWrapper=StandInDecode,
        decode=SimpleNamespace(fast_decode_plan=fast_decode_plan),
        rmsnorm=rmsnorm,
        fused_add_rmsnorm=fused_add_rmsnorm,
        silu_and_mul=lambda x: torch.nn.functional.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
        apply_rope_with_cos_sin_cache_inplace=apply_rope,
    )
    monkeypatch.setitem(sys.modules, "flashinfer", module)
    monkeypatch.setattr("profiler.backend.flashinfer_attention.WORKSPACE_BYTES", 1024)


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
    wrappers = fused.attention._decode_wrappers  # type: ignore[attr-defined]
    assert sorted(wrappers) == [1, 2, 8]
    assert all(wrapper.plans[0] == "whole" and set(wrapper.plans[1:]) <= {"fast"} for wrapper in wrappers.values())


def test_padded_sizes_end_at_or_just_above_the_largest() -> None:
    assert padded_sizes(1) == (1,)
    assert padded_sizes(3) == (1, 2, 4)
    assert padded_sizes(8) == (1, 2, 4, 8)
    assert padded_sizes(17) == (1, 2, 4, 8, 16, 24)
    assert padded_sizes(256)[-1] == 256
