"""The shape of a Llama-family decoder, from ``configs/models/NAME.yaml`` or from a Hugging Face folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sim.costs.roofline import ModelShape

_ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = (_ROOT / "configs" / "models", _ROOT / "caesura" / "_configs" / "models")


class UnknownModel(ValueError):
    """No model of this name or folder, or one of a family that the backend does not run."""


class RopeScaling(BaseModel):
    """How Llama 3 stretches its rotary embedding beyond ``original_context`` tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: float = Field(gt=0)
    low_freq_factor: float = Field(gt=0)
    high_freq_factor: float = Field(gt=0)
    original_context: int = Field(gt=0)


class ModelConfig(ModelShape):
    """Sizes of one decoder. ``dtype`` is what its weights and its KV are held in, unless a caller says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head_dim: int = Field(ge=2)
    vocab: int = Field(ge=2)
    rope_theta: float = Field(gt=0)
    rope_scaling: RopeScaling | None = None
    norm_eps: float = Field(gt=0)
    dtype: Literal["bfloat16", "float16", "float32", "float64"] = "bfloat16"

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} KV heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"the rotary embedding needs an even head_dim, not {self.head_dim}")
        return self

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as torch names it."""
        found = getattr(torch, self.dtype)
        assert isinstance(found, torch.dtype)
        return found

    @property
    def query_size(self) -> int:
        """Numbers in the queries of one token."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Numbers in the keys (or the values) of one token and one layer."""
        return self.kv_heads * self.head_dim

    @property
    def parameters(self) -> int:
        """All weights."""
        embeddings = self.vocab * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layer_parameters + embeddings + (2 * self.layers + 1) * self.hidden

    def kv_bytes_per_token(self, dtype: torch.dtype | None = None) -> int:
        """Bytes of keys and values that one context token holds over all layers."""
        return self.kv_numbers_per_token * int((dtype or self.torch_dtype).itemsize)

    def inverse_frequencies(self) -> torch.Tensor:
        """Rotary angle a position for each pair of dimensions, float64 ``[head_dim / 2]``, Llama 3 scaling applied."""
        steps = torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim
        frequencies = self.rope_theta**-steps
        scaling = self.rope_scaling
        if scaling is None:
            return frequencies
        turns = scaling.original_context * frequencies / (2 * math.pi)  # full turns over the original context
        span = scaling.high_freq_factor - scaling.low_freq_factor
        fast = ((turns - scaling.low_freq_factor) / span).clamp(0, 1)  # 1: kept as it is; 0: slowed by the factor
        return frequencies * (fast + (1 - fast) / scaling.factor)


def load_model_config(name: str | Path) -> ModelConfig:
    """The model called ``name`` in ``configs/models``, a YAML file, or a Hugging Face folder with ``config.json``.

    Raises:
        UnknownModel: there is none, or it is not of the Llama family.
        pydantic.ValidationError: a value is missing, unknown or out of range.
    """
    path = Path(name)
    if (path / "config.json").is_file():
        return _from_hugging_face(path)
    files = [path, *(folder / f"{name}.yaml" for folder in _FOLDERS)]
    for file in files:
        if file.suffix == ".yaml" and file.is_file():
            return ModelConfig.model_validate(yaml.safe_load(file.read_text()))
    known = sorted({file.stem for folder in _FOLDERS for file in folder.glob("*.yaml")})
    raise UnknownModel(f"no model {str(name)!r}; there is {', '.join(known)}, or a folder with config.json")


def _from_hugging_face(folder: Path) -> ModelConfig:
    facts: dict[str, Any] = json.loads((folder / "config.json").read_text())
    if facts.get("model_type") != "llama":
        raise UnknownModel(f"{folder} holds a {facts.get('model_type')!r} model; the backend runs 'llama' models")
    for flag in ("attention_bias", "mlp_bias"):
        if facts.get(flag):
            raise UnknownModel(f"{folder} has {flag}, which the backend does not run")
    rope = facts.get("rope_parameters") or {**(facts.get("rope_scaling") or {}), "rope_theta": facts.get("rope_theta")}
    heads = facts["num_attention_heads"]
    dtype = facts.get("dtype") or facts.get("torch_dtype") or "bfloat16"
    return ModelConfig(
        name=folder.resolve().name,
        layers=facts["num_hidden_layers"],
        hidden=facts["hidden_size"],
        heads=heads,
        kv_heads=facts.get("num_key_value_heads") or heads,
        head_dim=facts.get("head_dim") or facts["hidden_size"] // heads,
        intermediate=facts["intermediate_size"],
        vocab=facts["vocab_size"],
        rope_theta=rope.get("rope_theta") or 10000.0,
        rope_scaling=_scaling(rope, folder),
        norm_eps=facts["rms_norm_eps"],
        tied_embeddings=bool(facts.get("tie_word_embeddings", False)),
        max_context=facts["max_position_embeddings"],
        dtype=dtype,
    )


def _scaling(rope: dict[str, Any], folder: Path) -> RopeScaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise UnknownModel(f"{folder} stretches its rotary embedding by {kind!r}; the backend knows 'llama3'")
    return RopeScaling(
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_context=rope["original_max_position_embeddings"],
    )
