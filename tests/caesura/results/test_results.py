"""What a comparison leaves behind, on the command line, in its folder and in Python."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

import caesura as package
from caesura.config import paths
from caesura.results.figures import FAMILIES, panel_systems, style
from caesura.results.metrics import USES
from caesura.results.text_table import number
from policies.contract import Discard, EngineView, InterceptPolicy, Paused, Verdict

EXPERIMENT = """\
workload: {trace: infercept-mix, arrivals: {poisson: {rate: [1, 2]}}, duration: 20 s}
systems: [vllm, vllm-chunked, infercept, infercept-oracle]
seeds: 2
objective: {normalized_latency: 16 ms}
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> package.Comparison:
    """One small comparison that the tests of this file read."""
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "x.yaml").write_text(EXPERIMENT)
    return package.compare(folder / "x.yaml", out=folder / "out", jobs=1)


def test_the_folder_holds_what_the_docs_say(found: package.Comparison) -> None:
    names = {file.relative_to(found.folder).as_posix() for file in found.folder.rglob("*") if file.is_file()}
    outside = {name for name in names if not name.startswith("runs/")}
    assert outside == {
        "comparison.json",
        "experiment.yaml",
        "summary.csv",
        "sustained.csv",
        "tables.md",
        "report.html",
        "figures/latency.png",
        "figures/waste.png",
        "figures/memory.png",
    }
    assert len({name.split("/")[1] for name in names - outside}) == 4 * 2 * 2


def test_tables_have_a_row_for_every_system_load_and_seed(found: package.Comparison) -> None:
    assert len(found.runs) == 16
    assert len(found.table) == 8
    assert set(found.table["seeds"]) == {2}
    one = found.runs[(found.runs["system"] == "vllm") & (found.runs["load"] == 1)]
    row = found.table[(found.table["system"] == "vllm") & (found.table["load"] == 1)].iloc[0]
    assert row["mean_ttft_ms"] == pytest.approx(one["mean_ttft_ms"].mean())
    assert list(found.table["system"].unique()) == found.systems


def test_sessions_and_calls_agree_with_the_summaries(found: package.Comparison) -> None:
    label = ["system", "load", "seed"]
    sessions = found.sessions.groupby(label, sort=False)
    runs = found.runs.set_index(label)
    assert (sessions.size() == runs["num_prompts"]).all()
    assert sessions["normalized_latency"].mean().to_numpy() == pytest.approx(
        runs["mean_normalized_latency_s"].to_numpy(dtype=float)
    )
    later = found.calls[found.calls["call"] > 0].groupby(label, sort=False)["ttft"].mean() * 1e3
    assert later.to_numpy() == pytest.approx(runs["mean_resume_ttft_ms"].to_numpy(dtype=float))
    assert (found.timeline.groupby(label, sort=False)["time"].max() <= runs["duration"]).all()


def test_the_uses_of_memory_add_up_to_everything(found: package.Comparison) -> None:
    assert found.runs[[f"{use}_pct" for use in USES]].sum(axis=1).to_numpy() == pytest.approx(100.0, abs=1e-6)


def test_systems_are_compared_on_the_same_sessions(found: package.Comparison) -> None:
    """Same load and seed: the same ids, arrivals and tokens under every system."""
    columns = ["id", "arrival", "prompt_tokens", "output_tokens", "returned_tokens"]
    for _, same in found.sessions.groupby(["load", "seed"]):
        per_system = [rows[columns].reset_index(drop=True) for _, rows in same.groupby("system")]
        for rows in per_system[1:]:
            pd.testing.assert_frame_equal(rows, per_system[0])


def test_loading_gives_the_same_back(found: package.Comparison) -> None:
    again = package.load(found.folder)
    pd.testing.assert_frame_equal(again.table, found.table)
    assert again.systems == found.systems
    assert repr(again) == repr(found)
    assert "vllm" in again._repr_html_()


