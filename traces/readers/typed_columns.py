"""Blocks of plain CSV made typed columns at once by pyarrow; whatever is not plain is left to the careful way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Type = Literal["int64", "double", "string"]

NOT_PLAIN = (b'"', b"\r", b"x", b"X")
"""Quotes, other line ends, and what numbers that only pyarrow takes (0x1F) would begin with."""


def typed_columns(block: bytes, width: int, types: Mapping[int, Type]) -> dict[int, Any] | None:
    """Columns of whole lines as numpy arrays, texts as objects, each row on a line of its own.

    Args:
        block: the lines.
        width: how many values a row has.
        types: of the columns that are wanted, by their places.

    Returns:
        The wanted columns by place; None where a line is blank, of another width, or does not hold such values, or
        where this cannot be told without a closer look.
    """
    if not block.isascii() or any(mark in block for mark in NOT_PLAIN):
        return None
    import pyarrow as pa
    from pyarrow import csv

    names = [str(place) for place in range(width)]
    wanted = {names[place]: getattr(pa, "float64" if type == "double" else type)() for place, type in types.items()}
    try:
        table = csv.read_csv(
            pa.py_buffer(block),
            csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
            csv.ParseOptions(quote_char=False),
            csv.ConvertOptions(
                check_utf8=False, column_types=wanted, null_values=[], include_columns=list(wanted) or names[:1]
            ),
        )
    except pa.ArrowInvalid:
        return None
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    if table.num_rows != lines:
        return None
    return {place: table.column(names[place]).to_numpy() for place in types}
