"""Why a session fared as it did: its run is replayed, and one session is followed through it.

Runs keep no log of decisions, which would outgrow everything else in their folders. They are a function of their
configuration, so the replay makes the same decisions again; what it finds is checked against the run's own row.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caesura.config.experiment import read_experiment
from caesura.config.yaml_source import read_yaml
from caesura.errors import UserError, listed
from caesura.explanation.story import Story
from caesura.results.metrics import WASTES
from caesura.runs.run import Run, expand
from caesura.runs.run_folder import is_complete, read_provenance, read_summary, read_table
from caesura.runs.simulate import simulate as simulate_run
from sim.results.session_log import CAUSES, SessionLog

if TYPE_CHECKING:
    import pandas as pd

RUNS = "runs"
_MOST_NAMED = 12
PICKS = {
    "slowest": "normalized_latency",
    "median": "normalized_latency",
    "most-queued": "queued_s",
    "most-recomputed": "recomputed_tokens",
    "most-swapped": "swapped_out_bytes",
    "most-preempted": "preemptions",
}
"""Sessions that can be named without their ids, by the measure that picks them."""


class Explanation(Story):
    """What happened to one session: the story as data (see ``Story``), in words and as a figure."""

    @property
    def story(self) -> pd.DataFrame:
        """One row an entry: time, what happened in words and by name, where the tokens were, the numbers behind it."""
        import pandas as pd

        from caesura.explanation.text import sentences

        rows = [asdict(entry) for entry in self.entries]
        texts = sentences(self)
        return pd.DataFrame(
            [{"time": row.pop("time"), "text": text, **row} for row, text in zip(rows, texts, strict=True)]
        )

    def figure(self) -> Any:
        """Where the tokens of the context were over time, with the policy's verdicts: a matplotlib figure."""
        from caesura.explanation.figure import draw

        return draw(self)

    def __repr__(self) -> str:
        return f"<Explanation of {self.session['id']!r}: {len(self.entries)} entries; {self.folder}>"

    def __str__(self) -> str:
        from caesura.explanation.text import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        columns = ["time", "text", "resident", "offloaded", "missing"]
        return str(self.story[columns].to_html(index=False, float_format=lambda value: f"{value:.3f}"))


def explain(
    run: str | Path,
    session: str = "slowest",
    *,
    system: str | None = None,
    load: float | None = None,
    seed: int | None = None,
) -> Explanation:
    """What happened to one session of a run, decision by decision, as ``caesura explain`` tells it.

    Args:
        run: a run's folder, or the folder of a comparison, of which the other arguments then pick one run.
        session: its id, or one of ``slowest``, ``median``, ``most-queued``, ``most-recomputed``, ``most-swapped``,
            ``most-preempted``.
        system, load, seed: which run of a comparison.

    Raises:
        UserError: there is no such run or session, or the run cannot be replayed.
    """
    folder = find_run(Path(run), system, load, seed)
    row = pick(folder, session)
    replayed, made_otherwise = _as_it_was(folder)
    session_log = SessionLog(row["id"])
    record, _ = simulate_run(_until(replayed, row["finished_at"]), session_log=session_log)
    summary = read_summary(folder)
    again = dict(zip(record.sessions["id"], range(len(record.sessions["id"])), strict=True)).get(row["id"])
    differs = again is None or any(
        not _same(column[again], row[name]) for name, column in record.sessions.items() if name in row
    )
    notes = ["Replayed from the run's configuration; the session's row came out the same, to the last bit."]
    if differs:
        why = made_otherwise or "a file or a library that it depends on has changed"
        notes = [
            f"The replay differs from the run ({why}): this tells the replay. Do the run again to make them agree."
        ]
    return Explanation(
        folder=folder,
        label={name: summary[name] for name in ("system", "load", "seed")},
        session=row,
        entries=session_log.events,
        waste=session_log.waste,
        run_waste={cause: summary[f"{waste}_token_s"] for cause, waste in zip(CAUSES, WASTES, strict=True)},
        notes=notes,
    )


