"""The command line. Each command imports what it needs, since some of that is slow to import."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caesura.cli import explain as explain_cli
from caesura.cli import trace as trace_cli
from caesura.cli.exit_codes import with_exit_codes

if TYPE_CHECKING:
    from caesura.config.experiment import ResolvedExperiment
    from caesura.runs.executors.executor import RunExecutor

SOME_FAILED = 1

app = typer.Typer(
    name="caesura",
    help="Compare what serving systems do with a KV cache while a request waits for a tool, a service or a person.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(trace_cli.app, name="trace")

OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results [runs/NAME].")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes [every core].")]
On = Annotated[
    str | None,
    typer.Option(metavar="PLACE", help="A cluster: dask, ray, or dask=ADDRESS, ray=ADDRESS for one that runs already."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override any value: --set workload.duration='5 min'."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No tables and no progress bar.")]


def main() -> None:
    """The entry point of ``caesura``."""
    app(prog_name="caesura")


def _with_exit_codes() -> contextlib.AbstractContextManager[None]:
    return with_exit_codes("interrupted; runs that ended are kept, and the same command goes on from there")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"caesura {version('caesura')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command()
def run(file: Annotated[Path, typer.Argument(help="An experiment in YAML.")], out: OutOption = None, jobs: Jobs = None,
        on: On = None, set_: Set = None, quiet: Quiet = False) -> None:  # fmt: skip
    """Run an experiment file; runs that an earlier, interrupted command finished are kept."""
    with _with_exit_codes():
        from caesura.config.experiment import read_experiment_file
        from caesura.config.overrides import parse_override
        from caesura.runs.executors.choose import executor

        experiment = read_experiment_file(file, [parse_override(text) for text in set_ or ()])
        _run_and_write(experiment, out, executor(on, jobs), quiet)


@app.command()
def compare(
    file: Annotated[
        Path | None, typer.Argument(help="An experiment in YAML; without one, options describe it.")
    ] = None,
    systems: Annotated[str | None, typer.Option(help="Systems, as in vllm,infercept (see `caesura systems`).")] = None,
    rates: Annotated[str | None, typer.Option(help="Sessions per second, as in 1,2,3.")] = None,
    duration: Annotated[str | None, typer.Option(help="How long sessions arrive, as in '5 min'.")] = None,
    trace: Annotated[str | None, typer.Option(help="A shipped trace's name, or a trace file.")] = None,
    profile: Annotated[str | None, typer.Option(help="Costs of a model on a GPU (see `caesura profiles`).")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds.")] = None,
    objective: Annotated[str | None, typer.Option(help="Mean normalized latency to hold, as in '100 ms'.")] = None,
    out: OutOption = None,
    jobs: Jobs = None,
    on: On = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Compare systems over loads: from a file, from options, or from a file with options that override it."""
    with _with_exit_codes():
        from caesura.cli.options import experiment_from_options, overrides
        from caesura.config.experiment import read_experiment_file
        from caesura.config.overrides import parse_override
        from caesura.runs.executors.choose import executor

        options = overrides(
            systems=systems, rates=rates, duration=duration, trace=trace, profile=profile, seeds=seeds,
            objective=objective, file=file,
        )  # fmt: skip
        options += [parse_override(text) for text in set_ or ()]
        experiment = experiment_from_options(options) if file is None else read_experiment_file(file, options)
        _run_and_write(experiment, out, executor(on, jobs), quiet)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="An experiment in YAML; its sweep section may name the keys.")],
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2", help="Values of any key: --over replica.kv_capacity='8 GB,16 GB'."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")] = False,
    out: OutOption = None,
    jobs: Jobs = None,
    on: On = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Repeat an experiment over the values of any of its keys; runs that its folder holds already are kept."""
    with _with_exit_codes():
        from caesura.cli.options import overrides
        from caesura.cli.terminal import show_sweep
        from caesura.config.overrides import parse_override
        from caesura.config.yaml_source import read_yaml
        from caesura.results.sweep import write_sweep
        from caesura.runs.executors.choose import executor
        from caesura.runs.sweep import parse_over, plan_sweep, run_sweep

        given = [parse_override(text) for text in set_ or ()] + overrides(seeds=seeds)
        axes = [parse_over(text) for text in over or ()]
        plan = plan_sweep(read_yaml(file), file.stem, file.resolve().parent, axes, given)
        _note_slow(plan.slow)
        folder = out or Path("runs") / f"{plan.name}-sweep"
        kept = run_sweep(plan, folder, executor(on, jobs), False if quiet else None, retry_failed)
        found = write_sweep(plan, folder)
        show_sweep(found, kept, quiet)
        if len(found.failures):
            raise typer.Exit(SOME_FAILED)


@app.command()
def capacity(
    file: Annotated[
        Path | None, typer.Argument(help="An experiment in YAML; without one, options describe it.")
    ] = None,
    slo: Annotated[
        str,
        typer.Option(
            help="The objective, as in 'p90 normalized_latency<0.1 and mean ttft<2s'; metrics, too: resume_ttft, tpot, "
            "jct (a session's time), queued."
        ),
    ] = "",
    systems: Annotated[
        str | None, typer.Option(help="Systems, as in vllm,infercept; ratios refer to the first.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds [5].")] = None,
    low: Annotated[float | None, typer.Option(help="A load that should hold [the experiment's lowest].")] = None,
    high: Annotated[float | None, typer.Option(help="A load that should not [the experiment's highest].")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Relative distance of loads told apart [0.02].")] = None,
    duration: Annotated[str | None, typer.Option(help="How long sessions arrive, as in '5 min'.")] = None,
    trace: Annotated[str | None, typer.Option(help="A shipped trace's name, or a trace file.")] = None,
    profile: Annotated[str | None, typer.Option(help="Costs of a model on a GPU (see `caesura profiles`).")] = None,
    out: OutOption = None,
    jobs: Jobs = None,
    on: On = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Find the highest load that each system sustains under an objective, by bisection over seeds."""
    with _with_exit_codes():
        from caesura.cli.options import experiment_from_options, overrides
        from caesura.cli.terminal import show_capacities
        from caesura.config.experiment import read_experiment_file, slow_notes
        from caesura.config.overrides import parse_override
        from caesura.config.slo import parse_slo
        from caesura.errors import UserError
        from caesura.results.capacities import write_capacities
        from caesura.runs.capacity_search import find_capacities, make_query, with_seeds
        from caesura.runs.executors.choose import executor

        if not slo:
            raise UserError("--slo is missing; for example --slo 'p90 normalized_latency<0.1'")
        objective = parse_slo(slo)
        options = overrides(
            systems=systems, duration=duration, trace=trace, profile=profile, seeds=with_seeds(seeds, file), file=file
        )
        options += [parse_override(text) for text in set_ or ()]
        experiment = experiment_from_options(options) if file is None else read_experiment_file(file, options)
        _note_slow(slow_notes(experiment))
        question = make_query(experiment, objective, low, high, tolerance)
        folder = out or Path("runs") / f"{'' if file is None else f'{experiment.name}-'}capacity"
        found, probes = find_capacities(experiment, question, folder, executor(on, jobs), False if quiet else None)
        capacities = write_capacities(experiment, question, found, probes, folder)
        if not quiet:
            show_capacities(capacities)


