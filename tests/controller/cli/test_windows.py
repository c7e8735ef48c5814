"""Windows as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controller.cli import failures, windows

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "days", "opens", "length", "zone"),
    [
        ("22:00+4h", [], 22 * HOUR, 4 * HOUR, ""),
        ("mon-fri 22:30+30m Europe/Berlin", [1, 2, 3, 4, 5], 22.5 * HOUR, HOUR / 2, "Europe/Berlin"),
        ("sat-mon 0:00+24h", [1, 6, 7], timedelta(), 24 * HOUR, ""),
        ("mon,wed-thu 09:05+1.5h Etc/GMT+3", [1, 3, 4], 9 * HOUR + timedelta(minutes=5), 1.5 * HOUR, "Etc/GMT+3"),
        (" sun  23:59+1h  UTC ", [7], 24 * HOUR - timedelta(minutes=1), HOUR, "UTC"),
    ],
)
def test_a_window_has_days_an_opening_a_length_and_a_zone(
    text: str, days: list[int], opens: timedelta, length: timedelta, zone: str
) -> None:
    found = windows.parse("--window", text)
    assert (list(found.days), found.time_zone) == (days, zone)
    assert (found.opens.ToTimedelta(), found.duration.ToTimedelta()) == (opens, length)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22:00",
        "22+4h",
        "24:00+1h",
        "22:60+1h",
        "22:00+4",
        "22:00+4w",
        "mo 22:00+4h",
        "mon- 22:00+4h",
        "22:00+4h a b",
    ],
)
def test_what_is_no_window_is_refused_by_the_name_of_the_option(text: str) -> None:
    with pytest.raises(failures.CommandError, match="--window") as caught:
        windows.parse("--window", text)
    assert caught.value.exit_code is failures.Exit.USAGE
