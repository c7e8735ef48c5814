"""Every act of the API leaves a row in the audit log, done or refused: who, what, to what, why, and what came of it.

A method that is new has to be added here: as an act that the scenario does, or with the reason why it leaves no row.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf import duration_pb2, message
from grpc import aio

from controller.core.audit import chain
from controller.engine import acts
from controller.rpc import errors as rpc_errors
from controller.rpc import policies, principals
from instar.v1 import (
    agent_service_pb2,
    audit_service_pb2,
    audit_service_pb2_grpc,
    enrolment_service_pb2,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    release_pb2,
    release_service_pb2,
    release_service_pb2_grpc,
    rollout_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
    trigger_pb2,
    trigger_service_pb2,
    trigger_service_pb2_grpc,
)
from tests.controller.cli import house

DEADLINE_SECONDS = 60.0
pytestmark = pytest.mark.asyncio(loop_scope="module")
SERVICES = [
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (agent_service_pb2, "AgentService"),
        (audit_service_pb2, "AuditService"),
        (enrolment_service_pb2, "EnrolmentService"),
        (fleet_service_pb2, "FleetService"),
        (release_service_pb2, "ReleaseService"),
        (rollout_service_pb2, "RolloutService"),
        (trigger_service_pb2, "TriggerService"),
    )
]
READS = re.compile(r"(Explain|Export|Get|List|Verify|Watch)[A-Za-z]*")
UNAUDITED: Mapping[str, str] = {
    "BeginRecovery": "nothing is kept of a challenge",
    "Connect": "what nodes say is state; what follows from it has rows of its own",
    "Enrol": "its row is node.enrol, written with the certificate: the door knows nobody yet",
    "PlanUpgrade": "nothing moves; it has a row where it is refused",
    "ReadBlob": "an agent fetches what an operation told it to, and the operation follows from rows",
    "ReadTrust": "as ReadBlob: an agent fetches what it verifies by",
    "Recover": "its row is node.recover, as that of Enrol",
    "Renew": "its row is node.renew, as that of Enrol",
    "SendEvents": "an event is no act; each firing that it raises has rows, which name it",
    "TestTrigger": "nothing changes: it looks at the past",
}
UNCHANGING = {"PlanUpgrade", "ReadLog", "TestTrigger"}
# Acts that need more than this controller has: only their refusal is seen here.
ELSEWHERE: Mapping[str, str] = {
    "PutTrust": "it needs signed metadata",
    "MakeJoinToken": "it needs TLS: tests/security/test_enrolment.py",
    "PermitRecovery": "it needs TLS: tests/security/test_enrolment.py",
}
INSTALLED: Mapping[str, Any] = {
    "soak_duration": duration_pb2.Duration(),
    "min_healthy_duration": duration_pb2.Duration(nanos=100_000_000),
}
HOUR = duration_pb2.Duration(seconds=3600)
TERMINAL = {"SUCCEEDED", "FAILED", "CANCELLED", "REVERTED", "STUCK"}


def asked_for(method: str) -> str:
    """What is asked for by a method, as the engine calls it."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method).lower()


async def test_every_method_that_is_served_is_an_act_or_only_reads_or_has_a_reason_to_leave_no_row() -> None:
    methods = {each.name for service in SERVICES for each in service.methods}
    acting = {each for each in methods if asked_for(each) in acts.NAMES}
    reading = {each for each in methods if READS.fullmatch(each)}
    assert methods == acting | reading | UNAUDITED.keys()
    assert not acting & (reading | UNAUDITED.keys())
    assert {asked_for(each) for each in acting} == set(acts.NAMES)


async def test_whatever_changes_something_takes_a_request_identity() -> None:
    for name, policy in policies.POLICIES.items():
        method = name.rpartition("/")[2]
        if policy.kind is not principals.Kind.API or READS.fullmatch(method) or method in UNCHANGING:
            continue
        asked = next(each for service in SERVICES for each in service.methods if each.name == method).input_type
        if method == "PublishRelease":
            asked = asked.fields_by_name["header"].message_type
        assert "request_id" in asked.fields_by_name, method


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def refused(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Actors]:
    """One controller for all that is refused."""
    async with standing(tmp_path_factory.mktemp("refused")) as (_, actors):
        yield actors


