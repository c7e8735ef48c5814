"""What is asked of a controller that dies: stories that take it through every kind of transition, each to its end.

Rules kept here: a story says what must come of each order, whatever dies meanwhile; nothing in it depends on when. Left
out: how one goes on after a death (`callers`), and where death waits (`crashes`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from google.protobuf import duration_pb2

from controller import releases
from instar.v1 import (
    fleet_service_pb2,
    node_pb2,
    operation_pb2,
    release_service_pb2,
    rollout_pb2,
    rollout_service_pb2,
)
from tests.faults import callers, light_agents

FIRST, SECOND, THIRD = "1.0.0", "1.1.0", "1.2.0"
FOURTH, FIFTH, SIXTH = "1.9.1", "1.9.2", "1.9.3"  # above those that do not go well
VERSIONS = (
    *(FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH),
    *(light_agents.SLOW, light_agents.BAD),
)
WEB = light_agents.COMPONENT
Seen = rollout_pb2.Rollout
_States = rollout_pb2.RolloutState
IMMEDIATE, CANARY = rollout_pb2.STRATEGY_IMMEDIATE, rollout_pb2.STRATEGY_CANARY


@dataclass(frozen=True, slots=True)
class Teller:
    """Who tells a story: what it can do.

    Args:
        agents: By the id of the node.
        bundles: By version.
    """

    caller: callers.Caller
    agents: Mapping[str, light_agents.Agent]
    bundles: Mapping[str, Path]

    async def publish(self, *versions: str) -> None:
        """Publish releases."""
        for version in versions:
            mark = callers.Mark("release.publish", f"{WEB} {version}")
            bundle = self.bundles[version]
            await self.caller.act("releases.PublishRelease", lambda bundle=bundle: _pieces(bundle), mark)

    async def start(
        self,
        name: str,
        version: str,
        strategy: rollout_pb2.Strategy.ValueType = IMMEDIATE,
        more_policy: rollout_pb2.Policy | None = None,
        *,
        is_planned: bool = False,
        **more: object,
    ) -> str:
        """Begin a rollout, under an identity; from a saved plan where that is wanted. Returns its id."""
        request = rollout_pb2.UpgradeRequest(
            name=name, component=WEB, target_version=version, strategy=strategy, policy=policy(more_policy)
        )
        request.MergeFrom(rollout_pb2.UpgradeRequest(**more))  # type: ignore[arg-type]  # fields of that message
        plan = None
        if is_planned:
            asked = rollout_service_pb2.PlanUpgradeRequest(upgrade=request)
            plan = (await self.caller.read("rollouts.PlanUpgrade", asked)).plan
        wanted = rollout_service_pb2.StartUpgradeRequest(upgrade=request, request_id=f"id-{name}", plan=plan)
        answer = await self.caller.once(
            "rollouts.StartUpgrade",
            wanted,
            lambda found: str(found.rollout.rollout_id),
            callers.Mark("rollout.start"),
        )
        return str(answer.rollout.rollout_id)

    async def verb(self, word: str, rollout_id: str, *states: str) -> None:
        """Order something of a rollout, which then is in one of some states."""
        mark = callers.Mark(f"rollout.{word}", rollout_id)
        order = getattr(rollout_service_pb2, f"{word.capitalize()}RolloutRequest")
        asked = order(rollout=rollout_id, reason=f"to {word} it")
        wanted = {_States.Value(f"ROLLOUT_STATE_{state}") for state in states}

        async def is_so() -> bool:
            return (await self.caller.rollout(rollout_id)).state in wanted

        look = is_so if states else None
        await self.caller.act(f"rollouts.{word.capitalize()}Rollout", asked, mark, rollout_id, look)

    async def runs(self, version: str, *node_ids: str) -> None:
        """Wait until nodes have a version by the word of the controller, and no operation."""
        wanted = node_ids or tuple(self.agents)

        async def is_so() -> bool:
            answer = await self.caller.read("fleet.ListNodes", fleet_service_pb2.ListNodesRequest())
            found = [each for each in answer.nodes if each.node_id in wanted and not each.operation_id]
            return [_version(each) for each in found] == [version] * len(wanted)

        await self.caller.come_true(f"{', '.join(wanted)} run {version}", is_so)

    async def thaw(self, freeze_id: str) -> None:
        """Lift a freeze."""
        asked = fleet_service_pb2.RemoveFreezeRequest(freeze_id=freeze_id, reason="it is over")

        async def is_gone() -> bool:
            answer = await self.caller.read("fleet.ListFreezes", fleet_service_pb2.ListFreezesRequest())
            return freeze_id not in {each.freeze_id for each in answer.freezes}

        mark = callers.Mark("freeze.remove", freeze_id)
        await self.caller.act("fleet.RemoveFreeze", asked, mark, f"freeze {freeze_id}", is_gone)


Story = Callable[[Teller], Awaitable[None]]


async def rollouts(teller: Teller) -> None:
    """Every verb of a rollout, and every end."""
    caller = teller.caller
    await teller.publish(*VERSIONS)
    await teller.runs("")
    first = await teller.start("install", FIRST, install=True, is_planned=True)
    await caller.ended(first, "SUCCEEDED")
    await _by_hand(teller)
    await _bad(teller)
    await _again_and_back(teller)
    await _given_up(teller)
    await _emergency(teller)
    await _approved(teller)
    await _together(teller)


async def _by_hand(teller: Teller) -> None:
    by_hand = rollout_pb2.Policy(promoted_by_hand=True)
    canary = await teller.start("canary", SECOND, CANARY, by_hand, canary=rollout_pb2.CanaryParameters(nodes=1))
    await teller.caller.until(canary, lambda one: _done(one) == 1)
    await teller.verb("pause", canary, "PAUSED")
    await teller.verb("resume", canary, "RUNNING")
    await teller.verb("promote", canary, "RUNNING", "SUCCEEDED")
    await teller.caller.ended(canary, "SUCCEEDED")
    await teller.runs(SECOND)


async def _bad(teller: Teller) -> None:
    bad = await teller.start("bad", light_agents.BAD, CANARY, canary=rollout_pb2.CanaryParameters(nodes=1))
    await teller.caller.ended(bad, "REVERTED")
    await teller.runs(SECOND)


async def _again_and_back(teller: Teller) -> None:
    back = await teller.start("back", THIRD)
    await teller.caller.ended(back, "SUCCEEDED")
    await teller.verb("revert", back, "REVERTING", "REVERTED")
    await teller.caller.ended(back, "REVERTED")
    await teller.runs(SECOND)
    await teller.verb("retry", back, "RUNNING", "SUCCEEDED")
    await teller.caller.ended(back, "SUCCEEDED")
    await teller.runs(THIRD)


async def _given_up(teller: Teller) -> None:
    slow = await teller.start("slow", light_agents.SLOW)
    await teller.caller.until(slow, lambda one: at_work(one) == len(teller.agents))
    queued = await teller.start("queued", FOURTH, conflict=rollout_pb2.CONFLICT_POLICY_QUEUE)
    await teller.verb("cancel", slow)
    await teller.caller.ended(slow, "CANCELLED")
    await teller.caller.ended(queued, "SUCCEEDED")
    await teller.runs(FOURTH)


async def _emergency(teller: Teller) -> None:
    caller, reason = teller.caller, "it burns"
    last = await teller.start("last", FIFTH)
    await caller.ended(last, "SUCCEEDED")
    asked = rollout_service_pb2.RollBackEmergencyRequest(component=WEB, reason=reason)
    await caller.act("rollouts.RollBackEmergency", asked, callers.Mark("rollback.emergency", "", reason))
    await caller.ended(last, "REVERTED")
    await teller.runs(FOURTH)
    freezes = (await caller.read("fleet.ListFreezes", fleet_service_pb2.ListFreezesRequest())).freezes
    [freeze] = [each for each in freezes if each.emergency]
    await teller.thaw(freeze.freeze_id)


async def _approved(teller: Teller) -> None:
    caller, deadline = teller.caller, span(timedelta(minutes=10))
    denied = await teller.start("denied", FIFTH, approval_deadline=deadline)
    asked = rollout_service_pb2.DenyRolloutRequest(rollout=denied, reason="not today")
    await caller.act("rollouts.DenyRollout", asked, callers.Mark("approval.deny", denied))
    await caller.ended(denied, "CANCELLED")
    approved = await teller.start("approved", FIFTH, approval_deadline=deadline)
    yes = rollout_service_pb2.ApproveRolloutRequest(rollout=approved, reason="go")
    await caller.act("rollouts.ApproveRollout", yes, callers.Mark("approval.approve", approved))
    await caller.ended(approved, "SUCCEEDED")
    await teller.runs(FIFTH)


async def _together(teller: Teller) -> None:
    green = await teller.start("green", SIXTH, rollout_pb2.STRATEGY_BLUE_GREEN)
    await teller.caller.ended(green, "SUCCEEDED")
    await teller.runs(SIXTH)


def _pieces(bundle: Path) -> Iterator[release_service_pb2.PublishReleaseRequest]:
    measured = releases.measure(bundle)
    header = release_service_pb2.PublishReleaseHeader(digest=measured.digest, size_bytes=measured.size_bytes)
    yield release_service_pb2.PublishReleaseRequest(header=header)
    yield release_service_pb2.PublishReleaseRequest(chunk=bundle.read_bytes())


def policy(more: rollout_pb2.Policy | None = None) -> rollout_pb2.Policy:
    """A policy that waits for nothing."""
    instant = span(timedelta(seconds=0.1))
    made = rollout_pb2.Policy(soak_duration=instant, min_healthy_duration=instant)
    if more is not None:
        made.MergeFrom(more)
    return made


def span(wanted: timedelta) -> duration_pb2.Duration:
    """A span of time as a message."""
    message = duration_pb2.Duration()
    message.FromTimedelta(wanted)
    return message


def _version(node: node_pb2.Node) -> str:
    return next((each.version for each in node.components if each.name == WEB), "")


def _done(one: Seen) -> int:
    return sum(each.state == operation_pb2.OPERATION_STATE_PERMANENT for each in one.changes)


def at_work(one: Seen) -> int:
    """How many changes are being made."""
    return sum(each.state == operation_pb2.OPERATION_STATE_RUNNING for each in one.changes)
