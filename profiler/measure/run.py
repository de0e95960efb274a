"""The whole measurement, from an idle device to a folder of samples."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from profiler.measure import copy_sweeps, sweeps
from profiler.measure.commit import commit_of
from profiler.measure.errors import CannotMeasure
from profiler.measure.grid import Shape
from profiler.measure.machine import describe, require_idle
from profiler.measure.progress import Report
from profiler.measure.samples import Samples
from profiler.measure.serving import reopen_runner, serve_for_a_while
from profiler.measure.setup import MeasurementSetup, Request, build

SHARES = {"copies": 0.10, "beside": 0.06, "recompute": 0.08, "serving": 0.13}
"""Of the budget; iterations have the rest."""


def measure(request: Request, folder: Path, report: Report, fresh: bool = False) -> Samples:
    """Measure everything that is not measured yet, within the budget.

    Args:
        folder: the profile folder; samples of the same provenance that lie there stay.
        fresh: forget what lies there.

    Raises:
        CannotMeasure: the GPU is missing, busy or too small, or the folder holds something else.
    """
    require_idle(request.device)
    if request.device.type == "cpu":
        torch.set_num_threads(1)  # steadier, and a rehearsal's matrices are small
    samples = Samples.begin(folder, provenance(request), fresh)
    if samples.facts.get("complete"):
        report.say(f"{samples.folder} is complete: nothing is left to measure")
        return samples
    setup = build(request, report.say, samples.facts.get("pool_blocks"))
    _note_setup(samples, setup)
    report.say(f"set up in {setup.set_up_s:.0f} s; {setup.pool_bytes / 1e9:.1f} GB for KV")
    begun = time.perf_counter()
    left_out = _sweep_all(setup, samples, report, begun)
    spent = time.perf_counter() - begun
    runs = [*samples.facts.get("runs", []), {"date": time.strftime("%Y-%m-%d %H:%M %z"), "seconds": round(spent, 1)}]
    samples.note(runs=runs, left_out=left_out, complete=left_out == 0)
    if left_out:
        report.say(f"the budget is spent: {left_out} points were left out; the same command goes on with them")
    report.say(f"measured in {spent:.0f} s")
    return samples


def provenance(request: Request) -> dict[str, Any]:
    """What samples must have in common to lie in one folder."""
    facts: Mapping[str, Any] = {
        "model": request.model.model_dump(mode="json"),
        "machine": describe(request.device),
        "commit": commit_of(Path(__file__).parent),
        "extent": asdict(request.extent),
        "block_size": request.block_size,
        "longest_chunk": request.longest_chunk,
        "memory_fraction": request.memory_fraction,
        "seed": request.seed,
    }
    return dict(facts)


def _note_setup(samples: Samples, setup: MeasurementSetup) -> None:
    attention = setup.backend.executor.attention
    samples.note(
        pool_blocks=setup.backend.cache.gpu_blocks,
        pool_bytes=setup.pool_bytes,
        memory=setup.memory,
        block_bytes=setup.block_bytes,
        host_bytes=setup.request.host_bytes,
        decode_sizes=list(attention.sizes),
        pass_sizes=setup.backend.executor.pass_sizes,
        most_pieces=attention.most_pieces,
        piece_tokens=attention.piece_tokens,
        chunk_tiles=list(attention.chunk_tiles),
        attention=type(attention).__name__,
        swap_way=setup.backend.swapper.way,
        set_up_s=[*samples.facts.get("set_up_s", []), round(setup.set_up_s, 1)],
    )


def _sweep_all(setup: MeasurementSetup, samples: Samples, report: Report, begun: float) -> int:
    """Every sweep within its share. Returns how many points were left out."""
    budget = setup.request.budget_s
    sweep = sweeps.SweepContext(setup, samples, report)

    def share(name: str) -> float:
        return time.perf_counter() + budget * SHARES[name]

    typical = Shape((setup.request.block_size,) * setup.request.extent.decodes), Shape(chunks=((0, 64),))
    setup.runner.warm_up(list(typical), min(3.0, budget / 20))
    with report.shown():
        copy_sweeps.measure_copies(sweep, share("copies"))
        copy_sweeps.measure_beside(sweep, share("beside"))
        sweeps.measure_recompute(sweep, share("recompute"))
        if "serving" not in samples.done("serving"):
            report.stage("engine overhead, by serving", 1)
            samples.append("serving", "serving", serve_for_a_while(setup, budget * SHARES["serving"]))
            report.advance()
            sweep = replace(sweep, setup=replace(setup, runner=reopen_runner(setup)))
        return sweeps.measure_iterations(sweep, begun + budget)


__all__ = ["CannotMeasure", "measure", "provenance"]
