"""What the listeners show, as time goes on and files change under them: by a clock of the test's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from controller import clock
from controller.trust import authorities, certificates, listening

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
MOMENT = timedelta(seconds=1)
K = authorities.Kind


class Clock(clock.SystemClock):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def time() -> Clock:
    return Clock()


@pytest.fixture
def own(tmp_path: Path, time: Clock) -> listening.Listening:
    authorities.create(tmp_path, "fleet", NOW)
    return listening.Listening(tmp_path, ["127.0.0.1"], time)


def test_a_certificate_is_shown_for_half_its_life_and_then_another_with_another_key(
    own: listening.Listening, time: Clock
) -> None:
    first = own.shown()
    time.at += certificates.SERVER_LIFETIME / 2 - MOMENT
    assert own.shown() is first
    time.at += MOMENT
    second = own.shown()
    assert second.key != first.key
    assert certificates.read(second.chain).not_valid_after_utc == time.at + certificates.SERVER_LIFETIME
    assert own.shown() is second


@pytest.mark.parametrize("kind", K)
def test_a_change_of_any_authority_is_seen_once(
    own: listening.Listening, tmp_path: Path, kind: authorities.Kind
) -> None:
    first = own.shown()
    changed = authorities.begin_rotation(tmp_path, kind, NOW)
    second = own.shown()
    assert second is not first
    assert second.known.trusted(kind) == changed.trusted(kind)
    assert own.shown() is second


def test_who_calls_may_show_a_certificate_of_agents_or_clients_and_of_nobody_else(
    own: listening.Listening, tmp_path: Path
) -> None:
    authorities.begin_rotation(tmp_path, K.CLIENTS, NOW)
    shown = own.shown()
    trusted = x509.load_pem_x509_certificates(shown.callers.encode())
    assert trusted == [*shown.known.trusted(K.AGENTS), *shown.known.trusted(K.CLIENTS)]


def test_files_that_cannot_be_read_leave_what_was_shown_until_they_can(
    own: listening.Listening, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, file = own.shown(), tmp_path / "servers.json"
    good = file.read_text()
    file.write_text("{")
    assert own.shown() is first
    assert "cannot renew the certificate of the listeners" in caplog.text
    file.write_text(good)
    assert own.shown() is not first
