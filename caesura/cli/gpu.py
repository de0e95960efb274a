"""Access to the real backend: one line names what is missing for it, and how to get it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from caesura.errors import UserError
from traces.extras import install

if TYPE_CHECKING:
    import torch

    from profiler.backend.model_config import ModelConfig
    from profiler.fit.findings import Findings

WITHOUT_GPU = "; `caesura validate --recorded` replays recorded runs without one"
_INSTALL = {
    "torch": f"for a CPU {install('torch')}, for a GPU {install('gpu')}",
    "flashinfer": install("gpu"),
}


def find_device(name: str, otherwise: str = "") -> torch.device:
    """The device called ``name``, with all that the backend needs to run there.

    Args:
        otherwise: what to do without that device, for the message.

    Raises:
        UserError: torch or FlashInfer is not installed, or there is no such device.
    """
    _require_package("torch")
    from profiler.measure import machine
    from profiler.measure.errors import CannotMeasure

    try:
        device = machine.find_device(name)
    except (CannotMeasure, RuntimeError) as error:  # torch's own for a name that it cannot read
        fault = str(error) if isinstance(error, CannotMeasure) else f"there is no device {name!r}; write cuda or cpu"
        raise UserError(f"{fault}{otherwise}") from None
    if device.type == "cuda":
        _require_package("flashinfer")
    return device


def require_idle(device: torch.device) -> None:
    """Check that no other process uses the GPU. A process that holds memory there has checked before.

    Raises:
        UserError: another process does.
    """
    import torch

    from profiler.measure import machine
    from profiler.measure.errors import CannotMeasure

    if device.type == "cuda" and torch.cuda.memory_reserved(device):
        return
    try:
        machine.require_idle(device)
    except CannotMeasure as error:
        raise UserError(str(error)) from None


def read_model(name: str) -> ModelConfig:
    """The shape of a model: a name in ``configs/models``, a YAML file or a Hugging Face folder.

    Raises:
        UserError: there is none, or the backend does not run it.
        ConfigError: a file that does not hold, naming line and key.
    """
    from caesura.config.validation import validated
    from caesura.config.yaml_source import read_yaml
    from profiler.backend.model_config import ModelConfig, UnknownModel, load_model_config

    file = Path(name)
    if file.suffix in (".yaml", ".yml") and file.is_file():
        return validated(ModelConfig, read_yaml(file))
    try:
        return load_model_config(name)
    except UnknownModel as error:
        raise UserError(str(error)) from None


def measure_profile(
    model: str | None,
    out: Path,
    *,
    device: str,
    budget_s: float,
    memory_fraction: float,
    fresh: bool = False,
    refit: bool = False,
    quiet: bool = False,
) -> Findings:
    """Measure or refit a profile, with errors as messages: see ``profiler.cli.profile``.

    Raises:
        UserError: nothing can be measured here, or not enough was.
    """
    _require_package("torch")
    from profiler.backend.model_config import UnknownModel
    from profiler.cli import profile
    from profiler.fit.forward import NotEnoughPoints
    from profiler.measure.errors import CannotMeasure

    if not refit and model is not None:
        read_model(model)
        find_device(device)
    try:
        return profile(
            model, out, device=device, budget_s=budget_s, memory_fraction=memory_fraction,
            fresh=fresh, refit=refit, quiet=quiet,
        )  # fmt: skip
    except NotEnoughPoints as error:
        raise UserError(f"{error}; the same command goes on measuring where this one stopped") from None
    except (CannotMeasure, UnknownModel) as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{error.filename or out} cannot be read or written: {error.strerror or error}") from None


def _require_package(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise UserError(f"{name} is not installed, and the real backend needs it: {_INSTALL[name]}")
