"""The figures of a benchmark: what was measured, beside the limit that it is held against."""

from __future__ import annotations

from dataclasses import dataclass

TARGETS = {
    "decode iteration": 1.35,
    "host overhead": 1.0,
    "prefill chunk": 1.35,
    "swap out": 0.85,
    "swap in": 0.85,
    "decode beside a copy out": 1.04,
    "decode beside a copy in": 1.09,
}


@dataclass(frozen=True)
class Row:
    """One figure: a measured value, the limit it is held against, and value / limit."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    limit_is: str = ""
    ratio: float | None = None

    def __str__(self) -> str:
        text = f"{self.name:<44} {self.value:>10.4g} {self.unit:<9}"
        if self.ratio is None:
            return text
        target = next((goal for name, goal in TARGETS.items() if self.name.startswith(name)), None)
        goal = "" if target is None else f"  (target {'>=' if target < 1 else '<='} {target})"
        return f"{text} {self.ratio:>7.3f} x {self.limit_is}, {self.limit:.4g} {self.unit}{goal}"


def against(name: str, value: float, unit: str, limit: float, limit_is: str) -> Row:
    return Row(name, value, unit, limit, limit_is, value / limit)
