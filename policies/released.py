"""The rule of InferCept's released code (WukLab/InferCept, letter V), which is not quite the paper's.

It knows the exact duration of every call; discards at once whatever recomputes more cheaply than it keeps, except the
contexts that recompute dearest; and swaps those out lazily, from the tail, only when somebody needs their blocks.
"""

from __future__ import annotations

from collections.abc import Iterable

from policies.contract import Change, Discard, DurationEstimator, EngineView, InterceptPolicy, Paused, Swap


class Released(InterceptPolicy):
    """Letter V of the released code.

    Args:
        estimator: the release uses the exact duration, so ``oracle`` is faithful.
        per_token: a of the release's swap budgets, tokens of copy per query token (0.00462 for GPT-J-6B on an A100).
        fixed: b of the release's swap budgets, tokens (108.99 there).
    """

    def __init__(self, estimator: DurationEstimator, per_token: float = 0.00462, fixed: float = 108.99) -> None:
        self.estimator = estimator
        self.per_token = per_token
        self.fixed = fixed
        self._victims: list[Paused] = []

    def revise(self, view: EngineView) -> Iterable[Change]:
        """Discard every candidate but those with the largest recompute waste; these become victims of lazy swaps."""
        assert self.estimator is not None
        candidates = []
        for paused in view.paused:
            if paused.moving or paused.resumed:
                continue
            context = -(-paused.resident_tokens // view.block_size) * view.block_size
            keep = self.estimator.remaining(paused, view.now) * context
            recompute = released_discard_waste(view, context)
            if recompute < keep:
                candidates.append((recompute, paused, keep))
        dearest = max((recompute for recompute, _, _ in candidates), default=0.0)
        self._victims = [paused for recompute, paused, _ in candidates if recompute >= dearest]
        for recompute, paused, keep in candidates:
            if recompute < dearest:
                yield paused, Discard(because={"preserve": keep, "recompute": recompute})

    def gives_way(self, blocks: int, view: EngineView) -> Iterable[Change]:
        """Victims lose their last blocks to the host, within the release's own budget for copies out."""
        free = view.free_gpu_blocks * view.block_size
        saturation = view.costs.saturation_tokens
        budget = (1 + self.per_token) * saturation + self.fixed - free / 2
        left = min(blocks, max(0, int(budget // view.block_size)))
        for paused in self._victims:
            if left == 0:
                return
            if paused.resumed or paused.moving or not paused.resident_tokens:
                continue
            held = -(-paused.resident_tokens // view.block_size)
            leaving = min(held, left)
            left -= leaving
            yield paused, Swap(keep=(held - leaving) * view.block_size, because={"blocks_needed": blocks})


def released_discard_waste(view: EngineView, context: int) -> float:
    """The release's estimate of what recomputing ``context`` tokens in chunks wastes, token-seconds.

    With S the saturation point, c = max(S - running query tokens, 1) the chunk, n = max(ceil(context / c) - 1, 0) the
    full chunks, f_S the time of an iteration of S tokens, f_c and f_l the marginal times of a chunk and of the last
    part, and R the context tokens of the running sessions:

        f_S * n * (n + 1) / 2 * c  +  f_c * n * R  +  f_l * (R + last)
    """
    costs = view.costs
    saturation = costs.saturation_tokens
    chunk = max(saturation - view.running_query_tokens, 1)
    full = max(-(-context // chunk) - 1, 0)
    last = context % chunk  # 0 when the context is a multiple of the chunk: the release then forgets its last chunk
    others = view.running_context_tokens
    per_token = (costs.forward_time(saturation) - costs.forward_time(1)) / max(saturation - 1, 1)
    own = costs.forward_time(saturation) * full * (full + 1) / 2 * chunk
    return own + per_token * chunk * full * others + per_token * last * (others + last)
