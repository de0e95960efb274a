"""What a policy is asked, and what it may see.

An intercept policy decides what becomes of the KV context of a session that paused for a tool, a service or a person.
It sees the engine through the small read-only protocols of this module and knows neither SimPy nor torch, so the same
object runs in the simulator and on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from policies.estimation import CallPredictor, DurationEstimator

NEVER = math.inf
EVERY_ITERATION = -math.inf


@dataclass(frozen=True, slots=True)
class Preserve:
    """Leave the context where it is."""

    because: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Swap:
    """Copy the resident context to the host, all but its first ``keep`` tokens (rounded up to whole blocks)."""

    keep: int = 0
    because: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Discard:
    """Forget the context, all but its first ``keep`` tokens (rounded up to whole blocks); recompute it later."""

    keep: int = 0
    because: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Copy what is on the host back before the answer comes, as far as free GPU memory and the swap budget go.

    Only ``revise`` may answer it, of a context from ``view.offloaded``, and only if the policy ``prefetches``.
    """

    because: Mapping[str, float] = field(default_factory=dict)


Verdict = Preserve | Swap | Discard | Prefetch


class Paused(Protocol):
    """A context that computes nothing at present: its session paused, or came back and waits to be served.

    Tokens are context tokens. ``resident + offloaded + missing`` is the whole context. Of the resident ones the first
    ``shared_tokens`` are in blocks that other contexts hold too: letting go of these frees nothing before the others
    do so. ``emitted_before`` are the tokens of the calls that are done and ``paused_s`` the seconds of the pauses that
    have ended, at whatever replica. The true duration of the pause is not here.
    """

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def tool(self) -> str: ...
    @property
    def waits_for(self) -> str: ...
    @property
    def arrival(self) -> float: ...
    @property
    def ready_at(self) -> float: ...
    @property
    def paused_at(self) -> float: ...
    @property
    def calls_done(self) -> int: ...
    @property
    def resumed(self) -> bool: ...
    @property
    def context_tokens(self) -> int: ...
    @property
    def resident_tokens(self) -> int: ...
    @property
    def shared_tokens(self) -> int: ...
    @property
    def offloaded_tokens(self) -> int: ...
    @property
    def emitted_tokens(self) -> int: ...
    @property
    def emitted_before(self) -> int: ...
    @property
    def paused_s(self) -> float: ...
    @property
    def moving(self) -> bool: ...


def is_incomplete(paused: Paused) -> bool:
    """Whether more is missing of a context than the token that was emitted last."""
    return paused.resident_tokens + paused.offloaded_tokens + 1 < paused.context_tokens


Footprint = tuple[int, int, int]
"""Context tokens on the GPU, those of them that other contexts hold too, and those on the host."""


class Costs(Protocol):
    """The costs of one model on one GPU, as a policy may ask for them. Seconds and tokens."""

    @property
    def saturation_tokens(self) -> int: ...
    def forward_time(self, query_tokens: int, context_tokens: int = 0) -> float: ...
    def swap_time(self, tokens: int) -> float: ...


class EngineView(Protocol):
    """What a policy may know of the engine that asks it."""

    @property
    def now(self) -> float: ...
    @property
    def costs(self) -> Costs: ...
    @property
    def block_size(self) -> int: ...
    @property
    def token_budget(self) -> int: ...
    @property
    def gpu_blocks(self) -> int: ...
    @property
    def free_gpu_blocks(self) -> int: ...
    @property
    def free_host_blocks(self) -> int: ...
    @property
    def most_running(self) -> int: ...
    @property
    def running_sessions(self) -> int: ...
    @property
    def running_context_tokens(self) -> int: ...
    @property
    def running_query_tokens(self) -> int: ...
    @property
    def waiting_sessions(self) -> int: ...
    @property
    def swap_budget(self) -> float: ...
    @property
    def paused(self) -> Iterable[Paused]: ...
    @property
    def unanswered(self) -> Sequence[Paused]: ...
    @property
    def footprints(self) -> Sequence[Footprint]: ...
    @property
    def running(self) -> Iterable[Queued]: ...
    @property
    def waiting(self) -> Iterable[Queued]: ...
    @property
    def offloaded(self) -> Iterable[Paused]: ...


