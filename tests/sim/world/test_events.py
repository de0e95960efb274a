"""Events of one instant are applied in the order of one table, which the docs print."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

from sim.world.driver import Driver
from sim.world.events import EventKind, PendingEvent, event_table
from sim.world.tools import ReplayTools
from tests.sim.worlds import pause, run, session

MODEL = Path(__file__).parents[3] / "docs" / "model.md"


def test_the_docs_print_the_table_of_events() -> None:
    printed = (
        MODEL.read_text(encoding="utf-8").partition("<!-- events -->\n")[2].partition("\n<!-- end of events -->")[0]
    )
    assert printed == event_table()


def test_every_kind_has_its_own_place_and_reason() -> None:
    assert [kind.value for kind in EventKind] == list(range(len(EventKind)))
    assert len({kind.reason for kind in EventKind}) == len({kind.what for kind in EventKind}) == len(EventKind)


def test_a_driver_applies_events_by_time_then_kind_then_number() -> None:
    """Two sessions return and one arrives at 2 s, and a copy ends then; another session has arrived at 1 s."""
    told: list[Any] = []
    driver = Driver(MagicMock(), MagicMock(), ReplayTools(), MagicMock(), MagicMock())
    driver._apply = {kind: lambda what, at, kind=kind: told.append((at, kind.name, what)) for kind in EventKind}
    events = [
        (2.0, EventKind.REQUEST_ARRIVED, 4, "e"),
        (2.0, EventKind.TOOL_RETURNED, 2, "c"),
        (2.0, EventKind.TOOL_RETURNED, 1, "b"),
        (2.0, EventKind.COPY_COMPLETED, 3, "d"),
        (1.0, EventKind.REQUEST_ARRIVED, 9, "z"),
    ]
    driver.apply(cast(list[PendingEvent], events))
    assert told == [
        (1.0, "REQUEST_ARRIVED", "z"),
        (2.0, "COPY_COMPLETED", "d"),
        (2.0, "TOOL_RETURNED", "b"),
        (2.0, "TOOL_RETURNED", "c"),
        (2.0, "REQUEST_ARRIVED", "e"),
    ]


def test_a_driver_knows_every_kind() -> None:
    driver = Driver(MagicMock(), MagicMock(), ReplayTools(), MagicMock(), MagicMock())
    assert list(driver._apply) == list(EventKind)


def test_a_tool_that_returns_when_a_request_arrives_goes_first() -> None:
    """a: a prompt of 10 until 1.10, back at 4.10 with 14 to compute. b arrives then: behind a, of one place."""
    world = run(session("a", 10, 1, pause(3.0, 3), 1), session("b", 10, 1, at=4.1), policy="discard", max_running=1)
    assert world.iterations[1].chunks == {"a": 14} and world.iterations[2].chunks == {"b": 10}
