"""The figures of a trace, gathered one session at a time: arrivals, lengths, calls, pauses, sharing, concurrency.

A portrait keeps a few numbers a call and no sessions, so a trace larger than memory can be described.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from traces.draw.distributions import Values
from traces.draw.shapes import pause_label
from traces.session import Session

PER_SESSION = ("calls", "prompt", "final_context", "pause_s_total")
PER_CALL = ("context", "output")
PER_PAUSE = ("returned", "pause_s", "context_at_pause")
PERCENTILES = (50, 90, 99)
ALL = "all"


class Portrait:
    """The numbers of a trace, by kind of session.

    Attributes:
        sessions: how many were seen.
        rewritten: pauses in which the client rewrote its context.
        blocks: content hashes seen, those that had been seen before, and those that are distinct.
    """

    def __init__(self, sessions: Iterable[Session] = ()) -> None:
        self.sessions = 0
        self.rewritten = 0
        self.blocks = {"seen": 0, "seen_before": 0}
        self._hashes: set[int] = set()
        self._columns: dict[tuple[str, str], array[float]] = defaultdict(lambda: array("d"))
        self._pauses: dict[tuple[str, str], dict[str, array[float]]] = {}
        self._arrivals, self._outputs, self._waits = array("d"), array("d"), array("d")
        for session in sessions:
            self.add(session)

    def add(self, session: Session) -> None:
        """Add one more session."""
        self.sessions += 1
        kind, columns = session.kind, self._columns
        context, total = session.prompt, 0.0
        for call in session.calls:
            columns[kind, "context"].append(context)
            columns[kind, "output"].append(call.output)
            context += call.output
            pause = call.pause
            if pause is None:
                continue
            total += pause.duration
            columns[kind, "context_at_pause"].append(context)
            columns[kind, "returned"].append(pause.returned)
            columns[kind, "pause_s"].append(pause.duration)
            row = self._pause_row(pause.waits_for, pause.tool)
            row["seconds"].append(pause.duration)
            row["returned"].append(pause.returned)
            if call is not session.calls[-1]:
                if pause.keeps is None and pause.duration > 0:
                    row["clean"].append(pause.duration)
                if pause.keeps is not None:
                    self.rewritten += 1
                    context = min(context, pause.keeps)
                context += pause.returned
        columns[kind, "calls"].append(len(session.calls))
        columns[kind, "prompt"].append(session.prompt)
        columns[kind, "final_context"].append(context)
        columns[kind, "pause_s_total"].append(total)
        self._arrivals.append(session.arrival)
        self._outputs.append(session.output_tokens)
        self._waits.append(total)
        if session.block_hashes:
            self.blocks["seen"] += len(session.block_hashes)
            before = len(self._hashes)
            self._hashes.update(session.block_hashes)
            self.blocks["seen_before"] += len(session.block_hashes) - (len(self._hashes) - before)

    def _pause_row(self, waits_for: str, tool: str) -> dict[str, array[float]]:
        row = self._pauses.get((waits_for, tool))
        if row is None:
            row = self._pauses[waits_for, tool] = {name: array("d") for name in ("seconds", "returned", "clean")}
        return row

    @property
    def kinds(self) -> list[str]:
        """The kinds of session, in order of appearance."""
        return list(dict.fromkeys(kind for kind, _ in self._columns))

    @property
    def waits(self) -> list[tuple[str, str]]:
        """What pauses wait for, and the tool; the commonest first."""
        return sorted(self._pauses, key=lambda wait: -len(self._pauses[wait]["seconds"]))

    def column(self, name: str, kind: str = ALL) -> Values:
        """The values of one quantity, a name in `PER_SESSION`, `PER_CALL` or `PER_PAUSE`, over one kind or over all."""
        kinds = self.kinds if kind == ALL else [kind]
        return np.concatenate([np.empty(0), *(np.array(self._columns.get((one, name), ())) for one in kinds)])

    def pause_seconds(self, waits_for: str, tool: str = "") -> Values:
        """Seconds of each pause of one sort."""
        return np.array(self._pauses[waits_for, tool]["seconds"])

    @property
    def has_arrivals(self) -> bool:
        """Whether the trace says when sessions arrive: not all of them at 0."""
        return any(self._arrivals)

    @property
    def arrivals(self) -> Values:
        """Arrival times in seconds, ascending."""
        return np.sort(np.array(self._arrivals))

    def open_sessions(self, token_s: float) -> tuple[Values, Values]:
        """Times at which a session arrives or leaves, and how many are open right after each.

        A trace does not say how long generation takes: a session is taken to be open from its arrival for all of its
        pauses and ``token_s`` seconds an output token.
        """
        begins = np.array(self._arrivals)
        ends = begins + np.array(self._waits) + token_s * np.array(self._outputs)
        times = np.concatenate([begins, ends])
        steps = np.concatenate([np.ones(len(begins)), -np.ones(len(ends))])
        order = np.lexsort((steps, times))
        return times[order], np.cumsum(steps[order])

    def summary(self, token_s: float) -> dict[str, Any]:
        """Every figure as plain data: times in seconds, lengths in tokens; null where there is nothing to count.

        ``clean_seconds`` are those pauses longer than 0 after which a call goes on from the context as it was.
        Percentiles are values that occur (nearest rank); deviations are those of the values at hand.
        """
        calls, pauses = len(self.column("output")), len(self.column("pause_s"))
        return {
            "sessions": self.sessions,
            "calls": calls,
            "pauses": pauses,
            "tokens": {name: int(self.column(name).sum()) for name in ("prompt", "output", "returned")},
            "rewritten_contexts": self.rewritten,
            "arrivals": arrival_figures(self.arrivals) if self.has_arrivals else None,
            "concurrency": self._concurrency(token_s) if self.has_arrivals else None,
            "shared_blocks": self._sharing() if self.blocks["seen"] else None,
            "kinds": {kind: self._kind(kind) for kind in (*self.kinds, ALL)},
            "waits": [self._wait(*wait) for wait in self.waits],
        }

    def _kind(self, kind: str) -> dict[str, Any]:
        columns = {name: spread(self.column(name, kind)) for name in (*PER_SESSION, *PER_CALL, *PER_PAUSE)}
        count = len(self.column("calls", kind))
        return {"sessions": count, "share": count / self.sessions, **columns}

    def _wait(self, waits_for: str, tool: str) -> dict[str, Any]:
        row = self._pauses[waits_for, tool]
        seconds, everything = np.array(row["seconds"]), self.column("pause_s")
        total = float(everything.sum())
        return {
            "waits_for": waits_for,
            "tool": tool,
            "name": pause_label(waits_for, tool),
            "share": len(seconds) / len(everything),
            "share_of_time": float(seconds.sum()) / total if total else None,
            "seconds": spread(seconds),
            "clean_seconds": spread(np.array(row["clean"])),
            "returned": spread(np.array(row["returned"])),
        }

    def _concurrency(self, token_s: float) -> dict[str, float]:
        times, open_after = self.open_sessions(token_s)
        lasting = np.diff(times)
        whole = float(lasting.sum())
        mean = float((open_after[:-1] * lasting).sum()) / whole if whole else float(open_after.max())
        return {"token_s": token_s, "mean": mean, "peak": float(open_after.max())}

    def _sharing(self) -> dict[str, float]:
        return {**self.blocks, "hit_share": self.blocks["seen_before"] / self.blocks["seen"]}


def spread(values: Values) -> dict[str, float] | None:
    """Count, mean, deviation, least, percentiles and greatest of some values; None without any."""
    if not len(values):
        return None
    percentiles = np.percentile(values, PERCENTILES, method="inverted_cdf")
    return {
        "count": len(values),
        "mean": float(values.mean()),
        "sd": float(values.std()),
        "min": float(values.min()),
        **{f"p{percent}": float(value) for percent, value in zip(PERCENTILES, percentiles, strict=True)},
        "max": float(values.max()),
    }


def arrival_figures(times: Values) -> dict[str, Any]:
    """Span, rate and gaps of ascending arrival times.

    ``gap_cv`` is the coefficient of variation of the gaps: 1 for Poisson. ``dispersion`` is the variance over the mean
    of the arrivals in windows of 60 s (1 for Poisson; only where there are ten windows). ``tick`` is the step of the
    grid on which the times lie, where a quarter of the gaps are 0 and the others are its multiples: such a trace was
    rounded, and its ``gap_cv`` says more about the grid than about the arrivals.
    """
    gaps = np.diff(times)
    span = float(times[-1] - times[0])
    mean = float(gaps.mean()) if len(gaps) else math.nan
    windows = np.bincount(((times - times[0]) // 60).astype(int))[:-1] if span else np.empty(0)
    return {
        "span_s": span,
        "rate": len(gaps) / span if span else None,
        "gap_cv": float(gaps.std()) / mean if mean > 0 else None,
        "gap_s": spread(gaps),
        "dispersion": float(windows.var() / windows.mean()) if len(windows) >= 10 else None,
        "tick_s": tick(gaps),
    }


def tick(gaps: Values) -> float | None:
    """The step of the grid that arrival times lie on; None when they do not lie on one that matters."""
    apart = gaps[gaps > 0]
    if not len(apart) or len(apart) > 0.75 * len(gaps):
        return None
    step = float(apart.min())
    whole = np.rint(apart / step)
    return step if np.allclose(apart, whole * step, rtol=0, atol=0.01 * step) else None
