"""The three fixed verdicts: discard every paused context, preserve it, or swap it out."""

from __future__ import annotations

from policies.contract import Discard, EngineView, InterceptPolicy, Paused, Preserve, Swap, Verdict


class DiscardAlways(InterceptPolicy):
    """Discard every paused context and recompute it at the return: what vLLM 0.2 does when a client calls again."""

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        return Discard()


class PreserveAlways(InterceptPolicy):
    """Keep every paused context on the GPU, whatever the pressure (letter P of InferCept's released code)."""

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        return Preserve()


class SwapAlways(InterceptPolicy):
    """Copy every paused context to the host and back at the return (letter S of InferCept's released code)."""

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        return Swap()