app.command("explain")(explain_cli.explain)


@app.command("systems")
def list_systems() -> None:
    """List the systems that can be compared, and where their rules come from."""
    with _with_exit_codes():
        from caesura.cli.terminal import show_list
        from caesura.config.systems import load_preset, preset_names

        rows = [(name, load_preset(name).summary, load_preset(name).origin) for name in preset_names()]
        show_list(("system", "what it does", "rules from"), rows)


@app.command("routers")
def list_routers() -> None:
    """List the routers that spread sessions over the replicas of a cluster."""
    with _with_exit_codes():
        from caesura.cli.terminal import show_list
        from policies.registry import ROUTERS, make_router, names

        routers = [(name, make_router(name)) for name in names(ROUTERS)]
        rows = [
            (name, _first_line(router), "no: can be simulated in parts" if router.stateless else "yes")
            for name, router in routers
        ]
        show_list(("router", "which replica serves a session", "looks at replicas"), rows)


def _first_line(thing: object) -> str:
    return (type(thing).__doc__ or "").strip().partition("\n")[0]


@app.command("profiles")
def list_profiles() -> None:
    """List the cost profiles, and where their figures come from."""
    with _with_exit_codes():
        from caesura.cli.terminal import show_list
        from caesura.config.profiles import profile_names, read_profile

        rows = []
        for name in profile_names():
            profile = read_profile(name)
            what = f"{profile.model} on {profile.gpu}; {profile.kv_capacity_tokens:,} tokens of KV cache"
            rows.append((name, what, f"{profile.origin}: {profile.source}"))
        show_list(("profile", "of what", "origin"), rows)


