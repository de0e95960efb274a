"""A profile from datasheets, for hardware that was not measured. An estimate, and marked as one.

    python -m sim.costs.roofline configs/models/llama-3.1-8b.yaml configs/gpus/h200.yaml [GPUS]

prints a ``profile.yaml``; with a number, of a replica that spans so many GPUs by tensor parallelism. The derivation is
a roofline: weights and KV are read at a share of the memory bandwidth, matrix products run at a share of the peak rate.
The shares and the host overhead are assumptions about a well-built engine on large batches; a measured profile replaces
them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from sim.costs.profile import PhysicalForward, Profile, SwapCost


class ModelShape(BaseModel):
    """The sizes of a Llama-family decoder that its costs follow from; other keys of a model file are passed over.

    A backend that builds the model extends this with what else it needs.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    intermediate: int = Field(gt=0)
    vocab: int = Field(gt=0)
    max_context: int = Field(gt=0)
    tied_embeddings: bool = False
    layer_weight_bytes: float | None = Field(default=None, gt=0)
    """Bytes of a weight of the layers, where these are quantised for storage and computed with as others are."""

    @property
    def layer_parameters(self) -> int:
        """Weights of all layers' matrices."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_parameters(self) -> int:
        """Weights of the output matrix, used once for each emitted token."""
        return self.vocab * self.hidden

    @property
    def kv_numbers_per_token(self) -> int:
        """Numbers in the keys and values of one token over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


