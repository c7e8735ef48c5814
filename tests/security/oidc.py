"""An issuer of tokens for tests: real keys, published by a real server over https on loopback."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import server
from pathlib import Path
from typing import Any

import jwt
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "instar"
ISSUER = "https://id.example"
PATH = "/keys"


@dataclass
class Issuer:
    """Keys, and what is published of them."""

    ec_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    rsa_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    published: list[str] = field(default_factory=lambda: ["ec", "rsa"])
    body: bytes | None = None
    status: int = 200
    has_moved: bool = False
    goes_on: bytes = b""  # after what is published, for ever
    pause_seconds: float = 0.0  # before each time
    more: Mapping[str, object] = field(default_factory=dict)  # that each key says
    asked: int = 0

    def jwks(self) -> bytes:
        """What is published."""
        if self.body is not None:
            return self.body
        made = {
            "ec": jwt.algorithms.ECAlgorithm.to_jwk(self.ec_key.public_key(), as_dict=True) | {"kid": "ec"},
            "rsa": jwt.algorithms.RSAAlgorithm.to_jwk(self.rsa_key.public_key(), as_dict=True) | {"kid": "rsa"},
        }
        return json.dumps({"keys": [made[name] | dict(self.more) for name in self.published]}).encode()

    def token(self, headers: Mapping[str, object] | None = None, **changes: object) -> str:
        """A token that is good, but for what is changed; None leaves a claim out."""
        told = claims() | changes
        kept = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(kept, self.ec_key, "ES256", headers={"kid": "ec"} | dict(headers or {}))

    def rsa_public_pem(self) -> bytes:
        return self.rsa_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def claims() -> dict[str, Any]:
    """What a good token says now."""
    now = int(time.time())  # noqa: TID251  # an issuer has its own clock
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "iat": now,
        "nbf": now,
        "exp": now + 600,
        "realm": {"groups": ["sre", "staff"]},
    }


@contextlib.contextmanager
def publishing(issuer: Issuer, folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve the keys; where, and the certificates to check it against."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = folder / "issuer-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))

    class Keys(server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            body = issuer.jwks()
            if issuer.has_moved and self.path == PATH:
                self.send_response(302)
                self.send_header("location", f"{PATH}/there")
            else:
                self.send_response(issuer.status)
            if not issuer.goes_on:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)
                while issuer.goes_on:
                    time.sleep(issuer.pause_seconds)
                    self.wfile.write(issuer.goes_on)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listening = server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    serving = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        yield f"https://127.0.0.1:{listening.server_port}{PATH}", ca_file
    finally:
        listening.shutdown()
        serving.join()
        listening.server_close()


def settings_text(keys: str, more: str = "") -> str:
    """The table of a configuration file, with one line that says where keys are."""
    return f"""\
[[issuer]]
name = "corp"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
algorithms = "ES256, RS256"
{keys}
roles_claim = "realm.groups"
{more}
[[issuer.grant]]
value = "sre"
role = "operator"
[[issuer.grant]]
value = "web"
role = "viewer"
scope = "team=web"
"""
