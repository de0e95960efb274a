"""The folder of one run: written whole or not at all, and read back as data frames.

``config.yaml`` (an experiment file that repeats the run), ``provenance.json`` (versions, hashes, seed, wall time),
``sessions.parquet``, ``calls.parquet``, ``timeline.parquet``, ``replicas.parquet`` and ``summary.json``. All but the
provenance is the same to the last byte for the same configuration and seed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from caesura.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("sessions", "calls", "timeline", "replicas")
_UNFINISHED = ".unfinished-"
Files = dict[str, bytes]
"""The content of each file of a run, by its name."""


def encode_run(
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    summary: Mapping[str, Any],
    sessions: Mapping[str, Any],
    calls: Mapping[str, Any],
    timeline: Mapping[str, Any],
    replicas: Mapping[str, Any],
) -> Files:
    """The files of a run as bytes, so that one process can simulate and another one write."""
    files: Files = {}
    for name, columns in zip(TABLES, (sessions, calls, timeline, replicas), strict=True):
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table(dict(columns)), buffer, compression="zstd")
        files[f"{name}.parquet"] = buffer.getvalue().to_pybytes()
    files["config.yaml"] = yaml.safe_dump(dict(config), sort_keys=False).encode()
    files["provenance.json"] = json_text(provenance).encode()
    files["summary.json"] = json_text(summary).encode()
    return files


def write_run(folder: Path, files: Files) -> None:
    """Write a run under a name of its own first, then give it its name in one step.

    Raises:
        UserError: the folder cannot be written.
    """
    with errors_named(folder):
        draft = folder.with_name(f"{_UNFINISHED}{os.getpid()}-{folder.name}")
        draft.mkdir(parents=True)
        try:
            for name, data in files.items():
                (draft / name).write_bytes(data)
            if folder.exists() and not is_complete(folder):
                shutil.rmtree(folder)
            if not folder.exists():
                draft.rename(folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        shutil.rmtree(draft, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a finished run: it gets its name only once everything is in it."""
    return (folder / "summary.json").is_file()


def clear_unfinished(parent: Path) -> None:
    """Remove half-written files of processes that have ended."""
    for draft in parent.glob(f"{_UNFINISHED}*"):
        pid = draft.name.removeprefix(_UNFINISHED).partition("-")[0]
        if not (pid.isdigit() and _alive(int(pid))):
            shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a run; raises UserError when it is not there or damaged."""
    return read_json(folder / "summary.json")


def read_provenance(folder: Path) -> dict[str, Any]:
    """Versions, hashes and facts of a run; raises UserError when they are not there or damaged."""
    return read_json(folder / "provenance.json")


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """One of the tables of a run: ``sessions``, ``calls``, ``timeline`` or ``replicas``."""
    import pandas as pd

    file = folder / f"{name}.parquet"
    try:
        return pd.read_parquet(file.absolute())
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def write_file(file: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file beside ``file``, then put it in its place in one step.

    Raises:
        UserError: the folder cannot be written.
    """
    with errors_named(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        # absolute: Arrow takes a relative name with a colon for an address
        draft = file.absolute().with_name(f"{_UNFINISHED}{os.getpid()}-{file.name}")
        try:
            write(draft)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)


def write_bytes(file: Path, data: bytes) -> None:
    """Write a file in one step; raises UserError when the folder cannot be written."""

    def write(draft: Path) -> None:
        draft.write_bytes(data)

    write_file(file, write)


@contextlib.contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one that says what could not be written, and why."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; choose another folder with --out"
        ) from None


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Write plain data as JSON; raises ValueError for numbers that JSON does not have."""
    file.write_text(json_text(data), encoding="utf-8")


def json_text(data: Mapping[str, Any]) -> str:
    """Plain data as indented JSON; raises ValueError for numbers that JSON does not have."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def read_json(file: Path) -> dict[str, Any]:
    """A mapping from a JSON file; raises UserError when it is not there or damaged."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing; this is no folder of a run") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{file} holds no mapping")
    return data
