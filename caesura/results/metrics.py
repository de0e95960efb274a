"""What was measured: from the record of one run to one row per session, one per call, and one summary.

Names follow ``vllm bench serve`` where it has them. Times are seconds in the tables and, as there, milliseconds under
the names that end in ``_ms``. Equations, for a session whose prompt was complete at a (its arrival, unless the prompt
streamed in), that emitted the first of n tokens at f, ended at e, and paused for D seconds in all (a trailing pause
ends the session, so it lies in e and in D). Of a prompt that is worked on while it streams in, intermediate inferences
and the waits for its next part are not counted in n, f and D, so that E2EL is LiveMind's latency (arXiv 2406.14319):
from the end of the input to the complete answer.

- normalized latency (InferCept): (e - a - D) / n; ``released`` counts the tokens that tools returned in n, as the
  released benchmark does;
- TTFT: f - a; after a pause: first token of the call minus the answer's arrival (``resume_ttft``);
- TPOT: (e - f - D) / (n - 1) for n > 1; E2EL, also called JCT: e - a.

Of a session of several samples n is the length of one of them; total tokens and throughput count all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.results.run_record import RunRecord

Floats = NDArray[np.float64]
Columns = dict[str, Any]

USES = {
    "useful": "useful_token_s",
    "waste_preserve": "waste_preserve_token_s",
    "waste_recompute_own": "waste_recompute_own_token_s",
    "waste_recompute_others": "waste_recompute_others_token_s",
    "waste_swap": "waste_swap_token_s",
    "unused": "unused_token_s",
}
WASTES = ("waste_preserve", "waste_recompute_own", "waste_recompute_others", "waste_swap")
TOLERANCE_PCT = 1e-6


class UnbalancedMemory(AssertionError):
    """The six uses of GPU memory do not add up to memory x time: a rule of the recorder is broken."""


def session_table(record: RunRecord) -> Columns:
    """One row a session in trace order: the record's columns, then its measures (NaN where there is none)."""
    sessions = record.sessions
    asked, first, end = (_floats(sessions[name]) for name in ("input_ended_at", "first_token_at", "finished_at"))
    pauses, returned = (_floats(sessions[name]) for name in ("pause_s", "returned_tokens"))
    n = _floats(sessions["output_tokens"]) - _floats(sessions["inference_tokens"])
    finished = np.array([status == "finished" for status in sessions["status"]], dtype=bool)
    end = np.where(finished, end, np.nan)
    serving = end - asked - pauses
    return {
        **sessions,
        "ttft": first - asked,
        "tpot": np.where(n > 1, (end - first - pauses) / np.maximum(n - 1, 1), np.nan),
        "e2el": end - asked,
        "normalized_latency": serving / np.maximum(n, 1),
        "normalized_latency_released": serving / np.maximum(n + returned, 1),
    }


def call_table(record: RunRecord) -> Columns:
    """One row a call that began: the record's columns and its time to first token."""
    calls = record.calls
    return {**calls, "ttft": _floats(calls["first_token_at"]) - _floats(calls["ready_at"])}


def summarize(
    record: RunRecord, sessions: Columns, calls: Columns, *, cut: int = 0, turned_away: int = 0
) -> dict[str, Any]:
    """The run in one flat mapping; None stands for what was not measured.

    Args:
        record: what the simulation recorded.
        sessions: as ``session_table`` gives it.
        calls: as ``call_table`` gives it.
        cut: sessions that were cut to the model's context before the run.
        turned_away: sessions that were rejected before the run, because they outgrow the model's context.

    Raises:
        UnbalancedMemory: the uses of memory do not add up to 100 %.
    """
    totals = record.totals
    status = list(sessions["status"])
    done = np.array([one == "finished" for one in status], dtype=bool)
    duration = totals["end_time"]
    tokens_in = int(_floats(sessions["prompt_tokens"])[done].sum())
    samples = _floats(sessions.get("samples", np.ones(len(status))))
    tokens_out = int((samples * _floats(sessions["output_tokens"]))[done].sum())
    later = _floats(calls["call"]) > 0
    summary: dict[str, Any] = {
        "num_prompts": len(status) + turned_away,
        "completed": status.count("finished"),
        "rejected": status.count("rejected") + turned_away,
        "failed": status.count("failed"),
        "unfinished": status.count("unfinished"),
        "cut": cut,
        "duration": duration,
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "streamed": int((_floats(sessions["input_ended_at"]) > _floats(sessions["arrival"])).sum()),
        "total_inference_tokens": int(_floats(sessions["inference_tokens"])[done].sum()),
        "total_returned_tokens": int(_floats(sessions["returned_tokens"])[done].sum()),
        "request_throughput": _ratio(status.count("finished"), duration),
        "output_throughput": _ratio(tokens_out, duration),
        "total_token_throughput": _ratio(tokens_in + tokens_out, duration),
        **_spread("normalized_latency_s", _floats(sessions["normalized_latency"])),
        **_spread("normalized_latency_released_s", _floats(sessions["normalized_latency_released"])),
        **_spread("ttft_ms", 1e3 * _floats(sessions["ttft"])),
        **_spread("resume_ttft_ms", 1e3 * _floats(calls["ttft"])[later]),
        **_spread("tpot_ms", 1e3 * _floats(sessions["tpot"])),
        **_spread("e2el_ms", 1e3 * _floats(sessions["e2el"])),
        **_spread("queued_s", _floats(sessions["queued_s"])),
        "prefix_hit_share": _ratio(totals.get("prefix_hit_tokens", 0), tokens_in),
        "swapped_out_bytes": int(_floats(sessions["swapped_out_bytes"]).sum()),
        "swapped_in_bytes": int(_floats(sessions["swapped_in_bytes"]).sum()),
        **window_shares(record),
        **extrapolated_shares(record),
    }
    summary.update({key: value for key, value in totals.items() if key not in summary})
    return {key: _plain(value) for key, value in summary.items()}