def test_the_summary_is_json_with_the_names_of_vllm_bench(found: package.Comparison) -> None:
    folder = next(iter(found.folders.values()))
    summary = json.loads((folder / "summary.json").read_text())
    expected = "completed duration total_input_tokens total_output_tokens request_throughput output_throughput"
    spread = [f"{kind}_{name}_ms" for kind in ("mean", "median", "std", "p99") for name in ("ttft", "tpot", "e2el")]
    assert set(expected.split()) | set(spread) <= set(summary)
    assert not [key for key, value in summary.items() if isinstance(value, float) and not math.isfinite(value)]


def test_the_provenance_says_what_made_it(found: package.Comparison) -> None:
    facts = [json.loads((folder / "provenance.json").read_text()) for folder in found.folders.values()]
    assert {"caesura", "numpy", "simpy", "python", "code_sha256"} <= set(facts[0]["versions"])
    by_load_and_seed = {
        (load, seed): {
            json.loads((folder / "provenance.json").read_text())["workload_sha256"]
            for (_, this_load, this_seed), folder in found.folders.items()
            if (this_load, this_seed) == (load, seed)
        }
        for load in found.loads
        for seed in found.seeds
    }
    assert all(len(hashes) == 1 for hashes in by_load_and_seed.values()), "one workload for all systems"
    assert found.oracles() == ["infercept-oracle"]


def test_the_report_is_whole_and_fetches_nothing(found: package.Comparison) -> None:
    page = found.report.read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<script" not in page
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)
    assert "Oracle." in page
    assert "less than 0.5 % of the memory" in page
    assert "Published constants" in page
    assert "engine.mixed_batches" in page, "the differences between the systems"
    assert "engine.block_size" not in page.split("<details>")[0], "what is alike is not listed"
    for system in found.systems:
        assert f">{system}<" in page


def test_what_a_person_writes_is_escaped_in_the_report(caesura: Callable, experiment: Callable, folder: Path) -> None:
    (folder / "own.yaml").write_text("extends: vllm\nsummary: <script>alert(1)</script>\n")
    experiment("workload: {arrivals: {poisson: {rate: 2}}, duration: 5 s}\nsystems: [own.yaml]\n")
    assert caesura("run", "x.yaml", "--out", "o").code == 0
    assert "<script" not in (folder / "o/report.html").read_text()


def test_estimates_are_marked_wherever_they_are_shown(caesura: Callable, folder: Path) -> None:
    said = caesura(
        "compare", "--systems", "vllm", "--rates", "2", "--duration", "5", "--out", "o",
        "--profile", "analytic/llama-3.1-8b-h200",
    )  # fmt: skip
    assert said.code == 0
    assert "Estimate: analytic/llama-3.1-8b-h200 was not measured" in said.out
    assert "Estimate." in (folder / "o/report.html").read_text()


def test_a_measured_profile_whose_fit_misses_its_aim_says_so_where_its_results_are_shown(
    folder: Path, caesura: Callable
) -> None:
    shipped = yaml.safe_load((paths.profiles() / "h200" / "llama-3.1-8b" / "profile.yaml").read_text())
    said = {}
    for within in (True, False):
        shipped["measured"]["within_aim"] = within
        (folder / "mine.yaml").write_text(yaml.safe_dump(shipped))
        done = caesura(
            "compare", "--systems", "vllm", "--rates", "1", "--duration", "2 s", "--profile", "mine.yaml",
            "--out", f"out-{within}",
        )  # fmt: skip
        said[within] = done.out, (folder / f"out-{within}" / "report.html").read_text()
    assert "with a fit that misses its aim" not in said[True][0] + said[True][1]
    assert "Measured, with a fit that misses its aim: Measured on" in said[False][0]
    assert "with a fit that misses its aim" in said[False][1]


def test_figures_are_pictures(found: package.Comparison) -> None:
    for name in ("latency", "waste", "memory"):
        assert found.figure(name)._repr_png_().startswith(b"\x89PNG")
        assert (found.folder / "figures" / f"{name}.png").stat().st_size > 10_000
    with pytest.raises(package.UserError, match="there is no figure 'speed'; there are latency, waste, memory"):
        found.figure("speed")


