"""Garbage is looked for rarely during a run, and as before after it."""

from __future__ import annotations

import gc
import weakref

from sim.world.simulate import collecting_rarely


class Ring:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.me = self


def test_what_was_there_is_frozen_meanwhile_and_cycles_of_the_run_are_gone_afterwards() -> None:
    before = gc.get_threshold()
    with collecting_rarely():
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold()[0] >= 50_000
        made = weakref.ref(Ring())
    assert made() is None
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before


def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        with collecting_rarely():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
