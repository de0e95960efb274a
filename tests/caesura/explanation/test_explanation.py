"""``caesura explain``: one session's story, from a run's folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

import caesura as package
from caesura.explanation.text import reasons
from tests.caesura.conftest import Said

Caesura = Callable[..., Said]
THREE = """\
workload: {trace: infercept-mix, arrivals: {poisson: {rate: 4}}, duration: 20 s}
systems: [vllm, swap, cache-lru]
"""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small comparison that has run."""
    folder = tmp_path_factory.mktemp("explain")
    (folder / "three.yaml").write_text(THREE)
    package.run(folder / "three.yaml", out=folder / "out", jobs=1, progress=False)
    return folder / "out"


def test_without_a_session_candidates_are_listed(compared: Path, caesura: Caesura) -> None:
    said = caesura("explain", str(compared), "--system", "vllm")
    assert said.code == 0
    sessions = pd.read_parquet(next((compared / "runs").glob("vllm.*")) / "sessions.parquet")
    slowest = sessions.loc[sessions["normalized_latency"].idxmax(), "id"]
    (line,) = [line for line in said.out.splitlines() if line.startswith("slowest")]
    assert slowest in line
    assert "most-swapped" not in said.out  # nobody was


def test_the_story_of_the_slowest_session_ends_as_its_row_says(compared: Path, caesura: Caesura) -> None:
    said = caesura("explain", str(compared), "--system", "vllm", "--session", "slowest")
    assert said.code == 0, said.err
    assert "policy, at the pause: discard" in said.out
    assert "for the second time" in said.out
    assert "came out the same, to the last bit" in said.out


def test_json_has_every_number_and_the_wastes_are_parts_of_the_runs(compared: Path, caesura: Caesura) -> None:
    said = caesura("explain", str(compared), "--system", "vllm", "--session", "most-recomputed", "--json")
    found = json.loads(said.out)
    entries = found["entries"]
    assert [entries[0]["what"], entries[-1]["what"]] == ["arrived", "finished"]
    assert entries[-1]["time"] == found["session"]["finished_at"]
    again = sum(entry["recomputed_tokens"] for entry in entries if entry["what"] == "computed")
    assert again == found["session"]["recomputed_tokens"] > 0
    own = sum(causes["recompute_own"] for causes in found["waste_token_s"].values())
    assert 0 < own < found["run_waste_token_s"]["recompute_own"]


def test_an_unknown_session_is_answered_with_near_ids(compared: Path, caesura: Caesura) -> None:
    known = pd.read_parquet(next((compared / "runs").glob("vllm.*")) / "sessions.parquet")["id"][0]
    said = caesura("explain", str(compared), "--system", "vllm", "--session", f"{known}x")
    assert said.code == 2
    assert f"no session '{known}x'" in said.err and known in said.err.replace(f"{known}x", "")


def test_an_unclear_run_is_answered_with_the_runs_there_are(compared: Path, caesura: Caesura, tmp_path: Path) -> None:
    said = caesura("explain", str(compared))
    assert said.code == 2 and "3 runs" in said.err and "swap.load-4.seed-0" in said.err
    said = caesura("explain", str(compared), "--system", "vlm")
    assert said.code == 2 and "no run with system vlm; there are cache-lru, swap, vllm" in said.err
    said = caesura("explain", str(tmp_path))
    assert said.code == 2 and "holds no run of Caesura" in said.err
    said = caesura("explain", str(tmp_path / "nowhere"))
    assert said.code == 2 and "nowhere: there is no such folder" in said.err


def test_runs_are_listed_by_the_size_of_their_load(caesura: Caesura, tmp_path: Path) -> None:
    """1, 2, 10: not 1, 10, 2 as their folders are named."""
    (tmp_path / "x.yaml").write_text(
        "workload: {arrivals: {poisson: {rate: [10, 2, 1]}}, duration: 3 s}\nsystems: [vllm]\n"
    )
    package.run(tmp_path / "x.yaml", out=tmp_path / "out", jobs=1, progress=False)
    said = caesura("explain", str(tmp_path / "out"))
    assert re.findall(r"vllm\.load-(\d+)", said.err) == ["1", "2", "10"]
    said = caesura("explain", str(tmp_path / "out"), "--load", "5")
    assert "holds no run with load 5; there are 1, 2, 10\n" in said.err


def test_a_pick_of_which_there_is_none_is_refused_with_those_there_are(compared: Path, caesura: Caesura) -> None:
    """Under vllm nothing is ever copied out."""
    said = caesura("explain", str(compared), "--system", "vllm", "--session", "most-swapped")
    assert said.code == 2
    assert "no most-swapped session" in said.err and "swapped_out_bytes is 0 in all of them" in said.err
    assert "ask for slowest, median" in said.err and "most-recomputed" in said.err