class Actors:
    """Callers of a real controller, and what the audit log says of each of their calls."""

    def __init__(self, channel: aio.Channel, tokens: Mapping[str, str]) -> None:
        self._tokens = tokens
        self._stubs: Any = [
            audit_service_pb2_grpc.AuditServiceStub(channel),
            fleet_service_pb2_grpc.FleetServiceStub(channel),
            release_service_pb2_grpc.ReleaseServiceStub(channel),
            rollout_service_pb2_grpc.RolloutServiceStub(channel),
            trigger_service_pb2_grpc.TriggerServiceStub(channel),
        ]
        self._numbers = itertools.count()
        self.repeats = False
        self.done = set[str]()

    def method(self, name: str) -> Any:  # noqa: ANN401  # of whatever service
        return next(getattr(each, name) for each in self._stubs if hasattr(each, name))

    async def ask(self, name: str, request: Any, actor: str = "operator") -> Any:  # noqa: ANN401  # any message
        metadata = (("authorization", f"Bearer {self._tokens[actor]}"),)
        if not hasattr(request, "request_id") or not self.repeats:
            return await self.method(name)(request, metadata=metadata, timeout=DEADLINE_SECONDS)
        asked = type(request)()
        asked.CopyFrom(request)
        asked.request_id = asked.request_id or f"{name}-{next(self._numbers)}"
        first = await self.method(name)(asked, metadata=metadata, timeout=DEADLINE_SECONDS)
        row = None if name == "SendEvents" else await self.latest(actor)
        again = await self.method(name)(asked, metadata=metadata, timeout=DEADLINE_SECONDS)
        assert again == first, name
        assert row is None or await self.latest(actor) == row, name  # it did nothing
        return first

    async def latest(self, actor: str) -> Any:  # noqa: ANN401  # a row
        wanted = audit_service_pb2.ListAuditRequest(actor=actor, page_size=1)
        [row] = (await self.ask("ListAudit", wanted)).rows
        assert row.actor == actor
        return row

    async def act(self, name: str, request: message.Message, subject: str, actor: str = "operator") -> Any:  # noqa: ANN401
        """Call a method that does something; its row is the actor's latest."""
        answer = await self.ask(name, request, actor)
        await self.is_audited(name, request, subject, actor)
        return answer

    async def is_audited(self, name: str, request: message.Message, subject: str, actor: str = "operator") -> None:
        wanted = audit_service_pb2.ListAuditRequest(actor=actor, action=acts.NAMES[asked_for(name)], page_size=1)
        rows = (await self.ask("ListAudit", wanted)).rows
        assert len(rows) == 1, name
        reason = getattr(request, "reason", "")
        assert (rows[0].subject, rows[0].result) == (subject, chain.DONE), name
        assert reason in rows[0].reason, name
        self.done.add(name)

    async def end_of(self, rollout: rollout_pb2.Rollout) -> str:
        return await self.seen(rollout, lambda state, _: state in TERMINAL)

    async def seen(self, rollout: rollout_pb2.Rollout, condition: Any) -> str:  # noqa: ANN401  # a predicate
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                request = rollout_service_pb2.GetRolloutRequest(rollout=rollout.rollout_id)
                found = (await self.ask("GetRollout", request)).rollout
                state: str = rollout_pb2.RolloutState.Name(found.state).removeprefix("ROLLOUT_STATE_")
                if condition(state, found):
                    return state
                await asyncio.sleep(0.05)


@asynccontextmanager
async def standing(folder: Path) -> AsyncIterator[tuple[house.House, Actors]]:
    home = house.House(folder)
    async with home.serving():
        file = folder / "bob.token"
        assert (await home.instar("controller", "token", "bob", "--out", file)).code == 0
        async with aio.insecure_channel(home.address) as channel:
            yield home, Actors(channel, {"operator": home.operator_token, "bob": file.read_text().strip()})


def start(version: str, name: str, **more: Any) -> rollout_service_pb2.StartUpgradeRequest:  # noqa: ANN401  # any field
    policy = rollout_pb2.Policy(**INSTALLED, **more.pop("policy", {}))
    upgrade = rollout_pb2.UpgradeRequest(
        component="web", target_version=version, name=name, install=True, downgrade_allowed=True, policy=policy, **more
    )
    upgrade.strategy = rollout_pb2.STRATEGY_ROLLING
    return rollout_service_pb2.StartUpgradeRequest(upgrade=upgrade, request_id=name)


