"""Conditions mean what they say."""

from __future__ import annotations

import pytest

from traces import Call, Pause, Session, SharedPrefix
from traces.filters import all_of, condition

SESSION = Session(
    "a-1", 3.0, 100, (Call(10, Pause(4.0, 20, "user")), Call(5, Pause(1.5, 5, "tool", "Bash")), Call(2)), "qa",
    prefix=SharedPrefix("system", 50),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("kind=qa", True), ("kind==qa", True), ("kind != qa", False), ("kind=q*", True), ("kind=q", False),
        ("id=a-?", True), ("tool=Bash", True), ("tool=Ba*", True), ("tool!=Bash", False), ("tool=Read", False),
        ("waits_for=user", True), ("prefix=system", True), ("prompt<4096", True), ("prompt<100", False),
        ("prompt<=100", True), ("calls>=3", True), ("calls=3", True), ("calls!=3", False), ("pauses=2", True),
        ("output=17", True), ("returned=25", True), ("context=142", True), ("pause>5.4", True), ("pause=5.5", True),
        ("longest_pause=4", True), ("arrival<3", False), ("arrival>=3.0", True), ("samples=1", True),
        ("prompt<1_000", True), ("prompt<inf", True),
    ],
)  # fmt: skip
def test_a_condition_holds_or_not(text: str, holds: bool) -> None:
    """100 + 10 + 20 + 5 + 5 + 2 = 142 tokens of context; pauses of 4 and 1.5 s."""
    assert condition(text)(SESSION) is holds


def test_all_conditions_must_hold() -> None:
    assert all_of(["kind=qa", "calls>2"])(SESSION)
    assert not all_of(["kind=qa", "calls>3"])(SESSION)
    assert all_of([])(SESSION)


@pytest.mark.parametrize("text", ["", "prompt", "prompt<", "prompt<nan", "prompt~5", "colour=red", "kind<b", "<5"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        condition(text)
