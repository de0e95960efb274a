"""What only speed needs: hints by which simulated time leaps, and by which a policy spares itself questions.

A policy that leaves every hint at its default is right, and slow. A true hint changes no decision; a false one does.
The base classes of ``policies.contract`` and ``policies.estimation`` inherit these defaults; an author who wants speed
overrides them one by one, and tests that leaping changes nothing (docs/writing-a-policy.md, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from policies.views import EngineView, Paused

NEVER = math.inf
"""A time that does not come: the answer stays as it is."""
EVERY_ITERATION = -math.inf
"""A time that has always come: the answer may change with every iteration."""

Default = TypeVar("Default", bound=Callable[..., Any])
_DEFAULTS: set[Callable[..., Any]] = set()


def answers_nothing(method: Default) -> Default:
    """Mark a base class's default that answers nothing: a policy that keeps it need not be asked."""
    _DEFAULTS.add(method)
    return method


def _answers(policy: object, *questions: str) -> bool:
    """Whether a policy overrides the default of any of ``questions``."""
    return any(getattr(type(policy), question) not in _DEFAULTS for question in questions)


class InterceptHints:
    """Hints of an intercept policy.

    Attributes:
        short_cuts: whether the policy may take ways that only make it faster, such as bounds in place of prices. The
            engine sets it before it asks anything.
    """

    short_cuts: bool = True

    def review_at(self, view: EngineView) -> float:
        """Time until which ``revise`` would answer nothing and ``evict`` no more than now, s, if until then no
        session joins, leaves, pauses or comes back.

        The engine asks ``revise`` whenever it plans an iteration. The hint says how far time may leap between two
        plans, and when to ask while nothing runs.

        Returns:
            ``NEVER``, a time, or ``EVERY_ITERATION``. Default: ``EVERY_ITERATION`` if ``revise`` is overridden.
        """
        return EVERY_ITERATION if _answers(self, "revise") else NEVER


class OrderHints:
    """Hints of a queue order."""

    def review_at(self, view: EngineView) -> float:
        """Time until which ``rerank`` would answer nothing and ``admits`` what it answers now, s, if until then no
        session becomes ready, stops or goes on.

        Returns:
            As for ``InterceptHints``. Default: ``EVERY_ITERATION`` if ``rerank`` or ``admits`` is overridden.
        """
        return EVERY_ITERATION if _answers(self, "rerank", "admits") else NEVER


class PreemptiveHints:
    """Hints of a preemptive order.

    Attributes:
        lazy_rerank: whether ``rerank`` may be left out while every ready session can run, except at the times of
            ``review_at``: no place matters then. The order is asked about these times afterwards, with ``view.now`` and
            all lengths as they were, and with the free blocks of some iterations before.
        keys_drift: whether ``rerank`` gives running sessions other keys in every iteration. Then the keys of running
            sessions are those of the last question, and listeners are told when that was. Each key must follow from
            its own session and from totals: ``view.running`` may show only the sessions whose place matters.
    """

    lazy_rerank: bool = False
    keys_drift: bool = False

    def review_after(self, view: EngineView) -> float:
        """Iterations after which to ask again, the next one included: at least 1, or ``NEVER``. The nearer of this and
        ``review_at`` counts."""
        return NEVER


class EstimatorHints:
    """Hints of a duration estimator: bounds on what it will expect, and answers for several pauses at once.

    Bounds (``exceeds_at``, ``at_most``, ``unsettled``) may be wide and must hold. Answers for several pauses
    (``remaining_of``, ``one_exceeds_at``) give the very numbers of the single questions.
    """

    def remaining(self, paused: Paused, now: float) -> float:
        """Expected seconds from ``now`` until the answer comes."""
        raise NotImplementedError

    def remaining_of(self, paused: Sequence[Paused], now: float) -> Sequence[float]:
        """``remaining`` of each of several pauses, s. Default: one question for each."""
        remaining = self.remaining
        return [remaining(one, now) for one in paused]

    def exceeds_at(self, paused: Paused, seconds: float, now: float) -> float:
        """Time until which ``remaining`` is at most ``seconds``, as long as no pause ends, s; it may be too early.

        Policies find by it how far time may leap. Default: ``EVERY_ITERATION``, unknown.
        """
        return EVERY_ITERATION

    def one_exceeds_at(self, paused: Sequence[Paused], seconds: Sequence[float], now: float) -> float:
        """The earliest ``exceeds_at`` of several pauses, each with its own ``seconds``; ``NEVER`` for none. Default:
        one question for each."""
        exceeds_at = self.exceeds_at
        return min([exceeds_at(one, most, now) for one, most in zip(paused, seconds, strict=True)], default=NEVER)

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        """An upper bound of ``remaining`` at all times from ``now`` to ``until``, s. It holds until a pause of the same
        tool (``tool_of``) makes it ``unsettled``.

        Policies find by it which contexts they need not compare. Default: infinite, unknown.
        """
        return math.inf

    def unsettled(self, ended: Paused) -> bool:
        """Whether bounds of ``at_most`` may have ceased to hold, now that ``pause_ended`` was told of ``ended``.
        Default: they may."""
        return True