@pytest.mark.timeout(600)
async def test_every_act_leaves_a_row_with_actor_action_subject_reason_and_result(tmp_path: Path) -> None:
    async with standing(tmp_path) as (home, actors):
        actors.repeats = True  # each act comes twice under one request identity, and is done once
        await of_releases(home, actors)
        is_busy = True

        def answer(node_id: str, assign: agent_service_pb2.Assign) -> agent_service_pb2.Report:
            return house.work_on(node_id, assign) if is_busy else house.succeed(node_id, assign)

        async with home.nodes("n-1", "n-2", answer=answer):
            first = (await actors.ask("StartUpgrade", start("1.0.0", "first"))).rollout
            await actors.is_audited("StartUpgrade", rollout_service_pb2.StartUpgradeRequest(), first.rollout_id)
            await led(actors, first, "Pause", "Resume", "Cancel")
            assert await actors.end_of(first) == "CANCELLED"
            is_busy = False
            await led(actors, first, "Retry")
            assert await actors.end_of(first) == "SUCCEEDED"
            await of_rollouts(actors)
            await of_nodes(actors)
            await of_triggers(actors)
        removed = fleet_service_pb2.RemoveNodeRequest(node_id="n-2", reason="gone")
        await actors.act("RemoveNode", removed, "n-2")
        acting = {each.name for one in SERVICES for each in one.methods if asked_for(each.name) in acts.NAMES}
        assert actors.done == acting - ELSEWHERE.keys()
        verified = await home.instar("audit", "verify", "-o", "json")
        assert (verified.code, verified.document["findings"]) == (0, []), verified


async def of_releases(home: house.House, actors: Actors) -> None:
    service = release_service_pb2
    for version in ("1.0.0", "1.1.0"):
        digest = await home.publish(version)
        await actors.is_audited("PublishRelease", service.BlockReleaseRequest(reason=digest), f"web {version}")
    blocked = service.BlockReleaseRequest(component="web", version="1.1.0", reason="not yet")
    await actors.act("BlockRelease", blocked, "web 1.1.0")
    blocked.reason = ""
    await actors.ask("BlockRelease", blocked)
    row = await actors.latest("operator")
    assert (row.action, row.subject, row.result) == ("release.unblock", "web 1.1.0", chain.DONE)
    promoted = service.PromoteReleaseRequest(component="web", version="1.1.0", channel="stable")
    await actors.act("PromoteRelease", promoted, "web 1.1.0")


async def led(actors: Actors, rollout: rollout_pb2.Rollout, *verbs: str) -> None:
    for verb in verbs:
        request = getattr(rollout_service_pb2, f"{verb}RolloutRequest")(rollout=rollout.rollout_id, reason=f"to {verb}")
        await actors.act(f"{verb}Rollout", request, rollout.rollout_id)


async def of_rollouts(actors: Actors) -> None:
    service = rollout_service_pb2
    baked = (await actors.ask("StartUpgrade", start("1.1.0", "second", policy={"bake_duration": HOUR}))).rollout
    await actors.seen(baked, lambda _, found: found.waiting_for)
    await led(actors, baked, "Promote", "Revert")
    assert await actors.end_of(baked) == "REVERTED"
    asked = start("1.1.0", "third", approval_deadline=HOUR)
    third = (await actors.ask("StartUpgrade", asked)).rollout
    denied = service.DenyRolloutRequest(rollout=third.rollout_id, reason="too risky")
    await actors.act("DenyRollout", denied, third.rollout_id, "bob")
    fourth = (await actors.ask("StartUpgrade", start("1.1.0", "fourth", approval_deadline=HOUR))).rollout
    approved = service.ApproveRolloutRequest(rollout=fourth.rollout_id, reason="looks good")
    await actors.act("ApproveRollout", approved, fourth.rollout_id, "bob")
    assert await actors.end_of(fourth) == "SUCCEEDED"
    burning = service.RollBackEmergencyRequest(component="web", reason="it burns")
    back = await actors.ask("RollBackEmergency", burning)
    await actors.is_audited("RollBackEmergency", burning, back.freeze_id)
    for one in back.rollouts:
        await actors.end_of(one)
    lifted = fleet_service_pb2.RemoveFreezeRequest(freeze_id=back.freeze_id, reason="it burns no more")
    await actors.act("RemoveFreeze", lifted, back.freeze_id)
    graph = release_pb2.VersionGraph(
        component="web", edges=[release_pb2.Edge(from_versions="1.0.0", to_version="1.1.0")]
    )
    await actors.act("PutGraph", release_service_pb2.PutGraphRequest(graph=graph), "web")


