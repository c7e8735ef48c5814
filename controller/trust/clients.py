"""Certificates of people and services that use the API, as three files of one folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from controller.trust import authorities, certificates, private_files, spiffe

AUTHORITY_NAME, CERTIFICATE_NAME, KEY_NAME = "ca.pem", "client.pem", "client.key"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, and what its holder trusts, as PEM."""

    identity: spiffe.Identity
    certificate: str
    key: str
    trusted: str
    expires_at: datetime

    def write(self, folder: Path) -> None:
        """Put all of it into files that only their owner reads."""
        private_files.write(folder / AUTHORITY_NAME, self.trusted)
        private_files.write(folder / CERTIFICATE_NAME, self.certificate)
        private_files.write(folder / KEY_NAME, self.key)


def remove(folder: Path) -> None:
    """Take the files away, where they are there."""
    for name in (CERTIFICATE_NAME, KEY_NAME, AUTHORITY_NAME):
        (folder / name).unlink(missing_ok=True)


def issue(known: authorities.Authorities, name: str, days: int, now: datetime) -> Issued:
    """Issue a certificate.

    Args:
        known: All authorities.
        name: Of the person or service, as the audit log names it.
        days: For which it is valid.
        now: From when on.

    Raises:
        InvalidRequestError: The name cannot be one.
    """
    identity, key = spiffe.identity(known.domain, spiffe.Kind.CLIENT, name), certificates.make_key()
    holder = certificates.Holder(identity, timedelta(days=days))
    issuer = known.signing(authorities.Kind.CLIENTS)
    certificate = certificates.issue_holder(issuer, holder, key.public_key(), now)
    return Issued(
        identity=identity,
        certificate=certificate,
        key=certificates.key_pem(key),
        trusted=known.bundle(authorities.Kind.SERVERS),
        expires_at=certificates.read(certificate).not_valid_after_utc,
    )
