"""What a policy may see: sessions, costs and the engine, as small read-only protocols.

The simulator and the real backend implement them; a test may stand in with a dataclass. Tokens are context tokens,
times and durations are seconds. No view shows the future: neither the true end of a pause nor the length of a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class SessionInfo(Protocol):
    """What paused and ready sessions have in common.

    Attributes:
        id, kind: the session's name, and its class in the trace ("" where the trace has none).
        arrival: when the session arrived, s.
        ready_at: when the session last became ready to compute: at its arrival, or when its answer came, s.
        resumed: whether the answer of the last pause has come and the session waits to be served.
        calls_done: calls that have ended, at whatever replica.
        context_tokens: the whole context: ``resident_tokens`` on the GPU, then ``offloaded_tokens`` on the host, then
            the missing tail.
        emitted_tokens: tokens emitted in the present call.
        emitted_before: tokens emitted in the calls that have ended, at whatever replica.
        paused_s: seconds of the pauses that have ended, at whatever replica.
    """

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def arrival(self) -> float: ...
    @property
    def ready_at(self) -> float: ...
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
    def emitted_tokens(self) -> int: ...
    @property
    def emitted_before(self) -> int: ...
    @property
    def paused_s(self) -> float: ...


class Paused(SessionInfo, Protocol):
    """A context that computes nothing at present: its session paused, or its answer came and it waits to be served.

    Attributes:
        tool: name of the tool that the pause waits for; ``waits_for`` where the trace does not name it.
        waits_for: what the pause waits for: ``tool``, ``user``, ...
        paused_at: when the pause began, s.
        shared_tokens: the first of the resident tokens, in blocks that other contexts hold too. Evicting them frees
            nothing until the other contexts have left them as well.
        moving: whether a copy of this context is under way.
    """

    @property
    def tool(self) -> str: ...
    @property
    def waits_for(self) -> str: ...
    @property
    def paused_at(self) -> float: ...
    @property
    def shared_tokens(self) -> int: ...
    @property
    def moving(self) -> bool: ...


class Queued(SessionInfo, Protocol):
    """A session that is ready to compute, running or not, as a queue order sees it.

    Attributes:
        entered: the time by which the session queues, s: its arrival or its return, by the engine's ``requeue_at``.
        missing_tokens: tokens to compute before the next one can be emitted.
        ready: whether the session runs or waits to run.
        running: whether the session decodes or computes missing tokens.
        waits_since: since when the session is ready and nothing is computed for it, s; NaN while it runs.
    """

    @property
    def entered(self) -> float: ...
    @property
    def missing_tokens(self) -> int: ...
    @property
    def ready(self) -> bool: ...
    @property
    def running(self) -> bool: ...
    @property
    def waits_since(self) -> float: ...
    def served(self, now: float) -> float:
        """Seconds for which the session has run by ``now``, in all its calls."""

    def waited(self, now: float) -> float:
        """Seconds for which the session was ready by ``now`` without running, in all its calls."""


class Costs(Protocol):
    """Costs of one model on one GPU.

    Attributes:
        saturation_tokens: S, the query tokens above which a larger iteration brings no more throughput.
    """

    @property
    def saturation_tokens(self) -> int: ...
    def forward_time(self, query_tokens: int, context_tokens: int = 0) -> float:
        """T_fwd, s: a forward pass over ``query_tokens`` that follow ``context_tokens``."""

    def swap_time(self, tokens: int) -> float:
        """T_swap, s: a copy of ``tokens`` one way."""


KVUsage = tuple[int, int, int]
"""Tokens of one context: on the GPU, those of them that other contexts hold too, and on the host."""


class EngineView(Protocol):
    """What a policy may know of the engine that asks it.

    Attributes:
        now: the time, s.
        costs: costs of the model on this GPU.
        block_size: tokens per block.
        token_budget: query tokens of the longest iteration.
        gpu_blocks: size of the GPU's pool.
        free_gpu_blocks, free_host_blocks: blocks that no context holds.
        max_running: sessions that may run in one iteration.
        running_sessions: sessions that decode or compute missing tokens.
        running_context_tokens: their resident tokens, C_other of the waste equations.
        running_query_tokens: query tokens that they still ask for: one of each decoding session, and the missing ones.
        waiting_sessions: sessions that are ready and not admitted yet, those waiting for a copy included.
        swap_budget: tokens that may still be copied out in this iteration; infinite where nothing limits it.
        paused: contexts with resident tokens that compute nothing, the least recently used first. Under a
            ``PreemptiveOrder`` only those of paused sessions: the order decides about the others.
        undecided: those of ``paused`` that a policy can still decide about: the answer has not come, and no copy is
            under way. The list object stays until one of them changes.
        kv_usage: a ``KVUsage`` of each of ``undecided``, in its order. For policies that look at all of them in
            every iteration; the numbers are those of the contexts themselves.
        offloaded: paused contexts with tokens on the host.
        running: sessions that decode or compute missing tokens.
        waiting: sessions that are ready and do not run, those waiting for a copy included, in no order.
    """

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
    def max_running(self) -> int: ...
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
    def undecided(self) -> Sequence[Paused]: ...
    @property
    def kv_usage(self) -> Sequence[KVUsage]: ...
    @property
    def running(self) -> Iterable[Queued]: ...
    @property
    def waiting(self) -> Iterable[Queued]: ...
    @property
    def offloaded(self) -> Iterable[Paused]: ...


def is_incomplete(paused: Paused) -> bool:
    """Whether a context lacks more than the token that was emitted last, which is always computed next."""
    return paused.resident_tokens + paused.offloaded_tokens + 1 < paused.context_tokens
