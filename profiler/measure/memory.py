"""How much KV a device really holds: its memory less everything else that the backend needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from profiler.backend.backend import Backend
from profiler.backend.model_config import ModelConfig
from profiler.measure.bench import Bench
from profiler.measure.errors import CannotMeasure
from profiler.measure.grid import Shape

WORKSPACE_BYTES = 512 << 20
GRAPH_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Memory:
    """Where the memory of a GPU goes, bytes.

    Attributes:
        total: the card.
        fraction: share of it that the backend may take.
        weights: of the model.
        buffers: token store, index tensors, workspaces of attention and swaps.
        activations: the most that an iteration takes beside.
        graphs: what CUDA graphs keep.
        driver: the CUDA context and whatever else torch does not know of.
    """

    total: float
    fraction: float
    weights: float
    buffers: float
    activations: float
    graphs: float
    driver: float

    @property
    def pool(self) -> float:
        """What is left for KV."""
        needs = self.weights + self.buffers + self.activations + self.graphs + self.driver
        return self.total * self.fraction - needs

    def as_bytes(self) -> dict[str, float]:
        """For the profile."""
        return {**asdict(self), "pool": self.pool}


def expected_needs(config: ModelConfig, chunk_tokens: int, decodes: int) -> float:
    """Bytes that the backend will about need beside weights and KV: enough to choose a pool that surely fits."""
    size = config.torch_dtype.itemsize
    a_token = 3 * config.intermediate + 4 * config.hidden + 2 * config.query_size + 2 * config.kv_size
    return float(chunk_tokens * a_token * size) + 3 * decodes * config.vocab * 4 + WORKSPACE_BYTES + GRAPH_BYTES


def pool_blocks(free_bytes: float, total_bytes: float, fraction: float, needs: float, block_bytes: int) -> int:
    """Blocks of a pool that fits beside ``needs``; the model is loaded already.

    Raises:
        CannotMeasure: the GPU is too small.
    """
    room = min(free_bytes - total_bytes * (1 - fraction), free_bytes) - needs
    blocks = int(room // block_bytes)
    if blocks < 64:
        raise CannotMeasure(
            f"the GPU is too small: of {total_bytes / 1e9:.1f} GB, {free_bytes / 1e9:.1f} are free beside the weights, "
            f"the backend needs about {needs / 1e9:.1f} more and leaves {(1 - fraction):.0%} alone; "
            f"64 KV blocks take {64 * block_bytes / 1e9:.2f} GB. Take a smaller model or a larger --memory-fraction."
        )
    return blocks


def measure_memory(
    backend: Backend, bench: Bench, fraction: float, largest: Shape, weights: float, graphs: float
) -> Memory:
    """Take stock on the GPU and run the largest iteration to see its peak.

    Args:
        fraction: share of the GPU that the backend may take.
        weights, graphs: bytes seen when the model was loaded and when graphs were captured.
    """
    device = backend.cache.device
    bench.set_up(largest)
    bench.run()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    at_rest = torch.cuda.memory_allocated(device)
    bench.run()
    peak = torch.cuda.max_memory_allocated(device) - at_rest
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    others = torch.cuda.memory_allocated(device) - backend.cache.pool.nbytes
    return Memory(
        total=float(total),
        fraction=fraction,
        weights=weights,
        buffers=others - weights,
        activations=float(peak),
        graphs=graphs,
        driver=float(total - free - torch.cuda.memory_reserved(device)),
    )
