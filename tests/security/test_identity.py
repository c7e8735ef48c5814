"""Who is who: certificates that are believed and those that are not, against the real server over real gRPC.

Tests whose names begin with a number show that line of the matrix of faults.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from grpc import aio

from controller.core import errors, roles
from controller.rpc import principals, register
from controller.trust import authorities, clients, peers, spiffe
from instar.v1 import fleet_service_pb2, fleet_service_pb2_grpc
from tests.security import house

CLIENT, AGENT = spiffe.Kind.CLIENT, spiffe.Kind.AGENT
CI = house.uri(CLIENT, "ci")
VIEWS = (roles.Grant(roles.Role.VIEWER),)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[house.House]:
    found = house.House(tmp_path)
    async with found.serving():
        yield found


async def test_a_user_of_the_api_is_let_in_by_a_certificate_and_by_nothing_else(home: house.House) -> None:
    assert await home.call(home.client()) is None
    refused = await home.call(None)
    assert refused is not None
    assert refused.code() is grpc.StatusCode.UNAVAILABLE  # the handshake ends
    async with aio.insecure_channel(home.address) as channel:
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        with pytest.raises(aio.AioRpcError) as caught:
            await stub.ListNodes(fleet_service_pb2.ListNodesRequest(), timeout=house.DEADLINE_SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("what", "uris", "purposes", "kind", "rule"),
    [
        ("two names", [CI, house.uri(CLIENT, "other")], [house.CLIENT], house.K.CLIENTS, "exactly one name"),
        ("no name but the common one", [], [house.CLIENT], house.K.CLIENTS, "exactly one name"),
        ("a name of elsewhere", ["spiffe://other/client/ci"], [house.CLIENT], house.K.CLIENTS, "exactly one name"),
        ("a name of no kind", [f"spiffe://{house.DOMAIN}/person/ci"], [house.CLIENT], house.K.CLIENTS, "exactly one"),
        ("no purpose", [CI], [], house.K.CLIENTS, "clientAuth, and no other"),
        ("both purposes", [CI], [house.CLIENT, house.SERVER], house.K.CLIENTS, "clientAuth, and no other"),
        ("a client's name from the agents' authority", [CI], [house.CLIENT], house.K.AGENTS, "the authority for such"),
        ("an agent's from the clients'", [house.uri(AGENT, "n")], [house.CLIENT], house.K.CLIENTS, "the authority for"),
    ],
)
async def test_40_a_certificate_that_says_too_much_or_too_little_is_nobodys(
    home: house.House, what: str, uris: list[str], purposes: list[object], kind: authorities.Kind, rule: str
) -> None:
    pair = house.forged(home.known.signing(kind), uris, purposes)  # type: ignore[arg-type]  # object identifiers
    token = {"authorization": f"Bearer {what}"}  # a token beside it does not help
    refused = await home.call(pair, token)
    assert refused is not None, what
    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED, what
    assert rule in str(refused.details())


@pytest.mark.parametrize("what", ["server", "expired", "of another authority"])
async def test_40_a_certificate_for_servers_or_expired_or_of_others_ends_in_the_handshake(
    home: house.House, what: str, tmp_path: Path
) -> None:
    issuer, purpose, span = home.known.signing(house.K.CLIENTS), house.CLIENT, None
    if what == "server":
        purpose = house.SERVER
    if what == "expired":
        span = (house.now() - timedelta(hours=2), house.now() - timedelta(hours=1))
    if what == "of another authority":
        issuer = authorities.create(tmp_path / "other", house.DOMAIN, house.now()).signing(house.K.CLIENTS)
    refused = await home.call(house.forged(issuer, [CI], [purpose], span))
    assert refused is not None
    assert refused.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_that_runs_out_on_a_connection_is_nobodys_from_then_on(home: house.House) -> None:
    span = (house.now() - timedelta(hours=1), house.now() + timedelta(seconds=8))
    pair = house.forged(home.known.signing(house.K.CLIENTS), [CI], [house.CLIENT], span)
    async with home.channel(pair) as channel:
        assert await _refusal(channel) is None
        async with asyncio.timeout(house.DEADLINE_SECONDS):
            while (refused := await _refusal(channel)) is None:  # noqa: ASYNC110  # the certificate has to run out
                await asyncio.sleep(0.1)
    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_certificate_gives_the_roles_of_the_register_and_no_others(home: house.House) -> None:
    def issue(name: str) -> house.Pair:
        made = clients.issue(home.known, name, 1, house.now())
        return house.Pair(made.certificate.encode(), made.key.encode())

    ann, known = (
        principals.Principal(principals.Kind.API, "ann", VIEWS),
        register.Register(home.settings.principals_file),
    )
    refused = await home.call(issue("ann"))
    assert refused is not None
    assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
    known.put(ann)
    assert await home.call(issue("ann")) is None
    async with home.channel(issue("ann")) as channel:
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        asked = fleet_service_pb2.MakeJoinTokenRequest(node_id="n-1")
        with pytest.raises(aio.AioRpcError, match="it is for the roles admin") as caught:
            await stub.MakeJoinToken(asked, timeout=house.DEADLINE_SECONDS)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        known.deny(ann.kind, ann.name, "her laptop was stolen")
        denied = await _refusal(channel)
    assert denied is not None
    assert "her laptop was stolen" in str(denied.details())


async def _refusal(channel: aio.Channel) -> aio.AioRpcError | None:
    try:
        stub = fleet_service_pb2_grpc.FleetServiceStub(channel)
        await stub.ListNodes(fleet_service_pb2.ListNodesRequest(), timeout=house.DEADLINE_SECONDS)
    except aio.AioRpcError as error:
        return error
    return None


async def test_nothing_older_than_tls_1_3_is_spoken(home: house.House) -> None:
    told = (home.address, home.roots)
    assert await asyncio.to_thread(handshake, *told, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(handshake, *told, ssl.TLSVersion.TLSv1_2)


class Known:
    """Authorities in a folder, what looks at certificates of theirs, and a clock that stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ca"
        self.authorities = authorities.create(self.folder, house.DOMAIN, house.now())
        self.at = house.now().replace(microsecond=0)
        self.looked = peers.Peers(lambda: self.authorities, lambda: self.at)

    def issued(self, name: str = "ci") -> dict[str, list[bytes]]:
        """A connection that shows a certificate of a client."""
        certificate = clients.issue(self.authorities, name, 1, self.at).certificate.encode()
        names = [house.uri(CLIENT, name).encode()]
        return {peers.CERTIFICATE_KEY: [certificate], peers.SPIFFE_KEY: names, peers.VERSION_KEY: [b"TLSv1.3"]}

    def rotate(self, kind: authorities.Kind, *, is_whole: bool = True) -> None:
        """Trust a new authority; let it sign, and drop the old one."""
        self.authorities = authorities.begin_rotation(self.folder, kind, self.at)
        if is_whole:
            authorities.sign_with_new(self.folder, kind, self.at, is_forced=True)
            self.authorities = authorities.drop_old(self.folder, kind, self.at, is_forced=True)


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(tmp_path)


