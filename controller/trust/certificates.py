"""Certificates: of authorities, of the controller's listeners, of agents and of users of the API.

Rules kept: P-256 throughout; what stands in a certificate is the issuer's word alone, of a request only the public key
is taken, after its proof of possession; each certificate is for one side of a connection; none outlives its issuer;
time is an argument. Left out: where keys lie (`authorities`), who gets a certificate (`enrolment`).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import exceptions, x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid

from controller.core import errors
from controller.trust import spiffe

AUTHORITY_LIFETIME = timedelta(days=3650)
AGENT_LIFETIME = timedelta(hours=24)
SERVER_LIFETIME = timedelta(hours=24)
CLIENT_LIFETIME = timedelta(days=30)
CLOCK_SKEW = timedelta(minutes=5)  # a peer whose clock is so far behind still takes a new certificate
REQUEST_BYTES_MAX = 4096  # a request with a P-256 key has some 400
REQUEST_RULE = f"a PEM certificate request with a P-256 key, signed with it, at most {REQUEST_BYTES_MAX} bytes"
_SERIAL = re.compile(r"[1-9][0-9]{0,17}")
_CLIENT, _SERVER = oid.ExtendedKeyUsageOID.CLIENT_AUTH, oid.ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True, slots=True)
class Issuer:
    """An authority that signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a certificate is for.

    Args:
        serial: How many certificates the holder has had, this one included; 0 where nobody counts.
    """

    identity: spiffe.Identity
    lifetime: timedelta
    serial: int = 0


def make_key() -> ec.EllipticCurvePrivateKey:
    """Make a key."""
    return ec.generate_private_key(ec.SECP256R1())


def make_authority(name: str, domain: str, now: datetime) -> Issuer:
    """Make an authority that signs certificates of holders, and no other authority's."""
    key = make_key()  # which has its part in the name: of two authorities that are trusted at a time each has its own
    subject = x509.Name(
        [x509.NameAttribute(oid.NameOID.COMMON_NAME, f"instar {name} {key_hash(key.public_key())[:8]}")]
    )
    builder = _dated(x509.CertificateBuilder(), now, now + AUTHORITY_LIFETIME)
    builder = builder.subject_name(subject).issuer_name(subject).public_key(key.public_key())
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(is_authority=True), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{domain}")]), False),
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return Issuer(builder.sign(key, hashes.SHA256()), key)


def issue_holder(issuer: Issuer, holder: Holder, public_key: ec.EllipticCurvePublicKey, now: datetime) -> str:
    """Issue a certificate of an agent or a user of the API; PEM."""
    attributes = [x509.NameAttribute(oid.NameOID.ORGANIZATIONAL_UNIT_NAME, holder.identity.kind.value)]
    if holder.serial:
        attributes.append(x509.NameAttribute(oid.NameOID.SERIAL_NUMBER, str(holder.serial)))
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(holder.identity.uri)])
    return pem(_issue(issuer, (x509.Name(attributes), names, _CLIENT), public_key, (now, holder.lifetime)))


def issue_server(
    issuer: Issuer, names: Sequence[str], public_key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.Certificate:
    """Issue a certificate of the controller's listeners.

    Args:
        issuer: Of the servers.
        names: Host names and addresses by which it is reached.
        public_key: Of the listener.
        now: Which it is.
    """
    subject = x509.Name([x509.NameAttribute(oid.NameOID.ORGANIZATIONAL_UNIT_NAME, "controller")])
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    return _issue(issuer, (subject, alternatives, _SERVER), public_key, (now, SERVER_LIFETIME))


def read_request(text: str) -> ec.EllipticCurvePublicKey:
    """Read the public key of a request; whatever else it says counts for nothing.

    Raises:
        InvalidRequestError: It is no such request, or not signed with the key.
    """
    try:
        if len(text) > REQUEST_BYTES_MAX:
            raise ValueError(len(text))  # noqa: TRY301  # the one place that says what is wrong is below
        request = x509.load_pem_x509_csr(text.encode())
        key = request.public_key()
        is_good = isinstance(key, ec.EllipticCurvePublicKey) and request.is_signature_valid
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm) as fault:
        raise _invalid_request() from fault
    if not is_good or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != ec.SECP256R1.name:
        raise _invalid_request()
    return key


def read(text: str) -> x509.Certificate:
    """Read a certificate that this program has written."""
    return x509.load_pem_x509_certificate(text.encode())


def key_hash(key: ec.EllipticCurvePublicKey) -> str:
    """What tells one public key from another."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def key_hash_of(certificate: x509.Certificate) -> str:
    """The same of the key that a certificate is for; empty where it is no P-256 key."""
    key = certificate.public_key()
    return key_hash(key) if isinstance(key, ec.EllipticCurvePublicKey) else ""


def serial_of(certificate: x509.Certificate) -> int:
    """How many certificates the holder had had, this one included; 0 where nobody counted."""
    found = [str(each.value) for each in certificate.subject.get_attributes_for_oid(oid.NameOID.SERIAL_NUMBER)]
    return int(found[0]) if len(found) == 1 and _SERIAL.fullmatch(found[0]) else 0


def issued_at(certificate: x509.Certificate) -> datetime:
    """When this program issued a certificate: it is valid from somewhat earlier, for clocks that are behind."""
    return certificate.not_valid_before_utc + CLOCK_SKEW


def pem(certificate: x509.Certificate) -> str:
    """A certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """A private key as text, not encrypted: its file is its owner's alone."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def _issue(
    issuer: Issuer,
    said: tuple[x509.Name, x509.SubjectAlternativeName, x509.ObjectIdentifier],
    public_key: ec.EllipticCurvePublicKey,
    span: tuple[datetime, timedelta],
) -> x509.Certificate:
    subject, names, purpose = said
    now, lifetime = span
    until = min(now + lifetime, issuer.certificate.not_valid_after_utc)
    builder = _dated(x509.CertificateBuilder(), now, until)
    builder = builder.subject_name(subject).issuer_name(issuer.certificate.subject).public_key(public_key)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(is_authority=False), True),
        (x509.ExtendedKeyUsage([purpose]), False),
        (names, False),
        (issuer_id, False),
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(issuer.key, hashes.SHA256())


def _dated(builder: x509.CertificateBuilder, now: datetime, until: datetime) -> x509.CertificateBuilder:
    begin = now.astimezone(UTC) - CLOCK_SKEW
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(until)


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _invalid_request() -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot issue a certificate: the request must be {REQUEST_RULE}",
        code="request_invalid",
        field="certificate_request",
        rule=REQUEST_RULE,
    )
