"""LAMPS, later MARS (arXiv 2410.18248): handles each pause as predicted before the call, and queues by memory."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from policies.contract import (
    NEVER,
    Discard,
    EngineView,
    InterceptPolicy,
    Key,
    Paused,
    PreemptiveOrder,
    Preserve,
    Queued,
    Swap,
    Verdict,
)
from policies.estimation import CallPredictor, NextCall
from policies.papers.aging import AgingOrder
from policies.papers.waste import discard_waste, preserve_waste, swap_waste


class Handling(Enum):
    """What will become of a context at the pause."""

    PRESERVE = "preserve"
    SWAP = "swap"
    DISCARD = "discard"


_HANDLINGS = tuple(Handling)
_NAMES = tuple(one.value for one in Handling)


class Lamps(InterceptPolicy):
    """Decides, when a call enters the queue, how its pause will be handled: by the smallest of three predicted wastes.

        preserve  T_api * C      swap  2 * T_swap(C) * C_batch      discard  T_fwd(C) * (C + C_other)

    C is the context at the pause, from the predicted length of the call, and T_api the predicted pause. A session is
    split at its pauses and classified again each time. The decision stands, whatever becomes of the prediction.

    Args:
        predictor: says what a call will do.
    """

    def __init__(self, predictor: CallPredictor) -> None:
        self.predictor: CallPredictor = predictor
        self._decided: dict[str, tuple[NextCall, Handling, tuple[float, ...]]] = {}

    def decide(self, queued: Queued, view: EngineView) -> tuple[NextCall, Handling]:
        """What the call of a session is expected to do, and how the pause after it will be handled."""
        call, costs = self.predictor.predict(queued), view.costs
        context = round(queued.context_tokens + call.output)
        others = view.running_context_tokens
        wastes = (
            preserve_waste(call.pause, context),
            swap_waste(costs, context, others + context),
            discard_waste(costs, context, others),
        )
        handling = _HANDLINGS[wastes.index(min(wastes))]  # of equal ones the first
        self._decided[queued.id] = call, handling, wastes
        return call, handling

    def decided(self, queued: Queued) -> tuple[NextCall, Handling]:
        """What was decided when the call entered the queue."""
        call, handling, _ = self._decided[queued.id]
        return call, handling

    def on_start(self, started: Queued, view: EngineView) -> None:
        """Decides now, if the order beside it did not ask when the call entered the queue."""
        if started.id not in self._decided:
            self.decide(started, view)

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        _, handling, wastes = self._decided.pop(paused.id)
        reasons = dict(zip(_NAMES, wastes, strict=True))
        if handling is Handling.DISCARD:
            return Discard(reasons=reasons)
        return Swap(reasons=reasons) if handling is Handling.SWAP else Preserve(reasons=reasons)

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        self._decided.pop(finished.id, None)


class SmallestMemory(AgingOrder):
    """The smallest predicted area under the memory-over-time curve first, the pause under its handling included.

    Goes with the policy ``lamps`` only. Running sessions are not interrupted, as in the released code. A session that
    has waited for ``starving_after`` seconds goes first; the paper counts 100 rounds of scheduling, 2.8 s of full
    iterations with GPT-J's costs.

    Args:
        starving_after: seconds; infinite lets sessions starve.
    """

    key_names = ("area",)

    def __init__(self, starving_after: float = 3.0) -> None:
        if not starving_after > 0:
            raise ValueError("starving_after is in seconds, above 0")
        super().__init__()
        self.starving_after = starving_after

    @property
    def _lamps(self) -> Lamps:
        if not isinstance(self.policy, Lamps):
            raise ValueError("this order goes with the policy 'lamps', whose predictions it ranks by")
        return self.policy

    def rank(self, queued: Queued, view: EngineView) -> tuple[float, ...]:
        return (memory_over_time(queued, *self._lamps.decide(queued, view), view),)

    def due(self, queued: Queued) -> float:
        return queued.waits_since + self.starving_after


class SmallestRemainingMemory(SmallestMemory, PreemptiveOrder):
    """``SmallestMemory`` for running calls too, by the area that is left of theirs: smaller ones preempt larger ones.

    The released code ranks waiting sessions only; this order shows what ranking all in every iteration would do.
    """

    lazy_rerank = True
    keys_drift = True

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        moved = [*super().rerank(view)]
        growth, decided = MemoryGrowth(view), self._lamps.decided
        for running in view.running:
            if not self.promoted(running):
                call, handling = decided(running)
                emitted = running.emitted_tokens
                left = max(1.0, call.output - emitted)
                missing = running.missing_tokens - min(1, emitted)
                area = growth.area(running.context_tokens, missing, left, call, handling)
                moved.append((running, (1.0, area)))
        return moved

    def review_after(self, view: EngineView) -> float:
        """Areas shrink until a call has emitted what was predicted; from then on they grow with the context."""
        decided = self._lamps.decided
        return max(1.0, min([decided(one)[0].output - one.emitted_tokens for one in view.running], default=NEVER))


def memory_over_time(queued: Queued, call: NextCall, handling: Handling, view: EngineView) -> float:
    """Area under the memory that a session holds until its call and the pause after it are over, token-seconds.

    With c the chunk that the running sessions leave of S, n(x) = ceil(x / c), t the time of an iteration of the running
    batch with one token more, o the predicted output, r the predicted answer and C the context at the pause:

        build(x) = T_fwd(c) * c * n(x) * (n(x) + 1) / 2
        area = build(missing) + T_fwd(c) * n(missing) * (context - missing)  +  t * (context * o + o * (o + 1) / 2)
             + {preserve: T_api * C,  swap: 2 * T_swap(C) * C,  discard: build(C + r)}
    """
    missing = queued.missing_tokens - min(1, queued.emitted_tokens)  # the token emitted last comes with the next one
    return MemoryGrowth(view).area(queued.context_tokens, missing, call.output, call, handling)


class MemoryGrowth:
    """How fast contexts grow beside the sessions that run now: the terms that all areas of one moment share."""

    def __init__(self, view: EngineView) -> None:
        costs, running = view.costs, view.running_query_tokens
        self._costs = costs
        self._chunk = max(costs.saturation_tokens - running, 1)
        self._chunk_s = costs.forward_time(self._chunk)
        self._token_s = costs.forward_time(running + 1)

    def area(self, context: int, missing: int, output: float, call: NextCall, handling: Handling) -> float:
        """``memory_over_time`` of a context with ``missing`` tokens to compute before the next of ``output`` tokens."""
        chunk, chunk_s = self._chunk, self._chunk_s
        build = chunk_s * chunk
        at_pause = round(context + output)
        area = self._token_s * (context * output + output * (output + 1) / 2)
        if missing:
            beside = chunk_s * -(-missing // chunk) * (context - missing)
            area = build * _triangle(missing / chunk) + beside + area
        if handling is Handling.PRESERVE:
            return area + preserve_waste(call.pause, at_pause)
        if handling is Handling.SWAP:
            return area + swap_waste(self._costs, at_pause, at_pause)
        return area + build * _triangle((at_pause + call.returned) / chunk)


def _triangle(chunks: float) -> float:
    """n (n + 1) / 2, n being ``chunks`` rounded up."""
    n = -(-chunks // 1)
    return n * (n + 1) / 2
