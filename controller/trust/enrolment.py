"""Who gets a certificate: decided on what is stored, and nothing else; the caller stores what comes of it.

Rules kept: a token is good for one key, and the same key gets the same answer again; a certificate is renewed by the
key of the latest alone, so that of two holders of one key the second is found out; the one before is good for nothing
but asking again; the name comes from the token or the row, never from the request; time is an argument. Left out:
transactions and audit (`controller.engine.enrolling`).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import exceptions, x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from controller.core import errors, model
from controller.trust import certificates, join_tokens, spiffe

RECOVERY_CONTEXT = "instar recovery"
CHALLENGE_LIFETIME = timedelta(minutes=1)
CLONED = "its certificate was used after it had been renewed: two hosts have one key"
_ENROL = "a node that is known by its certificate; `instar node token` makes a join token for it"


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms certificates are given.

    Args:
        lifetime: Of a certificate.
        recoveries: So often a node may come back by itself once its certificate has run out.
    """

    issuer: certificates.Issuer
    domain: str
    lifetime: timedelta
    recoveries: int
    now: datetime


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a node shows whose certificate has run out."""

    challenge: str
    request: str
    signature: bytes


class CloneError(errors.RefusedError):
    """A key was used that has been replaced: another host has it too."""


def enrol(
    stored: model.JoinToken | None,
    shown: join_tokens.Token,
    known: model.NodeIdentity | None,
    key: ec.EllipticCurvePublicKey,
    terms: Terms,
) -> tuple[model.JoinToken, model.NodeIdentity]:
    """Take a node in by a token; the same again where it is taken in already.

    Raises:
        UnauthenticatedError: The token lets nobody in, or not this key.
    """
    if stored is None or not join_tokens.is_secret(shown, stored.secret_hash):
        raise join_tokens.refused("nobody has made it, or it is long over", "token_unknown")
    key_hash = certificates.key_hash(key)
    if stored.key_hash:
        if known is None or not hmac.compare_digest(stored.key_hash, key_hash) or known.key_hash != key_hash:
            raise join_tokens.refused("it has been used, with another key", "token_used")
        return stored, known
    if terms.now >= stored.expires_at:
        raise join_tokens.refused(f"it ran out at {stored.expires_at.isoformat(timespec='seconds')}", "token_expired")
    before = known or model.NodeIdentity(stored.node_id, 0, "", "")
    fresh = replace(before, key_hash="", certificate="", locked_because="", recoveries_left=terms.recoveries)
    made = _issued(fresh, key, terms)
    return replace(stored, key_hash=key_hash, certificate=made.certificate), made


def renew(
    known: model.NodeIdentity | None, shown_key_hash: str, key: ec.EllipticCurvePublicKey, terms: Terms
) -> model.NodeIdentity:
    """Give a node its next certificate; the same again where its answer was lost.

    Raises:
        CloneError: What it shows was replaced by a key that is not the one it asks for.
        RefusedError: The node is not known, or locked.
    """
    found = vouch(known, shown_key_hash)
    key_hash = certificates.key_hash(key)
    if found.key_hash == key_hash:  # whoever has the latest certificate, or has asked for it, gets it again
        return found
    if found.key_hash != shown_key_hash:
        raise _clone(found.node_id)
    return _issued(found, key, terms)


def vouch(known: model.NodeIdentity | None, shown_key_hash: str) -> model.NodeIdentity:
    """See that a node shows its latest certificate, or the one before.

    Raises:
        CloneError: It shows an older one.
        RefusedError: The node is not known, or locked.
    """
    found = _unlocked(known)
    if shown_key_hash not in {found.key_hash, found.previous_key_hash} - {""}:
        raise _clone(found.node_id)
    return found


def adopt(
    known: model.NodeIdentity | None, node_id: model.NodeId, shown: x509.Certificate, terms: Terms
) -> model.NodeIdentity | None:
    """Take up a certificate that was given out in a time of which the store, put back from a copy, knows nothing.

    It counts for what it is where its number is higher than that of the latest that is known: a double of a key that
    was replaced has a lower one. That it was given out shows that nobody had locked the node out then.

    Returns:
        What is known of the node from now on; None where the certificate is no news.
    """
    serial = certificates.serial_of(shown)
    if serial <= (0 if known is None else known.serial):
        return None
    before = known or model.NodeIdentity(node_id, 0, "", "", recoveries_left=terms.recoveries)
    is_next = serial == before.serial + 1
    return replace(
        before,
        serial=serial,
        key_hash=certificates.key_hash_of(shown),
        certificate=certificates.pem(shown),
        previous_key_hash=before.key_hash if is_next else "",
        previous_certificate=before.certificate if is_next else "",
        locked_because="",
    )


def recover(
    known: model.NodeIdentity | None, shown: Recovery, key: ec.EllipticCurvePublicKey, terms: Terms
) -> model.NodeIdentity:
    """Give a node a new certificate whose last has run out; the same again where its answer was lost.

    Raises:
        UnauthenticatedError: The signature is not of its key.
        RefusedError: The node is not known, locked, has a good certificate, or has come back too often.
    """
    found = _unlocked(known)
    said = message(found.node_id, shown.challenge, shown.request)
    if certificates.key_hash(key) == found.key_hash and _is_signed(found.previous_certificate, said, shown.signature):
        return found
    if not _is_signed(found.certificate, said, shown.signature):
        raise errors.UnauthenticatedError(
            f"cannot recover node {found.node_id}: the signature is not of the key of its latest certificate",
            code="signature_wrong",
            field="signature",
            rule="by the key of the latest certificate",
        )
    if certificates.read(found.certificate).not_valid_after_utc > terms.now:
        raise _refused(
            found.node_id, "certificate_valid", "its certificate is still good", "a certificate that ran out"
        )
    if found.recoveries_left == 0:
        raise _refused(
            found.node_id,
            "recoveries_spent",
            "it has come back by itself as often as it may",
            "an operator's word: `instar node recover`, or a join token",
        )
    return replace(_issued(found, key, terms), recoveries_left=found.recoveries_left - 1)


def lock(known: model.NodeIdentity, reason: str) -> model.NodeIdentity:
    """Let a node have no certificate and open no stream, until it comes in by a token again."""
    return replace(known, locked_because=known.locked_because or reason)


def message(node_id: str, challenge: str, request: str) -> bytes:
    """What a node signs to come back."""
    return b"".join(f"{each}\0".encode() for each in (RECOVERY_CONTEXT, node_id, challenge, request))


class Challenges:
    """What nodes sign: nothing is kept of it, so that asking for many costs nothing.

    Args:
        secret: Of this life of the controller.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, node_id: str, now: datetime) -> str:
        """Make one."""
        until = int((now + CHALLENGE_LIFETIME).timestamp())
        return f"{until}.{self._seal(node_id, until)}"

    def check(self, node_id: str, challenge: str, now: datetime) -> None:
        """See that a challenge is one of ours, for this node, and not over.

        Raises:
            UnauthenticatedError: It is not.
        """
        until, _, seal = challenge.partition(".")
        seconds = int(until) if until.isascii() and until.isdecimal() and len(until) < 12 else 0  # noqa: PLR2004  # years
        if not hmac.compare_digest(seal, self._seal(node_id, seconds)) or now.timestamp() > seconds:
            raise errors.UnauthenticatedError(
                f"cannot recover node {node_id!r}: the challenge is not of this controller, or is over",
                code="challenge_wrong",
                field="challenge",
                rule=f"what BeginRecovery has answered, within {CHALLENGE_LIFETIME}",
            )

    def _seal(self, node_id: str, until: int) -> str:
        return hmac.new(self._secret, f"{until}\0{node_id}".encode(), "sha256").hexdigest()


