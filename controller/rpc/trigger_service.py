"""Triggers over gRPC: defined, fired by hand, approved, explained, rehearsed; and the events that they wait for.

Rules kept here: every change needs a reason, but an approval may be given or denied without one; who decides is who
shows the token; of several events either all are taken or none. Left out: all decisions.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any, Protocol

from grpc import aio

from controller import clock, engine
from controller.core import model
from controller.rpc import answering, callers, convert, firing_convert, trigger_convert
from instar.v1 import trigger_pb2, trigger_service_pb2, trigger_service_pb2_grpc

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000  # firings in one answer: more would pass the message limit
REQUEST_ID_CHARS_MAX = 128
REHEARSED_DEFAULT = timedelta(days=7)
REHEARSED_MAX = timedelta(days=31)  # more is kept nowhere
_Context = aio.ServicerContext[Any, Any]


class _Switch(Protocol):
    """What the engine does to a trigger that is named."""

    def __call__(self, name: str, *, reason: str, actor: str) -> Awaitable[model.Trigger]:
        """Do it; the trigger as it is then."""
        ...


class _Decision(Protocol):
    """What the engine does of a firing that waits for somebody's word."""

    def __call__(self, firing_id: model.FiringId, *, reason: str, actor: str) -> Awaitable[model.Firing]:
        """Do it; the firing as it is then."""
        ...


