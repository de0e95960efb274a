"""Real runs that a CPU makes in a second: the tiny model, short sessions, a pool that holds few of them."""

from __future__ import annotations

from pathlib import Path

from caesura.fidelity.record_runs import RecordingPlan
from sim.costs.profile import LinearForward, Profile, SwapCost
from traces.readers import write_own
from traces.session import Call, Pause, Session

KV_TOKENS, HOST_TOKENS = 512, 512
GUESSED = Profile(
    name="guessed", model="tiny", gpu="cpu", origin="estimate", source="a test", kv_bytes_per_token=512,
    kv_capacity_tokens=KV_TOKENS, host_capacity_tokens=HOST_TOKENS, saturation_tokens=64,
    forward=LinearForward(fixed_s=1e-3, per_token_s=1e-5), swap=SwapCost(out_bytes_per_s=1e9, in_bytes_per_s=1e9),
)  # fmt: skip


def short_trace(folder: Path) -> Path:
    """Sessions of 100 to 156 tokens that pause for 50 ms twice; three fit the pool at once."""
    pause = Pause(0.05, returned=6)
    sessions = [
        Session(f"s{n}", 0.0, 60 + 8 * n, (Call(10, pause), Call(9, pause), Call(9 + n, Pause(0.01)))) for n in range(8)
    ]
    file = folder / "short.jsonl"
    write_own(file, sessions)
    return file


def small_plan(trace: Path, systems: tuple[str, ...], loads: tuple[float, ...] = (12.0,)) -> RecordingPlan:
    """Runs of half a second of arrivals."""
    return RecordingPlan(
        "tiny", GUESSED, systems, loads, duration=0.5, horizon=None, trace=str(trace), max_context=256, device="cpu"
    )