Change = tuple[Paused, Verdict]


class InterceptPolicy:
    """Decides what becomes of paused contexts. Every question has a default; override what matters.

    Attributes:
        estimator: the policy's duration estimator, if it has one. The engine tells it of every pause that ends, and
            hands it the truth if it is an oracle.
        predictor: likewise what it predicts calls with, before they run.
        one_lru: whether cached blocks that nobody holds are evicted in one order with the contexts that it lets give
            way, the least recently used first; otherwise cached blocks go before any context.
        prefetches: whether ``revise`` may answer ``Prefetch``; it is then asked while contexts are only on the host.
    """

    estimator: DurationEstimator | None = None
    predictor: CallPredictor | None = None
    one_lru: bool = False
    prefetches: bool = False

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        """This session just paused: what becomes of its context? Default: it stays on the GPU."""
        return Preserve()

    def gives_way(self, blocks: int, view: EngineView) -> Iterable[Change]:
        """``blocks`` GPU blocks are needed: who gives way, in which order, and how? Default: nobody.

        The engine takes changes from the front until the blocks are found, so an iterator may be lazy. It may ask
        several times before an iteration, and need not carry out what it was answered.
        """
        return ()

    def revise(self, view: EngineView) -> Iterable[Change]:
        """An iteration has been planned: which paused contexts fare differently from now on? Default: none."""
        return ()

    def review_at(self, view: EngineView) -> float:
        """Until when ``revise`` would answer nothing, and ``gives_way`` no more than now, while nobody joins, leaves,
        pauses or comes back.

        ``NEVER``, a time, or ``EVERY_ITERATION``. The engine asks ``revise`` whenever it plans an iteration; this says
        how far time may leap between two of them, and when to ask while nothing runs. A policy that overrides
        ``revise`` and not this is asked every iteration.
        """
        return NEVER if type(self).revise is InterceptPolicy.revise else EVERY_ITERATION

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        """The answer came after ``duration`` seconds. For policies that learn."""

    def on_start(self, started: Queued, view: EngineView) -> None:
        """A session is ready since ``started.ready_at``, and now computes for its call. For policies that learn."""

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        """A session has left for good after ``finished.calls_done`` calls. For policies that learn."""

    def on_leave(self, left: Paused, view: EngineView) -> None:
        """A session whose answer has come goes on at another replica, after ``on_resume``. Forget it: if it comes back,
        ``on_join`` says so. For policies that remember sessions."""

    def on_join(self, joined: Paused, view: EngineView) -> None:
        """A session goes on here that has been served elsewhere. Its context is being copied over if it is ``moving``;
        otherwise all of it is missing. For policies that remember sessions."""


Key = float | tuple[float, ...]
"""Where a session stands in the queue: a number, or numbers of which the first that differ decide. Smaller is first."""


