"""Where the YAML that ships with Caesura lies: inside the installed package, or at the root of the source tree."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def configs() -> Path:
    """The folder with ``systems/``, ``profiles/`` and ``experiments/``.

    Raises:
        FileNotFoundError: neither an installed copy nor a source tree is there.
    """
    for folder in (_PACKAGE / "_configs", _PACKAGE.parent / "configs"):
        if (folder / "systems").is_dir():
            return folder
    raise FileNotFoundError(f"the configuration files of Caesura are missing beside {_PACKAGE}; install it again")


def systems() -> Path:
    """The folder of the system presets, one YAML file each."""
    return configs() / "systems"


def profiles() -> Path:
    """The folder of the cost profiles; a profile's name is its path below this folder."""
    return configs() / "profiles"
