"""Libraries that only some people need."""

from __future__ import annotations


def install(extra: str) -> str:
    """What to type to get an extra: the package index does not have this project."""
    return f"pip install -e '.[{extra}]' in the folder of Caesura's source"
