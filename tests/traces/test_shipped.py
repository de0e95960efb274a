"""What comes with the package: the published sizes and statistics, and arrivals fit for a replay."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from traces import Call, Session, shipped
from traces.draw.ticks import spread_ticks

DATA = Path(shipped.__file__).parent / "data"
SHARED = Path(__file__).parents[3] / "shared" / "data"


def variation_of_gaps(sessions: list[Session]) -> float:
    gaps = np.diff([session.arrival for session in sessions])
    return float(gaps.std() / gaps.mean())


@pytest.mark.parametrize(
    ("name", "requests", "span", "variation", "prompt", "output"),
    [
        ("azure-conv", 19_366, 3_502, 1.09, (1_155, 1_020, 4_142), (211, 129, 601)),
        ("azure-code", 8_819, 3_436, 13.2, (2_048, 1_469, 7_436), (27.9, 13, 251)),
    ],
)
def test_azures_hours_have_their_published_statistics(
    name: str, requests: int, span: float, variation: float, prompt: tuple[float, ...], output: tuple[float, ...]
) -> None:
    """Mean, P50 and P99 of the lengths; seconds from the first to the last arrival; deviation of the gaps / mean."""
    sessions = shipped.load(name)
    assert len(sessions) == requests
    assert sessions[-1].arrival == pytest.approx(span, abs=1)
    assert variation_of_gaps(sessions) == pytest.approx(variation, rel=0.01)
    for expected, lengths in (
        (prompt, [session.prompt for session in sessions]),
        (output, [session.calls[0].output for session in sessions]),
    ):
        found = (np.mean(lengths), np.percentile(lengths, 50), np.percentile(lengths, 99))
        assert found == pytest.approx(expected, rel=0.01)


def test_the_coding_agents_have_every_recorded_call_that_did_not_fail() -> None:
    agents = shipped.load("coding-agents")
    assert len(agents) == 61
    assert sum(len(session.calls) for session in agents) == 6_026
    assert {session.arrival for session in agents} == {0.0}


def test_mooncakes_arrivals_lie_inside_their_ticks_and_no_longer_on_them() -> None:
    """Recorded every 3 s: 200 ticks in ten minutes, with a variation of 3; spread, they are nearly Poisson."""
    spread = shipped.load("mooncake-conversation")
    arrivals = [session.arrival for session in spread]
    assert (len(spread), arrivals == sorted(arrivals), len(set(arrivals))) == (1_750, True, 1_750)
    assert variation_of_gaps(spread) < 1.5
    assert all(session.hash_block == 512 for session in spread)
    assert all(len(session.block_hashes) == -(-session.prompt // 512) for session in spread)
    assert shipped.load("mooncake-conversation") == spread


def test_a_tick_ends_where_the_next_arrival_was_recorded() -> None:
    """Ticks of 3 s at 0, 3 and 4: the middle one has a second of room."""
    sessions = [Session(f"s{n}", at, 1, (Call(1),)) for n, at in enumerate([0, 0, 0, 3, 3, 4])]
    spread = spread_ticks(sessions, 3.0, seed=1)
    assert [session.id for session in spread] == [session.id for session in sessions]
    times = [session.arrival for session in spread]
    assert times == sorted(times)
    assert max(times[:3]) < 3 <= min(times[3:5])
    assert max(times[3:5]) < 4 <= times[5] < 7
    with pytest.raises(ValueError, match="not in the order"):
        spread_ticks(sessions[::-1], 3.0)
    with pytest.raises(ValueError, match="it must be > 0"):
        spread_ticks(sessions, 0.0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets lie beside the repository")
@pytest.mark.parametrize(
    ("file", "whole"),
    [
        ("claude_code_neon61.jsonl.gz", "claude_code_neon61.jsonl"),
        ("azure_conv_2023.csv.gz", "AzureLLMInferenceTrace_conv.csv"),
        ("azure_code_2023.csv.gz", "AzureLLMInferenceTrace_code.csv"),
        ("mooncake_conversation_600s.jsonl.gz", "mooncake_conversation.jsonl"),
    ],
)
def test_the_shipped_files_are_the_released_ones(file: str, whole: str) -> None:
    assert (SHARED / whole).read_bytes().startswith(gzip.decompress((DATA / file).read_bytes()))