def extrapolated_shares(record: RunRecord) -> dict[str, float | None]:
    """What lay beyond what profiles were measured over (``sim.costs.measured_range``), over the whole run: batches,
    in shares of the
    forward time, and contexts, in shares of the calls. None where no profile says what it was measured over."""
    beyond = record.facts.get("beyond_measured")
    seconds, calls = (sum(one[name] for one in beyond or ()) for name in ("forward_s", "calls"))
    shares = _ratio(seconds, record.totals["forward_s"]), _ratio(calls, len(record.calls["call"]))
    return {
        "extrapolated_forward_share": None if beyond is None else shares[0],
        "extrapolated_call_share": None if beyond is None else shares[1],
    }


def window_shares(record: RunRecord) -> dict[str, float]:
    """What the GPU and its KV memory did while sessions arrived: the drain that follows says little about a load.

    The window is the whole steps of the timeline before the last arrival, or all of them where there are none. In it:
    ``recompute_share`` of the forward time, ``busy_share`` of the time (of a cluster, the mean over its replicas), and
    the uses of memory as ``memory_shares``.

    Raises:
        UnbalancedMemory: the six uses do not add up to 100 %, in the window or over the whole run.
    """
    memory_shares(record.totals)
    timeline = {name: _floats(values) for name, values in record.timeline.items()}
    seconds = timeline["seconds"]
    last = max(record.sessions["arrival"], default=0.0)
    window = timeline["time"] + seconds <= last
    if not window.any():
        window[:] = True

    def over_window(name: str) -> float:
        return float((timeline[name] * seconds)[window].sum())

    count = max(1, len(record.replicas["replica"])) if record.replicas else 1
    span, size = float(seconds[window].sum()) / count, record.totals["block_size"]
    token_s = {column: size * over_window(use.removeprefix("waste_")) for use, column in USES.items()}
    token_s["memory_token_s"] = size * record.totals["gpu_blocks"] * span
    return {
        "window_s": span,
        "recompute_share": _ratio(over_window("recompute_forward"), over_window("forward")),
        "busy_share": _ratio(over_window("forward"), span * count),
        **memory_shares(token_s),
    }


def memory_shares(token_s: Mapping[str, float]) -> dict[str, float]:
    """What the GPU's KV memory was used for, in percent of memory x time; ``waste_pct`` is the sum of the wastes.

    Raises:
        UnbalancedMemory: the six uses do not add up to 100 % within 1e-6.
    """
    whole = token_s["memory_token_s"]
    if whole <= 0:
        return {f"{use}_pct": 0.0 for use in USES} | {"waste_pct": 0.0}
    shares = {f"{use}_pct": 100 * token_s[column] / whole for use, column in USES.items()}
    total = math.fsum(shares.values())
    if not abs(total - 100) <= TOLERANCE_PCT:
        parts = ", ".join(f"{name} {value:.9g}" for name, value in shares.items())
        raise UnbalancedMemory(f"the uses of GPU memory add up to {total:.9f} % of memory x time, not 100 %: {parts}")
    return shares | {"waste_pct": math.fsum(shares[f"{waste}_pct"] for waste in WASTES)}


def _spread(name: str, values: Floats) -> dict[str, float | None]:
    """Mean, median, deviation and percentiles (linear interpolation) of what was measured."""
    known = values[np.isfinite(values)]
    if not known.size:
        return {f"{kind}_{name}": None for kind in ("mean", "median", "std", "p50", "p90", "p99")}
    p50, p90, p99 = (float(p) for p in np.percentile(known, [50, 90, 99]))
    return {
        f"mean_{name}": float(known.mean()),
        f"median_{name}": p50,
        f"std_{name}": float(known.std()),
        f"p50_{name}": p50,
        f"p90_{name}": p90,
        f"p99_{name}": p99,
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _floats(values: Sequence[float] | Floats) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _plain(value: Any) -> Any:
    """Python numbers only, and None for what JSON cannot say."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
