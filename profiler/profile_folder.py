"""The profile folder: from samples to ``profile.yaml``, whose costs the simulator uses, with their errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from profiler.fit import ForwardFit, NotEnoughPoints, device_seconds, error_of, fit_forward, relative
from profiler.fit_copies import CopyFit, fit_copies
from profiler.fit_host import SERVED, fit_host, host_figures
from profiler.fit_power import at_reference, fit_power
from profiler.iterations import batches
from profiler.measure.machine import CLOCKS
from profiler.measure.samples import Samples, write_atomically
from profiler.points import Floats, Mask, Packing, Points, points_of
from profiler.saturation import SHARE, saturation_point
from sim.costs import CostModel
from sim.power import power_of
from sim.profile import Error, HostCost, Measurement, PhysicalForward, Profile

FILE = "profile.yaml"
MEDIAN_AIM, P95_AIM = 0.03, 0.08
HELD_OUT_AIM = 200
SATURATION_REACH = 2048
"""Tokens: beyond, attention within the chunk is no longer small beside the matrix products."""
DIGITS = 6
HELD_OUT = ("held-out", "held-out-long")
"""Sets of random batches, which no fit has seen."""


@dataclass(frozen=True, slots=True)
class Findings:
    """A profile and what it was made from, for figures and tables.

    Attributes:
        points: every measured iteration.
        predicted: seconds for each of them.
        curve: iteration seconds by query tokens of one chunk without prior context, the points that S comes from.
        iterations, copies, beside, recompute, serving: the samples.
    """

    profile: Profile
    points: Points
    predicted: Floats
    curve: tuple[Floats, Floats]
    copies: pd.DataFrame
    beside: pd.DataFrame
    recompute: pd.DataFrame
    serving: pd.DataFrame


def make_profile(samples: Samples) -> Findings:
    """Fit everything.

    Raises:
        NotEnoughPoints: too little was measured.
        CannotMeasure: nothing was.
    """
    provenance, facts = samples.provenance, samples.facts
    tables = {name: samples.read(name) for name in ("copies", "beside", "recompute", "serving")}
    iterations = samples.read("iterations")
    if missing := [name for name, table in {**tables, "iterations": iterations}.items() if table.empty]:
        raise NotEnoughPoints(f"{', '.join(missing)} were not measured yet, so that nothing can be fitted")
    serving = tables["serving"]
    if "begun" not in serving:  # measured before it was noted: every chunk of that run begins a call
        serving = serving.assign(begun=serving["chunks"])
    nothing = {name: 0 for name in SERVED if name not in serving}  # nor were these
    tables["serving"] = serving.assign(**nothing)
    points, fit = _fit(iterations, Packing.of(facts), int(provenance["seed"]))
    on_grid = _on_grid(points)
    predicted = device_seconds(fit.forward, points)
    curve = _one_chunk_curve(points)
    copies = fit_copies(tables["copies"], tables["beside"], overlaps="cuda" in provenance["machine"])
    profile = _profile(provenance, facts, fit.forward, copies, saturation_point(*curve))
    profile = profile.model_copy(update={"host": fit_host(tables["serving"], iterations)})
    errors = {"cross_validated": error_of(fit.cross_validated), **_errors(points, predicted)}
    errors |= {f"cross_validated_{name}": error_of(fit.cross_validated[points.sets[on_grid] == name])
               for name in sorted(set(points.sets[on_grid].tolist()))}  # fmt: skip
    errors |= {"copies": copies.error, **_errors_of_sequences(profile, tables["recompute"], tables["serving"])}
    measured = _measurement(samples, points, errors, copies)
    figures = {
        "host": host_figures(tables["serving"], points),
        "saturation": _saturation_figures(profile),
    }
    profile = profile.model_copy(update={"measured": measured.model_copy(update=figures), "source": _source(measured)})
    return Findings(profile, points, predicted, curve, **tables)


def _fit(iterations: pd.DataFrame, packing: Packing, seed: int) -> tuple[Points, ForwardFit]:
    """The costs: fitted without regard to the order of passes, then to what they take at the same power."""
    points = points_of(iterations, packing)
    first = fit_forward(points[_on_grid(points)], packing, seed)
    power = fit_power(iterations, first.forward, points)
    if power is None:
        return points, first
    points = points_of(at_reference(iterations, first.forward, points, power), packing)
    second = fit_forward(points[_on_grid(points)], packing, seed)
    return points, replace(second, forward=second.forward.model_copy(update={"power": power}))


def _on_grid(points: Points) -> Mask:
    grid: Mask = ~np.isin(points.sets, (*HELD_OUT, "reference"))
    return grid


def write_profile(folder: Path, findings: Findings) -> None:
    """Write ``profile.yaml`` and the figures."""
    from profiler.profile_figures import draw_all

    measured = findings.profile.measured
    assert measured is not None
    comment = "".join(f"# {line}\n" for line in (f"Made by: caesura profile, {measured.date}", measured.verdict))
    facts = _rounded(findings.profile.model_dump(mode="json", exclude_none=True))
    text = yaml.dump(facts, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, comment + text)
    draw_all(folder / "figures", findings)


def verdict_on(held_out: Error, cross_validated: Error) -> tuple[bool, str]:
    """Whether the costs are as right as they should be, and a sentence that says so."""
    aim = f"aim: {MEDIAN_AIM:.0%} and {P95_AIM:.0%}"
    if held_out.points < HELD_OUT_AIM:
        return False, (
            f"MISSES ITS AIM: only {held_out.points} random batches were measured, not {HELD_OUT_AIM}; their error is "
            f"{held_out.median:.1%} in the median and {held_out.p95:.1%} at P95 ({aim})."
        )
    found = (
        f"on {held_out.points} random batches that the fit had not seen, costs are wrong by {held_out.median:.1%} in "
        f"the median and {held_out.p95:.1%} at P95 ({aim}); cross-validated on the grid by "
        f"{cross_validated.median:.1%} and {cross_validated.p95:.1%}."
    )
    if held_out.median <= MEDIAN_AIM and held_out.p95 <= P95_AIM:
        return True, f"Meets its aim: {found}"
    return False, f"MISSES ITS AIM: {found}"


def _profile(
    provenance: dict[str, Any], facts: dict[str, Any], forward: PhysicalForward, copies: CopyFit, saturation: int
) -> Profile:
    model, gpu, block = provenance["model"], provenance["machine"]["gpu"], int(provenance["block_size"])
    block_bytes = int(facts["block_bytes"])
    return Profile(
        name=f"{model['name']} on {gpu}",
        model=model["name"],
        gpu=gpu,
        origin="measured",
        source="",
        kv_bytes_per_token=block_bytes // block,
        kv_capacity_tokens=int(facts["pool_bytes"] // block_bytes) * block,
        host_capacity_tokens=int(facts["host_bytes"] // block_bytes) * block,
        saturation_tokens=saturation,
        max_context=model["max_context"],
        forward=forward,
        swap=copies.cost,
    )


def _one_chunk_curve(points: Points) -> tuple[Floats, Floats]:
    """Seconds over tokens of one chunk without prior context."""
    alone = (points.chunks == 1) & (points.decodes == 0) & (points.chunk_context == points.chunk_tokens)
    alone &= np.isin(points.sets, ("prefill", "tokens")) & (points.chunk_tokens <= SATURATION_REACH)
    chosen = points[alone]
    order = np.argsort(chosen.chunk_tokens)
    return chosen.chunk_tokens[order], chosen.seconds[order]


def _saturation_figures(profile: Profile) -> dict[str, float]:
    """S, and S once more by the same rule from the fitted costs."""
    tokens = np.unique(np.geomspace(1, SATURATION_REACH, 80).round())
    costs = CostModel(profile)
    seconds = np.array([costs.forward_time(int(count)) for count in tokens])
    return {
        "measured_tokens": float(profile.saturation_tokens),
        "fitted_tokens": float(saturation_point(tokens, seconds)),
        "share": SHARE,
    }


def _errors(points: Points, predicted: Floats) -> dict[str, Error]:
    """Of the random batches, in all and by kind."""
    errors, held_out = relative(predicted, points.seconds), np.isin(points.sets, HELD_OUT)
    decodes, chunks = points.decodes > 0, points.chunks > 0
    longer = points.sets == "held-out-long"
    by_length = {"held_out_short": error_of(errors[held_out & ~longer]), "held_out_long": error_of(errors[longer])}
    return (by_length if longer.any() else {}) | {
        "held_out": error_of(errors[held_out]),
        "held_out_decode": error_of(errors[held_out & decodes & ~chunks]),
        "held_out_prefill": error_of(errors[held_out & ~decodes & chunks]),
        "held_out_mixed": error_of(errors[held_out & decodes & chunks]),
    }


def _errors_of_sequences(profile: Profile, recompute: pd.DataFrame, serving: pd.DataFrame) -> dict[str, Error]:
    """Of whole recomputations on the device, and of a serving run's iterations by the wall clock."""
    found = {}
    device = CostModel(profile.model_copy(update={"host": HostCost()}))
    if not recompute.empty:
        cases = recompute.groupby(["context", "chunk"])["device_s"].median().reset_index()
        whole = [recompute_time(device, int(context), int(chunk))
                     for context, chunk in zip(cases["context"], cases["chunk"], strict=True)]  # fmt: skip
        found["recompute"] = error_of(relative(np.array(whole), cases["device_s"].to_numpy(dtype=np.float64)))
    if not serving.empty:
        host, predicted = profile.host, np.array(_served(profile, serving))
        for name, cost in (
            ("opened", host.per_arrival_s),
            ("copies_out", host.copies_out_s),
            ("copies_in", host.copies_in_s),
        ):
            predicted += cost * serving[name].to_numpy(dtype=np.float64)
        found["serving"] = error_of(relative(predicted, serving["wall_s"].to_numpy(dtype=np.float64)))
    return found


