"""What the README shows works as it is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


def block(language: str) -> str:
    """The first fenced block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"the README has no {language} block"
    return found.group(1)


def test_the_policy_of_the_readme_is_twenty_lines_and_runs_beside_its_experiment(tmp_path):
    """Its two variants differ: ten seconds keep more contexts than two, so they recompute less."""
    code = block("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "keep_briefly.py").write_text(code, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(block("yaml"), encoding="utf-8")
    shorter = ["--set", "workload.duration=20 s", "--set", "workload.arrivals.poisson.rate=2"]
    command = [sys.executable, "-m", "caesura", "compare", "mine.yaml", *shorter, "--out", "out", "--jobs", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    import caesura

    shares = caesura.load(tmp_path / "out").table.set_index("system")["recompute_share"]
    assert shares["keep-2s"] > shares["keep-10s"] > shares["cache-lru"] == pytest.approx(0.0, abs=0.01)


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (README.parent / link).exists()]
    assert not missing
