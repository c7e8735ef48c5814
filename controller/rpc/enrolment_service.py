"""How nodes get their certificates, over gRPC: a thin edge around the desk of `controller.engine.enrolling`.

Rules kept: who renews is told by the certificate of its connection, never by what it says. Left out: all decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grpc import aio

from controller.config import quotas
from controller.core import errors, model
from controller.engine import enrolling
from controller.rpc import callers, listener
from controller.trust import enrolment, peers, spiffe
from instar.v1 import enrolment_service_pb2, enrolment_service_pb2_grpc

ENROLLING_MAX = 32  # calls at once of nodes that are not known yet; more are turned away
_Context = aio.ServicerContext[Any, Any]


class EnrolmentService(enrolment_service_pb2_grpc.EnrolmentServiceServicer):
    """The servicer.

    Args:
        holder: Who has shown which certificate on a connection; raises UnauthenticatedError.
    """

    def __init__(self, desk: enrolling.Enrolling, holder: Callable[[_Context], peers.Peer]) -> None:
        self._desk = desk
        self._holder = holder

    async def Enrol(
        self, request: enrolment_service_pb2.EnrolRequest, context: _Context
    ) -> enrolment_service_pb2.EnrolResponse:
        """Take a node in by a join token."""
        del context
        made = await self._desk.enrol(request.token, request.certificate_request)
        return enrolment_service_pb2.EnrolResponse(credentials=self._credentials(made))

    async def Renew(
        self, request: enrolment_service_pb2.RenewRequest, context: _Context
    ) -> enrolment_service_pb2.RenewResponse:
        """Give a node its next certificate."""
        shown = self._holder(context)
        made = await self._desk.renew(shown.identity.name, shown.key_hash, request.certificate_request)
        return enrolment_service_pb2.RenewResponse(credentials=self._credentials(made))

    async def BeginRecovery(
        self, request: enrolment_service_pb2.BeginRecoveryRequest, context: _Context
    ) -> enrolment_service_pb2.BeginRecoveryResponse:
        """Give a node something to sign."""
        del context
        return enrolment_service_pb2.BeginRecoveryResponse(challenge=self._desk.challenge(request.node_id))

    async def Recover(
        self, request: enrolment_service_pb2.RecoverRequest, context: _Context
    ) -> enrolment_service_pb2.RecoverResponse:
        """Give a node a new certificate whose last has run out."""
        del context
        shown = enrolment.Recovery(request.challenge, request.certificate_request, request.signature)
        made = await self._desk.recover(request.node_id, shown)
        return enrolment_service_pb2.RecoverResponse(credentials=self._credentials(made))

    def _credentials(self, made: model.NodeIdentity) -> enrolment_service_pb2.Credentials:
        return enrolment_service_pb2.Credentials(
            node_id=made.node_id, certificate=made.certificate, authorities=self._desk.trusted
        )


def server(door: aio.ServerInterceptor, allowed: quotas.Quotas) -> aio.Server:
    """A server for nodes that have no certificate yet, with bounds of its own: what comes there is not known."""
    options = listener.enrolling_options(allowed)
    return aio.server(interceptors=[door], options=options, maximum_concurrent_rpcs=ENROLLING_MAX)


def add(desk: enrolling.Enrolling, known: callers.Callers, server: aio.Server) -> None:
    """Add the service to a server."""

    def holder(context: _Context) -> peers.Peer:
        shown = known.holder(context)
        assert shown is not None  # noqa: S101  # there is TLS, for there is a desk
        return shown

    enrolment_service_pb2_grpc.add_EnrolmentServiceServicer_to_server(EnrolmentService(desk, holder), server)


async def vouch(desk: enrolling.Enrolling | None, holder: peers.Peer | None) -> None:
    """See that an agent that opens a stream shows its latest certificate; without TLS there is none to see.

    Raises:
        RefusedError: It does not.
    """
    if desk is not None and holder is not None and holder.identity.kind is spiffe.Kind.AGENT:
        await desk.vouch(holder.identity.name, holder.certificate)


def not_configured() -> errors.RefusedError:
    """Why there are no join tokens."""
    return errors.RefusedError(
        "cannot do anything about join tokens and certificates: this controller does not speak TLS",
        code="tls_not_configured",
        field="tls",
        rule="a table [tls] in its configuration file",
    )
