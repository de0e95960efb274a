"""Prompts that stream in: waited for, or worked on part by part (LiveMind, arXiv 2406.14319).

An iteration of x tokens takes 1 s + 0.01 s * x; blocks hold one token (see ``worlds``).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.world.arrivals import as_calls, by_arrival
from tests.sim.random_worlds import examples, workloads
from tests.sim.worlds import World, run
from traces.session import Call, Pause, PromptPart, Session

QUESTION = Session(
    "q", 100.0, 70, (Call(5),), stream=(PromptPart(20, 8.0, 2), PromptPart(20, 20.0, 3), PromptPart(20, 30.0, 1))
)
"""10 tokens from the start, 20 more at 108, 120 and 130 s. The answer has 5 tokens; 1 after inferences of 2 and 3."""


def test_a_whole_prompt_is_answered_from_the_end_of_the_input() -> None:
    """At 130 s 70 tokens are computed in 64 and 6: 1.64 + 1.06 s, the first of 5 tokens; then 4 * 1.01 s."""
    row = run(QUESTION).session("q")
    assert (row["arrival"], row["input_ended_at"]) == (130.0, 130.0)
    assert row["first_token_at"] == pytest.approx(132.70)
    assert row["finished_at"] == pytest.approx(136.74)
    assert (row["prompt_tokens"], row["output_tokens"], row["inference_tokens"]) == (70, 5, 0)


def test_a_prompt_worked_on_has_only_its_last_part_to_compute_when_the_input_ends() -> None:
    """Two inferences from 108 and 120 s; at 130 s the last token emitted and 20 new ones: 1.21 s, and the answer."""
    world = run(QUESTION, streamed_prompts="parts")
    assert world.chunks("q") == [30, 21, 21]
    row = world.session("q")
    assert (row["arrival"], row["input_ended_at"]) == (108.0, 130.0)
    assert row["first_token_at"] == row["finished_at"] == pytest.approx(131.21)
    assert (row["prompt_tokens"], row["output_tokens"], row["inference_tokens"]) == (70, 6, 5)
    assert (row["returned_tokens"], row["pause_s"]) == (0, 0.0)
    first, second, answer = (world.call("q", index) for index in range(3))
    assert first["finished_at"] == pytest.approx(108 + 1.30 + 1.01)
    assert (second["waits_for"], second["ready_at"]) == ("input", 120.0)
    assert second["pause_s"] == pytest.approx(120 - 110.31)
    assert (answer["ready_at"], answer["context_tokens"]) == (130.0, 75)


def test_without_reuse_every_call_computes_its_whole_prompt_anew() -> None:
    """Contexts of 30, then 30 + 2 + 20 = 52, then 52 + 3 + 20 = 75 tokens, in chunks of up to 64."""
    world = run(QUESTION, policy="discard", streamed_prompts="parts")
    assert world.chunks("q") == [30, 52, 64, 11]
    assert world.session("q")["recomputed_tokens"] == 31 + 54
    assert world.session("q")["finished_at"] == pytest.approx(130 + 1.64 + 1.11)


def test_text_that_comes_during_an_inference_waits_for_its_end_and_is_taken_up_together() -> None:
    """The first inference, of 13 tokens, ends at 108 + 1.30 + 12 * 1.01 = 121.42: the part of 120 s is there already.

    With one of 25 tokens it ends at 133.54, after the input: the second is passed over, and the answer comes at once,
    from the last token and 40 new ones.
    """
    slow = replace(QUESTION, stream=(PromptPart(20, 8.0, 13), *QUESTION.stream[1:]))
    assert run(slow, streamed_prompts="parts").call("q", 1)["ready_at"] == pytest.approx(121.42)
    slower = replace(QUESTION, stream=(PromptPart(20, 8.0, 25), *QUESTION.stream[1:]))
    world = run(slower, streamed_prompts="parts")
    assert world.chunks("q") == [30, 41]
    assert world.record.calls["call"] == [0, 2]
    assert world.session("q")["inference_tokens"] == 25
    assert world.session("q")["prompt_tokens"] == 70
    assert world.session("q")["finished_at"] == pytest.approx(133.54 + 1.41)


def test_parts_without_inferences_are_computed_with_the_next() -> None:
    """Nothing is generated at 108 s: the session arrives at 120 s with 50 tokens."""
    silent = replace(QUESTION, stream=(PromptPart(20, 8.0), *QUESTION.stream[1:]))
    assert as_calls(silent, "parts") == Session(
        "q", 120.0, 50, (Call(3, Pause(0.0, 20, "input", not_before=10.0)), Call(1))
    )


def test_a_stream_without_any_inference_is_waited_for() -> None:
    """The answer is then the one without inferences."""
    silent = replace(QUESTION, stream=tuple(replace(part, output=0) for part in QUESTION.stream))
    assert as_calls(silent, "parts") == as_calls(silent, "whole") == Session("q", 130.0, 70, (Call(5),))


def test_what_follows_the_answer_follows_it_in_either_way() -> None:
    """A tool of 7 s and a second call come after the answer, whatever came before."""
    longer = replace(QUESTION, calls=(Call(5, Pause(7.0, 4)), Call(2)))
    for streamed, answered in (("whole", 136.74), ("parts", 131.21)):
        world = run(longer, streamed_prompts=streamed)
        last = world.record.calls["ready_at"][-1]
        assert last == pytest.approx(answered + 7.0)
        assert world.session("q")["pause_s"] == 7.0


def test_the_oracle_knows_when_the_next_part_comes() -> None:
    """A pause from 110.31 to 120 s: with 9.69 s to go, a heuristic that discards above 9 s does, one above 10 s not."""
    for above, chunks in ((9.0, [30, 52]), (10.0, [30, 21])):
        heuristic = {"name": "heuristic", "estimator": "oracle", "discard_above": above, "swap_above": above}
        world = run(QUESTION, policy=heuristic, streamed_prompts="parts", host=0, swap="blocking", host_full="discard")
        assert world.chunks("q")[:2] == chunks


@examples(50)
@given(workloads(), st.sampled_from(["whole", "parts"]))
def test_an_iterator_gives_the_sessions_of_a_list_in_its_order(sessions: tuple[Session, ...], streamed: str) -> None:
    """Sessions reach the engine when their first text is there, which may turn their order round."""
    ordered = sorted(sessions, key=lambda session: session.arrival)
    assert list(by_arrival(iter(ordered), streamed)) == list(by_arrival(ordered, streamed))


def world_of(streamed: str, leap: bool) -> World:
    return run(QUESTION, replace(QUESTION, id="r", arrival=103.0), streamed_prompts=streamed, leap=leap)


@pytest.mark.parametrize("streamed", ["whole", "parts"])
def test_two_who_type_at_once_fare_alike_with_and_without_leaps(streamed: str) -> None:
    assert repr(world_of(streamed, leap=True).record.calls) == repr(world_of(streamed, leap=False).record.calls)
