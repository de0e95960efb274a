"""docs/writing-a-policy.md works as it is printed, from top to bottom, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "writing-a-policy.md"
BLOCK = re.compile(r"```(\w+)(?: (\S+))?\n(.*?)```", re.DOTALL)


def said(line: str, folder: Path) -> str:
    """What a command prints; it must succeed."""
    words = [sys.executable, "-m", *shlex.split(line)]
    here = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run(words, cwd=folder, env=here, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_a_reader_who_follows_the_page_has_a_tested_policy(tmp_path: Path) -> None:
    printed = ""
    for language, name, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
        elif language == "console":
            printed += "".join(said(line, tmp_path) for line in text.splitlines())
    assert "discard  (kept = " in printed
    assert printed.count("1 passed") == 2


def test_the_entry_points_that_the_page_shows_are_groups_that_exist() -> None:
    shown = set(re.findall(r"`(caesura\.\w+)`", PAGE.read_text(encoding="utf-8")))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert shown and all(f'entry-points."{group}"' in project for group in shown)
