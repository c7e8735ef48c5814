"""The nodes over gRPC, as they last reported, and what their components wrote.

Rules kept here: what is shown of a node is its own word; nothing here changes one; a log is read where it is, over the
node's live session, and never kept here. Left out: labels and cordons.
"""

from __future__ import annotations

from typing import Any

from grpc import aio

from controller import engine
from controller.config import values
from controller.core import errors, model
from controller.rpc import convert, log_reading, sessions
from instar.v1 import fleet_service_pb2, fleet_service_pb2_grpc

LOG_BYTES_MAX = 64 << 10  # 64 KiB, as the protocol says
LOG_BYTES_DEFAULT = 16 << 10  # 16 KiB: some two hundred lines
_Context = aio.ServicerContext[Any, Any]


class FleetService(fleet_service_pb2_grpc.FleetServiceServicer):
    """Shows the nodes.

    Args:
        present: The live sessions.
    """

    def __init__(self, machine: engine.Engine, present: sessions.Sessions) -> None:
        self._engine = machine
        self._sessions = present
        self._room = log_reading.Room()

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

    async def ReadLog(
        self, request: fleet_service_pb2.ReadLogRequest, context: _Context
    ) -> fleet_service_pb2.ReadLogResponse:
        """Read the end of what a component wrote."""
        del context
        _check(request)
        node_id = self._engine.node(model.NodeId(request.node_id)).id
        max_bytes = request.max_bytes or LOG_BYTES_DEFAULT
        logs = self._sessions.logs(node_id)
        with self._room.place():
            answer = await logs.read(model.ComponentName(request.component), max_bytes)
        if answer.error:
            raise errors.RefusedError(
                f"cannot read the log of {request.component} on node {node_id}: {answer.error}",
                code="log_unavailable",
                field="component",
                value=request.component,
                rule="the node has a log of it",
            )
        return fleet_service_pb2.ReadLogResponse(instance_id=answer.instance_id, text=answer.text)


def _check(request: fleet_service_pb2.ReadLogRequest) -> None:
    if not 0 < len(request.component) <= values.COMPONENT_NAME_CHARS_MAX:
        raise _refusal("component", request.component, f"1 to {values.COMPONENT_NAME_CHARS_MAX} characters long")
    if request.max_bytes > LOG_BYTES_MAX:
        raise _refusal("max_bytes", str(request.max_bytes), f"at most {LOG_BYTES_MAX}")


def _refusal(field: str, value: str, rule: str) -> errors.InvalidRequestError:
    return errors.InvalidRequestError(
        f"cannot read the log: {field} {value!r} must be {rule}",
        code="request_invalid",
        field=field,
        value=value,
        rule=rule,
    )
