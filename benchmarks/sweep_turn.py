"""One sweep, or a share of one, in a process of its own: what ``benchmarks.sweep_efficiency`` compares.

It plans, says ``ready``, and begins when it is told to, so that two of them can begin at once. Then it prints a line of
JSON. What came before, the start of this process and the plan, is not timed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from caesura.cli.progress import Progress
from caesura.config.yaml_source import parse_yaml
from caesura.runs.executors.choose import executor
from caesura.runs.executors.executor import RunExecutor, RunOutcome
from caesura.runs.run import Run
from caesura.runs.simulate import RunError
from caesura.runs.sweep import SweepPlan, parse_over, plan_sweep, run_sweep

OVER = ("replica.kv_capacity=20000 tokens,30000 tokens,50000 tokens", "systems[*].engine.max_running=16,32,64,128")


@dataclass(frozen=True)
class Turn:
    """What a sweep took, seconds.

    Attributes:
        wall_s: by the clock.
        cpu_s: of this process and those that it started.
        runs_s: by the clock, from each run's begin to its last simulated event, added up.
        begins, ends: of each run, since the sweep began.
    """

    wall_s: float
    cpu_s: float
    runs_s: float
    begins: list[float]
    ends: list[float]


class Timed:
    """An executor that notes when each run began and ended."""

    def __init__(self, where: RunExecutor) -> None:
        self._where = where
        self.seconds: list[float] = []
        self.ends: list[float] = []

    def outcomes(self, runs: Sequence[Run], shares: Progress) -> Generator[tuple[int, RunOutcome]]:
        """As ``RunExecutor.outcomes``."""
        with contextlib.closing(self._where.outcomes(runs, shares)) as outcomes:
            for index, outcome in outcomes:
                assert not isinstance(outcome, RunError), outcome
                self.ends.append(time.perf_counter())
                self.seconds.append(json.loads(outcome["provenance.json"])["wall_s"])
                yield index, outcome

    def keeping_workers(self) -> contextlib.AbstractContextManager[None]:
        """As ``RunExecutor.keeping_workers``."""
        return self._where.keeping_workers()


def experiment(seconds: float, seeds: int) -> str:
    """An experiment file of which ``OVER`` makes 72 runs a seed, each of ``seconds`` of arrivals."""
    return (
        f"workload: {{trace: infercept-mix, arrivals: {{poisson: {{rate: [2, 3]}}}}, duration: {seconds:g} s}}\n"
        f"systems: [vllm, swap, infercept]\nseeds: {seeds}\n"
    )


def planned(seconds: float, seeds: int, base: Path) -> SweepPlan:
    """The sweep of the comparison."""
    source = parse_yaml(experiment(seconds, seeds), "x.yaml")
    return plan_sweep(source, "x", base, [parse_over(text) for text in OVER])


def take(plan: SweepPlan, out: Path, jobs: int) -> Turn:
    """Carry the sweep out."""
    timed = Timed(executor("local", jobs))
    cpu, begin = cpu_seconds(), time.perf_counter()
    run_sweep(plan, out, timed, progress=False)
    wall = time.perf_counter() - begin
    ends = [end - begin for end in timed.ends]
    begins = [end - seconds for end, seconds in zip(ends, timed.seconds, strict=True)]
    return Turn(wall, cpu_seconds() - cpu, sum(timed.seconds), sorted(begins), sorted(ends))


def cpu_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="of arrivals, of each run")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="take one run in so many")
    parser.add_argument("--first", type=int, default=0, help="the first of these")
    options = parser.parse_args()
    plan = planned(options.seconds, options.seeds, options.out.parent)
    plan = replace(plan, rows=plan.rows[options.first :: options.every])
    print("ready", flush=True)
    input()
    print(json.dumps(asdict(take(plan, options.out, options.jobs))))


if __name__ == "__main__":
    main()
