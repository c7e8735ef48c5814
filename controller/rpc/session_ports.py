"""What a session stands between: the engine, and one stream to an agent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from controller.core import model
from controller.engine import commands
from instar.v1 import agent_service_pb2


class Engine(Protocol):
    """What a session needs of the engine."""

    async def open_session(self, hello: model.NodeHello) -> commands.SessionGrant:
        """Make a session known; its full report is durable on return."""
        ...

    async def close_session(self, node_id: model.NodeId, session_id: model.SessionId) -> None:
        """Forget a session, unless a later one has taken its place."""
        ...

    async def report(self, node_id: model.NodeId, session_id: model.SessionId, report: model.NodeReport) -> None:
        """Take a report; durable on return. Raises an InstarError when the session is stale."""
        ...

    def is_at_work(self, node_id: model.NodeId) -> bool:
        """Tell whether a node has an operation in flight, or belongs to a rollout that may give it one."""
        ...

    def heartbeat_period(self, node_id: model.NodeId) -> timedelta:
        """Time between two heartbeats of a node from here on."""
        ...

    def check_trusted(self, node_id: model.NodeId) -> None:
        """Let a node speak; raises a RefusedError where it is quarantined."""

    def check_session(self, node_id: model.NodeId, session_id: model.SessionId) -> None:
        """Let a session go on; raises a RefusedError where it may not."""

    def commands(self, node_id: model.NodeId) -> tuple[commands.Command, ...]:
        """What is asked of a node now."""
        ...

    def subscribe(self, node_id: model.NodeId, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when ``commands`` may have changed; return what ends that."""
        ...


class Transport(Protocol):
    """One stream to an agent."""

    async def receive(self) -> agent_service_pb2.ConnectRequest | None:
        """Return the next message, or None when the agent has ended the stream."""
        ...

    async def send(self, response: agent_service_pb2.ConnectResponse) -> None:
        """Return once the stream has taken the message."""
        ...
