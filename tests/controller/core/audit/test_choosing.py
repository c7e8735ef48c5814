"""Which rows are wanted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controller.core.audit import chain, choosing
from tests.controller.core.audit import chains

ENTRY = chain.Entry(chains.NOW, "ann", "rollout.pause", "r-1", "lunch")
LATER = chains.NOW + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("wanted", "is_taken"),
    [
        (choosing.Wanted(), True),
        (choosing.Wanted(actor="ann", action="rollout.pause", subject="r-1", since=chains.NOW, until=LATER), True),
        (choosing.Wanted(action="rollout"), True),
        (choosing.Wanted(action="roll"), False),
        (choosing.Wanted(action="rollout.resume"), False),
        (choosing.Wanted(actor="an"), False),
        (choosing.Wanted(subject="r-"), False),
        (choosing.Wanted(since=LATER), False),
        (choosing.Wanted(until=chains.NOW), False),
    ],
)
def test_an_entry_is_wanted_where_all_that_is_asked_holds(wanted: choosing.Wanted, *, is_taken: bool) -> None:
    assert wanted.takes(ENTRY) is is_taken
