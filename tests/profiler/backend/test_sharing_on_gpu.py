"""Contexts that share blocks, on a GPU: shared prefixes, and samples of one prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA GPU", allow_module_level=True)
pytest.importorskip("flashinfer")

from caesura.config.systems import load_preset  # noqa: E402
from policies.registry import make_order, make_policy  # noqa: E402
from profiler.backend.backend import make_backend, make_model  # noqa: E402
from profiler.backend.model_config import load_model_config  # noqa: E402
from profiler.serving.server import Server  # noqa: E402
from sim.costs.profile import LinearForward, Profile, SwapCost  # noqa: E402
from traces.session import Call, Pause, Session, SharedPrefix  # noqa: E402

GPU = torch.device("cuda")
BLOCK, POOL = 16, 400
SHAPE: dict[str, Any] = {"layers": 3, "hidden": 512, "heads": 8, "kv_heads": 2, "intermediate": 1024, "vocab": 1000}
CONFIG = load_model_config("llama-3.1-8b").model_copy(update={**SHAPE, "head_dim": 128, "name": "small"})
PROFILE = Profile(
    name="test", model="small", gpu="any", origin="estimate", source="a test",
    kv_bytes_per_token=CONFIG.kv_bytes_per_token(), kv_capacity_tokens=POOL * BLOCK, host_capacity_tokens=0,
    saturation_tokens=256, forward=LinearForward(fixed_s=1e-3, per_token_s=1e-6),
    swap=SwapCost(out_bytes_per_s=1e10, in_bytes_per_s=1e10),
)  # fmt: skip
PREFIXED = [
    Session(f"p{index}", 0.03 * index, 150 + index, (Call(20, Pause(0.01, returned=9)), Call(20)),
            prefix=SharedPrefix("common", 128))
    for index in range(6)
]  # fmt: skip
SAMPLED = [Session(f"s{index}", 0.0, 70 + 9 * index, (Call(24),), samples=4) for index in range(3)]
EXACT, FUSED = (torch.float64, False), (torch.bfloat16, True)


def serve(
    sessions: list[Session], system: str, kind: tuple[Any, bool], **rules: Any
) -> tuple[dict[tuple[str, int], list[int]], Any]:
    """The tokens of every context by session and sample, and the record."""
    dtype, flashinfer = kind
    preset = load_preset(system)
    model = make_model(CONFIG, GPU, dtype, 1, 512, flashinfer=flashinfer)
    backend = make_backend(
        model, POOL, 0, BLOCK, max_sessions=40, max_context=512, max_decodes=24, max_chunk_tokens=1024,
        flashinfer=flashinfer,
    )  # fmt: skip
    backend.executor.capture()
    server = Server(
        backend, policy=make_policy(preset.policy), order=make_order(preset.order),
        settings=preset.engine.model_copy(update={"block_size": BLOCK, **rules}), profile=PROFILE,
    )  # fmt: skip
    tokens: dict[tuple[str, int], list[int]] = {}
    executor = backend.executor
    server.on_leave = lambda state: tokens.setdefault((state.session.id, 0), executor.tokens(state.session.id))
    server.branches.on_end = lambda state, keys: tokens.update(
        {(state.session.id, sample): executor.tokens(key) for sample, key in enumerate(keys)}
    )
    record = server.serve(sessions)
    backend.tables.check(0, 0)
    return tokens, record


@pytest.mark.parametrize(("kind", "least"), [(EXACT, 1.0), (FUSED, 0.5)], ids=["float64", "FlashInfer in bfloat16"])
def test_a_shared_prefix_is_not_computed_again_and_changes_no_token(kind: tuple[Any, bool], least: float) -> None:
    """128 tokens are common, 8 blocks, which five of six sessions find. In bfloat16 chunks that begin elsewhere round
    otherwise, so the first 8 generated tokens of half of them are asked for; wrong keys and values would give none."""
    apart, _ = serve(PREFIXED, "preserve", kind)
    shared, record = serve(PREFIXED, "preserve", kind, prefix_sharing=True)
    assert record.totals["prefix_hit_tokens"] >= 5 * 128
    whole = 49 if least == 1.0 else 8
    ends = {session.id: session.prompt + whole for session in PREFIXED}
    equal = [shared[key, 0][:end] == apart[key, 0][:end] for key, end in ends.items()]
    assert sum(equal) >= least * len(equal)


@pytest.mark.parametrize(("kind", "least"), [(EXACT, 1.0), (FUSED, 0.5)], ids=["float64", "FlashInfer in bfloat16"])
@pytest.mark.parametrize("system", ["paged-sharing", "segment-kv"])
def test_samples_of_one_prompt_choose_as_one_alone_does(system: str, kind: tuple[Any, bool], least: float) -> None:
    """The likeliest token is taken, so all four samples of a session have the tokens of the session with one sample."""
    alone, _ = serve([replace(session, samples=1) for session in SAMPLED], system, kind)
    shared, record = serve(SAMPLED, system, kind)
    assert record.sessions["status"] == ["finished"] * len(SAMPLED)
    assert len(shared) == 12
    new = 24 if least == 1.0 else 8
    ends = {session.id: session.prompt + new for session in SAMPLED}
    equal = [tokens[: ends[name]] == alone[name, 0][: ends[name]] for (name, _), tokens in shared.items()]
    assert sum(equal) >= least * len(equal)
