"""Profiles from datasheets: what fits beside the weights."""

from __future__ import annotations

import pytest

from sim.analytic import Assumptions, Datasheet, ModelShape, derive

GPU = Datasheet(name="card", memory_bytes=10_000, memory_bytes_per_s=1e6, bf16_flops=1e9, host_link_bytes_per_s=1e5)
WHOLE = Assumptions(memory_fraction=1.0, activation_bytes=0.0, host_bytes=800.0)
SHAPE = {
    "name": "small", "layers": 1, "hidden": 4, "heads": 2, "kv_heads": 1, "head_dim": 2, "intermediate": 8,
    "vocab": 100, "max_context": 64,
}  # fmt: skip


@pytest.mark.parametrize(("tied", "capacity"), [(False, 1014), (True, 1114)])
def test_a_matrix_that_embeds_and_emits_is_held_once(tied: bool, capacity: int):
    """Layers: 4 x 2 x (2x2 + 2x1) + 3 x 4 x 8 = 144 numbers; each 100 x 4 embedding 400 more; KV 2 x 1 x 1 x 2 = 4.

    At 2 bytes: 10000 - 288 - 800 for one embedding leaves 8912 B, 1114 tokens of 8 B; two leave 8112 B, 1014 tokens.
    """
    found = derive(ModelShape.model_validate(SHAPE | {"tied_embeddings": tied}), GPU, WHOLE)
    assert found.kv_capacity_tokens == capacity
    assert found.forward.per_token_s == pytest.approx(2 * 144 / 0.7e9)
