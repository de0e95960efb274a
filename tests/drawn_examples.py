"""Property tests draw the same examples whether they run alone, in their folder or in the whole suite.

Hypothesis draws some values from the numbers and words in the code of all local modules that are imported when a test
runs, so other tests in the same process change what it draws. By default it also draws anew in every run, and begins
with what failed before. After ``pin`` the examples of a test depend on the test alone; where a test allows it,
``CAESURA_EXAMPLES=5000 pytest ...`` still draws fresh ones (see ``tests.sim.random_worlds.examples``).
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants


def pin() -> None:
    """Draw no constants from imported modules, and the same examples in every run."""
    providers.HypothesisProvider._local_constants = Constants()  # type: ignore[assignment]
    settings.register_profile("pinned", derandomize=True)
    settings.load_profile("pinned")
