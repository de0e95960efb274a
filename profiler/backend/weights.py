"""The weights of a decoder: random ones from a seed, made on the device, or those of a Hugging Face folder.

Projections that read the same input are stored as one matrix: queries, keys and values; gate and up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from profiler.backend.model_config import ModelConfig

INITIAL_STD = 0.02


class MissingWeights(ValueError):
    """A folder lacks a tensor that the model needs, or holds it in another shape."""


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer. Matrices are ``[out, in]``."""

    attention_norm: torch.Tensor
    qkv: torch.Tensor
    output: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """All of a decoder. ``head`` is ``embedding`` itself where they are tied."""

    embedding: torch.Tensor
    layers: tuple[LayerWeights, ...]
    norm: torch.Tensor
    head: torch.Tensor

    @property
    def bytes_read_per_pass(self) -> int:
        """Bytes of weights that every forward pass reads: all but the embedding, of which it reads a few rows."""
        matrices = [t for layer in self.layers for t in (layer.qkv, layer.output, layer.gate_up, layer.down)]
        return sum(matrix.nbytes for matrix in (*matrices, self.head))


def empty_weights(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Weights:
    """Weights of the right shapes with undefined values; norms are ones."""

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.empty((rows, columns), dtype=dtype, device=device)

    def norm() -> torch.Tensor:
        return torch.ones(config.hidden, dtype=dtype, device=device)

    embedding = matrix(config.vocab, config.hidden)
    layers = tuple(
        LayerWeights(
            attention_norm=norm(),
            qkv=matrix(config.query_size + 2 * config.kv_size, config.hidden),
            output=matrix(config.hidden, config.query_size),
            mlp_norm=norm(),
            gate_up=matrix(2 * config.intermediate, config.hidden),
            down=matrix(config.hidden, config.intermediate),
        )
        for _ in range(config.layers)
    )
    head = embedding if config.tied_embeddings else matrix(config.vocab, config.hidden)
    return Weights(embedding, layers, norm(), head)


def random_weights(config: ModelConfig, device: torch.device, dtype: torch.dtype, seed: int) -> Weights:
    """Normal weights as transformers draws them, those that feed the residual stream smaller in deep models.

    The same seed gives the same weights on the same kind of device.
    """
    weights = empty_weights(config, device, dtype)
    generator = torch.Generator(device).manual_seed(seed)
    into_residual = INITIAL_STD / (2 * config.layers) ** 0.5
    weights.embedding.normal_(0, INITIAL_STD, generator=generator)
    for layer in weights.layers:
        layer.qkv.normal_(0, INITIAL_STD, generator=generator)
        layer.output.normal_(0, into_residual, generator=generator)
        layer.gate_up.normal_(0, INITIAL_STD, generator=generator)
        layer.down.normal_(0, into_residual, generator=generator)
    if not config.tied_embeddings:
        weights.head.normal_(0, INITIAL_STD, generator=generator)
    return weights


def load_weights(folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Weights:
    """The weights of a Hugging Face folder: ``model.safetensors``, or shards with ``model.safetensors.index.json``.

    Raises:
        MissingWeights: a tensor is not there or has another shape.
        FileNotFoundError: the folder has no safetensors.
    """
    from safetensors import safe_open

    weights = empty_weights(config, device, dtype)
    files = _files_of_tensors(folder)
    with ExitStack() as stack:
        opened = {file: stack.enter_context(safe_open(file, framework="pt")) for file in sorted(set(files.values()))}
        for name, target in checkpoint_places(weights, config):
            if name not in files:
                raise MissingWeights(f"{folder} has no tensor {name!r}")
            found: torch.Tensor = opened[files[name]].get_tensor(name)
            if found.shape != target.shape:
                shapes = f"is {tuple(found.shape)}; the model needs {tuple(target.shape)}"
                raise MissingWeights(f"{name!r} in {folder} {shapes}")
            target.copy_(found)
    return weights


def _files_of_tensors(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return {name: folder / shard for name, shard in shards.items()}
    single = folder / "model.safetensors"
    if not single.is_file():
        raise FileNotFoundError(f"{folder} holds neither model.safetensors nor model.safetensors.index.json")
    with safe_open(single, framework="pt") as opened:
        return dict.fromkeys(opened.keys(), single)


def checkpoint_places(weights: Weights, config: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor's name in a checkpoint, and the view of our weights that it fills."""
    yield "model.embed_tokens.weight", weights.embedding
    yield "model.norm.weight", weights.norm
    if not config.tied_embeddings:
        yield "lm_head.weight", weights.head
    for index, layer in enumerate(weights.layers):
        prefix = f"model.layers.{index}"
        end = config.query_size + config.kv_size
        q, k, v = layer.qkv[: config.query_size], layer.qkv[config.query_size : end], layer.qkv[end:]
        gate, up = layer.gate_up.chunk(2)
        yield f"{prefix}.input_layernorm.weight", layer.attention_norm
        yield f"{prefix}.self_attn.q_proj.weight", q
        yield f"{prefix}.self_attn.k_proj.weight", k
        yield f"{prefix}.self_attn.v_proj.weight", v
        yield f"{prefix}.self_attn.o_proj.weight", layer.output
        yield f"{prefix}.post_attention_layernorm.weight", layer.mlp_norm
        yield f"{prefix}.mlp.gate_proj.weight", gate
        yield f"{prefix}.mlp.up_proj.weight", up
        yield f"{prefix}.mlp.down_proj.weight", layer.down
