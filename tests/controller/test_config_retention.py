"""How long what is over is kept, as the configuration file says it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from controller.config import retention, settings
from controller.core import errors


def load(tmp_path: Path, text: str) -> retention.Retention:
    path = tmp_path / "controller.toml"
    path.write_text(text)
    return settings.load({}, {}, path).retention


def test_each_span_is_read_in_its_place_and_has_a_default(tmp_path: Path) -> None:
    assert load(tmp_path, "") == retention.USUAL
    text = '[retention]\nrollouts = "7d"\nrefusals = "48h"\nspans = "1d"\noutcomes = "730d"\n'
    days = (7, 2, 1, 730)
    assert load(tmp_path, text) == retention.Retention(*(timedelta(days=each) for each in days))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('rollouts = "23h"', "retention.rollouts"),
        ('refusals = "0d"', "retention.refusals"),
        ('spans = "3651d"', "retention.spans"),
        ("outcomes = 90", "retention.outcomes"),
        ('audit = "90d"', "retention.audit"),
    ],
)
def test_what_is_out_of_bounds_or_unknown_is_refused(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        load(tmp_path, f"[retention]\n{text}\n")
    assert refused.value.field == field
