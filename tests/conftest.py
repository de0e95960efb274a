"""What holds for every test: property tests draw the same examples wherever they run."""

from __future__ import annotations

from tests.drawn_examples import pin

pin()
