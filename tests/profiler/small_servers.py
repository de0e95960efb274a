"""Servers of a tiny model in float64 on the CPU, with so little memory that contexts must give way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from caesura.config.systems import load_preset
from policies.contract import QueueOrder
from policies.registry import make_order, make_policy
from profiler.backend.backend import make_backend, make_model
from profiler.backend.model_config import load_model_config
from profiler.serving.server import Server
from sim.costs.profile import LinearForward, Profile, SwapCost
from sim.results.run_record import RunRecord
from sim.session import SessionState
from traces.session import Session

BLOCK = 4
MODEL = make_model(load_model_config("tiny"), torch.device("cpu"), dtype=torch.float64, max_context=256)


def small_profile(gpu_blocks: int, host_blocks: int, token_s: float = 1e-5, copied_bytes_per_s: float = 1e7) -> Profile:
    return Profile(
        name="test", model="tiny", gpu="cpu", origin="estimate", source="a test", kv_bytes_per_token=256,
        kv_capacity_tokens=gpu_blocks * BLOCK, host_capacity_tokens=host_blocks * BLOCK, saturation_tokens=24,
        forward=LinearForward(fixed_s=1e-4, per_token_s=token_s),
        swap=SwapCost(out_bytes_per_s=copied_bytes_per_s, in_bytes_per_s=copied_bytes_per_s),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """A session's context when it left.

    Attributes:
        ids: its tokens.
        leads: by how much the logit of each generated token beat the second; 0 for the others. They tell of a context
            that is not quite right, before it is so wrong that another token wins.
    """

    ids: list[int]
    leads: list[float]


def assert_same(said: Said, alone: Said) -> None:
    """float64 is summed in another order, and leads are kept in float32."""
    assert said.ids == alone.ids
    assert said.leads == pytest.approx(alone.leads, rel=1e-5, abs=1e-7)


def serve(
    sessions: list[Session],
    system: str,
    profile: Profile,
    order: QueueOrder | None = None,
    **rules: Any,
) -> tuple[RunRecord, dict[str, Said]]:
    """Serve for real on the CPU; the run's record, and every session's tokens."""
    preset = load_preset(system)
    chosen = preset.engine.model_copy(update={"block_size": BLOCK, "watermark": 0.0, **rules})
    gpu_blocks, host_blocks = profile.kv_capacity_tokens // BLOCK, profile.host_capacity_tokens // BLOCK
    backend = make_backend(
        MODEL, gpu_blocks, host_blocks, BLOCK, max_sessions=16, max_context=256, max_decodes=24, max_chunk_tokens=2048,
        margins=True,
    )  # fmt: skip
    server = Server(
        backend,
        policy=make_policy(preset.policy),
        order=order or make_order(preset.order),
        settings=chosen,
        profile=profile,
    )
    said: dict[str, Said] = {}

    def leave(state: SessionState) -> None:
        key = state.session.id
        said[key] = Said(backend.executor.tokens(key), backend.executor.margins(key))

    server.on_leave = leave
    record = server.serve(sessions)
    backend.tables.check(0, 0)
    server.engine.kv.check([])
    return record, said
