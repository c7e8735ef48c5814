"""The nodes over gRPC, as they last reported, what their components wrote, and what operators decide of them.

Rules kept here: what a node runs is its own word, and nothing here changes that; a log is read where it is, over the
node's live session, and never kept here; what keeps nodes from work has a reason. Left out: all decisions.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from datetime import datetime
from typing import Any

from grpc import aio

from controller import clock, engine
from controller.config import values
from controller.core import errors, model, roles
from controller.engine import enrolling
from controller.rpc import (
    answering,
    callers,
    convert,
    enrolment_service,
    fleet_convert,
    log_reading,
    principals,
    register,
    rollout_convert,
    sessions,
)
from controller.trust import join_tokens
from instar.v1 import fleet_service_pb2, fleet_service_pb2_grpc, node_pb2

NODES_AT_ONCE = 100  # told before others have their turn: some milliseconds of the loop
LOG_BYTES_MAX = 64 << 10  # 64 KiB, as the protocol says
LOG_BYTES_DEFAULT = 16 << 10  # 16 KiB: some two hundred lines
_REMOVED = "the node was removed: "  # why an agent is denied that a new join token lets in again
_Context = aio.ServicerContext[Any, Any]


class FleetService(fleet_service_pb2_grpc.FleetServiceServicer):
    """Shows the nodes, and takes what operators decide of them.

    Args:
        present: The live sessions.
        enrolled: Where it is kept that an agent is let in no longer.
        desk: Where nodes come in; None where there is no TLS.
    """

    def __init__(
        self,
        machine: engine.Engine,
        present: sessions.Sessions,
        known: callers.Callers,
        enrolled: register.Register,
        time: clock.Clock,
        desk: enrolling.Enrolling | None = None,
    ) -> None:
        self._desk = desk
        self._engine = machine
        self._sessions = present
        self._callers = known
        self._register = enrolled
        self._clock = time
        self._room = log_reading.Room()

    async def ListNodes(
        self, request: fleet_service_pb2.ListNodesRequest, context: _Context
    ) -> fleet_service_pb2.ListNodesResponse:
        """List the nodes that a selector takes, by identity, as far as the caller's scope goes."""
        sight = self._callers.caller(context).sight
        nodes = (each for each in self._engine.nodes(request.selector) if sight.takes(each.labels))
        answer = fleet_service_pb2.ListNodesResponse()
        while some := [self._message(each) for each in itertools.islice(nodes, NODES_AT_ONCE)]:
            answer.nodes.extend(some)
            await asyncio.sleep(0)  # a large fleet takes a while to be told: others are answered meanwhile
        return answer

    async def GetNode(
        self, request: fleet_service_pb2.GetNodeRequest, context: _Context
    ) -> fleet_service_pb2.GetNodeResponse:
        """Find one node."""
        del context
        found = self._engine.node(model.NodeId(request.node_id))
        return fleet_service_pb2.GetNodeResponse(node=self._message(found))

    async def ReadLog(
        self, request: fleet_service_pb2.ReadLogRequest, context: _Context
    ) -> fleet_service_pb2.ReadLogResponse:
        """Read the end of what a component wrote."""
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
        await self._engine.note_log_read(node_id, model.ComponentName(request.component), actor=self._actor(context))
        return fleet_service_pb2.ReadLogResponse(instance_id=answer.instance_id, text=answer.text)

    async def LabelNode(
        self, request: fleet_service_pb2.LabelNodeRequest, context: _Context
    ) -> fleet_service_pb2.LabelNodeResponse:
        """Set and take away labels of a node."""
        labels, removed_keys = fleet_convert.from_labels(request)
        act = self._engine.label_node(model.NodeId(request.node_id), labels, removed_keys, actor=self._actor(context))
        return await answering.keep(act, lambda node: fleet_service_pb2.LabelNodeResponse(node=self._message(node)))

    async def CordonNode(
        self, request: fleet_service_pb2.CordonNodeRequest, context: _Context
    ) -> fleet_service_pb2.CordonNodeResponse:
        """Keep operations from a node."""
        reason = convert.reason(request.reason, "cordon the node")
        act = self._engine.cordon_node(model.NodeId(request.node_id), reason=reason, actor=self._actor(context))
        return await answering.keep(act, lambda node: fleet_service_pb2.CordonNodeResponse(node=self._message(node)))

    async def UncordonNode(
        self, request: fleet_service_pb2.UncordonNodeRequest, context: _Context
    ) -> fleet_service_pb2.UncordonNodeResponse:
        """Let operations start on a node again."""
        act = self._engine.uncordon_node(model.NodeId(request.node_id), actor=self._actor(context))
        return await answering.keep(act, lambda node: fleet_service_pb2.UncordonNodeResponse(node=self._message(node)))

    async def QuarantineNode(
        self, request: fleet_service_pb2.QuarantineNodeRequest, context: _Context
    ) -> fleet_service_pb2.QuarantineNodeResponse:
        """Leave a node out of everything that is planned."""
        reason = convert.reason(request.reason, "quarantine the node")
        act = self._engine.quarantine_node(model.NodeId(request.node_id), reason=reason, actor=self._actor(context))
        return await answering.keep(
            act, lambda node: fleet_service_pb2.QuarantineNodeResponse(node=self._message(node))
        )

    async def RemoveNode(
        self, request: fleet_service_pb2.RemoveNodeRequest, context: _Context
    ) -> fleet_service_pb2.RemoveNodeResponse:
        """Forget a node, and let its agent in no longer until it is given a new proof of who it is."""
        reason, actor = convert.reason(request.reason, "remove the node"), self._actor(context)
        node_id = self._engine.node(model.NodeId(request.node_id)).id
        deny = functools.partial(self._register.deny, principals.Kind.AGENT, node_id, f"{_REMOVED}{reason}")
        await asyncio.to_thread(deny)  # first: it would come back as a new node at once
        act = self._engine.remove_node(node_id, reason=reason, actor=actor)
        return await answering.keep(act, lambda _: fleet_service_pb2.RemoveNodeResponse())

    async def ExplainNode(
        self, request: fleet_service_pb2.ExplainNodeRequest, context: _Context
    ) -> fleet_service_pb2.ExplainNodeResponse:
        """Say why a node is as it is."""
        del context
        reasons = self._engine.explain_node(model.NodeId(request.node_id))
        return fleet_service_pb2.ExplainNodeResponse(reasons=map(rollout_convert.reason, reasons))

    async def MakeJoinToken(
        self, request: fleet_service_pb2.MakeJoinTokenRequest, context: _Context
    ) -> fleet_service_pb2.MakeJoinTokenResponse:
        """Make a token by which a node gets its first certificate."""
        is_told = request.HasField("lifetime")
        lifetime = convert.span(request.lifetime, "lifetime") if is_told else join_tokens.LIFETIME_DEFAULT
        act = self._enrolling().make_token(request.node_id, lifetime, actor=self._actor(context))
        token, until = await answering.keep_secret(act, functools.partial(_told, request.node_id))
        await asyncio.to_thread(self._forget_removal, request.node_id)
        made = fleet_service_pb2.MakeJoinTokenResponse(token=token.text)
        made.expire_time.FromDatetime(until)
        return made

    async def PermitRecovery(
        self, request: fleet_service_pb2.PermitRecoveryRequest, context: _Context
    ) -> fleet_service_pb2.PermitRecoveryResponse:
        """Let a node whose certificate has run out come back once more."""
        reason = convert.reason(request.reason, "let the node come back")
        act = self._enrolling().permit_recovery(request.node_id, reason=reason, actor=self._actor(context))
        return await answering.keep(
            act, lambda left: fleet_service_pb2.PermitRecoveryResponse(recoveries_left=left.recoveries_left)
        )

    async def GetStatistics(
        self, request: fleet_service_pb2.GetStatisticsRequest, context: _Context
    ) -> fleet_service_pb2.GetStatisticsResponse:
        """Count the work of the fleet."""
        del request, context
        counted = fleet_convert.statistics(self._engine.statistics())
        return fleet_service_pb2.GetStatisticsResponse(statistics=counted)

    async def ListRuleStates(
        self, request: fleet_service_pb2.ListRuleStatesRequest, context: _Context
    ) -> fleet_service_pb2.ListRuleStatesResponse:
        """Say how the rules of the monitor stand, on nodes as far as the caller's scope goes."""
        sight = self._callers.caller(context).sight
        node_id = model.NodeId(request.node_id) if request.node_id else None
        if node_id is not None and sight.is_whole:
            node_id = self._engine.node(node_id).id
        found = self._engine.rules_watched(request.rule, node_id)
        watched = [each for each in found if sight.is_whole or self._is_seen(sight, each.node_id)]
        rules = (each for each in self._engine.rules() if request.rule in ("", each.name))
        return fleet_convert.rule_states(rules, watched, self._engine.rules_looked_at())

    async def AddFreeze(
        self, request: fleet_service_pb2.AddFreezeRequest, context: _Context
    ) -> fleet_service_pb2.AddFreezeResponse:
        """Keep operations from starting on nodes for a time."""
        asked = fleet_convert.from_freeze(request.freeze, self._clock.now())
        act = self._engine.add_freeze(
            asked.selector, asked.since, asked.until, reason=asked.reason, actor=self._actor(context)
        )
        return await answering.keep(
            act, lambda freeze: fleet_service_pb2.AddFreezeResponse(freeze=fleet_convert.freeze(freeze))
        )

    async def ListFreezes(
        self, request: fleet_service_pb2.ListFreezesRequest, context: _Context
    ) -> fleet_service_pb2.ListFreezesResponse:
        """List the freezes that are in force or to come, by start."""
        del request, context
        by_start = sorted(self._engine.freezes(), key=lambda one: (one.since, one.id))
        return fleet_service_pb2.ListFreezesResponse(freezes=map(fleet_convert.freeze, by_start))

    async def RemoveFreeze(
        self, request: fleet_service_pb2.RemoveFreezeRequest, context: _Context
    ) -> fleet_service_pb2.RemoveFreezeResponse:
        """Lift a freeze."""
        reason = convert.reason(request.reason, "lift the freeze")
        act = self._engine.remove_freeze(model.FreezeId(request.freeze_id), reason=reason, actor=self._actor(context))
        return await answering.keep(act, lambda _: fleet_service_pb2.RemoveFreezeResponse())

    def _is_seen(self, sight: roles.Scope, node_id: model.NodeId | None) -> bool:
        """Tell whether a scope that is not the whole fleet takes a node; the fleet itself it does not."""
        labels = None if node_id is None else self._engine.labels(node_id)
        return labels is not None and sight.takes(labels)

    def _forget_removal(self, node_id: str) -> None:
        """Let a node that was removed be let in again by a new proof, but none that was denied for another reason."""
        with contextlib.suppress(errors.NotFoundError):
            entry = self._register.entry(principals.Kind.AGENT, node_id)
            if entry.denied_because.startswith(_REMOVED):
                self._register.remove(principals.Kind.AGENT, node_id)

    def _enrolling(self) -> enrolling.Enrolling:
        if self._desk is None:
            raise enrolment_service.not_configured()
        return self._desk

    def _actor(self, context: _Context) -> str:
        return self._callers.caller(context).name

    def _message(self, node: model.Node) -> node_pb2.Node:
        return fleet_convert.node(node, self._engine.metrics(node.id))


def _told(node_id: str, made: tuple[join_tokens.Token, datetime]) -> str:
    token, until = made
    return (
        f"it made join token {token.id} of node {node_id}, which is stored nowhere, is good once, and runs out at"
        f" {until.isoformat(timespec='seconds')}; make another one under another request_id"
    )


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
