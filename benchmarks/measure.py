"""One measurement in a process of its own, so that its memory and its caches are its own.

python -m benchmarks.measure a --share 0.1     # a line of JSON
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.cases import Case, case
from caesura.profiles import read_profile
from caesura.systems import load_preset
from policies.registry import make_order, make_policy
from sim.recorder import RunRecord
from sim.run import simulate
from traces.session import Session


@dataclass(frozen=True)
class Measured:
    """What a run took and what it simulated. Seconds are the process's own CPU time; memory is the process's peak."""

    case: str
    leap: bool
    share: float
    cpu_s: float
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
    system, profile = load_preset(what.system), read_profile(what.profile)

    def run(sessions: Iterable[Session]) -> RunRecord:
        return simulate(
            sessions,
            policy=make_policy(system.policy),
            order=make_order(system.order),
            settings=system.engine,
            profile=profile,
            leap=leap,
        )

    if what.replicas == 1:
        workload = what.workload(share)
        begin = time.process_time()
        records = [run(workload)]
    else:
        part = what.shared(share)
        begin = time.process_time()
        records = [run(part.stream(replica)) for replica in range(what.replicas)]
    seconds = time.process_time() - begin
    return Measured(
        case=what.name,
        leap=leap,
        share=share,
        cpu_s=seconds,
        sessions=sum(len(record.sessions["id"]) for record in records),
        calls=sum(len(record.calls["call"]) for record in records),
        iterations=int(sum(record.totals["iterations"] for record in records)),
        events=int(sum(record.totals["events"] for record in records)),
        simulated_s=max(record.totals["end_time"] for record in records),
        peak_bytes=peak_bytes(),
    )


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the process that started this one had
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--step", action="store_true", help="iteration by iteration, without leaps")
    options = parser.parse_args()
    print(json.dumps(asdict(measure(case(options.case), not options.step, options.share))))


if __name__ == "__main__":
    main()
