"""A moment on a device's timeline: a CUDA event on a GPU, the wall clock on a CPU, behind one small interface."""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch

_cuda: Any = torch.cuda


class DeviceEvent(Protocol):
    """Everything that was queued before this was made has happened."""

    def passed(self) -> bool:
        """Whether it has come to pass; never waits."""
        ...

    def wait(self) -> None:
        """Let the calling thread wait for it."""
        ...

    def seconds_since(self, earlier: DeviceEvent) -> float:
        """Device seconds from ``earlier``; both have passed."""
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
    """A point in time: on a CPU what was asked for is done when the call returns."""

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
    """Now, on ``device``: on a GPU at the end of ``stream``, by default the current one."""
    return CudaEvent(stream) if device.type == "cuda" else CpuEvent()
