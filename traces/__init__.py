"""What users send: sessions, the files they come from, when they arrive, and what they are made of.

    import traces

    mix = traces.shipped.load("infercept-mix")              # 397 sessions of the InferCept paper's workload
    mix = traces.fit(mix, max_context=2048).sessions        # cut what a model could not hold
    workload = traces.draw_workload(mix, traces.Poisson(rate=2.0), duration=600.0, seed=0)
    traces.describe(workload)                               # a DataFrame, one row a kind
    traces.write_own("workload.jsonl", workload)

Times are in seconds, lengths in tokens. This package knows nothing of engines and policies.
"""

from __future__ import annotations

from traces import shipped
from traces.draw.arrivals import ArrivalProcess, Gamma, Poisson, Replay, draw_workload, replay_workload
from traces.draw.generate import AUGMENTATIONS, MIX_WEIGHTS, generate
from traces.draw.ticks import spread_ticks
from traces.errors import TraceError
from traces.limits import Limited, TooLong, cut, fit_to_limit
from traces.readers import (
    Format,
    Trace,
    UnknownFormat,
    all_formats,
    convert,
    detect,
    read,
    read_own,
    read_session_files,
    read_sessions,
    write,
    write_own,
)
from traces.session import Call, InvalidSession, Pause, PromptPart, Session, SharedPrefix, ToolRun
from traces.statistics import contexts, describe

__all__ = [
    "AUGMENTATIONS",
    "MIX_WEIGHTS",
    "ArrivalProcess",
    "Call",
    "Format",
    "Gamma",
    "InvalidSession",
    "Limited",
    "Pause",
    "Poisson",
    "PromptPart",
    "Replay",
    "Session",
    "SharedPrefix",
    "TooLong",
    "ToolRun",
    "Trace",
    "TraceError",
    "UnknownFormat",
    "all_formats",
    "contexts",
    "convert",
    "cut",
    "describe",
    "detect",
    "draw_workload",
    "fit_to_limit",
    "generate",
    "read",
    "read_own",
    "read_session_files",
    "read_sessions",
    "replay_workload",
    "shipped",
    "spread_ticks",
    "write",
    "write_own",
]
