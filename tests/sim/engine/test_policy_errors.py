"""A policy that raises or answers nonsense stops the run: the message names it, the session and the simulated time.

The world: a's call of one token ends at 1.10 and its pause at 6.10; b decodes all along; the pool is small enough for
``evict`` to be asked.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.contract import Discard, InterceptPolicy, Paused, Preserve, QueueOrder, Swap
from policies.estimation import DurationEstimator
from policies.papers.infercept import MinWaste
from sim.errors import PolicyError, SimulationError
from tests.sim.worlds import pause, run, session

A = session("a", 10, 1, pause(5.0, returned=4), 1)
B = session("b", 10, 12)


def policy(**methods: Callable[..., Any]) -> InterceptPolicy:
    """A policy with these methods, called ``Odd``."""
    return type("Odd", (InterceptPolicy,), methods)()


def order(key: Callable[..., Any]) -> QueueOrder:
    return type("OddOrder", (QueueOrder,), {"key": key})()


def raises(*_: Any) -> Any:
    raise KeyError("oops")


def always(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer


def each(verdict: Any) -> Callable[..., Any]:
    """Answers ``verdict`` for every paused context, whatever was asked."""
    return lambda self, *asked: [(paused, verdict) for paused in asked[-1].paused]


def failure(odd: InterceptPolicy | None = None, **more: Any) -> str:
    """What is said when the world runs under ``odd``."""
    with pytest.raises(PolicyError) as caught:
        run(A, B, gpu=24, policy=odd or "preserve", **more)
    return str(caught.value)


def assert_names(message: str, name: str, method: str, session: str | None, time: str | None) -> None:
    assert re.search(rf"\b{name}\b", message), message
    assert method in message, message
    if session is not None:
        assert re.search(rf"session {session}\b", message), message
    assert re.search(r"at \d+\.\d+ s", message), message
    if time is not None:
        assert f"at {time} s" in message, message


RAISING = [
    ("on_pause", "a", "1.200000"),
    ("on_resume", "a", "6.200000"),
    ("evict", None, None),
    ("revise", None, None),
    ("review_at", None, None),
]


@pytest.mark.parametrize(("method", "who", "time"), RAISING)
def test_a_policy_that_raises(method: str, who: str | None, time: str | None) -> None:
    methods: dict[str, Any] = {method: raises}
    if method == "review_at":
        methods["revise"] = always(())
    message = failure(policy(**methods))
    assert_names(message, "Odd", method, who, time)
    assert "KeyError: 'oops'" in message


THIS_FILE = Path(__file__).name


def test_the_message_ends_with_the_line_of_the_user_s_that_failed() -> None:
    """``raises`` stands in this file, which is none of the project's packages."""
    line = raises.__code__.co_firstlineno + 1
    assert failure(policy(on_pause=raises)).endswith(f"KeyError: 'oops' ({THIS_FILE}:{line})")
    assert failure(order=order(raises)).endswith(f"({THIS_FILE}:{line})")
    assert failure(MinWaste(Broken("remaining"))).endswith(f"({THIS_FILE}:{line})")


def test_what_a_library_raises_is_placed_where_the_user_called_it() -> None:
    def on_pause(self: Any, paused: Any, view: Any) -> Any:
        return json.loads("")

    message = failure(policy(on_pause=on_pause))
    assert message.endswith(f"({THIS_FILE}:{on_pause.__code__.co_firstlineno + 1})")


def test_what_fails_in_a_shipped_policy_is_placed_there() -> None:
    shipped = MinWaste(Broken("neither"))
    shipped.estimator = None  # type: ignore[assignment]
    assert re.search(r"\(infercept\.py:\d+\)$", failure(shipped))


def test_an_answer_that_the_engine_refuses_has_no_line() -> None:
    assert failure(policy(on_pause=always(3))).endswith("expected Preserve, Swap or Discard, got 3")


def test_an_error_in_the_middle_of_a_generator() -> None:
    def revise(self: Any, view: Any) -> Any:
        for paused in view.paused:
            yield paused, Preserve()
            raise KeyError("oops")

    assert_names(failure(policy(revise=revise)), "Odd", "revise", None, "1.200000")


def test_an_order_that_raises() -> None:
    message = failure(order=order(raises))
    assert_names(message, "OddOrder", "order", "a", "0.000000")


@pytest.mark.parametrize("answer", [None, "soon", math.nan], ids=str)
def test_an_order_that_answers_no_number(answer: Any) -> None:
    assert_names(failure(order=order(always(answer))), "OddOrder", "order", "a", "0.000000")


@pytest.mark.parametrize("answer", [None, "swap", Swap, 3, ("a", Preserve())], ids=str)
def test_a_pause_that_is_answered_by_no_verdict(answer: Any) -> None:
    message = failure(policy(on_pause=always(answer)))
    assert_names(message, "Odd", "on_pause", "a", "1.200000")
    assert "expected Preserve, Swap or Discard" in message


