"""The progress of a measurement: a bar on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Report:
    """Tells on standard error how far the measurement is.

    Args:
        quiet: say nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._state = self._console.is_terminal and not quiet
        self._bar = Progress(*columns, console=self._console, disable=not self._state)
        self._begun = time.perf_counter()
        self._task: TaskID | None = None
        self._stage, self._total, self._done, self._left = "", 0, 0, ""

    @contextlib.contextmanager
    def shown(self) -> Iterator[Report]:
        """Show the bar while the block runs."""
        with self._bar:
            yield self

    def say(self, text: str) -> None:
        """A line that stays."""
        self._bar.console.print(
            f"[{time.perf_counter() - self._begun:5.0f} s] {text}", highlight=False, markup=False, soft_wrap=True
        )

    def stage(self, name: str, total: int) -> None:
        """A stage of ``total`` points begins."""
        self._stage, self._total, self._done = name, total, 0
        if self._state:
            self._task = self._bar.add_task(name, total=total, left="")
        elif total:
            self.say(f"{name}: {total} points")

    def advance(self, left_s: float | None = None) -> None:
        """A point is measured; ``left_s`` seconds of the budget are left."""
        self._done += 1
        left = "" if left_s is None else f"{max(left_s, 0):.0f} s of the budget left"
        if self._state and self._task is not None:
            self._bar.update(self._task, completed=self._done, left=left)
        elif self._done % max(1, self._total // 5) == 0 and self._total >= 50:
            self.say(f"  {self._done} of {self._total}{f', {left}' if left else ''}")
