"""Agents that speak the link over real gRPC and run nothing: what an operation comes to is what its version says.

Rules kept: as the real agent does, one keeps what it was given and what came of it over its own and the controller's
lives, refuses a fence below the highest that it has seen, answers what comes again by what it has on record, tells all
of it whenever it comes back, and repeats results until they are acknowledged. Whatever would be done twice is noted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from grpc import aio

from instar.v1 import agent_service_pb2, agent_service_pb2_grpc, node_pb2, operation_pb2

BEAT_SECONDS = 0.2
RETRY_SECONDS = 0.05  # until an agent whose controller is gone tries again
COMPONENT = "web"
BAD = "1.9.0"  # the version that fails on each node
SLOW = "1.8.0"  # the version with which a node never comes to an end by itself
HEALTHY_SECONDS = 3600  # what runs has been well for so long
_Request = agent_service_pb2.ConnectRequest
_Response = agent_service_pb2.ConnectResponse
_STATES = operation_pb2.OperationState


@dataclass
class Operation:
    """One that was given to a node, and how it stands there."""

    assign: agent_service_pb2.Assign
    status: operation_pb2.OperationStatus
    told_in: int = 0  # the sequence in which its end was told; 0 while that is still to be done


@dataclass
class Agent:
    """One node.

    Args:
        twice: What was done a second time.
    """

    node_id: str
    metadata: Sequence[tuple[str, str]]
    operations: dict[str, Operation] = field(default_factory=dict)
    components: dict[str, node_pb2.ComponentStatus] = field(default_factory=dict)
    highest_fence: int = 0
    twice: list[str] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def live(self, address: str) -> None:
        """Come back whenever the session ends, until cancelled."""
        while True:
            with contextlib.suppress(aio.AioRpcError):
                # A channel of its own for each try: one that has failed waits longer and longer.
                async with aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
                    await self._session(channel)
            await asyncio.sleep(RETRY_SECONDS)

    async def _session(self, channel: aio.Channel) -> None:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        for each in self.operations.values():
            each.told_in = 0
        async for response in stub.Connect(self._said(), metadata=self.metadata):
            match response.WhichOneof("message"):
                case "assign":
                    self.take(response.assign)
                case "proceed":
                    self._proceed(response.proceed)
                case "cancel":
                    self._cancel(response.cancel)
                case "acknowledgement":
                    self._forget(response.acknowledgement.sequence)
                case _:
                    pass

    async def _said(self) -> AsyncIterator[_Request]:
        self._news.clear()
        hello = agent_service_pb2.Hello(
            node_id=self.node_id,
            boot_id="boot",
            instance_token=self.node_id,
            protocol_versions=[1],
            agent_version="0.1.0",
            capabilities=["driver.handover"],
            labels={"name": self.node_id},
            highest_fence=self.highest_fence,
            report=self._report(1),
        )
        yield _Request(sequence=1, hello=hello)
        sequence = 1
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._news.wait()
            self._news.clear()
            sequence += 1
            beat = agent_service_pb2.Heartbeat(report=self._report(sequence), full=True)
            beat.send_time.GetCurrentTime()
            yield _Request(sequence=sequence, heartbeat=beat)
            self._go_on()

    def _report(self, sequence: int) -> agent_service_pb2.Report:
        told = [each for each in self.operations.values() if each.told_in >= 0]
        for each in told:
            if _is_over(each) and not each.told_in:
                each.told_in = sequence
        return agent_service_pb2.Report(
            components=self.components.values(),
            operations=[each.status for each in told],
            conditions=node_pb2.Conditions(),
        )

    def _forget(self, sequence: int) -> None:
        for each in self.operations.values():
            if 0 < each.told_in <= sequence:
                each.told_in = -1

    # Operations.

    def take(self, assign: agent_service_pb2.Assign) -> None:
        """Take an operation, or answer what is on record of it."""
        known = self.operations.get(assign.operation_id)
        if known is not None:  # it is answered by what is on record
            known.status.fence = max(known.status.fence, assign.fence)
            known.told_in = 0
        elif assign.fence > self.highest_fence:
            self._note(assign)
            status = _status(assign, "ACCEPTED")
            self.operations[assign.operation_id] = Operation(assign, status)
        else:
            self.twice.append(f"{assign.operation_id} comes to {self.node_id} with a fence that is no higher")
        self.highest_fence = max(self.highest_fence, assign.fence)
        self._news.set()

    def _note(self, assign: agent_service_pb2.Assign) -> None:
        """Note where what was done would be done once more."""
        component = self.components.get(assign.component)
        has = "" if component is None else component.digest
        is_done = has == assign.to_digest != assign.from_digest and assign.kind != operation_pb2.CHANGE_KIND_RESTART
        others = [each for each in self.operations.values() if not _is_over(each) and each.status.state < _COMMITTED]
        if is_done:
            self.twice.append(f"{assign.operation_id} brings {self.node_id} to {assign.to_version}, which it runs")
        if others:
            ids = ", ".join(each.assign.operation_id for each in others)
            self.twice.append(f"{assign.operation_id} is given to {self.node_id} while it is at {ids}")

    def _go_on(self) -> None:
        """Bring what is under way one state further; what was told in a message goes on behind it."""
        for each in self.operations.values():
            state = each.status.state
            if state == _ACCEPTED:
                self._turn(each, _HELD if each.assign.hold_before else _RUNNING, each.assign.hold_before)
            elif state == _RUNNING and each.assign.to_version == BAD:
                self._fail(each, operation_pb2.FAULT_VERSION, "health_probe_failed")
            elif state == _RUNNING and each.assign.to_version != SLOW:
                self._run(each)
                self._turn(each, _COMMITTED)
            elif state == _COMMITTED:
                self._turn(each, _PERMANENT)

    def _turn(self, each: Operation, state: int, step: int = operation_pb2.STEP_SOAK) -> None:
        each.status.state = state  # type: ignore[assignment]  # one of the enum, by its number
        each.status.step = step or operation_pb2.STEP_SOAK  # type: ignore[assignment]  # as above
        each.status.change_time.GetCurrentTime()
        self._news.set()

    def _fail(self, each: Operation, fault: int, reason: str) -> None:
        each.status.fault = fault  # type: ignore[assignment]  # as above
        each.status.reason = reason
        self._turn(each, _ABORTED)

    def _run(self, each: Operation) -> None:
        assign = each.assign
        if not assign.to_digest:
            self.components.pop(assign.component, None)
            return
        component = node_pb2.ComponentStatus(
            name=assign.component,
            version=assign.to_version,
            digest=assign.to_digest,
            permanent_digest=assign.to_digest,
            health=node_pb2.HEALTH_HEALTHY,
        )
        component.healthy_for.FromSeconds(HEALTHY_SECONDS)
        component.stopped = assign.kind == operation_pb2.CHANGE_KIND_STOP
        self.components[assign.component] = component

    def _proceed(self, proceed: agent_service_pb2.Proceed) -> None:
        each = self.operations.get(proceed.operation_id)
        if each is None or each.status.state != _HELD or each.status.step != proceed.step:
            return
        self._turn(each, _HELD if proceed.hold_before else _RUNNING, proceed.hold_before)

    def _cancel(self, cancel: agent_service_pb2.Cancel) -> None:
        each = self.operations.get(cancel.operation_id)
        if each is not None and each.status.state < _COMMITTED:
            self._fail(each, operation_pb2.FAULT_COMMAND, "cancelled")
        elif each is not None:
            each.told_in = 0
            self._news.set()


_ACCEPTED, _RUNNING, _HELD = (_STATES.Value(f"OPERATION_STATE_{name}") for name in ("ACCEPTED", "RUNNING", "HELD"))
_COMMITTED, _PERMANENT = (_STATES.Value(f"OPERATION_STATE_{name}") for name in ("COMMITTED", "PERMANENT"))
_ABORTED = _STATES.Value("OPERATION_STATE_ABORTED")


def _is_over(each: Operation) -> bool:
    return each.status.state > _COMMITTED


def _status(assign: agent_service_pb2.Assign, state: str) -> operation_pb2.OperationStatus:
    told = operation_pb2.OperationStatus(
        operation_id=assign.operation_id,
        fence=assign.fence,
        component=assign.component,
        state=_STATES.Value(f"OPERATION_STATE_{state}"),
        step=operation_pb2.STEP_FETCH,
    )
    told.change_time.GetCurrentTime()
    return told
