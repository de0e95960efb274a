"""What the simulator's speed is measured on: workloads of its aims, and what each must reach.

Every case can be run as a share of itself: of its sessions, or of the seconds in which they arrive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from caesura.config.systems import preset_names
from traces.draw.arrivals import Poisson, draw_workload
from traces.session import Call, Session
from traces.shipped import load

LLAMA = "h200/llama-3.1-8b"
GPT_J = "published/gpt-j-6b-a100-40g"

NEAR_SATURATION = {
    "vllm": 3.5,
    "vllm-chunked": 3.4,
    "improved-discard": 3.5,
    "improved-discard-chunked": 3.4,
    "preserve": 2.4,
    "preserve-chunked": 2.4,
    "swap": 2.4,
    "swap-chunked": 2.6,
    "heuristic": 5.7,
    "heuristic-chunked": 6.7,
    "heuristic-discard": 6.5,
    "heuristic-discard-chunked": 7.5,
    "heuristic-swap": 5.5,
    "heuristic-swap-chunked": 6.5,
    "infercept": 8.0,
    "infercept-oracle": 8.0,
    "infercept-no-swap": 5.8,
    "infercept-released": 7.0,
    "infercept-released-elapsed": 6.4,
    "cache-lru": 5.8,
    "cache-lru-unchunked": 4.6,
}
"""Sessions/s of the mix at which a system's normalized latency nears 100 ms per token (see docs/infercept.md)."""
OTHERWISE = 5.0
"""Sessions/s for a system that is not listed."""
MIX_SECONDS = 300.0


@dataclass(frozen=True)
class Case:
    """One measurement's subject.

    Attributes:
        name: unique; its first letter is the aim that it belongs to.
        title: for a table.
        system: the preset.
        profile: costs and pool sizes.
        sessions: how many of ``prompt`` + ``output`` tokens; 0 for the InferCept mix.
        prompt, output: tokens of each session.
        rate: sessions/s over all replicas, Poisson.
        replicas: behind a round-robin router.
        least: calls per CPU second that it must reach, if any.
        stepped_share: share of the workload that is run once iteration by iteration for comparison; 0 for none.
        once: run once only, as it takes minutes.
    """

    name: str
    title: str
    system: str
    profile: str
    rate: float
    sessions: int = 0
    prompt: int = 512
    output: int = 512
    replicas: int = 1
    least: float | None = None
    stepped_share: float = 0.25
    once: bool = False

    def shared(self, share: float) -> Case:
        """The same with a share of its sessions."""
        return replace(self, sessions=max(1, round(self.sessions * share))) if self.sessions else self

    def workload(self, share: float) -> Sequence[Session]:
        """The sessions of a case with one replica."""
        if self.sessions:
            return list(self.shared(share).stream())
        return draw_workload(load("infercept-mix"), Poisson(self.rate), MIX_SECONDS * share, seed=0)

    def stream(self) -> Iterator[Session]:
        """The sessions of all replicas, made as they are asked for."""
        times = Poisson(self.rate).first(self.sessions, np.random.default_rng(0))
        calls = (Call(self.output),)
        for serial in range(self.sessions):
            yield Session(f"s{serial}", float(times[serial]), self.prompt, calls)


def cases() -> list[Case]:
    """Every case, in the order of the table."""
    flat = [
        Case("a", "10,000 sessions of 512 + 512 tokens", "vllm", LLAMA, 10.0, 10_000, least=8000),
        Case("a-chunked", "the same, chunked prefill", "vllm-chunked", LLAMA, 10.0, 10_000),
        Case("c", "10,000 sessions of 512 + 2,560 tokens", "vllm", LLAMA, 10.0, 10_000, output=2560),
        Case("c-chunked", "the same, chunked prefill", "vllm-chunked", LLAMA, 10.0, 10_000, output=2560),
    ]
    mix = [
        Case(
            f"b-{system}",
            "the InferCept mix",
            system,
            GPT_J,
            NEAR_SATURATION.get(system, OTHERWISE),
            least=4000,
        )
        for system in sorted(preset_names(), key=lambda name: (name != "infercept", name))
    ]
    large = Case("d", "1,000,000 sessions on 64 replicas", "vllm", LLAMA, 640.0, 1_000_000, replicas=64, once=True)
    large = replace(large, stepped_share=0.02)
    quarter = replace(large.shared(0.25), name="d-quarter", title="250,000 sessions on 64 replicas", stepped_share=0.0)
    return [*flat[:2], *mix, *flat[2:], large, quarter]


def case(name: str) -> Case:
    """The case of that name.

    Raises:
        KeyError: there is none.
    """
    return {one.name: one for one in cases()}[name]
