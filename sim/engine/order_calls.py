"""Asks an order that says more than a key, and checks what it answers."""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract import PreemptiveOrder, QueueOrder
from sim.engine.listeners import EngineListener
from sim.engine.policy_calls import Guard, checked_key, checked_number, policy_error
from sim.engine.view import View, WithoutDecoders
from sim.session import READY, SessionState, SessionView


class OrderCaller:
    """The only caller of what an order says beyond a key."""

    def __init__(self, order: QueueOrder, view: View) -> None:
        self._order = order
        self._view = view
        self.listeners: list[EngineListener] = []
        self.asked_at = 0.0  # when the order was last asked for new ranks

    def reranked(self) -> list[tuple[SessionState, tuple[float, ...]]]:
        """Sessions whose rank has changed, with their new keys."""
        self.asked_at = self._view.now
        return self._moved_in(self._view)

    def _moved_in(self, view: View) -> list[tuple[SessionState, tuple[float, ...]]]:
        moved = []
        asked = "-"
        try:
            for queued, key in self._order.rerank(view):
                asked = getattr(queued, "id", "?")
                state = _ready(queued)
                moved.append((state, checked_key(key, state)))
                asked = "-"
        except Exception as error:
            raise policy_error(self._order, "rerank", asked, self._view.now, error) from error
        if moved:
            for listener in self.listeners:
                listener.reranked(moved)
        return moved

    def preempted(self, state: SessionState) -> None:
        """A session that ran must wait again."""
        with Guard(self._order, "on_preempt", state.session.id, self._view.now):
            self._order.on_preempt(state.view, self._view)

    def next_review(self) -> float:
        """Time at which the order wants to be asked again; minus infinity for every iteration."""
        try:
            return checked_number(self._order.review_at(self._view))
        except Exception as error:
            raise policy_error(self._order, "review_at", "-", self._view.now, error) from error

    def admits(self, state: SessionState) -> bool:
        """Whether the head of the queue may begin if there is room."""
        with Guard(self._order, "admits", state.session.id, self._view.now):
            return bool(self._order.admits(state.view, self._view))


class PreemptiveOrderCaller(OrderCaller):
    """The only caller of a preemptive order.

    Attributes:
        limits: whether the order may let fewer run than the engine's settings.
        lazy_rerank: whether the order may be left alone while there is room for all.
        keys_drift: whether keys of running sessions grow old until the order is asked again.
    """

    _order: PreemptiveOrder

    def __init__(self, order: PreemptiveOrder, view: View) -> None:
        super().__init__(order, view)
        self.limits = type(order).max_running is not PreemptiveOrder.max_running
        self.lazy_rerank = order.lazy_rerank and not self.limits
        self.keys_drift = self.lazy_rerank and order.keys_drift
        self._without_decoders = WithoutDecoders(view)
        self._hears_of_runs = type(order).on_run is not PreemptiveOrder.on_run

    def reranked_beside_decoders(self) -> list[tuple[SessionState, tuple[float, ...]]]:
        """``reranked``, while ranks of decoding sessions are moot: they are left out unless a listener follows
        ranks."""
        if not self.keys_drift or self.listeners:
            return self.reranked()
        return self._moved_in(self._without_decoders)

    def runs(self, state: SessionState) -> None:
        """A session that waited runs from now on."""
        if self._hears_of_runs:
            try:
                self._order.on_run(state.view, self._view)
            except Exception as error:
                raise policy_error(self._order, "on_run", state.session.id, self._view.now, error) from error

    def set_clock(self, at: float) -> None:
        """Let the order see the engine as of ``at``, s: it catches up with iterations that went by."""
        self._view.set_clock(at)

    def max_running(self) -> float:
        """How many sessions may run for all that the order minds."""
        with Guard(self._order, "max_running", "-", self._view.now):
            return checked_number(self._order.max_running(self._view), at_least=1)

    def iterations(self) -> float:
        """Iterations, the next one included, after which the order wants to be asked again."""
        try:
            return checked_number(self._order.review_after(self._view), at_least=1)
        except Exception as error:
            raise policy_error(self._order, "review_after", "-", self._view.now, error) from error

    def by_expected_turn(self, waiting: Sequence[SessionState]) -> list[SessionState]:
        """Sessions that wait, by when the order expects their turn; they are given by their keys."""
        if not waiting:
            return []
        with Guard(self._order, "by_expected_turn", "-", self._view.now):
            turns = [
                _ready(queued) for queued in self._order.by_expected_turn([state.view for state in waiting], self._view)
            ]
            if len(turns) != len(waiting) or set(turns) != set(waiting):
                raise ValueError("expected the sessions that were given, in another order")
            return turns


def _ready(queued: object) -> SessionState:
    if not isinstance(queued, SessionView):
        raise TypeError(f"expected a session from view.running or view.waiting, got {queued!r}")
    if queued._state.status not in READY:
        raise ValueError(
            f"session {queued.id} is {queued._state.status.value}; only ready ones have a place in the queue"
        )
    return queued._state


def order_caller_of(order: QueueOrder, view: View) -> OrderCaller | None:
    """Asks an order for more than keys; None if it has nothing more to say."""
    if isinstance(order, PreemptiveOrder):
        return PreemptiveOrderCaller(order, view)
    more = ("rerank", "admits", "on_preempt")
    says_more = any(getattr(type(order), name) is not getattr(QueueOrder, name) for name in more)
    return OrderCaller(order, view) if says_more else None
