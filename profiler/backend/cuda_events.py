"""Events on a device's timeline: CUDA events on a GPU, the wall clock on a CPU, behind one small interface."""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch

_cuda: Any = torch.cuda


class DeviceEvent(Protocol):
    """A point on a device's timeline. It has passed once all work that was queued before it is done."""

    def passed(self) -> bool:
        """Whether the event has passed. Never waits."""
        ...

    def wait(self) -> None:
        """Block the calling thread until the event has passed."""
        ...

    def seconds_since(self, earlier: DeviceEvent) -> float:
        """Device seconds since ``earlier``. Both events have passed."""
        ...


class CudaEvent:
    """A point in a CUDA stream."""

    __slots__ = ("event",)

    def __init__(self, stream: torch.cuda.Stream | None = None, timed: bool = True) -> None:
        self.event: Any = _cuda.Event(enable_timing=timed)
        self.event.record(stream or torch.cuda.current_stream())

    def passed(self) -> bool:
        return bool(self.event.query())

    def wait(self) -> None:
        self.event.synchronize()

    def seconds_since(self, earlier: DeviceEvent) -> float:
        assert isinstance(earlier, CudaEvent)
        return float(earlier.event.elapsed_time(self.event)) / 1e3


class CpuEvent:
    """The wall time at which it was made: on a CPU, work is done when its call returns."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def passed(self) -> bool:
        return True

    def wait(self) -> None:
        return

    def seconds_since(self, earlier: DeviceEvent) -> float:
        assert isinstance(earlier, CpuEvent)
        return self.at - earlier.at


def record_event(device: torch.device, stream: torch.cuda.Stream | None = None) -> DeviceEvent:
    """Record an event on ``device``; on a GPU at the end of ``stream``, by default the current one."""
    return CudaEvent(stream) if device.type == "cuda" else CpuEvent()