def _served(profile: Profile, serving: pd.DataFrame) -> list[float]:
    """Seconds of a serving run's iterations, one after the other, without what sessions that arrive cost."""
    costs = CostModel(profile)
    served = batches(serving.assign(opened=0))
    state = power_of(costs)
    if state is None:
        return [costs.iteration_time(batch) for batch in served]
    now, found = 0.0, []
    for batch, wall in zip(served, serving["wall_s"].tolist(), strict=True):
        found += state.pass_times(batch, now, 1)
        now += wall
        state.took(1, now)
    return found


def recompute_time(costs: CostModel, context: int, chunk: int) -> float:
    """Seconds to compute a context in chunks, one iteration each."""
    starts = range(0, context, chunk)
    return sum(costs.forward_time(min(chunk, context - start), start) for start in starts)


def _measurement(samples: Samples, points: Points, errors: dict[str, Error], copies: CopyFit) -> Measurement:
    provenance, facts = samples.provenance, samples.facts
    within, verdict = verdict_on(errors["held_out"], errors["cross_validated"])
    runs = facts.get("runs", [])
    seconds = sum(run["seconds"] for run in runs)
    machine = {**provenance["machine"], "attention": facts["attention"], "copies": facts["swap_way"]}
    machine |= {"clocks": _clocks(samples.read("clocks")), "drift": _drift(points)}
    machine |= {"measured_for": f"{seconds:.0f} s, and {sum(facts['set_up_s']):.0f} s to set up"}
    return Measurement(
        date=runs[-1]["date"] if runs else "unknown",
        commit=provenance["commit"],
        machine=machine,
        within_aim=within,
        verdict=verdict,
        errors=errors,
        range={
            "decodes": int(points.decodes.max()),
            "decode_context": int(points.decode_context.max()),
            "context": int((points.decode_context / np.maximum(points.decodes, 1)).max()),
            "chunk_tokens": int(points.chunk_tokens.max()),
            "chunk_context": int(points.chunk_context.max()),
        },
        memory=facts["memory"],
        swap=copies.figures,
    )