def find_run(folder: Path, system: str | None = None, load: float | None = None, seed: int | None = None) -> Path:
    """The one run that is meant.

    Raises:
        UserError: there is none, or there are several.
    """
    if is_complete(folder) and (folder / "config.yaml").is_file():
        return folder
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder; give that of a run, or of a comparison")
    if not (folder / RUNS).is_dir():
        raise UserError(f"{folder} holds no run of Caesura; give the folder of a run, or of a comparison")
    labels = {one: read_summary(one) for one in (folder / RUNS).iterdir() if is_complete(one)}
    labels = dict(sorted(labels.items(), key=lambda item: [item[1][name] for name in ("system", "load", "seed")]))
    wanted = {name: value for name, value in (("system", system), ("load", load), ("seed", seed)) if value is not None}
    for name, value in wanted.items():
        known = sorted({label[name] for label in labels.values()})
        if value not in known:
            raise UserError(
                f"{folder} holds no run with {name} {_short(value)}; there are {listed(map(_short, known))}"
            )
    found = [one for one, label in labels.items() if all(label[name] == value for name, value in wanted.items())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            f"{folder} holds no run that ended and has {listed(f'{n} {_short(v)}' for n, v in wanted.items())}"
        )
    more = f"\n  ... and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    names = "".join(f"\n  {one}" for one in found[:_MOST_NAMED])
    raise UserError(f"{folder} holds {len(found)} runs; name one, or say --system, --load and --seed:{names}{more}")


def _short(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def pick(folder: Path, wanted: str) -> dict[str, Any]:
    """The row of a session, by its id or by one of ``PICKS``.

    Raises:
        UserError: there is none.
    """
    return _picked(read_table(folder, "sessions"), folder, wanted)


def candidates(folder: Path) -> pd.DataFrame:
    """Sessions worth explaining: a row for each of ``PICKS`` whose measure is not 0 everywhere."""
    import pandas as pd

    sessions = read_table(folder, "sessions")
    return pd.DataFrame([{"pick": name, **_picked(sessions, folder, name)} for name in _telling(sessions)])


def _telling(sessions: pd.DataFrame) -> list[str]:
    """Those of ``PICKS`` whose measure is more than 0 in some session."""
    return [name for name, measure in PICKS.items() if (sessions[measure] > 0).any()]


def _picked(sessions: pd.DataFrame, folder: Path, wanted: str) -> dict[str, Any]:
    if wanted in PICKS:
        measured = sessions[PICKS[wanted]].dropna()
        if measured.empty:
            raise UserError(f"no session of {folder} finished; name one by its id")
        if not (measured > 0).any():
            raise UserError(
                f"there is no {wanted} session in {folder}: {PICKS[wanted]} is 0 in all of them; "
                f"ask for {listed(_telling(sessions), ' or ')}"
            )
        measured = measured.sort_values(kind="stable")
        return _row(sessions.loc[measured.index[(len(measured) - 1) // 2 if wanted == "median" else -1]])
    found = sessions[sessions["id"] == wanted]
    if found.empty:
        near = difflib.get_close_matches(wanted, [*PICKS, *map(str, sessions["id"])], n=3, cutoff=0.5)
        nearest = near or [*map(str, sessions["id"].head(3))]
        raise UserError(f"there is no session {wanted!r} in {folder}; there is, for example, {listed(nearest, ' or ')}")
    return _row(found.iloc[0])


def _as_it_was(folder: Path) -> tuple[Run, str]:
    """The run of a folder, and why a replay might differ from it; empty where it cannot."""
    provenance = read_provenance(folder)
    base = Path(provenance.get("base", ""))
    experiment = read_experiment(read_yaml(folder / "config.yaml"), folder.name, base if base.is_dir() else Path.cwd())
    (run,) = expand(experiment)
    if run.key == provenance["key"]:
        return run, ""
    made_by = provenance["versions"].get("code_sha256")
    return run, "Caesura itself has changed since" if run.sources["caesura"] != made_by else ""


def _until(run: Run, finished_at: float) -> Run:
    """The run, cut when the session has left: later events cannot concern it."""
    if math.isnan(finished_at):
        return run
    experiment = run.experiment
    horizon = min(math.floor(finished_at) + 1.0, experiment.horizon or math.inf)
    return replace(run, experiment=replace(experiment, horizon=horizon))


def _row(session: pd.Series[Any]) -> dict[str, Any]:
    return {str(name): getattr(value, "item", lambda value=value: value)() for name, value in session.items()}


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)
