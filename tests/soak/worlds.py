"""The properties of the simulator over many more random worlds than the suite draws, for a bounded number of worlds.

    python -m tests.soak.worlds --worlds 100000 --seed 1
    python -m tests.soak.worlds --worlds 2000 --seed 7 --only leap

One process; rounds go over all properties until so many worlds have been checked, with fresh worlds in each. A
failure does not end the run: it is counted by where it happened, and the first of each kind is made smaller and shown.
Exit code 1 if there was any. Ctrl-C prints what was found so far. The same seed draws the same worlds.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from hypothesis import seed as seeded

from tests.drawn_examples import pin

PER_ROUND = 100  # worlds of a property in one round
MODULES = (
    "tests.sim.engine.test_invariants",
    "tests.sim.engine.test_leap",
    "tests.sim.engine.test_short_cuts",
    "tests.sim.engine.test_policy_costs",
    "tests.sim.engine.test_swapping",
    "tests.sim.kv.test_prefix_sharing",
    "tests.sim.world.test_cluster",
)
ROOT = Path(__file__).parents[2]


@dataclass
class Property:
    """A property test, told to note failures instead of raising them.

    Attributes:
        name: ``module.test``.
        checked: worlds looked at.
        seconds: wall time they took.
        failures: how many worlds failed, by kind.
    """

    name: str
    test: Any
    checked: int = 0
    seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._inner: Callable[..., None] = self.test.hypothesis.inner_test

    def check(self, seed: int) -> list[str]:
        """Check a round of worlds. Returns the kinds of failure that were not known before."""
        known = set(self.failures)

        def noting(*args: Any, **drawn: Any) -> None:
            self.checked += 1
            try:
                self._inner(*args, **drawn)
            except Exception as error:
                self.failures[kind_of(error)] += 1

        started = time.monotonic()
        self._run(noting, seed)
        self.seconds += time.monotonic() - started
        gc.collect()  # a run looks for garbage among its own objects alone
        return [kind for kind in self.failures if kind not in known]

    def minimal(self, kind: str, seed: int) -> str:
        """The smallest world that fails in this way, as hypothesis finds it from the same seed."""

        def raising(*args: Any, **drawn: Any) -> None:
            try:
                self._inner(*args, **drawn)
            except Exception as error:
                if kind_of(error) == kind:
                    raise

        try:
            self._run(raising, seed)
        except Exception as error:
            return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
        return "did not happen again"

    def _run(self, inner: Callable[..., None], seed: int) -> None:
        self.test.hypothesis.inner_test = inner
        try:
            seeded(seed)(self.test)()
        finally:
            self.test.hypothesis.inner_test = self._inner


def kind_of(error: Exception) -> str:
    """Failures are of one kind if they are raised at the same line."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(str(ROOT))]
    places = [f"{Path(one.filename).relative_to(ROOT)}:{one.lineno}" for one in frames if one.filename != __file__]
    return f"{type(error).__name__} at {' < '.join(places[::-1][:2])}"


def properties(only: str) -> Iterator[Property]:
    """The property tests of the simulator that need no arguments but drawn ones."""
    for module in map(import_module, MODULES):
        for name, test in vars(module).items():
            full = f"{module.__name__.rpartition('.')[2]}.{name}"
            if name.startswith("test_") and hasattr(test, "hypothesis") and only in full:
                yield Property(full, test)


def soak(found: list[Property], worlds: int, seed: int) -> None:
    """Rounds over all properties until ``worlds`` worlds have been checked."""
    started, turn = time.monotonic(), 0
    while sum(one.checked for one in found) < worlds:
        for one in found:
            for kind in one.check(seed + turn):
                print(f"\n== {one.name}: {kind}\n{one.minimal(kind, seed + turn)}\n", flush=True)
        turn += 1
        checked, failed = sum(one.checked for one in found), sum(one.failures.total() for one in found)
        print(f"{checked} worlds in {time.monotonic() - started:.0f} s, {failed} failures", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=10_000, help="worlds to check in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round adds 1")
    parser.add_argument("--only", default="", help="properties whose module or name contains this")
    options = parser.parse_args()
    os.environ["CAESURA_EXAMPLES"] = str(PER_ROUND)  # read when the tests' worlds are imported: fresh, and minimised
    pin()
    found = list(properties(options.only))
    try:
        soak(found, options.worlds, options.seed)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    for one in found:
        print(f"{one.checked:7d} worlds {one.seconds:7.0f} s  {one.name}")
        for kind, count in one.failures.most_common():
            print(f"        {count} x {kind}")
    return int(any(one.failures for one in found))


if __name__ == "__main__":
    sys.exit(main())
