"""The raw samples on disk: one CSV table a kind, written point by point, so that a measurement can be cut and go on.

A row says how many rows its point has; a point with fewer was cut, and is measured again. ``provenance.json`` says what
the samples are of; samples of anything else are refused.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from profiler.measure.errors import CannotMeasure

FOLDER = "samples"
_PROVENANCE = "provenance.json"
_FACTS = "facts.json"


class Samples:
    """The samples below ``folder``, a profile folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._done: dict[str, set[str]] = {}

    @classmethod
    def begin(cls, folder: Path, provenance: Mapping[str, Any], fresh: bool = False) -> Samples:
        """Begin a measurement, or go on with one of the same provenance.

        Args:
            fresh: forget what is there.

        Raises:
            CannotMeasure: what is there was measured on something else.
        """
        samples = cls(folder)
        samples.folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            for file in samples.folder.iterdir():
                if file.suffix in {".csv", ".json"}:
                    file.unlink()
        file = samples.folder / _PROVENANCE
        mine = json.loads(json.dumps(provenance))
        if file.exists():
            theirs = json.loads(file.read_text(encoding="utf-8"))
            differ = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
            if differ:
                details = "; ".join(f"{key}: {theirs.get(key)} there, {mine.get(key)} here" for key in differ)
                raise CannotMeasure(
                    f"{samples.folder} holds samples of something else ({details}). "
                    "Name another folder, or start over with --fresh."
                )
        else:
            write_atomically(file, json.dumps(mine, indent=1) + "\n")
        return samples

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance of the samples.

        Raises:
            CannotMeasure: nothing was ever measured here.
        """
        file = self.folder / _PROVENANCE
        if not file.exists():
            raise CannotMeasure(f"there are no samples in {self.folder}")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that were found once and are no samples."""
        file = self.folder / _FACTS
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return found

    def note(self, **facts: Any) -> None:
        """Add to the facts."""
        write_atomically(self.folder / _FACTS, json.dumps({**self.facts, **facts}, indent=1) + "\n")

    def done(self, table: str) -> set[str]:
        """Names of the points that are complete."""
        if table not in self._done:
            self._done[table] = self._repair(table)
        return self._done[table]

    def append(self, table: str, point: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add the samples of one point and flush them to the disk. Numbers keep 7 digits."""
        assert point not in self.done(table), f"{point!r} is measured already"
        at = round(time.time(), 3)
        whole = [
            {"point": point, "repeat": index, "repeats": len(rows), "at_s": at, **row} for index, row in enumerate(rows)
        ]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(whole[0]), lineterminator="\n")
        file = self._file(table)
        if not file.exists():
            writer.writeheader()
        for row in whole:
            writer.writerow({key: _short(value) if key != "at_s" else value for key, value in row.items()})
        with file.open("a", encoding="utf-8") as sink:
            sink.write(text.getvalue())
            sink.flush()
            os.fsync(sink.fileno())
        self.done(table).add(point)

    def read(self, table: str) -> pd.DataFrame:
        """A table; empty if nothing of its kind was measured."""
        self.done(table)
        file = self._file(table)
        return pd.read_csv(file) if file.exists() else pd.DataFrame()

    def _repair(self, table: str) -> set[str]:
        """Drop what a cut run left half written."""
        file = self._file(table)
        if not file.exists():
            return set()
        text = file.read_text(encoding="utf-8")
        lines = text[: text.rfind("\n") + 1].splitlines()
        if not lines:
            file.unlink()
            return set()
        rows = list(csv.DictReader(lines))
        counts = Counter(row["point"] for row in rows)
        whole = {row["point"] for row in rows if counts[row["point"]] == int(row["repeats"])}
        kept = [lines[0], *(line for line, row in zip(lines[1:], rows, strict=True) if row["point"] in whole)]
        repaired = "\n".join(kept) + "\n"
        if repaired != text:
            write_atomically(file, repaired)
        return whole

    def _file(self, table: str) -> Path:
        return self.folder / f"{table}.csv"


def write_atomically(file: Path, text: str) -> None:
    """Write a file whole, or leave the old one."""
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)


def _short(value: Any) -> Any:
    return f"{value:.7g}" if isinstance(value, float) else value
