"""A controller that speaks TLS, in this process, its authorities, and callers with certificates of every kind."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import oid
from grpc import aio

from controller import server
from controller.config import settings
from controller.core import roles
from controller.rpc import principals, register
from controller.trust import authorities, certificates, clients, spiffe
from instar.v1 import fleet_service_pb2, fleet_service_pb2_grpc

DEADLINE_SECONDS = 60.0
DOMAIN = "fleet.example"
K = authorities.Kind
CLIENT, SERVER = oid.ExtendedKeyUsageOID.CLIENT_AUTH, oid.ExtendedKeyUsageOID.SERVER_AUTH


@dataclasses.dataclass(frozen=True)
class Pair:
    """A certificate with its key, as PEM."""

    certificate: bytes
    key: bytes


class House:
    """A controller's folder with authorities and, while it runs, where it listens."""

    def __init__(self, folder: Path, more: str = "", **tls_settings: object) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.known = authorities.create(self.state_dir / "ca", DOMAIN, now())
        loaded = settings.load(
            {"state_dir": str(self.state_dir), "heartbeat_period": "0.2s"}, {}, _file(folder / "controller.toml", more)
        )
        assert loaded.tls is not None
        changed = dataclasses.replace(loaded.tls, **tls_settings)  # type: ignore[arg-type]  # keys of that very class
        self.settings = dataclasses.replace(loaded, listen="127.0.0.1:0", tls=changed)
        self.address = ""
        self.enrol_address = changed.enrol_listen or ""
        self.token_address = changed.token_listen or ""
        self.admit("ci")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        async with server.serving(self.settings) as address:
            self.address = address
            yield address

    @property
    def roots(self) -> bytes:
        return authorities.load(self.state_dir / "ca").bundle(K.SERVERS).encode()

    def admit(self, name: str) -> None:
        """As `instar principal add` does it."""
        enrolled = register.Register(self.settings.principals_file)
        enrolled.put(principals.Principal(principals.Kind.API, name, roles.WHOLE_FLEET_ADMIN))

    def client(self, name: str = "ci") -> Pair:
        """What `instar ca client` gives."""
        self.admit(name)
        made = clients.issue(authorities.load(self.state_dir / "ca"), name, 30, now())
        return Pair(made.certificate.encode(), made.key.encode())

    def channel(self, pair: Pair | None, roots: bytes | None = None, address: str = "") -> aio.Channel:
        shown = (None, None) if pair is None else (pair.key, pair.certificate)
        secured = grpc.ssl_channel_credentials(roots or self.roots, *shown)
        return aio.secure_channel(address or self.address, secured, options=(("grpc.use_local_subchannel_pool", 1),))

    async def call(self, pair: Pair | None, metadata: Mapping[str, str] | None = None) -> aio.AioRpcError | None:
        """Ask for the nodes; None where that is answered."""
        async with self.channel(pair) as channel:
            stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
            shown = tuple((metadata or {}).items())
            try:
                await stub.ListNodes(fleet_service_pb2.ListNodesRequest(), metadata=shown, timeout=DEADLINE_SECONDS)
            except aio.AioRpcError as error:
                return error
        return None


def forged(
    issuer: certificates.Issuer,
    uris: Sequence[str],
    purposes: Sequence[x509.ObjectIdentifier],
    span: tuple[datetime, datetime] | None = None,
) -> Pair:
    """A certificate that says whatever is wanted, from an authority that is real."""
    key = certificates.make_key()
    begin, end = span or (now() - timedelta(hours=1), now() + timedelta(hours=1))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, "spiffe://fleet.example/client/ci")]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    if uris:
        names = [x509.UniformResourceIdentifier(each) for each in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    made = builder.sign(issuer.key, hashes.SHA256())
    return Pair(certificates.pem(made).encode(), certificates.key_pem(key).encode())


def uri(kind: spiffe.Kind, name: str) -> str:
    return spiffe.identity(DOMAIN, kind, name).uri


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  # certificates are checked by gRPC's own clock


def _file(path: Path, more: str) -> Path:
    path.write_text(f"[tls]\n{more}", encoding="utf-8")
    return path
