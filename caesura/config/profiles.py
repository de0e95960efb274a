"""Profiles by name or path, read so that a fault names its line."""

from __future__ import annotations

from pathlib import Path

from caesura.config import paths
from caesura.config.schema import ReplicaSection
from caesura.config.validation import validated
from caesura.config.yaml_source import read_yaml
from caesura.errors import UserError, did_you_mean
from sim.costs.profile import Profile

FILE = "profile.yaml"


def profile_names() -> list[str]:
    """Every profile that ships, sorted: paths below ``configs/profiles``."""
    root = paths.profiles()
    return sorted(file.parent.relative_to(root).as_posix() for file in root.rglob(FILE))


def read_profile(name: str, base: Path | None = None) -> Profile:
    """A shipped profile, or one in a file or folder of the user's, relative to ``base``.

    Raises:
        UserError: there is no such profile.
        ConfigError: the file does not hold what a profile must.
    """
    return validated(Profile, read_yaml(_profile_file(name, base or Path())))


def replica_profile(replica: ReplicaSection, base: Path) -> Profile:
    """The profile of a replica with the KV capacities that the experiment gives instead of its own.

    Raises:
        UserError: there is no such profile.
        ConfigError: the file does not hold what a profile must.
    """
    profile = read_profile(replica.profile, base)
    changes: dict[str, int] = {}
    if replica.kv_capacity is not None:
        changes["kv_capacity_tokens"] = replica.kv_capacity.in_tokens(profile.kv_bytes_per_token)
    if replica.host_capacity is not None:
        changes["host_capacity_tokens"] = replica.host_capacity.in_tokens(profile.kv_bytes_per_token)
    return profile.model_copy(update=changes)


def profile_reference(name: str, base: Path) -> str:
    """A name that means the same from every folder: a shipped profile's name, or an absolute path."""
    return name if (paths.profiles() / name / FILE).is_file() else str(_profile_file(name, base).resolve())


def _profile_file(name: str, base: Path) -> Path:
    shipped = paths.profiles() / name / FILE
    if shipped.is_file():
        return shipped
    own = (base / name).expanduser()
    if own.is_dir():
        own = own / FILE
    if own.is_file():
        return own
    known = profile_names()
    raise UserError(f"unknown profile {name!r}{did_you_mean(name, known)} (see `caesura profiles`; or name a file)")
