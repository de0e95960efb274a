"""The device: what it is, whether it is free, and how fast its clocks run."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from profiler.measure.errors import CannotMeasure

IDLE_MEMORY_BYTES = 2 << 30
"""What a driver and this process's own context may take of an idle GPU."""
IDLE_UTILISATION = 5
"""Per cent of the time in which a kernel may run, by nvidia-smi, on an idle GPU."""
IDLE_TRIES = 4
CLOCKS = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")
Ask = Callable[[Sequence[str]], str | None]


def nvidia_smi(arguments: Sequence[str]) -> str | None:
    """The answer of nvidia-smi; None without it, or if it fails."""
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        answer = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return answer.stdout.strip()


def find_device(name: str) -> torch.device:
    """``cuda``, ``cuda:1``, ``cpu``.

    Raises:
        CannotMeasure: it is not there.
    """
    device = torch.device(name)
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise CannotMeasure(f"the backend runs on cuda and cpu, not on {name!r}")
    if not torch.cuda.is_available():
        raise CannotMeasure(
            "torch sees no CUDA GPU here. Run this on the machine with the GPU, with a torch that was built for CUDA; "
            "to rehearse without one: --device cpu --model tiny"
        )
    if (device.index or 0) >= torch.cuda.device_count():
        raise CannotMeasure(f"there is no {name}; torch sees {torch.cuda.device_count()} GPU(s)")
    return torch.device("cuda", device.index or 0)


def require_idle(device: torch.device, ask: Ask = nvidia_smi) -> None:
    """Require an idle GPU. Call it before anything is allocated there.

    Raises:
        CannotMeasure: another process uses it; the message names the process.
    """
    if device.type != "cuda":
        return
    others = other_processes(ask([_which(device), "--query-compute-apps=pid,process_name,used_memory", *_CSV]))
    if others:
        raise CannotMeasure(f"the GPU is busy: {'; '.join(others)}. Measure on an idle GPU.")
    busy: str | None = None
    for _ in range(IDLE_TRIES):  # nvidia-smi still reports what ended a second ago
        free, total = torch.cuda.mem_get_info(device)
        busy = refusal_for(total - free, utilisation(ask([_which(device), "--query-gpu=utilization.gpu", *_CSV])))
        if busy is None:
            return
        time.sleep(1.0)
    raise CannotMeasure(str(busy))


def other_processes(answer: str | None) -> list[str]:
    """Compute processes in nvidia-smi's answer that are not this one."""
    lines = [[part.strip() for part in line.split(",")] for line in (answer or "").splitlines() if "," in line]
    return [f"process {line[0]} ({line[1]}, {line[-1]} MiB)" for line in lines if line[0] != str(os.getpid())]


def utilisation(answer: str | None) -> float:
    """Per cent; 0 where nvidia-smi does not know."""
    try:
        return float((answer or "0").split()[0])
    except (ValueError, IndexError):
        return 0.0


def refusal_for(used_bytes: float, utilised: float) -> str | None:
    """Why a GPU with so much memory in use, and so busy, is not free; None if it is."""
    if used_bytes > IDLE_MEMORY_BYTES:
        return (
            f"the GPU is busy: {used_bytes / 1e9:.1f} GB of its memory are in use before the measurement begins. "
            "End what holds them."
        )
    if utilised > IDLE_UTILISATION:
        return f"the GPU is busy: kernels ran {utilised:.0f} % of the last moments. Wait until it is idle."
    return None


def describe(device: torch.device, ask: Ask = nvidia_smi) -> dict[str, str]:
    """The machine that figures depend on: device, the card by the beginning of its UUID, driver, versions."""
    facts = {"python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        driver = ask([_which(device), "--query-gpu=driver_version", *_CSV])
        facts |= {
            "gpu": properties.name,
            "card": str(properties.uuid)[:8],
            "memory": f"{properties.total_memory / 1e9:.1f} GB",
            "driver": driver.split()[0] if driver else "unknown",
            "cuda": str(torch.version.cuda),
            "flashinfer": _version("flashinfer-python"),
        }
    else:
        facts |= {"gpu": f"CPU {_processor()}", "threads": str(torch.get_num_threads())}
    return facts


class ClockReader:
    """Reads clocks while work goes on: nvidia-smi begins now, and its answer is fetched when the work is done."""

    def __init__(self, device: torch.device) -> None:
        self._process: subprocess.Popen[str] | None = None
        if device.type == "cuda" and shutil.which("nvidia-smi"):
            command = ["nvidia-smi", _which(device), f"--query-gpu={','.join(CLOCKS)}", *_CSV]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def running(self) -> bool:
        """Whether the answer is still to come."""
        return self._process is not None and self._process.poll() is None

    def read(self) -> dict[str, float]:
        """MHz, degrees Celsius and watts by nvidia-smi's names; empty where it does not answer."""
        if self._process is None:
            return {}
        try:
            answer, _ = self._process.communicate(timeout=20)
            values = [float(part.split()[0]) for part in answer.strip().split(",")]
        except (subprocess.SubprocessError, ValueError, IndexError):
            self._process.kill()
            return {}
        return dict(zip(CLOCKS, values, strict=False))


_CSV = ("--format=csv,noheader,nounits",)


def _which(device: torch.device) -> str:
    """nvidia-smi's option for this GPU: by its UUID, since its own numbers may follow another order than CUDA's."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return f"--id=GPU-{uuid}" if uuid is not None else f"--id={device.index or 0}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        module = sys.modules.get(package.split("-")[0])
        return str(getattr(module, "__version__", "none"))


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
