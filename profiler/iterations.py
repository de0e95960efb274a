"""What each iteration of a real run computed, and how long the device and the host took for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from sim.plan import Batch, Direction

if TYPE_CHECKING:
    from profiler.serve import Timings

BATCH = {
    "decodes": "decode_sessions",
    "decode_context": "decode_context",
    "chunks": "prefill_sessions",
    "chunk_tokens": "prefill_tokens",
    "chunk_context": "prefill_context",
    "pairs": "prefill_pairs",
    "begun": "begun",
    "opened": "opened",
    "decode_spread": "decode_spread",
}
"""Columns of a recorded iteration, and what a batch calls them."""
LATER = ("decode_spread",)
"""Columns that iterations recorded earlier do not have; there they count as 0."""
KEPT = (*BATCH, "copies_out", "copies_in", "stalled", "device_s", "wall_s", "ended_s")
"""Columns that a recorded run keeps."""


def iteration_rows(timings: Timings) -> list[dict[str, Any]]:
    """A row an iteration: the batch, whether copies of each direction began beside it (0 or 1), whether it waited for
    copies before it (``stalled``, 0 or 1), and seconds. ``opened`` counts the sessions that arrived since
    the iteration before."""
    found = []
    series = zip(timings.plans, timings.opened, timings.device, timings.host, timings.wall, timings.ended, strict=True)
    for plan, opened, device, host, wall, ended in series:
        ways = {copy.direction for copy in plan.copies if not copy.blocking}
        found.append(
            {column: getattr(plan.batch, name) for column, name in BATCH.items()}
            | {
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


def batches(rows: pd.DataFrame) -> Iterator[Batch]:
    """The batch of each row, one after the other."""
    rows = rows.assign(**{name: 0 for name in LATER if name not in rows})
    for sums in zip(*(rows[name].tolist() for name in BATCH), strict=True):
        yield Batch(**dict(zip(BATCH.values(), sums, strict=True)))
