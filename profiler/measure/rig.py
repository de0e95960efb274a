"""Everything set up to measure: a model on a device, pools as large as they can be, a bench."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from profiler.backend.backend import Backend, make_backend, make_model
from profiler.backend.model_config import ModelConfig
from profiler.measure.bench import Bench
from profiler.measure.grid import MOST_CHUNKS, Extent, Shape
from profiler.measure.memory import expected_needs, measure_memory, pool_blocks

LONGEST_COPY = 4096
"""Tokens of the longest copies that are measured two at once, and beside compute."""
LONG_COPIES = (16384, 65536, 131072)
"""Tokens of longer ones, which are measured alone."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure.

    Attributes:
        model: shape of the decoder; its weights are random.
        device: where.
        extent: how far the grid goes.
        block_size: tokens a KV block.
        longest_chunk: tokens of all chunks of an iteration that memory is kept for.
        memory_fraction: share of the GPU's memory that the backend may take.
        rehearsal_tokens: size of the KV pool on a CPU, whose memory is not measured.
        host_bytes: size of the host pool that the profile is to state; it is not measured.
        budget_s: seconds that the measurement may take once everything is set up.
        seed: of the order of points and of the random batches.
    """

    model: ModelConfig
    device: torch.device
    extent: Extent
    block_size: int = 16
    longest_chunk: int = 8192
    memory_fraction: float = 0.9
    rehearsal_tokens: int = 32768
    host_bytes: float = 64e9
    budget_s: float = 420.0
    seed: int = 0

    @property
    def reach(self) -> int:
        """Tokens of the longest context."""
        return max(self.extent.reach, self.longest_chunk) + 64


@dataclass(frozen=True, slots=True)
class Rig:
    """What the sweeps work with.

    Attributes:
        pool_bytes: of the KV pool that the device really has at the memory fraction.
        memory: where the rest of its memory goes, bytes; empty on a CPU.
        set_up_s: seconds that all this took.
    """

    request: Request
    backend: Backend
    bench: Bench
    pool_bytes: float
    memory: dict[str, float]
    set_up_s: float

    @property
    def block_bytes(self) -> int:
        """Bytes of one KV block."""
        return self.backend.cache.block_bytes


def build(request: Request, say: Callable[[str], None], blocks: int | None = None) -> Rig:
    """Load the model, make the pools, capture graphs, take stock of memory.

    Args:
        say: is told what happens.
        blocks: size of the pool; by default what fits.

    Raises:
        CannotMeasure: the GPU is too small.
    """
    begun = time.perf_counter()
    device, config, extent = request.device, request.model, request.extent
    on_gpu = device.type == "cuda"
    block_bytes = config.kv_bytes_per_token() * request.block_size
    needs = expected_needs(config, request.longest_chunk, extent.decodes)
    if on_gpu:
        free, total = torch.cuda.mem_get_info(device)
        load = config.parameters * config.torch_dtype.itemsize
        pool_blocks(free - load, total, request.memory_fraction, needs, block_bytes)  # refuse before the long load
    say(f"loading {config.name}")
    before = _allocated(device)
    model = make_model(config, device, max_context=request.reach)
    weights = _allocated(device) - before
    if blocks is None and on_gpu:
        free, total = torch.cuda.mem_get_info(device)
        blocks = pool_blocks(free, total, request.memory_fraction, needs, block_bytes)
    blocks = blocks or request.rehearsal_tokens // request.block_size
    sessions = extent.decodes + MOST_CHUNKS
    backend = make_backend(
        model,
        gpu_blocks=blocks,
        host_blocks=_host_blocks(request),
        block_size=request.block_size,
        max_sessions=sessions + 8,
        max_context=request.reach,
        max_decodes=extent.decodes,
        max_chunk_tokens=request.longest_chunk,
    )
    say("capturing CUDA graphs")
    graphs = _capture(backend)
    bench = Bench(backend, extent.decodes, MOST_CHUNKS)
    memory: dict[str, float] = {}
    pool_bytes = float(blocks * block_bytes)
    if on_gpu:
        found = measure_memory(backend, bench, request.memory_fraction, _largest(request, blocks), weights, graphs)
        memory, pool_bytes = found.as_bytes(), found.pool
    return Rig(request, backend, bench, pool_bytes, memory, time.perf_counter() - begun)


def _host_blocks(request: Request) -> int:
    """Room for two of ``LONGEST_COPY``, or one of the longest of ``LONG_COPIES`` that a context can be."""
    tokens = max((tokens for tokens in LONG_COPIES if tokens <= request.extent.context), default=0)
    return -(-max(2 * LONGEST_COPY, tokens) // request.block_size) + 16


def _largest(request: Request, blocks: int) -> Shape:
    """The largest iteration that memory is kept for."""
    chunk = min(request.longest_chunk, (blocks - request.extent.decodes) * request.block_size)
    return Shape((request.block_size,) * request.extent.decodes, ((0, chunk),))


def _capture(backend: Backend) -> float:
    """Capture graphs. Returns bytes that they keep for themselves."""
    device = backend.cache.device
    if device.type != "cuda":
        backend.executor.capture()
        return 0.0
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    backend.executor.capture()
    torch.cuda.empty_cache()
    return float(torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) - before)


def _allocated(device: torch.device) -> float:
    return float(torch.cuda.memory_allocated(device)) if device.type == "cuda" else 0.0
