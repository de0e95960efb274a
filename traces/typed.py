"""Prompts that people type: when which part is there, and what a model could make of it before the rest comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from traces.distributions import Distribution
from traces.session import PromptPart, Session

MOST_SEGMENTS = 10**6


@dataclass(frozen=True)
class Typing:
    """How the prompts of one kind of session come.

    A segment (sentence or clause) is complete when the last of its characters is typed. From all segments but the last
    an inference may be made; with the last comes what is sent along without being typed, and the answer is due.

    Attributes:
        segments: in a prompt.
        tokens: of a segment.
        seconds_per_token: of typing.
        sent_along: tokens that come with the last segment at no time, such as the options of a question.
        inference: tokens generated when a segment is complete, if the prompt is worked on as it comes; 0 for none.
        answer: tokens of the answer after inferences, in place of the first call's output; None as without them.
    """

    segments: Distribution
    tokens: Distribution
    seconds_per_token: float
    sent_along: Distribution
    inference: Distribution
    answer: Distribution | None = None

    def typed(self, sessions: Sequence[Session], rng: np.random.Generator) -> list[Session]:
        """The sessions with typed prompts behind the prompts that they have, which are there from the start."""
        streams = rng.spawn(5)
        counts = _whole(self.segments, streams[0].random(len(sessions)), 1)
        total = int(counts.sum())
        if total > MOST_SEGMENTS:
            raise ValueError(f"stream.segments: {total:,} in {len(sessions)} sessions; draw fewer, or shorter ones")
        tokens = _whole(self.tokens, streams[1].random(total), 1)
        inferences = _whole(self.inference, streams[2].random(total), 0)
        along = _whole(self.sent_along, streams[3].random(len(sessions)), 0)
        answers = np.zeros(len(sessions), dtype=np.int64)
        if self.answer is not None:
            answers = _whole(self.answer, streams[4].random(len(sessions)), 1)
        edges = [0, *np.cumsum(counts).tolist()]
        return [
            self._with_stream(session, tokens[a:b].tolist(), inferences[a : b - 1].tolist(), int(more), int(answer))
            for session, a, b, more, answer in zip(sessions, edges, edges[1:], along, answers, strict=False)
        ]

    def _with_stream(
        self, session: Session, tokens: Sequence[int], inferences: Sequence[int], along: int, answer: int
    ) -> Session:
        ends = (np.cumsum(tokens) * self.seconds_per_token).tolist()
        parts = tuple(map(PromptPart, [*tokens[:-1], tokens[-1] + along], ends, [*inferences, answer]))
        return replace(session, prompt=session.prompt + sum(tokens) + along, stream=parts)


def _whole(distribution: Distribution, uniform: np.ndarray, least: int) -> np.ndarray:
    return np.maximum(np.rint(distribution.values(uniform)).astype(np.int64), least)
