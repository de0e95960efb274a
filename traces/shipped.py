"""Workloads that come with the package, by name. They hold token counts, times and ids, and no text.

- ``infercept-mix``: the six-augmentation workload of the InferCept paper (arXiv 2402.01869) as released with MARS
  (arXiv 2410.18248), Apache-2.0: 397 sessions without arrivals.
- ``coding-agents``: 61 recorded coding-agent sessions with their tool and user pauses (callanjfox/kv-cache-tester,
  collected by SemiAnalysis), Apache-2.0; without arrivals.
- ``azure-conv`` and ``azure-code``: an hour each of Azure's chat and code services in November 2023 (Splitwise,
  ISCA'24), CC-BY 4.0: 19,366 and 8,819 single requests with their arrivals.
- ``mooncake-conversation``: the first ten minutes of an hour of Kimi chat with block hashes (Mooncake, FAST'25),
  Apache-2.0: 1,750 single requests. Their arrivals were recorded every 3 s and are spread inside these ticks.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass

from traces.draw.ticks import spread_ticks
from traces.readers import read_sessions
from traces.session import Session


@dataclass(frozen=True)
class _Shipped:
    file: str
    format: str
    tick: float | None = None
    kinds: str = ""


_SHIPPED = {
    "infercept-mix": _Shipped(
        "infercept_mix.jsonl",
        "session-files",
        kinds="math: arithmetic with a calculator; qa: questions that look things up in Wikipedia; ve: steps in a "
        "virtual environment; chat: a person reads and answers; image, tts: pictures or speech are made, and then a "
        "person answers",
    ),
    "coding-agents": _Shipped(
        "claude_code_neon61.jsonl.gz",
        "session-files",
        kinds="neon61: the recording's name, for all are coding agents",
    ),
    "azure-conv": _Shipped("azure_conv_2023.csv.gz", "azure"),
    "azure-code": _Shipped("azure_code_2023.csv.gz", "azure"),
    "mooncake-conversation": _Shipped("mooncake_conversation_600s.jsonl.gz", "mooncake", tick=3.0),
}


def names() -> tuple[str, ...]:
    """Names of the shipped workloads."""
    return tuple(_SHIPPED)


def kinds(name: str) -> str:
    """Descriptions of the kinds of sessions of a shipped workload; empty where it names none, or there is no such
    workload."""
    return _SHIPPED[name].kinds if name in _SHIPPED else ""


def load(name: str) -> list[Session]:
    """The sessions of a shipped workload; those that recorded no arrivals arrive at 0.

    Raises:
        ValueError: no workload has this name.
    """
    if name not in _SHIPPED:
        raise ValueError(f"no shipped workload {name!r}; there is {', '.join(_SHIPPED)}")
    shipped = _SHIPPED[name]
    resource = importlib.resources.files("traces") / "data" / shipped.file
    with importlib.resources.as_file(resource) as path:
        sessions = read_sessions(path, shipped.format)
    return sessions if shipped.tick is None else spread_ticks(sessions, shipped.tick)