def _issued(before: model.NodeIdentity, key: ec.EllipticCurvePublicKey, terms: Terms) -> model.NodeIdentity:
    serial = before.serial + 1
    holder = certificates.Holder(
        spiffe.identity(terms.domain, spiffe.Kind.AGENT, before.node_id), terms.lifetime, serial
    )
    return replace(
        before,
        serial=serial,
        key_hash=certificates.key_hash(key),
        certificate=certificates.issue_holder(terms.issuer, holder, key, terms.now),
        previous_key_hash=before.key_hash,
        previous_certificate=before.certificate,
    )


def _unlocked(known: model.NodeIdentity | None) -> model.NodeIdentity:
    if known is None:
        raise errors.RefusedError(
            "cannot let the node in: it is not known, or was removed",
            code="identity_unknown",
            field="node_id",
            rule=_ENROL,
        )
    if known.locked_because:
        raise _refused(known.node_id, "identity_locked", known.locked_because, _ENROL)
    return known


def _is_signed(certificate: str, said: bytes, signature: bytes) -> bool:
    key = certificates.read(certificate).public_key() if certificate else None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, said, ec.ECDSA(hashes.SHA256()))
    except exceptions.InvalidSignature:
        return False
    return True


def _clone(node_id: model.NodeId) -> CloneError:
    return CloneError(
        f"cannot let node {node_id} in: {CLONED}", code="identity_cloned", field="node_id", value=node_id, rule=_ENROL
    )


def _refused(node_id: model.NodeId, code: str, fault: str, rule: str) -> errors.RefusedError:
    return errors.RefusedError(
        f"cannot let node {node_id} in: {fault}; what it takes: {rule}",
        code=code,
        field="node_id",
        value=node_id,
        rule=rule,
    )
