"""Results of two checkouts: equal, equal but for columns added or renamed, or differing in named columns."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.compare_checkouts import Difference, compare_results, report

ROWS = {"id": ["a", "b"], "queued_s": [0.5, float("nan")], "moves": [0, 1]}
SUMMARY = {"system": "vllm", "events": 7, "mean_ttft_ms": 0.1 + 0.2}


def write(side: Path, key: str, rows: dict = ROWS, summary: dict = SUMMARY) -> Path:
    """One run's results below ``side``; returns ``side``."""
    folder = side / "runs" / f"vllm.load-1.seed-0.{key}"
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "sessions.parquet")
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "provenance.json").write_text(json.dumps({"key": key}))
    return side


def compared(tmp_path: Path, **after: dict) -> tuple[int, list[Difference]]:
    old, new = write(tmp_path / "old", "1a"), write(tmp_path / "new", "2b", **after)
    return compare_results("x", old, new)


def test_the_same_results_are_equal_whatever_their_provenance_and_key(tmp_path: Path) -> None:
    assert compared(tmp_path) == (2, [])


def test_a_column_of_another_name_is_renamed_and_a_new_one_added(tmp_path: Path) -> None:
    rows = {"id": ROWS["id"], "waited_s": ROWS["queued_s"], "moves": ROWS["moves"], "time_paused_s": [3.0, 4.0]}
    equal, (found,) = compared(tmp_path, rows=rows)
    assert equal == 1
    assert (found.renamed, found.added) == ((("queued_s", "waited_s"),), ("time_paused_s",))
    assert found.same_results


@pytest.mark.parametrize(
    ("after", "columns"),
    [
        ({"rows": {**ROWS, "queued_s": [0.5000000000000001, float("nan")]}}, ("queued_s",)),
        ({"rows": {**ROWS, "queued_s": [0.5, 0.0]}}, ("queued_s",)),
        ({"summary": {**SUMMARY, "mean_ttft_ms": 0.3}}, ("mean_ttft_ms",)),
        ({"summary": {**SUMMARY, "events": 8, "system": "swap"}}, ("system", "events")),
    ],
)
def test_a_value_that_differs_in_its_last_bit_is_named(tmp_path: Path, after: dict, columns: tuple[str, ...]) -> None:
    _, (found,) = compared(tmp_path, **after)
    assert found.changed == columns
    assert not found.same_results


def test_how_and_where_a_result_was_made_is_no_result(tmp_path: Path) -> None:
    made = {"versions": {"code_sha256": "f"}, "runs": [{"folder": "x", "load": 1.0}]}
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / "comparison.json").write_text(json.dumps(made))
    (tmp_path / "new" / "comparison.json").write_text(
        json.dumps({"versions": {"code_sha256": "e"}, "runs": [{"folder": "y", "load": 1.0}]})
    )
    equal, (found,) = compare_results("x", tmp_path / "old", tmp_path / "new")
    assert equal == 0 and found.same_results


def test_a_column_that_went_is_a_difference(tmp_path: Path) -> None:
    _, (found,) = compared(tmp_path, rows={"id": ROWS["id"], "moves": ROWS["moves"]})
    assert found.removed == ("queued_s",)
    assert not found.same_results


def test_a_run_that_only_one_side_has_is_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = write(tmp_path / "old", "1"), write(tmp_path / "new", "1")
    extra = new / "runs" / "swap.load-1.seed-0.3"
    extra.mkdir()
    (extra / "summary.json").write_text("{}")
    equal, found = compare_results("x", old, new)
    report("x", equal, found)
    assert not found[0].same_results
    assert "DIFFERS: summary.json of 1 runs (swap): differ: only the new checkout wrote it" in capsys.readouterr().out
