"""The engine as policies see it: read-only, and without a future. Implements ``policies.views.EngineView``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from policies.contract import KVUsage
from policies.renamed import ENGINE_VIEW, old_attribute
from sim.costs.batch import Direction
from sim.costs.cost_model import CostModel
from sim.engine.queues import Queues
from sim.engine.swap_budget import SwapBudget
from sim.kv.kv_cache import KVCacheManager
from sim.session import SessionState, SessionView, Status


class Eviction(Protocol):
    """What a view reads of the evictor."""

    protected: SessionState | None
    budget: SwapBudget


class EngineState(Protocol):
    """What a view reads of an engine."""

    now: float
    costs: CostModel
    token_budget: int
    short_cuts: bool
    kv: KVCacheManager
    queues: Queues

    @property
    def evictor(self) -> Eviction: ...
    @property
    def preemptive(self) -> object | None: ...


class View:
    """Properties mirror the engine's state at the moment of asking."""

    __slots__ = (
        "_engine",
        "_kv_usage",
        "_listed_at",
        "_undecided",
        "block_size",
        "costs",
        "gpu_blocks",
        "short_cuts",
        "token_budget",
    )

    def __init__(self, engine: EngineState) -> None:
        self._engine = engine
        self.costs: CostModel = engine.costs
        self.block_size = engine.kv.block_size
        self.token_budget = engine.token_budget
        self.short_cuts = engine.short_cuts
        self.gpu_blocks = engine.kv.gpu.capacity
        self._listed_at = -1  # by the contexts' count of changes
        self._undecided: list[SessionView] = []
        self._kv_usage: list[KVUsage] | None = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """An attribute that is not there: the error says its present name, if it was renamed."""
            raise old_attribute("the engine's view", name, ENGINE_VIEW)

    @property
    def now(self) -> float:
        """The time, s."""
        return self._engine.now

    def set_clock(self, at: float) -> None:
        """The engine is seen as of ``at``, s."""
        self._engine.now = at

    @property
    def free_gpu_blocks(self) -> int:
        """Free GPU blocks."""
        return self._engine.kv.gpu.free_blocks

    @property
    def free_host_blocks(self) -> int:
        """Free host blocks."""
        return self._engine.kv.host.free_blocks

    @property
    def max_running(self) -> int:
        """Sessions that may run in an iteration."""
        return self._engine.queues.max_running

    @property
    def running_sessions(self) -> int:
        """Sessions that decode or compute missing tokens."""
        return self._engine.queues.running

    @property
    def running_context_tokens(self) -> int:
        """Resident tokens of the running sessions: C_other of the waste equations."""
        queues = self._engine.queues
        return queues.decoding.resident_tokens + sum([state.resident for state in queues.prefilling])

    @property
    def running_query_tokens(self) -> int:
        """Query tokens that the running sessions still ask for: one of each that decodes, the others' missing ones."""
        queues = self._engine.queues
        return queues.decoding.num_sequences + sum(
            [state.queries(state.resident, state.missing) for state in queues.prefilling]
        )

    @property
    def waiting_sessions(self) -> int:
        """Sessions that are ready and not yet admitted, those waiting for a copy included."""
        return len(self._engine.queues.waiting) + len(self._engine.queues.swapped)

    @property
    def swap_budget(self) -> float:
        """Tokens that may still be copied out in this iteration; infinite when nothing limits it."""
        return self._engine.evictor.budget.tokens(Direction.OUT)

    @property
    def paused(self) -> list[SessionView]:
        """Contexts with resident tokens that compute nothing, the longest unused first: a list of its own.

        Under a preemptive order only those of paused sessions: the others are the order's.
        """
        if self._engine.preemptive is not None:
            return [state.view for state in self._engine.kv.idle_gpu if state.status is Status.PAUSED]
        spared, swapped = self._engine.evictor.protected, Status.SWAPPED
        return [state.view for state in self._engine.kv.idle_gpu if state is not spared and state.status is not swapped]

    @property
    def undecided(self) -> Sequence[SessionView]:
        """Contexts of ``paused`` that still wait for their answer and are not being copied: open to a verdict. One list
        until one of them changes."""
        if self._listed_at != self._engine.kv.version or not self.short_cuts:
            self._list()
        return self._undecided

    @property
    def kv_usage(self) -> Sequence[KVUsage]:
        """Where the tokens of ``undecided`` are, in its order. One list until one of them changes, unless
        contexts share blocks."""
        if self._engine.kv.prefixes is not None:
            return [(one.resident_tokens, one.shared_tokens, one.offloaded_tokens) for one in self.undecided]
        if self._listed_at != self._engine.kv.version or not self.short_cuts:
            self._list()
        if self._kv_usage is None:
            self._kv_usage = [(one._state._resident, 0, one._state.offloaded) for one in self._undecided]
        return self._kv_usage

    def _list(self) -> None:
        kv, paused = self._engine.kv, Status.PAUSED
        self._listed_at = kv.version
        self._undecided = [state.view for state in kv.idle_gpu if state.copy is None and state.status is paused]
        self._kv_usage = None

    @property
    def offloaded(self) -> list[SessionView]:
        """Paused contexts with tokens on the host: a list of its own."""
        return [state.view for state in self._engine.kv.idle_host if state.status is Status.PAUSED]

    @property
    def running(self) -> list[SessionView]:
        """Sessions that decode or compute missing tokens: a list of its own."""
        queues = self._engine.queues
        return [state.view for state in (*queues.decoding, *queues.prefilling)]

    @property
    def waiting(self) -> list[SessionView]:
        """Sessions that are ready and do not run, those waiting for a copy included, in no order."""
        queues = self._engine.queues
        return [*(state.view for _, state in queues.waiting), *(state.view for state in queues.swapped)]


class WithoutDecoders(View):
    """A view whose running sessions are only those that compute missing tokens."""

    __slots__ = ()

    def __init__(self, view: View) -> None:
        super().__init__(view._engine)

    @property
    def running(self) -> list[SessionView]:
        """Sessions that compute missing tokens: a list of its own."""
        return [state.view for state in self._engine.queues.prefilling]
