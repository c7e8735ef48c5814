"""Health of the controller as `grpc.health.v1`, the way that load balancers ask for it.

Rules kept here: serving is said only once everything that answers has started, and is taken back before anything stops.
"""

from __future__ import annotations

from collections.abc import Iterable

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no stubs

_OVERALL = ""  # the name under which the whole server is asked for


class Health:
    """What the controller says of itself.

    Args:
        services: Full names of the services that are served.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._servicer = health.aio.HealthServicer()
        self._services = (_OVERALL, *services)

    async def register(self, server: aio.Server) -> None:
        """Add the service to a server; everything is not serving yet."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def serve(self) -> None:
        """Say that all is serving."""
        await self._say(health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Say, for the rest of this life, that nothing is."""
        await self._servicer.enter_graceful_shutdown()

    async def _say(self, status: object) -> None:
        for service in self._services:
            await self._servicer.set(service, status)
