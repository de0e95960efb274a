"""Prompts that users type: when each part is there, and what a model could infer from it before the rest comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from traces.draw.distributions import Distribution, whole_numbers
from traces.session import PromptPart, Session

MOST_SEGMENTS = 10**6


@dataclass(frozen=True)
class Typing:
    """How the prompts of one kind of session stream in while they are typed.

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
        """Give each session a typed prompt after the prompt that it has, which is there from the start.

        Raises:
            ValueError: more than `MOST_SEGMENTS`, or a length above `MOST_TOKENS`.
        """
        streams = rng.spawn(5)
        counts = whole_numbers(self.segments.values(streams[0].random(len(sessions))), 1, "stream.segments")
        total = int(counts.sum())
        if total > MOST_SEGMENTS:
            raise ValueError(f"stream.segments: {total:,} in {len(sessions)} sessions; draw fewer, or shorter ones")
        tokens = whole_numbers(self.tokens.values(streams[1].random(total)), 1, "stream.tokens")
        inferences = whole_numbers(self.inference.values(streams[2].random(total)), 0, "stream.inference")
        along = whole_numbers(self.sent_along.values(streams[3].random(len(sessions))), 0, "stream.sent_along")
        answers = np.zeros(len(sessions), dtype=np.int64)
        if self.answer is not None:
            answers = whole_numbers(self.answer.values(streams[4].random(len(sessions))), 1, "stream.answer")
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
