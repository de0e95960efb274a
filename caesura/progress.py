"""A progress bar over simulated sessions, fed by every process of a sweep through one small shared file."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_REFRESH_S = 0.2


class Shares:
    """The share (0 to 1) of each run that is done, in a file that the processes of a sweep map into memory."""

    def __init__(self, file: Path, weights: list[float]) -> None:
        self.file = file
        self.weights = np.array(weights) / sum(weights)
        self.done = np.memmap(file, dtype=np.float64, mode="w+", shape=(len(weights),))

    def total(self) -> float:
        """Share of the whole sweep, runs weighted by their expected work."""
        return float(self.weights @ self.done)

    def complete(self) -> int:
        """How many runs are done."""
        return int((self.done >= 1).sum())


def reporter(file: Path, index: int) -> Callable[[float], None]:
    """What run ``index`` calls with its share; usable in another process than the one that shows the bar."""
    shares = np.memmap(file, dtype=np.float64, mode="r+")

    def report(share: float) -> None:
        shares[index] = min(share, 0.999)

    return report


@contextlib.contextmanager
def sweep_progress(title: str, weights: list[float], visible: bool | None = None) -> Iterator[Shares]:
    """Show a bar while the block runs, on a terminal's standard error; elsewhere only keep the shares."""
    console = Console(stderr=True)
    shown = sys.stderr.isatty() if visible is None else visible
    with tempfile.TemporaryDirectory(prefix="caesura-") as folder:
        shares = Shares(Path(folder) / "shares", weights)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[runs]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
            task = bar.add_task(title, total=1.0, runs="")
            over = threading.Event()

            def follow() -> None:
                while not over.wait(_REFRESH_S):
                    runs = f"{shares.complete()}/{len(weights)} runs"
                    bar.update(task, completed=shares.total(), runs=runs)

            thread = threading.Thread(target=follow, daemon=True)
            thread.start()
            try:
                yield shares
            finally:
                over.set()
                thread.join()
