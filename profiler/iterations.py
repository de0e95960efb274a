"""What each iteration of a real run computed, and how long the device and the host took for it."""

from __future__ import annotations

from typing import Any

from profiler.serve import Timings
from sim.plan import Direction


def iteration_rows(timings: Timings) -> list[dict[str, Any]]:
    """A row an iteration: the batch, whether copies of each direction began beside it (0 or 1), whether it waited for
    copies before it (``stalled``, 0 or 1), and seconds."""
    found = []
    series = zip(timings.plans, timings.opened, timings.device, timings.host, timings.wall, timings.ended, strict=True)
    for plan, opened, device, host, wall, ended in series:
        batch = plan.batch
        ways = {copy.direction for copy in plan.copies if not copy.blocking}
        found.append(
            {
                "decodes": batch.decode_sessions,
                "decode_context": batch.decode_context,
                "chunks": batch.prefill_sessions,
                "chunk_tokens": batch.prefill_tokens,
                "chunk_context": batch.prefill_context,
                "pairs": batch.prefill_pairs,
                "begun": batch.begun,
                "opened": opened,
                "copies_out": int(Direction.OUT in ways),
                "copies_in": int(Direction.IN in ways),
                "stalled": int(any(copy.blocking for copy in plan.copies)),
                "device_s": device,
                "host_s": host,
                "wall_s": wall,
                "ended_s": ended,
            }
        )
    return found