def test_a_family_keeps_its_colour_and_a_twin_is_dashed() -> None:
    systems = ["vllm", "vllm-chunked", "infercept-oracle", "mine", "yours"]
    assert style("vllm", systems) == (FAMILIES["vllm"], "-")
    assert style("vllm-chunked", systems) == (FAMILIES["vllm"], "--")
    assert style("infercept-oracle", systems) == (FAMILIES["infercept"], ":")
    assert style("mine", systems)[0] != style("yours", systems)[0]


def test_the_memory_figure_shows_at_most_eight_systems(found: package.Comparison) -> None:
    assert panel_systems(found) == found.systems


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234"), (None, "–"), (math.nan, "–")],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_compare_prints_tables_and_where_the_report_lies(caesura: Callable) -> None:
    said = caesura("compare", "--systems", "vllm,infercept", "--rates", "1", "--duration", "10", "--out", "o")
    assert said.code == 0
    assert said.err == ""
    assert "sustained: at most 100 ms" in said.out
    assert re.search(r"^vllm +≥ 1.00 +1.00× ", said.out, re.MULTILINE)
    assert re.search(r"^infercept +≥ 1.00 ", said.out, re.MULTILINE)
    assert "Report: o/report.html" in said.out
    assert "knew how long" not in said.out


def test_quiet_says_nothing(caesura: Callable) -> None:
    said = caesura("compare", "-q", "--systems", "vllm", "--rates", "1", "--duration", "10", "--out", "o")
    assert (said.code, said.out, said.err) == (0, "", "")


def test_results_go_to_runs_and_the_experiments_name(caesura: Callable, experiment: Callable, folder: Path) -> None:
    experiment()
    caesura("run", "x.yaml", "--set", "systems=[vllm]", "--set", "workload.arrivals.poisson.rate=1")
    assert (folder / "runs/x/report.html").is_file()


def test_options_override_a_file(caesura: Callable, experiment: Callable) -> None:
    experiment("workload: {arrivals: {gamma: {rate: 1, burstiness: 0.5}}, duration: 10 s}\nsystems: [vllm]\n")
    said = caesura("compare", "x.yaml", "--rates", "2,3", "--seeds", "1", "--systems", "swap", "--out", "o")
    assert said.code == 0
    found = package.load("o")
    assert (found.systems, found.loads) == (["swap"], [2.0, 3.0])
    assert "burstiness: 0.5" in Path("o/experiment.yaml").read_text()


def test_a_recorded_trace_is_replayed_at_its_speeds(caesura: Callable, experiment: Callable, folder: Path) -> None:
    """Arrivals at 0, 10 and 20 s: within 15 s two of them at the recorded speed, all three at twice the speed."""
    line = '{{"id": "{0}", "arrival": {0}, "prompt": 5, "calls": [{{"output": 3}}]}}\n'
    (folder / "t.jsonl").write_text("".join(line.format(at) for at in (0, 10, 20)))
    experiment("workload: {trace: t.jsonl, arrivals: {replay: {speed: [1, 2]}}, duration: 15 s}\nsystems: [vllm]\n")
    assert caesura("run", "x.yaml", "--out", "o").code == 0
    found = package.load("o")
    assert found.sessions.groupby("load")["arrival"].apply(list).to_dict() == {1.0: [0, 10], 2.0: [0, 5, 10]}
    assert found.load_unit == "times the recorded speed"


def test_too_long_sessions_are_cut_or_rejected_and_counted(caesura: Callable, experiment: Callable) -> None:
    experiment()
    words = ("run", "x.yaml", "--set", "systems=[vllm]", "--set", "workload.max_context=500")
    caesura(*words, "--out", "cut")
    caesura(*words, "--out", "reject", "--set", "workload.too_long=reject")
    cut, reject = package.load("cut").runs, package.load("reject").runs
    assert (cut["cut"] == reject["rejected"]).all()
    assert (cut["cut"] > 0).all()
    assert (cut["num_prompts"] == reject["num_prompts"]).all()
    assert (cut["completed"] == cut["num_prompts"]).all()


