"""What happened to one session, as data: what the words and the figure of an explanation are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caesura.results.json_safe import json_safe
from sim.results.session_log import CAUSES, SessionEvent

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Story:
    """What happened to one session.

    Attributes:
        folder: the run's folder.
        label: the run's system, load and seed.
        session: the session's row in the run's table.
        entries: what happened, by time.
        waste: token-seconds of GPU memory that it wasted, by call and cause.
        run_waste: the same of the whole run, by cause.
        notes: what a reader must know of how this was found out.
    """

    folder: Path
    label: Mapping[str, Any]
    session: Mapping[str, Any]
    entries: Sequence[SessionEvent]
    waste: Mapping[int, Mapping[str, float]]
    run_waste: Mapping[str, float]
    notes: Sequence[str]

    @property
    def waste_table(self) -> pd.DataFrame:
        """One row a call, token-seconds by cause."""
        import pandas as pd

        rows = [{"call": call, **causes} for call, causes in sorted(self.waste.items())]
        return pd.DataFrame(rows, columns=["call", *CAUSES])

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data; None stands for what was not measured."""
        entries = [
            {name: value for name, value in asdict(entry).items() if name != "details"} | dict(entry.details)
            for entry in self.entries
        ]
        data: dict[str, Any] = {
            "run": str(self.folder),
            **self.label,
            "session": dict(self.session),
            "entries": entries,
            "waste_token_s": {str(call): dict(causes) for call, causes in sorted(self.waste.items())},
            "run_waste_token_s": dict(self.run_waste),
            "notes": list(self.notes),
        }
        return dict(json_safe(data))
