"""The gRPC servers of a controller, and what each answers: to certificates, to tokens over TLS, to nodes that come in.

Theory of operation. gRPC for Python asks for a client certificate always or never, so each way of showing who one is
has a listener of its own. The first one is for agents and for whoever has a certificate; without TLS, on loopback, for
tokens. A second one, where `tls.token_listen` is set, answers the API alone, and asks nobody for a certificate: a token
of an issuer has to come with each call. The third one lets nodes in.

Rules kept: every address is taken before anything is answered; serving is said last and taken back first; agents are
told before their streams close; what a listener has no caller for is not served there. Left out: who may do what
(`door`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import grpc
from grpc import aio

from controller import clock, engine, releases
from controller.config import settings
from controller.core import errors
from controller.engine import enrolling
from controller.rpc import (
    agent_service,
    audit_service,
    credentials,
    door,
    enrolment_service,
    fleet_service,
    health,
    listener,
    register,
    release_service,
    rollout_service,
    trigger_service,
)
from controller.trust import listening
from instar.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    release_service_pb2,
    release_service_pb2_grpc,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
    trigger_service_pb2,
    trigger_service_pb2_grpc,
)

STOP_GRACE_SECONDS = 2.0  # for calls that are being answered; watchers come back to the next controller
_SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (agent_service_pb2, "AgentService"),
        (audit_service_pb2, "AuditService"),
        (fleet_service_pb2, "FleetService"),
        (release_service_pb2, "ReleaseService"),
        (rollout_service_pb2, "RolloutService"),
        (trigger_service_pb2, "TriggerService"),
    )
)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rooms:
    """What answers calls.

    Args:
        own: The certificate of the listeners; None where there is no TLS.
        desk: Where nodes come in; None where there is no TLS.
    """

    engine: engine.Engine
    blobs: releases.Blobs
    guards: door.Guards
    register: register.Register
    clock: clock.Clock
    trust: release_service.Trust
    own: listening.Listening | None
    desk: enrolling.Enrolling | None


@contextlib.asynccontextmanager
async def serving(loaded: settings.Settings, rooms: Rooms) -> AsyncIterator[str]:
    """Answer while the block runs; yields where agents and users of the API come.

    Raises:
        RefusedError: Another program has one of the addresses.
    """
    agents, add_api = _services(rooms)
    checks = health.Health(_SERVICES)
    main, address = await _main(loaded, rooms, agents, add_api, checks)
    servers = [main]
    if rooms.own is not None and loaded.tls is not None and loaded.tls.token_listen is not None:
        servers.append(await _for_tokens(loaded, loaded.tls.token_listen, rooms, add_api, checks))
    if rooms.own is not None and loaded.tls is not None and loaded.tls.enrol_listen is not None:
        servers.append(_for_new_nodes(loaded, loaded.tls.enrol_listen, rooms))
    for server in servers:
        await server.start()
    await checks.serve()
    try:
        yield address
    finally:
        await checks.stop()
        await agents.go_away()
        await asyncio.gather(*(server.stop(STOP_GRACE_SECONDS) for server in servers))


def _services(rooms: Rooms) -> tuple[agent_service.AgentService, Callable[[aio.Server], None]]:
    """What answers agents, and what adds to a server all that answers users of the API."""
    machine, known, time = rooms.engine, rooms.guards.callers, rooms.clock
    agents = agent_service.AgentService(
        machine,
        caller=known.caller,
        open_blob=rooms.blobs.open_blob,
        read_trust=rooms.trust.read,
        clock=time,
        vouch=lambda context: enrolment_service.vouch(rooms.desk, known.holder(context)),
    )
    audits = audit_service.AuditService(machine)
    fleet = fleet_service.FleetService(machine, agents.sessions, known, rooms.register, time, rooms.desk)
    catalogue = release_service.ReleaseService(machine, rooms.blobs, known, time, rooms.trust)
    rollouts = rollout_service.RolloutService(machine, known, time)
    triggers = trigger_service.TriggerService(machine, known, time)

    def add_api(server: aio.Server) -> None:
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(audits, server)
        fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(fleet, server)
        release_service_pb2_grpc.add_ReleaseServiceServicer_to_server(catalogue, server)
        rollout_service_pb2_grpc.add_RolloutServiceServicer_to_server(rollouts, server)
        trigger_service_pb2_grpc.add_TriggerServiceServicer_to_server(triggers, server)

    return agents, add_api


async def _main(
    loaded: settings.Settings,
    rooms: Rooms,
    agents: agent_service.AgentService,
    add_api: Callable[[aio.Server], None],
    checks: health.Health,
) -> tuple[aio.Server, str]:
    """The server for agents, and for users of the API who have a certificate or, without TLS, a token."""
    server = aio.server(interceptors=_doors(rooms), options=listener.options(loaded.quotas))
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
    add_api(server)
    if rooms.desk is not None:
        enrolment_service.add(rooms.desk, rooms.guards.callers, server)
    await checks.register(server)
    secured = None if rooms.own is None else credentials.mutual(rooms.own)
    return server, _bind(server, loaded.listen, "listen", secured)


async def _for_tokens(
    loaded: settings.Settings, listen: str, rooms: Rooms, add_api: Callable[[aio.Server], None], checks: health.Health
) -> aio.Server:
    """The server for users of the API who have a token of an issuer; agents have nothing to ask there."""
    assert rooms.own is not None  # noqa: S101  # there is TLS, for the address is a setting of it
    server = aio.server(interceptors=_doors(rooms), options=listener.options(loaded.quotas))
    add_api(server)
    await checks.register(server)
    address = _bind(server, listen, "tls.token_listen", credentials.of_server(rooms.own))
    _logger.info("tokens are taken at %s", address)
    return server


def _for_new_nodes(loaded: settings.Settings, listen: str, rooms: Rooms) -> aio.Server:
    """The server for nodes that have no certificate yet."""
    assert rooms.own is not None  # noqa: S101  # as above
    assert rooms.desk is not None  # noqa: S101  # as above
    server = enrolment_service.server(
        door.Door(rooms.guards, rooms.engine.keep_refusal, rooms.engine.answered), loaded.quotas
    )
    enrolment_service.add(rooms.desk, rooms.guards.callers, server)
    address = _bind(server, listen, "tls.enrol_listen", credentials.of_server(rooms.own))
    _logger.info("nodes come in at %s", address)
    return server


def _doors(rooms: Rooms) -> Sequence[aio.ServerInterceptor]:
    return [door.Door(rooms.guards, rooms.engine.keep_refusal, rooms.engine.answered)]


def _bind(server: aio.Server, address: str, field: str, secured: grpc.ServerCredentials | None) -> str:
    """Take the address; the one with the port that was found, where port 0 was asked for."""
    try:
        port = server.add_insecure_port(address) if secured is None else server.add_secure_port(address, secured)
    except RuntimeError as fault:
        raise errors.RefusedError(
            f"cannot listen on {address}: another program does, or the address is not this machine's",
            code="address_in_use",
            field=field,
            value=address,
            rule="a free address of this machine",
        ) from fault
    return f"{address.rpartition(':')[0]}:{port}"
