"""What an estimator of pauses and a predictor of calls are asked: the expectations that policies decide by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policies.contract import EVERY_ITERATION, NEVER, Paused, Queued


class DurationEstimator:
    """Says how long a pause is still expected to last, from what may be known.

    Every estimator answers ``remaining``, and hears of ``pause_ended`` if it learns. The other questions change no
    decision, only how much work it takes. They are of two kinds, each with a default that is right for every estimator:

        bounds      ``exceeds_at``, from when ``remaining`` may be above a number of seconds; ``at_most``, seconds that
                    it is not above for a while, until they are ``unsettled``. They may be wide and must hold.
        at once     ``remaining_of``, ``one_exceeds_at``: several pauses, with the very numbers of each by itself.
    """

    truth: Callable[[Paused], float] | None = None
    """A pause's true end, s. The engine sets it for an oracle, that is if ``needs_truth``; results then say so."""
    needs_truth = False

    def pause_ended(self, paused: Paused, duration: float) -> None:
        """Learn from a pause that has just ended after ``duration`` seconds."""

    def remaining(self, paused: Paused, now: float) -> float:
        """Expected seconds from ``now`` until the answer comes."""
        raise NotImplementedError

    def remaining_of(self, paused: Sequence[Paused], now: float) -> Sequence[float]:
        """``remaining`` of each of several pauses, s. Default: each is asked about by itself."""
        remaining = self.remaining
        return [remaining(one, now) for one in paused]

    def exceeds_at(self, paused: Paused, seconds: float, now: float) -> float:
        """A time before which ``remaining`` is not above ``seconds`` while no pause ends; it may be too early.

        Policies tell by it how far time may leap. Default: ``EVERY_ITERATION``, nobody knows.
        """
        return EVERY_ITERATION

    def one_exceeds_at(self, paused: Sequence[Paused], seconds: Sequence[float], now: float) -> float:
        """The earliest ``exceeds_at`` of several pauses, each with its own ``seconds``; ``NEVER`` without any. Default:
        each is asked about by itself."""
        exceeds_at = self.exceeds_at
        return min([exceeds_at(one, most, now) for one, most in zip(paused, seconds, strict=True)], default=NEVER)

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        """Seconds that ``remaining`` is not above from ``now`` to ``until``, unless ``unsettled`` by a pause of the
        same tool (``tool_of``); they may be too many.

        Policies tell by it whom they need not compare. Default: infinite, nobody knows.
        """
        return math.inf

    def unsettled(self, ended: Paused) -> bool:
        """Whether ``at_most`` may not hold any more, now that ``pause_ended`` was told of this one. Default: yes."""
        return True


def tool_of(paused: Paused) -> str:
    """What pauses are told apart by: who is waited for and, where known, the tool."""
    return f"{paused.waits_for}/{paused.tool}"


@dataclass(frozen=True, slots=True)
class NextCall:
    """What is expected of a call: tokens that it generates, seconds of the pause after it and tokens of its answer."""

    output: float
    pause: float = 0.0
    returned: float = 0.0


class CallPredictor:
    """Says what a call will do before it runs, from what may be known."""

    truth: Callable[[Queued], NextCall] | None = None
    """What a session's call really does. The engine sets it for an oracle, that is if ``needs_truth``."""
    needs_truth = False

    def call_ended(self, ended: Queued, call: NextCall) -> None:
        """Learn from a call whose pause has just ended, or that nothing follows."""

    def predict(self, queued: Queued) -> NextCall:
        """What the call that ``queued`` is ready for is expected to do."""
        raise NotImplementedError