@pytest.mark.parametrize("verdict", [Swap, Discard])
@pytest.mark.parametrize("keep", [-1, 12, 3.0, None, "all"], ids=str)
def test_a_keep_that_is_no_part_of_the_context(verdict: Any, keep: Any) -> None:
    """a's context has 11 tokens at its pause."""
    message = failure(policy(on_pause=always(verdict(keep))))
    assert_names(message, "Odd", "on_pause", "a", "1.200000")
    assert repr(keep) in message
    assert "11 tokens" in message


@pytest.mark.parametrize("keep", [0, 11])
def test_a_keep_of_nothing_or_of_everything_is_an_answer(keep: int) -> None:
    assert run(A, B, policy=policy(on_pause=always(Discard(keep)))).session("a")["status"] == "finished"


@pytest.mark.parametrize("method", ["evict", "revise"])
@pytest.mark.parametrize("answer", [None, 3, Preserve(), [None], [3], [Preserve()]], ids=str)
def test_changes_that_are_no_changes(method: str, answer: Any) -> None:
    assert_names(failure(policy(**{method: always(answer)})), "Odd", method, None, None)


@pytest.mark.parametrize("method", ["evict", "revise"])
@pytest.mark.parametrize("verdict", [None, "swap", Swap(-1), Discard(12)], ids=str)
def test_changes_with_an_impossible_verdict(method: str, verdict: Any) -> None:
    assert_names(failure(policy(**{method: each(verdict)})), "Odd", method, "a", None)


@pytest.mark.parametrize("method", ["evict", "revise"])
def test_changes_of_something_that_is_no_context(method: str) -> None:
    message = failure(policy(**{method: always([("a", Preserve())])}))
    assert_names(message, "Odd", method, None, None)
    assert "'a'" in message


@pytest.mark.parametrize("method", ["evict", "revise"])
def test_the_context_of_a_running_session_cannot_give_way(method: str) -> None:
    """The policy keeps b's view from its first pause and names it while b runs again."""
    kept: list[Paused] = []

    def on_pause(self: Any, paused: Paused, view: Any) -> Any:
        kept.append(paused)
        return Preserve()

    changes = {method: lambda self, *_: [(paused, Discard()) for paused in kept if paused.id == "b"]}
    odd = policy(on_pause=on_pause, **changes)
    long, b = session("a", 10, 1, pause(99.0)), session("b", 10, 1, pause(0.0), 30)
    with pytest.raises(PolicyError) as caught:
        run(long, b, gpu=45, policy=odd)
    assert_names(str(caught.value), "Odd", method, "b", None)
    assert "decoding" in str(caught.value) or "prefilling" in str(caught.value)


@pytest.mark.parametrize("answer", [None, "later", math.nan], ids=str)
def test_a_review_time_that_is_no_time(answer: Any) -> None:
    odd = policy(revise=always(()), review_at=always(answer))
    assert_names(failure(odd), "Odd", "review_at", None, None)


class Broken(DurationEstimator):
    """Fails when it is asked, or when it should learn."""

    def __init__(self, method: str) -> None:
        self.method = method

    def remaining(self, paused: Paused, now: float) -> float:
        return raises() if self.method == "remaining" else 1.0

    def pause_ended(self, paused: Paused, duration: float) -> None:
        if self.method == "pause_ended":
            raises()


@pytest.mark.parametrize("method", ["remaining", "pause_ended"])
def test_an_estimator_that_raises_is_its_policy_s_fault(method: str) -> None:
    message = failure(MinWaste(Broken(method)))
    assert_names(message, "MinWaste", "", None, None)
    assert "KeyError: 'oops'" in message


def test_a_policy_may_walk_through_the_paused_contexts_while_it_changes_them() -> None:
    """``policies.contract``: an iterator may be lazy. c waits with its context when the policy discards it."""

    def revise(self: Any, view: Any) -> Any:
        for paused in view.paused:
            yield paused, Discard()

    sessions = (A, session("b", 10, 1, pause(5.0, 1), 1), session("c", 10, 20))
    world = run(*sessions, policy=policy(revise=revise), max_running=1, resume_on_gpu="queue")
    assert world.record.sessions["status"] == ["finished"] * 3


def test_a_context_named_twice_gives_way_once() -> None:
    """Swap, then discard what is left: whatever comes of it, the session goes on."""

    def evict(self: Any, blocks: int, view: Any) -> Any:
        for paused in list(view.paused):
            yield paused, Swap(5)
            yield paused, Discard()

    sessions = (A, session("b", 10, 1, pause(5.0, 1), 1), session("c", 10, 14))
    for swap in ("blocking", "overlapped"):
        world = run(*sessions, gpu=26, policy=policy(evict=evict), resume_on_gpu="queue", swap=swap)
        assert world.record.sessions["status"] == ["finished"] * 3


def test_it_is_a_simulation_error_that_names_the_cause() -> None:
    with pytest.raises(SimulationError) as caught:
        run(A, policy=policy(on_pause=raises))
    cause = caught.value.__cause__
    while cause is not None and not isinstance(cause, KeyError):
        cause = cause.__cause__
    assert isinstance(cause, KeyError)