class _Named(Protocol):
    """A request that names a trigger, and says why."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def reason(self) -> str:
        """Why."""
        ...


class _Decided(Protocol):
    """A request that names a firing, and may say why."""

    @property
    def firing_id(self) -> str:
        """Its identity."""
        ...

    @property
    def reason(self) -> str:
        """Why."""
        ...


class TriggerService(trigger_service_pb2_grpc.TriggerServiceServicer):
    """Keeps triggers, and takes events."""

    def __init__(self, machine: engine.Engine, known: callers.Callers, time: clock.Clock) -> None:
        self._engine = machine
        self._callers = known
        self._clock = time

    async def ApplyTrigger(
        self, request: trigger_service_pb2.ApplyTriggerRequest, context: _Context
    ) -> trigger_service_pb2.ApplyTriggerResponse:
        """Make a trigger, or replace the one of its name."""
        wanted = trigger_convert.from_trigger(request.trigger)
        act = self._engine.apply_trigger(wanted, actor=self._actor(context))
        return await answering.keep(
            act, lambda found: trigger_service_pb2.ApplyTriggerResponse(trigger=trigger_convert.trigger(found))
        )

    async def RemoveTrigger(
        self, request: trigger_service_pb2.RemoveTriggerRequest, context: _Context
    ) -> trigger_service_pb2.RemoveTriggerResponse:
        """Forget a trigger."""
        reason = convert.reason(request.reason, "remove the trigger")
        act = self._engine.remove_trigger(request.name, reason=reason, actor=self._actor(context))
        return await answering.keep(act, lambda _: trigger_service_pb2.RemoveTriggerResponse())

    async def EnableTrigger(
        self, request: trigger_service_pb2.EnableTriggerRequest, context: _Context
    ) -> trigger_service_pb2.EnableTriggerResponse:
        """Let a trigger fire."""
        act = self._switched(self._engine.enable_trigger, "enable", request, context)
        return await answering.keep(
            act, lambda found: trigger_service_pb2.EnableTriggerResponse(trigger=trigger_convert.trigger(found))
        )

    async def DisableTrigger(
        self, request: trigger_service_pb2.DisableTriggerRequest, context: _Context
    ) -> trigger_service_pb2.DisableTriggerResponse:
        """Let a trigger raise nothing more."""
        act = self._switched(self._engine.disable_trigger, "disable", request, context)
        return await answering.keep(
            act, lambda found: trigger_service_pb2.DisableTriggerResponse(trigger=trigger_convert.trigger(found))
        )

    async def ListTriggers(
        self, request: trigger_service_pb2.ListTriggersRequest, context: _Context
    ) -> trigger_service_pb2.ListTriggersResponse:
        """List the triggers by name."""
        del request, context
        names = sorted(each.name for each in self._engine.triggers())
        return trigger_service_pb2.ListTriggersResponse(triggers=map(self._view, names))

    async def GetTrigger(
        self, request: trigger_service_pb2.GetTriggerRequest, context: _Context
    ) -> trigger_service_pb2.GetTriggerResponse:
        """Find one trigger."""
        del context
        return trigger_service_pb2.GetTriggerResponse(trigger=self._view(request.name))

    async def ListFirings(
        self, request: trigger_service_pb2.ListFiringsRequest, context: _Context
    ) -> trigger_service_pb2.ListFiringsResponse:
        """List firings, newest first."""
        del context
        limit = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        found = self._engine.firings(request.trigger, limit, only_open=request.only_open)
        return trigger_service_pb2.ListFiringsResponse(firings=map(firing_convert.firing, found))

    async def GetFiring(
        self, request: trigger_service_pb2.GetFiringRequest, context: _Context
    ) -> trigger_service_pb2.GetFiringResponse:
        """Find one firing."""
        del context
        found = self._engine.firing(model.FiringId(request.firing_id))
        return trigger_service_pb2.GetFiringResponse(firing=firing_convert.firing(found))

    async def FireTrigger(
        self, request: trigger_service_pb2.FireTriggerRequest, context: _Context
    ) -> trigger_service_pb2.FireTriggerResponse:
        """Fire a trigger by hand."""
        reason = convert.reason(request.reason, "fire the trigger")
        is_sane = len(request.request_id) <= REQUEST_ID_CHARS_MAX and request.request_id.isprintable()
        rule = f"printable and at most {REQUEST_ID_CHARS_MAX} characters long"
        convert.refuse_unless(is_sane, "request_id", request.request_id[:REQUEST_ID_CHARS_MAX], rule)
        act = self._engine.fire_trigger(
            request.name, reason=reason, actor=self._actor(context), request_id=request.request_id
        )
        return await answering.keep(
            act, lambda found: trigger_service_pb2.FireTriggerResponse(firing=firing_convert.firing(found))
        )

    async def ExplainTrigger(
        self, request: trigger_service_pb2.ExplainTriggerRequest, context: _Context
    ) -> trigger_service_pb2.ExplainTriggerResponse:
        """Say why a trigger fires, or does not."""
        del context
        found = self._engine.explain_trigger(request.name)
        return trigger_service_pb2.ExplainTriggerResponse(explanation=firing_convert.explanation(found))

    async def ApproveFiring(
        self, request: trigger_service_pb2.ApproveFiringRequest, context: _Context
    ) -> trigger_service_pb2.ApproveFiringResponse:
        """Let a firing act that waits for it."""
        act = self._decided(self._engine.approve_firing, request, context)
        return await answering.keep(
            act, lambda found: trigger_service_pb2.ApproveFiringResponse(firing=firing_convert.firing(found))
        )

    async def DenyFiring(
        self, request: trigger_service_pb2.DenyFiringRequest, context: _Context
    ) -> trigger_service_pb2.DenyFiringResponse:
        """Drop a firing that waits for an approval."""
        act = self._decided(self._engine.deny_firing, request, context)
        return await answering.keep(
            act, lambda found: trigger_service_pb2.DenyFiringResponse(firing=firing_convert.firing(found))
        )

    async def SendEvents(
        self, request: trigger_service_pb2.SendEventsRequest, context: _Context
    ) -> trigger_service_pb2.SendEventsResponse:
        """Take events."""
        events = [firing_convert.from_event(one, f"events[{position}]") for position, one in enumerate(request.events)]
        return await answering.keep(
            self._engine.receive(events, actor=self._actor(context)),
            lambda receipt: trigger_service_pb2.SendEventsResponse(
                accepted=receipt.accepted, duplicates=receipt.duplicates, firing_ids=receipt.firings
            ),
        )

    async def TestTrigger(
        self, request: trigger_service_pb2.TestTriggerRequest, context: _Context
    ) -> trigger_service_pb2.TestTriggerResponse:
        """Say when a trigger would have fired."""
        del context
        wanted = trigger_convert.from_trigger(request.trigger)
        since, until = self._rehearsed(request)
        found = await self._engine.rehearse_trigger(wanted, since, until)
        return trigger_service_pb2.TestTriggerResponse(rehearsal=firing_convert.rehearsal(found))

    def _rehearsed(self, request: trigger_service_pb2.TestTriggerRequest) -> tuple[datetime, datetime]:
        now = self._clock.now()
        until = convert.instant(request.end_time, "end_time") if request.HasField("end_time") else now
        has_start = request.HasField("start_time")
        since = convert.instant(request.start_time, "start_time") if has_start else until - REHEARSED_DEFAULT
        convert.refuse_unless(until <= now, "end_time", until.isoformat(), "not in the future")
        is_past = timedelta(0) < until - since <= REHEARSED_MAX
        rule = f"before end_time, and at most {REHEARSED_MAX.days} days"
        convert.refuse_unless(is_past, "start_time", since.isoformat(), rule)
        return since, until

    async def _switched(self, switch: _Switch, word: str, asked: _Named, context: _Context) -> model.Trigger:
        """Have the engine do what somebody asks of a trigger."""
        reason = convert.reason(asked.reason, f"{word} the trigger")
        return await switch(asked.name, reason=reason, actor=self._actor(context))

    async def _decided(self, decision: _Decision, asked: _Decided, context: _Context) -> model.Firing:
        """Have the engine do what somebody decides of a firing."""
        reason, actor = convert.remark(asked.reason), self._actor(context)
        return await decision(model.FiringId(asked.firing_id), reason=reason, actor=actor)

    def _view(self, name: str) -> trigger_pb2.TriggerView:
        return firing_convert.view(*self._engine.trigger(name))

    def _actor(self, context: _Context) -> str:
        return self._callers.caller(context).name
