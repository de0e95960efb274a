"""The measured profiles that ship, side by side: how they were measured, how wrong they are, what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from caesura.config import paths
from caesura.results.text_table import TextTable
from sim.costs.profile import Measurement, Profile, load_profile

ERRORS = {
    "held_out": "random batches not fitted, %",
    "held_out_decode": "of these: decoding only",
    "held_out_prefill": "chunks only",
    "held_out_mixed": "both",
    "held_out_long": "with contexts of more than 8,192 tokens",
    "cross_validated": "the grid, cross-validated",
    "recompute": "recomputing whole contexts, by chunk size",
    "serving": "iterations of its own serving run",
    "copies": "copies, against the fastest of each size",
}


def profile_rows() -> TextTable:
    """A column a profile. Errors are medians and 95th percentiles."""
    found = [(folder, load_profile(folder)) for folder in sorted((paths.profiles() / "h200").iterdir())]
    columns = [
        _column(profile, json.loads((folder / "samples" / "facts.json").read_text())) for folder, profile in found
    ]
    names = [f"`h200/{folder.name}`" for folder, _ in found]
    return TextTable(
        "Measured by `caesura profile --model NAME --out FOLDER`; errors as median / P95",
        ["", *names],
        [[heading, *(column[heading] for column in columns)] for heading in columns[0]],
    )


def _column(profile: Profile, facts: Mapping[str, Any]) -> dict[str, str]:
    measured, swap, host = profile.measured, profile.swap, profile.host
    assert measured is not None
    share = 100 * facts["memory"]["fraction"]
    took = sum(run["seconds"] for run in facts["runs"])
    return {
        "card, driver": f"{measured.machine['card']}, {measured.machine['driver']}",
        "measured at": measured.date,
        "measuring, and setting up before, s": f"{took:.0f} + {sum(facts['set_up_s']):.0f}",
        "random batches": f"{measured.errors['held_out'].points}",
        **_errors(measured),
        "saturation point, tokens": f"{profile.saturation_tokens}",
        f"KV capacity at {share:.0f} % of the memory, tokens": f"{profile.kv_capacity_tokens:,}",
        "copies out / in, GB/s": f"{swap.out_bytes_per_s / 1e9:.1f} / {swap.in_bytes_per_s / 1e9:.1f}",
        "they lengthen a decode beside them by, %": f"{100 * swap.slowdown_out:.1f} / {100 * swap.slowdown_in:.1f}",
        "host: an iteration / with chunks more, ms": f"{1e3 * host.per_iteration_s:.2f} / {1e3 * host.chunked_s:.2f}",
        "after a long wait up to, more, ms": f"{1e3 * host.cold_s:.2f}",
    }


def _errors(measured: Measurement) -> dict[str, str]:
    return {
        heading: f"{100 * error.median:.1f} / {100 * error.p95:.1f}" if error is not None else "–"
        for name, heading in ERRORS.items()
        for error in [measured.errors.get(name)]
    }
