"""transformers on the same GPU, with the same weights in the same memory: what the backend is compared with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from profiler.backend.model import Llama
from profiler.backend.weights import checkpoint_places


class Baseline:
    """transformers' own Llama over the tensors of ``model``; greedy, no end of sequence."""

    def __init__(self, model: Llama) -> None:
        self.device, self.vocab = model.device, model.config.vocab
        config = _config_of(model)
        with torch.device("meta"):
            self.theirs: Any = transformers.LlamaForCausalLM(config)
        self.theirs.load_state_dict(dict(checkpoint_places(model.weights, model.config)), assign=True, strict=False)
        if model.config.tied_embeddings:
            self.theirs.tie_weights()
        self.theirs.model.rotary_emb = LlamaRotaryEmbedding(config).to(self.device)
        self.theirs.eval()
        missing = [name for name, tensor in self.theirs.named_parameters() if tensor.is_meta]
        assert not missing, missing

    def prompts(self, lengths: Sequence[int]) -> list[list[int]]:
        """Random prompts."""
        generator = torch.Generator().manual_seed(0)
        return [torch.randint(3, self.vocab, (length,), generator=generator).tolist() for length in lengths]

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """Seconds of one call of ``generate`` for a batch, padded on the left."""
        longest = max(map(len, prompts))
        ids = torch.zeros((len(prompts), longest), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        self._synchronize()
        begin = time.perf_counter()
        with torch.inference_mode():
            self.theirs.generate(ids, attention_mask=mask, generation_config=_greedy(tokens))
        self._synchronize()
        return time.perf_counter() - begin

    def token_latency(self, context: int, tokens: int) -> float:
        """Seconds a token at batch 1, the first token left out."""
        prompts = self.prompts([context])
        self.generate(prompts, 3)
        return (self.generate(prompts, tokens + 1) - self.generate(prompts, 1)) / tokens

    def generate_all(self, requests: Sequence[tuple[int, int]]) -> float:
        """Seconds for (prompt, output) requests as one batch: it lasts as long as its longest output."""
        prompts = self.prompts([prompt for prompt, _ in requests])
        self.generate(prompts[:2], 2)
        return self.generate(prompts, max(output for _, output in requests))

    def serve_all(self, requests: Sequence[tuple[int, int]]) -> float:
        """Seconds for (prompt, output) requests by continuous batching."""
        before = self.theirs.config._attn_implementation
        self.theirs.set_attn_implementation("paged|sdpa")
        settings = transformers.ContinuousBatchingConfig(max_memory_percent=0.5)
        longest = max(output for _, output in requests)
        prompts = self.prompts([prompt for prompt, _ in requests])
        with self.theirs.continuous_batching_context_manager(
            generation_config=_greedy(longest), continuous_batching_config=settings, block=True, timeout=5
        ) as manager:
            manager.add_request(prompts[0], max_new_tokens=4)  # the first request pays for what is made once
            _drain(manager, 1)
            begin = time.perf_counter()
            for prompt, (_, output) in zip(prompts, requests, strict=True):
                manager.add_request(prompt, max_new_tokens=output)
            _drain(manager, len(requests))
            taken = time.perf_counter() - begin
        self.theirs.set_attn_implementation(before)
        return taken

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _drain(manager: Any, requests: int, patience_s: float = 120.0) -> None:
    """Wait until ``requests`` requests have ended.

    Raises:
        RuntimeError: one failed, or the manager stopped.
        TimeoutError: they take longer than ``patience_s``.
    """
    deadline = time.perf_counter() + patience_s
    ended = 0
    while ended < requests:
        result = manager.get_result(timeout=1)
        if result is not None and result.error is not None:
            raise RuntimeError(result.error)
        ended += result is not None and result.is_finished()
        if result is None and not manager.is_running():
            raise RuntimeError("continuous batching stopped")
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{ended} of {requests} requests after {patience_s} s")


def _greedy(tokens: int) -> Any:
    return transformers.GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=0)


def _config_of(model: Llama) -> Any:
    config = model.config
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        rope |= {"rope_type": "llama3", **scaling.model_dump(exclude={"original_context"})}
        rope["original_max_position_embeddings"] = scaling.original_context
    return transformers.LlamaConfig(
        vocab_size=config.vocab,
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_context,
        rms_norm_eps=config.norm_eps,
        tie_word_embeddings=config.tied_embeddings,
        rope_parameters=rope,
        bos_token_id=None,
        eos_token_id=None,
        dtype=model.dtype,
        attn_implementation="sdpa",
    )
