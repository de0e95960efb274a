"""What a policy is asked, and what it may see.

An intercept policy decides what becomes of the KV context of a session that paused for a tool, a service or a person.
It sees the engine through the small read-only protocols of this module and knows neither SimPy nor torch, so the same
object runs in the simulator and on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

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


Verdict = Preserve | Swap | Discard


class Paused(Protocol):
    """A context that computes nothing at present: its session paused, or came back and waits to be served.

    Tokens are context tokens. ``resident + offloaded + missing`` is the whole context. The true duration of the
    pause is not here.
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
    def offloaded_tokens(self) -> int: ...
    @property
    def moving(self) -> bool: ...


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


Change = tuple[Paused, Verdict]


class InterceptPolicy:
    """Decides what becomes of paused contexts. Every question has a default; override what matters.

    Attributes:
        estimator: the policy's duration estimator, if it has one. The engine tells it of every pause that ends, and
            hands it the truth if it is an oracle.
    """

    estimator: DurationEstimator | None = None

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        """This session just paused: what becomes of its context? Default: it stays on the GPU."""
        return Preserve()

    def gives_way(self, blocks: int, view: EngineView) -> Iterable[Change]:
        """``blocks`` GPU blocks are needed: who gives way, in which order, and how? Default: nobody.

        The engine takes changes from the front until the blocks are found, so an iterator may be lazy.
        """
        return ()

    def revise(self, view: EngineView) -> Iterable[Change]:
        """An iteration has been planned: which paused contexts fare differently from now on? Default: none."""
        return ()

    def review_at(self, view: EngineView) -> float:
        """Until when ``revise`` would answer nothing while nobody joins, leaves, pauses or comes back.

        ``NEVER``, a time, or ``EVERY_ITERATION``. The engine asks ``revise`` whenever it plans an iteration; this says
        how far time may leap between two of them, and when to ask while nothing runs. A policy that overrides
        ``revise`` and not this is asked every iteration.
        """
        return NEVER if type(self).revise is InterceptPolicy.revise else EVERY_ITERATION

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        """The answer came after ``duration`` seconds. For policies that learn."""


class DurationEstimator:
    """Says how long a pause is still expected to last, from what may be known."""

    truth: Callable[[Paused], float] | None = None
    """A pause's true end, s. The engine sets it for an oracle, that is if ``needs_truth``; results then say so."""
    needs_truth = False

    def pause_ended(self, paused: Paused, duration: float) -> None:
        """Learn from a pause that has just ended after ``duration`` seconds."""

    def remaining(self, paused: Paused, now: float) -> float:
        """Expected seconds from ``now`` until the answer comes."""
        raise NotImplementedError


class Queued(Protocol):
    """A session that is ready to compute, as a queue order may see it."""

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
    def calls_done(self) -> int: ...
    @property
    def context_tokens(self) -> int: ...


class QueueOrder:
    """Says who is served first: the smallest key. Ties fall to the session submitted first."""

    def key(self, queued: Queued, view: EngineView) -> float:
        """Sort key of a session that becomes ready at ``queued.ready_at``."""
        raise NotImplementedError
