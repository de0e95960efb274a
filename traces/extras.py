"""Optional libraries, installed as extras."""

from __future__ import annotations


def install(extra: str) -> str:
    """The command that installs an extra: the package index does not have this project."""
    return f"pip install -e '.[{extra}]' in the folder of Caesura's source"
