"""Profiles from datasheets: what fits beside the weights, and what several GPUs share."""

from __future__ import annotations

import pytest
import yaml

from caesura.config import paths
from sim.costs.batch import Batch
from sim.costs.cost_model import CostModel
from sim.costs.profile import Profile, load_profile
from sim.costs.roofline import Assumptions, Datasheet, ModelShape, derive, main

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


PAIR = SHAPE | {"kv_heads": 2}
LINKED = GPU.model_copy(update={"gpu_link_bytes_per_s": 2e6})


def test_two_gpus_share_the_weights_and_exchange_what_each_computed() -> None:
    """Layers: 4 x 2 x (2x2 + 2x2) + 96 = 160 numbers, so 320 B; two embeddings 1600 B; KV 8 numbers, 16 B.

    Two GPUs: 20000 - 1920 = 18080 B, 1130 tokens. All-reduces: 2 of 2 x 1/2 x 4 x 2 B = 8 B a token over 85 % of 2e6
    B/s, and 2 x 10 us an iteration. All else goes twice as fast.
    """
    one, two = (derive(ModelShape.model_validate(PAIR), LINKED, WHOLE, tensor_parallel=count) for count in (1, 2))
    assert two.kv_capacity_tokens == 1130 and two.kv_bytes_per_token == one.kv_bytes_per_token == 16
    assert two.forward.exchange_s == pytest.approx(2 * 8 / 1.7e6) and one.forward.exchange_s == 0.0
    assert two.forward.overhead_s == pytest.approx(one.forward.overhead_s + 20e-6)
    for name in ("weights_s", "per_token_s", "decode_read_s", "pair_s"):
        assert getattr(two.forward, name) == pytest.approx(getattr(one.forward, name) / 2), name
    assert two.swap.out_bytes_per_s == 2 * one.swap.out_bytes_per_s
    assert (two.tensor_parallel, two.gpu, two.origin) == (2, "2 x card", "estimate")
    assert "two all-reduces a layer" in two.source and "all-reduce" not in one.source


def test_the_exchange_is_paid_for_every_token() -> None:
    """A pass over 10 tokens takes 10 exchange_s longer than without."""
    profile = derive(ModelShape.model_validate(PAIR), LINKED, WHOLE, tensor_parallel=2)
    without = profile.model_copy(update={"forward": profile.forward.model_copy(update={"exchange_s": 0.0})})
    batch = Batch(decode_sessions=4, decode_context=40)
    batch.add_chunk(0, 6)
    difference = CostModel(profile).iteration_time(batch) - CostModel(without).iteration_time(batch)
    assert difference == pytest.approx(10 * profile.forward.exchange_s)


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="small has 2 KV heads, which 3 GPUs cannot share evenly"):
        derive(ModelShape.model_validate(PAIR), LINKED, WHOLE, tensor_parallel=3)
    with pytest.raises(ValueError, match="card: gpu_link_bytes_per_s is needed"):
        derive(ModelShape.model_validate(PAIR), GPU, WHOLE, tensor_parallel=2)


def test_the_shipped_estimates_are_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    model, gpu = paths.configs() / "models/llama-3.1-8b.yaml", paths.configs() / "gpus/h200.yaml"
    for name, more in (("llama-3.1-8b-h200", []), ("llama-3.1-8b-2xh200", ["2"])):
        assert main([str(model), str(gpu), *more]) == 0
        printed = Profile.model_validate(yaml.safe_load(capsys.readouterr().out))
        assert printed == load_profile(paths.profiles() / "analytic" / name)
    assert main([str(model), str(gpu), "7"]) == 2 and "8 KV heads" in capsys.readouterr().err
