"""From a profile to seconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate, chain

from sim.plan import Batch, Copy, Direction
from sim.profile import LinearForward, PhysicalForward, Profile

_REMEMBERED = 1 << 16
"""Forward times kept: policies ask for the same contexts every iteration."""
_RECENT = 64
"""Iteration times kept: budget, clock and ledger ask for the same batch one after the other."""


class CostModel:
    """Seconds for the work of an iteration. Implements ``policies.contract.Costs``."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.saturation_tokens = profile.saturation_tokens
        forward = profile.forward
        self._linear = forward if isinstance(forward, LinearForward) else None
        self._physical = forward if isinstance(forward, PhysicalForward) else None
        self._decode_read_s = self._physical.decode_read_s if self._physical is not None else 0.0
        self._mixed_read_s = self._physical.mixed_read_s if self._physical is not None else 0.0
        self._unequal_read_s = self._physical.unequal_read_s if self._physical is not None else 0.0
        host = profile.host
        self._per_iteration_s, self._per_session_s = host.per_iteration_s, host.per_session_s
        self._per_chunk_s, self._chunked_s, self._per_call_s = host.per_chunk_s, host.chunked_s, host.per_call_s
        self._per_arrival_s = host.per_arrival_s
        self._executor_s, self._executor_chunked_s = host.executor_s, host.executor_chunked_s
        self._begin_copies_s = {Direction.OUT: host.copies_out_s, Direction.IN: host.copies_in_s}
        self._copies_take_work = host.copies_out_s > 0 or host.copies_in_s > 0
        self._iteration_times: dict[tuple[int, ...], float] = {}
        self._forward_times: dict[tuple[int, int], float] = {}
        self._decode_times: dict[int, float] = {}  # by sessions, without their contexts
        self._launch_s = self._physical.launch_s if self._physical is not None else 0.0
        cuts = self._physical is not None and self._physical.most_pieces > 0
        self._per_piece_s = self._physical.per_piece_s if self._physical is not None and cuts else 0.0
        swap, size = profile.swap, profile.kv_bytes_per_token
        self._swap_latency_s = swap.latency_s
        self._per_token = {
            Direction.OUT: size / swap.out_bytes_per_s,
            Direction.IN: size / swap.in_bytes_per_s,
        }
        self._slowest_per_token = max(self._per_token.values())
        self._slowdown = {Direction.OUT: swap.slowdown_out, Direction.IN: swap.slowdown_in}

    def iteration_time(self, batch: Batch) -> float:
        """Seconds of one forward pass over ``batch``; 0 for an empty one."""
        if not (batch.prefill_sessions or batch.begun):
            return self._time(batch) if batch.decode_sessions else 0.0
        if batch.query_tokens == 0:
            return 0.0
        sums = batch.sums
        seconds = self._iteration_times.get(sums)
        if seconds is None:
            if len(self._iteration_times) >= _RECENT:
                self._iteration_times.clear()
            seconds = self._iteration_times[sums] = self._time(batch)
        return seconds

    def _time(self, batch: Batch) -> float:
        seconds = self._without_decode_context(batch)
        if self._per_piece_s and batch.decode_sessions:
            seconds += self._cut_time(batch.decode_sessions, batch.decode_context)
        seconds += self._decode_read_s * batch.decode_context
        if self._unequal_read_s and batch.decode_spread:
            seconds += self._unequal_time(batch.decode_context, batch.decode_spread)
        if not batch.prefill_sessions:
            return seconds
        if self._mixed_read_s:
            seconds += self._mixed_read_s * batch.decode_context
        if self._launch_s:
            return max(seconds, self.outside_device(batch) + self._launch_s)
        return seconds

    def ends(self, batch: Batch, begin: float, iterations: int) -> list[float]:
        """Times at which iterations of ``batch`` end that follow one another, s; see ``passes``."""
        return list(accumulate(self.passes(batch, iterations), initial=begin))[1:]

    def passes(self, batch: Batch, iterations: int) -> Iterator[float]:
        """Seconds of iterations of ``batch`` one after the other, each with every decoding context one token longer.

        A batch with a chunk goes on with as many tokens in each iteration. Bit for bit the times that
        ``iteration_time`` gives when it is asked for one iteration after the other.
        """
        if iterations == 1:
            return iter((self.iteration_time(batch),))
        if batch.prefill_sessions:
            return self._chunk_passes(replace(batch), iterations)
        slope, context, step = self._decode_read_s, batch.decode_context, batch.decode_sessions
        first = later = self._without_decode_context(batch)
        if batch.begun:
            later = self._without_decode_context(replace(batch, begun=0, opened=0))
        contexts = range(context + step, context + step * iterations, step)
        if self._unequal_read_s and batch.decode_spread:
            return self._unequal_passes(batch, first, later, range(context, contexts.stop, step))
        if self._per_piece_s and step:
            cut = self._cut_time(step, context)
            if not self._is_cut_no_further(step, context):
                cuts = (later + self._cut_time(step, tokens) + slope * tokens for tokens in contexts)
                return chain((first + cut + slope * context,), cuts)
            first, later = first + cut, later + cut
        return chain((first + slope * context,), (later + slope * tokens for tokens in contexts))

    def _unequal_passes(self, batch: Batch, first: float, later: float, contexts: range) -> Iterator[float]:
        """As ``passes``, for decoding sessions of unequal contexts: ``contexts`` tokens in all in each iteration."""
        slope, spread, cuts, sessions = self._decode_read_s, batch.decode_spread, self._per_piece_s, contexts.step
        fixed = first
        for tokens in contexts:
            cut = fixed + self._cut_time(sessions, tokens) if cuts else fixed
            yield cut + slope * tokens + self._unequal_time(tokens, spread)
            fixed = later

    def _unequal_time(self, context: int, spread: int) -> float:
        """Seconds that ``context`` tokens of decoding sessions cost more where these have unequal contexts."""
        return self._unequal_read_s * context * (spread / (spread + context * context))

    def _chunk_passes(self, batch: Batch, iterations: int) -> Iterator[float]:
        tokens = batch.prefill_tokens
        for _ in range(iterations):
            yield self.iteration_time(batch)
            batch.begun = batch.opened = 0
            batch.decode_context += batch.decode_sessions
            batch.prefill_context += tokens
            batch.prefill_pairs += tokens * tokens

    def _cut_time(self, sessions: int, context: int) -> float:
        """Seconds to begin and merge the pieces of ``sessions`` decoding sessions of ``context`` tokens in all."""
        cost = self._physical
        assert cost is not None
        decodes = padded(sessions, cost.decode_sizes)
        return self._per_piece_s * max(decodes, decodes / 2 + min(cost.most_pieces, context / cost.piece_tokens))

    def _is_cut_no_further(self, sessions: int, context: int) -> bool:
        """Whether there are no more pieces when contexts grow."""
        cost = self._physical
        assert cost is not None
        most = cost.most_pieces
        return context >= most * cost.piece_tokens or padded(sessions, cost.decode_sizes) >= 2 * most

    def matrix_seconds(self, batch: Batch) -> float:
        """Seconds of matrix work in one pass, by ``per_token_s``; 0 without a physical cost."""
        cost = self._physical
        return 0.0 if cost is None else cost.per_token_s * self._padded_tokens(batch, cost)

    def _without_decode_context(self, batch: Batch) -> float:
        """Seconds of an iteration, less what grows with the contexts of decoding sessions."""
        if batch.prefill_sessions or batch.begun:
            return self._fixed_time(batch)
        seconds = self._decode_times.get(batch.decode_sessions)
        if seconds is None:
            seconds = self._decode_times[batch.decode_sessions] = self._fixed_time(batch)
        return seconds

    def _fixed_time(self, batch: Batch) -> float:
        outside = self.outside_device(batch)
        if self._linear is not None:
            return outside + self._linear.per_token_s * batch.query_tokens
        cost = self._physical
        assert cost is not None
        decodes, tokens = padded(batch.decode_sessions, cost.decode_sizes), self._padded_tokens(batch, cost)
        if batch.prefill_sessions and decodes:
            outside += cost.mixed_s
        return (
            outside
            + cost.per_session_s * (decodes + batch.prefill_sessions)
            + cost.per_chunk_s * batch.prefill_sessions
            + _matrix_time(cost, tokens)
            + cost.prefill_read_s * batch.prefill_context
            + _chunk_attention_time(cost, batch)
            + cost.exchange_s * tokens
        )

    @staticmethod
    def _padded_tokens(batch: Batch, cost: PhysicalForward) -> int:
        """Query tokens as the backend pads them."""
        tokens = padded(batch.decode_sessions, cost.decode_sizes) + batch.prefill_tokens
        return padded(tokens, cost.pass_sizes) if batch.prefill_sessions else tokens

    def outside_device(self, batch: Batch, later: bool = False) -> float:
        """Seconds of an iteration in which the device has nothing to do. ``later`` in a leap, no call begins."""
        chunks = batch.prefill_sessions
        seconds = (
            self._per_iteration_s + self._per_session_s * (batch.decode_sessions + chunks) + self._per_chunk_s * chunks
        )
        begun, opened = (0, 0) if later else (batch.begun, batch.opened)
        seconds += self._per_call_s * begun + self._per_arrival_s * opened + (self._chunked_s if chunks else 0.0)
        if self._linear is not None:
            return seconds + self._linear.fixed_s
        cost = self._physical
        assert cost is not None
        return seconds + cost.overhead_s + (cost.chunks_overhead_s if chunks else 0.0)

    def behind_copies(self, batch: Batch) -> float:
        """Seconds of the host's work on ``batch`` that go on while it waits for copies: what follows the plan."""
        return self._executor_s + (self._executor_chunked_s if batch.prefill_sessions else 0.0)

    def beginning(self, copies: Iterable[Copy]) -> float:
        """Seconds of the host's work on those of ``copies`` that run beside the batch: a share for each direction."""
        if not self._copies_take_work:
            return 0.0
        return sum(self._begin_copies_s[way] for way in {copy.direction for copy in copies if not copy.blocking})

    def slowed(self, seconds: float, copied: dict[Direction, float]) -> float:
        """Length of ``seconds`` of compute when copies run beside it for ``copied`` seconds per direction.

        A copy slows compute only while it runs: its share of the pass is lengthened by the profile's slowdown.
        """
        extra = 0.0
        for direction, beside in copied.items():
            extra += min(beside, seconds) * self._slowdown[direction]
        return seconds + extra

    def copy_time(self, tokens: int, direction: Direction) -> float:
        """Seconds to copy the KV of ``tokens`` tokens one way; 0 for none."""
        return self._swap_latency_s + self._per_token[direction] * tokens if tokens else 0.0

    def swap_time(self, tokens: int) -> float:
        """T_swap: seconds to copy the KV of ``tokens`` tokens one way, by the slower direction."""
        return self._swap_latency_s + self._slowest_per_token * tokens if tokens else 0.0

    def tokens_within(self, seconds: float) -> int:
        """N with T_swap(N) = ``seconds``: tokens whose one-way copy a forward pass of that length hides."""
        return max(0, int((seconds - self._swap_latency_s) / self._slowest_per_token * (1 + 1e-12)))

    def forward_time(self, query_tokens: int, context_tokens: int = 0) -> float:
        """T_fwd: seconds to compute ``query_tokens`` tokens of one context after ``context_tokens`` resident ones."""
        asked = query_tokens, context_tokens
        seconds = self._forward_times.get(asked)
        if seconds is None:
            batch = Batch()
            batch.add_chunk(context_tokens, query_tokens)
            if len(self._forward_times) >= _REMEMBERED:
                self._forward_times.clear()
            seconds = self._forward_times[asked] = self.iteration_time(batch)
        return seconds


