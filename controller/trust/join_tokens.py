"""Join tokens: by one a node becomes known, once, ``instar1.ID.SECRET.SHA256``.

Rules kept: 256 bits of chance; the secret is never stored, only its hash; the last part is the hash of the authorities
that the controller's listener shows, so that a node knows its controller before it trusts anybody. Left out: that a
token is used once (`enrolment`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from controller.core import errors

PREFIX = "instar1"
SECRET_BYTES = 32  # 256 bits: past guessing
ID_BYTES = 8
LIFETIME_DEFAULT = timedelta(hours=1)
LIFETIME_MAX = timedelta(hours=1)  # as long as somebody may take to carry it from one machine to the next
LIFETIME_MIN = timedelta(seconds=1)
TOKEN_RULE = f"{PREFIX}.ID.SECRET.SHA256, as `instar node token` has made it"
_FORM = re.compile(rf"{PREFIX}\.([0-9a-f]{{16}})\.([A-Za-z0-9_-]{{43}})\.([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class Token:
    """A token, whole."""

    id: str
    secret: str
    authorities_hash: str

    @property
    def text(self) -> str:
        """As it is handed over."""
        return f"{PREFIX}.{self.id}.{self.secret}.{self.authorities_hash}"

    @property
    def secret_hash(self) -> str:
        """What is stored of the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def make(trusted: Sequence[x509.Certificate]) -> Token:
    """Make a token.

    Args:
        trusted: Authorities of the controller's listeners.
    """
    return Token(secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES), authorities_hash(trusted))


def parse(text: str) -> Token:
    """Read a token.

    Raises:
        UnauthenticatedError: It is none.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise refused("it is not of its form", "token_invalid")
    return Token(*found.groups())


def is_secret(token: Token, stored_hash: str) -> bool:
    """Tell whether a token has the secret; the time that it takes tells nothing."""
    return hmac.compare_digest(token.secret_hash, stored_hash)


def authorities_hash(trusted: Sequence[x509.Certificate]) -> str:
    """What a node checks the authorities of its controller by, whatever their order."""
    each = sorted(one.public_bytes(serialization.Encoding.DER) for one in trusted)
    return hashlib.sha256(b"".join(each)).hexdigest()


def refused(fault: str, code: str) -> errors.UnauthenticatedError:
    """Why a token lets nobody in; the token itself is not told."""
    return errors.UnauthenticatedError(
        f"cannot enrol the node: the join token lets nobody in: {fault}", code=code, field="token", rule=TOKEN_RULE
    )
