"""Writes the tables, figures and self-contained report of a comparison beside its runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from caesura.config.experiment import ResolvedExperiment, read_experiment, write_experiment
from caesura.config.systems import differences
from caesura.config.yaml_source import read_yaml
from caesura.errors import UserError
from caesura.results.comparison import MARK, Comparison, load
from caesura.results.figures import FIGURES
from caesura.results.html import embed_image, render_html
from caesura.results.remarks import comparison_remarks
from caesura.results.sections import FilledSection, fill, markdown
from caesura.results.tables import NEGLIGIBLE, SECTIONS
from caesura.runs.code_hash import versions
from caesura.runs.run import Run
from caesura.runs.run_folder import write_bytes, write_file, write_json
from sim.costs.profile import Profile


def _note_replaced(file: Path, experiment: ResolvedExperiment) -> None:
    """Say so where the folder held the results of another experiment: its runs stay, its tables do not."""
    if file.is_file() and not _is_same(file, experiment):
        print(
            f"caesura: note: {file.parent} held the results of another experiment; its runs stay, its tables and "
            "report are replaced (name another folder with --out)",
            file=sys.stderr,
        )


def _is_same(file: Path, experiment: ResolvedExperiment) -> bool:
    """Whether a file says this experiment, by meaning: settings that it does not name are at their defaults."""
    try:
        return read_experiment(read_yaml(file), experiment.name, experiment.base) == experiment
    except UserError:  # it names what is not there any more
        return False


def write_results(experiment: ResolvedExperiment, runs: list[Run], out: Path) -> Comparison:
    """Everything beside the runs; ``comparison.json`` comes last, so that a folder that has it is whole.

    Raises:
        UserError: the folder cannot be written.
    """
    config = write_experiment(experiment)
    facts = _facts(experiment, runs)
    folders = {(run.system.name, run.workload.load, run.workload.seed): out / "runs" / run.name for run in runs}
    comparison = Comparison(out, experiment.name, facts, folders)
    images = {name: comparison.figure(name).png() for name in FIGURES}
    sections = fill(SECTIONS, comparison)
    page = _page(comparison, config, images, sections)
    _note_replaced(out / "experiment.yaml", experiment)
    write_bytes(out / "experiment.yaml", yaml.safe_dump(config, sort_keys=False).encode())
    write_file(out / "summary.csv", lambda draft: comparison.table.to_csv(draft, index=False))
    write_file(out / "sustained.csv", lambda draft: comparison.sustained_table.to_csv(draft, index=False))
    for name, image in images.items():
        write_bytes(out / "figures" / f"{name}.png", image)
    write_bytes(out / "tables.md", markdown(comparison.name, sections))
    write_bytes(out / "report.html", page.encode())
    write_file(out / MARK, lambda draft: write_json(draft, facts))
    return load(out)


def _facts(experiment: ResolvedExperiment, runs: list[Run]) -> dict[str, Any]:
    return {
        "name": experiment.name,
        "load_unit": experiment.workload.arrivals.load_unit,
        "duration": experiment.workload.duration,
        "objective": experiment.objective.model_dump(),
        "profile": _profile_facts(experiment.profile_reference, experiment.profile),
        "replicas": _replica_facts(experiment),
        "systems": [
            {"name": system.name, "preset": system.preset, "summary": system.summary, "origin": system.origin}
            for system in experiment.systems
        ],
        "differences": differences(experiment.systems),
        "versions": versions(),
        "runs": [run.label | {"folder": run.name} for run in runs],
    }


def _profile_facts(reference: str, profile: Profile) -> dict[str, Any]:
    return {
        "name": reference,
        "model": profile.model,
        "gpu": profile.gpu,
        "origin": profile.origin,
        "source": profile.source,
        "misses_aim": profile.measured is not None and not profile.measured.within_aim,
        "kv_capacity_tokens": profile.kv_capacity_tokens,
        "host_capacity_tokens": profile.host_capacity_tokens,
    }


def _replica_facts(experiment: ResolvedExperiment) -> list[dict[str, Any]]:
    """How many replicas there are of each sort."""
    if experiment.cluster is None:
        return [{"count": 1, **_profile_facts(experiment.profile_reference, experiment.profile)}]
    return [{"count": one.count, **_profile_facts(one.reference, one.profile)} for one in experiment.cluster.groups]


def _page(
    comparison: Comparison, config: Mapping[str, Any], images: Mapping[str, bytes], sections: Sequence[FilledSection]
) -> str:
    return render_html(
        "report.html.j2",
        comparison=comparison,
        facts=comparison.facts,
        config=config,
        config_text=yaml.safe_dump(dict(config), sort_keys=False),
        simulated=int(comparison.runs["num_prompts"].sum()),
        sections=sections,
        remarks=comparison_remarks(comparison),
        negligible=f"{100 * NEGLIGIBLE:g} %",
        images={name: embed_image(image) for name, image in images.items()},
    )
