"""Results as JSON can say them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def json_safe(data: Any) -> Any:
    """A copy in dicts and lists; None for numbers that are not finite."""
    if isinstance(data, Mapping):
        return {key: json_safe(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [json_safe(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