def _chunk_attention_time(cost: PhysicalForward, batch: Batch) -> float:
    """Seconds that the query-key pairs of chunks take, or the longest stretch of a context."""
    seconds = cost.pair_s * batch.prefill_pairs
    if not (cost.path_s and batch.prefill_sessions):
        return seconds
    return max(seconds, cost.path_s * min(batch.prefill_context / batch.prefill_sessions, cost.path_tokens))


def padded(number: int, sizes: tuple[int, ...]) -> int:
    """Decoding sessions, or tokens, as the backend pads them: to the next of ``sizes``, which ascend."""
    if number == 0 or not sizes or number > sizes[-1]:
        return number
    return sizes[bisect_left(sizes, number)]


def _matrix_time(cost: PhysicalForward, tokens: int) -> float:
    """Seconds of the matrix products of ``tokens`` tokens."""
    seconds = _norm(cost.weights_s, cost.per_token_s * tokens, cost.knee)
    return seconds * _between(cost.matrix_factors, tokens) if cost.matrix_factors else seconds


def _between(knots: tuple[tuple[int, float], ...], x: int) -> float:
    """Linear between knots, constant before the first and after the last."""
    after = bisect_left(knots, (x, 0.0))
    if after == 0 or after == len(knots):
        return knots[min(after, len(knots) - 1)][1]
    (x0, y0), (x1, y1) = knots[after - 1], knots[after]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _norm(a: float, b: float, p: float) -> float:
    """(a^p + b^p)^(1/p), without overflow."""
    large, small = (a, b) if a >= b else (b, a)
    return float(large * (1.0 + (small / large) ** p) ** (1.0 / p)) if large > 0 else 0.0
