"""A folder or file of the user's that is called like one of Caesura's packages does not stand in for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from caesura.own_packages import NAMES

OWN = """\
from caesura.policy import Discard, InterceptPolicy, Paused, EngineView, Verdict


class Mine(InterceptPolicy):
    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        return Discard()
"""


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def shadow(folder: Path, name: str, kind: str) -> None:
    """Something called ``name`` in the folder that breaks whatever imports it in place of Caesura's package."""
    broken = "raise RuntimeError('this is the module of the user')\n"
    if kind == "file":
        (folder / f"{name}.py").write_text(broken)
        return
    (folder / name).mkdir()
    (folder / name / "mine.txt").write_text("no module at all\n")
    if kind == "package":
        (folder / name / "__init__.py").write_text(broken)


def test_all_packages_beside_caesura_are_protected():
    root = Path(__file__).parents[2]
    beside = {file.parent.name for file in root.glob("*/__init__.py")} - {"caesura", "tests", "benchmarks"}
    assert beside == set(NAMES)


@pytest.mark.parametrize("kind", ["folder", "package", "file"])
@pytest.mark.parametrize("name", NAMES)
def test_import_caesura_finds_its_own_packages(tmp_path: Path, name: str, kind: str):
    shadow(tmp_path, name, kind)
    code = f"import caesura, {name}; caesura.simulate; print({name}.__file__)"
    done = python(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == Path(__file__).parents[2] / name / "__init__.py"


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_finds_its_own_packages(tmp_path: Path, name: str):
    shadow(tmp_path, name, "package")
    done = python(tmp_path, "-m", "caesura", "systems")
    assert done.returncode == 0, done.stderr
    assert "infercept" in done.stdout


def test_an_experiment_beside_such_folders_runs_with_a_policy_of_its_own(tmp_path: Path):
    for name in NAMES:
        shadow(tmp_path, name, "folder")
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "x.yaml").write_text(
        "workload: {arrivals: {poisson: {rate: 1}}, duration: 5 s}\nsystems: [{name: mine, policy: 'mine:Mine'}]\n"
    )
    done = python(tmp_path, "-m", "caesura", "run", "x.yaml", "--out", "o", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "report.html").is_file()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_foreign_module_that_is_imported_already_is_named_in_one_line(tmp_path: Path, kind: str):
    (tmp_path / "elsewhere").mkdir()
    if kind == "folder":
        (tmp_path / "elsewhere" / "policies").mkdir()
        (tmp_path / "elsewhere" / "policies" / "__init__.py").write_text("")
    else:
        (tmp_path / "elsewhere" / "policies.py").write_text("")
    done = python(tmp_path, "-c", "import sys; sys.path.insert(0, 'elsewhere'); import policies; import caesura")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: caesura needs its own package 'policies', but 'policies' was imported from ")
    assert str(tmp_path / "elsewhere" / "policies") in last and "import caesura first" in last


def test_its_own_packages_may_be_imported_before_caesura(tmp_path: Path):
    done = python(tmp_path, "-c", "import sim, traces, policies, profiler, caesura")
    assert done.returncode == 0, done.stderr
