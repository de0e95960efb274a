"""Workloads that come with the package, by name. They hold token counts, times and ids, and no text.

- ``infercept-mix``: the six-augmentation workload of the InferCept paper (arXiv 2402.01869) as released with MARS
  (arXiv 2410.18248), Apache-2.0: 397 sessions without arrivals.
"""

from __future__ import annotations

import importlib.resources

from traces.readers import read_session_files
from traces.session import Session

_FILES = {"infercept-mix": "infercept_mix.jsonl"}


def names() -> tuple[str, ...]:
    """Names of the shipped workloads."""
    return tuple(_FILES)


def load(name: str) -> list[Session]:
    """The sessions of a shipped workload, all with arrival 0.

    Raises:
        ValueError: no workload has this name.
    """
    if name not in _FILES:
        raise ValueError(f"no shipped workload {name!r}; there is {', '.join(_FILES)}")
    resource = importlib.resources.files("traces") / "data" / _FILES[name]
    with importlib.resources.as_file(resource) as path:
        return read_session_files(path)
