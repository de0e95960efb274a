"""Asks the policy, checks what it answers, and keeps the log of its decisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.contract import (
    NEVER,
    Change,
    Discard,
    InterceptPolicy,
    Paused,
    PreemptiveOrder,
    Prefetch,
    Preserve,
    QueueOrder,
    Swap,
    Verdict,
)
from policies.estimation import NextCall
from policies.renamed import INTERCEPT_POLICY, PREEMPTIVE_ORDER, refuse_old_names
from sim.engine.listeners import EngineListener
from sim.engine.truth import Truth, tokens_to_come
from sim.errors import PolicyError, place_of
from sim.session import SessionState, SessionView, Status

if TYPE_CHECKING:
    from sim.engine.view import View


_LEAVING, _NUMBERS = (Swap, Discard), (int, float)  # a union would be made anew by every check
_IDLE = (Status.PAUSED, Status.WAITING)
DECODING = "(decoding)"
WATERMARK = "(reserve)"


@dataclass(frozen=True, slots=True)
class Need:
    """GPU blocks that are missing, and what needs them: a session, ``DECODING`` sessions or the ``WATERMARK``."""

    blocks: int
    by: str


class PolicyCaller:
    """The only caller of a policy. Whatever goes wrong in it becomes a ``PolicyError`` that says where and when."""

    def __init__(self, policy: InterceptPolicy, order: QueueOrder, view: View, log: bool = False) -> None:
        _require_present_names(policy, order)
        self.policy = policy
        self.order = order
        self.view = view
        self.decisions: list[dict[str, Any]] = []
        self.listeners: list[EngineListener] = []
        self.truth = Truth()
        self._log = log
        self.revises = type(policy).revise is not InterceptPolicy.revise
        self._reviews = self.revises or type(policy).review_at is not InterceptPolicy.review_at
        self._order_remembers = type(order).on_finish is not QueueOrder.on_finish
        self._told_of_starts = type(policy).on_start is not InterceptPolicy.on_start
        self._told_of_ends = policy.predictor is not None or type(policy).on_finish is not InterceptPolicy.on_finish
        order.policy = policy
        estimator, predictor = policy.estimator, policy.predictor
        self.uses_oracle = any(one is not None and one.needs_truth for one in (estimator, predictor, order))
        if estimator is not None and estimator.needs_truth:
            estimator.truth = self.truth.pause_end
        if predictor is not None and predictor.needs_truth:
            predictor.truth = self.truth.next_call
        if order.needs_truth:
            order.truth = tokens_to_come

    def key(self, state: SessionState) -> tuple[float, ...]:
        """Where a session that has become ready stands in the queue; smaller is earlier."""
        try:
            key = checked_key(self.order.key(state.view, self.view), state)
        except Exception as error:
            raise policy_error(self.order, "order", state.session.id, self.view.now, error) from error
        for listener in self.listeners:
            listener.ranked(state, key)
        return key

    def pause(self, state: SessionState) -> Verdict:
        """This session just paused: what becomes of its context?"""
        try:
            verdict = self.policy.on_pause(state.view, self.view)
            self._check(state.view, verdict, "on_pause")
        except Exception as error:
            raise self._blame("on_pause", state.session.id, error) from error
        self.applied(state, verdict, "pause")
        return verdict

    def pause_ended(self, state: SessionState, duration: float) -> None:
        """A pause has ended after ``duration`` seconds; policies may learn from it."""
        policy = self.policy
        try:
            if policy.estimator is not None:
                policy.estimator.pause_ended(state.view, duration)
            if policy.predictor is not None:
                pause = state.call.pause
                returned = pause.returned if pause is not None else 0
                policy.predictor.call_ended(state.view, NextCall(state.call.output, duration, returned))
            policy.on_resume(state.view, duration, self.view)
        except Exception as error:
            raise self._blame("on_resume", state.session.id, error) from error

    def call_started(self, state: SessionState) -> None:
        """A session begins to compute for its call."""
        if not self._told_of_starts:
            return
        try:
            self.policy.on_start(state.view, self.view)
        except Exception as error:
            raise self._blame("on_start", state.session.id, error) from error

    def session_finished(self, state: SessionState) -> None:
        """A session has left for good."""
        if self._told_of_ends:
            try:
                if self.policy.predictor is not None and state.call.pause is None:
                    self.policy.predictor.call_ended(state.view, NextCall(state.call.output))
                self.policy.on_finish(state.view, self.view)
            except Exception as error:
                raise self._blame("on_finish", state.session.id, error) from error
        self._forget_place(state)

    def session_left(self, state: SessionState) -> None:
        """A session goes on at another replica."""
        try:
            self.policy.on_leave(state.view, self.view)
        except Exception as error:
            raise self._blame("on_leave", state.session.id, error) from error
        self._forget_place(state)

    def session_joined(self, state: SessionState) -> None:
        """A session goes on here that came from another replica."""
        try:
            self.policy.on_join(state.view, self.view)
        except Exception as error:
            raise self._blame("on_join", state.session.id, error) from error

    def _forget_place(self, state: SessionState) -> None:
        if self._order_remembers:
            try:
                self.order.on_finish(state.view, self.view)
            except Exception as error:
                raise policy_error(self.order, "on_finish", state.session.id, self.view.now, error) from error

    def victims(self, blocks: int) -> Iterator[tuple[SessionState, Verdict]]:
        """``blocks`` GPU blocks are needed: the policy's victims, in order."""
        return self._changes("evict", lambda: self.policy.evict(blocks, self.view))

    def revisions(self) -> Iterator[tuple[SessionState, Verdict]]:
        """An iteration is planned: the policy's revised verdicts."""
        return self._changes("revise", lambda: self.policy.revise(self.view)) if self.revises else iter(())

    def next_review(self) -> float:
        """Time at which the policy wants to be asked again; minus infinity for every iteration."""
        if not self._reviews:
            return NEVER
        try:
            return checked_number(self.policy.review_at(self.view))
        except Exception as error:
            raise self._blame("review_at", "-", error) from error

    def applied(self, state: SessionState, verdict: Verdict, asked: str, need: Need | None = None) -> None:
        """Log a change that the engine carries out, and the need of blocks that asked for it."""
        if self._log:
            self._note(state, verdict, asked, need)

    def _changes(self, question: str, ask: Callable[[], Iterable[Change]]) -> Iterator[tuple[SessionState, Verdict]]:
        session = "-"
        try:  # what goes wrong where the changes are carried out passes it by
            for paused, verdict in ask():
                session = getattr(paused, "id", "?")
                state = self._check(paused, verdict, question)
                if state.status not in _IDLE:
                    raise ValueError(f"session {paused.id} is {state.status.value}; only paused contexts can give way")
                yield state, verdict
                session = "-"
        except Exception as error:
            raise self._blame(question, session, error) from error

    def _check(self, paused: Paused, verdict: object, question: str) -> SessionState:
        if not isinstance(paused, SessionView):
            raise TypeError(f"expected a paused context from view.paused, got {paused!r}")
        if isinstance(verdict, _LEAVING):
            if not (isinstance(verdict.keep, int) and 0 <= verdict.keep <= paused.context_tokens):
                raise ValueError(f"keep is {verdict.keep!r}; the context has {paused.context_tokens} tokens")
        elif isinstance(verdict, Prefetch):
            if question != "revise":
                raise TypeError("Prefetch is an answer of revise only")
        elif not isinstance(verdict, Preserve):
            raise TypeError(f"expected Preserve, Swap or Discard, got {verdict!r}")
        return paused._state

    def _note(self, state: SessionState, verdict: Verdict, asked: str, need: Need | None) -> None:
        self.decisions.append(
            {
                "time": self.view.now,
                "session": state.session.id,
                "call": state.call_index,
                "asked": asked,
                "verdict": type(verdict).__name__.lower(),
                "keep": getattr(verdict, "keep", state.context),
                "context": state.context,
                "resident": state.resident,
                "offloaded": state.offloaded,
                "needed_blocks": need.blocks if need is not None else 0,
                "needed_by": need.by if need is not None else "",
                "because": dict(verdict.reasons),
            }
        )

    def _blame(self, question: str, session: str, error: Exception) -> PolicyError:
        return policy_error(self.policy, question, session, self.view.now, error)


