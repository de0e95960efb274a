"""Ratios of two checkouts' speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import in_turns


def test_runs_alternate_and_medians_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old: 1.0, 1.2, 1.1; new: 2.2, 2.0, 9.0. Medians 1.1 and 2.2, so 2.0; the new ones lie 7 / 2.2 apart."""
    seconds = {"old": iter([1.0, 1.2, 1.1]), "new": iter([2.2, 2.0, 9.0])}
    asked = []

    def cpu_s(checkout: Path, case: str, share: float) -> float:
        asked.append(checkout.name)
        return next(seconds[checkout.name])

    monkeypatch.setattr(in_turns, "cpu_s", cpu_s)
    found = in_turns.in_turns(Path("old"), Path("new"), "a", 3, 0.5)
    assert asked == ["old", "new", "new", "old", "old", "new"]
    assert found.ratio == pytest.approx(2.0)
    assert found.noise == pytest.approx(7.0 / 2.2)
