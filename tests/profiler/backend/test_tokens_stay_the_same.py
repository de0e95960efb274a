"""The backend's proof: whatever happens to a context, and whatever else runs, a session's tokens are the same.

A driver with no sense at all (random chunks, swaps, discards, pauses, rewritten contexts) against each session alone.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from profiler.backend.backend import Backend, make_backend, make_model  # noqa: E402
from profiler.backend.executor import ChunkWork  # noqa: E402
from profiler.backend.model_config import load_model_config  # noqa: E402
from profiler.backend.swap import Way  # noqa: E402
from profiler.backend.tokens import Sampling  # noqa: E402

BLOCK = 4
MODEL = make_model(load_model_config("tiny"), torch.device("cpu"), max_context=256)


@dataclass(frozen=True)
class Call:
    """``output`` tokens are generated; then ``keeps`` tokens stay (None: all) and ``returned`` ones are added."""

    output: int
    returned: int
    keeps: int | None


@dataclass
class Session:
    """A session under way: the engine's three integers, and the calls that are left."""

    key: str
    missing: int
    calls: list[Call]
    resident: int = 0
    offloaded: int = 0
    left: int = 0
    copying: bool = False
    paused: bool = False
    tokens: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = self.calls[0].output

    @property
    def context(self) -> int:
        return self.resident + self.offloaded + self.missing


