"""The nodes over gRPC, as they last reported.

Rules kept here: what is shown of a node is its own word; nothing here changes one. Left out: labels and cordons.
"""

from __future__ import annotations

from typing import Any

from grpc import aio

from controller import engine
from controller.core import model
from controller.rpc import convert
from instar.v1 import fleet_service_pb2, fleet_service_pb2_grpc

_Context = aio.ServicerContext[Any, Any]


class FleetService(fleet_service_pb2_grpc.FleetServiceServicer):
    """Shows the nodes."""

    def __init__(self, machine: engine.Engine) -> None:
        self._engine = machine

    async def ListNodes(
        self, request: fleet_service_pb2.ListNodesRequest, context: _Context
    ) -> fleet_service_pb2.ListNodesResponse:
        """List the nodes that a selector takes, by identity."""
        del context
        nodes = self._engine.nodes(request.selector)
        return fleet_service_pb2.ListNodesResponse(
            nodes=[convert.node(one, self._engine.metrics(one.id)) for one in nodes]
        )

    async def GetNode(
        self, request: fleet_service_pb2.GetNodeRequest, context: _Context
    ) -> fleet_service_pb2.GetNodeResponse:
        """Find one node."""
        del context
        found = self._engine.node(model.NodeId(request.node_id))
        return fleet_service_pb2.GetNodeResponse(node=convert.node(found, self._engine.metrics(found.id)))
