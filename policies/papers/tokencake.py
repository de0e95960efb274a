"""TokenCake (arXiv 2510.18586): offload while a function runs, and upload ahead of its return."""

from __future__ import annotations

from collections.abc import Iterator

from policies.basic.cache_lru import last_blocks
from policies.contract import NEVER, Change, EngineView, InterceptPolicy, Paused, Prefetch, Preserve, Swap, Verdict
from policies.estimation import DurationEstimator


class TokenCake(InterceptPolicy):
    """At its pause a context leaves for the host if memory is short, a session waits for memory, and

        T_window = T_FC - T_transfer > 0

    T_FC being the expected duration and T_transfer the copies out and in. It begins to come back one copy ahead of its
    expected return, as far as memory is free; a context that is late is fetched when its session is back. What stays on
    the GPU is a prefix cache: the least recently used loses its last blocks when they are needed.

    Args:
        estimator: expects T_FC when the pause begins; the paper mixes a prediction of the user's with an EWMA.
        pressure: share of the GPU's blocks; memory is short when fewer are free.
        uploads: whether contexts come back ahead of the return.
    """

    def __init__(self, estimator: DurationEstimator, pressure: float = 0.1, uploads: bool = True) -> None:
        if not 0 <= pressure <= 1:
            raise ValueError("pressure is a share of the GPU's blocks, 0 to 1")
        self.estimator = estimator
        self.pressure = pressure
        self.prefetches = uploads
        self._uploads: dict[tuple[str, float, int], float] = {}  # dropped when a pause ends: the estimator may learn

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        window = self._expected(paused) - 2 * view.costs.swap_time(paused.resident_tokens)
        reasons = {"window_s": window, "free_blocks": view.free_gpu_blocks, "waiting": view.waiting_sessions}
        short = view.free_gpu_blocks < self.pressure * view.gpu_blocks
        if short and view.waiting_sessions and window > 0:
            return Swap(reasons=reasons)
        return Preserve(reasons=reasons)

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        self._uploads.clear()

    def evict(self, blocks: int, view: EngineView) -> Iterator[Change]:
        return last_blocks(view.paused, blocks, view)

    def revise(self, view: EngineView) -> Iterator[Change]:
        if self.prefetches:
            for paused in view.offloaded:
                if not paused.moving and self._upload_at(paused, view) <= view.now:
                    yield paused, Prefetch(reasons={"expected_back_at": paused.paused_at + self._expected(paused)})

    def review_at(self, view: EngineView) -> float:
        """The next upload; every iteration while one is due and finds no room."""
        if not self.prefetches:
            return NEVER
        return min((self._upload_at(one, view) for one in view.offloaded if not one.moving), default=NEVER)

    def _expected(self, paused: Paused) -> float:
        """T_FC, s: the expected duration of the whole pause."""
        assert self.estimator is not None
        return self.estimator.remaining(paused, paused.paused_at)

    def _upload_at(self, paused: Paused, view: EngineView) -> float:
        """Time at which a context must begin to come back, to be there at its expected return, s."""
        begun, offloaded = paused.paused_at, paused.offloaded_tokens
        at = self._uploads.get((paused.id, begun, offloaded))
        if at is None:
            at = begun + self._expected(paused) - view.costs.swap_time(offloaded)
            self._uploads[paused.id, begun, offloaded] = at
        return at