def policy_error(
    rule: object, question: str, session: str, now: float, error: Exception, kind: str = "policy"
) -> PolicyError:
    """What went wrong in a policy, or another ``kind`` of rule, with where and when it did."""
    of, place = type(rule), place_of(error)
    return PolicyError(
        f"{kind} {of.__module__}:{of.__qualname__} failed in {question} for session {session} "
        f"at {now:.6f} s: {type(error).__name__}: {error}{place and f' ({place})'}"
    )


class Guard:
    """Whatever goes wrong in ``policy``, or another ``rule``, becomes a ``PolicyError`` that says where and when."""

    __slots__ = ("_now", "_policy", "_question", "_rule", "_session")

    def __init__(self, policy: object, question: str, session: str, now: float, rule: str = "policy") -> None:
        self._policy, self._question, self._session, self._now, self._rule = policy, question, session, now, rule

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception):
            return
        raise policy_error(self._policy, self._question, self._session, self._now, error, self._rule) from error


def checked_number(answer: object, at_least: float = -math.inf) -> float:
    """A policy's answer where a number is wanted.

    Raises:
        ValueError: it is none, or less than it may be.
    """
    if not isinstance(answer, _NUMBERS) or answer != answer:
        raise ValueError(f"expected a number, got {answer!r}")
    if answer < at_least:
        raise ValueError(f"expected at least {at_least:g}, got {answer!r}")
    return answer


def checked_key(answer: object, state: SessionState) -> tuple[float, ...]:
    """An order's answer where the key of ``state`` is wanted, with the tie-breaker.

    Raises:
        ValueError: it is neither a number nor a tuple of numbers.
    """
    if isinstance(answer, tuple):
        for number in answer:
            if not isinstance(number, _NUMBERS) or number != number:
                checked_number(number)
        return *answer, state.serial
    return checked_number(answer), state.serial


def _require_present_names(policy: InterceptPolicy, order: QueueOrder) -> None:
    """Refuse names of earlier versions that an object sets on itself; its class was checked when it was made."""
    try:
        refuse_old_names(policy, INTERCEPT_POLICY)
        if isinstance(order, PreemptiveOrder):
            refuse_old_names(order, PREEMPTIVE_ORDER)
    except TypeError as error:
        raise PolicyError(str(error)) from error
