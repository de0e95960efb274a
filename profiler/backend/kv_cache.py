"""The memory for keys and values: a paged pool on the device and one on the host with the same block layout.

A block lies contiguous over all layers, ``[layer, K or V, token, KV head, head dim]``: to copy a context is to copy a
few large pieces. Attention sees one layer of it as a strided view.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch

from profiler.backend.model_config import ModelConfig


class HostPoolRefused(RuntimeError):
    """The host has no memory for its pool."""


class PageLockRefused(HostPoolRefused):
    """The driver does not page-lock so much host memory."""


class KVCache:
    """Device and host pools of one model.

    Args:
        config: the model's shape.
        gpu_blocks, host_blocks: blocks that contexts may use.
        block_size: tokens a block.
        device: where the pool lies; on a CPU the host pool is plain memory.
        dtype: of keys and values; the model's own by default.

    Raises:
        HostPoolRefused: the host pool is too large for this machine.

    Attributes:
        pool: ``[gpu_blocks + 1, layers, 2, block_size, kv_heads, head_dim]``. Padding writes to the last block.
        host: ``[host_blocks, layers, 2, block_size, kv_heads, head_dim]``, page-locked when the device is a GPU.
    """

    def __init__(
        self,
        config: ModelConfig,
        gpu_blocks: int,
        host_blocks: int,
        block_size: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.config, self.block_size, self.device = config, block_size, device
        self.gpu_blocks, self.host_blocks = gpu_blocks, host_blocks
        self.dtype = dtype or config.torch_dtype
        block = (config.layers, 2, block_size, config.kv_heads, config.head_dim)
        self.pool = torch.zeros((gpu_blocks + 1, *block), dtype=self.dtype, device=device)
        self.host = _on_host((host_blocks, *block), self.dtype)
        if device.type == "cuda" and host_blocks:
            page_lock(self.host)
            weakref.finalize(self, unlock, self.host)
        self.views = [(self.pool[:, layer, 0], self.pool[:, layer, 1]) for layer in range(config.layers)]
        self._by_token = [self.pool[:, layer].transpose(1, 2) for layer in range(config.layers)]

    @property
    def scratch_block(self) -> int:
        """The block that padding reads and writes."""
        return self.gpu_blocks

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers."""
        return self.config.kv_bytes_per_token(self.dtype) * self.block_size

    def write(self, layer: int, kv: torch.Tensor, blocks: torch.Tensor, offsets: torch.Tensor) -> None:
        """Store ``kv`` ``[T, 2, kv_heads, head_dim]`` of T tokens at ``offsets`` in ``blocks``, both ``[T]``."""
        self._by_token[layer].index_put_((blocks.long(), offsets.long()), kv)


def _on_host(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    try:
        return torch.empty(shape, dtype=dtype)
    except RuntimeError:
        size = math.prod(shape) * dtype.itemsize / 1e9
        raise HostPoolRefused(f"this machine has no {size:.1f} GB for the host pool") from None


def blocks_in(memory_bytes: float, config: ModelConfig, block_size: int, dtype: torch.dtype | None = None) -> int:
    """Blocks of ``block_size`` tokens that fit into ``memory_bytes``."""
    return int(memory_bytes // (config.kv_bytes_per_token(dtype) * block_size))


def page_lock(memory: torch.Tensor) -> None:
    """Page-lock a CPU tensor in place, so that the GPU copies from and to it asynchronously; ``unlock`` undoes it.

    torch's own pinned allocator rounds up to a power of two: a pool of 40 GB would lock 64.

    Raises:
        PageLockRefused: the driver refuses.
    """
    memory.zero_()  # lets every core touch its share of the pages
    runtime: Any = torch.cuda
    error = int(runtime.cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, 1))
    if error:
        raise PageLockRefused(f"the driver refuses to page-lock {memory.nbytes / 1e9:.1f} GB (error {error})")


def unlock(memory: torch.Tensor) -> None:
    """Undo ``page_lock``. No copy may be under way."""
    runtime: Any = torch.cuda
    runtime.cudart().cudaHostUnregister(memory.data_ptr())
