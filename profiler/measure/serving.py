"""Measure the engine's time of an iteration: serve for real, for a while, with sessions that end one after another.

The run has all that costs the host time, in changing company: sessions that arrive, long prompts in several chunks and
short ones in one, calls that begin with a tool's answer, copies out and in, passes that let the host wait for a few
milliseconds and for some tens of them.
"""

from __future__ import annotations

from typing import Any

from policies.basic.fcfs import FirstCome
from policies.basic.fixed import SwapAlways
from profiler.measure.grid import MOST_CHUNKS, Shape
from profiler.measure.iteration_runner import IterationRunner
from profiler.measure.setup import MeasurementSetup
from profiler.serving.iterations import iteration_rows
from profiler.serving.server import Server, Timings
from sim.costs.profile import LinearForward, Profile, SwapCost
from sim.engine.settings import EngineSettings
from traces.session import Call, Pause, Session

PROMPT = 32
PROMPTS = (PROMPT, 400, 1200, PROMPT, 2000, 800, PROMPT, 4000)
"""Tokens of prompts, in turn: those that pause, every second one, are short and long as well. With ``BUDGET`` the
longest takes several iterations."""
BUDGET = 1400
PAUSE_S = 0.05
RETURNED = 8
ARRIVING = 0.4
"""Share of the time in which sessions arrive."""


def serve_for_a_while(setup: MeasurementSetup, seconds: float) -> list[dict[str, Any]]:
    """Serve as many sessions as the runner has: they arrive one by one, each stays a little longer than the one before,
    every second pauses shortly and is swapped. A row an iteration. The runner's own sessions end here.

    Args:
        seconds: how long about; it decides the sessions' lengths.
    """
    request, backend = setup.request, setup.backend
    step = _tokens_apart(setup, seconds)
    setup.runner.close()
    pool = backend.tables.gpu_blocks * request.block_size
    apart = ARRIVING * seconds / request.extent.decodes
    served: list[Session] = []
    for index in range(request.extent.decodes):
        served.append(_session(index, step, index * apart, request.reach // 4))
        if sum(session.max_context for session in served) > pool // 2 and index > 0:
            break
    server = Server(
        backend,
        policy=SwapAlways(),
        order=FirstCome(),
        settings=EngineSettings(
            token_budget=min(request.longest_chunk, max(BUDGET, len(served) + PROMPT)),
            max_running=len(served),
            block_size=request.block_size,
        ),
        profile=_provisional(setup, pool),
    )
    server.serve(served)
    return _rows(server.timings)


def reopen_runner(setup: MeasurementSetup) -> IterationRunner:
    """A new runner of iterations, to measure on after serving."""
    return IterationRunner(setup.backend, setup.request.extent.decodes, MOST_CHUNKS)


def _session(index: int, step: int, arrival: float, longest: int) -> Session:
    output, prompt = step * (index + 1), min(PROMPTS[index % len(PROMPTS)], max(PROMPT, longest))
    if index % 2 or output < 4:
        return Session(f"served {index}", arrival, prompt, (Call(output),))
    pause = Pause(PAUSE_S, returned=RETURNED)
    return Session(f"served {index}", arrival, prompt, (Call(output // 2, pause), Call(output - output // 2)))


def _tokens_apart(setup: MeasurementSetup, seconds: float) -> int:
    """The tokens by which one session outlives the one before, so that all of them take ``seconds``."""
    request = setup.request
    sessions = request.extent.decodes
    setup.runner.set_up(Shape((PROMPT,) * max(1, sessions // 2)))
    setup.runner.run()
    iteration = min(setup.runner.run().wall_s for _ in range(3))
    room = (request.reach * 3 // 4 - RETURNED) // sessions
    return int(max(1, min(4, room, seconds / (sessions * iteration))))


def _provisional(setup: MeasurementSetup, pool: int) -> Profile:
    """A profile for the server. Its costs matter little: the engine only asks how many copies an iteration hides."""
    return Profile(
        name="provisional",
        model=setup.request.model.name,
        gpu="provisional",
        origin="estimate",
        source="to measure the engine's overhead",
        kv_bytes_per_token=setup.request.model.kv_bytes_per_token(),
        kv_capacity_tokens=pool,
        host_capacity_tokens=setup.backend.tables.host_blocks * setup.request.block_size,
        saturation_tokens=512,
        forward=LinearForward(fixed_s=0.01, per_token_s=1e-5),
        swap=SwapCost(out_bytes_per_s=1e10, in_bytes_per_s=1e10),
    )


def _rows(timings: Timings) -> list[dict[str, Any]]:
    """A row an iteration, but for the first, which finds everything cold."""
    return [{"set": "serving", **row} for row in iteration_rows(timings)[1:]]
