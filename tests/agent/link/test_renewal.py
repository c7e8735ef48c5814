"""When a node asks for its next certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agent import identity
from agent.link import renewal

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(("draw", "hours"), [(0.0, 10.8), (0.5, 12.0), (0.999999, 13.2)])
def test_a_certificate_of_a_day_is_renewed_after_half_of_it_more_or_less(draw: float, hours: float) -> None:
    known = identity.Identity(
        node_id="n-1",
        name="spiffe://fleet/agent/n-1",
        serial=1,
        issued_at=NOW,
        not_after=NOW + timedelta(hours=24),
        enrol_address="127.0.0.1:1",
        certificate="",
        key="",
        authorities="",
    )
    assert (renewal.due(known, draw) - NOW) / timedelta(hours=1) == pytest.approx(hours, abs=0.01)
