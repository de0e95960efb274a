"""Progress over simulated sessions, a bar or lines, fed by every process of a sweep through one small shared file."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

_REFRESH_S = 0.2
_BETWEEN_LINES_S = 10.0


class Progress:
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
def sweep_progress(title: str, weights: list[float], visible: bool | None = None) -> Iterator[Progress]:
    """Show a bar while the block runs, on a terminal's standard error; elsewhere a plain line now and then.

    ``visible``: always a bar, or nothing at all.
    """
    terminal = sys.stderr.isatty() if visible is None else visible
    with tempfile.TemporaryDirectory(prefix="caesura-") as folder:
        shares = Progress(Path(folder) / "shares", weights)
        over = threading.Event()
        with _bar(title, shares, terminal) as follow:
            lines = Lines(title, len(weights), sys.stderr) if visible is None and not terminal else None

            def watch() -> None:
                while not over.wait(_REFRESH_S):
                    follow()
                    if lines is not None:
                        lines.tell(shares.total(), shares.complete(), time.monotonic())

            thread = threading.Thread(target=watch, daemon=True)
            thread.start()
            try:
                yield shares
            finally:
                over.set()
                thread.join()


@contextlib.contextmanager
def _bar(title: str, shares: Progress, shown: bool) -> Iterator[Callable[[], None]]:
    """A bar; what is yielded brings it up to date. Workers show no bar and do not load the library that draws it."""
    if not shown:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f} % of the work, {task.fields[runs]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0, runs=f"0 of {len(shares.weights)} runs")
        yield lambda: bar.update(
            task, completed=shares.total(), runs=f"{shares.complete()} of {len(shares.weights)} runs"
        )


class Lines:
    """Progress as lines: one for every tenth of the work that is done, and none within ten seconds of the last.

    The longest runs are done first, so the work is ahead of the runs.

    Args:
        title: what is being done.
        runs: how many runs that is.
        stream: where the lines go.
        begin: when it began, by ``time.monotonic``; now if left out.
    """

    def __init__(self, title: str, runs: int, stream: TextIO, begin: float | None = None) -> None:
        self._title, self._runs, self._stream = title, runs, stream
        self._begin = self._last = time.monotonic() if begin is None else begin
        self._tenths = 0

    def tell(self, share: float, complete: int, now: float) -> None:
        """``share`` of the work and ``complete`` runs are done at ``now``."""
        tenths = int(share * 10 + 1e-9)
        if tenths > self._tenths and now - self._last >= _BETWEEN_LINES_S:
            self._tenths, self._last = tenths, now
            done = f"{complete} of {self._runs} runs, {share * 100:.0f} % of the work, {now - self._begin:.0f} s"
            print(f"caesura: {self._title}: {done}", file=self._stream, flush=True)
