"""Replays recorded real runs in the simulator, on every core."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from caesura.config.profiles import profile_names, read_profile
from caesura.config.renamed import note
from caesura.errors import UserError, listed
from caesura.fidelity.fidelity import Fidelity, NotComparable, Ranking, compare, ranking
from profiler.serving.recorded_run import SHIPPED, RecordedRun, load, replay
from profiler.serving.time_split import TimeSplit, as_it_was, split_time
from sim.costs.profile import Profile
from sim.engine.settings import RENAMED_SETTINGS


@dataclass(frozen=True)
class Replayed:
    """One recorded run and its replay.

    Attributes:
        folder: of the recording.
        bench: model, GPU and memory pools: runs on one bench can be ranked.
        costs: the profile that the replay took.
        provenance: of the recording: machine, versions, agreement of tokens.
        finished, arrived: sessions of the real run.
        fidelity: the errors.
        time_split: what the device and the host took in the real run and by the profile; None if that was not recorded.
        misses: what is to be said of a profile that misses its own aim; empty otherwise.
        at_its_pace: the errors of another replay, with both as long as they were in the run in the mean: what is left
            when costs have the right level.
        missing: which of `profiler.serving.real_engine.PARTS` the real engine did not tell.
    """

    folder: Path
    bench: str
    costs: str
    provenance: Mapping[str, Any]
    finished: int
    arrived: int
    fidelity: Fidelity
    time_split: TimeSplit | None = None
    at_its_pace: Fidelity | None = None
    misses: str = ""
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The system at its load."""
        return f"{self.fidelity.system} @ {self.fidelity.load:g}"


@dataclass(frozen=True)
class ReplayError:
    """A recording that cannot be replayed, and why."""

    folder: Path
    what: str


@dataclass(frozen=True)
class ReplayCosts:
    """Which profile to replay with.

    Attributes:
        chosen: name and profile that were asked for; None takes the one that ships for the run's model and card, or
            for another card of that kind, or the one that was recorded with the run.
        shipped: name and profile of all measured ones that ship.
    """

    chosen: tuple[str, Profile] | None = None
    shipped: Sequence[tuple[str, Profile]] = field(default_factory=tuple)

    def of(self, model: str, gpu: str, card: str | None = None) -> tuple[str, Profile | None]:
        """Name and profile for runs of a model on a GPU; None stands for the recorded one.

        Args:
            card: which GPU of that name it was.

        Raises:
            UserError: the chosen profile is of another model.
        """
        if self.chosen is not None:
            name, profile = self.chosen
            if profile.model != model:
                raise UserError(f"the profile {name} is of {profile.model}; the runs are of {model}")
            return name, profile
        fitting = [one for one in self.shipped if (one[1].model, one[1].gpu) == (model, gpu)]
        same = [one for one in fitting if card is not None and _card(one[1]) == card]
        return (*same, *fitting, ("the one recorded with the run", None))[0]

    def of_run(self, run: RecordedRun) -> tuple[str, Profile]:
        """Name and profile for one recorded run.

        Raises:
            UserError: as ``of``.
        """
        name, profile = self.of(run.profile.model, run.profile.gpu, run.provenance.get("card"))
        return name, profile or run.profile


def _card(profile: Profile) -> str | None:
    """Which GPU it was measured on."""
    return None if profile.measured is None else profile.measured.machine.get("card")


def choose_costs(profile: str | None) -> ReplayCosts:
    """The costs that ``--profile`` asks for, or what takes their place.

    Raises:
        UserError: there is no such profile.
    """
    if profile is not None:
        return ReplayCosts((profile, read_profile(profile)))
    read = [(name, read_profile(name)) for name in profile_names()]
    return ReplayCosts(None, tuple((name, one) for name, one in read if one.origin == "measured"))


def find_recordings(
    folder: Path | None, systems: Collection[str] | None = None, loads: Collection[float] | None = None
) -> list[Path]:
    """Folders of recorded runs in or below ``folder``, by default those that ship, in a fixed order.

    Args:
        systems, loads: only these.

    Raises:
        UserError: there are none, or one of ``systems`` or ``loads`` has none.
    """
    root = folder or SHIPPED
    found = sorted(file.parent for file in root.rglob("run.json"))
    if not found:
        raise UserError(f"there are no recorded runs in {root}; `caesura validate` without --recorded makes some")
    named = [(one, *_name_and_load(one)) for one in found]
    _note_older_names(found, root)
    _require_known("--systems", systems or (), [name for _, name, _ in named], root)
    _require_known(
        "--loads", [f"{at:g}" for at in loads or ()], [f"{at:g}" for at in sorted(at for _, _, at in named)], root
    )
    return [one for one, name, at in named if (systems is None or name in systems) and (loads is None or at in loads)]