class Driver:
    """Counts blocks as the engine would, and does whatever comes to its mind."""

    def __init__(self, backend: Backend, sessions: list[tuple[int, list[Call]]], seed: int) -> None:
        self.backend, self.random = backend, random.Random(seed)
        self.sessions = [Session(f"s{index}", prompt, list(calls)) for index, (prompt, calls) in enumerate(sessions)]
        self.finished: list[Session] = []

    def run(self) -> dict[str, list[int]]:
        for session in self.sessions:
            self.backend.executor.open(session.key, session.missing)
        for _ in range(3000):
            if not self.sessions:
                return {session.key: session.tokens for session in self.finished}
            self.iterate()
        raise AssertionError(f"no end: {self.sessions}")

    def iterate(self) -> None:
        self.poison()
        if self.random.random() < 0.6:
            self.take_in()
        for session in list(self.sessions):
            if not session.copying:
                self.disturb(session)
        decode, chunks = self.choose()
        if not decode and not chunks:
            self.make_room()
            return
        iteration = self.backend.executor.run([s.key for s in decode], [ChunkWork(s.key, a, n) for s, a, n in chunks])
        ids = self.backend.executor.sampled_ids(iteration)
        for session, _, tokens in [*((s, 0, 1) for s in decode), *chunks]:
            session.resident += tokens
            session.missing -= tokens
            if session.missing == 0:
                self.emit(session, ids.pop(session.key))
        assert not ids
        self.backend.tables.check(self.gpu_used(), self.host_used())

    def poison(self) -> None:
        """What nobody owns holds nothing: whoever reads it anyway gets no token right from then on."""
        tables, cache = self.backend.tables, self.backend.cache
        cache.pool[tables._free_gpu._ids] = math.nan
        for first, blocks in tables._free_host.runs:
            cache.host[first : first + blocks] = math.nan

    def emit(self, session: Session, token: int) -> None:
        session.tokens.append(token)
        session.missing, session.left = 1, session.left - 1
        if session.left == 0:
            session.paused = True

    def take_in(self) -> None:
        for job in self.backend.swapper.poll():
            self.settle(job.move)

    def settle(self, move: Any) -> None:
        self.backend.tables.finish(move)
        session = next(s for s in self.sessions if s.key == move.key)
        session.copying = False
        if move.out:
            tokens = session.resident - (-(-session.resident // BLOCK) - move.blocks) * BLOCK
            session.resident, session.offloaded = session.resident - tokens, session.offloaded + tokens
        else:
            tokens = min(session.offloaded, move.blocks * BLOCK)
            session.resident, session.offloaded = session.resident + tokens, session.offloaded - tokens

    def disturb(self, session: Session) -> None:
        if session.paused and self.random.random() < 0.4:
            self.answer(session)
        elif self.random.random() < 0.25:
            self.random.choice((self.swap_out, self.swap_in, self.swap_in, self.discard))(session)

    def answer(self, session: Session) -> None:
        call = session.calls.pop(0)
        session.paused = False
        if not session.calls:
            self.backend.executor.close(session.key)
            self.sessions.remove(session)
            self.finished.append(session)
            return
        if call.keeps is not None and call.keeps < session.context:
            self.keep(
                session,
                min(session.resident, call.keeps),
                max(0, min(session.offloaded, call.keeps - session.resident)),
            )
            session.missing = call.keeps - session.resident - session.offloaded
            self.backend.executor.cut(session.key, call.keeps)
        self.backend.executor.extend(session.key, call.returned)
        session.missing += call.returned
        session.left = session.calls[0].output
        if session.missing == 0:  # nothing to compute from: the last token that stays is computed again
            self.keep(session, session.resident - 1, 0) if session.offloaded == 0 else self.keep(
                session, session.resident, 0
            )

    def keep(self, session: Session, resident: int, offloaded: int) -> None:
        session.missing += session.resident - resident + session.offloaded - offloaded
        session.resident, session.offloaded = resident, offloaded
        self.backend.tables.keep(session.key, resident, offloaded)

    def discard(self, session: Session) -> None:
        kept = self.random.choice((0, self.random.randint(0, session.resident)))
        kept = min(session.resident, -(-kept // BLOCK) * BLOCK)
        self.keep(session, kept, session.offloaded if kept == session.resident else 0)

    def swap_out(self, session: Session) -> None:
        tables = self.backend.tables
        held = -(-session.resident // BLOCK)
        blocks = min(self.random.randint(1, max(1, held)), held, tables.host_blocks - tables.host_used)
        if blocks:
            self.submit(session, tables.begin_out(session.key, blocks))

    def swap_in(self, session: Session) -> None:
        tables = self.backend.tables
        offloaded = -(-session.offloaded // BLOCK)
        blocks = min(self.random.randint(1, max(1, offloaded)), offloaded, tables.gpu_blocks - tables.gpu_used)
        if blocks:
            self.submit(session, tables.begin_in(session.key, blocks))

    def submit(self, session: Session, move: Any) -> None:
        blocking = self.random.random() < 0.4
        self.backend.swapper.submit(move, blocking)
        session.copying = True
        if blocking:
            self.settle(move)

    def choose(self) -> tuple[list[Session], list[tuple[Session, int, int]]]:
        free = self.backend.tables.gpu_blocks - self.backend.tables.gpu_used
        decode, chunks = [], []
        for session in self.random.sample(self.sessions, len(self.sessions)):
            if session.paused or session.copying or session.offloaded or self.random.random() < 0.2:
                continue
            one = session.missing == 1 and session.resident > 0 and self.random.random() < 0.9
            tokens = 1 if one else self.random.choice((session.missing, self.random.randint(1, session.missing)))
            need = -(-(session.resident + tokens) // BLOCK) - -(-session.resident // BLOCK)
            if need <= free and (one or sum(n for _, _, n in chunks) + tokens <= 64):
                free -= need
                decode.append(session) if one else chunks.append((session, session.resident, tokens))
        return decode, chunks

    def make_room(self) -> None:
        self.take_in()
        idle = [session for session in self.sessions if not session.copying]
        if idle and self.random.random() < 0.3:
            self.keep(self.random.choice(idle), 0, 0)

    def gpu_used(self) -> int:
        arriving = sum(job.move.blocks for job in self.in_flight() if not job.move.out)
        return sum(-(-session.resident // BLOCK) for session in self.sessions) + arriving

    def host_used(self) -> int:
        leaving = sum(job.move.blocks for job in self.in_flight() if job.move.out)
        return sum(-(-session.offloaded // BLOCK) for session in self.sessions) + leaving

    def in_flight(self) -> list[Any]:
        return [job for jobs in self.backend.swapper._flying.values() for job in jobs]


def alone(prompt: int, calls: list[Call], key: str, sampling: Sampling) -> list[int]:
    """The tokens of one session that nothing disturbs: whole prompts, then token by token."""
    executor = make_backend(MODEL, 80, 0, BLOCK, 1, 256, max_decodes=1, sampling=sampling).executor
    executor.open(key, prompt)
    tokens, resident, context = [], 0, prompt
    for index, call in enumerate(calls):
        for _ in range(call.output):
            if context - resident == 1 and resident:
                iteration = executor.run([key])
            else:
                iteration = executor.run([], [ChunkWork(key, resident, context - resident)])
            tokens.append(executor.sampled_ids(iteration)[key])
            resident, context = context, context + 1
        if index + 1 < len(calls):
            if call.keeps is not None and call.keeps < context:
                executor.cut(key, call.keeps)
                resident, context = min(resident, call.keeps), call.keeps
            executor.extend(key, call.returned)
            context += call.returned
            resident = min(resident, context - 1)
    return tokens


calls = st.builds(Call, st.integers(1, 9), st.integers(0, 12), st.none() | st.integers(1, 30))
workloads = st.lists(st.tuples(st.integers(1, 30), st.lists(calls, min_size=1, max_size=3)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    workload=workloads,
    seed=st.integers(0, 2**32),
    gpu_blocks=st.integers(28, 60),
    host_blocks=st.integers(0, 40),
    way=st.sampled_from(["direct", "staged"]),
    temperature=st.sampled_from([0.0, 0.0, 0.8]),
)
def test_tokens_are_those_of_an_undisturbed_run(
    workload: list[tuple[int, list[Call]]],
    seed: int,
    gpu_blocks: int,
    host_blocks: int,
    way: Way,
    temperature: float,
) -> None:
    sampling = Sampling(temperature, seed=3)
    backend = make_backend(
        MODEL,
        gpu_blocks,
        host_blocks,
        BLOCK,
        5,
        256,
        max_decodes=5,
        max_chunk_tokens=64,
        sampling=sampling,
        swap_way=way,
    )
    disturbed = Driver(backend, workload, seed).run()
    for index, (prompt, session_calls) in enumerate(workload):
        key = f"s{index}"
        assert disturbed[key] == alone(prompt, session_calls, key, sampling)
    assert (backend.tables.gpu_used, backend.tables.host_used) == (0, 0)
