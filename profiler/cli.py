"""``caesura profile``: measure, fit, write the profile folder, and say how good it is.

Also as ``python -m profiler.measure``, where only this floor and those below it are installed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from profiler.backend.model_config import UnknownModel, load_model_config
from profiler.fit.findings import Findings
from profiler.fit.forward import NotEnoughPoints
from profiler.fit.profile_folder import FILE, make_profile, write_profile
from profiler.measure.errors import CannotMeasure
from profiler.measure.grid import Extent
from profiler.measure.machine import find_device
from profiler.measure.progress import Report
from profiler.measure.run import measure
from profiler.measure.samples import Samples
from profiler.measure.setup import Request
from sim.costs.profile import Error

REHEARSAL = Extent(decodes=16, context=512, chunk=256)
"""What a CPU can do in seconds."""
REHEARSAL_HOST_GB = 0.25
"""Host pool that a rehearsal's profile states, at most: its blocks are made when it is validated."""
CANNOT = 2


def profile(
    model: str | None,
    out: Path,
    *,
    device: str = "cuda",
    budget_s: float = 420.0,
    memory_fraction: float = 0.9,
    host_gb: float = 64.0,
    held_out: int = 240,
    seed: int = 0,
    fresh: bool = False,
    refit: bool = False,
    quiet: bool = False,
) -> Findings:
    """Measure a model's costs on a device and write the profile folder ``out``.

    Args:
        model: a name in ``configs/models``, a YAML file, or a Hugging Face folder (its shape; weights are random). To
            refit it may be None: the samples know it.
        device: ``cuda``, ``cuda:1``; ``cpu`` to rehearse.
        budget_s: seconds to measure for, set-up apart. What is left out then, the same call measures later.
        memory_fraction: share of the GPU's memory that a server may take.
        host_gb: size of the host pool that the profile states.
        held_out: random batches to test the fit on.
        seed: of the random batches and of the order.
        fresh: forget samples that lie in ``out``.
        refit: measure nothing; fit what lies in ``out`` anew. Needs no device.

    Raises:
        CannotMeasure: no model is named, the GPU is missing, busy or too small, or ``out`` holds something else.
        NotEnoughPoints: the budget did not suffice for a fit.
        UnknownModel: there is no such model.
    """
    report = Report(quiet)
    if refit:
        samples = Samples(out)
        _require_same_model(samples, model)
    elif model is None:
        raise CannotMeasure("say which model to measure, as in --model llama-3.1-8b")
    else:
        config = load_model_config(model)
        where = find_device(device)
        rehearsal = where.type == "cpu"
        extent = replace(REHEARSAL if rehearsal else Extent(), held_out=held_out).within(config.max_context)
        request = Request(
            model=config,
            device=where,
            extent=extent,
            longest_chunk=extent.context if rehearsal else min(8192, config.max_context),
            memory_fraction=memory_fraction,
            host_bytes=(min(host_gb, REHEARSAL_HOST_GB) if rehearsal else host_gb) * 1e9,
            budget_s=budget_s,
            seed=seed,
        )
        samples = measure(request, out, report, fresh)
    report.say("fitting")
    findings = make_profile(samples)
    write_profile(out, findings)
    if not quiet:
        show(findings, out)
    return findings


def _require_same_model(samples: Samples, model: str | None) -> None:
    """The samples are of ``model``, if one is named.

    Raises:
        CannotMeasure: there are none, or they are of another.
    """
    there = samples.provenance["model"]["name"]
    if model is not None and (asked := load_model_config(model).name) != there:
        raise CannotMeasure(
            f"{samples.folder} holds samples of {there}, not of {asked}; leave --model out to fit those"
        )


def show(findings: Findings, folder: Path) -> None:
    """The errors and the costs, on the terminal."""
    measured = findings.profile.measured
    assert measured is not None
    console = Console()
    table = Table(box=None, padding=(0, 2, 0, 0), title="Errors of the fitted costs", title_justify="left")
    for heading in ("of", "points", "median", "P95", "bias"):
        table.add_column(heading, justify="left" if heading == "of" else "right")
    for name, error in measured.errors.items():
        if error.points:
            table.add_row(name.replace("_", " "), *_cells(error))
    console.print(table)
    profile, host = findings.profile, findings.profile.host
    for line in (
        f"S = {profile.saturation_tokens} tokens; KV capacity {profile.kv_capacity_tokens:,} tokens; copies at "
        f"{profile.swap.out_bytes_per_s / 1e9:.1f} GB/s out, {profile.swap.in_bytes_per_s / 1e9:.1f} GB/s in; "
        f"the engine adds {1e3 * host.per_iteration_s:.2f} ms an iteration, "
        f"{1e6 * host.per_session_s:.1f} µs a session, {1e6 * host.chunked_s:.0f} µs where there are chunks, "
        f"{1e6 * host.per_call_s:.0f} µs for each call that begins and {1e6 * host.per_arrival_s:.0f} µs more for "
        f"a session's first; up to {1e3 * host.cold_s:.2f} ms more after a long wait.",
        f"Clocks: {measured.machine['clocks']}. Drift: {measured.machine['drift']}.",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    style = "green" if measured.within_aim else "bold red"
    console.print(measured.verdict, style=style, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Profile: {folder / FILE}", highlight=False, markup=False, soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line of ``python -m profiler.measure``."""
    options = _parser().parse_args(arguments)
    try:
        profile(
            options.model,
            options.out,
            device=options.device,
            budget_s=options.budget,
            memory_fraction=options.memory_fraction,
            host_gb=options.host_gb,
            held_out=options.held_out,
            seed=options.seed,
            fresh=options.fresh,
            refit=options.refit,
            quiet=options.quiet,
        )
    except (CannotMeasure, NotEnoughPoints, UnknownModel) as error:
        print(f"profile: {error}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        print(
            "profile: interrupted; what was measured is kept, and the same command goes on from there", file=sys.stderr
        )
        return 130
    return 0


def _cells(error: Error) -> tuple[str, ...]:
    return str(error.points), f"{error.median:.1%}", f"{error.p95:.1%}", f"{error.bias:+.1%}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m profiler.measure",
        description="Measure what a model costs on this GPU, and write a profile for the simulator.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", help="a name in configs/models, a YAML file or a Hugging Face folder")
    parser.add_argument("--out", required=True, type=Path, help="the profile folder; a second run goes on there")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu to rehearse")
    parser.add_argument("--budget", type=float, default=420.0, help="seconds to measure for, set-up apart")
    parser.add_argument("--memory-fraction", type=float, default=0.9, help="of the GPU's memory, for the server")
    parser.add_argument("--host-gb", type=float, default=64.0, help="host pool that the profile states, GB")
    parser.add_argument("--held-out", type=int, default=240, help="random batches to test the fit on")
    parser.add_argument("--seed", type=int, default=0, help="of random batches and order")
    parser.add_argument("--fresh", action="store_true", help="forget the samples that lie in the folder")
    parser.add_argument("--refit", action="store_true", help="measure nothing, fit the samples there anew")
    parser.add_argument("--quiet", action="store_true", help="no progress and no table")
    return parser
