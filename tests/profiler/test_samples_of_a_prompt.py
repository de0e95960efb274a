"""Samples of one prompt share its blocks on the real backend, and get the tokens that they get alone."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from profiler.backend.backend import make_backend, make_model  # noqa: E402
from profiler.backend.executor import ChunkWork, Executor  # noqa: E402
from profiler.backend.model_config import load_model_config  # noqa: E402
from profiler.backend.tokens import Sampling, seed_of  # noqa: E402

BLOCK = 4
MODEL = make_model(load_model_config("tiny"), torch.device("cpu"), dtype=torch.float64, max_context=128)
RESPONSE = 12
NAMES = ("a", "b", "c")


def executor() -> Executor:
    sampling = Sampling(temperature=0.9, seed=5)
    return make_backend(MODEL, 60, 0, BLOCK, 4, 128, max_decodes=4, max_chunk_tokens=64, sampling=sampling).executor


def continued(executor: Executor, chunks: list[ChunkWork]) -> dict[str, list[int]]:
    """Compute the chunks, which end their contexts, and decode all of them together to the end of the response."""
    names = [str(chunk.key) for chunk in chunks]
    tokens: dict[str, list[int]] = {name: [] for name in names}
    for step in range(RESPONSE):
        iteration = executor.run(names) if step else executor.run([], chunks)
        for name, token in executor.sampled_ids(iteration).items():
            tokens[str(name)].append(token)
    return tokens


def samples_of(prompt: int) -> tuple[dict[str, list[int]], int]:
    """Three samples of a prompt that is computed once, and the blocks in use at the end."""
    shared = executor()
    shared.open("prompt", prompt)
    shared.run([], [ChunkWork("prompt", 0, prompt)])
    starts = {name: shared.open_sample(name, "prompt", prompt) for name in NAMES}
    shared.close("prompt")
    tokens = continued(shared, [ChunkWork(name, start, prompt - start) for name, start in starts.items()])
    used = shared.tables.gpu_used
    for name in NAMES:
        shared.close(name)
    assert shared.tables.gpu_used == 0
    return tokens, used


@pytest.mark.parametrize("prompt", [1, 4, 5, 21, 24])
def test_samples_that_share_a_prompt_get_the_tokens_of_separate_sessions(prompt: int) -> None:
    """Each of the separate sessions computes the whole prompt for itself and draws with the same seed."""
    together, _ = samples_of(prompt)
    assert len(set(map(tuple, together.values()))) == len(NAMES), "samples that are alike tell nothing"
    for name in NAMES:
        alone = executor()
        alone.open(name, prompt, seed_of("prompt"))
        alone.store.follow(alone.tables.rows[name], alone.tables.rows[name], prompt, seed_of(name))
        assert together[name] == continued(alone, [ChunkWork(name, 0, prompt)])[name]


def test_the_prompt_s_whole_blocks_are_held_once() -> None:
    """21 tokens: 5 whole blocks. With 11 of 12 new ones computed a sample has 32 tokens, 8 blocks: 5 + 3 * 3."""
    assert samples_of(21)[1] == 5 + 3 * 3
