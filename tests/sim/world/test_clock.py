"""A timer acts at the times that are set, in turn with everything else, whether that takes an event or not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sim.world.clock import LAST, Clock, Timer

STEPS = st.lists(st.integers(0, 3), max_size=20)


def heard(steps: list[int], others: list[int], skips: bool) -> list[tuple[str, float]]:
    """What happens: the timer acts and is set to ``steps`` seconds later; something else comes every few seconds, and
    some of it sets the timer anew."""
    clock, told, left, waits = Clock(), [], list(steps), list(others)
    if not skips:
        clock.skip_to = lambda time: False  # type: ignore[method-assign]

    def act() -> None:
        told.append(("acts", clock.now))
        if left:
            timer.set(clock.now + left.pop())

    def other(_: object) -> None:
        told.append(("comes", clock.now))
        if waits:
            wait = waits.pop()
            clock.at(clock.now + wait, other)
            if wait == 2:
                timer.set(clock.now)

    timer = Timer(clock, act, LAST)
    timer.set(0.0)
    clock.at(0.0, other)
    clock.run()
    return told


@given(STEPS, STEPS)
def test_going_on_without_an_event_changes_nothing(steps: list[int], others: list[int]) -> None:
    assert heard(steps, others, skips=True) == heard(steps, others, skips=False)


def test_what_happens_at_the_same_instant_comes_first() -> None:
    """The timer acts at 0, 1 and 3; at 0 and 3 something else comes before it."""
    assert heard([2, 1], [3], skips=True) == [("comes", 0), ("acts", 0), ("acts", 1), ("comes", 3), ("acts", 3)]


def test_without_anything_in_between_there_is_one_event() -> None:
    """Five times a second later: SimPy hears of the first alone."""
    clock, times = Clock(), []

    def act() -> None:
        times.append(clock.now)
        if len(times) < 6:
            timer.set(clock.now + 1.0)

    timer = Timer(clock, act, LAST)
    timer.set(1.0)
    clock.step()
    assert times == [1, 2, 3, 4, 5, 6]
    assert clock.peek() == float("inf")
