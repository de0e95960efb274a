"""From a profile to seconds."""

from __future__ import annotations

from sim.plan import Batch, Direction
from sim.profile import LinearForward, PhysicalForward, Profile


class CostModel:
    """Seconds for the work of an iteration. Implements ``policies.contract.Costs``."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.saturation_tokens = profile.saturation_tokens
        forward = profile.forward
        self._linear = forward if isinstance(forward, LinearForward) else None
        self._physical = forward if isinstance(forward, PhysicalForward) else None
        self._decode_read_s = self._physical.decode_read_s if self._physical is not None else 0.0
        swap, size = profile.swap, profile.kv_bytes_per_token
        self._per_token = {
            Direction.OUT: size / swap.out_bytes_per_s,
            Direction.IN: size / swap.in_bytes_per_s,
        }
        self._slowdown = {Direction.OUT: swap.slowdown_out, Direction.IN: swap.slowdown_in}

    def iteration_time(self, batch: Batch) -> float:
        """Seconds of one forward pass over ``batch``; 0 for an empty one."""
        if batch.query_tokens == 0:
            return 0.0
        return self._without_decode_context(batch) + self._decode_read_s * batch.decode_context

    def decode_ends(self, batch: Batch, begin: float, iterations: int) -> list[float]:
        """Times at which iterations of the decoding ``batch`` end, each with every context one token longer, s.

        Bit for bit the times that ``iteration_time`` gives when it is asked for one iteration after the other.
        """
        base, slope, context = self._without_decode_context(batch), self._decode_read_s, batch.decode_context
        ends, now = [], begin
        for _ in range(iterations):
            now += base + slope * context
            context += batch.decode_sessions
            ends.append(now)
        return ends

    def _without_decode_context(self, batch: Batch) -> float:
        """Seconds of a forward pass, less what grows with the contexts of decoding sessions."""
        tokens = batch.query_tokens
        if self._linear is not None:
            return self._linear.fixed_s + self._linear.per_token_s * tokens
        cost = self._physical
        assert cost is not None
        return (
            cost.overhead_s
            + cost.per_session_s * (batch.decode_sessions + batch.prefill_sessions)
            + _norm(cost.weights_s, cost.per_token_s * tokens, cost.knee)
            + cost.prefill_read_s * batch.prefill_context
            + cost.pair_s * batch.prefill_pairs
        )

    def slowed(self, seconds: float, copied: dict[Direction, float]) -> float:
        """Length of ``seconds`` of compute when copies run beside it for ``copied`` seconds per direction.

        A copy slows compute only while it runs: its share of the pass is lengthened by the profile's slowdown.
        """
        extra = sum(min(beside, seconds) * self._slowdown[direction] for direction, beside in copied.items())
        return seconds + extra

    def copy_time(self, tokens: int, direction: Direction) -> float:
        """Seconds to copy the KV of ``tokens`` tokens one way; 0 for none."""
        return self.profile.swap.latency_s + self._per_token[direction] * tokens if tokens else 0.0

    def swap_time(self, tokens: int) -> float:
        """T_swap: seconds to copy the KV of ``tokens`` tokens one way, by the slower direction."""
        return max(self.copy_time(tokens, Direction.OUT), self.copy_time(tokens, Direction.IN))

    def tokens_within(self, seconds: float) -> int:
        """N with T_swap(N) = ``seconds``: tokens whose one-way copy a forward pass of that length hides."""
        per_token = max(self._per_token.values())
        return max(0, int((seconds - self.profile.swap.latency_s) / per_token * (1 + 1e-12)))

    def forward_time(self, query_tokens: int, context_tokens: int = 0) -> float:
        """T_fwd: seconds to compute ``query_tokens`` tokens of one context after ``context_tokens`` resident ones."""
        batch = Batch()
        batch.add_chunk(context_tokens, query_tokens)
        return self.iteration_time(batch)


def _norm(a: float, b: float, p: float) -> float:
    """(a^p + b^p)^(1/p), without overflow."""
    large, small = (a, b) if a >= b else (b, a)
    return float(large * (1.0 + (small / large) ** p) ** (1.0 / p)) if large > 0 else 0.0
