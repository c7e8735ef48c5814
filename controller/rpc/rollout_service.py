"""Rollouts over gRPC: planned, started, approved, watched, led by the verbs of operators, explained.

Rules kept here: a start needs a request id, so that asking twice is asking once; a watch begins with the present state
and ends with the terminal one; watchers resume behind the revision that they have seen; every verb needs a reason, but
an approval may be given or denied without one; who decides is who shows the token. Left out: all decisions.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import Any, Protocol

from grpc import aio

from controller import clock, engine
from controller.core import errors, model, roles
from controller.rpc import analysis_convert, answering, bounds, callers, convert, request_convert, rollout_convert
from controller.telemetry import ids
from instar.v1 import rollout_pb2, rollout_service_pb2, rollout_service_pb2_grpc

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000  # rollouts in one answer: more would pass the message limit
REQUEST_ID_RULE = "1 to 128 printable characters without blanks, chosen by the caller"
EMERGENCY_TIME_LIMIT_DEFAULT = timedelta(minutes=5)
EMERGENCY_TIME_LIMIT_MIN = timedelta(seconds=1)  # less, and nothing could be back by then
EMERGENCY_TIME_LIMIT_MAX = timedelta(days=1)  # more is no emergency
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_Context = aio.ServicerContext[Any, Any]


class _Order(Protocol):
    """What an operator asks of one rollout, and why."""

    @property
    def rollout(self) -> str:
        """Identity or name."""
        ...

    @property
    def reason(self) -> str:
        """Why."""
        ...


class _Verb(Protocol):
    """What the engine does for it."""

    def __call__(self, rollout_id: model.RolloutId, *, reason: str, actor: str) -> Awaitable[model.Rollout]:
        """Do it; the rollout as it is then."""
        ...


class RolloutService(rollout_service_pb2_grpc.RolloutServiceServicer):
    """Plans upgrades and carries them out."""

    def __init__(self, machine: engine.Engine, known: callers.Callers, time: clock.Clock) -> None:
        self._engine = machine
        self._callers = known
        self._bounds = bounds.Bounds(machine)
        self._clock = time

    async def PlanUpgrade(
        self, request: rollout_service_pb2.PlanUpgradeRequest, context: _Context
    ) -> rollout_service_pb2.PlanUpgradeResponse:
        """Say what a request would do."""
        wanted = request_convert.from_request(request.upgrade)
        plan = await self._engine.plan(wanted, actor=self._callers.caller(context).name)
        # A plan of the largest fleet takes a second to be said: agents are answered meanwhile.
        message = await asyncio.to_thread(rollout_convert.plan, plan)
        return rollout_service_pb2.PlanUpgradeResponse(plan=message)

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
        act = self._engine.start_upgrade(
            request_convert.from_request(request.upgrade),
            request_id=request.request_id,
            actor=self._callers.caller(context).name,
            saved=rollout_convert.from_plan(request.plan) if request.HasField("plan") else None,
        )
        return await answering.keep(
            act, lambda rollout: rollout_service_pb2.StartUpgradeResponse(rollout=self._message(rollout))
        )

    async def GetRollout(
        self, request: rollout_service_pb2.GetRolloutRequest, context: _Context
    ) -> rollout_service_pb2.GetRolloutResponse:
        """Find one rollout."""
        del context
        return rollout_service_pb2.GetRolloutResponse(rollout=self._message(self._engine.rollout(request.rollout)))

    async def ListRollouts(
        self, request: rollout_service_pb2.ListRolloutsRequest, context: _Context
    ) -> rollout_service_pb2.ListRolloutsResponse:
        """List the rollouts, newest first; of the newest PAGE_SIZE_MAX those that lie within the caller's scope."""
        limit, sight = _limit(request.page_size), self._callers.caller(context).sight
        newest = self._engine.rollouts(limit if sight.is_whole else PAGE_SIZE_MAX)
        seen = (each for each in newest if self._bounds.has_rollout(sight, each))
        return rollout_service_pb2.ListRolloutsResponse(rollouts=map(self._message, itertools.islice(seen, limit)))

    async def WatchRollout(
        self, request: rollout_service_pb2.WatchRolloutRequest, context: _Context
    ) -> AsyncIterator[rollout_service_pb2.WatchRolloutResponse]:
        """Send the rollout now and after each change, to its end."""
        del context
        found = self._engine.rollout(request.rollout)
        if request.after_revision > found.revision:
            raise _ahead(found, request.after_revision)
        async for rollout in self._engine.watch(found.id):
            is_new = rollout.revision > request.after_revision or not request.after_revision  # the first one is 0
            if is_new or rollout.state.is_terminal:
                yield rollout_service_pb2.WatchRolloutResponse(rollout=self._message(rollout))

    async def RevertRollout(
        self, request: rollout_service_pb2.RevertRolloutRequest, context: _Context
    ) -> rollout_service_pb2.RevertRolloutResponse:
        """Take every touched node back."""
        act = self._led(self._engine.revert, "revert", request, context)
        return await answering.keep(
            act, lambda rollout: rollout_service_pb2.RevertRolloutResponse(rollout=self._message(rollout))
        )

    async def PauseRollout(
        self, request: rollout_service_pb2.PauseRolloutRequest, context: _Context
    ) -> rollout_service_pb2.PauseRolloutResponse:
        """Start nothing more, and stop every clock."""
        act = self._led(self._engine.pause, "pause", request, context)
        return await answering.keep(
            act, lambda rollout: rollout_service_pb2.PauseRolloutResponse(rollout=self._message(rollout))
        )

    async def ResumeRollout(
        self, request: rollout_service_pb2.ResumeRolloutRequest, context: _Context
    ) -> rollout_service_pb2.ResumeRolloutResponse:
        """Go on where a pause began."""
        act = self._led(self._engine.resume, "resume", request, context)
        return await answering.keep(
            act, lambda rollout: rollout_service_pb2.ResumeRolloutResponse(rollout=self._message(rollout))
        )

    async def PromoteRollout(
        self, request: rollout_service_pb2.PromoteRolloutRequest, context: _Context
    ) -> rollout_service_pb2.PromoteRolloutResponse:
        """Let the next wave begin now."""
        act = self._led(self._engine.promote, "promote", request, context)
        return await answering.keep(
            act, lambda rollout: rollout_service_pb2.PromoteRolloutResponse(rollout=self._message(rollout))
        )

    async def CancelRollout(
        self, request: rollout_service_pb2.CancelRolloutRequest, context: _Context
    ) -> rollout_service_pb2.CancelRolloutResponse:
        """End it where it stands."""
        act = self._led(self._engine.cancel, "cancel", request, context)
        return await answering.keep(
            act, lambda rollout: rollout_service_pb2.CancelRolloutResponse(rollout=self._message(rollout))
        )

    async def RetryRollout(
        self, request: rollout_service_pb2.RetryRolloutRequest, context: _Context
    ) -> rollout_service_pb2.RetryRolloutResponse:
        """Try what failed again."""
        act = self._led(self._engine.retry, "retry", request, context)
        return await answering.keep(
            act, lambda rollout: rollout_service_pb2.RetryRolloutResponse(rollout=self._message(rollout))
        )

    async def ListApprovals(
        self, request: rollout_service_pb2.ListApprovalsRequest, context: _Context
    ) -> rollout_service_pb2.ListApprovalsResponse:
        """List what waits for an approval, newest first, as far as the caller's scope goes."""
        limit, sight = _limit(request.page_size), self._callers.caller(context).sight
        found = self._engine.approvals(limit if sight.is_whole else PAGE_SIZE_MAX, with_decided=request.decided)
        seen = (each for each in found if sight.is_whole or self._is_seen(sight, each))
        return rollout_service_pb2.ListApprovalsResponse(
            approvals=map(rollout_convert.approval, itertools.islice(seen, limit))
        )

    async def ApproveRollout(
        self, request: rollout_service_pb2.ApproveRolloutRequest, context: _Context
    ) -> rollout_service_pb2.ApproveRolloutResponse:
        """Let a rollout begin that waits for it."""
        reason, actor = convert.remark(request.reason), self._callers.caller(context).name
        act = self._engine.approve(request.rollout, reason=reason, actor=actor)
        return await answering.keep(
            act, lambda rollout: rollout_service_pb2.ApproveRolloutResponse(rollout=self._message(rollout))
        )

    async def DenyRollout(
        self, request: rollout_service_pb2.DenyRolloutRequest, context: _Context
    ) -> rollout_service_pb2.DenyRolloutResponse:
        """Cancel a rollout that waits for an approval."""
        reason, actor = convert.remark(request.reason), self._callers.caller(context).name
        act = self._engine.deny(request.rollout, reason=reason, actor=actor)
        return await answering.keep(
            act, lambda rollout: rollout_service_pb2.DenyRolloutResponse(rollout=self._message(rollout))
        )

    async def ExplainRollout(
        self, request: rollout_service_pb2.ExplainRolloutRequest, context: _Context
    ) -> rollout_service_pb2.ExplainRolloutResponse:
        """Say why it stands as it does, or why a node does."""
        del context
        reasons = self._engine.explain_rollout(request.rollout, request.node_id)
        judging = None if request.node_id else self._engine.rollout(request.rollout).judging
        return rollout_service_pb2.ExplainRolloutResponse(
            reasons=map(rollout_convert.reason, reasons), judging=analysis_convert.judging(judging)
        )

    async def GetAnalysis(
        self, request: rollout_service_pb2.GetAnalysisRequest, context: _Context
    ) -> rollout_service_pb2.GetAnalysisResponse:
        """Say how what is judged of a canary went over time."""
        del context
        return analysis_convert.courses(self._engine.courses(request.rollout))

    async def RollBackEmergency(
        self, request: rollout_service_pb2.RollBackEmergencyRequest, context: _Context
    ) -> rollout_service_pb2.RollBackEmergencyResponse:
        """Stop everything that is under way, and take the nodes back."""
        reason = convert.reason(request.reason, "roll back")
        act = self._engine.roll_back_emergency(
            model.ComponentName(request.component),
            request.selector,
            _time_limit(request),
            reason=reason,
            actor=self._callers.caller(context).name,
        )

        def say(
            made: tuple[tuple[model.Rollout, ...], model.FreezeId],
        ) -> rollout_service_pb2.RollBackEmergencyResponse:
            rollouts = map(self._message, made[0])
            return rollout_service_pb2.RollBackEmergencyResponse(rollouts=rollouts, freeze_id=made[1])

        return await answering.keep(act, say)

    async def _led(self, verb: _Verb, word: str, order: _Order, context: _Context) -> model.Rollout:
        """Have the engine do what an operator asks of a rollout."""
        reason = convert.reason(order.reason, f"{word} the rollout")
        found = self._engine.rollout(order.rollout)
        return await verb(found.id, reason=reason, actor=self._callers.caller(context).name)

    def _is_seen(self, sight: roles.Scope, approval: model.Approval) -> bool:
        return self._bounds.has_rollout(sight, self._engine.rollout(approval.rollout_id))

    def _message(self, rollout: model.Rollout) -> rollout_pb2.Rollout:
        return rollout_convert.rollout(rollout, ids.trace_id(rollout.id), self._clock.now())


def _ahead(found: model.Rollout, seen: int) -> errors.RefusedError:
    return errors.RefusedError(
        f"cannot go on after revision {seen} of rollout {found.id}: the latest is {found.revision}, for the store was"
        " put back from a copy; start anew after revision 0",
        code="revision_unknown",
        field="after_revision",
        value=str(seen),
        rule=f"at most {found.revision}",
    )


def _limit(page_size: int) -> int:
    return min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def _time_limit(request: rollout_service_pb2.RollBackEmergencyRequest) -> timedelta:
    if not request.HasField("time_limit"):
        return EMERGENCY_TIME_LIMIT_DEFAULT
    limit = convert.span(request.time_limit, "time_limit")
    is_sane = EMERGENCY_TIME_LIMIT_MIN <= limit <= EMERGENCY_TIME_LIMIT_MAX
    rule = f"between {EMERGENCY_TIME_LIMIT_MIN} and {EMERGENCY_TIME_LIMIT_MAX}"
    convert.refuse_unless(is_sane, "time_limit", str(limit), rule)
    return limit
