"""A Llama-family decoder over a flat batch of tokens: RMSNorm, rotary embedding, grouped-query attention, SwiGLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from profiler.backend.attention import Attention
from profiler.backend.batch import TokenBatch
from profiler.backend.model_config import ModelConfig
from profiler.backend.ops import Ops
from profiler.backend.weights import Weights


class Llama:
    """The decoder.

    Args:
        config: its shape.
        weights: its weights, on the device that it runs on.
        ops: the steps between the matrix products.
    """

    def __init__(self, config: ModelConfig, weights: Weights, ops: Ops) -> None:
        self.config, self.weights, self.ops = config, weights, ops
        self.dtype, self.device = weights.embedding.dtype, weights.embedding.device
        self._wide_head = _head_may_write_float32(weights.head)

    def forward(self, ids: torch.Tensor, tokens: TokenBatch, attention: Attention) -> torch.Tensor:
        """Compute the T tokens of a batch and store their keys and values.

        Args:
            ids: token ids, integer ``[T]``.
            tokens: whose they are and where they go.
            attention: planned for this batch.

        Returns:
            Logits ``[S, vocab]`` of the sampled tokens, float32 or wider.
        """
        config, ops = self.config, self.ops
        angles = ops.angles(tokens.positions)
        residual = F.embedding(ids, self.weights.embedding)
        x = ops.rms_norm(residual, self.weights.layers[0].attention_norm)
        for index, layer in enumerate(self.weights.layers):
            if index:
                x = ops.add_rms_norm(x, residual, layer.attention_norm)
            qkv = F.linear(x, layer.qkv)
            ops.rotate(qkv, angles)
            q = qkv[:, : config.query_size].view(-1, config.heads, config.head_dim)
            kv = qkv[:, config.query_size :].view(-1, 2, config.kv_heads, config.head_dim)
            x = F.linear(attention.run(index, q, kv, tokens), layer.output)
            x = ops.add_rms_norm(x, residual, layer.mlp_norm)
            x = F.linear(ops.silu_mul(F.linear(x, layer.gate_up)), layer.down)
        if tokens.sampled is not None:
            if not len(tokens.sampled):
                return x.new_empty((0, config.vocab))
            x, residual = x[tokens.sampled], residual[tokens.sampled]
        return self._logits(ops.add_rms_norm(x, residual, self.weights.norm))

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        """In float32 where the product can be written so: rounded to 16 bits the largest logits often tie."""
        head = self.weights.head
        if self._wide_head:
            return torch.mm(x, head.t(), out_dtype=torch.float32)
        logits = F.linear(x, head)
        return logits if logits.dtype.itemsize >= 4 else logits.float()


def _head_may_write_float32(head: torch.Tensor) -> bool:
    """Whether this torch multiplies 16-bit matrices into a float32 one on this device."""
    if head.dtype.itemsize >= 4 or head.device.type != "cuda":
        return False
    try:
        torch.mm(head[:16, :16].contiguous(), head[:16, :16].t(), out_dtype=torch.float32)
    except (RuntimeError, TypeError):
        return False
    return True
