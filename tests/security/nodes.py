"""Hosts that ask for certificates over real gRPC, with keys of their own; no agent runs on them."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc import aio

from controller.trust import certificates, enrolment
from instar.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    enrolment_service_pb2,
    enrolment_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
)
from tests.security import house

_Stub = enrolment_service_pb2_grpc.EnrolmentServiceStub
SECONDS = house.DEADLINE_SECONDS
OUR_END = "Internal error from Core"  # all that gRPC's client says where it was still writing when the call was refused
ATTEMPTS_MAX = 10


def key() -> ec.EllipticCurvePrivateKey:
    return certificates.make_key()


def request(of: ec.EllipticCurvePrivateKey) -> str:
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(of, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


async def token(home: house.House, node_id: str, seconds: float | None = None, request_id: str = "") -> str:
    async with home.channel(home.client()) as channel:
        asked = fleet_service_pb2.MakeJoinTokenRequest(node_id=node_id, request_id=request_id)
        if seconds is not None:
            asked.lifetime.seconds, asked.lifetime.nanos = int(seconds), int(seconds % 1 * 1e9)
        answer = await fleet_service_pb2_grpc.FleetServiceStub(channel).MakeJoinToken(asked, timeout=SECONDS)
    return answer.token


async def permit(home: house.House, node_id: str, request_id: str = "") -> int:
    async with home.channel(home.client()) as channel:
        reason = "it was in the cellar"
        asked = fleet_service_pb2.PermitRecoveryRequest(node_id=node_id, reason=reason, request_id=request_id)
        answer = await fleet_service_pb2_grpc.FleetServiceStub(channel).PermitRecovery(asked, timeout=SECONDS)
    return answer.recoveries_left


@dataclass
class Host:
    """One host, and the certificates that it has had, each with its key."""

    home: house.House
    node_id: str
    had: list[house.Pair] = field(default_factory=list)
    trusted: str = ""

    @property
    def pair(self) -> house.Pair:
        return self.had[-1]

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.pair.certificate)

    def copy(self) -> Host:
        """Another host with the same files."""
        return Host(self.home, self.node_id, list(self.had))

    async def enrol(self, join_token: str, own: ec.EllipticCurvePrivateKey | None = None) -> None:
        own = own or key()
        asked = enrolment_service_pb2.EnrolRequest(token=join_token, certificate_request=request(own))
        async with self._enrolling() as channel:
            answer = await _Stub(channel).Enrol(asked, timeout=SECONDS)
        self._take(own, answer.credentials)

    async def renew(self, own: ec.EllipticCurvePrivateKey | None = None, shown: house.Pair | None = None) -> None:
        own = own or key()
        asked = enrolment_service_pb2.RenewRequest(certificate_request=request(own))
        async with self.home.channel(shown or self.pair) as channel:
            answer = await _Stub(channel).Renew(asked, timeout=SECONDS)
        self._take(own, answer.credentials)

    async def recover(self, own: ec.EllipticCurvePrivateKey | None = None, shown: house.Pair | None = None) -> None:
        own, text = own or key(), ""
        signing = serialization.load_pem_private_key((shown or self.pair).key, None)
        assert isinstance(signing, ec.EllipticCurvePrivateKey)
        async with self._enrolling() as channel:
            begin = enrolment_service_pb2.BeginRecoveryRequest(node_id=self.node_id)
            begun = await _Stub(channel).BeginRecovery(begin, timeout=SECONDS)
            text = request(own)
            said = enrolment.message(self.node_id, begun.challenge, text)
            asked = enrolment_service_pb2.RecoverRequest(
                node_id=self.node_id,
                challenge=begun.challenge,
                certificate_request=text,
                signature=signing.sign(said, ec.ECDSA(hashes.SHA256())),
            )
            answer = await _Stub(channel).Recover(asked, timeout=SECONDS)
        self._take(own, answer.credentials)

    async def connect(self, shown: house.Pair | None = None) -> str:
        """Open a stream and say hello; what is answered: welcome, or the refusal."""
        for _ in range(ATTEMPTS_MAX):
            if (found := await self._connect(shown)) != OUR_END:
                return found
        return OUR_END

    async def _connect(self, shown: house.Pair | None) -> str:
        hello = agent_service_pb2.Hello(
            node_id=self.node_id,
            boot_id="boot",
            instance_token=self.node_id,
            protocol_versions=[1],
            agent_version="0.1.0",
        )
        async with self.home.channel(shown or self.pair) as channel:
            call = agent_service_pb2_grpc.AgentServiceStub(channel).Connect(timeout=SECONDS)
            try:
                await call.write(agent_service_pb2.ConnectRequest(sequence=1, hello=hello))
                answer = await call.read()
            except aio.AioRpcError as error:
                return str(error.details())
            finally:
                call.cancel()
        assert isinstance(answer, agent_service_pb2.ConnectResponse)
        return str(answer.WhichOneof("message"))

    def _enrolling(self) -> aio.Channel:
        secured = grpc.ssl_channel_credentials(self.home.roots)
        return aio.secure_channel(self.home.enrol_address, secured, options=(("grpc.use_local_subchannel_pool", 1),))

    def _take(self, own: ec.EllipticCurvePrivateKey, given: enrolment_service_pb2.Credentials) -> None:
        assert given.node_id == self.node_id
        self.trusted = given.authorities
        self.had.append(house.Pair(given.certificate.encode(), certificates.key_pem(own).encode()))


async def recover_with(host: Host, challenge: str) -> None:
    """Recover with a challenge that was never given."""
    asked = enrolment_service_pb2.RecoverRequest(
        node_id=host.node_id, challenge=challenge, certificate_request=request(key())
    )
    async with host._enrolling() as channel:
        await _Stub(channel).Recover(asked, timeout=SECONDS)


async def refusal(work: Awaitable[object]) -> str:
    """What the controller answers to what it refuses."""
    try:
        await work
    except aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return ""
