"""The packages that are installed beside ``caesura`` are found there, whatever lies in the current folder.

Python looks in the current folder first, for ``python -m caesura`` as for a notebook. A folder of the user's that is
called ``policies`` or ``traces`` would stand in for the package of that name.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

NAMES = ("profiler", "sim", "policies", "traces")
_ROOT = Path(__file__).resolve().parents[1]


class _OwnPackages:
    """Finds the packages of ``NAMES`` beside ``caesura``; leaves every other module to the finders behind it."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        folder = _ROOT / name
        if name not in NAMES or not (folder / "__init__.py").is_file():
            return None
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


def protect() -> None:
    """Let the packages of ``NAMES`` be found beside ``caesura`` before anywhere else.

    Raises:
        ImportError: another module of such a name is imported already.
    """
    for name in NAMES:
        module = sys.modules.get(name)
        if module is not None and (found := _place(module)) != _ROOT / name:
            raise ImportError(
                f"caesura needs its own package {name!r}, but {name!r} was imported from {found or 'elsewhere'} "
                "before; import caesura first, or rename the other"
            )
    if _OwnPackages not in sys.meta_path:
        sys.meta_path.insert(0, _OwnPackages)


def _place(module: ModuleType) -> Path | None:
    """The folder of a package, or the file of a module; None where it has neither."""
    places = [*getattr(module, "__path__", ()), *filter(None, [getattr(module, "__file__", None)])]
    return Path(places[0]).resolve() if places else None
