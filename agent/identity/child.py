"""Key work, in a child that ends at once: keys, requests, signatures, and what is wrong with a certificate.

Rules kept: keys are made here and never leave the host; the file of the identity is replaced whole and durably; what a
controller sent is believed only where it is for the key and the node that it was asked for. Left out: talking to the
controller (`agent.link.enrolment`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid

from agent import durability, identity

CONNECT_SECONDS = 10.0
RECOVERY_CONTEXT = "instar recovery"
_Answer = Mapping[str, object]


def begin(asked: Mapping[str, str]) -> _Answer:
    """Fetch the authorities that a controller shows, take them only where they are the token's, and ask for a key."""
    shown = _shown(asked["address"])[1:]
    if hashlib.sha256(b"".join(sorted(shown))).hexdigest() != asked["hash"]:
        raise ValueError("the controller there is not the one that made the token: its authorities are others")
    trusted = "".join(_pem(x509.load_der_x509_certificate(each)) for each in shown)
    return {"authorities": trusted, **request(asked)}


def request(asked: Mapping[str, str]) -> _Answer:
    """Make a key, where one is not waiting already for its certificate, and a request for it."""
    return {"certificate_request": _request(_next_key(Path(asked["folder"])))}


def sign(asked: Mapping[str, str]) -> _Answer:
    """Sign a challenge with the key of the certificate that ran out, and with it a request for a new key."""
    known = json.loads((Path(asked["folder"]) / identity.FILE_NAME).read_text("utf-8"))
    text = _request(_next_key(Path(asked["folder"])))
    said = (RECOVERY_CONTEXT, known["node_id"], asked["challenge"], text)
    signature = _key(known["key"]).sign(b"".join(f"{each}\0".encode() for each in said), ec.ECDSA(hashes.SHA256()))
    return {"certificate_request": text, "signature": base64.b64encode(signature).decode()}


def install(asked: Mapping[str, str]) -> _Answer:
    """Take a certificate into use: it must be for the waiting key, and for this node."""
    where = Path(asked["folder"])
    key, certificate = _next_key(where), x509.load_pem_x509_certificate(asked["certificate"].encode())
    if certificate.public_key() != key.public_key():
        raise ValueError("the certificate is not for the key that it was asked for")
    names = _names(certificate)
    if len(names) != 1 or not names[0].endswith(f"/agent/{asked['node_id']}"):
        raise ValueError(f"the certificate is for {', '.join(names) or 'nobody'}, not for node {asked['node_id']}")
    serials = certificate.subject.get_attributes_for_oid(oid.NameOID.SERIAL_NUMBER)
    document = {
        "node_id": asked["node_id"],
        "name": names[0],
        "serial": int(str(serials[0].value)) if serials else 0,
        "issued_at": _now().isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "enrol_address": asked["enrol_address"],
        "certificate": asked["certificate"],
        "key": _key_pem(key),
        "authorities": asked["authorities"],
    }
    durability.replace_file(where / identity.FILE_NAME, json.dumps(document).encode())
    (where / identity.NEXT_KEY_NAME).unlink(missing_ok=True)
    return {key: document[key] for key in ("name", "serial", "not_after")}


def look(asked: Mapping[str, str]) -> _Answer:
    """Say what is wrong between this node and a controller: which certificate, which time, which name."""
    known = json.loads((Path(asked["folder"]) / identity.FILE_NAME).read_text("utf-8"))
    certificate = x509.load_pem_x509_certificate(known["certificate"].encode())
    return {"own": _own(certificate), "controller": _theirs(asked["address"], known)}


def _shown(address: str) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the hash decides, not the handshake
    context.set_alpn_protocols(["h2"])
    host, port = _host_and_port(address)
    with (
        socket.create_connection((host, port), CONNECT_SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=host) as secured,
    ):
        return _chain(secured)


def _own(certificate: x509.Certificate) -> str:
    now = _now()
    name = ", ".join(_names(certificate)) or "nobody"
    if now >= certificate.not_valid_after_utc:
        return f"the certificate of {name} ran out at {certificate.not_valid_after_utc}; this host says it is {now}"
    if now < certificate.not_valid_before_utc:
        return f"the certificate of {name} is good from {certificate.not_valid_before_utc} on; this host says {now}"
    return ""


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  # a disposable child; the clock of this host is what it looks at


def _theirs(address: str, known: Mapping[str, str]) -> str:
    context = ssl.create_default_context(cadata=known["authorities"])
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    with os.fdopen(os.memfd_create("identity"), "w") as file:
        file.write(known["key"] + known["certificate"])
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    host, port = _host_and_port(address)
    try:
        with (
            socket.create_connection((host, port), CONNECT_SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=host) as secured,
        ):
            is_taken = bool(secured.recv(1))  # what it thinks of our certificate comes after the handshake
    except ssl.SSLCertVerificationError as error:
        return f"the certificate that {address} shows cannot be believed: {error.verify_message}"
    except ssl.SSLError as error:
        return f"{address} does not take the certificate of this node: {error.reason or error}"
    except OSError as error:
        return f"{address} cannot be reached by TLS 1.3: {error}"
    return "" if is_taken else f"{address} ends the connection: it does not believe the certificate of this node"


def _chain(secured: ssl.SSLSocket) -> list[bytes]:
    """What the other side has shown, unverified: Python says it openly since 3.13, and inwardly since 3.10."""
    if hasattr(secured, "get_unverified_chain"):
        return list(secured.get_unverified_chain())
    inner = secured._sslobj  # type: ignore[attr-defined]  # noqa: SLF001  # as the docstring says
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in inner.get_unverified_chain()]


def _next_key(where: Path) -> ec.EllipticCurvePrivateKey:
    """The key that waits for its certificate; the same until it has one, so that a lost answer can be had again."""
    path = where / identity.NEXT_KEY_NAME
    if not path.exists():
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        durability.replace_file(path, _key_pem(ec.generate_private_key(ec.SECP256R1())).encode())
    return _key(path.read_text("ascii"))


def _key(text: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(text.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the key is not of P-256")
    return key


def _request(key: ec.EllipticCurvePrivateKey) -> str:
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.UniformResourceIdentifier)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


VERBS: Mapping[str, Callable[[Mapping[str, str]], _Answer]] = {
    "begin": begin,
    "request": request,
    "sign": sign,
    "install": install,
    "look": look,
}
