"""The story of a fleet: what people do to its nodes, to freezes, to releases and to triggers, each to its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta

from instar.v1 import (
    fleet_service_pb2,
    node_pb2,
    release_service_pb2,
    rollout_pb2,
    rollout_service_pb2,
    trigger_pb2,
    trigger_service_pb2,
)
from tests.faults import callers, light_agents, stage, stories

WEB = light_agents.COMPONENT
BY_HAND, DENIED, BY_EVENT, BY_CHANNEL = "by-hand", "denied", "by-event", "by-channel"
_Firings = trigger_pb2.FiringState


async def fleet(teller: stories.Teller) -> None:
    """All of it."""
    await teller.publish(stories.FIRST, stories.SECOND, light_agents.SLOW)
    await teller.runs("")
    first = await teller.start("install", stories.FIRST, install=True)
    await teller.caller.ended(first, "SUCCEEDED")
    await teller.runs(stories.FIRST)
    await _nodes(teller)
    await _in_the_midst(teller)
    await _freeze(teller)
    await _triggers(teller)


async def _nodes(teller: stories.Teller) -> None:
    act = teller.caller.act
    label = fleet_service_pb2.LabelNodeRequest(node_id="n1", labels={"tier": "front"})
    mark = callers.Mark("node.label", "n1")
    await act("fleet.LabelNode", label, mark, "n1 labelled", _node(teller, "n1", lambda one: "tier" in one.labels))
    cordon = fleet_service_pb2.CordonNodeRequest(node_id="n2", reason="a new disk")
    is_cordoned = _node(teller, "n2", lambda one: bool(one.cordon_reason))
    await act("fleet.CordonNode", cordon, callers.Mark("node.cordon", "n2", "a new disk"), "n2", is_cordoned)
    is_free = _node(teller, "n2", lambda one: not one.cordon_reason and not one.quarantine_reason)
    uncordon = fleet_service_pb2.UncordonNodeRequest(node_id="n2")
    await act("fleet.UncordonNode", uncordon, callers.Mark("node.uncordon", "n2"), "n2", is_free)
    lock = fleet_service_pb2.QuarantineNodeRequest(node_id="n3", reason="it lies")
    is_locked = _node(teller, "n3", lambda one: bool(one.quarantine_reason))
    await act("fleet.QuarantineNode", lock, callers.Mark("node.quarantine", "n3", "it lies"), "n3", is_locked)
    unlock = fleet_service_pb2.UncordonNodeRequest(node_id="n3")
    is_trusted = _node(teller, "n3", lambda one: not one.quarantine_reason)
    await act("fleet.UncordonNode", unlock, callers.Mark("node.uncordon", "n3"), "n3", is_trusted)


async def _in_the_midst(teller: stories.Teller) -> None:
    """Cordon and remove nodes of a rollout that is under way; who was removed stays away."""
    policy = rollout_pb2.Policy(max_parallel=1)
    slow = await teller.start("slow", light_agents.SLOW, more_policy=policy)
    await teller.caller.until(slow, lambda one: stories.at_work(one) == 1)
    found = await teller.caller.rollout(slow)
    waiting = [each.change.node_id for each in found.changes if not each.operation_id]
    cordon = fleet_service_pb2.CordonNodeRequest(node_id=waiting[0], reason="in the midst")
    mark = callers.Mark("node.cordon", waiting[0], "in the midst")
    await teller.caller.act("fleet.CordonNode", cordon, mark)
    remove = fleet_service_pb2.RemoveNodeRequest(node_id=waiting[1], reason="sold")
    mark = callers.Mark("node.remove", waiting[1], "sold")

    async def is_gone() -> bool:
        return waiting[1] not in await _nodes_of(teller)

    await teller.caller.act("fleet.RemoveNode", remove, mark, waiting[1], is_gone)
    await teller.verb("cancel", slow)
    await teller.caller.ended(slow, "CANCELLED")
    uncordon = fleet_service_pb2.UncordonNodeRequest(node_id=waiting[0])
    await teller.caller.act("fleet.UncordonNode", uncordon, callers.Mark("node.uncordon", waiting[0]))
    await teller.runs(stories.FIRST, *await _nodes_of(teller))


async def _freeze(teller: stories.Teller) -> None:
    wanted = fleet_service_pb2.Freeze(selector="tier=front", reason="a feast")
    asked = fleet_service_pb2.AddFreezeRequest(freeze=wanted)
    await teller.caller.act("fleet.AddFreeze", asked, callers.Mark("freeze.add", "", "a feast"))
    answer = await teller.caller.read("fleet.ListFreezes", fleet_service_pb2.ListFreezesRequest())
    [freeze_id] = [each.freeze_id for each in answer.freezes]
    await teller.thaw(freeze_id)


async def _triggers(teller: stories.Teller) -> None:
    caller = teller.caller
    notify = trigger_pb2.Notify(message="look")
    asking = trigger_pb2.Guards(
        approval=trigger_pb2.ApprovalGuard(deadline=stories.span(timedelta(minutes=10)), by_another=False)
    )
    for name in (BY_HAND, DENIED):
        by_hand = trigger_pb2.ByHand()
        await _apply(
            teller,
            trigger_pb2.Trigger(
                name=name, kind=trigger_pb2.TRIGGER_KIND_MANUAL, by_hand=by_hand, notify=notify, guards=asking
            ),
        )
    upgrade = rollout_pb2.UpgradeRequest(
        component=WEB, target_version=stories.SECOND, strategy=stories.IMMEDIATE, policy=stories.policy()
    )
    event = trigger_pb2.EventMatch(type="deploy")
    await _apply(
        teller, trigger_pb2.Trigger(name=BY_EVENT, kind=trigger_pb2.TRIGGER_KIND_EVENT, event=event, upgrade=upgrade)
    )
    moved = trigger_pb2.VersionAvailable(component=WEB, channel="stable")
    await _apply(
        teller,
        trigger_pb2.Trigger(
            name=BY_CHANNEL, kind=trigger_pb2.TRIGGER_KIND_VERSION_AVAILABLE, version_available=moved, notify=notify
        ),
    )
    yes = await _fire(teller, BY_HAND)
    approve = trigger_service_pb2.ApproveFiringRequest(firing_id=yes, reason="go")
    await caller.act("triggers.ApproveFiring", approve, callers.Mark("firing.approve", yes))
    await _fired(teller, BY_HAND, {_Firings.FIRING_STATE_SUCCEEDED: 1})
    no = await _fire(teller, DENIED)
    deny = trigger_service_pb2.DenyFiringRequest(firing_id=no, reason="no")
    await caller.act("triggers.DenyFiring", deny, callers.Mark("firing.deny", no))
    await _send(teller)
    await _fired(teller, BY_EVENT, {_Firings.FIRING_STATE_SUCCEEDED: 1})
    await teller.runs(stories.SECOND, *await _nodes_of(teller))
    await _one_rollout(teller, BY_EVENT)
    promote = release_service_pb2.PromoteReleaseRequest(component=WEB, version=light_agents.SLOW, channel="stable")
    await caller.act("releases.PromoteRelease", promote, callers.Mark("release.promote", f"{WEB} {light_agents.SLOW}"))
    await _fired(teller, BY_CHANNEL, {_Firings.FIRING_STATE_SUCCEEDED: 1})
    block = release_service_pb2.BlockReleaseRequest(component=WEB, version=light_agents.SLOW, reason="slow")
    await caller.act("releases.BlockRelease", block, callers.Mark("release.block", f"{WEB} {light_agents.SLOW}"))
    disable = trigger_service_pb2.DisableTriggerRequest(name=BY_HAND, reason="enough")
    await caller.act("triggers.DisableTrigger", disable, callers.Mark("trigger.disable", BY_HAND))
    remove = trigger_service_pb2.RemoveTriggerRequest(name=BY_HAND, reason="enough")
    await caller.act("triggers.RemoveTrigger", remove, callers.Mark("trigger.remove", BY_HAND))


async def _apply(teller: stories.Teller, trigger: trigger_pb2.Trigger) -> None:
    name = trigger.name
    asked = trigger_service_pb2.ApplyTriggerRequest(trigger=trigger)
    await teller.caller.act("triggers.ApplyTrigger", asked, callers.Mark("trigger.apply", name))
    enable = trigger_service_pb2.EnableTriggerRequest(name=name, reason="now")
    await teller.caller.act("triggers.EnableTrigger", enable, callers.Mark("trigger.enable", name))


async def _fire(teller: stories.Teller, name: str) -> str:
    asked = trigger_service_pb2.FireTriggerRequest(name=name, reason="now", request_id=f"id-{name}")
    mark = callers.Mark("trigger.fire", name)
    answer = await teller.caller.once("triggers.FireTrigger", asked, lambda found: str(found.firing.firing_id), mark)
    return str(answer.firing.firing_id)


async def _send(teller: stories.Teller) -> None:
    """Send an event again and again until that is answered: it is an occasion once."""
    event = trigger_pb2.Event(source="ci", id="e1", spec_version="1.0", type="deploy", data="{}")
    await teller.caller.read("triggers.SendEvents", trigger_service_pb2.SendEventsRequest(events=[event]))


async def _fired(teller: stories.Teller, name: str, wanted: dict[int, int]) -> None:
    async def is_so() -> bool:
        asked = trigger_service_pb2.ListFiringsRequest(trigger=name)
        found = (await teller.caller.read("triggers.ListFirings", asked)).firings
        return {state: [each.state for each in found].count(state) for state in wanted} == wanted

    await teller.caller.come_true(f"{name} has fired {wanted}", is_so)


async def _one_rollout(teller: stories.Teller, trigger: str) -> None:
    asked = rollout_service_pb2.ListRolloutsRequest(page_size=100)
    found = (await teller.caller.read("rollouts.ListRollouts", asked)).rollouts
    begun: Collection[str] = [each.name for each in found if each.actor == f"trigger:{trigger}"]
    if len(begun) != 1:
        raise stage.Violation(f"trigger {trigger} began {len(begun)} rollouts, not 1")


async def _nodes_of(teller: stories.Teller) -> Collection[str]:
    answer = await teller.caller.read("fleet.ListNodes", fleet_service_pb2.ListNodesRequest())
    return [each.node_id for each in answer.nodes]


def _node(
    teller: stories.Teller, node_id: str, is_as_wanted: Callable[[node_pb2.Node], bool]
) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        answer = await teller.caller.read("fleet.GetNode", fleet_service_pb2.GetNodeRequest(node_id=node_id))
        return is_as_wanted(answer.node)

    return look
