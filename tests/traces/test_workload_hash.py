"""One hash names a workload: any field that is served changes it, and workloads that were recorded keep theirs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.readers import read_own
from traces.session import Call, Pause, PromptPart, Session, SharedPrefix, ToolRun
from traces.workload_hash import _ALWAYS_WRITTEN, workload_hash

ROOT = Path(__file__).parents[2]
RECORDED = [*(ROOT / "profiler" / "recordings").rglob("run.json"), *(ROOT / "benchmarks").rglob("run.json")]

seconds = st.floats(0, 1e4, allow_nan=False)
tokens = st.integers(1, 5_000)
words = st.text(max_size=5)
tool_runs = st.builds(ToolRun, words, seconds, tokens)
pauses = st.builds(
    Pause, seconds, tokens, words, words, st.none() | tokens, st.lists(tool_runs, max_size=2).map(tuple), words,
    st.none() | seconds,
)  # fmt: skip


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """A session with everything that one can have."""
    prompt = draw(st.integers(2, 500))
    head, last = draw(st.lists(st.builds(Call, tokens, pauses), max_size=2)), draw(st.builds(Call, tokens))
    stream = draw(st.lists(st.builds(PromptPart, st.just(1), seconds, tokens), max_size=2))
    return Session(
        id=draw(words), arrival=draw(seconds), prompt=prompt, calls=(*head, last), kind=draw(words),
        samples=draw(st.integers(1, 3)), stream=tuple(sorted(stream, key=lambda part: part.at)),
        prefix=draw(st.none() | st.builds(SharedPrefix, words, st.integers(0, prompt))),
        block_hashes=tuple(draw(st.lists(st.integers(0, 2**64), max_size=1))), hash_block=draw(st.integers(1, 16)),
    )  # fmt: skip


def changes(value: Any) -> Iterator[Any]:
    """``value`` with another value somewhere in it, once for each field at any depth; sessions need not be possible."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            for other in changes(getattr(value, field.name)):
                yield _with(value, field.name, other)
    elif isinstance(value, tuple):
        yield (*value, 7)
        for index, one in enumerate(value):
            yield from ((*value[:index], other, *value[index + 1 :]) for other in changes(one))
    else:
        yield "another" if isinstance(value, str) and value != "another" else 0.125 if value is None else repr(value)


def _with(value: Any, name: str, other: Any) -> Any:
    """A copy with one field set, unchecked."""
    copy = object.__new__(type(value))
    for field in dataclasses.fields(value):
        object.__setattr__(copy, field.name, other if field.name == name else getattr(value, field.name))
    return copy


@settings(max_examples=30)
@given(sessions())
def test_any_field_of_a_session_at_any_depth_changes_the_hash(session: Session):
    known = {workload_hash([session])}
    for changed in changes(session):
        found = workload_hash([changed])
        assert found not in known, changed
        known.add(found)


def test_block_hashes_and_the_end_of_a_wait_for_a_prompts_next_part_change_the_hash():
    plain = Session("a", 0.0, 32, (Call(3, Pause(1.0, 5)), Call(2)), hash_block=16)
    hashed = dataclasses.replace(plain, block_hashes=(1, 2))
    streamed = dataclasses.replace(plain, calls=(Call(3, Pause(1.0, 5, not_before=9.0)), Call(2)))
    assert len({workload_hash([one]) for one in (plain, hashed, streamed)}) == 3


@settings(max_examples=50)
@given(st.lists(sessions(), max_size=3), st.lists(sessions(), max_size=3))
def test_two_workloads_have_one_hash_only_where_they_are_equal(one: list[Session], other: list[Session]):
    assert (workload_hash(one) == workload_hash(other)) == (one == other and repr(one) == repr(other))


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.parent.name)
def test_recorded_workloads_keep_the_hash_that_names_their_file(file: Path):
    facts = json.loads(file.read_text(encoding="utf-8"))["workload"]
    sessions = read_own(file.parent.parent / facts["file"])
    assert workload_hash(sessions) == facts["sha256"]
    assert facts["file"] == f"workload-{facts['sha256'][:12]}.jsonl"


def test_a_new_field_with_a_default_leaves_the_hash_of_sessions_without_it(monkeypatch: pytest.MonkeyPatch):
    longer = dataclasses.make_dataclass(
        "Pause", [("retries", int, dataclasses.field(default=0))], bases=(Pause,), frozen=True
    )
    monkeypatch.setitem(_ALWAYS_WRITTEN, longer, _ALWAYS_WRITTEN[Pause])
    before = Session("a", 0.0, 32, (Call(3, Pause(1.0, 5)), Call(2)))
    found = [workload_hash([_with(before, "calls", (Call(3, longer(1.0, 5, retries=n)), Call(2)))]) for n in (0, 1)]
    assert found[0] == workload_hash([before])
    assert found[1] != found[0]
