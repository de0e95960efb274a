"""Quantities as people write them."""

from __future__ import annotations

import pytest

from caesura.config.units import Capacity, format_seconds, parse_capacity, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (600, 600.0),
        (0.5, 0.5),
        ("600", 600.0),
        ("600 s", 600.0),
        ("5 min", 300.0),
        ("1h", 3600.0),
        ("100 ms", 0.1),
        ("250us", 0.00025),
        ("1e3 s", 1000.0),
        (" 1_000 s ", 1000.0),
        (".5 s", 0.5),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "5 weeks", "five s", "1,5 s", True, None, [1], "nan", float("nan"), "1e999 s"]
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="write a number of seconds or, for example, '600 s'"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "capacity"),
    [
        ("24 GB", Capacity(bytes=24_000_000_000)),
        ("24 GiB", Capacity(bytes=25_769_803_776)),
        ("1.5MiB", Capacity(bytes=1_572_864)),
        ("50000 tokens", Capacity(tokens=50_000)),
        ("5e4 tokens", Capacity(tokens=50_000)),
    ],
)
def test_capacities(text: str, capacity: Capacity) -> None:
    assert parse_capacity(text) == capacity
    assert parse_capacity(str(capacity)) == capacity


@pytest.mark.parametrize("text", [24, "24", "24 Gb", "24 s", "-1 GB", "0 tokens", "many GB", None, True])
def test_what_is_no_capacity(text: object) -> None:
    with pytest.raises(ValueError, match="write, for example, '24 GB'"):
        parse_capacity(text)


def test_a_capacity_holds_whole_tokens() -> None:
    """1 MiB at 458,752 bytes a token is 2.29 tokens."""
    assert Capacity(bytes=2**20).in_tokens(458_752) == 2
    assert Capacity(tokens=7).in_tokens(458_752) == 7


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.1, "100 ms"), (4.5, "4.5 s"), (90, "90 s"), (600, "10 min"), (0, "0 s")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