def replay_all(
    folders: Sequence[Path], costs: ReplayCosts, jobs: int | None = None, progress: bool | None = None
) -> list[Replayed]:
    """Replay recorded runs and compare; by bench, load and name.

    Args:
        jobs: processes; None takes every core.
        progress: show a bar; None shows it on a terminal.

    Raises:
        UserError: a recording that is damaged, or a replay that cannot be compared with it, naming the folder.
    """
    from joblib import Parallel, delayed

    tasks = (delayed(_replay_one)(folder, costs) for folder in folders)
    results = Parallel(n_jobs=min(jobs or -1, len(folders)), batch_size=1, return_as="generator")(tasks)
    done = list(_with_bar(results, len(folders), sys.stderr.isatty() if progress is None else progress))
    faults: dict[str, list[Path]] = {}
    for one in done:
        if isinstance(one, ReplayError):
            faults.setdefault(one.what, []).append(one.folder)
    if faults:
        raise UserError("\n".join(f"{_first_of(folders)}: {what}" for what, folders in faults.items()))
    replayed = [one for one in done if isinstance(one, Replayed)]
    return sorted(replayed, key=lambda one: (one.bench, one.fidelity.load, one.fidelity.system))


def rankings(replayed: Sequence[Replayed]) -> list[tuple[str, Ranking]]:
    """The ranking of each bench at each load."""
    groups: dict[tuple[str, float], list[Fidelity]] = {}
    for one in replayed:
        groups.setdefault((one.bench, one.fidelity.load), []).append(one.fidelity)
    return [(bench, ranking(results)) for (bench, _), results in groups.items()]


def _first_of(folders: Sequence[Path]) -> str:
    more = len(folders) - 1
    return f"{folders[0]}{f' and {more} more' if more else ''}"


def _replay_one(folder: Path, costs: ReplayCosts) -> Replayed | ReplayError:
    """In a worker: the replay, or what is wrong with it."""
    try:
        run = load(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return ReplayError(folder, f"holds no recorded run that can be read: {error}")
    try:
        name, profile = costs.of_run(run)
        fidelity = compare(run, replay(run, profile))
        found = split_time(run, profile)
        at_its_pace = None if found is None else compare(run, replay(run, as_it_was(profile, found)))
    except (NotComparable, UserError) as error:
        return ReplayError(folder, str(error))
    except ValidationError as error:
        unknown = ", ".join(dict.fromkeys(str(one["loc"][-1]) for one in error.errors() if one["loc"]))
        return ReplayError(folder, f"was recorded with engine settings that are not known here: {unknown}")
    pools = (
        f"{run.profile.kv_capacity_tokens:,} tokens of KV cache and {run.profile.host_capacity_tokens:,} on the host"
    )
    return Replayed(
        folder=folder,
        bench=f"{run.profile.model} on {run.profile.gpu}, {pools}",
        costs=name,
        provenance=run.provenance,
        finished=run.record.sessions["status"].count("finished"),
        arrived=len(run.sessions),
        fidelity=fidelity,
        time_split=found,
        at_its_pace=at_its_pace,
        misses=_missed_aim(name, profile),
        missing=run.missing,
    )


def _missed_aim(name: str, profile: Profile) -> str:
    measured = profile.measured
    return "" if measured is None or measured.within_aim else f"{name}: {measured.verdict}"


def _require_known(option: str, asked: Collection[str], known: Collection[str], root: Path) -> None:
    if missing := [one for one in asked if one not in known]:
        there = listed(dict.fromkeys(known))
        raise UserError(f"{option}: no recorded run of {listed(missing)} in {root}; there is {there}")


def _name_and_load(folder: Path) -> tuple[str, float]:
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return str(facts["name"]), float(facts["load"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'run.json'} cannot be read: {error}") from None


def _note_older_names(folders: Sequence[Path], root: Path) -> None:
    """Say which engine settings recordings call by older names; they are read all the same."""
    older: set[str] = set()
    for folder in folders:
        rules = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("rules", {})
        older |= RENAMED_SETTINGS.keys() & rules.get("engine", {}).keys()
    if older:
        note(f"the recordings in {root}", older)


def _with_bar(results: Iterator[Any], total: int, visible: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import track

    return iter(track(results, "replaying", total, console=Console(stderr=True), transient=True, disable=not visible))