def _clocks(clocks: pd.DataFrame) -> str:
    """What nvidia-smi saw under load."""
    if clocks.empty:
        return "unknown"
    ranges = {name: (clocks[name].min(), clocks[name].max()) for name in CLOCKS}
    (sm, sm_most), (mem, mem_most), (_, hot), (_, watts) = ranges.values()
    return (
        f"SM {sm:.0f} to {sm_most:.0f} MHz, memory {mem:.0f} to {mem_most:.0f} MHz, at most {hot:.0f} °C, {watts:.0f} W"
    )


def _drift(points: Points) -> str:
    """How far apart the visits to the reference shapes lie."""
    found = []
    for kind in ("decode", "chunk"):
        seconds = points.seconds[np.char.startswith(points.names, f"reference {kind}")]
        if len(seconds) > 1:
            spread = (seconds.max() - seconds.min()) / np.median(seconds)
            found.append(f"{kind} {spread:.1%} between {len(seconds)} visits")
    return "; ".join(found) or "unknown"


def _source(measured: Measurement) -> str:
    machine = measured.machine
    software = f"torch {machine['torch']}, FlashInfer {machine.get('flashinfer', 'none')}"
    held_out = measured.errors["held_out"]
    errors = f"wrong by {held_out.median:.1%} in the median, {held_out.p95:.1%} at P95, on batches not fitted"
    warning = "" if measured.within_aim else " THE FIT MISSES ITS AIM."
    return f"Measured on {measured.date} by `caesura profile` {measured.commit}, {software}; {errors}.{warning}"


class _Dumper(yaml.SafeDumper):
    """Pairs and lists of numbers on one line."""


def _list(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    plain = all(not isinstance(item, dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)


_Dumper.add_representer(list, _list)


def _rounded(value: Any) -> Any:
    """Floats to ``DIGITS`` digits, all the way down; empty parts left out."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items() if inner not in ({}, [])}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
