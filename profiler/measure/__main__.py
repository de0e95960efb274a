"""``python -m profiler.measure``: see ``profiler.cli``."""

from __future__ import annotations

from profiler.cli import main

raise SystemExit(main())