@pytest.mark.parametrize("session", ["slowest", "median", "most-queued", "most-swapped"])
def test_every_pick_has_a_story_in_python(compared: Path, session: str) -> None:
    found = package.explain(compared, session, system="swap")
    assert set(found.story["what"]) >= {"arrived", "computed", "call_ended", "decided", "swapped", "finished"}
    assert found.waste_table["swap"].sum() > 0
    assert found.story["time"].is_monotonic_increasing


def test_the_figure_is_drawn(compared: Path, caesura: Caesura, folder: Path) -> None:
    said = caesura("explain", str(compared), "--system", "swap", "--session", "median", "--figure", "one.png")
    assert said.code == 0, said.err
    assert plt.imread(folder / "one.png").std() > 0.05


def test_verdicts_are_strokes_in_a_row_each(compared: Path) -> None:
    """Under swap every pause has its own; the row's name says how many."""
    found = package.explain(compared, "most-swapped", system="swap")
    (axes,) = found.figure().axes
    pauses = found.session["pauses"]
    (strokes,) = [one for one in axes.collections if isinstance(one, LineCollection)]
    assert len(strokes.get_segments()) == pauses
    assert [text.get_text() for text in axes.texts] == [f"swap: {pauses}"]


@pytest.mark.parametrize(
    ("because", "said"),
    [
        ({"preserve": 102.0, "recompute": 7530.0}, "wastes 102 token-seconds if kept, 7,530 if recomputed"),
        ({"preserve": 0.0, "blocks_needed": 3}, "wastes 0 token-seconds if kept, blocks needed = 3"),
        ({"expected_s": 2.5, "price": 2e-6}, "expected = 2.50 s, price = 2e-06 s per token-second"),
        ({"idleness": 0.25}, "idleness = 0.250"),
    ],
)
def test_numbers_behind_a_verdict_have_units(because: dict[str, float], said: str) -> None:
    assert ", ".join(reasons(because)) == said


def test_a_policy_beside_the_experiment_is_found_again(folder: Path, caesura: Caesura) -> None:
    (folder / "droppers.py").write_text(
        "from policies.contract import Discard, InterceptPolicy\n\n\n"
        "class Drop(InterceptPolicy):\n"
        "    def on_pause(self, paused, view):\n"
        "        return Discard(reasons={'context': paused.context_tokens})\n"
    )
    (folder / "mine.yaml").write_text(
        "workload: {trace: infercept-mix, arrivals: {poisson: {rate: 4}}, duration: 5 s}\n"
        "systems: [{name: drop, policy: 'droppers:Drop'}]\n"
    )
    assert caesura("run", "mine.yaml", "--out", "out").code == 0
    said = caesura("explain", "out", "--session", "slowest")
    assert said.code == 0, said.err
    assert "discard  (context = " in said.out


def test_a_replay_that_differs_says_so(folder: Path, caesura: Caesura) -> None:
    (folder / "moody.py").write_text("from policies.basic.fixed import DiscardAlways as Mood\n")
    (folder / "mine.yaml").write_text(
        "workload: {trace: infercept-mix, arrivals: {poisson: {rate: 4}}, duration: 5 s}\n"
        "systems: [{name: moody, policy: 'moody:Mood'}]\n"
    )
    assert caesura("run", "mine.yaml", "--out", "out").code == 0
    (folder / "moody.py").write_text("from policies.basic.fixed import SwapAlways as Mood\n")
    said = caesura("explain", "out", "--session", "most-recomputed")
    assert said.code == 0 and "The replay differs from the run" in said.out


def test_a_session_that_moved_is_followed_from_replica_to_replica(folder: Path, caesura: Caesura) -> None:
    (folder / "two.yaml").write_text(
        "workload: {trace: infercept-mix, arrivals: {poisson: {rate: 4}}, duration: 10 s}\n"
        "cluster: {replicas: 2, router: round-robin-calls, kv_transfer: {bandwidth: 10 GB/s}}\n"
        "systems: [cache-lru]\n"
    )
    said = caesura("run", "two.yaml", "--out", "out")
    assert said.code == 0, said.err
    sessions = pd.read_parquet(next((folder / "out" / "runs").iterdir()) / "sessions.parquet")
    moved = sessions.loc[sessions["moves"].idxmax()]
    found = package.explain(folder / "out", moved["id"])
    assert {entry.replica for entry in found.entries} == {0, 1}
    assert sum(entry.what == "adopted" for entry in found.entries) == moved["moves"]
    assert "to the last bit" in found.notes[0]
    assert "replica" in str(found)
