"""How this node gets its certificates from the controller: the first, the next, and one more after the last ran out.

Rules kept: keys are the business of a disposable child (`agent.identity`); whoever is asked has shown the controller's
certificate first; each call has a deadline, and a failure changes nothing but the key that waits. Left out: when to ask
(`renewal`).
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc
from grpc import aio

from agent import identity
from agent.identity import asking
from agent.link import transport
from instar.v1 import enrolment_service_pb2, enrolment_service_pb2_grpc

CALL_SECONDS = 30.0
REFUSED = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
_Answer = TypeVar("_Answer")
_Stub = enrolment_service_pb2_grpc.EnrolmentServiceStub


class EnrolmentError(Exception):
    """There is no certificate.

    Args:
        is_refused: The controller said no; asking again is of no use until somebody has done something.
    """

    def __init__(self, message: str, *, is_refused: bool = False) -> None:
        super().__init__(message)
        self.is_refused = is_refused


async def enrol(folder: Path, node_id: str, token: str, address: str) -> None:
    """Be taken in by a join token.

    Args:
        folder: Of the identity.
        node_id: What this node is called.
        token: As `instar node token` has made it.
        address: Where the controller answers nodes without a certificate.

    Raises:
        EnrolmentError: The controller there is not the token's, or said no.
    """
    where = {"folder": str(folder)}
    made = await _ask("begin", where | {"address": address, "hash": token.rpartition(".")[2]})
    asked = enrolment_service_pb2.EnrolRequest(token=token, certificate_request=made["certificate_request"])
    async with _secured(address, made["authorities"].encode()) as channel:
        answer = await _call(lambda: _Stub(channel).Enrol(asked, timeout=CALL_SECONDS))
    await _install(where, answer.credentials, node_id, address)


async def renew(folder: Path, known: identity.Identity, address: str) -> None:
    """Get the next certificate, over a connection with the present one.

    Raises:
        EnrolmentError: There is none.
    """
    where = {"folder": str(folder)}
    made = await _ask("request", where)
    asked = enrolment_service_pb2.RenewRequest(certificate_request=made["certificate_request"])
    async with transport.secured(address, known) as channel:
        answer = await _call(lambda: _Stub(channel).Renew(asked, timeout=CALL_SECONDS))
    await _install(where, answer.credentials, known.node_id, known.enrol_address)


async def recover(folder: Path, known: identity.Identity) -> None:
    """Get a certificate after the last has run out.

    Raises:
        EnrolmentError: There is none.
    """
    where, address = {"folder": str(folder)}, known.enrol_address
    async with _secured(address, known.authorities.encode()) as channel:
        begin = enrolment_service_pb2.BeginRecoveryRequest(node_id=known.node_id)
        begun = await _call(lambda: _Stub(channel).BeginRecovery(begin, timeout=CALL_SECONDS))
        made = await _ask("sign", where | {"challenge": begun.challenge})
        asked = enrolment_service_pb2.RecoverRequest(
            node_id=known.node_id,
            challenge=begun.challenge,
            certificate_request=made["certificate_request"],
            signature=base64.b64decode(made["signature"]),
        )
        answer = await _call(lambda: _Stub(channel).Recover(asked, timeout=CALL_SECONDS))
    await _install(where, answer.credentials, known.node_id, address)


async def _install(
    where: dict[str, str], given: enrolment_service_pb2.Credentials, node_id: str, enrol_address: str
) -> None:
    if given.node_id != node_id:
        raise EnrolmentError(
            f"cannot be node {node_id!r}: the controller knows this one as {given.node_id!r}", is_refused=True
        )
    certificate = {"certificate": given.certificate, "authorities": given.authorities}
    await _ask("install", where | certificate | {"node_id": node_id, "enrol_address": enrol_address})


def _secured(address: str, roots: bytes) -> aio.Channel:
    return aio.secure_channel(address, grpc.ssl_channel_credentials(roots), options=transport.CHANNEL_OPTIONS)


async def _ask(verb: str, question: dict[str, str]) -> dict[str, str]:
    try:
        return dict(await asking.ask(verb, question))
    except asking.KeyWorkError as error:
        raise EnrolmentError(str(error)) from error


async def _call(method: Callable[[], Awaitable[_Answer]]) -> _Answer:
    try:
        return await method()
    except aio.AioRpcError as error:
        told = f"cannot get a certificate: {error.code().name}: {error.details()}"
        raise EnrolmentError(told, is_refused=error.code() in REFUSED) from error
