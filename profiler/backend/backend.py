"""Make the whole backend in one call: a model on a device, its pools, and the executor and swapper on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from profiler.backend.block_tables import BlockTables
from profiler.backend.executor import BatchExecutor
from profiler.backend.kv_cache import KVCache
from profiler.backend.model import Llama
from profiler.backend.model_config import ModelConfig
from profiler.backend.ops import FlashInferOps, Ops, TorchOps
from profiler.backend.swap import Swapper, Way
from profiler.backend.tokens import Sampling
from profiler.backend.weights import load_weights, random_weights


@dataclass(frozen=True, slots=True)
class Backend:
    """A model on its device, with the pools and the workers that serving needs."""

    model: Llama
    cache: KVCache
    tables: BlockTables
    swapper: Swapper
    executor: BatchExecutor


def make_model(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype | None = None,
    weights_from: Path | int = 0,
    max_context: int | None = None,
    flashinfer: bool | None = None,
) -> Llama:
    """A decoder with its weights on ``device``.

    Args:
        dtype: of weights; the model's own by default.
        weights_from: a seed for random weights, or a Hugging Face folder.
        max_context: positions that the rotary embedding must know; the model's own by default.
        flashinfer: fused kernels between the matrix products; by default on a GPU with 16-bit weights.
    """
    dtype = dtype or config.torch_dtype
    if isinstance(weights_from, Path):
        weights = load_weights(weights_from, config, device, dtype)
    else:
        weights = random_weights(config, device, dtype, weights_from)
    positions = max_context or config.max_context
    fused = device.type == "cuda" and dtype.itemsize == 2 if flashinfer is None else flashinfer
    ops: Ops = FlashInferOps(config, device, positions) if fused else TorchOps(config, device, dtype, positions)
    return Llama(config, weights, ops)


def make_backend(
    model: Llama,
    gpu_blocks: int,
    host_blocks: int,
    block_size: int = 16,
    max_sessions: int = 1024,
    max_context: int = 4096,
    max_decodes: int = 256,
    max_chunk_tokens: int = 8192,
    sampling: Sampling | None = None,
    margins: bool = False,
    flashinfer: bool | None = None,
    swap_way: Way = "auto",
) -> Backend:
    """Pools and an executor for ``model``. Call ``executor.capture()`` once before timing anything on a GPU.

    Args:
        gpu_blocks, host_blocks: sizes of the pools.
        block_size: tokens a block.
        max_sessions: sessions inside at once, paused ones among them.
        max_context: tokens of the longest context; the model must know as many positions.
        max_decodes, max_chunk_tokens, sampling, margins, flashinfer: see ``BatchExecutor``.
        swap_way: see ``Swapper``.
    """
    cache = KVCache(model.config, gpu_blocks, host_blocks, block_size, model.device, model.dtype)
    tables = BlockTables(gpu_blocks, host_blocks, block_size, max_sessions, max_context)
    executor = BatchExecutor(model, cache, tables, max_decodes, max_chunk_tokens, sampling, margins, flashinfer)
    swapper = Swapper(cache, swap_way)
    executor.on_launch = swapper.launch
    return Backend(model, cache, tables, swapper, executor)
