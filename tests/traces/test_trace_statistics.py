"""The statistics of the shipped mix are those published for it, and small workloads come out as computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from traces import Call, Pause, Session, describe, shipped

# As printed: pauses a session (mean, sd, max), pause s (mean, sd, p50, p99), first prompt, output a call, returned a
# pause, context at pause (mean, sd), final context (mean, sd); nan where nothing is printed.
NAN = float("nan")
TABLE = {
    "math": (98, 2.81, 1.32, 4, 8.3e-5, 4.8e-5, 8.3e-5, 3.4e-4, 405, 125, 21, 762, 246, 939, 429),
    "qa": (50, 3.04, 1.18, 4, 0.709, 0.209, 0.743, 1.00, 934, 183, 57, 1417, 254, 1847, 246),
    "ve": (54, 5.35, 1.02, 8, 0.085, 0.0147, 0.086, 0.111, 1973, 4, 10, 2001, 23, 2033, 15),
    "chat": (65, 3.46, 1.96, 8, 28.2, 18.4, 20.8, 60, 108, 114, 40, 300, 246, 752, 367),
    "image": (65, 6.92, 3.92, 16, 19.9, 15.4, 12.2, 60, 108, 33, 24, 330, 258, 435, NAN),
    "tts": (65, 6.92, 3.92, 16, 17.1, 17.2, 9.2, 60, 108, 33, 24, 332, 259, 438, NAN),
}
COLUMNS = (
    *("sessions", "pauses_mean", "pauses_sd", "pauses_max"),
    *("pause_s_mean", "pause_s_sd", "pause_s_p50", "pause_s_p99"),
    *("prompt_mean", "output_mean", "returned_mean"),
    *("context_at_pause_mean", "context_at_pause_sd", "final_context_mean", "final_context_sd"),
)
# Half a unit of the last printed digit.
HALF = {
    "math": (0, 0.005, 0.005, 0, 5e-7, 5e-7, 5e-7, 5e-6, *[0.5] * 7),
    "qa": (0, 0.005, 0.005, 0, 5e-4, 5e-4, 5e-4, 5e-3, *[0.5] * 7),
    "ve": (0, 0.005, 0.005, 0, 5e-4, 5e-5, 5e-4, 5e-4, *[0.5] * 7),
    **dict.fromkeys(("chat", "image", "tts"), (0, 0.005, 0.005, 0, 0.05, 0.05, 0.05, 0, *[0.5] * 7)),
}
# These were printed from the recorded prompts, which run up to 3 tokens a call behind the sums that are replayed.
DRIFTING = {
    ("chat", "final_context_mean"): 1,
    **{(kind, "context_at_pause_mean"): 5 for kind in ("image", "tts")},
    **{(kind, "context_at_pause_sd"): 3 for kind in ("image", "tts")},
    **{(kind, "final_context_mean"): 7 for kind in ("image", "tts")},
}


@pytest.mark.parametrize("kind", list(TABLE))
def test_the_shipped_mix_is_as_published(kind: str) -> None:
    row = describe(shipped.load("infercept-mix")).loc[kind]
    for column, published, half in zip(COLUMNS, TABLE[kind], HALF[kind], strict=True):
        if not np.isnan(published):
            tolerance = DRIFTING.get((kind, column), half)
            assert abs(row[column] - published) <= tolerance * (1 + 1e-9), column


def test_the_mix_as_a_whole_is_as_published() -> None:
    """4.64 pauses a session, 12.6 s a pause; 39.1 % of pauses below 1 s and 56.7 % above 5 s."""
    mix = shipped.load("infercept-mix")
    row = describe(mix).loc["all"]
    assert (row["sessions"], row["calls"], row["pauses"], row["share"]) == (397, 2054, 1841, 1)
    assert row["pauses_mean"] == pytest.approx(4.64, abs=0.005)
    assert row["pause_s_mean"] == pytest.approx(12.6, abs=0.05)
    assert np.mean([session.pause_seconds for session in mix]) == pytest.approx(58.3, abs=0.05)
    seconds = np.array([pause.duration for session in mix for pause in session.pauses])
    assert (seconds < 1).mean() == pytest.approx(0.391, abs=0.0005)
    assert (seconds > 5).mean() == pytest.approx(0.567, abs=0.0005)


@pytest.mark.parametrize(("kind", "at_pause", "sd", "final"), [("image", 330, 258, 435), ("tts", 332, 259, 438)])
def test_published_contexts_of_images_and_speech_are_the_recorded_prompts(
    kind: str, at_pause: int, sd: int, final: int
) -> None:
    path = Path(shipped.__file__).parent / "data" / "infercept_mix.jsonl"
    recorded = [line["calls"] for line in map(json.loads, path.read_text().splitlines()) if line["kind"] == kind]
    ends = [[call["prompt"] + call["output"] for call in calls] for calls in recorded]
    every = [end for some in ends for end in some]
    assert (round(np.mean(every)), round(np.std(every))) == (at_pause, sd)
    assert np.mean([some[-1] for some in ends]) == pytest.approx(final, abs=0.5)


def test_a_small_workload_by_hand() -> None:
    """a: 10 + 5 = 15 at its pause, rewritten to 4 + 6 = 10, then 10 + 3 = 13. b: 20 + 2 = 22 and no pause."""
    one = Session("a", 0.0, 10, (Call(5, Pause(2.0, 6, keeps=4)), Call(3)), "x")
    other = Session("b", 0.0, 20, (Call(2),), "y")
    table = describe([one, other])
    assert list(table.index) == ["x", "y", "all"]
    assert (table.loc["x", "context_at_pause_mean"], table.loc["x", "final_context_mean"]) == (15, 13)
    assert (table.loc["y", "final_context_mean"], table.loc["y", "pauses"]) == (22, 0)
    assert table["pause_s_mean"].isna().tolist() == [False, True, False]
    assert (table.loc["all", "final_context_mean"], table.loc["all", "calls_sd"]) == (17.5, 0.5)
    assert table.loc["all", "share"] == 1


def test_an_empty_workload_has_an_empty_row() -> None:
    table = describe([])
    assert table.loc["all", "sessions"] == 0
    assert table["prompt_mean"].isna().all()
