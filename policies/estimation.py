"""Expectations that policies decide by: how long a pause still lasts, and what a call will do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policies.leap_hints import EstimatorHints
from policies.views import Paused, Queued


class DurationEstimator(EstimatorHints):
    """Says how long a pause is still expected to last, from what may be known.

    An estimator answers ``remaining``, and overrides ``pause_ended`` if it learns. Everything else it inherits is for
    speed: see ``EstimatorHints``.

    Attributes:
        needs_truth: whether this is an oracle; results that used it say so.
        truth: a pause's true end, s. The engine sets it for an oracle.
    """

    truth: Callable[[Paused], float] | None = None
    needs_truth = False

    def pause_ended(self, paused: Paused, duration: float) -> None:
        """Learn from a pause that has just ended after ``duration`` seconds."""

    def remaining(self, paused: Paused, now: float) -> float:
        """Expected seconds from ``now`` until the answer comes."""
        raise NotImplementedError


def tool_of(paused: Paused) -> str:
    """The key by which estimators tell pauses apart: what the pause waits for and, where known, the tool."""
    return f"{paused.waits_for}/{paused.tool}"


@dataclass(frozen=True, slots=True)
class NextCall:
    """What is expected of a call: tokens that it generates, seconds of the pause after it and tokens of its answer."""

    output: float
    pause: float = 0.0
    returned: float = 0.0


class CallPredictor:
    """Says what a call will do before it runs, from what may be known.

    Attributes:
        needs_truth: whether this is an oracle; results that used it say so.
        truth: what a session's call really does. The engine sets it for an oracle.
    """

    truth: Callable[[Queued], NextCall] | None = None
    needs_truth = False

    def call_ended(self, ended: Queued, call: NextCall) -> None:
        """Learn from a call whose pause has just ended, or that nothing follows."""

    def predict(self, queued: Queued) -> NextCall:
        """What the call that ``queued`` is ready for is expected to do."""
        raise NotImplementedError
