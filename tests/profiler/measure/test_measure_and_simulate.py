"""From an idle CPU to a profile that the simulator takes: the whole of ``caesura profile``, on the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from policies.basic.fcfs import FirstCome
from policies.basic.fixed import PreserveAlways
from profiler.cli import CANNOT, main, profile
from profiler.fit.forward import NotEnoughPoints
from profiler.measure.samples import Samples
from sim.costs.profile import load_profile
from sim.engine.settings import EngineSettings
from sim.world.simulate import simulate
from traces.session import Call, Pause, Session

FIGURES = 10


def test_twenty_seconds_make_a_profile_to_simulate_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    findings = profile("tiny", tmp_path, device="cpu", budget_s=20.0, held_out=60)
    said = capsys.readouterr()
    assert "MISSES ITS AIM: only" in said.out and "loading tiny" in said.err
    found = load_profile(tmp_path)
    assert (found.model, found.origin, found.kv_capacity_tokens) == ("tiny", "measured", 32768)
    assert found.measured is not None and found.measured.machine["attention"] == "TorchPagedAttention"
    assert found.swap.slowdown_in == 0.0 < found.swap.in_bytes_per_s
    assert found.host.per_iteration_s > 0
    assert len(list((tmp_path / "figures").glob("*.png"))) == FIGURES
    for table in ("copies", "beside", "recompute", "serving", "iterations"):
        assert not Samples(tmp_path).read(table).empty
    assert {"prefill", "decode", "tokens", "held-out", "reference"} <= set(findings.points.sets)
    sessions = [Session(f"s{index}", 0.1 * index, 40, (Call(20, Pause(0.5, 10)), Call(10))) for index in range(20)]
    record = simulate(sessions, policy=PreserveAlways(), order=FirstCome(), settings=EngineSettings(), profile=found)
    assert len(next(iter(record.calls.values()))) == 40


def test_a_cut_measurement_goes_on_and_measures_nothing_twice(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughPoints, match="iterations were not measured yet"):
        profile("tiny", tmp_path, device="cpu", budget_s=0.0, held_out=10, quiet=True)
    first = Samples(tmp_path)
    copies = (first.folder / "copies.csv").read_text()
    assert first.facts["complete"] is False and first.facts["left_out"] > 10
    findings = profile("tiny", tmp_path, device="cpu", budget_s=8.0, held_out=10, quiet=True)
    assert (first.folder / "copies.csv").read_text() == copies
    assert len(set(findings.points.names)) == len(findings.points)
    assert len(Samples(tmp_path).facts["runs"]) == 2
    refitted = profile("tiny", tmp_path, refit=True, quiet=True)
    assert refitted.profile.forward == findings.profile.forward


def test_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "tinny", "--out", str(tmp_path), "--device", "cpu"]) == CANNOT
    assert "no model 'tinny'" in capsys.readouterr().err
    assert main(["--model", "tiny", "--out", str(tmp_path), "--refit"]) == CANNOT
    assert "there are no samples" in capsys.readouterr().err