async def of_nodes(actors: Actors) -> None:
    service = fleet_service_pb2
    await actors.act("LabelNode", service.LabelNodeRequest(node_id="n-2", labels={"tier": "edge"}), "n-2")
    await actors.act("CordonNode", service.CordonNodeRequest(node_id="n-2", reason="new disk"), "n-2")
    await actors.act("UncordonNode", service.UncordonNodeRequest(node_id="n-2"), "n-2")
    await actors.act("QuarantineNode", service.QuarantineNodeRequest(node_id="n-2", reason="strange"), "n-2")
    await actors.act("ReadLog", service.ReadLogRequest(node_id="n-1", component="web"), "n-1 web")
    request = service.AddFreezeRequest(freeze=service.Freeze(selector="zone=a", reason="holidays"))
    freeze = (await actors.ask("AddFreeze", request)).freeze
    await actors.is_audited("AddFreeze", request.freeze, freeze.freeze_id)


async def of_triggers(actors: Actors) -> None:
    service = trigger_service_pb2
    trigger = trigger_pb2.Trigger(name="tell", by_hand=trigger_pb2.ByHand(), notify=trigger_pb2.Notify(message="hello"))
    trigger.guards.cooldown.FromSeconds(0)
    trigger.guards.approval.deadline.CopyFrom(HOUR)
    await actors.act("ApplyTrigger", service.ApplyTriggerRequest(trigger=trigger), "tell")
    await actors.act("EnableTrigger", service.EnableTriggerRequest(name="tell", reason="it is time"), "tell")
    for verb in ("Approve", "Deny"):
        fired = await actors.act("FireTrigger", service.FireTriggerRequest(name="tell", reason=f"to {verb}"), "tell")
        decided = getattr(service, f"{verb}FiringRequest")(firing_id=fired.firing.firing_id, reason="so it is")
        await actors.act(f"{verb}Firing", decided, fired.firing.firing_id, "bob")
    await actors.act("DisableTrigger", service.DisableTriggerRequest(name="tell", reason="no more"), "tell")
    await actors.act("RemoveTrigger", service.RemoveTriggerRequest(name="tell", reason="no use"), "tell")


async def stream_of(part: message.Message) -> AsyncIterator[message.Message]:
    yield part


async def test_every_act_that_is_refused_leaves_a_row_by_the_same_name_with_the_code_of_the_refusal(
    refused: Actors,
) -> None:
    for each in (each for one in SERVICES for each in one.methods if asked_for(each.name) in acts.NAMES):
        if each.name == "ReadLog":
            continue  # what only reads is not put on the record where it is refused
        empty = each.input_type._concrete_class()
        request: Any = stream_of(empty) if each.client_streaming else empty
        with pytest.raises(aio.AioRpcError) as caught:
            await refused.ask(each.name, request, "bob")
        row = await refused.latest("bob")
        found = rpc_errors.from_rpc(caught.value)
        assert (row.action, row.result) == (acts.NAMES[asked_for(each.name)], found.code), each.name
        assert row.reason == str(found)[:1024], each.name


@pytest.mark.parametrize(
    ("method", "request_", "subject"),
    [
        ("CordonNode", fleet_service_pb2.CordonNodeRequest(node_id="n-9"), "n-9"),
        ("CordonNode", fleet_service_pb2.CordonNodeRequest(node_id="n-9", reason="x"), "n-9"),
        ("PauseRollout", rollout_service_pb2.PauseRolloutRequest(rollout="r-9", reason="x"), "r-9"),
        ("BlockRelease", release_service_pb2.BlockReleaseRequest(component="web", version="9.0.0"), "web 9.0.0"),
        ("ApplyTrigger", trigger_service_pb2.ApplyTriggerRequest(trigger=trigger_pb2.Trigger(name="t")), "t"),
        (
            "PutGraph",
            release_service_pb2.PutGraphRequest(
                graph=release_pb2.VersionGraph(component="web", barriers=[release_pb2.Barrier(version="x")])
            ),
            "web",
        ),
        (
            "StartUpgrade",
            rollout_service_pb2.StartUpgradeRequest(upgrade=rollout_pb2.UpgradeRequest(component="web")),
            "web",
        ),
        ("DenyFiring", trigger_service_pb2.DenyFiringRequest(firing_id="t-9.1"), "t-9.1"),
    ],
)
async def test_what_is_refused_names_what_it_would_have_been_done_to(
    refused: Actors, method: str, request_: message.Message, subject: str
) -> None:
    with pytest.raises(aio.AioRpcError):
        await refused.ask(method, request_, "bob")
    row = await refused.latest("bob")
    assert (row.action, row.subject) == (acts.NAMES[asked_for(method)], subject)