@app.command()
def profile(
    out: Annotated[Path, typer.Option("--out", "-o", help="The profile's folder; the same command goes on there.")],
    model: Annotated[
        str | None,
        typer.Option(help="A name in configs/models, a YAML file or a Hugging Face folder; --refit needs none."),
    ] = None,
    budget: Annotated[str, typer.Option(help="How long to measure, set-up apart.")] = "7 min",
    device: Annotated[str, typer.Option(help="cuda, cuda:1, ...; cpu to rehearse.")] = "cuda",
    memory_fraction: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="Share of the GPU's memory that the server may take.")
    ] = 0.9,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the samples that lie in the folder.")] = False,
    refit: Annotated[bool, typer.Option("--refit", help="Measure nothing; fit the samples there anew.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure what a model costs on this GPU, and write a profile to simulate with."""
    with _with_exit_codes():
        from caesura.cli.gpu import measure_profile
        from caesura.cli.options import seconds

        measure_profile(
            model, out, device=device, budget_s=seconds(budget, "--budget"), memory_fraction=memory_fraction,
            fresh=fresh, refit=refit, quiet=quiet,
        )  # fmt: skip


@app.command()
def validate(
    folder: Annotated[
        Path | None, typer.Argument(help="With --recorded: the folder of the recorded runs [those that ship].")
    ] = None,
    recorded: Annotated[bool, typer.Option("--recorded", help="Replay recorded runs; needs no GPU.")] = False,
    profile: Annotated[
        str | None, typer.Option(help="Costs to replay with [those measured of this model on this GPU].")
    ] = None,
    systems: Annotated[str | None, typer.Option(help="Systems, as in vllm,infercept.")] = None,
    loads: Annotated[str | None, typer.Option(help="Sessions per second, as in 8,12,16.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to run [the profile's].")] = None,
    trace: Annotated[str | None, typer.Option(help="A shipped trace's name, or a file [infercept-mix].")] = None,
    duration: Annotated[str | None, typer.Option(help="How long sessions arrive [90 s].")] = None,
    horizon: Annotated[str | None, typer.Option(help="When a run is cut [20 s after the last arrival].")] = None,
    kv_capacity: Annotated[
        str | None, typer.Option(help="KV pool on the GPU, as in '80000 tokens' or '10 GB'.")
    ] = None,
    host_capacity: Annotated[
        str | None, typer.Option(help="KV pool on the host, as in '160000 tokens' or '20 GB'.")
    ] = None,
    max_context: Annotated[int | None, typer.Option(min=2, help="Longer sessions are cut [2048 tokens].")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the workload [0].")] = None,
    device: Annotated[str | None, typer.Option(help="cuda, cuda:1, ...; cpu to rehearse [cuda].")] = None,
    check: Annotated[
        int | None, typer.Option(min=0, help="Sessions of each run whose tokens are compared with those alone [12].")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for recordings and report [runs/validation; runs/replays if recorded]."
        ),
    ] = None,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Measure the simulator's error: real runs on this GPU, or recorded ones, against their replays."""
    with _with_exit_codes():
        from caesura.cli import validate as command

        how = {
            "model": model, "trace": trace, "duration": duration, "horizon": horizon, "kv_capacity": kv_capacity,
            "host_capacity": host_capacity, "max_context": max_context, "seed": seed, "device": device, "check": check,
        }  # fmt: skip
        what = {"profile": profile, "systems": systems, "loads": loads}
        out = out or Path("runs/replays" if recorded else "runs/validation")
        if recorded:
            command.refuse_given(how)
            replayed = command.validate_recorded(folder, out, **what, jobs=jobs, quiet=quiet)
        else:
            command.refuse_folder(folder)
            plan = command.plan_from_options(**how, **what)  # type: ignore[arg-type]
            replayed = command.validate_here(plan, out, jobs, quiet)
        if not quiet:
            command.show(replayed, out)


@app.command()
def schema() -> None:
    """Print the JSON schema of experiment files, for editors."""
    from caesura.config.schema import json_schema

    print(json_schema(), end="")


def _run_and_write(experiment: ResolvedExperiment, out: Path | None, where: RunExecutor, quiet: bool) -> None:
    from caesura.config.experiment import slow_notes
    from caesura.runs.run_experiment import run_experiment

    _note_slow(slow_notes(experiment))
    folder = out or Path("runs") / experiment.name
    runs, kept = run_experiment(experiment, folder, where, progress=False if quiet else None)
    from caesura.results.report import write_results

    comparison = write_results(experiment, runs, folder)
    if not quiet:
        from caesura.cli.terminal import show_comparison

        show_comparison(comparison, kept)


def _note_slow(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"caesura: note: {note}", file=sys.stderr)
