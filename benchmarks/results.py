"""The benchmark's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table

from benchmarks.measure import Measured

HEADS = (
    "case",
    "calls",
    "iterations",
    "events",
    "CPU s",
    "calls / CPU s",
    "aim",
    "over leap: off",
    "peak MB",
    "yardstick s",
)


@dataclass(frozen=True)
class Result:
    """A case, measured.

    Attributes:
        case, title, system, rate: which; sessions/s.
        least: calls per CPU second to reach, if any.
        leaping: the median run.
        compared: a run with leaps and one iteration by iteration, of the same share, perhaps a smaller one.
        spread: how much longer the longest run took than the shortest, as a share.
    """

    case: str
    title: str
    system: str
    rate: float
    least: float | None
    leaping: Measured
    compared: tuple[Measured, Measured] | None
    spread: float

    @property
    def gain(self) -> float | None:
        """Calls per CPU second over those of the same sessions without leaps."""
        if self.compared is None:
            return None
        leaping, stepping = self.compared
        return leaping.calls_per_cpu_s / stepping.calls_per_cpu_s


def cells(result: Result) -> list[str]:
    """A row of the table."""
    run, gain = result.leaping, "–"
    if result.compared is not None:
        stepping = result.compared[1]
        part = "" if stepping.share == run.share else f" (of {stepping.share / run.share:.0%})"
        gain = f"{result.gain:.1f}×{part}"
    return [
        result.case,
        f"{run.calls:,}",
        f"{run.iterations:,}",
        f"{run.events:,}",
        f"{run.cpu_s:.2f}",
        f"{run.calls_per_cpu_s:,.0f}",
        f"≥ {result.least:,.0f}" if result.least else "",
        gain,
        f"{run.peak_bytes / 1e6:,.0f}",
        f"{run.yardstick_s:.2f}",
    ]


def ratios(results: Sequence[Result]) -> list[str]:
    """What two cases say together: how time grows with the length of the output, and with the number of sessions."""
    seconds = {result.case: result.leaping.cpu_s / result.leaping.sessions for result in results}
    lines = []
    for short, long, what in (
        ("a", "c", "outputs five times as long take {:.2f}× the time per session (aim: at most 1.3×)"),
        ("a-chunked", "c-chunked", "the same with chunked prefill: {:.2f}×"),
        ("d-quarter", "d", "four times the sessions take {:.2f}× the time per session (linear is 1×)"),
    ):
        if short in seconds and long in seconds:
            lines.append(what.format(seconds[long] / seconds[short]))
    return lines


def legend(results: Sequence[Result]) -> list[str]:
    """What the cases are."""
    alike = [result for result in results if result.case.startswith("b-")]
    lines = [f"{result.case}: {result.title} ({result.system})" for result in results if result not in alike]
    if alike:
        loads = ", ".join(f"{result.system} {result.rate:g}" for result in alike)
        lines.append(f"b-SYSTEM: the InferCept mix near each system's saturation, sessions/s: {loads}")
    return lines


def as_table(results: Sequence[Result]) -> Table:
    """For a terminal."""
    table = Table(box=SIMPLE, pad_edge=False)
    for place, head in enumerate(HEADS):
        table.add_column(head, justify="right" if place else "left", no_wrap=place == 0)
    for result in results:
        table.add_row(*cells(result))
    return table


def as_markdown(results: Sequence[Result]) -> str:
    """For a page."""
    rules = ["---:" if place else "---" for place in range(len(HEADS))]
    rows = [list(HEADS), rules, *(cells(result) for result in results)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    lines = "\n".join(f"- {line}" for line in [*legend(results), *ratios(results)])
    return f"{table}\n\n{lines}\n"
