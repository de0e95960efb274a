"""What an author of a policy must know: the questions, the answers, and the defaults.

An intercept policy decides what becomes of the KV context of a session that paused for a tool, a service or a person. A
queue order decides which session is served first. Both see the engine through the read-only protocols of
``policies.views`` and know neither SimPy nor torch, so the same object runs in the simulator and on a GPU. What only
makes a policy faster to simulate stands in ``policies.leap_hints``; the base classes here inherit its defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policies.estimation import CallPredictor, DurationEstimator
from policies.leap_hints import (
    EVERY_ITERATION,
    NEVER,
    InterceptHints,
    OrderHints,
    PreemptiveHints,
    answers_nothing,
)
from policies.renamed import INTERCEPT_POLICY, PREEMPTIVE_ORDER, refuse_old_names, refuses_old_arguments
from policies.views import Costs, EngineView, KVUsage, Paused, Queued, is_incomplete

__all__ = [
    "EVERY_ITERATION",
    "NEVER",
    "Change",
    "Costs",
    "Discard",
    "EngineView",
    "InterceptPolicy",
    "KVUsage",
    "Key",
    "Paused",
    "PreemptiveOrder",
    "Prefetch",
    "Preserve",
    "QueueOrder",
    "Queued",
    "Swap",
    "Verdict",
    "is_incomplete",
]


# ---- answers of an intercept policy


@refuses_old_arguments
@dataclass(frozen=True, slots=True)
class Preserve:
    """Leave the context where it is.

    Attributes:
        reasons: the numbers that the verdict was made from, by name. ``caesura explain`` prints them: a name that ends
            in ``_s`` in seconds; ``preserve``, ``swap``, ``discard`` and ``recompute`` as wastes in token-seconds.
    """

    reasons: Mapping[str, float] = field(default_factory=dict)


@refuses_old_arguments
@dataclass(frozen=True, slots=True)
class Swap:
    """Copy the resident context to the host, all but its first ``keep`` tokens (rounded up to whole blocks)."""

    keep: int = 0
    reasons: Mapping[str, float] = field(default_factory=dict)


@refuses_old_arguments
@dataclass(frozen=True, slots=True)
class Discard:
    """Drop the context, all but its first ``keep`` tokens (rounded up to whole blocks); it is recomputed later."""

    keep: int = 0
    reasons: Mapping[str, float] = field(default_factory=dict)


@refuses_old_arguments
@dataclass(frozen=True, slots=True)
class Prefetch:
    """Copy the offloaded tokens back before the answer comes, as far as free GPU memory and the swap budget go.

    Only ``revise`` may answer it, for a context of ``view.offloaded``, and only if the policy ``prefetches``.
    """

    reasons: Mapping[str, float] = field(default_factory=dict)


Verdict = Preserve | Swap | Discard | Prefetch
Change = tuple[Paused, Verdict]
"""A context, and what becomes of it."""


class InterceptPolicy(InterceptHints):
    """Decides what becomes of paused contexts. Every question has a default; override what matters.

    Attributes:
        estimator: the policy's duration estimator, if it has one. The engine tells it of every pause that ends, and
            gives an oracle the truth.
        predictor: the policy's call predictor, if it has one. The engine tells it of every call that ends, and gives an
            oracle the truth.
        unified_lru: whether cached blocks that no context holds are evicted in one order with the contexts that
            ``evict`` names, the least recently used first. Otherwise cached blocks go before any context.
        prefetches: whether ``revise`` may answer ``Prefetch``. The policy is then asked while contexts are only on the
            host, too.
    """

    estimator: DurationEstimator | None = None
    predictor: CallPredictor | None = None
    unified_lru: bool = False
    prefetches: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_old_names(cls, INTERCEPT_POLICY)

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        """The session has just paused: what becomes of its context? Default: it stays on the GPU."""
        return Preserve()

    def evict(self, blocks: int, view: EngineView) -> Iterable[Change]:
        """``blocks`` GPU blocks are needed: which contexts leave, in which order, and how? Default: none.

        The engine takes changes from the front until the blocks are found, so an iterator may be lazy. It may ask
        several times before an iteration, and need not carry out an answer.
        """
        return ()

    @answers_nothing
    def revise(self, view: EngineView) -> Iterable[Change]:
        """An iteration has been planned: which paused contexts fare differently from now on? Default: none.

        Asked whenever an iteration is planned, unless ``review_at`` says that the answer is still none.
        """
        return ()

    # ---- for policies that learn or remember

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        """The answer came after ``duration`` seconds."""

    def on_start(self, started: Queued, view: EngineView) -> None:
        """The session, ready since ``started.ready_at``, begins to compute for its call."""

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        """The session has left for good after ``finished.calls_done`` calls. Forget it."""

    def on_leave(self, left: Paused, view: EngineView) -> None:
        """The session goes on at another replica; ``on_resume`` came before. Forget it: if it comes back, ``on_join``
        says so."""

    def on_join(self, joined: Paused, view: EngineView) -> None:
        """The session was served elsewhere and goes on here. A copy of its context is under way if it is ``moving``;
        otherwise all of it is missing."""


# ---- answers of a queue order

Key = float | tuple[float, ...]
"""Place in the queue: a number, or numbers of which the first that differ decide. The smallest key is served first."""


class QueueOrder(OrderHints):
    """Decides which session is served first: the one with the smallest key. Of equal keys the session submitted first.

    Attributes:
        policy: the intercept policy beside it, which the engine sets; for orders that go with a certain policy.
        needs_truth: whether this is an oracle; results that used it say so.
        truth: tokens that a session will still generate before its next pause or its end. The engine sets it for an
            oracle.
        key_names: what the numbers of a key are, in words.
    """

    policy: InterceptPolicy | None = None
    needs_truth = False
    truth: Callable[[Queued], int] | None = None
    key_names: tuple[str, ...] = ()

    def named(self, key: tuple[float, ...]) -> Mapping[str, float]:
        """The numbers of a key by name, for ``caesura explain``. Default: by ``key_names``, or numbered."""
        names = self.key_names or tuple(f"number {place}" for place in range(1, len(key) + 1))
        return dict(zip(names, key, strict=False))

    def key(self, queued: Queued, view: EngineView) -> Key:
        """Key of a session that has become ready at ``queued.ready_at``: at its arrival and after each pause."""
        raise NotImplementedError

    @answers_nothing
    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        """An iteration is about to be planned: which sessions of ``view.waiting`` get another key? Default: none.

        Asked before every iteration that is planned. The answer must follow from the view and from what the order was
        told, not from how often it was asked.
        """
        return ()

    @answers_nothing
    def admits(self, queued: Queued, view: EngineView) -> bool:
        """Whether the head of the queue may begin, if there is room; otherwise the whole queue waits. Default: it
        may."""
        return True

    # ---- for orders that remember

    def on_preempt(self, preempted: Queued, view: EngineView) -> None:
        """A running session was preempted and waits since ``preempted.waits_since``. Its key stands."""

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        """The session has left for good, or goes on at another replica; if it comes back it is like a new one. Forget
        it."""


class PreemptiveOrder(PreemptiveHints, QueueOrder):
    """Decides before each iteration which of all ready sessions, running or waiting, get it: those with the smallest
    keys.

    A preempted session stays on the GPU, and goes on from there at its next turn. Its memory goes to sessions before it
    in the order when they need room, by ``preemption`` of the engine's settings; with overlapped swaps also ahead of
    need, so that the watermark stays free. A session that lost context so goes first at its next turn, until it has
    emitted a token. ``rerank`` may move running sessions too; ``admits`` is not asked.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_old_names(cls, PREEMPTIVE_ORDER)

    def on_run(self, running: Queued, view: EngineView) -> None:
        """A session that waited runs from now on."""

    def max_running(self, view: EngineView) -> float:
        """Sessions that may run now, if fewer than the engine's settings allow; at least one. Default: no limit."""
        return NEVER

    def by_expected_turn(self, waiting: Sequence[Queued], view: EngineView) -> Sequence[Queued]:
        """``waiting``, sorted by the time at which each session's turn is expected, the soonest first.

        The sessions come in the order of their keys; by default they stay in it. Of those on the GPU the last leaves
        first; of those on the host the first comes back first.
        """
        return waiting
