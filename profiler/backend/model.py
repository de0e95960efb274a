"""A Llama-family decoder over a flat batch of tokens: RMSNorm, rotary embedding, grouped-query attention, SwiGLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from profiler.backend.attention import Attention
from profiler.backend.batch import TokenBatch
from profiler.backend.model_config import ModelConfig
from profiler.backend.ops import Ops, SlotMapping
from profiler.backend.weights import Weights


@dataclass(frozen=True, slots=True)
class Working:
    """The buffers between attention and the rest of the model, for T tokens.

    Attributes:
        residual, hidden: ``[T, hidden]``: the running sum, and what the last step adds to it.
        qkv: ``[T, (heads + 2 * kv_heads) * head_dim]``: queries, keys and values of the next attention.
        attended: ``[T, heads * head_dim]``: what attention gave.
    """

    residual: torch.Tensor
    hidden: torch.Tensor
    qkv: torch.Tensor
    attended: torch.Tensor

    def first(self, tokens: int) -> Working:
        """The buffers of the first ``tokens`` tokens: views of this memory."""
        return Working(*(part[:tokens] for part in (self.residual, self.hidden, self.qkv, self.attended)))


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
            tokens: their rows and positions, and where their keys and values go.
            attention: planned for this batch.

        Returns:
            Logits ``[S, vocab]`` of the sampled tokens, float32 or wider.
        """
        work, angles = self.working(len(ids)), self.ops.angles(tokens.positions)
        slots = SlotMapping(attention.cache, tokens.blocks, tokens.offsets)
        queries = self.queries(work)
        self.begin(ids, angles, slots, work)
        for index in range(self.config.layers):
            attention.run(index, queries, work.attended)
            self.go_on(index, angles, slots, work)
        return self.logits(work, tokens.sampled)

    def working(self, tokens: int) -> Working:
        """Buffers for a pass over ``tokens`` tokens."""
        config, like = self.config, self.weights.embedding
        widths = (config.hidden, config.hidden, config.query_size + 2 * config.kv_size, config.query_size)
        return Working(*(like.new_empty((tokens, width)) for width in widths))

    def queries(self, work: Working) -> torch.Tensor:
        """``[T, heads, head_dim]``, a view of ``work``."""
        config = self.config
        return work.qkv[:, : config.query_size].view(len(work.qkv), config.heads, config.head_dim)

    def begin(self, ids: torch.Tensor, angles: Any, slots: SlotMapping, work: Working) -> None:
        """Compute everything before the first attention."""
        first = self.weights.layers[0]
        torch.index_select(self.weights.embedding, 0, ids, out=work.residual)
        torch.mm(self.ops.rms_norm(work.residual, first.attention_norm), first.qkv.t(), out=work.qkv)
        self.ops.rotate_and_store(0, work.qkv, angles, slots)

    def go_on(self, index: int, angles: Any, slots: SlotMapping, work: Working) -> None:
        """Compute from the attention of layer ``index`` to the next one, or to the end of the last layer."""
        ops, layer = self.ops, self.weights.layers[index]
        x = ops.add_rms_norm(torch.mm(work.attended, layer.output.t()), work.residual, layer.mlp_norm)
        torch.mm(ops.silu_mul(torch.mm(x, layer.gate_up.t())), layer.down.t(), out=work.hidden)
        if index + 1 < self.config.layers:
            following = self.weights.layers[index + 1]
            x = ops.add_rms_norm(work.hidden, work.residual, following.attention_norm)
            torch.mm(x, following.qkv.t(), out=work.qkv)
            ops.rotate_and_store(index + 1, work.qkv, angles, slots)

    def logits(self, work: Working, sampled: torch.Tensor | None) -> torch.Tensor:
        """Logits ``[S, vocab]`` of ``sampled``, or of all."""
        x, residual = work.hidden, work.residual
        if sampled is not None:
            if not len(sampled):
                return x.new_empty((0, self.config.vocab))
            x, residual = x[sampled], residual[sampled]
        return self._logits(self.ops.add_rms_norm(x, residual, self.weights.norm))

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits in float32 where the product can be written so: rounded to 16 bits the largest ones often tie."""
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
