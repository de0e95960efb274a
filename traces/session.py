"""What users send: sessions made of calls, separated by pauses.

These are facts of a workload, frozen and free of any policy or engine. Lengths are in tokens, times in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field


class InvalidSession(ValueError):
    """A session that no engine could serve, with the field and the reason."""


@dataclass(frozen=True, slots=True)
class ToolRun:
    """One of several tools that a pause waits for at once.

    Attributes:
        tool: the tool's name.
        duration: seconds from the pause's start to this tool's answer.
        returned: tokens that this answer appends to the context.
    """

    tool: str
    duration: float
    returned: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """The gap between the end of one call and the moment the next can begin.

    Attributes:
        duration: seconds until the answer is there. The truth of the trace: no policy may see it.
        returned: tokens that the answer appends to the context.
        waits_for: what the pause waits for: ``tool``, ``user``, ``image``, ``tts``, ...
        tool: the tool's name, where it is known.
        keeps: leading context tokens that survive the pause when the client rewrote the context; None keeps all.
        tools: the runs of a pause that waits for several tools at once; the slowest one ends it.
        session: the sub-session that this pause waits for, by id.
        not_before: seconds after the session's arrival before which the pause does not end, whenever it began: what it
            waits for comes at a time of its own, such as the next part of a prompt. Traces do not say it; an engine
            that works on a prompt while it streams in does. A call follows such a pause; if
            that one's pause is over too by then, the call is passed over and the session goes on with the next.
    """

    duration: float
    returned: int = 0
    waits_for: str = "tool"
    tool: str = ""
    keeps: int | None = None
    tools: tuple[ToolRun, ...] = ()
    session: str = ""
    not_before: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        plain = self.keeps is None and self.not_before is None
        if plain and 0 <= self.duration < math.inf and self.returned >= 0:
            return
        _require(math.isfinite(self.duration) and self.duration >= 0, "pause.duration", self.duration, "finite, >= 0")
        _require(self.returned >= 0, "pause.returned", self.returned, ">= 0")
        _require(self.keeps is None or self.keeps >= 0, "pause.keeps", self.keeps, ">= 0")
        new = self.keeps is None or self.returned >= 1
        _require(new, "pause.returned", self.returned, ">= 1 after a rewrite: there must be a token to go on from")
        if self.not_before is not None:
            _require(0 <= self.not_before < math.inf, "pause.not_before", self.not_before, "finite, >= 0")

    def end(self, begun: float, arrival: float) -> float:
        """When the pause ends if it began at ``begun`` in a session that arrived at ``arrival``, seconds."""
        end = begun + self.duration
        return end if self.not_before is None else max(end, arrival + self.not_before)


@dataclass(frozen=True, slots=True)
class Call:
    """One model call: a stretch of generation, and the pause after it.

    Attributes:
        output: tokens generated, at least 1.
        pause: what follows; None at the end of the session. A last call may have a pause after which nothing follows.
    """

    output: int
    pause: Pause | None = None

    def __post_init__(self) -> None:
        if self.output < 1:
            _require(False, "call.output", self.output, ">= 1")


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Leading tokens that sessions of the same ``name`` have in common (a system prompt, tool definitions)."""

    name: str
    tokens: int


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A part of a prompt that streams in.

    Attributes:
        tokens: of the prompt that are there with it.
        at: when, in seconds after the arrival.
        output: tokens generated once it is there, where a prompt is worked on before it is complete: an intermediate
            inference, or after the last part the answer, in place of the first call's output. 0: no inference yet, or
            the first call's output as it is.
    """

    tokens: int
    at: float
    output: int = 0

    def __post_init__(self) -> None:
        _require(self.tokens >= 0, "stream.tokens", self.tokens, ">= 0")
        _require(math.isfinite(self.at) and self.at >= 0, "stream.at", self.at, "finite, >= 0")
        _require(self.output >= 0, "stream.output", self.output, ">= 0")


@dataclass(frozen=True, slots=True)
class Session:
    """One augmented request from its arrival to its last token.

    Attributes:
        id: unique in a workload.
        arrival: seconds since the workload's start.
        prompt: tokens of the first prompt, at least 1.
        calls: at least one; every call but the last has a pause.
        kind: the workload class (``math``, ``chat``, ...), free text.
        samples: continuations that each call decodes from the context before it, ``Call.output`` tokens each. When the
            call ends, the first stays in the context and the others are over.
        stream: how the prompt streams in, part after part; what it leaves of the prompt is there with the arrival, and
            all of it is when the stream is empty.
        prefix: the leading tokens that all sessions of one name have in common; no more than the prompt.
        block_hashes: content hashes of the first prompt's leading blocks, where a trace has them. Equal hashes at equal
            places after equal hashes are equal tokens, in all sessions of a workload. The last block may be short.
        hash_block: tokens that each of ``block_hashes`` stands for; 0 without hashes.
    """

    id: str
    arrival: float
    prompt: int
    calls: tuple[Call, ...]
    kind: str = ""
    samples: int = 1
    stream: tuple[PromptPart, ...] = ()
    prefix: SharedPrefix | None = None
    block_hashes: tuple[int, ...] = field(default=(), repr=False)
    hash_block: int = 0

    def __post_init__(self) -> None:
        plain = self.prefix is None and not self.stream and len(self.calls) == 1
        if plain and 0 <= self.arrival < math.inf and self.prompt >= 1 and self.samples >= 1:
            size = self.hash_block
            if not self.block_hashes or (size >= 1 and (len(self.block_hashes) - 1) * size < self.prompt):
                return
        _require(math.isfinite(self.arrival) and self.arrival >= 0, "arrival", self.arrival, "finite, >= 0")
        _require(self.prompt >= 1, "prompt", self.prompt, ">= 1")
        _require(len(self.calls) >= 1, "calls", self.calls, "at least one call")
        for index, call in enumerate(self.calls[:-1]):
            if call.pause is None:
                _require(False, f"calls[{index}].pause", None, "present: another call follows")
        trailing = self.calls[-1].pause
        if trailing is not None and trailing.not_before is not None:
            _require(False, f"calls[{len(self.calls) - 1}].pause.not_before", "set", "left out: no call follows")
        _require(self.samples >= 1, "samples", self.samples, ">= 1")
        if self.stream:
            streamed = sum(part.tokens for part in self.stream)
            _require(streamed <= self.prompt, "stream", streamed, f"at most the prompt's {self.prompt} tokens in all")
            times = [part.at for part in self.stream]
            _require(times == sorted(times), "stream.at", times, "in the order of time")
        if self.prefix is not None:
            within = 0 <= self.prefix.tokens <= self.prompt
            _require(within, "prefix.tokens", self.prefix.tokens, f"0 to the prompt's {self.prompt}")
        if self.block_hashes:
            _require(self.hash_block >= 1, "hash_block", self.hash_block, ">= 1 where there are block hashes")
            most = -(-self.prompt // self.hash_block)
            _require(
                len(self.block_hashes) <= most, "block_hashes", len(self.block_hashes), f"at most {most} for the prompt"
            )

    @property
    def output_tokens(self) -> int:
        """Tokens generated over all calls."""
        return sum(call.output for call in self.calls)

    @property
    def pauses(self) -> tuple[Pause, ...]:
        """Every pause in order, a trailing one included."""
        return tuple([call.pause for call in self.calls if call.pause is not None])

    @property
    def pause_seconds(self) -> float:
        """Sum of all pause durations."""
        return sum(pause.duration for pause in self.pauses)

    @property
    def input_ended(self) -> float:
        """When the whole first prompt was there, seconds since the workload's start."""
        later = [pause.not_before for pause in self.pauses if pause.not_before is not None]
        return self.arrival + max(later, default=self.stream[-1].at if self.stream else 0.0)

    @property
    def max_context(self) -> int:
        """Largest number of context tokens this session can ever have, answers of tools and inferences included."""
        return max([end for _, end in self.call_contexts()])

    def call_contexts(self) -> Iterator[tuple[int, int]]:
        """For each call: context tokens before it and after it, inferences from a prompt that streams in included."""
        context = self.prompt + sum(part.output for part in self.stream)
        for call in self.calls:
            yield context, context + call.output
            context += call.output
            if call.pause is not None:
                kept = context if call.pause.keeps is None else min(context, call.pause.keeps)
                context = kept + call.pause.returned


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise InvalidSession(f"{name} is {value!r}; it must be {rule}")
