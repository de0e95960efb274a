"""Split a real run's time into the device's and the host's, and hold both against a profile.

A replay's errors are those of all iterations and what queues make of them. Here every recorded iteration is held
against its costs by itself: no decision, no queue, and what came before it as it really was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from profiler.fit.host import cold_seconds
from profiler.fit.measurements import Floats
from profiler.serving.iterations import batches
from profiler.serving.recorded_run import RecordedRun
from sim.costs.cost_model import CostModel
from sim.costs.gpu_state import gpu_state_of
from sim.costs.profile import HostCost, LinearForward, PhysicalForward, Profile


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Seconds of an iteration, in the mean.

    The host's are those of iterations that waited for no copies: where they did, the copies hide its work.

    Attributes:
        iterations: how many there were.
        waited: share of them that waited for copies.
        whole_s: from the end of one to the end of the next, without idle time.
        device_s, host_s: as measured; what the device did not take, the host did.
        expected_device_s, expected_host_s: by the profile.
    """

    iterations: int
    waited: float
    whole_s: float
    device_s: float
    expected_device_s: float
    host_s: float
    expected_host_s: float


def split_time(run: RecordedRun, profile: Profile) -> TimeSplit | None:
    """Split the time of ``run`` and of its iterations by ``profile``; None if the iterations were not recorded."""
    rows = run.iterations
    if rows is None or rows.empty:
        return None
    device, host = expected(rows, profile)
    free = (rows["stalled"] == 0).to_numpy()
    real, whole = rows["device_s"].to_numpy(), rows["wall_s"].to_numpy()
    none = float("nan")
    return TimeSplit(
        iterations=len(rows),
        waited=float(1 - free.mean()),
        whole_s=float(whole.mean()),
        device_s=float(real.mean()),
        expected_device_s=float(device.mean()),
        host_s=float((whole - real)[free].mean()) if free.any() else none,
        expected_host_s=float(host[free].mean()) if free.any() else none,
    )


def as_it_was(profile: Profile, found: TimeSplit) -> Profile:
    """The profile with all seconds of the device, and all of the host, scaled to what they took in the run.

    What a replay with it still gets wrong is not the level of its costs. It predicts nothing: it has seen the run.
    """
    device = found.device_s / found.expected_device_s
    host = found.host_s / found.expected_host_s if found.expected_host_s > 0 else 1.0
    scaled = {"forward": _longer(profile.forward, device), "host": _longer(profile.host, host)}
    return profile.model_copy(update=scaled)


def _longer(costs: LinearForward | PhysicalForward | HostCost, factor: float) -> Any:
    """The costs with all their seconds ``factor`` times as long."""
    seconds = {name: value for name, value in costs if name.endswith("_s") and name != "cold_after_s"}
    return costs.model_copy(update={name: factor * value for name, value in seconds.items()})


def expected(rows: pd.DataFrame, profile: Profile) -> tuple[Floats, Floats]:
    """Seconds that the device and the host should have taken for each of the iterations, one after the other.

    As a replay would have it if everything before had happened as it did in reality. What copies beside a pass slow it
    by is not counted: the rows do not tell how long they ran.
    """
    worked, costs = profile.host, CostModel(profile)
    idle = CostModel(profile.model_copy(update={"host": HostCost()}))
    ended, wall = rows["ended_s"].to_numpy(), rows["wall_s"].to_numpy()
    began, computed = ended - wall, list(batches(rows))
    waited = np.diff(began, prepend=0.0)
    host = np.array([costs.host_time(batch) - idle.host_time(batch) for batch in computed])
    host += cold_seconds(worked, waited)
    state = gpu_state_of(costs)
    if state is None:
        device = np.array([idle.iteration_time(batch) for batch in computed])
    else:
        stalls = np.maximum(0.0, wall - rows["device_s"].to_numpy() - host) * rows["stalled"].to_numpy()
        device = -host
        for index, batch in enumerate(computed):
            device[index] += state.pass_times(batch, began[index], 1, stalls[index])[0]
            state.took(1, ended[index])
    host += worked.copies_out_s * rows["copies_out"].to_numpy() + worked.copies_in_s * rows["copies_in"].to_numpy()
    return device, host
