"""The small steps between the matrix products, in plain torch and as fused kernels of FlashInfer.

Both sets have the same methods. Arguments marked "in place" are overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from profiler.backend.kv_cache import KVCache
from profiler.backend.model_config import ModelConfig


@dataclass(frozen=True, slots=True)
class SlotMapping:
    """The slots of the cache that take the keys and values of T tokens.

    Attributes:
        cache: the pools.
        blocks, offsets: int32 ``[T]``: which block, and where in it.
    """

    cache: KVCache
    blocks: torch.Tensor
    offsets: torch.Tensor


class Ops(Protocol):
    """The steps between the matrix products, for T tokens at a time."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """``[T, hidden]`` over its root mean square, times ``weight``."""
        ...

    def add_rms_norm(self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Add ``x`` to ``residual`` in place; return the normalized sum. ``x`` may be overwritten."""
        ...

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """``silu(gate) * up`` of ``[T, 2 * intermediate]``."""
        ...

    def angles(self, positions: torch.Tensor) -> Any:
        """The angles of the positions, int64 ``[T]``, in the form that ``rotate_and_store`` takes; made once per
        forward pass."""
        ...

    def rotate_and_store(self, layer: int, qkv: torch.Tensor, angles: Any, slots: SlotMapping) -> None:
        """Rotary embedding of the queries, in place, and keys in ``[T, (heads + 2 * kv_heads) * head_dim]``; the keys
        and values of ``layer`` go to their slots. The keys in ``qkv`` may be overwritten."""
        ...


class TorchOps:
    """The steps in plain torch, on any device and in any dtype."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype, max_positions: int) -> None:
        self.config = config
        cosine, sine = _rotary_table(config, max_positions)
        self._cos = torch.cat((cosine, cosine), dim=-1).to(device, dtype)
        self._sin = torch.cat((-sine, sine), dim=-1).to(device, dtype)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, weight.shape, weight, self.config.norm_eps)

    def add_rms_norm(self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        residual.add_(x)
        return F.rms_norm(residual, weight.shape, weight, self.config.norm_eps)

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    def angles(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)

    def rotate_and_store(
        self, layer: int, qkv: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], slots: SlotMapping
    ) -> None:
        config = self.config
        cosine, sine = angles
        heads = config.heads + config.kv_heads
        turned = qkv[:, : heads * config.head_dim].view(qkv.shape[0], heads, config.head_dim)
        swapped = turned.roll(config.head_dim // 2, dims=-1)
        turned.mul_(cosine).addcmul_(swapped, sine)
        kv = qkv[:, config.query_size :].view(len(qkv), 2, config.kv_heads, config.head_dim)
        slots.cache.write(layer, kv, slots.blocks, slots.offsets)


class FlashInferOps:
    """CUDA, 16-bit dtypes: one kernel a step, FlashInfer's where it has one."""

    def __init__(self, config: ModelConfig, device: torch.device, max_positions: int) -> None:
        import flashinfer

        from profiler.backend.rotate_store import rotate_and_store

        self.config = config
        self._rotate_and_store = rotate_and_store
        self._lib = flashinfer
        self._table = torch.cat(_rotary_table(config, max_positions), dim=-1).to(device, torch.float32)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self._lib.rmsnorm(x, weight, self.config.norm_eps)
        return normed

    def add_rms_norm(self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        self._lib.fused_add_rmsnorm(x, residual, weight, self.config.norm_eps)
        return x

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self._lib.silu_and_mul(gate_up)
        return product

    def angles(self, positions: torch.Tensor) -> torch.Tensor:
        return positions

    def rotate_and_store(self, layer: int, qkv: torch.Tensor, angles: torch.Tensor, slots: SlotMapping) -> None:
        self._rotate_and_store(qkv, angles, self._table, slots.cache, layer, slots.blocks, slots.offsets)


def _rotary_table(config: ModelConfig, max_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every angle, float64 ``[max_positions, head_dim / 2]``."""
    angles = torch.outer(torch.arange(max_positions, dtype=torch.float64), config.inverse_frequencies())
    return angles.cos(), angles.sin()
