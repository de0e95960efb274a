"""Recorded session files: hand-made lines with the arithmetic shown, and the real ones as a whole."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from traces import Call, Pause, Session, contexts, read_session_files, shipped

SHARED = Path(__file__).parents[3] / "shared" / "data"


def read(tmp_path: Path, *calls: dict[str, object]) -> Session:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"id": "a", "kind": "k", "calls": calls}) + "\n")
    (session,) = read_session_files(path)
    return session


def test_returned_tokens_come_from_the_file_and_later_prompts_only_confirm(tmp_path: Path) -> None:
    """90 + 10 + 20 = 120; the recorded client counted 118 for the next prompt. The last pause stays."""
    session = read(
        tmp_path,
        {"prompt": 90, "output": 10, "returned": 20, "pause_s": 3, "waits_for": "user", "tool": "chat"},
        {"prompt": 118, "output": 5, "returned": -2, "pause_s": 1.5},
    )
    first = Call(10, Pause(3.0, 20, "user", "chat"))
    assert session == Session("a", 0.0, 90, (first, Call(5, Pause(1.5, 0))), "k")
    assert contexts(session) == [100, 125]


def test_a_growing_prompt_returns_the_difference(tmp_path: Path) -> None:
    """150 - 100 - 20 = 30 tokens were appended; the cached prefix does not matter then."""
    session = read(
        tmp_path,
        {"prompt": 100, "output": 20, "pause_s": 2, "waits_for": "tool", "prefix": 0},
        {"prompt": 150, "output": 5, "prefix": 64},
    )
    assert session.calls == (Call(20, Pause(2.0, 30)), Call(5))


def test_a_rewritten_context_keeps_the_cached_prefix(tmp_path: Path) -> None:
    """110 - 100 - 20 = -10: rewritten; 64 tokens survive and 110 - 64 = 46 are new."""
    session = read(
        tmp_path,
        {"prompt": 100, "output": 20, "pause_s": 2, "prefix": 0},
        {"prompt": 110, "output": 5, "prefix": 64},
    )
    assert session.calls == (Call(20, Pause(2.0, 46, keeps=64)), Call(5))
    assert contexts(session) == [120, 115]


def test_a_prompt_cached_to_its_end_still_returns_one_token(tmp_path: Path) -> None:
    session = read(tmp_path, {"prompt": 100, "output": 20, "prefix": 0}, {"prompt": 64, "output": 5, "prefix": 64})
    assert session.calls[0].pause == Pause(0.0, 1, "overlap", keeps=63)


def test_a_failed_call_is_dropped_and_its_pause_joins_the_one_before(tmp_path: Path) -> None:
    """2 s and 0.5 s make 2.5 s; 150 - 100 - 20 = 30."""
    session = read(
        tmp_path,
        {"prompt": 100, "output": 20, "pause_s": 2, "waits_for": "tool", "prefix": 0},
        {"prompt": 0, "output": 0, "pause_s": 0.5, "waits_for": "user", "prefix": 0},
        {"prompt": 150, "output": 5, "prefix": 0},
    )
    assert session.calls == (Call(20, Pause(2.5, 30, "tool")), Call(5))


def test_a_prompt_that_was_not_recorded_continues_the_context(tmp_path: Path) -> None:
    """100 + 20 + 7 = 127, and 150 - 127 = 23 at the next prompt that is known."""
    session = read(
        tmp_path,
        {"prompt": 100, "output": 20, "pause_s": 2, "prefix": 0},
        {"prompt": 0, "output": 7, "pause_s": 1, "prefix": 0},
        {"prompt": 150, "output": 5, "prefix": 0},
    )
    assert session.calls == (Call(20, Pause(2.0, 0)), Call(7, Pause(1.0, 23)), Call(5))


def test_the_shipped_mix_has_the_published_size_and_no_arrivals() -> None:
    mix = shipped.load("infercept-mix")
    assert (len(mix), sum(len(s.calls) for s in mix), sum(len(s.pauses) for s in mix)) == (397, 2054, 1841)
    assert {s.arrival for s in mix} == {0.0}
    assert len({s.id for s in mix}) == 397
    with pytest.raises(ValueError, match="no shipped workload 'infercept'; there is infercept-mix, "):
        shipped.load("infercept")


def test_image_and_speech_sessions_alternate_two_sorts_of_pause() -> None:
    for session in shipped.load("infercept-mix"):
        if session.kind in ("image", "tts"):
            waits = [pause.waits_for for pause in session.pauses]
            assert set(waits) == {session.kind, "user"}
            assert all(one != other for one, other in pairwise(waits))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded coding-agent sessions lie beside the repository")
def test_replayed_coding_agents_have_every_recorded_prompt() -> None:
    """Wherever a prompt was recorded, context kept + tokens returned is exactly that prompt."""
    path = SHARED / "claude_code_neon61.jsonl"
    sessions = read_session_files(path)
    assert len(sessions) == 61
    for session, line in zip(sessions, path.read_text().splitlines(), strict=True):
        calls = [call for call in json.loads(line)["calls"] if call["prompt"] or call["output"]]
        assert [call.output for call in session.calls] == [call["output"] for call in calls]
        starts = [end - call.output for end, call in zip(contexts(session), session.calls, strict=True)]
        assert all(start == call["prompt"] for start, call in zip(starts, calls, strict=True) if call["prompt"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the released mix lies beside the repository")
def test_the_shipped_mix_is_the_released_one() -> None:
    shipped_file = Path(shipped.__file__).parent / "data" / "infercept_mix.jsonl"
    assert shipped_file.read_bytes() == (SHARED / "infercept_mix.jsonl").read_bytes()