def test_a_certificate_counts_on_each_connection_by_tls_1_3_alone(known: Known) -> None:
    shown = known.issued()
    assert known.looked.find(shown).identity.name == "ci"
    for version in ([b"TLSv1.2"], [b"TLSv1.3", b"TLSv1.2"], []):
        with pytest.raises(errors.UnauthenticatedError, match=r"the connection is not of TLS 1\.3"):
            known.looked.find({**shown, peers.VERSION_KEY: version})
    with pytest.raises(errors.UnauthenticatedError, match="the connection shows none"):
        known.looked.find({peers.VERSION_KEY: [b"TLSv1.3"]})


def test_40_a_certificate_of_two_names_is_nobodys_however_grpc_tells_them(known: Known) -> None:
    shown = known.issued()
    with pytest.raises(errors.UnauthenticatedError, match="exactly one name"):
        known.looked.find({**shown, peers.SPIFFE_KEY: shown[peers.SPIFFE_KEY] * 2})


def test_a_certificate_counts_from_its_first_moment_to_its_last_also_where_it_was_looked_at(known: Known) -> None:
    shown = known.issued()
    certificate = known.looked.find(shown).certificate
    begins_at, ends_at, moment = certificate.not_valid_before_utc, certificate.not_valid_after_utc, timedelta(seconds=1)
    for at in (begins_at, ends_at - moment):
        known.at = at
        known.looked.find(shown)
    for at in (begins_at - moment, ends_at):
        known.at = at
        with pytest.raises(errors.UnauthenticatedError, match="not valid at this time"):
            known.looked.find(shown)


def test_a_certificate_is_looked_at_once_and_the_first_of_too_many_is_forgotten(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "KNOWN_MAX", 2)
    shown = [known.issued(name) for name in ("ann", "bob", "cid")]
    ann, bob, cid = [known.looked.find(each) for each in shown]
    assert known.looked.find(shown[1]) is bob
    assert known.looked.find(shown[2]) is cid
    assert len(known.looked._looked_at) == 2
    assert known.looked.find(shown[0]) is not ann


@pytest.mark.parametrize("kind", house.K)
def test_streams_are_looked_at_again_whenever_another_authority_of_callers_is_trusted(
    known: Known, kind: authorities.Kind
) -> None:
    before = known.looked.revision()
    assert known.looked.revision() == before
    known.rotate(kind, is_whole=False)
    assert (known.looked.revision() != before) is (kind is not house.K.SERVERS)


def test_a_certificate_that_was_looked_at_is_nobodys_once_its_authority_was_dropped(known: Known) -> None:
    shown = known.issued()
    known.rotate(house.K.CLIENTS, is_whole=False)
    known.looked.find(shown)
    authorities.sign_with_new(known.folder, house.K.CLIENTS, known.at)
    known.authorities = authorities.load(known.folder)
    known.looked.find(shown)  # of the one that signs no more, and is trusted still
    known.looked.find(known.issued("ann"))
    known.authorities = authorities.drop_old(known.folder, house.K.CLIENTS, known.at, is_forced=True)
    with pytest.raises(errors.UnauthenticatedError, match="the authority for such names"):
        known.looked.find(shown)


def handshake(address: str, roots: bytes, version: ssl.TLSVersion) -> str | None:
    """Shake hands with a listener by one version of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=roots.decode())
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), house.DEADLINE_SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=host) as secured,
    ):
        return secured.version()
