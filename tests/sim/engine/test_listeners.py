"""Whatever listens to an engine is registered in one way, is told of everything, and changes nothing."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from sim.engine.listeners import EngineListener
from sim.kv.listeners import BlockTableListener
from tests.sim import worlds
from tests.sim.worlds import World, pause, run, session

SESSIONS = (session("a", 90, 10, pause(3.0, returned=20), 5), session("b", 30, 40, at=0.5))


def methods(kind: type) -> set[str]:
    """What a kind of listener can be told."""
    return {name for name in dir(kind) if not name.startswith("_")}


def listening(kind: type[BlockTableListener]) -> tuple[World, set[str]]:
    """A world to which a listener of ``kind`` listens, and what it was told."""
    told: set[str] = set()

    class Told(kind):  # type: ignore[misc, valid-type]
        def __getattribute__(self, name: str) -> Any:
            told.add(name)
            return super().__getattribute__(name)

    class Heard(worlds.WatchedEngine):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.add_listener(Told())

    with patch.object(worlds, "WatchedEngine", Heard):
        return run(*SESSIONS, policy="swap"), told & methods(kind)


def test_an_engine_listener_is_told_of_blocks_places_and_events_and_changes_nothing() -> None:
    world, told = listening(EngineListener)
    assert told >= {"arrived", "ranked", "copy_began", "copy_ended", "tool_returned", "committed", "worked", "finished"}
    assert repr(world.record) == repr(run(*SESSIONS, policy="swap").record)


def test_a_listener_of_block_tables_is_told_of_blocks_only() -> None:
    _, told = listening(BlockTableListener)
    assert told == {"truncated", "copy_began", "copy_ended"}