def test_a_horizon_leaves_sessions_unfinished(caesura: Callable, experiment: Callable) -> None:
    experiment()
    said = caesura("run", "x.yaml", "--set", "replica.horizon=12 s", "--out", "o")
    assert "sessions unfinished" in said.out
    runs = package.load("o").runs
    assert (runs["duration"] <= 12 + 1e-9).all()
    assert (runs["unfinished"] > 0).all()


def test_systems_and_profiles_are_listed_with_their_origin(caesura: Callable) -> None:
    systems, profiles = caesura("systems"), caesura("profiles")
    assert systems.code == profiles.code == 0
    assert "infercept-oracle" in systems.out
    assert "arXiv 2402.01869" in re.sub(r"\s+", " ", systems.out)
    assert "published/gpt-j-6b-a100-40g" in profiles.out
    assert "estimate" in profiles.out


def test_version(caesura: Callable) -> None:
    assert re.fullmatch(r"caesura \d+\.\d+\.\d+\n", caesura("--version").out)


def test_help_starts_fast_and_loads_nothing_heavy() -> None:
    """Less than half a second of CPU; pandas, pyarrow, matplotlib and pydantic stay on the disk."""
    code = (
        "import resource, sys\n"
        "sys.argv = ['caesura', '--help']\n"
        "from caesura.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "heavy = {'pandas', 'pyarrow', 'matplotlib', 'pydantic', 'numpy', 'simpy', 'joblib'} & set(sys.modules)\n"
        "print('CPU', used.ru_utime + used.ru_stime, sorted(heavy))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, heavy = re.search(r"CPU ([\d.]+) (.*)", out).groups()
    assert heavy == "[]"
    assert float(seconds) < 0.5


class DropAll(InterceptPolicy):
    """A policy as one writes it in a notebook."""

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        return Discard(reasons={"tokens": paused.context_tokens})


def test_simulate_takes_a_policy_object_and_logs_its_decisions() -> None:
    one = package.simulate("vllm", policy=DropAll(), rate=2, duration=10, log_decisions=True)
    preset = package.simulate("vllm", rate=2, duration="10 s")
    assert one.summary == preset.summary, "vllm discards, too"
    assert len(one.sessions) == one.summary["num_prompts"]
    assert len(one.calls) >= len(one.sessions)
    assert len(one.timeline) == math.ceil(one.summary["duration"])
    assert set(one.decisions["verdict"].str.lower()) == {"discard"}


def test_python_takes_mappings_and_leaves_them_alone(folder: Path) -> None:
    experiment = {
        "workload": {"arrivals": {"poisson": {"rate": [1, 2]}}, "duration": "5 s"},
        "systems": ["vllm", {"preset": "vllm", "name": "small", "engine": {"block_size": 8}}],
    }
    before = json.dumps(experiment)
    found = package.compare(experiment, rates=[3], seeds=[7], out="o")
    assert (found.loads, found.seeds, found.systems) == ([3.0], [7], ["vllm", "small"])
    assert json.dumps(experiment) == before
    again = package.run(experiment, set={"workload.arrivals.poisson.rate": 3, "seeds": [7]}, out="o")
    pd.testing.assert_frame_equal(again.table, found.table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rates": [-1]}, "argument rates: workload.arrivals.poisson.rate"),
        ({"systems": ["vlm"]}, "argument systems: systems.0.: unknown system 'vlm'"),
        ({"profile": "nope"}, "argument profile: replica.profile: unknown profile"),
        ({"duration": "long"}, "argument duration: workload.duration: 'long' is not a quantity"),
    ],
)
def test_python_errors_name_the_argument(arguments: dict, message: str, folder: Path) -> None:
    with pytest.raises(package.ConfigError, match=message):
        package.compare(**arguments)
    assert not list(folder.iterdir())


def test_the_package_names_what_it_has() -> None:
    assert {"compare", "run", "load", "simulate"} <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'compute'"):
        package.compute  # noqa: B018