class Datasheet(BaseModel):
    """What a vendor prints about a GPU: bytes, bytes per second one way, floating-point operations per second.

    ``gpu_link_bytes_per_s`` is between GPUs of one host; None where no datasheet says it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    memory_bytes: float = Field(gt=0)
    memory_bytes_per_s: float = Field(gt=0)
    bf16_flops: float = Field(gt=0)
    host_link_bytes_per_s: float = Field(gt=0)
    gpu_link_bytes_per_s: float | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class Assumptions:
    """Shares of the datasheet's rates that a good engine reaches, and what no datasheet says.

    Attributes:
        memory_share, compute_share, link_share: achieved over printed rates.
        overhead_s: host work of an iteration that compute does not hide.
        exchange_latency_s: an all-reduce of nothing.
        memory_fraction: share of the GPU's memory that the engine may take.
        activation_bytes: memory for activations, graphs and the context of the driver.
        host_bytes: pinned host memory for offloaded contexts.
    """

    memory_share: float = 0.80
    compute_share: float = 0.70
    link_share: float = 0.85
    overhead_s: float = 0.001
    exchange_latency_s: float = 10e-6
    memory_fraction: float = 0.90
    activation_bytes: float = 4e9
    host_bytes: float = 256e9
    element_bytes: int = 2


def derive(model: ModelShape, gpu: Datasheet, assume: Assumptions | None = None, tensor_parallel: int = 1) -> Profile:
    """The profile that the datasheets suggest for ``tensor_parallel`` GPUs that serve as one.

    Each holds an equal part of the weights and of the KV heads, so reads, matrix products and copies to the host go
    that many times as fast. In every layer two all-reduces add up what each has computed (arXiv 1909.08053, section 3).

    Raises:
        ValueError: the weights leave no memory for KV, or the model cannot be divided so.
    """
    assume, gpus = assume or Assumptions(), tensor_parallel
    exchange_s, latency_s = _exchange(model, gpu, assume, gpus)
    bandwidth = gpus * gpu.memory_bytes_per_s * assume.memory_share
    flops = gpus * gpu.bf16_flops * assume.compute_share
    layer_weight_bytes = model.layer_weight_bytes or assume.element_bytes
    weights = model.layer_parameters * layer_weight_bytes + model.head_parameters * assume.element_bytes
    kv = model.kv_numbers_per_token * assume.element_bytes
    embedding = 0 if model.tied_embeddings else model.head_parameters * assume.element_bytes
    pool = gpus * (gpu.memory_bytes * assume.memory_fraction - assume.activation_bytes) - weights - embedding
    where = gpu.name if gpus == 1 else f"{gpus} x {gpu.name}"
    if pool <= kv:
        raise ValueError(f"{model.name} needs {(weights + embedding) / 1e9:.1f} GB; {where} leaves no room for KV")
    weights_s, per_token_s = weights / bandwidth, 2 * model.layer_parameters / flops
    link = gpus * gpu.host_link_bytes_per_s * assume.link_share
    return Profile(
        name=f"analytic/{model.name} on {where}",
        model=model.name,
        gpu=where,
        tensor_parallel=gpus,
        origin="estimate",
        source=(
            f"Datasheet of the {gpu.name} and the shape of {model.name}; assumed: {assume.memory_share:.0%} of the "
            f"memory bandwidth, {assume.compute_share:.0%} of the matrix rate, {assume.link_share:.0%} of the host "
            f"link, {assume.overhead_s * 1e3:g} ms of host work an iteration{_exchange_text(assume, gpus)}. "
            "This was not measured."
        ),
        kv_bytes_per_token=kv,
        kv_capacity_tokens=int(pool / kv),
        host_capacity_tokens=int(assume.host_bytes / kv),
        saturation_tokens=round(weights_s / per_token_s),
        max_context=model.max_context,
        forward=PhysicalForward(
            overhead_s=assume.overhead_s + latency_s,
            weights_s=weights_s,
            per_token_s=per_token_s,
            per_session_s=2 * model.head_parameters / flops,
            decode_read_s=kv / bandwidth,
            prefill_read_s=kv / bandwidth,
            pair_s=4 * model.layers * model.heads * model.head_dim / flops,
            exchange_s=exchange_s,
        ),
        swap=SwapCost(out_bytes_per_s=link, in_bytes_per_s=link, latency_s=20e-6),
    )


def _exchange(model: ModelShape, gpu: Datasheet, assume: Assumptions, gpus: int) -> tuple[float, float]:
    """Seconds of all-reduces for each token of an iteration, and for the iteration itself.

    In a ring of n GPUs each sends and receives 2 (n - 1) / n of the hidden state, twice in every layer.
    """
    if gpus == 1:
        return 0.0, 0.0
    if gpus < 1 or model.kv_heads % gpus:
        raise ValueError(f"{model.name} has {model.kv_heads} KV heads, which {gpus} GPUs cannot share evenly")
    if gpu.gpu_link_bytes_per_s is None:
        raise ValueError(f"{gpu.name}: gpu_link_bytes_per_s is needed for several GPUs")
    size = 2 * (gpus - 1) / gpus * model.hidden * assume.element_bytes
    reduces = 2 * model.layers
    link = gpu.gpu_link_bytes_per_s * assume.link_share
    return reduces * size / link, reduces * assume.exchange_latency_s


def _exchange_text(assume: Assumptions, gpus: int) -> str:
    """What is assumed about several GPUs."""
    latency = f"{assume.exchange_latency_s * 1e6:g} us"
    return (
        "" if gpus == 1 else f", two all-reduces a layer of {latency} and {assume.link_share:.0%} of the GPU link each"
    )


def main(arguments: list[str]) -> int:
    """Print the profile of a model file on a GPU file, perhaps on several GPUs."""
    if len(arguments) not in (2, 3) or (not arguments[-1].isdigit() and len(arguments) == 3):
        print("usage: python -m sim.costs.roofline MODEL.yaml GPU.yaml [GPUS]", file=sys.stderr)
        return 2
    model, gpu = (yaml.safe_load(Path(name).read_text(encoding="utf-8")) for name in arguments[:2])
    gpus = int(arguments[2]) if len(arguments) == 3 else 1
    try:
        profile = derive(ModelShape.model_validate(model), Datasheet.model_validate(gpu), tensor_parallel=gpus)
    except ValueError as error:
        print(f"sim.costs.roofline: {error}", file=sys.stderr)
        return 2
    print(yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False, width=110), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
