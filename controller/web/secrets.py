"""How senders show who they are: a signature over what they send, or a token.

Rules kept here: both are compared in constant time; a secret is read anew for each request, so that a new one counts
from the next one on; a signature says when it was made, and is good for a short time only. What is signed is the
timestamp, a dot, the attributes of an event that travel as headers, and the body. Left out: replays within that time,
which are events that are known already.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from controller.config import fields
from controller.core import errors, secret

SIGNATURE = "x-instar-signature"
TIMESTAMP = "x-instar-timestamp"
AGE_MAX = timedelta(minutes=5)  # of a signature; clocks differ by less
SECRET_BYTES_MIN = 16  # 128 bits, past guessing
ATTRIBUTE = "ce-"  # what headers begin with that hold an attribute of a CloudEvent
_SCHEME = "sha256="
_BEARER = "bearer "


class Attempts(Protocol):
    """Where wrong secrets are counted, by the address that they come from."""

    def failed(self, peer: str) -> None:
        """Note that a wrong one came."""
        ...

    async def wait(self, peer: str) -> None:
        """Hold back what is to be done about a wrong one.

        Raises:
            ExhaustedError: Too many are held back already.
        """
        ...


def read(file: Path, field: str) -> secret.Secret[bytes]:
    """The secret in a file.

    Raises:
        InvalidRequestError: It cannot be read, or is too short.
    """
    try:
        found = file.read_bytes().strip()
    except OSError as fault:
        fields.refuse(field, file, f"a file that can be read ({fault.strerror})")
    if len(found) < SECRET_BYTES_MIN:
        fields.refuse(field, file, f"a file with a secret of at least {SECRET_BYTES_MIN} characters")
    return secret.Secret(found)


def sign(known: secret.Secret[bytes], timestamp: str, headers: Mapping[str, str], body: bytes) -> str:
    """The signature of a request, as the header has it."""
    attributes = sorted((name.lower(), value) for name, value in headers.items() if name.lower().startswith(ATTRIBUTE))
    signed = "".join([f"{timestamp}.", *(f"{name}:{value}\n" for name, value in attributes)])
    return _SCHEME + hmac.new(known.reveal(), signed.encode("latin-1") + body, hashlib.sha256).hexdigest()


def check_signature(known: secret.Secret[bytes], headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """See that who sends this knows the secret, and has sent it just now.

    Raises:
        UnauthenticatedError: The signature is another one, or the timestamp is not of now.
    """
    timestamp = headers.get(TIMESTAMP, "")
    wanted = sign(known, timestamp, headers, body)
    if not hmac.compare_digest(wanted.encode(), headers.get(SIGNATURE, "").encode("latin-1")):
        raise _unknown("signature_wrong", SIGNATURE, "the signature of timestamp, attributes and body by the secret")
    if not timestamp.isdecimal() or abs(_since(timestamp) - now) > AGE_MAX:
        rule = f"seconds since 1970, at most {AGE_MAX.total_seconds():.0f} s from now"
        raise _unknown("signature_old", TIMESTAMP, rule)


def check_token(token: secret.Secret[bytes], headers: Mapping[str, str]) -> None:
    """See that who sends this knows the token.

    Raises:
        UnauthenticatedError: It shows another one, or none.
    """
    shown = headers.get("authorization", "")
    is_bearer = shown[: len(_BEARER)].lower() == _BEARER
    said = shown[len(_BEARER) :].strip() if is_bearer else ""
    if token != secret.Secret(said.encode("latin-1")):
        raise _unknown("token_wrong", "authorization", "Bearer and the token")


def _since(timestamp: str) -> datetime:
    digits = timestamp[-len("9999999999") :]  # more of them is no time of ours, whatever stands before
    is_ours = len(timestamp) == len(digits)
    return datetime.fromtimestamp(int(digits) if is_ours else 0, UTC)


def _unknown(code: str, field: str, rule: str) -> errors.UnauthenticatedError:
    return errors.UnauthenticatedError(
        f"cannot let the sender in: {field} must be {rule}", code=code, field=field, rule=rule
    )