class Queued(Protocol):
    """A session that is ready to compute, running or not, as a queue order may see it, with ``emitted_before`` and
    ``paused_s`` as for ``Paused``. How much it will still generate is not here."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def arrival(self) -> float: ...
    @property
    def ready_at(self) -> float: ...
    @property
    def entered(self) -> float: ...
    @property
    def resumed(self) -> bool: ...
    @property
    def calls_done(self) -> int: ...
    @property
    def context_tokens(self) -> int: ...
    @property
    def resident_tokens(self) -> int: ...
    @property
    def offloaded_tokens(self) -> int: ...
    @property
    def missing_tokens(self) -> int: ...
    @property
    def emitted_tokens(self) -> int: ...
    @property
    def emitted_before(self) -> int: ...
    @property
    def paused_s(self) -> float: ...
    @property
    def ready(self) -> bool: ...
    @property
    def running(self) -> bool: ...
    @property
    def waits_since(self) -> float: ...
    def served(self, now: float) -> float: ...
    def waited(self, now: float) -> float: ...


class QueueOrder:
    """Says who is served first: the smallest key. Ties fall to the session submitted first.

    Attributes:
        policy: the intercept policy beside it, which the engine sets; for orders that go with a certain policy.
        needs_truth: whether this is an oracle; results then say so.
        truth: tokens that a session will still generate before its next pause or its end. The engine sets it for an
            oracle.
        key_names: what the numbers of a key are, in words.
    """

    policy: InterceptPolicy | None = None
    needs_truth = False
    truth: Callable[[Queued], int] | None = None
    key_names: tuple[str, ...] = ()

    def named(self, key: tuple[float, ...]) -> Mapping[str, float]:
        """The numbers of a key by name, for those who ask why. Default: by ``key_names``, or as they come."""
        names = self.key_names or tuple(f"number {place}" for place in range(1, len(key) + 1))
        return dict(zip(names, key, strict=False))

    def key(self, queued: Queued, view: EngineView) -> Key:
        """Sort key of a session that becomes ready at ``queued.ready_at``: at its arrival and after each pause."""
        raise NotImplementedError

    def on_preempt(self, preempted: Queued, view: EngineView) -> None:
        """A session that ran must wait again, since ``preempted.waits_since``; its key stands. For orders that watch
        who waits."""

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        """A session has left for good, or goes on at another replica, like a new one if it comes back. For orders
        that remember."""

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        """An iteration is about to be planned: who of ``view.waiting`` stands elsewhere from now on? Default: nobody.

        The engine asks before every iteration that it plans; the answer must follow from the view and from what the
        order was told, not from how often it was asked.
        """
        return ()

    def admits(self, queued: Queued, view: EngineView) -> bool:
        """Whether the head of the queue may begin, if there is room; otherwise all wait. Default: it may."""
        return True

    def review_at(self, view: EngineView) -> float:
        """Until when ``rerank`` would answer nothing and ``admits`` the same while nobody comes, stops or goes on, as
        for policies."""
        asks = type(self).rerank is not QueueOrder.rerank or type(self).admits is not QueueOrder.admits
        return EVERY_ITERATION if asks else NEVER


class PreemptiveOrder(QueueOrder):
    """Says before each iteration who of all ready sessions, running or waiting, gets it: those with the smallest keys.

    Who must stop stays on the GPU, and goes on from there when its turn comes. Its memory goes to sessions before it in
    the order when they need room, by ``preemption`` of the engine's settings; with overlapped swaps also ahead of need,
    so that the watermark stays free. Who lost context so goes first at its next turn, until it has emitted a token.
    ``rerank`` may move running sessions too; ``admits`` is not asked.

    Attributes:
        catches_up: whether ``rerank`` need not be asked but at the times of ``review_at`` while all who are ready can
            run, as nobody's place matters then. It is asked about these times afterwards, with ``view.now`` and all
            lengths as they were, and free blocks of some iterations before.
        keys_age: whether ``rerank`` gives who runs another key in every iteration. Then the keys of those who run are
            those of when it was asked last, and whoever is told of them is told when that was. Each key must follow
            from its session and from how much runs in all: ``view.running`` may show only those whose place matters.
    """

    catches_up: bool = False
    keys_age: bool = False

    def on_run(self, running: Queued, view: EngineView) -> None:
        """A session that waited runs from now on."""

    def review_after(self, view: EngineView) -> float:
        """The same in iterations, the next one included: at least 1, or ``NEVER``. The nearer bound counts."""
        return NEVER

    def most_running(self, view: EngineView) -> float:
        """Sessions that may run now, if fewer than the engine's settings allow; at least one may."""
        return NEVER

    def soonest_first(self, waiting: Sequence[Queued], view: EngineView) -> Sequence[Queued]:
        """The same sessions by the time at which their turn is expected, the soonest first.

        They have come in the order of their keys, and stay in it by default. Of those on the GPU the last gives way
        first; of those on the host the first comes back first.
        """
        return waiting
