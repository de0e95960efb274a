"""A run that fails while others wait for a process ends the sweep: with its message, and at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

POLICY = """
from policies.contract import InterceptPolicy

class Fails(InterceptPolicy):
    def on_pause(self, paused, view):
        raise RuntimeError("on purpose")
"""
EXPERIMENT = """
workload: {trace: infercept-mix, arrivals: {poisson: {rate: [1, 2, 3, 4, 5, 6, 7, 8]}}, duration: 30 s}
systems: [cache-lru, {name: fails, policy: "failing:Fails"}, vllm]
"""


def test_a_failing_policy_ends_a_sweep_on_two_processes(tmp_path: Path):
    (tmp_path / "failing.py").write_text(POLICY)
    (tmp_path / "x.yaml").write_text(EXPERIMENT)
    command = [sys.executable, "-m", "caesura", "run", "x.yaml", "--out", "out", "--jobs", "2", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "failing:Fails failed in on_pause" in done.stderr
    assert "on purpose" in done.stderr
    assert not list((tmp_path / "out").rglob(".*"))
