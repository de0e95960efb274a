"""Copies of whole KV blocks between the device and page-locked host memory, beside compute, stopping nothing.

Two ways, both on side streams:

- *direct*: one copy for each stretch of blocks that lie side by side at both ends; a single block at worst. Right for
  blocks of a megabyte and more, and it costs the GPU nothing but the copy.
- *staged*: blocks are gathered into a contiguous buffer on the device and leave in one copy for each run of host
  blocks; the other way round on the way in. Right for small blocks, where a copy each would spend the time on starts.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from profiler.backend.block_tables import Move
from profiler.backend.cuda_events import CpuEvent, CudaEvent, DeviceEvent, record_event
from profiler.backend.free_lists import consecutive
from profiler.backend.kv_cache import KVCache

Way = Literal["auto", "direct", "staged"]

DIRECT_FROM_BYTES = 1 << 20
STAGING_BYTES = 32 << 20
WATCH_S = 50e-6


@dataclass(slots=True, eq=False)
class Job:
    """A copy under way.

    Attributes:
        move: the blocks.
        after: the event that it waits for.
        begun: on each stream that works for it, the event after which it could begin.
        ended: on each stream, the event after its last byte; empty until the copy has been issued.
    """

    move: Move
    after: DeviceEvent
    begun: list[DeviceEvent] = field(default_factory=list)
    ended: list[DeviceEvent] = field(default_factory=list)

    def done(self) -> bool:
        """Whether the bytes have arrived."""
        return bool(self.ended) and all(moment.passed() for moment in self.ended)

    def seconds(self) -> float:
        """Device seconds that the copy took; it is done."""
        return max(end.seconds_since(begin) for begin, end in zip(self.begun, self.ended, strict=True))


class Swapper:
    """Carries out moves.

    ``submit`` takes a copy, ``launch`` gives it to the GPU, ``poll`` tells what has ended; none of them waits. A few
    microseconds of host work for each block are in ``launch``: it is called when the GPU has its next iteration, by the
    executor or at the latest by ``poll``. On a CPU an overlapped copy happens as late as it may: in ``poll``.

    Args:
        cache: the pools.
        way: how blocks travel; by default whole blocks directly when they are large enough.
        staging_bytes: size of each of the four staging buffers, two a direction.
    """

    def __init__(self, cache: KVCache, way: Way = "auto", staging_bytes: int = STAGING_BYTES) -> None:
        self.cache = cache
        self.device = cache.device
        self.way = ("direct" if cache.block_bytes >= DIRECT_FROM_BYTES else "staged") if way == "auto" else way
        self._pool = _as_rows(cache.pool)
        self._host = _as_rows(cache.host)
        self._staging_blocks = max(1, staging_bytes // cache.block_bytes)
        self._lanes = {out: self._make_lanes() for out in (True, False)}
        self._flying: dict[bool, deque[Job]] = {True: deque(), False: deque()}
        self._unlaunched: deque[Job] = deque()

    def submit(self, move: Move, blocking: bool = False) -> Job:
        """Take a copy that comes after all that compute has been asked for so far.

        A blocking copy is launched at once and holds the compute stream: what is asked of it later, further copies
        among it, comes after this copy. Blocking copies are thus carried out in the order of submission, and one may
        use the blocks that the one before left.
        """
        job = Job(move, CudaEvent(timed=False) if self.device.type == "cuda" else CpuEvent())
        if not blocking:
            self._flying[move.out].append(job)
            self._unlaunched.append(job)
            return job
        self._issue(job)
        for end in job.ended:
            if isinstance(end, CudaEvent):
                torch.cuda.current_stream().wait_event(end.event)
        return job

    def launch(self) -> None:
        """Give the GPU the overlapped copies submitted since the last call. Nothing happens on a CPU."""
        while self._unlaunched and self.device.type == "cuda":
            self._issue(self._unlaunched.popleft())

    def poll(self) -> list[Job]:
        """Overlapped copies that ended since the last call, in the order of submission by direction. Never waits."""
        while self._unlaunched:
            self._issue(self._unlaunched.popleft())
        ended: list[Job] = []
        for jobs in self._flying.values():
            while jobs and jobs[0].done():
                ended.append(jobs.popleft())
        return ended

    def wait_for_one(self) -> None:
        """Block the calling thread until an overlapped copy has ended; returns at once when none is under way."""
        self.launch()
        if self.device.type == "cuda":
            while not self.idle and not any(jobs and jobs[0].done() for jobs in self._flying.values()):
                time.sleep(WATCH_S)

    @property
    def idle(self) -> bool:
        """Whether no overlapped copy is under way."""
        return not any(self._flying.values())

    # ---- issuing

    def _make_lanes(self) -> list[_Lane]:
        """A direction's streams: two take turns when copies go through staging, so that one packs while one copies."""
        cuda: Any = torch.cuda if self.device.type == "cuda" else None
        lanes = []
        for _ in range(2 if self.way == "staged" else 1):
            shape = (self._staging_blocks if self.way == "staged" else 0, self._pool.shape[1])
            staging = torch.empty(shape, dtype=self._pool.dtype, device=self.device)
            lanes.append(_Lane(cuda.Stream(self.device) if cuda else None, staging))
        return lanes

    def _issue(self, job: Job) -> None:
        move = job.move
        lanes = self._lanes[move.out]
        for lane in lanes:
            lane.follow(job.after)
        job.begun = [record_event(self.device, lane.stream) for lane in lanes]
        if self.way == "direct":
            with lanes[0].active():
                self._copy_direct(move)
        else:
            size = self._staging_blocks
            for turn, start in enumerate(range(0, move.blocks, size)):
                lane = lanes[turn % len(lanes)]
                with lane.active():
                    stage = self._stage_out if move.out else self._stage_in
                    stage(move.gpu[start : start + size], move.host[start : start + size], lane.staging)
        job.ended = [record_event(self.device, lane.stream) for lane in lanes]

    def _copy_direct(self, move: Move) -> None:
        for gpu, host, blocks in _stretches(move.gpu, move.host):
            device_part, host_part = self._pool[gpu : gpu + blocks], self._host[host : host + blocks]
            if move.out:
                host_part.copy_(device_part, non_blocking=True)
            else:
                device_part.copy_(host_part, non_blocking=True)

    def _stage_out(self, gpu: Sequence[int], host: Sequence[int], staging: torch.Tensor) -> None:
        torch.index_select(self._pool, 0, self._on_device(gpu), out=staging[: len(gpu)])
        for part, host_run in self._runs(host, staging):
            host_run.copy_(part, non_blocking=True)

    def _stage_in(self, gpu: Sequence[int], host: Sequence[int], staging: torch.Tensor) -> None:
        for part, host_run in self._runs(host, staging):
            part.copy_(host_run, non_blocking=True)
        # Not self._pool[ids].copy_(...): indexing with a tensor makes a temporary, and the copy would fill that.
        self._pool.index_copy_(0, self._on_device(gpu), staging[: len(gpu)])

    def _runs(self, host: Sequence[int], staging: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """For each run of host blocks: its part of the staging buffer, and its place in the host pool."""
        at = 0
        for first, blocks in consecutive(host):
            yield staging[at : at + blocks], self._host[first : first + blocks]
            at += blocks

    def _on_device(self, ids: Sequence[int]) -> torch.Tensor:
        """Block ids as an index on the device; torch's pinned allocator keeps the source until the copy has ended."""
        cuda = self.device.type == "cuda"
        return torch.tensor(ids, dtype=torch.int64, pin_memory=cuda).to(self.device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class _Lane:
    """A side stream with a staging buffer of its own, so that the order within the stream protects the buffer."""

    stream: torch.cuda.Stream | None
    staging: torch.Tensor

    def follow(self, after: DeviceEvent) -> None:
        if self.stream is not None:
            assert isinstance(after, CudaEvent)
            self.stream.wait_event(after.event)

    def active(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


def _as_rows(pool: torch.Tensor) -> torch.Tensor:
    """A pool as ``[blocks, words]`` of 8 bytes: bytes move as they are, and wide words move faster."""
    rows = pool.flatten(1)
    return rows.view(torch.int64) if rows.shape[1] * rows.element_size() % 8 == 0 else rows


def _stretches(gpu: Sequence[int], host: Sequence[int]) -> list[tuple[int, int, int]]:
    """Cut pairs of blocks into stretches consecutive at both ends: (first GPU block, first host block, blocks)."""
    found: list[tuple[int, int, int]] = []
    for device_block, host_block in zip(gpu, host, strict=True):
        if found:
            first_gpu, first_host, blocks = found[-1]
            if (device_block, host_block) == (first_gpu + blocks, first_host + blocks):
                found[-1] = (first_gpu, first_host, blocks + 1)
                continue
        found.append((device_block, host_block, 1))
    return found
