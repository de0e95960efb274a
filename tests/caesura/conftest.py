"""A person at a command line, with a folder of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caesura.cli.main import app
from tests import child_processes

SMALL = """\
workload: {trace: infercept-mix, arrivals: {poisson: {rate: [1, 2]}}, duration: 10 s}
systems: [vllm, infercept]
"""


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def caesura(folder: Path) -> Callable[..., Said]:
    """``caesura(*words)`` as on a command line, in this process alone unless ``--jobs`` says otherwise."""

    def run(*words: str) -> Said:
        alone = words[:1] in (("run",), ("compare",), ("sweep",)) and not {"--jobs", "--on"} & set(words)
        result = CliRunner().invoke(app, [*words, *(["--jobs", "1"] if alone else [])])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def experiment(folder: Path) -> Callable[[str], Path]:
    """``experiment(text)`` writes ``x.yaml`` into the folder; without a text, a small experiment that works."""

    def write(text: str = SMALL) -> Path:
        file = folder / "x.yaml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def process() -> Callable[..., subprocess.Popen[str]]:
    """``process(*words)`` starts the command line in a process group of its own, with a terminal's signals."""

    def start(*words: str) -> subprocess.Popen[str]:
        return child_processes.start(
            [sys.executable, "-c", "from caesura.cli.main import main; main()", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    return start
