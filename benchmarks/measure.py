"""One measurement in a process of its own, so that its memory and its caches are its own.

python -m benchmarks.measure a --share 0.1     # a line of JSON
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass

from benchmarks.cases import Case, case
from benchmarks.peak import peak_bytes
from caesura.config.profiles import read_profile
from caesura.config.systems import load_preset
from policies.registry import make_order, make_policy
from policies.routers import RoundRobin
from sim.world.cluster import simulate_cluster
from sim.world.simulate import ReplicaSpec


@dataclass(frozen=True)
class Measured:
    """What a run took and what it simulated.

    Seconds are the process's own CPU time, beside that of a fixed loop run after it; memory is the process's peak.
    """

    case: str
    leap: bool
    share: float
    cpu_s: float
    yardstick_s: float
    sessions: int
    calls: int
    iterations: int
    events: int
    simulated_s: float
    peak_bytes: int

    @property
    def calls_per_cpu_s(self) -> float:
        """Model calls simulated per CPU second."""
        return self.calls / self.cpu_s


def measure(what: Case, leap: bool, share: float) -> Measured:
    """Run a case once. Making a list of sessions is not timed; drawing them during the run is."""
    system = load_preset(what.system)
    spec = ReplicaSpec(
        read_profile(what.profile),
        system.engine,
        lambda: make_policy(system.policy),
        lambda: make_order(system.order),
    )
    sessions = what.workload(share) if what.replicas == 1 else what.shared(share).stream()
    begin = time.process_time()
    record = simulate_cluster(sessions, specs=[spec] * what.replicas, router=RoundRobin(), leap=leap)
    seconds = time.process_time() - begin
    return Measured(
        case=what.name,
        leap=leap,
        share=share,
        cpu_s=seconds,
        yardstick_s=yardstick_s(),
        sessions=len(record.sessions["id"]),
        calls=len(record.calls["call"]),
        iterations=int(record.totals["iterations"]),
        events=int(record.totals["events"]),
        simulated_s=record.totals["end_time"],
        peak_bytes=peak_bytes(),
    )


def yardstick_s() -> float:
    """CPU seconds of a loop that is always the same: how fast this machine is just now, beside all else it does."""
    begin = time.process_time()
    counts: dict[int, float] = {}
    for index in range(1_000_000):
        counts[index % 1009] = counts.get(index % 1013, 0.0) + index * 0.5
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--step", action="store_true", help="iteration by iteration, without leaps")
    options = parser.parse_args()
    print(json.dumps(asdict(measure(case(options.case), not options.step, options.share))))


if __name__ == "__main__":
    main()
