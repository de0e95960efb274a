"""A property test means the same alone, in its folder and among many modules: it draws the same worlds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTED = ("caesura.cli.main", "caesura.fidelity.report", "caesura.runs.run_experiment", "profiler.fit.forward")


def drawn(*arguments: str) -> str:
    """What ``worlds_to_compare`` draws in a pytest of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CAESURA_"))}
    files = "python_files=test_*.py worlds_to_compare.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", files, "-k", "to_compare", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith("drawn: "))


def test_a_property_draws_the_same_worlds_alone_in_its_folder_and_among_many_modules() -> None:
    """Alone; with all tests of ``tests/sim`` imported before it; with the command line and the profiler as well."""
    file = "tests/sim/worlds_to_compare.py"
    alone = drawn(file)
    assert drawn("tests/sim") == alone
    assert drawn(file, *(word for module in IMPORTED for word in ("-p", module))) == alone
