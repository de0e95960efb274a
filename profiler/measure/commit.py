"""Which state of the source made a measurement."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def commit_of(source: Path) -> str:
    """The git commit of the source that measures, "+" where files have changed since; CAESURA_COMMIT, or unknown."""
    if "CAESURA_COMMIT" in os.environ:
        return os.environ["CAESURA_COMMIT"]
    try:
        commit = _git(source, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(source, "status", "--porcelain", "--untracked-files=no") else "")
    except (subprocess.SubprocessError, OSError):
        return "unknown"


def _git(source: Path, *arguments: str) -> str:
    command = ["git", "-C", str(source), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
