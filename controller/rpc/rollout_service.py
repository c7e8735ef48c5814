"""Rollouts over gRPC: planned, started, watched and reverted.

Rules kept here: a start needs a request id, so that asking twice is asking once; a watch begins with the present state
and ends with the terminal one; watchers resume behind the revision that they have seen. Left out: all decisions.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from grpc import aio

from controller import engine
from controller.core import errors, model
from controller.rpc import convert, principals
from controller.telemetry import ids
from instar.v1 import rollout_pb2, rollout_service_pb2, rollout_service_pb2_grpc

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000  # rollouts in one answer: more would pass the message limit
REASON_CHARS_MAX = 1024  # more is no longer for people
REQUEST_ID_RULE = "1 to 128 printable characters without blanks, chosen by the caller"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_Context = aio.ServicerContext[Any, Any]


class RolloutService(rollout_service_pb2_grpc.RolloutServiceServicer):
    """Plans upgrades and carries them out."""

    def __init__(self, machine: engine.Engine, register: principals.Register) -> None:
        self._engine = machine
        self._register = register

    async def PlanUpgrade(
        self, request: rollout_service_pb2.PlanUpgradeRequest, context: _Context
    ) -> rollout_service_pb2.PlanUpgradeResponse:
        """Say what a request would do."""
        del context
        plan = self._engine.plan(convert.from_request(request.upgrade))
        return rollout_service_pb2.PlanUpgradeResponse(plan=convert.plan(plan))

    async def StartUpgrade(
        self, request: rollout_service_pb2.StartUpgradeRequest, context: _Context
    ) -> rollout_service_pb2.StartUpgradeResponse:
        """Begin an upgrade; the rollout is durable when this answers."""
        if not _REQUEST_ID.fullmatch(request.request_id):
            raise errors.InvalidRequestError(
                f"cannot start the upgrade: request_id {request.request_id!r} must be {REQUEST_ID_RULE}",
                code="request_id_invalid",
                field="request_id",
                value=request.request_id,
                rule=REQUEST_ID_RULE,
            )
        rollout = await self._engine.start_upgrade(
            convert.from_request(request.upgrade),
            request_id=request.request_id,
            actor=self._register.caller(context).name,
        )
        return rollout_service_pb2.StartUpgradeResponse(rollout=_message(rollout))

    async def GetRollout(
        self, request: rollout_service_pb2.GetRolloutRequest, context: _Context
    ) -> rollout_service_pb2.GetRolloutResponse:
        """Find one rollout."""
        del context
        return rollout_service_pb2.GetRolloutResponse(rollout=_message(self._engine.rollout(request.rollout)))

    async def ListRollouts(
        self, request: rollout_service_pb2.ListRolloutsRequest, context: _Context
    ) -> rollout_service_pb2.ListRolloutsResponse:
        """List the rollouts, newest first."""
        del context
        limit = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        return rollout_service_pb2.ListRolloutsResponse(rollouts=map(_message, self._engine.rollouts(limit)))

    async def WatchRollout(
        self, request: rollout_service_pb2.WatchRolloutRequest, context: _Context
    ) -> AsyncIterator[rollout_service_pb2.WatchRolloutResponse]:
        """Send the rollout now and after each change, to its end."""
        del context
        found = self._engine.rollout(request.rollout)
        async for rollout in self._engine.watch(found.id):
            if rollout.revision > request.after_revision or rollout.state.is_terminal:
                yield rollout_service_pb2.WatchRolloutResponse(rollout=_message(rollout))

    async def RevertRollout(
        self, request: rollout_service_pb2.RevertRolloutRequest, context: _Context
    ) -> rollout_service_pb2.RevertRolloutResponse:
        """Take every touched node back."""
        reason = request.reason
        if not 0 < len(reason) <= REASON_CHARS_MAX:
            raise errors.InvalidRequestError(
                f"cannot revert the rollout: reason must be given, with at most {REASON_CHARS_MAX} characters",
                code="reason_invalid",
                field="reason",
                rule=f"1 to {REASON_CHARS_MAX} characters",
            )
        found = self._engine.rollout(request.rollout)
        rollout = await self._engine.revert(found.id, reason=reason, actor=self._register.caller(context).name)
        return rollout_service_pb2.RevertRolloutResponse(rollout=_message(rollout))


def _message(rollout: model.Rollout) -> rollout_pb2.Rollout:
    return convert.rollout(rollout, ids.trace_id(rollout.id))
