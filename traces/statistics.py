"""Statistics of a workload: a table with one row a kind of session and one for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from traces.session import Session

if TYPE_CHECKING:
    import pandas as pd


def contexts(session: Session) -> list[int]:
    """Context tokens at the end of each call; the last is the final context, without what a last pause returns."""
    context, ends = session.prompt, []
    for call in session.calls:
        context += call.output
        ends.append(context)
        if call.pause is not None:
            if call.pause.keeps is not None:
                context = min(context, call.pause.keeps)
            context += call.pause.returned
    return ends


def describe(sessions: Iterable[Session]) -> pd.DataFrame:
    """Statistics of each kind of session, in order of appearance, and of all together.

    Deviations (``_sd``) are those of the sessions at hand, not estimates for a larger population (no n - 1);
    percentiles are values that occur (nearest rank). Where there is nothing to average, the entry is nan.

    Returns:
        A DataFrame indexed by ``kind``, the last row ``all``. Columns: ``sessions``, ``share`` (of all sessions),
        ``calls``, ``pauses`` (totals); per session ``calls_mean``, ``calls_sd``, ``pauses_mean``, ``pauses_sd``,
        ``pauses_max``; pause durations in seconds ``pause_s_mean``, ``_sd``, ``_p50``, ``_p99``; and in tokens
        ``prompt_mean``, ``output_mean`` (a call), ``returned_mean`` (a pause), ``context_at_pause_mean``, ``_sd``,
        ``final_context_mean``, ``_sd``.
    """
    import pandas as pd

    sessions = list(sessions)
    kinds: dict[str, list[Session]] = {}
    for session in sessions:
        kinds.setdefault(session.kind, []).append(session)
    rows = [{"kind": kind, **_row(some, len(sessions))} for kind, some in [*kinds.items(), ("all", sessions)]]
    return pd.DataFrame(rows).set_index("kind")


def _row(sessions: Sequence[Session], total: int) -> dict[str, float]:
    calls = [len(session.calls) for session in sessions]
    pauses = [len(session.pauses) for session in sessions]
    seconds = [pause.duration for session in sessions for pause in session.pauses]
    ends = [contexts(session) for session in sessions]
    at_pause = [
        end
        for session, some in zip(sessions, ends, strict=True)
        for call, end in zip(session.calls, some, strict=True)
        if call.pause is not None
    ]
    return {
        "sessions": len(sessions),
        "share": len(sessions) / total if total else np.nan,
        "calls": sum(calls),
        "pauses": sum(pauses),
        **_mean_sd("calls", calls),
        **_mean_sd("pauses", pauses),
        "pauses_max": max(pauses, default=0),
        **_mean_sd("pause_s", seconds),
        "pause_s_p50": _percentile(seconds, 50),
        "pause_s_p99": _percentile(seconds, 99),
        "prompt_mean": _mean([session.prompt for session in sessions]),
        "output_mean": _mean([call.output for session in sessions for call in session.calls]),
        "returned_mean": _mean([pause.returned for session in sessions for pause in session.pauses]),
        **_mean_sd("context_at_pause", at_pause),
        **_mean_sd("final_context", [some[-1] for some in ends]),
    }


def _mean_sd(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_mean": _mean(values), f"{name}_sd": float(np.std(values)) if values else np.nan}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else np.nan


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent, method="inverted_cdf")) if values else np.nan
