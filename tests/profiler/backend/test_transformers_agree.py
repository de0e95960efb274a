"""The decoder against transformers: a tiny checkpoint made by transformers itself must give the same logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")

from profiler.backend.backend import make_backend, make_model  # noqa: E402
from profiler.backend.executor import ChunkWork  # noqa: E402
from profiler.backend.model_config import ModelConfig, UnknownModel, load_model_config  # noqa: E402
from profiler.backend.weights import MissingWeights  # noqa: E402

CPU = torch.device("cpu")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def make_checkpoint(folder: Path, shards: bool = False, **changes: Any) -> Any:
    """Write a tiny random Llama and return transformers' own model of it, float32."""
    facts: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.3,
        "eos_token_id": None,
        **changes,
    }
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**facts)).eval()
    theirs.save_pretrained(folder, max_shard_size="20KB" if shards else "1GB")
    return theirs


def our_logits(folder: Path, ids: list[int], cuts: list[int]) -> Any:
    """Logits after the last of ``ids``, computed in chunks that end at ``cuts``."""
    config = load_model_config(folder)
    model = make_model(config, CPU, torch.float32, folder)
    backend = make_backend(model, 32, 0, block_size=4, max_sessions=2, max_context=128)
    executor = backend.executor
    executor.open("one", len(ids))
    executor.store.ids[0, : len(ids)] = torch.tensor(ids)
    seen = []
    forward = model.forward

    def watched(*arguments: Any) -> Any:
        seen.append(forward(*arguments))
        return seen[-1]

    model.forward = watched
    for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        executor.run([], [ChunkWork("one", start, end - start)])
    assert [len(logits) for logits in seen] == [0] * len(cuts) + [1]
    return seen[-1][0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rope_parameters": LLAMA3},
        {"num_key_value_heads": 4, "tie_word_embeddings": True},
        {"head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    ],
    ids=["plain", "llama-3 rotary", "tied, every head its own KV", "wide heads"],
)
@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
def test_logits_match_those_of_transformers(tmp_path: Path, changes: dict[str, Any], shards: bool) -> None:
    theirs = make_checkpoint(tmp_path, shards, **changes)
    assert (tmp_path / "model.safetensors.index.json").is_file() == shards
    ids = torch.randint(0, 97, (1, 70), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(ids).logits[0, -1]
    for cuts in ([], [1, 33, 69]):
        torch.testing.assert_close(our_logits(tmp_path, ids[0].tolist(), cuts), expected, atol=1e-4, rtol=1e-4)


def test_greedy_tokens_match_those_of_generate(tmp_path: Path) -> None:
    """80 tokens, of which one is 2, the end of a text unless the checkpoint says that there is none."""
    theirs = make_checkpoint(tmp_path)
    model = make_model(load_model_config(tmp_path), CPU, torch.float32, tmp_path)
    executor = make_backend(model, 32, 0, block_size=4, max_sessions=2, max_context=128).executor
    executor.open("one", 11)
    prompt = executor.tokens("one")
    executor.run([], [ChunkWork("one", 0, 11)])
    for _ in range(79):
        executor.run(["one"])
    ids = torch.tensor([prompt])
    generated = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False, pad_token_id=0
    )
    tokens = executor.tokens("one")
    assert 2 in tokens[11:]
    assert tokens == generated[0].tolist()


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    deeper = load_model_config(tmp_path).model_copy(update={"layers": 3})
    with pytest.raises(MissingWeights, match=r"model\.layers\.2\.input_layernorm"):
        make_model(deeper, CPU, torch.float32, tmp_path)
    wider = load_model_config(tmp_path).model_copy(update={"vocab": 98})
    with pytest.raises(MissingWeights, match=r"embed_tokens.*\(97, 32\).*\(98, 32\)"):
        make_model(wider, CPU, torch.float32, tmp_path)


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(UnknownModel, match="mamba"):
        load_model_config(tmp_path)
    with pytest.raises(UnknownModel, match=r"llama-3\.1-8b.*tiny"):
        load_model_config("lama-3.1-8b")


@pytest.mark.parametrize(
    ("name", "billions", "kv_bytes"),
    [("llama-3.1-8b", 8.03, 131_072), ("vicuna-13b", 13.02, 819_200), ("llama-3.2-1b", 1.236, 32_768)],
)
def test_shipped_shapes_have_the_published_sizes(name: str, billions: float, kv_bytes: int) -> None:
    config: ModelConfig = load_model_config(name)
    assert config.parameters / 1e9 == pytest.approx(billions, rel=2e-3)
    assert config.kv_bytes_per_token() == kv_bytes
