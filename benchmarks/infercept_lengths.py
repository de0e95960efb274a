"""Model calls of the InferCept mix as single requests."""

from __future__ import annotations

import random

from traces.shipped import load


def mixed_requests(count: int, longest: int, chance: random.Random) -> list[tuple[int, int]]:
    """(context, output) tokens of ``count`` calls drawn from the mix, of those that end within ``longest`` tokens."""
    calls = []
    for session in load("infercept-mix"):
        context = session.prompt
        for call in session.calls:
            calls.append((context, call.output))
            context += call.output + (call.pause.returned if call.pause else 0)
    return chance.sample([(context, output) for context, output in calls if context + output <= longest], count)
