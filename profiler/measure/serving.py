"""What the engine adds to an iteration: a short real run of ``profiler.serve`` while sessions end one after another."""

from __future__ import annotations

from typing import Any

from policies.fixed import PreserveAlways
from policies.orders import FirstCome
from profiler.measure.bench import Bench
from profiler.measure.grid import MOST_CHUNKS, Shape
from profiler.measure.rig import Rig
from profiler.serve import Server, Timings
from sim.profile import LinearForward, Profile, SwapCost
from sim.settings import EngineSettings
from traces.session import Call, Pause, Session

PROMPT = 32
PAUSE_S = 0.05
RETURNED = 8
ARRIVING = 0.25
"""Share of the time in which sessions arrive."""


def serve_for_a_while(rig: Rig, seconds: float) -> list[dict[str, Any]]:
    """Serve as many sessions as the bench has: they arrive one by one, each stays a little longer than the one before,
    every fourth pauses shortly. A row an iteration. The bench's own sessions end here.

    Args:
        seconds: how long about; it decides the sessions' lengths.
    """
    request, backend = rig.request, rig.backend
    sessions = request.extent.decodes
    step = _tokens_apart(rig, seconds)
    rig.bench.close()
    pool = backend.tables.gpu_blocks * request.block_size
    while sessions > 1 and sessions * (PROMPT + RETURNED + step * sessions) > pool // 2:
        sessions -= 1
    server = Server(
        backend,
        policy=PreserveAlways(),
        order=FirstCome(),
        settings=EngineSettings(token_budget=512, max_running=sessions, block_size=request.block_size),
        profile=_provisional(rig, pool),
    )
    apart = ARRIVING * seconds / sessions
    server.serve([_session(index, step, index * apart) for index in range(sessions)])
    return _rows(server.timings)


def reopen_bench(rig: Rig) -> Bench:
    """A bench again, for whoever measures on after serving."""
    return Bench(rig.backend, rig.request.extent.decodes, MOST_CHUNKS)


def _session(index: int, step: int, arrival: float) -> Session:
    output = step * (index + 1)
    if index % 4 or output < 4:
        return Session(f"served {index}", arrival, PROMPT, (Call(output),))
    pause = Pause(PAUSE_S, returned=RETURNED)
    return Session(f"served {index}", arrival, PROMPT, (Call(output // 2, pause), Call(output - output // 2)))


def _tokens_apart(rig: Rig, seconds: float) -> int:
    """By how many tokens one session outlives the next, so that all of them take ``seconds``."""
    sessions = rig.request.extent.decodes
    rig.bench.set_up(Shape((PROMPT,) * max(1, sessions // 2)))
    rig.bench.run()
    iteration = min(rig.bench.run().wall_s for _ in range(3))
    room = (rig.request.reach - PROMPT - RETURNED) // sessions
    return int(max(1, min(4, room, seconds / (sessions * iteration))))


def _provisional(rig: Rig, pool: int) -> Profile:
    """Costs of no importance: with every context preserved and room for all, nobody asks for them."""
    return Profile(
        name="provisional",
        model=rig.request.model.name,
        gpu="provisional",
        origin="estimate",
        source="to measure the engine's overhead",
        kv_bytes_per_token=rig.request.model.kv_bytes_per_token(),
        kv_capacity_tokens=pool,
        host_capacity_tokens=rig.backend.tables.host_blocks * rig.request.block_size,
        saturation_tokens=512,
        forward=LinearForward(fixed_s=0.01, per_token_s=1e-5),
        swap=SwapCost(out_bytes_per_s=1e10, in_bytes_per_s=1e10),
    )


def _rows(timings: Timings) -> list[dict[str, Any]]:
    """A row an iteration, but for the first, which finds everything cold."""
    found = []
    series = zip(timings.plans, timings.wall, timings.device, timings.host, strict=True)
    for plan, wall, device, host in list(series)[1:]:
        batch = plan.batch
        found.append(
            {
                "set": "serving",
                "decodes": batch.decode_sessions,
                "decode_context": batch.decode_context,
                "chunks": batch.prefill_sessions,
                "chunk_tokens": batch.prefill_tokens,
                "chunk_context": batch.prefill_context,
                "pairs": batch.prefill_pairs,
                "begun": batch.begun,
                "device_s": device,
                "host_s": host,
                "wall_s": wall,
            }
        )
    return found
